"""Windows and Fourier transforms: constants, and products with constant matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder, elem_type
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Pad
from sparrow.tensor import BF16, F16, F32, F64, Array, DType

# A filter bank is made band by band.
MAX_BANDS = 1 << 14
# Terms of sum_i a_i cos(2 pi i k / N), signs included
_WINDOWS = {
    "HannWindow": (0.5, -0.5),
    "HammingWindow": (25 / 46, -21 / 46),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}


def _window(n: Call) -> Sequence[str]:
    size = n.integer(0, "the window size")
    if size < 0:
        raise n.bad(f"window of {size}")
    n.b.made(4 * size, "the window")
    dtype = elem_type(int(n.attr("output_datatype", 1)), n.where)
    period = size if n.attr("periodic", 1) else size - 1
    angle = 2 * np.pi * np.arange(size) / max(period, 1)
    terms = _WINDOWS[n.op_type]
    y = sum((a * np.cos(i * angle) for i, a in enumerate(terms)), np.zeros(size))
    return [n.b.cast(n.b.const(np.asarray(y, np.float64), F64), dtype)]


def fourier(length: int, bins: int, complex_in: bool, inverse: bool) -> Array:
    """The DFT as a matrix [length, 1 or 2, bins, 2] of float64 over (sample, part) -> (bin,
    part).
    """
    # the product is reduced modulo the length first: exact angles for any length
    turns = np.outer(np.arange(length), np.arange(bins)) % length / length
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    if inverse:
        cos, sin = cos / length, -sin / length
    real = np.stack([cos, -sin], -1)
    if not complex_in:
        return real[:, None]
    return np.stack([real, np.stack([sin, cos], -1)], 1)


def _real_inverse(length: int, bins: int) -> Array:
    """The inverse DFT of a one-sided spectrum as a matrix [bins, 2, length] of float64."""
    half = np.zeros((bins, 2, length))
    full = fourier(length, length, True, True)[..., 0]
    half += full[:bins]
    for k in range(1, bins):
        if length - k >= bins:  # the mirrored bin holds the conjugate
            half[k, 0] += full[length - k, 0]
            half[k, 1] -= full[length - k, 1]
    return half


def _constant(n: Call, matrix: Array, dtype: DType) -> str:
    return n.b.cast(n.b.const(matrix.astype(np.float64), F64), dtype)


def _resized(n: Call, x: str, axis: int, size: int) -> str:
    """X cut or padded with zeros to ``size`` along an axis."""
    have = n.b.shape(x)[axis]
    if have > size:
        return slice_axis(n, x, axis, 0, size)
    pads = [(0, 0)] * len(n.b.shape(x))
    pads[axis] = (0, size - have)
    return x if have == size else n.b.add(Pad(tuple(pads)), x)


def _dft(n: Call) -> Sequence[str]:
    """X [.., L, .., 1 or 2] -> [.., K, .., 2] along one axis, as a matrix product."""
    shape = n.type().shape
    rank = len(shape)
    if rank < 2 or shape[-1] not in (1, 2):
        raise n.bad(f"x is {n.type()}, expected real (1) or complex (2) parts on the last axis")
    if n.version < 20:
        given = int(n.attr("axis", 1))
    else:
        given = n.integer(2, "the axis") if n.has(2) else -2
    axis = n.axis(given, rank)
    if axis == rank - 1:
        raise n.bad("the axis of the parts is no signal axis")
    inverse, onesided = bool(n.attr("inverse", 0)), bool(n.attr("onesided", 0))
    length = n.integer(1, "dft_length") if n.has(1) else None
    parts = shape[-1]
    dtype = n.type().dtype
    wide = F32 if dtype in (F16, BF16) else dtype
    x = n.b.cast(n.x(), wide)
    if inverse and onesided:
        size = 2 * (shape[axis] - 1) if length is None else length
        if parts != 2 or size < 1:
            raise n.bad(f"one-sided inverse of {n.type()} to {size} samples")
        bins = size // 2 + 1
        n.b.made(2 * bins * size, "the transform")
        x = _resized(n, x, axis, bins)
        matrix, out = _real_inverse(size, bins).reshape(2 * bins, size), (size, 1)
    else:
        size = shape[axis] if length is None else length
        if size < 1 or (onesided and parts == 2):
            raise n.bad(f"one-sided transform of {n.type()} over {size} samples")
        x = _resized(n, x, axis, size)
        bins = size // 2 + 1 if onesided else size
        n.b.made(size * parts * bins * 2, "the transform")
        matrix = fourier(size, bins, parts == 2, inverse).reshape(size * parts, bins * 2)
        out = (bins, 2)
    rest = [i for i in range(rank - 1) if i != axis]
    x = n.b.transpose(x, [*rest, axis, rank - 1])
    lead = [shape[i] for i in rest]
    y = n.b.reshape(x, (prod(lead), matrix.shape[0]))
    y = n.b.add(MatMul(), y, _constant(n, matrix, wide))
    y = n.b.reshape(y, (*lead, *out))
    order = [*rest, axis, rank - 1]
    return [n.b.cast(n.b.transpose(y, [order.index(i) for i in range(rank)]), dtype)]


def _stft(n: Call) -> Sequence[str]:
    """Signal [B, L, 1 or 2] -> [B, frames, bins, 2]: a convolution whose filters are the windowed
    DFT.
    """
    signal = n.type()
    dtype = signal.dtype
    if signal.rank == 2:
        shape: tuple[int, ...] = (*signal.shape, 1)
    else:
        shape = signal.shape
    if len(shape) != 3 or shape[2] not in (1, 2):
        raise n.bad(f"signal is {signal}, expected [batch, samples, 1 or 2]")
    step = n.integer(1, "frame_step")
    length = n.integer(3, "frame_length") if n.has(3) else n.type(2).size
    if not 1 <= length <= shape[1] or step < 1:
        raise n.bad(f"frames of {length} every {step} samples of {shape[1]}")
    onesided = bool(n.attr("onesided", 1))
    if onesided and shape[2] == 2:
        raise n.bad("one-sided transform of a complex signal")
    bins = length // 2 + 1 if onesided else length
    n.b.made(length * shape[2] * bins * 2, "the transform")
    matrix = fourier(length, bins, shape[2] == 2, False).transpose(2, 3, 1, 0)
    wide = F32 if dtype in (F16, BF16) else dtype
    filters = _constant(n, matrix.reshape(2 * bins, shape[2], length), wide)
    if n.has(2):
        if n.type(2).shape != (length,):
            raise n.bad(f"window is {n.type(2)}, frames have {length} samples")
        filters = n.b.call("mul", filters, n.b.cast(n.x(2), wide))
    x = n.b.transpose(n.b.reshape(n.b.cast(n.x(), wide), shape), (0, 2, 1))
    y = n.b.transpose(n.b.add(Conv((step,), (1,), ((0, 0),)), x, filters), (0, 2, 1))
    batch, frames, _ = n.b.shape(y)
    return [n.b.cast(n.b.reshape(y, (batch, frames, bins, 2)), dtype)]


def _mel(n: Call) -> Sequence[str]:
    """The matrix that weights linear frequency bins into mel bands [bins, bands], a constant."""
    names = ("num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz")
    bands, length, rate, low, high = (float(n.number(i, what)) for i, what in enumerate(names))
    if not 1 <= bands <= MAX_BANDS or not 1 <= length < 1 << 31 or not 0 < rate < float("inf"):
        raise n.bad(f"{bands:g} bands over a transform of {length:g} at {rate:g} Hz")
    if not 0 <= low < high < float("inf"):
        raise n.bad(f"band edges {low:g} and {high:g} Hz")
    bins = int(length) // 2 + 1
    n.b.made(2 * bins * int(bands), "the matrix")
    mel = 2595 * np.log10(1 + np.array([low, high]) / 700)
    edges = mel[0] + np.arange(int(bands) + 2) * ((mel[1] - mel[0]) / (bands + 2))
    with np.errstate(over="ignore"):
        place = np.floor((length + 1) * (700 * (10 ** (edges / 2595) - 1)) / rate)
    if not place[-1] < 2.0**53:
        raise n.bad(f"a band edge of {high:g} Hz at {rate:g} Hz")
    at = place.astype(np.int64)
    y = np.zeros((bins, int(bands)), np.float64)
    for i in range(int(bands)):
        lower, center, upper = (int(v) for v in at[i : i + 3])
        rise, fall = center - lower, upper - center
        for k in range(max(lower, 0), min(center, bins - 1) + 1):
            y[k, i] = 1.0 if rise == 0 else (k - lower) / rise
        for k in range(max(center, 0), min(upper, bins)):
            y[k, i] = (upper - k) / fall
    dtype = elem_type(int(n.attr("output_datatype", 1)), n.where)
    return [n.b.cast(n.b.const(y, F64), dtype)]


DECODERS: Mapping[str, Decoder] = {
    **dict.fromkeys(_WINDOWS, _window),
    "DFT": _dft,
    "STFT": _stft,
    "MelWeightMatrix": _mel,
}
