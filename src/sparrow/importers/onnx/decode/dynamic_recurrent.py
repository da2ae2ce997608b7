"""Recurrent layers whose weights are codes and whose inputs are rounded at run time.

ONNX Runtime rounds the whole input of a layer to 8 bits by its own range, and the hidden state
again at every step. Here the input is rounded as there, and the hidden state to 13 to 16 bits of
[-1, 1], where it stays:

    gates    rne(2^11 ((x - zx) w sx sw + b))       int32, of all steps at once
    h        LSTMCodes(gates, r, ..) / most

Layers of so many steps that written out in ONNX they fill the file, of unlike lengths, with
peepholes or other activations take float weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode import integer_products, recurrent
from sparrow.ops import recurrent_codes as rc
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.tensor import F32, I8, I16, I32, Array

# Steps of all directions that a layer over codes is written out to.
MAX_STEPS = 512


def _float_weights(n: Call) -> Sequence[str]:
    """The layer over real weights [directions, inputs, 4 * hidden]; nothing is rounded."""
    b, weights = n.b, []
    for i, s in ((1, 8), (2, 10)):
        shape = n.type(s).shape
        wide = (shape[0], 1, *(shape[1:] or (1,)))
        w = n.x(i)
        if not integer_products.is_zero(n, s + 1):
            zero = b.reshape(b.cast(n.x(s + 1), I32), wide)
            w = b.call("sub", b.cast(w, I32), zero)
        w = b.call("mul", b.cast(w, F32), b.reshape(n.x(s), wide))
        weights.append(b.transpose(w, (0, 2, 1)))
    inputs = (n.x(0), *weights, *(n.opt(i) for i in range(3, 8)))
    return recurrent.DECODERS["LSTM"](replace(n, inputs=inputs))


def _signed(n: Call, i: int, s: int) -> Array | None:
    """Constant int8 weights of input ``i`` whose zero point at ``s`` is 0; None for others."""
    codes = n.b.value(n.x(i))
    zero = n.b.value(n.x(s)) if n.has(s) else np.zeros((), np.int8)
    if codes is None or zero is None or codes.dtype != zero.dtype:
        return None
    if codes.dtype == np.uint8:
        # the top bit of a byte turned is its value less 128
        codes, zero = ((v ^ np.uint8(128)).view(np.int8) for v in (codes, zero))
    return codes if codes.dtype == np.int8 and not zero.any() else None


def _scales(n: Call, i: int, direction: int, size: int) -> Array | None:
    """Scale of each of ``size`` rows of a direction, of input ``i``; None if it is no constant."""
    scale = n.b.value(n.x(i))
    if scale is None:
        return None
    rows: Array = np.broadcast_to(scale[direction], (size,)).astype(np.float32)
    return rows


def _steps(n: Call) -> int:
    """Steps of all directions of a layer that can be computed over codes, else 0."""
    plain = [a.lower() for a in n.attr("activations") or ()]
    directions, hidden = n.type(2).shape[0], n.type(2).shape[1]
    if plain not in ([], ["sigmoid", "tanh", "tanh"] * directions):
        return 0
    if (
        not (integer_products.is_zero(n, 4) or _whole(n))
        or not integer_products.is_zero(n, 7)
        or n.attr("layout", 0)
    ):
        return 0
    if n.type(0).rank != 3 or n.type(0).dtype != F32 or hidden < 1 or 0 in n.type(0).shape:
        return 0
    return directions * n.type(0).shape[0]


def _whole(n: Call) -> bool:
    """Whether every sequence has all steps."""
    if not n.has(4):
        return True
    lengths = n.b.value(n.x(4))
    return lengths is not None and bool((lengths == n.type(0).shape[0]).all())


def _most(hidden: int) -> int:
    """Largest hidden code whose sums with any int8 weights stay within int32; 0 for none."""
    bits = ((1 << 31) - 1) // (128 * hidden)
    return min((1 << bits.bit_length() - 1), (1 << 15) - 1) if bits >= 1 << 12 else 0


def _dynamic_quantize_lstm(n: Call) -> Sequence[str]:
    """com.microsoft.DynamicQuantizeLSTM: weights [directions, inputs, 4 * hidden] of 8 bits."""
    for i, s in ((1, 8), (2, 10)):
        integer_products.check_bytes(n, i)
        t, shape = n.type(i), n.type(s).shape
        if t.rank != 3 or shape not in ((t.shape[0],), (t.shape[0], t.shape[2])):
            raise n.bad(f"weights {t} with scales {n.type(s)}")
    if not 0 < _steps(n) <= MAX_STEPS:
        return _float_weights(n)
    r, w, hidden = _signed(n, 2, 11), _signed(n, 1, 9), n.type(2).shape[1]
    sw, sr = n.b.value(n.x(8)), n.b.value(n.x(10))
    most = _most(hidden)
    if r is None or w is None or sw is None or sr is None or not most:
        return _float_weights(n)
    if r.shape[2] != 4 * hidden or w.shape[2] != 4 * hidden:
        raise n.bad(f"weights {n.type(1)} and {n.type(2)}, expected four gates of {hidden}")
    b = n.b
    turned = [b.const(np.ascontiguousarray(v.transpose(0, 2, 1)), I8) for v in (w, r)]
    inputs = (n.x(0), *turned, n.opt(3), "", *(n.opt(i) for i in (5, 6)))
    layer = recurrent.Layer(replace(n, inputs=inputs), 4)
    time, batch, width = n.type(0).shape
    flat = b.reshape(layer.x, (time * batch, width))
    codes, scale, zero = integer_products.dynamic_quantize(replace(n, inputs=(flat,)))
    found = []
    for d, reverse in enumerate(layer.reverse):
        own = (codes, b.const(np.ascontiguousarray(w[d]), I8), zero, "")
        rows = _scales(n, 8, d, 4 * hidden)
        ratios = _scales(n, 10, d, 4 * hidden)
        assert rows is not None and ratios is not None
        gates = integer_products.real_product(n, own, scale, b.const(rows), layer.bias(d))
        gates = b.reshape(_fixed(layer.n, gates, rc.GATE, rc.PART), (time, batch, 4 * hidden))
        h0 = "" if integer_products.is_zero(n, 5) else _hidden(layer.n, layer.state(5, d), most)
        c0 = (
            _fixed(n, layer.state(6, d), rc.STATE, rc.STATE_LIMIT)
            if not integer_products.is_zero(n, 6)
            else ""
        )
        op = LSTMCodes(
            0,
            float(np.float32(most * 2.0 ** -(2 * rc.UNIT))),
            reverse,
            layer.sequence,
            round(min(layer.clip, 1024.0) * (1 << rc.GATE)),
            bool(n.attr("input_forget", 0)),
            most,
        )
        ratio = (ratios.astype(np.float64) / most * (1 << rc.GATE)).astype(np.float32)
        weights = (b.const(np.ascontiguousarray(r[d].T), I8), b.const(ratio))
        *hs, c = b.add_n(op, gates, *weights, h0, c0)
        found.append([*(_real(n, h, 1 / most) for h in hs), _real(n, c, 2.0**-rc.STATE)])
    columns = list(zip(*found, strict=True))
    axes = [1, 0, 0] if layer.sequence else [0, 0]
    results = [layer.join(parts, axis) for parts, axis in zip(columns, axes, strict=True)]
    return results if layer.sequence else ["", *results]


def _fixed(n: Call, x: str, places: int, limit: int) -> str:
    """A float32 value in units of 2^-places, within the limit."""
    steps = lane.call("mul", lane.Arg(0, F32), lane.Imm(float(1 << places), F32))
    bounds = (lane.Imm(float(v), F32) for v in (-limit, limit))
    return n.b.lane(lane.cast(lane.call("round", lane.clip(steps, *bounds)), I32), x)


def _hidden(n: Call, x: str, most: int) -> str:
    """A first hidden state as codes."""
    steps = lane.call("mul", lane.Arg(0, F32), lane.Imm(float(most), F32))
    bounds = (lane.Imm(float(v), F32) for v in (-most, most))
    return n.b.lane(lane.cast(lane.call("round", lane.clip(steps, *bounds)), I16), x)


def _real(n: Call, codes: str, unit: float) -> str:
    """Codes as float32."""
    return n.b.call("mul", n.b.cast(codes, F32), n.b.scalar(unit, F32))


DECODERS: Mapping[str, Decoder] = {"com.microsoft.DynamicQuantizeLSTM": _dynamic_quantize_lstm}
