"""Quantizing small networks: where codes go, what the numbers are, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparrow
from data import REPO
from small_models import classifier, model, value
from sparrow import lane
from sparrow.builder import Builder
from sparrow.errors import BadInput
from sparrow.graph import Graph, Node
from sparrow.importers.model import import_model
from sparrow.importers.onnx import import_onnx
from sparrow.ops.attention import Attention
from sparrow.ops.attention_codes import AttentionCodes
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reshape import Reshape
from sparrow.ort import refusals
from sparrow.passes import BACK, FRONT, optimize
from sparrow.passes.code_signs import unsigned
from sparrow.portable import to_portable_onnx
from sparrow.quant import Precision, Recipe, quantize, run
from sparrow.quant.engine import engine, onnxruntime, reference
from sparrow.quant.equalize import equalize
from sparrow.quant.recipe import Pins, Rounding, precisions
from sparrow.quant.run import Quantized
from sparrow.reference import evaluate
from sparrow.samples import Feeds, draw
from sparrow.tensor import F16, F32, F64, I8, I16, I32, Affine, DType, TensorType

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def front(proto: object) -> Graph:
    return optimize(import_onnx(proto).graph, FRONT)  # type: ignore[arg-type]


def calls(g: Graph, n: int) -> list[Feeds]:
    return [draw(g, (7, i)) for i in range(n)]


def test_a_classifier_becomes_codes_from_end_to_end() -> None:
    g = front(classifier())
    q = run(g, calls(g, 32))
    assert [layer.precision for layer in q.layers] == ["int8"] * 3
    made = q.graph.producers()
    for n in q.graph.nodes:
        if type(n.op).__name__ not in ("Conv", "MatMul"):
            continue
        x, w, b = (made[v] for v in n.inputs)
        assert isinstance(x.op, Dequantize) and isinstance(w.op, Dequantize)
        assert isinstance(b.op, Dequantize)
        codes, bias = q.graph.types[w.inputs[0]], q.graph.types[b.inputs[0]]
        assert (codes.dtype, bias.dtype) == (I8, I32)
        assert isinstance(codes.quant, Affine) and isinstance(bias.quant, Affine)
        assert not codes.quant.zero_point.any()
        assert np.abs(q.graph.consts[w.inputs[0]].astype(int)).max() == 127
        want = x.op.quant.scale.reshape(-1) * codes.quant.scale.reshape(-1)
        np.testing.assert_allclose(bias.quant.scale, want, rtol=1e-6)
    # inputs and outputs stay float
    assert all(q.graph.types[x].quant is None for x in (*q.graph.inputs, *q.graph.outputs))


def test_the_quantized_graph_answers_like_the_float_one() -> None:
    g = front(classifier())
    q = quantize(g, calls(g, 32))
    logits = [n.inputs[0] for n in g.nodes if type(n.op).__name__ == "Softmax"]
    a, b = reference(g, logits), reference(q, logits)
    for feeds in calls(g, 8):
        for name, y in a(feeds).items():
            noise = float(np.square(b(feeds)[name] - y).mean() / np.square(y).mean())
            assert 10 * np.log10(noise) < -25


def test_onnxruntime_runs_the_export_to_the_same_answers() -> None:
    g = front(classifier())
    q = quantize(g, calls(g, 32))
    session = ort.InferenceSession(to_portable_onnx(q).SerializeToString())
    feeds = calls(g, 1)[0]
    mine = evaluate(q, feeds)
    for name, y in zip(q.outputs, session.run(None, feeds), strict=True):
        np.testing.assert_allclose(y, mine[name], atol=0.02)


@pytest.mark.parametrize("rounding", ["gptq", "nearest", "adaround"])
def test_weights_of_seven_bits_fit_two_products_in_16(rounding: Rounding) -> None:
    g = front(classifier())
    recipe = Recipe(weight_bits=7, rounding=rounding)
    q = quantize(g, calls(g, 32), recipe)
    weights = [
        q.consts[n.inputs[0]] for n in q.nodes if isinstance(n.op, Dequantize) and _weight(q, n)
    ]
    assert len(weights) == 3
    for w in weights:
        assert 60 <= np.abs(w.astype(int)).max() <= 63
    # whatever neighbours an engine takes: two unsigned bytes and two of these
    assert 2 * 255 * 63 < 1 << 15
    session = ort.InferenceSession(to_portable_onnx(unsigned(q)).SerializeToString())
    feeds = calls(g, 1)[0]
    mine = evaluate(q, feeds)
    for name, y in zip(q.outputs, session.run(None, feeds), strict=True):
        np.testing.assert_allclose(y, mine[name], atol=0.02)


def _weight(g: Graph, n: Node) -> bool:
    return n.inputs[0] in g.consts and g.consts[n.inputs[0]].dtype == np.int8


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"weight_bits": 6}, "weight_bits is 6"),
        ({"weight_bits": 7, "weights": "per_group"}, "7 bits with weights per_group"),
        ({"weight_bits": 7, "scales": "power_of_two"}, "7 bits with scales power_of_two"),
    ],
)
def test_weights_of_other_widths_are_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        Recipe(**fields)


def test_a_clamp_takes_no_codes_of_its_own() -> None:
    g = front(classifier())
    q = quantize(g, calls(g, 8))
    made = q.producers()
    relus = [n for n in q.nodes if type(n.op).__name__ == "Lane"]
    assert relus and all(type(made[n.inputs[0]].op).__name__ == "Conv" for n in relus)


def test_the_same_samples_give_the_same_graph() -> None:
    g = front(classifier())
    first, again = (
        to_portable_onnx(quantize(g, calls(g, 8))).SerializeToString() for _ in range(2)
    )
    assert first == again


def concat_net() -> Graph:
    """Two convolutions of very different range, joined and convolved again, then a tail."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.standard_normal((4, 2, 3, 3)).astype(np.float32),
        "w2": (rng.standard_normal((4, 2, 3, 3)) * 10).astype(np.float32),
        "w3": rng.standard_normal((3, 8, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "left"),
        helper.make_node("Conv", ["x", "w2"], ["b"], "right"),
        helper.make_node("Concat", ["a", "b"], ["c"], "join", axis=1),
        helper.make_node("Conv", ["c", "w3"], ["d"], "last"),
        helper.make_node("Sin", ["d"], ["e"], "tail"),
    ]
    return front(model(nodes, [value("x", (1, 2, 8, 8))], [value("e", (1, 3, 6, 6))], constants))


def test_concat_shares_one_scale_and_the_tail_stays_float() -> None:
    g = concat_net()
    q = quantize(g, calls(g, 4))
    scales = {q.types[n.outputs[0]].quant for n in q.nodes if isinstance(n.op, Quantize)}
    # x and the joined ones; the sine reads the last sum as it is
    assert len(scales) == 2
    assert sum(isinstance(n.op, Quantize) for n in q.nodes) == 4
    assert type(q.producers()["e"].op).__name__ == "Lane"


@pytest.mark.parametrize("pattern", ["last", "l?st", "d"])
def test_a_pinned_layer_stays_float(pattern: str) -> None:
    g = concat_net()
    q = run(g, calls(g, 4), Recipe(pins=((pattern, "float32"),)))
    assert [layer.name for layer in q.layers] == ["left", "right"]


def test_what_comes_before_the_first_product_reads_the_input_as_it_is() -> None:
    b = Builder("magnitude")
    x = b.input("x", TensorType((1, 1, 8, 8), F32))
    flat = b.add(Reshape((1, 1, 64)), x)
    square = b.call("mul", flat, flat)
    both = b.add(Concat(1), flat, square)
    w = b.const(np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32))
    g = optimize(b.finish({"y": b.add(Conv((1,), (1,), ((1, 1),)), both, w)}, {}), FRONT)
    q = quantize(g, calls(g, 4))
    made = q.producers()
    (product,) = [n for n in q.nodes if isinstance(n.op, Lane)]
    assert set(product.inputs) == {"x"}
    # the square and the input beside it share a scale behind it
    (joined,) = [n for n in q.nodes if isinstance(n.op, Concat)]
    assert all(isinstance(made[v].op, Dequantize) for v in joined.inputs)


def test_sixteen_bits_are_symmetric_and_closer() -> None:
    g = concat_net()
    errors = []
    for precision in ("int8", "int16x8"):
        q = run(g, calls(g, 4), Recipe(precision=precision, widen=False))
        feeds = calls(g, 6)[-1]
        y, z = evaluate(g, feeds)["e"], evaluate(q.graph, feeds)["e"]
        errors.append(float(np.square(z - y).mean()))
    assert errors[1] < errors[0] / 2
    codes = [q.graph.types[n.outputs[0]] for n in q.graph.nodes if isinstance(n.op, Quantize)]
    assert {t.dtype for t in codes} == {I16}
    assert not any(t.quant.zero_point.any() for t in codes if isinstance(t.quant, Affine))


def test_sixteen_bits_hold_twice_what_was_seen() -> None:
    g = concat_net()
    seen = calls(g, 4)
    q = quantize(g, seen, Recipe(precision="int16x8"))
    (n,) = [n for n in q.nodes if isinstance(n.op, Quantize) and n.inputs[0] == "x"]
    beyond = np.full((1, 1, 1, 1), 1.99 * max(np.abs(f["x"]).max() for f in seen), np.float32)
    (codes,) = n.op.eval(beyond)
    assert 32000 < codes.item() < I16.limits[1]


def normalised(b: Builder) -> tuple[str, str]:
    """An input of five tokens, and its layer norm."""
    x = b.input("x", TensorType((1, 5, 16), F32))
    ones = b.const(np.ones(16, np.float32))
    return x, b.add(Normalize((2,), 1e-5), x, ones, ones)


def transformer_block() -> Graph:
    rng = np.random.default_rng(3)
    b = Builder("block")
    x, n = normalised(b)
    up = b.add(MatMul(), n, b.const(rng.standard_normal((16, 24)).astype(np.float32)))
    act = b.lane(lane.call("gelu", lane.Arg(0, F32)), up)
    down = b.add(MatMul(), act, b.const(rng.standard_normal((24, 16)).astype(np.float32)))
    return b.finish({"y": b.call("add", x, down)}, {})


def test_products_of_a_normalised_residual_stream_read_16_bits() -> None:
    g = transformer_block()

    def chosen(recipe: Recipe) -> list[str]:
        return [x.precision for x in run(g, calls(g, 8), recipe).layers]

    assert chosen(Recipe()) == ["int16x8"] * 2
    assert chosen(Recipe(residual="int8")) == ["int8"] * 2
    first = next(n.outputs[0] for n in g.nodes if isinstance(n.op, MatMul))
    assert chosen(Recipe(pins=((first, "int8"),))) == ["int8", "int16x8"]


def test_a_product_may_be_turned_before_it_joins_the_stream() -> None:
    """As torch exports attention: its products are transposed and reshaped before the sum."""
    rng = np.random.default_rng(3)
    b = Builder("turned")
    x, n = normalised(b)
    down = b.add(MatMul(), n, b.const(rng.standard_normal((16, 16)).astype(np.float32)))
    turned = b.transpose(b.reshape(b.transpose(down, (1, 0, 2)), (5, 16, 1)), (2, 0, 1))
    y = b.call("add", x, turned)
    last = b.call("mul", y, y)
    g = b.finish({"y": last}, {})
    found = precisions(g, Recipe())
    assert found[down] == found[y] == "int16x8" and found["y"] == "int8"


def attention_block(norm: Normalize) -> Graph:
    """A transformer's layer with a class token, a mask of constants and heads that share keys."""
    rng = np.random.default_rng(3)
    b = Builder("block")

    def product(x: str, columns: int) -> str:
        w = rng.standard_normal((b.shape(x)[-1], columns)).astype(np.float32) / 4
        return b.add(MatMul(), x, b.const(w))

    token = b.const(rng.standard_normal((1, 1, 16)).astype(np.float32))
    x = b.add(Concat(1), token, b.input("x", TensorType((1, 6, 16), F32)))
    affine = [b.const(rng.uniform(0.5, 1, 16).astype(np.float32)) for _ in range(1 + norm.center)]
    n = b.add(norm, x, *affine)
    q, k, v = (b.reshape(product(n, 8 * h), (1, 7, h, 8)) for h in (2, 1, 1))
    mask = b.const(np.where(np.arange(7) == 3, -np.inf, 0).astype(np.float32).reshape(1, 1, 1, 7))
    y = b.add(Attention(0.35, interleaved=(True,) * 4), q, k, v, mask)
    x = b.call("add", x, product(b.reshape(y, (1, 7, 16)), 16))
    up = b.lane(lane.call("gelu", lane.Arg(0, F32)), product(b.add(norm, x, *affine), 24))
    return b.finish({"y": b.call("add", x, product(up, 16))}, {})


@pytest.mark.parametrize("center", [True, False])
def test_a_complete_transformer_of_16_bits_is_integers_from_end_to_end(center: bool) -> None:
    g = attention_block(Normalize((2,), 1e-5, center))
    q = quantize(g, calls(g, 8), Recipe(complete=True, precision="int16x8"))
    whole = optimize(q, BACK)
    kinds = {type(n.op) for n in whole.nodes}
    assert AttentionCodes in kinds and not kinds & {Attention, Normalize}
    ends = {*whole.inputs, *whole.outputs}
    for n in whole.nodes:
        mine = [x for x in (*n.inputs, *n.outputs) if x and x not in whole.consts]
        floats = {x for x in mine if whole.types[x].dtype == F32} - ends
        # what is float is one number per row: roots of variances
        assert all(whole.types[x].shape[-1] == 1 for x in floats), n
    feeds = calls(g, 9)[-1]
    y, z = evaluate(g, feeds)["y"], evaluate(whole, feeds)["y"]
    assert np.square(z - y).sum() < 1e-3 * np.square(y).sum()


@pytest.mark.parametrize(("precision", "dtype"), [("int8", I8), ("int16x8", I16)])
def test_constants_beside_codes_have_as_many_bits(precision: Precision, dtype: DType) -> None:
    """Angles of rotary embeddings of 8 bits cost stories260K 7 dB."""
    rng = np.random.default_rng(3)
    b = Builder("turned")
    x = b.input("x", TensorType((1, 6, 8), F32))
    angles = b.const(rng.uniform(-1, 1, (1, 6, 8)).astype(np.float32))
    y = b.call("mul", b.add(MatMul(), x, b.const(np.eye(8, dtype=np.float32))), angles)
    g = b.finish({"y": y}, {})
    q = quantize(g, calls(g, 4), Recipe(complete=True, precision=precision))
    last = q.producers()[q.producers()["y"].inputs[0]].inputs[0]
    (turned,) = [n for n in q.nodes if last in n.outputs]
    (codes,) = [n.inputs[0] for n in q.nodes if n.outputs[0] == turned.inputs[1]]
    assert codes in q.consts and q.types[codes].dtype == dtype


def test_products_of_two_activations_of_a_stream_stay_float() -> None:
    """Both would have 16 bits: four products, which float32 is as fast as or faster."""
    rng = np.random.default_rng(4)
    b = Builder("scores")
    _, n = normalised(b)
    q, k = (
        b.add(MatMul(), n, b.const(rng.standard_normal((16, 8)).astype(np.float32))) for _ in "qk"
    )
    s = b.add(MatMul(trans_b=True), q, k)
    y = b.add(MatMul(), s, b.const(rng.standard_normal((5, 4)).astype(np.float32)))
    g = b.finish({"y": y}, {})

    def chosen(recipe: Recipe) -> dict[str, str]:
        return {layer.value: layer.precision for layer in run(g, calls(g, 8), recipe).layers}

    others = dict.fromkeys((q, k, "y"), "int16x8")
    assert chosen(Recipe()) == others
    assert chosen(Recipe(complete=True)) == {**others, s: "int16x8"}
    assert chosen(Recipe(residual="int8")) == dict.fromkeys((q, k, s, "y"), "int8")
    assert chosen(Recipe(pins=((s, "int16x8"),))) == {**others, s: "int16x8"}


def test_slopes_and_choices_of_a_device_of_integers() -> None:
    """A slope is one operator; of a choice what compares is no codes."""
    rng = np.random.default_rng(6)
    b = Builder("slopes")
    x = b.input("x", TensorType((1, 4, 6, 6), F32))
    arg, zero = lane.Arg(0, F32), lane.Imm(0.0, F32)
    below = lane.call("lt", arg, zero)

    def conv(x: str) -> str:
        w = b.const(rng.standard_normal((4, 4, 1, 1)).astype(np.float32))
        return b.add(Conv((1, 1), (1, 1), ((0, 0), (0, 0))), x, w)

    slope = lane.call("where", below, lane.call("mul", lane.Imm(0.1, F32), arg), arg)
    step = lane.call("where", lane.call("gt", arg, lane.Imm(0.3, F32)), arg, zero)
    g = b.finish({"y": conv(b.lane(step, conv(b.lane(slope, conv(x)))))}, {})
    q = quantize(g, calls(g, 8), Recipe(complete=True))
    kinds = [n.op_type for n in to_portable_onnx(q).graph.node]
    assert (kinds.count("LeakyRelu"), kinds.count("Where"), kinds.count("Conv")) == (1, 1, 3)
    feeds = calls(g, 9)[-1]
    y, z = evaluate(g, feeds)["y"], evaluate(q, feeds)["y"]
    assert np.square(z - y).sum() < 1e-2 * np.square(y).sum()


def uneven_net(bright: float) -> Graph:
    """A convolution that reads a hundred large elements beside many small ones."""
    rng = np.random.default_rng(5)
    b = Builder("uneven")
    x = b.input("x", TensorType((1, 8, 8, 8), F32))
    scale = np.ones((1, 8, 1, 1), np.float32)
    scale[0, 0] = bright
    first = b.const(np.eye(8, dtype=np.float32)[:, :, None, None] * scale.reshape(8, 1, 1, 1))
    w = rng.standard_normal((4, 8, 1, 1)).astype(np.float32) / scale**2
    point = ((1, 1), (1, 1), ((0, 0), (0, 0)))
    wide = b.add(Conv(*point), x, first)
    return optimize(b.finish({"y": b.add(Conv(*point), wide, b.const(w))}, {}), FRONT)


def test_a_value_that_8_bits_do_not_hold_takes_16() -> None:
    even, uneven = uneven_net(1.0), uneven_net(500.0)
    assert run(even, calls(even, 8)).recipe.wide == ()
    q = run(uneven, calls(uneven, 8))
    assert q.recipe.wide
    assert any("takes 16 bits" in note for note in q.calibration.health.notes)
    feeds = calls(uneven, 9)[-1]
    y, z = evaluate(uneven, feeds)["y"], evaluate(q.graph, feeds)["y"]
    assert np.square(z - y).sum() < 1e-3 * np.square(y).sum()
    # the recipe that is found gives the same codes again
    again = quantize(uneven, calls(uneven, 8), q.recipe)
    proto, other = (to_portable_onnx(g).SerializeToString() for g in (q.graph, again))
    assert proto == other
    assert run(uneven, calls(uneven, 8), Recipe(residual="int8")).recipe.wide == ()
    # a pin of the user's counts
    pinned = Recipe(pins=(("Conv", "int8"),))
    assert run(uneven, calls(uneven, 8), pinned).recipe.wide == ()
    # also where it will be put on later
    assert run(uneven, calls(uneven, 8), later=pinned.pins).recipe.wide == ()
    # and over what a recipe has from elsewhere
    both = run(uneven, calls(uneven, 8), replace(q.recipe, pins=pinned.pins))
    assert [x.precision for x in both.layers] == ["int8", "int8"]
    assert [x.precision for x in q.layers] != ["int8", "int8"]


def test_time_is_spent_on_values_that_make_much_of_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sklearn.datasets import load_digits

    # functions that read floats leave less to widen
    for name in ("fused", "read_by_functions"):
        monkeypatch.setattr(f"sparrow.quant.place.{name}", lambda *_: {})

    images = (load_digits().images / 16).astype(np.float32)
    feeds = [{"image": x[None, None]} for x in images[:32]]
    g = optimize(import_model(REPO / "examples" / "digits" / "digits.onnx").graph, FRONT)
    near = run(g, feeds, Recipe())
    assert near.recipe.wide == ()  # 20 dB are asked for, and there are more
    nearer = run(g, feeds, Recipe(fidelity=80.0))
    assert nearer.recipe.wide
    assert sum(x.precision == "int16x8" for x in nearer.layers) <= len(nearer.recipe.wide) + 1

    def error(q: Quantized) -> float:
        # of the digits that calibrate: a few make most of it, other ones elsewhere
        pairs = [(evaluate(g, x), evaluate(q.graph, x)) for x in feeds]
        return float(sum(np.square(a[y] - b[y]).sum() for a, b in pairs for y in g.outputs))

    assert error(nearer) < 0.8 * error(near)


def test_a_wide_value_that_is_none_is_refused() -> None:
    g = concat_net()
    with pytest.raises(BadInput, match="'nothing' is no value"):
        run(g, calls(g, 2), Recipe(wide=("nothing",)))
    with pytest.raises(BadInput, match="fidelity"):
        Recipe(fidelity=float("nan"))


def test_a_pin_that_fits_nothing_is_refused_with_names_near_it() -> None:
    g = concat_net()
    with pytest.raises(BadInput, match=r"pin 'lats' fits no layer.*'last'"):
        run(g, calls(g, 4), Recipe(pins=(("lats", "float32"),)))


@pytest.mark.parametrize(
    ("pins", "text"),
    [((), "3 of its 3 layers read codes"), ((("fc", "float32"),), "2 of its 3 layers")],
)
def test_a_quantized_model_is_refused(pins: Pins, text: str) -> None:
    """Its codes would be rounded once more, and codes for what it keeps in floats are not asked."""
    g = front(classifier())
    once = run(g, calls(g, 8), Recipe(pins=pins, widen=False)).graph
    for graph in (once, unsigned(once)):
        again = front(to_portable_onnx(graph))
        with pytest.raises(BadInput, match=f"quantized already: {text}"):
            run(again, calls(g, 8))


@pytest.mark.parametrize("signed", [True, False])
def test_activations_of_a_model_whose_weights_alone_are_codes_are_quantized(signed: bool) -> None:
    """Its weights keep the codes that they have, where these are what the quantizer would write."""
    rng = np.random.default_rng(7)
    codes = rng.integers(-127, 128, (2, 6, 6)).astype(np.int8)
    codes[:, 0] = 127  # the largest of every channel
    scales = rng.uniform(0.01, 0.03, (2, 6)).astype(np.float32)
    constants: dict[str, np.ndarray] = {}
    nodes, x = [], "x"
    for i in range(2):
        constants[f"w{i}"] = codes[i] if signed else (codes[i].astype(int) + 128).astype(np.uint8)
        constants[f"s{i}"] = scales[i]
        constants[f"z{i}"] = np.zeros(6, np.int8) if signed else np.full(6, 128, np.uint8)
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{k}{i}" for k in "wsz"], [f"f{i}"], axis=1)
        )
        nodes.append(helper.make_node("MatMul", [x, f"f{i}"], [f"p{i}"], f"product{i}"))
        x = f"p{i}"
    m = model(nodes, [value("x", (3, 6))], [value("p1", (3, 6))], constants)
    feeds = [{"x": rng.standard_normal((3, 6)).astype(np.float32)} for _ in range(12)]
    done = sparrow.quantize(m, feeds, Recipe(rounding="nearest", widen=False))
    stored = [numpy_helper.to_array(t) for t in done.graph.initializer if t.dims == [6, 6]]
    assert sorted(a.tobytes() for a in stored) == sorted(c.tobytes() for c in codes)
    assert sum(n.op_type == "QuantizeLinear" for n in done.graph.node) >= 2
    bundle = sparrow.build(done)
    want = evaluate(front(m), feeds[0])["p1"]
    assert np.abs(bundle.run(feeds[0])["p1"] - want).max() < 0.03 * np.abs(want).max()


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_a_quantized_recurrent_layer_is_refused(op: str) -> None:
    rng, units = np.random.default_rng(4), 5
    rows = units * (4 if op == "LSTM" else 3)
    weights = {k: rng.standard_normal((1, rows, n), np.float32) for k, n in (("w", 3), ("r", 5))}
    node = helper.make_node(op, ["x", "w", "r"], ["y"], "cell", hidden_size=units)
    g = front(model([node], [value("x", (7, 1, 3))], [value("y", (7, 1, 1, units))], weights))
    once = run(g, calls(g, 8), Recipe(widen=False)).graph
    again = front(to_portable_onnx(once))
    with pytest.raises(BadInput, match="quantized already: 1 of its 1 layers read codes"):
        run(again, calls(g, 8))


@pytest.mark.parametrize("weights", [False, True])
def test_codes_of_pixels_or_of_weights_alone_are_no_quantization(weights: bool) -> None:
    proto = classifier()
    i, name = (1, "w2") if weights else (0, "x")
    scale = helper.make_tensor("s", FLOAT, (), [0.01])
    proto.graph.initializer.append(scale)
    if weights:
        (w,) = (t for t in proto.graph.initializer if t.name == name)
        w.CopyFrom(numpy_helper.from_array(np.ones(w.dims, np.int8), name))
    else:
        proto.graph.input[0].type.tensor_type.elem_type = UINT8
    node = next(n for n in proto.graph.node if name in n.input)
    node.input[i] = "floats"
    proto.graph.node.insert(0, helper.make_node("DequantizeLinear", [name, "s"], ["floats"]))
    g = front(proto)
    assert len(run(g, calls(g, 8)).layers) == 3


@pytest.mark.parametrize("dtype", [F16, F64])
def test_layers_of_other_floats_are_named(dtype: DType) -> None:
    b = Builder("g")
    x = b.input("x", TensorType((2, 8), dtype))
    w = b.const(np.ones((8, 4), dtype.numpy))
    g = b.finish({"y": b.add(MatMul(), x, w)}, {})
    with pytest.raises(BadInput, match=f"layers compute in {dtype.name}; quantize the float32"):
        run(g, calls(g, 2))


def test_samples_that_say_nothing_are_refused() -> None:
    g = concat_net()
    shape = (1, 2, 8, 8)
    with pytest.raises(BadInput, match="empty"):
        run(g, [])
    with pytest.raises(BadInput, match="constant"):
        run(g, [{"x": np.ones(shape, np.float32)}] * 3)
    bad = np.ones(shape, np.float32)
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(BadInput, match="NaN"):
        run(g, [{"x": bad}])


def test_a_sample_of_the_evaluation_set_is_refused() -> None:
    from sparrow.quant import digest

    g = concat_net()
    feeds = calls(g, 4)
    with pytest.raises(BadInput, match="sample 2 is also in the evaluation set"):
        run(g, feeds, evaluation=frozenset({digest(feeds[2])}))


def test_the_health_of_the_set_is_reported() -> None:
    g = concat_net()
    feeds = calls(g, 5)
    far = {"x": feeds[0]["x"] * 100}
    notes = " / ".join(run(g, [*feeds, feeds[0], far]).calibration.health.notes)
    assert (
        "only 7 samples calibrate: 32 or more" in notes and "duplicates among 7 samples: 1" in notes
    )
    assert "sample 6 reaches" in notes and "(such samples: 1)" in notes
    alone = run(g, feeds[:1]).calibration.health.notes
    assert alone[0].startswith("only 1 sample calibrates: 32 or more")


def test_both_engines_give_the_same_values() -> None:
    g = front(classifier())
    names = [n.outputs[0] for n in g.nodes]
    a, b = reference(g, names), onnxruntime(g, names)
    for feeds in calls(g, 2):
        left, right = a(feeds), b(feeds)
        assert left.keys() == right.keys() == set(names)
        for x in names:
            np.testing.assert_allclose(left[x], right[x], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fastest", "literally"])
def test_a_graph_that_onnxruntime_refuses_runs_in_numpy_and_a_warning_says_why(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise refusals()[0]("no such kernel\nat some place")

    monkeypatch.setattr("sparrow.quant.engine.open_session", refuse)
    g = front(classifier())
    (feeds,) = calls(g, 1)
    with pytest.warns(RuntimeWarning, match=r"refuses the graph \(no such kernel\); NumPy"):
        found = engine(name)(g, g.outputs)(feeds)
    assert found.keys() == set(g.outputs)


def test_a_mistake_of_ours_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("sparrow.quant.engine.to_portable_onnx", fail)
    g = front(classifier())
    with pytest.raises(AssertionError):
        engine("fastest")(g, g.outputs)


@pytest.mark.parametrize("pool", ["", "MaxPool", "AveragePool"])
def test_equalization_keeps_the_function_and_evens_the_channels(pool: str) -> None:
    rng = np.random.default_rng(1)
    spread = np.geomspace(0.01, 10, 8).astype(np.float32)
    w1 = rng.standard_normal((8, 2, 3, 3)).astype(np.float32) * spread[:, None, None, None]
    constants = {
        "w1": w1,
        "b1": spread * rng.standard_normal(8).astype(np.float32),
        "w2": rng.standard_normal((8, 1, 3, 3)).astype(np.float32),
        "w3": rng.standard_normal((4, 4, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["p" if pool else "b", "w2"], ["c"], group=8),
        helper.make_node("Conv", ["c", "w3"], ["d"], group=2),
    ]
    if pool:
        window = helper.make_node(pool, ["b"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        nodes.insert(2, window)
    g = front(model(nodes, [value("x", (1, 2, 8, 8))], [value("d", (1, 4, 4, 4))], constants))
    h = equalize(g)
    feeds = calls(g, 1)[0]
    y, z = evaluate(g, feeds)["d"], evaluate(h, feeds)["d"]
    np.testing.assert_allclose(z, y, rtol=1e-4, atol=1e-4 * np.abs(y).max())
    conv = next(n for n in h.nodes if h.types[n.outputs[0]].shape == (1, 8, 6, 6))
    peak = np.abs(h.consts[conv.inputs[1]]).max((1, 2, 3))
    assert peak.max() / peak.min() < 20 < spread.max() / spread.min()
    assert not run(g, calls(g, 8), Recipe(equalize=True)).calibration.health.of_recipe


def test_smoothing_keeps_the_function_and_saves_uneven_channels() -> None:
    rng = np.random.default_rng(5)
    outliers = np.ones(16, np.float32)
    outliers[3] = 300
    constants = {
        "g": outliers,
        "b": rng.standard_normal(16).astype(np.float32),
        "w": (rng.standard_normal((16, 8)) / outliers[:, None]).astype(np.float32),
        "v": rng.standard_normal((16, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["p"]),
        helper.make_node("MatMul", ["n", "v"], ["q"]),
    ]
    out = [value("p", (1, 4, 8)), value("q", (1, 4, 8))]
    g = front(model(nodes, [value("x", (1, 4, 16))], out, constants))
    feeds = calls(g, 8)
    errors = []
    for alpha in (None, 0.5):
        q = run(g, feeds, Recipe(smooth=alpha))
        assert not q.calibration.health.of_recipe
        y, same, z = (evaluate(h, feeds[0])["p"] for h in (g, q.source, q.graph))
        np.testing.assert_allclose(same, y, rtol=1e-4, atol=1e-4)
        errors.append(float(np.square(z - y).mean()))
    assert errors[1] < errors[0] / 10


def test_a_bias_too_large_for_its_steps_widens_them() -> None:
    constants = {
        "w": np.array([1e-9, 1], np.float32).reshape(2, 1, 1, 1),
        "b": np.array([1e6, 1], np.float32),
    }
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    g = front(model([node], [value("x", (1, 1, 4, 4))], [value("y", (1, 2, 4, 4))], constants))
    feeds = calls(g, 4)
    q = quantize(g, feeds, Recipe(ranges="minmax"))
    y, z = evaluate(g, feeds[0])["y"], evaluate(q, feeds[0])["y"]
    assert np.abs(z - y).max() <= 1e6 / 255


def test_digits_keep_their_accuracy() -> None:
    """The bundled model: calibrated on training digits, judged on the 500 it has never seen."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None, None]
    g = front(Path(REPO / "examples" / "digits" / "digits.onnx"))
    q = quantize(g, [{"image": x} for x in images[:128]])
    session = ort.InferenceSession(to_portable_onnx(q).SerializeToString())
    seen = [int(session.run(None, {"image": x})[0].argmax()) for x in images[-500:]]
    right = int((np.array(seen) == digits.target[-500:]).sum())
    # float: 498; half a point of 500 is two digits
    assert right >= 496


@pytest.mark.parametrize("rounding", ["gptq", "adaround", "nearest"])
def test_weights_that_layers_share_stay_one_constant(rounding: Rounding) -> None:
    """Each corrects its bias by what it reads."""
    rng = np.random.default_rng(2)
    weights = {
        "w": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(6).astype(np.float32),
        "u": rng.standard_normal((6, 4)).astype(np.float32),
    }
    nodes = []
    for i in "12":
        nodes += [
            helper.make_node("Conv", [f"x{i}", "w", "b"], [f"c{i}"]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            helper.make_node("GlobalAveragePool", [f"r{i}"], [f"m{i}"]),
            helper.make_node("Flatten", [f"m{i}"], [f"f{i}"]),
            helper.make_node("MatMul", [f"f{i}", "u"], [f"y{i}"]),
        ]
    inputs = [value(f"x{i}", (1, 3, 7, 7)) for i in "12"]
    g = front(model(nodes, inputs, [value(f"y{i}", (1, 4)) for i in "12"], weights))
    feeds = [
        {"x1": rng.standard_normal((1, 3, 7, 7), np.float32), "x2": rng.random((1, 3, 7, 7), "f4")}
        for _ in range(16)
    ]
    q = run(g, feeds, Recipe(rounding=rounding, widen=False)).graph
    sizes = sorted(a.size for x, a in q.consts.items() if q.types[x].dtype == I8)
    assert sizes == [24, 162]
    real, coded = reference(g, g.outputs), reference(q, q.outputs)
    for f in feeds:
        a, b = real(f), coded(f)
        assert all(np.abs(a[y] - b[y]).max() < 0.05 * np.abs(a[y]).max() for y in g.outputs)
