"""LSTM and GRU over codes: near the float layer, the same in ONNX Runtime, steps fed alike."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from sparrow import lane
from sparrow.builder import Builder
from sparrow.errors import InvalidGraph
from sparrow.evidence.recurrence import Trace, single_steps
from sparrow.graph import Graph, Op
from sparrow.ops.gru import GRU
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lstm import LSTM
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.recurrent import Activation
from sparrow.ops.recurrent_codes import GATE_LIMITS, sigmoid, tanh
from sparrow.passes.integer import integer
from sparrow.portable import to_portable_onnx
from sparrow.quant.weights import block_scales, channel_block, coded
from sparrow.reference import evaluate
from sparrow.tensor import F32, I8, I32, Affine, Array, TensorType


def test_activations_are_within_two_units_of_their_functions() -> None:
    x = np.arange(GATE_LIMITS[0], GATE_LIMITS[1] + 1, dtype=np.int32)
    arg = lane.Arg(0, I32)
    real = x / 2048.0
    assert np.abs(lane.evaluate(sigmoid(arg), (x,)) - 2**15 / (1 + np.exp(-real))).max() <= 2
    assert np.abs(lane.evaluate(tanh(arg), (x,)) - 2**15 * np.tanh(real)).max() <= 4


def _per_tensor(scale: float, zero: int, rank: int) -> Affine:
    ones = (1,) * rank
    return Affine(np.full(ones, scale, np.float32), np.full(ones, zero, np.int32), (-1,) * rank)


def _layer(op: LSTM | GRU, states: bool) -> tuple[Graph, dict[str, Array]]:
    """Quantize(op(Dequantize(x), ..)): 5 steps of 2 sequences, 24 units."""
    rng = np.random.default_rng(5)
    b, hidden, gates = Builder("r"), 24, 4 if isinstance(op, LSTM) else 3
    feeds: dict[str, Array] = {"x": rng.integers(-128, 128, (5, 2, 9)).astype(np.int8)}
    x = b.add(Dequantize(_per_tensor(0.02, -7, 3)), b.input("x", TensorType((5, 2, 9), I8)))
    names = [x]
    for width in (9, hidden):
        w = rng.standard_normal((gates * hidden, width)).astype(np.float32) * 0.4
        block = channel_block(2, 0)
        c = coded(w, block_scales(w, block), block)
        names.append(b.add(Dequantize(c.quant), b.const(c.codes, I8)))
    names += [b.const(rng.standard_normal(gates * hidden).astype(np.float32)), ""]
    for name in ("h0", "c0")[: 2 if isinstance(op, LSTM) else 1]:
        feeds |= {name: rng.uniform(-0.9, 0.9, (2, hidden)).astype(np.float32)} if states else {}
        names.append(b.input(name, TensorType((2, hidden), F32)) if states else "")
    if isinstance(op, GRU) and op.reset_after:
        names.append(b.const(rng.standard_normal(hidden).astype(np.float32)))
    outputs = b.add_n(op, *names)
    grid = _per_tensor(1 / 120, -3, b.type(outputs[0]).rank)
    y = b.add(Quantize(grid, I8), outputs[0])
    more = {f"s{i}": v for i, v in enumerate(outputs[1:])}
    return b.finish({"y": y, **more}, {}), feeds


LAYERS: tuple[tuple[LSTM | GRU, bool], ...] = (
    (LSTM(), True),
    (LSTM(reverse=True, sequence=False, clip=1.5), False),
    (LSTM(couple=True), True),
    (GRU(reset_after=True), True),
    (GRU(reverse=True), False),
    (GRU(sequence=False, reset_after=True, clip=2.0), True),
)


@pytest.mark.parametrize(("op", "states"), LAYERS)
def test_it_is_near_the_float_layer_and_the_same_in_onnx(op: LSTM | GRU, states: bool) -> None:
    g, feeds = _layer(op, states)
    codes = integer(g)
    assert any(isinstance(n.op, LSTMCodes | GRUCodes) for n in codes.nodes)
    want, got = evaluate(g, feeds), evaluate(codes, feeds)
    # of 255 steps; what rounding a hidden state does goes on for 5 steps
    assert np.abs(got["y"].astype(np.int64) - want["y"]).max() <= 6
    for state in g.outputs[1:]:
        assert np.abs(got[state] - want[state]).max() <= 0.05
    session = ort.InferenceSession(
        to_portable_onnx(codes).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    theirs = dict(zip(codes.outputs, session.run(list(codes.outputs), feeds), strict=True))
    for name, y in theirs.items():
        np.testing.assert_array_equal(y, got[name])


@pytest.mark.parametrize(("op", "states"), LAYERS)
def test_single_steps_fed_alike_are_within_a_step(op: LSTM | GRU, states: bool) -> None:
    g, feeds = _layer(op, states)
    codes = integer(g)
    seen: dict[str, Array] = {**feeds, **codes.consts}
    evaluate(codes, feeds, None, lambda n, out: seen.update(zip(n.outputs, out, strict=True)))
    (n,) = (n for n in codes.nodes if isinstance(n.op, LSTMCodes | GRUCodes))
    assert isinstance(n.op, LSTMCodes | GRUCodes)
    trace = Trace(n.op, tuple(seen[x] if x else None for x in n.inputs))
    steps, states_fed = single_steps(g, {"y": trace})
    assert states_fed
    again = evaluate(steps, {**feeds, **states_fed})["y"]
    assert np.abs(again.astype(np.int64) - seen["y"]).max() <= 1


@pytest.mark.parametrize("op", [LSTM(g=Activation("Relu")), GRU(f=Activation("HardSigmoid", 0.2))])
def test_other_activations_stay_float(op: Op) -> None:
    assert isinstance(op, LSTM | GRU)
    g, _ = _layer(op, False)
    assert not any(isinstance(n.op, LSTMCodes | GRUCodes) for n in integer(g).nodes)


@pytest.mark.parametrize("reverse", [False, True])
def test_hidden_codes_of_16_bits(reverse: bool) -> None:
    """Nearer the float layer than 8 bits can be, and the same in ONNX Runtime."""
    rng, hidden, most = np.random.default_rng(8), 12, 16384
    b = Builder("h")
    r = rng.integers(-127, 128, (4 * hidden, hidden)).astype(np.int8)
    scale = np.float32(0.004)
    gates = rng.normal(0, 1, (20, 2, 4 * hidden)).astype(np.float32)
    fixed = np.rint(gates * 2048).astype(np.int32)
    op = LSTMCodes(0, most * 2.0**-30, reverse, most=most)
    ratio = np.full(4 * hidden, scale * 2048 / most, np.float32)
    x = b.input("x", TensorType(fixed.shape, I32))
    outputs = b.add_n(op, x, b.const(r, I8), b.const(ratio))
    g = b.finish(dict(zip("yhc", outputs, strict=True)), {})
    got = evaluate(g, {"x": fixed})
    want = LSTM(reverse).eval(gates, None, r * scale)
    assert np.abs(got["y"] / most - want[0]).max() < 0.002
    assert got["y"].dtype == got["h"].dtype == np.int16
    session = ort.InferenceSession(
        to_portable_onnx(g).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for name, y in zip("yhc", session.run(list("yhc"), {"x": fixed}), strict=True):
        np.testing.assert_array_equal(y, got[name])


@pytest.mark.parametrize(
    ("op", "hidden"),
    [
        (LSTMCodes(1, 1.0, most=100), 4),
        (LSTMCodes(0, 1.0, most=1 << 15), 4),
        (LSTMCodes(0, 1.0, most=(1 << 15) - 1), 513),
    ],
)
def test_hidden_codes_that_no_sum_has_room_for(op: LSTMCodes, hidden: int) -> None:
    x, r = TensorType((1, 1, 4 * hidden), I32), TensorType((4 * hidden, hidden), I8)
    with pytest.raises(InvalidGraph):
        op.infer(x, r, TensorType((4 * hidden,), F32))
