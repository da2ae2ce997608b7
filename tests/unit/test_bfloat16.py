"""Products over bfloat16: which are, what is stored as what, and that the answers stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import sparrow
from sparrow import lane
from sparrow.bfloat16 import halved, to_bfloat16
from sparrow.builder import Builder
from sparrow.cli import main
from sparrow.export import to_onnx
from sparrow.graph import Graph
from sparrow.kernels import KERNELS
from sparrow.ops.attention import Attention
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Pad
from sparrow.ops.reshape import Reshape
from sparrow.passes import BACK, optimize
from sparrow.quant.bfloat16 import rounded, rounded_products
from sparrow.quant.recipe import Precision
from sparrow.reference import evaluate
from sparrow.rewrite import Remark
from sparrow.targets import target
from sparrow.tensor import BF16, F32, Array, TensorType, round_bfloat16
from sparrow.text import parse_graph, print_graph

RELU = lane.call("relu", lane.Arg(0, F32))


def pointwise(epilogue: lane.Expr | None = None) -> Conv:
    return Conv((1, 1), (1, 1), ((0, 0), (0, 0)), channels_last=True, epilogue=epilogue)


def residual() -> tuple[Graph, dict[str, Array]]:
    """A convolution with relu, one over it, and one over the sum of both results."""
    rng = np.random.default_rng(3)
    b = Builder("residual")
    x = b.input("x", TensorType((1, 12, 12, 64), F32, "NHWC"))

    def weights() -> str:
        return b.const(rng.standard_normal((64, 64, 1, 1)).astype(np.float32) / 8)

    b.origin = "first"
    first = b.add(pointwise(RELU), x, weights())
    b.origin = "second"
    second = b.add(pointwise(), first, weights())
    b.origin = "total"
    total = b.add(Lane(lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32))), first, second)
    b.origin = "third"
    y = b.add(pointwise(), total, weights())
    feeds = {"x": rng.standard_normal((1, 12, 12, 64)).astype(np.float32)}
    return b.finish({"y": y}, {}), feeds


def lowered(g: Graph, name: str = "x86_64_v4_bf16") -> tuple[Graph, list[Remark]]:
    remarks: list[Remark] = []
    return to_bfloat16(g, target(name), 1, KERNELS, remarks), remarks


def test_values_between_products_are_stored_as_bfloat16() -> None:
    g, feeds = residual()
    done, remarks = lowered(g)
    assert [r.applied for r in remarks] == [True] * 3
    assert all(n.op.accumulate == F32 for n in done.nodes if isinstance(n.op, Conv))
    # the input is rounded by a loop of its own, the sum by the node that adds
    rounding = Lane(lane.cast(lane.Arg(0, F32), BF16))
    assert [n.inputs for n in done.nodes if n.op == rounding] == [("x",)]
    assert sum(t.dtype == BF16 for v, t in done.types.items() if v not in done.consts) == 3
    assert done.types["y"].dtype == F32
    got, want = evaluate(done, feeds)["y"], evaluate(g, feeds)["y"]
    # six roundings on the way, each of 2^-9 of what 64 random products of it add up to
    assert np.abs(got - want).max() <= 6 * 2.0**-9 * np.abs(want).max()


def test_the_lowered_graph_is_onnx_and_text() -> None:
    g, feeds = residual()
    done, _ = lowered(g)
    text, arrays = print_graph(done)
    np.testing.assert_array_equal(
        evaluate(parse_graph(text, arrays), feeds)["y"], evaluate(done, feeds)["y"]
    )
    session = onnxruntime.InferenceSession(
        to_onnx(done).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(["y"], feeds)
    want = evaluate(done, feeds)["y"]
    # a rounding to bfloat16 that falls the other way moves an operand by 2^-8
    assert np.abs(theirs - want).max() <= 2.0**-8 * np.abs(want).max()


def attended(rows: int = 40) -> tuple[Graph, dict[str, Array]]:
    """Two heads of 32 features of a sequence, projected, attended causally and projected."""
    rng = np.random.default_rng(5)
    b = Builder("attended")
    x = b.input("x", TensorType((1, rows, 64), F32))

    def product(of: str, name: str) -> str:
        b.origin = name
        return b.add(MatMul(), of, b.const(rng.standard_normal((64, 64)).astype(np.float32) / 8))

    heads = [b.add(Reshape((1, rows, 2, 32)), product(x, name)) for name in "qkv"]
    b.origin = "attention"
    op = Attention(32**-0.5, causal=True, offset=-1, interleaved=(True,) * 4)
    joined = b.add(Reshape((1, rows, 64)), b.add(op, *heads))
    y = product(joined, "last")
    return b.finish({"y": y}, {}), {"x": rng.standard_normal((1, rows, 64)).astype(np.float32)}


@pytest.mark.parametrize("name", ["x86_64_v4_bf16", "x86_64_v4_amx"])
def test_attention_reads_and_writes_what_products_store(name: str) -> None:
    g, feeds = attended()
    done, remarks = lowered(g, name)
    assert all(r.applied for r in remarks) and len(remarks) == 5
    assert halved([done]) == {*"qkv", "attention", "last"}
    attention = next(n for n in done.nodes if isinstance(n.op, Attention))
    read = [done.types[v].dtype for v in (*attention.inputs, *attention.outputs)]
    assert read == [BF16] * 4
    # only the input is rounded by a loop of its own
    assert [n.inputs for n in done.nodes if isinstance(n.op, Lane)] == [("x",)]
    got, want = evaluate(done, feeds)["y"], evaluate(g, feeds)["y"]
    # input, weights and result of each product, weights of the attention: 2^-9 of each
    assert 0 < np.abs(got - want).max() <= 12 * 2.0**-9 * np.abs(want).max()
    text, arrays = print_graph(done)
    np.testing.assert_array_equal(evaluate(parse_graph(text, arrays), feeds)["y"], got)
    session = onnxruntime.InferenceSession(
        to_onnx(done).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(["y"], feeds)
    # the first row sees no key, and the model says what it is then; a rounding may fall elsewhere
    assert np.abs(theirs - got).max() <= 2.0**-7 * np.abs(got).max()
    np.testing.assert_array_equal(theirs[0, 0], np.zeros(64, np.float32))


def test_attention_of_few_rows_or_not_asked_for_stays_float32() -> None:
    g, _ = attended(rows=1)
    done, remarks = lowered(g)
    assert any("few rows" in r.text for r in remarks if r.node == "attention")
    assert "attention" not in halved([done])
    g, _ = attended()
    done = to_bfloat16(g, target("x86_64_v4_amx"), 1, KERNELS, only=frozenset("qkv"))
    assert halved([done]) == {*"qkv"}


def test_what_a_graph_rounds_is_multiplied_as_bfloat16() -> None:
    g, feeds = residual()
    names = [n.outputs[0] for n in g.nodes]
    asked: dict[str, Precision] = dict.fromkeys(names, "bfloat16")
    # the last product stays float32, with it the sum that it reads
    said = rounded(g, {**asked, names[-1]: "float32"}, ())
    only = rounded_products(said)
    assert only == {"first", "second"} and not rounded_products(g)
    fused = optimize(said, BACK)
    done = to_bfloat16(fused, target("x86_64_v4_bf16"), 1, KERNELS, only=only)
    assert halved([done]) == only
    # the input, and the result that the second product and its sum read, which is stored once
    halves = [v for v, t in done.types.items() if t.dtype == BF16 and v not in done.consts]
    assert len(halves) == 2 and [type(n.op) for n in done.nodes] == [Lane, Conv, Conv, Conv]
    got, want = evaluate(done, feeds)["y"], evaluate(said, feeds)["y"]
    # the same numbers are multiplied; a sum of 64 in another order moves a rounding to bfloat16
    assert np.abs(got - want).max() <= 2.0**-8 * np.abs(want).max()
    assert np.abs(want - evaluate(g, feeds)["y"]).max() > 0


def test_codes_and_what_others_read_are_not_rounded_for_all() -> None:
    g, _ = residual()
    names = [n.outputs[0] for n in g.nodes]
    asked: dict[str, Precision] = dict.fromkeys(names, "bfloat16")
    said = rounded(g, asked, {names[0]})
    total = next(n for n in said.nodes if n.outputs == (names[2],))
    assert names[0] in total.inputs
    assert rounded(g, dict.fromkeys(names, "int8"), ()) is g


def test_a_value_that_something_else_reads_stays_float32() -> None:
    rng = np.random.default_rng(4)
    b = Builder("shared")
    a = b.input("a", TensorType((96, 256), F32))
    w = b.const(rng.standard_normal((256, 256)).astype(np.float32) / 16)
    hidden = b.add(MatMul(epilogue=RELU), a, w, "")
    own = b.add(MatMul(trans_b=True), hidden, hidden)
    g = b.finish({"y": b.add(MatMul(), hidden, w), "own": own}, {})
    done, remarks = lowered(g)
    assert [r.applied for r in remarks] == [True, False, True]
    assert "weights are not constant" in remarks[1].text
    (kept,) = (n for n in done.nodes if n.outputs == (hidden,))
    assert done.types[hidden].dtype == F32
    assert isinstance(kept.op, MatMul) and kept.op.epilogue == RELU
    feeds = {"a": round_bfloat16(rng.standard_normal((96, 256)).astype(np.float32))}
    for name, want in evaluate(g, feeds).items():
        off = np.abs(evaluate(done, feeds)[name] - want).max()
        assert off <= 2.0**-7 * np.abs(want).max(), name


def first_layer(kernel: int) -> tuple[Graph, dict[str, Array]]:
    """A convolution of three channels into 64."""
    rng = np.random.default_rng(5)
    b = Builder("first")
    shape, pad = (1, 32, 32, 3), kernel // 2
    op = Conv((2, 2), (1, 1), ((pad, pad), (pad, pad)), channels_last=True, epilogue=RELU)
    w = rng.standard_normal((64, 3, kernel, kernel)).astype(np.float32)
    y = b.add(op, b.input("x", TensorType(shape, F32, "NHWC")), b.const(w))
    feeds = {"x": round_bfloat16(rng.standard_normal(shape).astype(np.float32))}
    return b.finish({"y": y}, {}), feeds


def test_an_odd_channel_is_made_even_where_that_gains() -> None:
    g, feeds = first_layer(7)
    done, _ = lowered(g)
    assert [type(n.op) for n in done.nodes] == [Pad, Lane, Conv]
    assert done.types[done.nodes[-1].inputs[0]].shape == (1, 32, 32, 4)
    got, want = evaluate(done, feeds)["y"], evaluate(g, feeds)["y"]
    assert np.abs(got - want).max() <= 2.0**-8 * np.abs(want).max()
    small, _ = first_layer(1)
    assert lowered(small)[0] is small


def test_other_instruction_sets_keep_float32(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    g, _ = residual()
    same, remarks = lowered(g, "x86_64_v3")
    assert same is g and not halved([same])
    assert all("float32 costs no more" in r.text for r in remarks)
    said: list[str] = []
    bundle = sparrow.build(to_onnx(g), "x86_64_v3", precision="bfloat16", progress=said.append)
    assert bundle.receipt.precision == "float32"
    assert "float32 instead of bfloat16: avx2 multiplies no bfloat16" in said
    onnx.save(to_onnx(g), tmp_path / "g.onnx")
    command = ["build", str(tmp_path / "g.onnx"), "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--target", "x86_64_v3", "--precision", "bfloat16"])
    assert "float32 instead of bfloat16" in capsys.readouterr().err
