"""Normalization, softmax and attention spelled out, in the ways exporters spell them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sparrow import lane
from sparrow.export import to_onnx
from sparrow.graph import Graph
from sparrow.importers.onnx import import_onnx
from sparrow.lane import Arg
from sparrow.ops.attention import HEADS_SECOND, Attention
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.pad import Expand
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.softmax import Softmax
from sparrow.ops.transpose import Transpose
from sparrow.passes import PIPELINE, SCALARS, optimize
from sparrow.passes.attention import attention, group_heads, interleave_inputs, interleave_output
from sparrow.passes.normalization import normalization, scale_norm, shifted_normalization
from sparrow.passes.softmax import flat_softmax, spelled_log_softmax, spelled_softmax
from sparrow.reference import evaluate
from sparrow.rewrite import Rule, apply_rules
from sparrow.tensor import F32
from sparrow.text import parse_graph, print_graph
from unit.passes.check import Net, assert_same, becomes, feeds, kinds, refused, run

EARLY = tuple(p for p in PIPELINE if p.name in ("merge", "tidy", "scalars", "normalization"))


def _centred(n: Net, x: str, axes: tuple[int, ...]) -> str:
    return n.call("sub", x, n.add(Reduce("mean", axes), x))


def _variance(n: Net, d: str, axes: tuple[int, ...]) -> str:
    return n.call("add", n.add(Reduce("mean", axes), n.call("mul", d, d)), n.f(1e-5))


def by_division(n: Net, x: str) -> str:
    """D / sqrt(var + e), d used twice: PyTorch, BERT at opset 11."""
    d = _centred(n, x, (2,))
    return n.call("div", d, n.call("sqrt", _variance(n, d, (2,))))


def by_two_differences(n: Net, x: str) -> str:
    """The difference written once for the square and once for the quotient."""
    root = n.call("sqrt", _variance(n, _centred(n, x, (2,)), (2,)))
    return n.call("div", _centred(n, x, (2,)), root)


def by_reciprocal(n: Net, x: str) -> str:
    """D * (1 / sqrt(var + e))."""
    d = _centred(n, x, (2,))
    inverse = n.call("div", n.f(1), n.call("sqrt", _variance(n, d, (2,))))
    return n.call("mul", d, inverse)


def by_power(n: Net, x: str) -> str:
    """D ^ 2 and (var + e) ^ -0.5."""
    d = _centred(n, x, (2,))
    square = n.add(Reduce("mean", (2,)), n.call("pow", d, n.f(2)))
    return n.call("mul", d, n.call("pow", n.call("add", square, n.f(1e-5)), n.f(-0.5)))


def over_an_image(n: Net, x: str) -> str:
    """Instance normalization: over two axes that are not the last channels."""
    d = _centred(n, x, (1, 2))
    return n.call("div", d, n.call("sqrt", _variance(n, d, (1, 2))))


@pytest.mark.parametrize(
    "spell", [by_division, by_two_differences, by_reciprocal, by_power, over_an_image]
)
def test_layer_norm(spell: Callable[[Net, str], str]) -> None:
    n = Net()
    g = n.done(n.call("relu", spell(n, n.x(2, 5, 8))))
    after = optimize(g, EARLY)
    assert kinds(after) == ["Normalize", "Lane"]
    op = after.nodes[0].op
    assert isinstance(op, Normalize) and op.center
    assert op.epsilon == pytest.approx(1e-5)
    assert_same(g, after)


def test_root_mean_square() -> None:
    n = Net()
    x = n.x(2, 8)
    g = n.done(n.call("mul", x, n.call("div", n.f(1), n.call("sqrt", _variance(n, x, (1,))))))
    after = optimize(g, EARLY)
    assert [k.op for k in after.nodes] == [Normalize((1,), float(np.float32(1e-5)), False, F32)]
    assert_same(g, after)


def test_tensorflow_form_with_scale_and_shift() -> None:
    n = Net()
    x = n.x(2, 3, 8)
    mean = n.add(Reduce("mean", (2,)), x)
    d = n.call("sub", x, mean)
    root = n.call("sqrt", _variance(n, d, (2,)))
    s = n.call("mul", n.call("div", n.f(1), root), n.w(8))
    g = n.done(n.call("add", n.call("mul", x, s), n.call("sub", n.w(8), n.call("mul", mean, s))))
    after = optimize(g, EARLY)
    assert kinds(after) == ["Normalize"] and len(after.nodes[0].inputs) == 3
    assert_same(g, after)


def test_scale_and_shift_join() -> None:
    n = Net()
    y = n.add(Normalize((1,), 1e-5), n.x(2, 8))
    g = n.done(n.call("add", n.call("mul", y, n.w(1, 8)), n.w(8)))
    after = becomes(g, [scale_norm], ["Normalize"])
    assert [after.types[x].shape for x in after.nodes[0].inputs[1:]] == [(8,), (8,)]


def test_a_scale_of_another_shape_stays() -> None:
    n = Net()
    y = n.add(Normalize((1,), 1e-5), n.x(2, 8))
    refused(n.done(n.call("mul", y, n.w(2, 1))), scale_norm, "shape of the normalized axes")


def test_a_scale_that_is_no_constant_stays() -> None:
    n = Net()
    y = n.add(Normalize((1,), 1e-5), n.x(2, 8))
    refused(n.done(n.call("mul", y, n.x(8, name="g"))), scale_norm, "not constant")


def test_a_shared_norm_keeps_its_scale_outside() -> None:
    n = Net()
    y = n.add(Normalize((1,), 1e-5), n.x(2, 8))
    refused(n.done(y, n.call("mul", y, n.w(8))), scale_norm, "used elsewhere")


def test_a_variance_of_something_else_is_no_norm() -> None:
    n = Net()
    x, z = n.x(2, 8), n.x(2, 8, name="z")
    d = _centred(n, z, (1,))
    g = n.done(n.call("div", _centred(n, x, (1,)), n.call("sqrt", _variance(n, d, (1,)))))
    refused(apply_rules(g, SCALARS), normalization, "not what the squares are of")


def test_a_scaled_quotient_is_no_norm() -> None:
    n = Net()
    d = _centred(n, n.x(2, 8), (1,))
    y = n.call("div", n.call("mul", d, n.f(3)), n.call("sqrt", _variance(n, d, (1,))))
    refused(apply_rules(n.done(y), SCALARS), normalization, "scaled by 3")
    assert run(n.done(y), shifted_normalization)[0].nodes


def _softmax(n: Net, x: str, shift: bool = True) -> tuple[str, str]:
    d = n.call("sub", x, n.add(Reduce("max", (1,)), x)) if shift else x
    e = n.call("exp", d)
    return d, n.call("div", e, n.add(Reduce("sum", (1,)), e))


def test_softmax() -> None:
    n = Net()
    after = becomes(n.done(_softmax(n, n.x(3, 7))[1]), [spelled_softmax], ["Softmax"])
    assert after.nodes[0].op == Softmax(1)


def test_softmax_without_the_maximum_stays() -> None:
    n = Net()
    refused(n.done(_softmax(n, n.x(3, 7), False)[1]), spelled_softmax, "overflow")


def test_log_softmax() -> None:
    n = Net()
    x = n.x(3, 7)
    d = n.call("sub", x, n.add(Reduce("max", (1,)), x))
    y = n.call("sub", d, n.call("log", n.add(Reduce("sum", (1,)), n.call("exp", d))))
    becomes(n.done(y), [spelled_log_softmax], ["Softmax"])


def test_flattened_softmax() -> None:
    n = Net()
    y = n.add(Softmax(1), n.add(Reshape((6, 4)), n.x(2, 3, 4)))
    after = becomes(n.done(n.add(Reshape((2, 3, 4)), y)), [flat_softmax], ["Softmax"])
    assert after.nodes[0].op == Softmax(2)


def test_softmax_over_flattened_axes_stays() -> None:
    n = Net()
    y = n.add(Softmax(1), n.add(Reshape((2, 12)), n.x(2, 3, 4)))
    refused(n.done(n.add(Reshape((2, 3, 4)), y)), flat_softmax, "several axes")


def _attend(n: Net, q: str, k: str, v: str, mask: str = "", trans_b: bool = True) -> str:
    s = n.add(MatMul(trans_b=trans_b), q, k)
    e: lane.Expr = lane.call("mul", Arg(0, F32), lane.Imm(0.25, F32))
    names = [s]
    if mask:
        e, names = lane.call("add", e, Arg(1, F32)), [s, mask]
    p = n.add(Softmax(len(n.shape(q)) - 1), n.lane(e, *names))
    return n.add(MatMul(), p, v)


def _heads(n: Net, name: str, rows: int = 6) -> str:
    return n.add(Transpose(HEADS_SECOND), n.x(2, rows, 4, 16, name=name))


def test_attention_reads_projections_where_they_lie() -> None:
    n = Net()
    y = _attend(n, _heads(n, "q"), _heads(n, "k", 5), _heads(n, "v", 5), n.x(2, 1, 1, 5, name="m"))
    g = n.done(n.add(Transpose(HEADS_SECOND), y))
    after = becomes(
        g, [attention, interleave_inputs, interleave_output], ["Reshape"] * 3 + ["Attention"]
    )
    op = after.nodes[-1].op
    assert isinstance(op, Attention) and op.interleaved == (True,) * 4 and op.scale == 0.25
    assert kinds(optimize(g)) == ["Attention"]


def test_attention_of_transposed_keys() -> None:
    n = Net()
    k = n.add(Transpose((0, 2, 3, 1)), n.x(2, 5, 4, 16, name="k"))
    y = _attend(n, _heads(n, "q"), k, _heads(n, "v", 5), trans_b=False)
    g = n.done(y)
    assert_same(g, after := optimize(g))
    assert kinds(after) == ["Attention"]


def test_attention_of_rank_3() -> None:
    n = Net()
    q, k, v = (n.x(4, 6, 16, name=i) for i in "qkv")
    g = n.done(_attend(n, q, k, v))
    assert "Attention" in kinds(run(g, attention)[0])


def test_masks_of_shifted_windows_are_one() -> None:
    """A bias of each head, and a mask of each window that is added over an axis of windows."""
    n = Net()
    q, k, v = (n.x(4, 2, 6, 16, name=i) for i in "qkv")
    s = n.call("add", n.call("mul", n.add(MatMul(trans_b=True), q, k), n.f(0.25)), n.w(1, 2, 6, 6))
    windows = n.call("add", n.add(Reshape((1, 4, 2, 6, 6)), s), n.w(1, 4, 1, 6, 6))
    p = n.add(Softmax(3), n.add(Reshape((4, 2, 6, 6)), windows))
    g = n.done(n.add(MatMul(), p, v))
    assert_same(g, after := optimize(g))
    assert kinds(after) == ["Attention"]
    assert after.types[after.nodes[0].inputs[3]].shape == (4, 2, 6, 6)


def test_masks_that_are_computed_are_added_before() -> None:
    """Scores by content and by place, divided together, less what a mask says is not seen."""
    n = Net()
    q, k, v = (n.x(1, 2, 6, 16, name=i) for i in "qkv")
    s = n.call("add", n.add(MatMul(trans_b=True), q, k), n.x(1, 2, 6, 6, name="places"))
    hidden = n.call("mul", n.call("sub", n.f(1), n.x(1, 1, 1, 6, name="m")), n.f(-1e4))
    p = n.add(Softmax(3), n.call("add", n.call("div", s, n.f(4)), hidden))
    g = n.done(n.add(MatMul(), p, v))
    values = feeds(g) | {"m": np.array([0, 1, 1, 0, 1, 1], np.float32).reshape(1, 1, 1, 6)}
    assert_same(g, after := optimize(g), values)
    assert kinds(after) == ["Lane", "Attention"]


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("trans_b", [True, False])
def test_keys_and_values_of_all_heads(rank: int, trans_b: bool) -> None:
    n = Net()
    lead = (1, 1)[: rank - 2]
    q = n.x(*lead[1:], 3, 6, 16, name="q")
    k = n.x(*lead, *((5, 16) if trans_b else (16, 5)), name="k")
    g = n.done(_attend(n, q, k, n.x(*lead, 5, 8, name="v"), trans_b=trans_b))
    after, _ = run(g, attention)
    (op,) = (x.op for x in after.nodes if isinstance(x.op, Attention))
    assert op.scale == 0.25


def test_scores_that_are_multiplied_by_themselves_are_no_mask() -> None:
    n = Net()
    q, k, v = (n.x(1, 2, 4, 8, name=i) for i in "qkv")
    s = n.add(MatMul(trans_b=True), q, k)
    e = lane.call("add", Arg(0, F32), lane.call("mul", Arg(0, F32), Arg(0, F32)))
    p = n.add(Softmax(3), n.lane(e, s))
    refused(n.done(n.add(MatMul(), p, v)), attention, "not a scaled matrix product")


@pytest.mark.parametrize("given", [True, False])
def test_attention_rows_that_see_nothing_stay_nan(given: bool) -> None:
    n = Net()
    hidden = np.zeros((6, 5), np.float32)
    hidden[1], hidden[2, 3:] = -np.inf, -np.inf
    q, k, v = _heads(n, "q"), _heads(n, "k", 5), _heads(n, "v", 5)
    g = n.done(_attend(n, q, k, v, n.x(6, 5, name="m") if given else n.const(hidden)))
    values = feeds(g) | ({"m": hidden} if given else {})
    after = optimize(g)
    assert kinds(after) == ["Attention"]
    want = np.zeros((2, 4, 6, 16), np.bool_)
    want[:, :, 1] = True
    exported = import_onnx(to_onnx(after)).graph
    for same in (after, parse_graph(*print_graph(after)), exported, optimize(exported)):
        np.testing.assert_array_equal(np.isnan(evaluate(same, values)["y0"]), want)
    assert_same(g, after, values)


def _probabilities_used(n: Net) -> Graph:
    q, k, v = (n.x(1, 2, 4, 8, name=i) for i in "qkv")
    p = n.add(Softmax(3), n.add(MatMul(trans_b=True), q, k))
    return n.done(n.add(MatMul(), p, v), p)


def _softmax_over_rows(n: Net) -> Graph:
    q, k, v = (n.x(1, 2, 4, 8, name=i) for i in "qkv")
    p = n.add(Softmax(2), n.add(MatMul(trans_b=True), q, k))
    return n.done(n.add(MatMul(), p, v))


def _shared_keys(n: Net) -> Graph:
    q, k, v = n.x(1, 2, 4, 8, name="q"), n.x(1, 1, 4, 8, name="k"), n.x(1, 2, 4, 8, name="v")
    return n.done(_attend(n, q, k, v))


def _no_scores(n: Net) -> Graph:
    return n.done(n.add(MatMul(), n.add(Softmax(3), n.x(1, 2, 4, 4)), n.x(1, 2, 4, 8, name="v")))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_probabilities_used, "probabilities are used"),
        (_softmax_over_rows, "not over the keys"),
        (_shared_keys, "broadcast over batch"),
        (_no_scores, "not a scaled matrix product"),
    ],
)
def test_no_attention(make: Callable[[Net], Graph], why: str) -> None:
    refused(make(Net()), attention, why)


def test_repeated_heads_are_read_once() -> None:
    n = Net()

    def repeated(name: str) -> str:
        x = n.add(Reshape((1, 2, 1, 5, 16)), n.x(1, 2, 5, 16, name=name))
        return n.add(Reshape((1, 6, 5, 16)), n.add(Expand((1, 2, 3, 5, 16)), x))

    g = n.done(_attend(n, n.x(1, 6, 4, 16, name="q"), repeated("k"), repeated("v")))
    rules: list[Rule] = [attention, group_heads]
    after, _ = run(g, *rules)
    assert "Expand" not in kinds(after)
