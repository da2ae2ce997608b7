"""Layers that keep a state: LSTM over a sequence, and SVDF.

The state tensors of the file become States of the Graph: they keep their value from call to call
until reset, as they do in LiteRT. Steps are written out, because LiteRT clips the cell and rounds
both states to codes at each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow import lane
from sparrow.importers.tflite.call import TANH, Call, Decoder
from sparrow.importers.tflite.decode.movement import cut
from sparrow.lane import imm_like
from sparrow.ops.concat import Concat
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reduce import Reduce
from sparrow.tensor import F32, Affine, Array

MAX_STEPS = 1024
# input numbers of the LSTM operator, each in the order input, forget, cell, output gate
_INPUT, _RECURRENT, _PEEPHOLE, _BIAS = 1, 5, (9, 10, 11), 12
_PROJECTION, _HIDDEN, _CELL, _NORMS = (16, 17), 18, 19, (20, 21, 22, 23)


def _numbers(n: Call, i: int) -> Array:
    """Numbers of a constant operand."""
    t, v = n.tensor(i), n.const(i, f"input {i}")
    if t.quantized:
        (v,) = Dequantize(t.affine(v.shape)).eval(v)
    if v.dtype.kind != "f":
        raise n.unsupported(f"input {i} is {n.type(i)} without quantization")
    return v.astype(np.float32)


def _gates(n: Call, first: int) -> Array:
    """The four gates' operands stacked; a missing input gate is what the forget gate leaves.

    1 - sigmoid(f) = sigmoid(-f), so that its operands are those of the forget gate negated.
    """
    found = [None if k == 0 and not n.has(first) else _numbers(n, first + k) for k in range(4)]
    if found[0] is None:
        assert found[1] is not None
        found[0] = -found[1]
    parts = [v for v in found if v is not None]
    if any(v.shape != parts[0].shape for v in parts):
        raise n.bad(f"inputs {first} to {first + 3} differ in shape")
    return np.concatenate(parts)


def _biases(n: Call) -> Array:
    """Biases of the gates; integers have the scale of the input times that of the weights."""
    found: list[Array | None] = []
    for k in range(4):
        if k == 0 and not n.has(_INPUT):
            found.append(None)
            continue
        i = _BIAS + k
        v = n.const(i, "the bias")
        if v.dtype.kind != "f":
            xs, ws = n.tensor(0).scale, n.tensor(_INPUT + k).scale
            if xs.size != 1 or ws.size != 1:
                raise n.unsupported(f"bias {n.type(i)} of operands without scales")
            v = v.astype(np.float32) * np.float32(xs[0] * ws[0])
        found.append(v.astype(np.float32))
    if found[0] is None:
        assert found[1] is not None
        found[0] = -found[1]
    return np.concatenate([v for v in found if v is not None])


def _rounded(n: Call, i: int, y: str) -> tuple[str, str]:
    """(what the state of input ``i`` stores for ``y``, the numbers that stands for)."""
    t = n.tensor(i)
    if not t.quantized:
        return y, y
    quant: Affine = t.affine(n.b.shape(y))
    codes = n.b.add(Quantize(quant, t.dtype), y)
    return codes, n.b.add(Dequantize(quant), codes)


def _state(n: Call, i: int) -> str:
    """Numbers of the state at input ``i`` at the start of a call."""
    t, x = n.tensor(i), n.load(i)
    return n.b.add(Dequantize(t.affine(n.b.shape(x))), x) if t.quantized else x


def _clipped(n: Call, y: str, limit: float) -> str:
    if limit <= 0:
        return y
    e = n.b.arg(0, y)
    return n.b.lane(lane.clip(e, imm_like(-limit, e), imm_like(limit, e)), y)


def _lstm(n: Call) -> Sequence[str]:
    for what, where in (
        ("a projection", _PROJECTION),
        ("peepholes", _PEEPHOLE),
        ("layer normalization", _NORMS),
    ):
        if any(n.has(i) for i in where):
            raise n.unsupported(f"an LSTM with {what}", "convert the model without it")
    if n.option("activation") != TANH or n.option("diagonal"):
        raise n.unsupported("an LSTM with another activation than tanh, or diagonal weights")
    b, x = n.b, n.float(0)
    if b.type(x).rank != 3:
        raise n.bad(f"input {n.type(0)}, expected rank 3")
    if n.option("time_major"):
        x = b.transpose(x, (1, 0, 2))
    batch, steps, features = b.shape(x)
    w, r, bias = _gates(n, _INPUT), _gates(n, _RECURRENT), _biases(n)
    units = r.shape[-1]
    if (w.ndim, r.ndim) != (2, 2) or w.shape != (4 * units, features) or r.shape[0] != 4 * units:
        raise n.bad(f"weights {w.shape} and {r.shape} do not fit {n.type(0)}")
    if bias.shape != (4 * units,):
        raise n.bad(f"bias of {bias.shape} for {units} units")
    if not 1 <= steps <= MAX_STEPS:
        raise n.unsupported(f"{steps} steps; at most {MAX_STEPS} are written out")
    h, c = _state(n, _HIDDEN), _state(n, _CELL)
    if {b.shape(h), b.shape(c)} != {(batch, units)}:
        raise n.bad(f"states {b.type(h)} and {b.type(c)} for {batch} rows of {units} units")
    rows = b.add(MatMul(trans_b=True), x, b.const(w), b.const(bias))
    recurrent = b.const(r)
    stored_h = stored_c = ""
    outputs: list[str] = []
    for t in range(steps):
        now = b.reshape(cut(n, rows, 1, t, 1), (batch, 4 * units))
        gates = b.call("add", now, b.add(MatMul(trans_b=True), h, recurrent))
        i, f, g, o = (cut(n, gates, 1, k * units, units) for k in range(4))
        c = b.lane(
            lane.call(
                "add",
                lane.call("mul", lane.call("sigmoid", lane.Arg(0, F32)), lane.Arg(1, F32)),
                lane.call(
                    "mul",
                    lane.call("sigmoid", lane.Arg(2, F32)),
                    lane.call("tanh", lane.Arg(3, F32)),
                ),
            ),
            *(f, c, i, g),
        )
        stored_c, c = _rounded(n, _CELL, _clipped(n, c, float(n.option("cell_clip"))))
        h = b.lane(
            lane.call(
                "mul",
                lane.call("sigmoid", lane.Arg(0, F32)),
                lane.call("tanh", lane.Arg(1, F32)),
            ),
            *(o, c),
        )
        stored_h, h = _rounded(n, _HIDDEN, h)
        outputs.append(b.reshape(stored_h, (batch, 1, units)))
    n.store(_HIDDEN, stored_h)
    n.store(_CELL, stored_c)
    y = b.add(Concat(1), *outputs)
    state, out = n.tensor(_HIDDEN), n.outs[0]
    if state.quantized and (state.scale[0], state.zero_point[0]) != (
        out.scale[:1].sum(),
        out.zero_point[:1].sum(),
    ):
        y = n.write(b.add(Dequantize(state.affine(b.shape(y))), y))
    return [b.transpose(y, (1, 0, 2)) if n.option("time_major") else y]


def _svdf(n: Call) -> Sequence[str]:
    """A filter of rank one per unit: features by weights over a window of past steps.

    Inputs: x [B, I], feature weights [F, I], time weights [F, M], bias [F / rank], state
    [B, F * M].
    """
    b, rank = n.b, int(n.option("rank"))
    w, time = n.type(1).shape, n.type(2).shape
    if len(w) != 2 or len(time) != 2 or rank < 1 or w[0] % rank or time[0] != w[0]:
        raise n.bad(f"rank {rank}, weights {n.type(1)} and {n.type(2)}")
    filters, memory = time
    x = n.float(0)
    if b.type(x).rank != 2 or b.shape(x)[1] != w[1]:
        raise n.bad(f"input {n.type(0)} does not fit weights {n.type(1)}")
    batch = b.shape(x)[0]
    feature = b.add(MatMul(trans_b=True), x, n.weights(1, (0, 1)))
    stored, _ = _rounded(n, 4, b.reshape(feature, (batch, filters, 1)))
    past = b.reshape(n.load(4), (batch, filters, memory))
    window = stored
    if memory > 1:
        window = b.add(Concat(2), cut(n, past, 2, 1, memory - 1), stored)
    n.store(4, b.reshape(window, b.shape(n.load(4))))
    t = n.tensor(4)
    if t.quantized:
        window = b.add(Dequantize(t.affine(b.shape(window))), window)
    weighted = b.call("mul", window, n.weights(2, (0, 1)))
    each = b.reshape(b.add(Reduce("sum", (2,)), weighted), (batch, filters // rank, rank))
    y = b.reshape(b.add(Reduce("sum", (2,)), each), (batch, filters // rank))
    if n.has(3):
        y = b.call("add", y, _svdf_bias(n))
    return [n.write(n.activated(y))]


def _svdf_bias(n: Call) -> str:
    """Integers have the scale of the state times that of the time weights."""
    v = n.const(3, "the bias")
    if v.dtype.kind == "f":
        return n.float(3)
    ss, ws = n.tensor(4).scale, n.tensor(2).scale
    if ss.size != 1 or ws.size != 1:
        raise n.unsupported(f"bias {n.type(3)} of operands without scales")
    return n.b.const(v.astype(np.float32) * np.float32(ss[0] * ws[0]))


DECODERS: Mapping[str, Decoder] = {
    "SVDF": _svdf,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
