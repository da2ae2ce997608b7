"""Blame of sound quantizations: folded constants are no defect, cures keep what they foretell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import sparrow
from small_models import model, value
from sparrow.blame import Blame, explain
from sparrow.blame.align import Cut, cuts, dequantized_weights
from sparrow.blame.causes import DEFECTS, Constants, cause
from sparrow.blame.interval import effective, interval
from sparrow.blame.measure import Error, Judge
from sparrow.blame.models import float_graph
from sparrow.blame.result import Cure
from sparrow.blame.spelling import spelled_alike, steps_of_folded, unfolded
from sparrow.graph import Graph
from sparrow.importers.model import import_model
from sparrow.ops.lane import Lane
from sparrow.quant import Recipe, decibels, quantize
from sparrow.reference import evaluate
from sparrow.tensor import Array

Feeds = dict[str, NDArray[np.float32]]


def gated(gate: str = "HardSigmoid", columns: int = 6) -> onnx.ModelProto:
    """A convolution whose channels a small one gates, and a product of few columns."""
    rng = np.random.default_rng(3)
    arrays = {
        "w": rng.normal(size=(8, 3, 3, 3)),
        "squeeze": np.abs(rng.normal(size=(2, 8, 1, 1))),
        "widen": 0.3 * rng.normal(size=(8, 2, 1, 1)),
        "b": rng.normal(size=8),
        "matrix": rng.normal(size=(8, columns)),
        "offset": rng.normal(size=columns),
    }
    return model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "c"),
            helper.make_node("Relu", ["c"], ["r"], "r"),
            helper.make_node("GlobalAveragePool", ["r"], ["mean"], "mean"),
            helper.make_node("Conv", ["mean", "squeeze"], ["s"], "s"),
            helper.make_node("Relu", ["s"], ["t"], "t"),
            helper.make_node("Conv", ["t", "widen", "b"], ["u"], "u"),
            helper.make_node(gate, ["u"], ["gate"], "gate"),
            helper.make_node("Mul", ["r", "gate"], ["gated"], "gated"),
            helper.make_node("GlobalAveragePool", ["gated"], ["pooled"], "pooled"),
            helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
            helper.make_node("Gemm", ["flat", "matrix", "offset"], ["logit"], "logit"),
            helper.make_node("Sigmoid", ["logit"], ["y"], "y"),
        ],
        [value("x", (1, 3, 12, 12))],
        [value("y", (1, columns))],
        {k: a.astype(np.float32) for k, a in arrays.items()},
    )


def noise(count: int) -> list[Feeds]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 3, 12, 12)).astype(np.float32)} for _ in range(count)]


def blamed(m: onnx.ModelProto, cure: bool = False) -> tuple[Graph, Blame]:
    samples = noise(10)
    f = float_graph(m)
    q = import_model(sparrow.quantize(m, samples)).graph
    return f, explain(q, f, samples[:8], judges=samples[8:], cure=cure)


@pytest.mark.parametrize("gate", ["HardSigmoid", "HardSwish", "Sigmoid"])
@pytest.mark.parametrize("columns", [1, 6])
def test_a_sound_quantization_has_no_defect(gate: str, columns: int) -> None:
    _, found = blamed(gated(gate, columns))
    assert {x.op for x in found.layers} >= {"Conv", "MatMul"}
    assert [x for x in found.layers if x.cause in DEFECTS] == []


def test_foreign_weights_before_a_function_are_still_seen() -> None:
    sound, other = gated(), gated()
    (w,) = (x for x in other.graph.initializer if x.name == "widen")
    w.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(w)[::-1].copy(), "widen"))
    q = import_model(sparrow.quantize(other, noise(8))).graph
    found = explain(q, float_graph(sound), noise(8), cure=False)
    assert (found.culprit.value, found.culprit.cause) == ("gate", "foreign weights")


def test_spelling_keeps_answers_and_leaves_no_scale_before_a_function() -> None:
    f = float_graph(gated())
    g = spelled_alike(f)
    assert "u" in f.types and "u" not in g.types
    for feeds in noise(2):
        for y, a in evaluate(f, feeds).items():
            np.testing.assert_allclose(evaluate(g, feeds)[y], a, rtol=1e-5, atol=1e-6)
    assert spelled_alike(g) is g
    assert sum(isinstance(n.op, Lane) for n in g.nodes) == sum(
        isinstance(n.op, Lane) for n in f.nodes
    )


def halved(codes: bool, damaged: bool = False) -> onnx.ModelProto:
    """Two products with a Relu and a half between them; with codes of each as others write them."""
    rng = np.random.default_rng(4)
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
    constants, nodes = {"half": np.array(0.5, np.float32)}, []

    def coded(name: str, reach: float) -> str:
        if codes:
            constants[f"{name}.s"] = np.array(reach / 127, np.float32)
            constants["z"] = np.array(0, np.int8)
            quant = [f"{name}.s", "z"]
            made = f"{name}.q"
            if name in arrays:
                step = constants[f"{name}.s"]
                constants[made] = np.rint(arrays[name] / step).astype(np.int8)
                if damaged and name == "w":
                    constants[made] = constants[made][::-1].copy()
            else:
                nodes.append(helper.make_node("QuantizeLinear", [name, *quant], [made]))
            nodes.append(helper.make_node("DequantizeLinear", [made, *quant], [f"{name}.f"]))
            return f"{name}.f"
        if name in arrays:
            constants[name] = arrays[name]
        return name

    top = {k: float(np.abs(a).max()) for k, a in arrays.items()}
    for op, inputs, y in (
        ("MatMul", [("x", 4.0), ("v", top["v"])], "h"),
        ("Relu", [("h", 20.0)], "r"),
        ("Mul", [("r", 20.0)], "m"),
        ("MatMul", [("m", 10.0), ("w", top["w"])], "y"),
    ):
        operands = [coded(*i) for i in inputs] + ["half"] * (op == "Mul")
        nodes.append(helper.make_node(op, operands, [y], y))
    return model(nodes, [value("x", (4, 16))], [value("y", (4, 6))], constants)


SHAPES = {"v": (16, 24), "w": (24, 6)}


@pytest.mark.parametrize("damaged", [False, True])
def test_what_folds_into_the_weights_behind_is_no_defect(damaged: bool) -> None:
    rng = np.random.default_rng(9)
    samples = [{"x": rng.standard_normal((4, 16)).astype(np.float32)} for _ in range(8)]
    f = float_graph(halved(codes=False))
    assert "m" not in f.types
    q = import_model(halved(codes=True, damaged=damaged)).graph
    found = explain(q, f, samples, cure=False)
    defects = [(x.value, x.cause) for x in found.layers if x.cause in DEFECTS]
    assert defects == [("y", "foreign weights")] * damaged
    g = unfolded(f, dequantized_weights(q).graph)
    assert "m" in g.types
    np.testing.assert_allclose(
        evaluate(g, samples[0])["y"], evaluate(f, samples[0])["y"], rtol=1e-5, atol=1e-5
    )


def test_codes_inside_a_layer_that_begin_at_zero_are_its_relu() -> None:
    """As ONNX Runtime's quantizer leaves a Relu between two Transposes."""
    rng = np.random.default_rng(5)
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
    ends = [
        helper.make_node("Transpose", ["h"], ["t"], "t"),
        helper.make_node("Transpose", ["r"], ["b"], "b"),
    ]
    f = model(
        [
            helper.make_node("MatMul", ["x", "v"], ["h"], "h"),
            ends[0],
            helper.make_node("Relu", ["t"], ["r"], "r"),
            ends[1],
            helper.make_node("MatMul", ["b", "w"], ["y"], "y"),
        ],
        [value("x", (4, 16))],
        [value("y", (4, 6))],
        arrays,
    )
    constants: dict[str, Array] = {"z": np.array(0, np.int8), "zu": np.array(0, np.uint8)}
    for name, reach in (("h", 20 / 127), ("t", 20 / 255), ("b", 20 / 255)):
        constants[f"{name}.s"] = np.array(reach, np.float32)
    for k, a in arrays.items():
        constants[f"{k}.s"] = np.array(np.abs(a).max() / 127, np.float32)
        constants[f"{k}.q"] = np.rint(a / constants[f"{k}.s"]).astype(np.int8)

    def pair(x: str, zero: str, reader: str) -> list[onnx.NodeProto]:
        quant = [f"{x}.s", zero]
        return [
            helper.make_node("QuantizeLinear", [x, *quant], [f"{x}.c"]),
            helper.make_node("DequantizeLinear", [f"{x}.c", *quant], [reader]),
        ]

    nodes = [
        helper.make_node("DequantizeLinear", ["v.q", "v.s", "z"], ["v"]),
        helper.make_node("DequantizeLinear", ["w.q", "w.s", "z"], ["w"]),
        helper.make_node("MatMul", ["x", "v"], ["h"], "h"),
        *pair("h", "z", "h.f"),
        helper.make_node("Transpose", ["h.f"], ["t"], "t"),
        *pair("t", "zu", "r"),
        ends[1],
        *pair("b", "zu", "b.f"),
        helper.make_node("MatMul", ["b.f", "w"], ["y"], "y"),
    ]
    q = model(nodes, [value("x", (4, 16))], [value("y", (4, 6))], constants)
    samples = [{"x": rng.standard_normal((4, 16)).astype(np.float32)} for _ in range(8)]
    found = explain(import_model(q).graph, float_graph(f), samples, cure=False)
    assert {x.cause for x in found.layers} <= {"rounding", "weight rounding"}


def test_codes_of_codes_where_a_function_was_lost() -> None:
    rng = np.random.default_rng(6)
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
    ends = [value("x", (4, 16))], [value("y", (4, 6))]
    f = model(
        [
            helper.make_node("MatMul", ["x", "v"], ["h"], "h"),
            helper.make_node("Relu", ["h"], ["r"], "r"),
            helper.make_node("MatMul", ["r", "w"], ["y"], "y"),
        ],
        *ends,
        arrays,
    )
    nodes = [helper.make_node("MatMul", ["x", "v"], ["h"], "h")]
    for x, y in (("h", "h.f"), ("h.f", "r"), ("r", "again")):
        nodes.append(helper.make_node("QuantizeLinear", [x, "s", "z"], [f"{x}.c"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{x}.c", "s", "z"], [y]))
    nodes.append(helper.make_node("MatMul", ["again", "w"], ["y"], "y"))
    codes: dict[str, Array] = {"s": np.array(20 / 127, np.float32), "z": np.array(0, np.int8)}
    q = import_model(model(nodes, *ends, codes | arrays)).graph
    samples = [{"x": rng.standard_normal((4, 16)).astype(np.float32)} for _ in range(8)]
    found = explain(q, float_graph(f), samples, cure=False)
    assert (found.culprit.value, found.culprit.cause) == ("r", "wrong implementation")


def test_scales_follow_weights_that_were_multiplied() -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (4, 5)).astype(np.float32)
    other = rng.integers(-127, 128, (4, 5)).astype(np.float32)
    w[2] = 0
    factors = np.array([[2.0], [0.5], [3.0], [-1.0]], np.float32)
    steps = {"w": np.full(4, 0.1, np.float32)}
    found = steps_of_folded({"w": w}, steps, {"a": w * factors, "b": other, "c": w[:, :1]})
    assert list(found) == ["a"]
    np.testing.assert_allclose(found["a"], [0.2, 0.05, 0.0, 0.1], rtol=1e-6)


def test_a_cure_brings_what_it_foretells() -> None:
    samples = noise(10)
    m = gated()
    f = float_graph(m)
    bad = import_model(sparrow.quantize(m, samples, Recipe(ranges="minmax", symmetric=True))).graph
    found = explain(bad, f, samples[:8], judges=samples[8:], cure=True)
    kinds = {c.what.split(" ")[0] for c in found.cures}
    assert {"quantize", "ranges", "equalize"} <= kinds
    at = cuts(spelled_alike(f), dequantized_weights(bad).graph)
    judge = Judge(spelled_alike(f), at, samples[8:])
    whole = judge.noise(dequantized_weights(bad).graph)
    assert all(c.within_db and c.within_db[0] <= c.gain_db <= c.within_db[1] for c in found.cures)
    assert "95 % within" in str(found)
    for c in found.cures:
        # from the start, as `--apply` does it
        q = dequantized_weights(quantize(f, samples[:8], c.recipe)).graph
        assert decibels(whole, judge.noise(q, judge.names)) == pytest.approx(c.gain_db, abs=0.1), (
            c.what
        )


def hard() -> onnx.ModelProto:
    """A gate of one operator in the file, whose steps our own QDQ form spells."""
    rng = np.random.default_rng(8)
    constants = {
        "v": rng.standard_normal((16, 24)).astype(np.float32),
        "b": rng.standard_normal(24).astype(np.float32),
        "w": rng.standard_normal((24, 6)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "v", "b"], ["h"], "first"),
        helper.make_node("HardSigmoid", ["h"], ["gate"], "gate", alpha=0.15, beta=0.45),
        helper.make_node("MatMul", ["gate", "w"], ["y"], "second"),
    ]
    return model(nodes, [value("x", (4, 16))], [value("y", (4, 6))], constants)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("damaged", [False, True])
def test_codes_between_a_product_and_its_function_keep_them_apart(
    damaged: bool, between: bool
) -> None:
    rng = np.random.default_rng(9)
    samples = [{"x": rng.standard_normal((4, 16)).astype(np.float32)} for _ in range(8)]
    q = sparrow.quantize(hard(), samples)
    if not between:
        # as quantizers leave it that see the product and what follows as one
        mul = next(n for n in q.graph.node if "h" in n.input)
        mul.input[list(mul.input).index("h")] = "h.f"
    if damaged:
        codes = next(t for t in q.graph.initializer if sorted(t.dims) == [16, 24])
        codes.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(codes)[::-1].copy(), codes.name)
        )
    found = explain(import_model(q).graph, float_graph(hard()), samples, cure=False)
    defects = [x for x in found.layers if x.cause in DEFECTS]
    assert [(x.name, x.cause) for x in defects] == [("first", "foreign weights")] * damaged


def test_what_costs_nothing_is_applied_before_values_in_16_bits() -> None:
    wide = Cure("a in 16 bits", Recipe(wide=("a",)), 6.0, 0.0, None)
    free = Cure("ranges by mse", Recipe(ranges="mse"), 5.5, 0.0, 0.0)
    assert Blame("", 1, "", 20.0, (), (wide, free)).best == free
    assert Blame("", 1, "", 20.0, (), (replace(wide, gain_db=7.0), free)).best != free


def test_a_network_of_one_layer_in_codes_keeps_its_other_cures() -> None:
    rng = np.random.default_rng(1)
    w = {"w": rng.standard_normal((16, 6)).astype(np.float32)}
    one = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "only")],
        [value("x", (4, 16))],
        [value("y", (4, 6))],
        w,
    )
    samples = [{"x": rng.standard_normal((4, 16)).astype(np.float32)} for _ in range(6)]
    q = import_model(sparrow.quantize(one, samples)).graph
    found = explain(q, float_graph(one), samples)
    assert "only in int16x8" in {c.what for c in found.cures}
    assert "only in float32" not in {c.what for c in found.cures}


def test_what_the_only_function_that_reads_a_value_cuts_off_is_no_saturation() -> None:
    rng = np.random.default_rng(2)
    constants = {
        "v": rng.standard_normal((16, 24)).astype(np.float32),
        "w": rng.standard_normal((24, 6)).astype(np.float32),
        "low": np.array(-0.2, np.float32),
    }
    cut = model(
        [
            helper.make_node("MatMul", ["x", "v"], ["h"], "first"),
            helper.make_node("LeakyRelu", ["h"], ["leaky"], "leaky", alpha=0.2),
            helper.make_node("Max", ["leaky", "low"], ["kept"], "kept"),
            helper.make_node("MatMul", ["kept", "w"], ["y"], "second"),
        ],
        [value("x", (16, 16))],
        [value("y", (16, 6))],
        constants,
    )
    samples = [{"x": rng.standard_normal((16, 16)).astype(np.float32)} for _ in range(16)]
    q = import_model(sparrow.quantize(cut, samples)).graph
    f = float_graph(cut)
    (c,) = (c for c in cuts(f, dequantized_weights(q).graph) if c.name == "h")
    assert c.quant is not None and c.dtype is not None
    lowest = float(((c.dtype.limits[0] - c.quant.zero_point) * c.quant.scale).max())
    smallest = min(float((s["x"] @ constants["v"]).min()) for s in samples)
    assert lowest > smallest / 2, "the quantizer spends no codes on what is cut off"
    found = explain(q, f, samples, cure=False)
    assert "saturation" not in {x.cause for x in found.layers}
    (first,) = (x for x in found.layers if x.name == "first")
    assert first.own_db > 35


def test_a_bias_before_a_function_counts_by_what_it_moves() -> None:
    """A sigmoid that is near 0 everywhere hides its bias."""
    w = np.eye(2, dtype=np.float32)
    constants = Constants(w, w, np.full(2, 1 / 127, np.float32), bias=1.0)
    cut = Cut("y", "y", "y", None, None)

    def said(shift: float) -> str:
        e = Error(signal=1.0, own=0.5, weights=0.01, count=8, low=0.0, high=1.0)
        e.shift = np.array([shift, -shift]) * 4
        return cause(e, cut, None, constants, ()).name

    assert said(0.2) == "foreign bias"
    assert said(0.04) != "foreign bias"


def test_the_interval_of_a_gain_says_what_one_sample_decides() -> None:
    even = np.full(20, 2.0)
    low, high = interval(even, even / 10) or (0.0, 0.0)
    assert low == pytest.approx(10) == high
    # one sample holds all the error that the cure takes away
    before, after = np.ones(20), np.ones(20)
    before[3] = 1000.0
    low, high = interval(before, after) or (0.0, 0.0)
    assert low == 0.0 and high > 15
    assert interval(before, after) == (low, high)
    assert interval(before[:1], after[:1]) is None
    assert interval(np.zeros(3), np.ones(3)) == (0.0, 0.0)
    # the gain itself is within, though of many samples the one that decides is seldom drawn
    before, after = np.ones(400), np.ones(400)
    before[7] = 1e6
    low, high = interval(before, after) or (0.0, 0.0)
    assert low <= decibels(float(before.sum()), 400.0) <= high
    assert effective(np.ones(9)) == pytest.approx(9) and effective(before) == pytest.approx(1, 1e-2)
    assert effective(np.zeros(4)) == 0 and effective(np.full(3, 1e-200)) == pytest.approx(3)


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0, 3.0])
def test_the_interval_holds_on_other_samples(spread: float) -> None:
    """Errors as wild as those of detectors; the gain on 48 samples from 20 others."""
    rng = np.random.default_rng(int(10 * spread))
    held = 0
    for _ in range(200):
        before = rng.lognormal(0, spread, 68)
        after = before * rng.lognormal(-0.5, 0.7, 68)
        low, high = interval(before[:20], after[:20]) or (0.0, 0.0)
        held += low <= decibels(float(before[20:].sum()), float(after[20:].sum())) <= high
    assert held >= 180


def test_a_fault_carried_on_by_floats_is_the_first_layers_that_shows_it() -> None:
    """Behind sums of a residual stream every normalization holds the products before it."""
    rng = np.random.default_rng(6)
    constants = {f"w{i}": rng.standard_normal((32, 32)).astype(np.float32) for i in range(4)}
    # what goes through the norms in between counts for little: the last one shows the fault most
    constants |= {k: constants[k] * np.float32(0.02) for k in ("w1", "w2")}
    constants |= {"scale": np.ones(32, np.float32), "shift": np.zeros(32, np.float32)}
    nodes = []
    stream, given = "x", "x"
    for i in range(4):
        nodes.append(helper.make_node("MatMul", [given, f"w{i}"], [f"p{i}"], f"product{i}"))
        if i == 3:
            break
        nodes += [
            helper.make_node("Add", [stream, f"p{i}"], [f"s{i}"]),
            helper.make_node("LayerNormalization", [f"s{i}", "scale", "shift"], [f"n{i}"], axis=-1),
        ]
        stream, given = f"s{i}", f"n{i}"
    m = model(nodes, [value("x", (1, 8, 32))], [value("p3", (1, 8, 32))], constants)
    samples = [{"x": rng.standard_normal((1, 8, 32)).astype(np.float32)} for _ in range(8)]
    quantized = sparrow.quantize(m, samples)
    (w,) = (t for t in quantized.graph.initializer if _is_of(t, constants["w0"]))
    w.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(w)[::-1].copy(), w.name))
    found = explain(import_model(quantized).graph, float_graph(m), samples, cure=False)
    assert [x.value for x in found.layers if x.cause == "foreign weights"][:1] == ["n0"]
    assert (found.culprit.value, found.culprit.name) == ("n0", "product0")


def _is_of(t: onnx.TensorProto, w: NDArray[np.float32]) -> bool:
    """Whether a constant is codes of ``w``."""
    codes = numpy_helper.to_array(t).astype(np.float32)
    return codes.shape == w.shape and bool(np.corrcoef(codes.ravel(), w.ravel())[0, 1] > 0.9)
