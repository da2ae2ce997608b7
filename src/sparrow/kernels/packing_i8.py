"""Weight packing of the 8-bit kernels: four bytes to a lane, as `sp_dot4_i32` takes them.

Where sums are taken over pairs (`Isa.pairs`) it is ``per`` = 2 bytes, over octets 8,
one by one 1.

Packed weights depend on the weight's shape and the lane count only, never on tiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.packing_f32 import round_up


def pack_conv(
    w: NDArray[np.int8], groups: int, lanes: int, merged: bool, per: int = 4, kq: int = 0
) -> NDArray[np.int8]:
    """OIHW [co, i, kh, kw] -> [groups, vectors, kh, runs, kq, lanes, per], zero padded.

    A run is one kernel row of all taps (``merged``), or one tap; k within a run is (kx, i).
    It has ``kq`` quads, or as many as it needs.
    """
    co, ci, kh, kw = w.shape
    each = co // groups
    runs, k = (1, kw * ci) if merged else (kw, ci)
    kq = kq or -(-k // per)
    out = np.zeros((groups, round_up(each, lanes), kh, runs, per * kq), np.int8)
    rows = w.transpose(0, 2, 3, 1).reshape(groups, each, kh, runs, k)
    out[:, :each, ..., :k] = rows
    split = out.reshape(groups, -1, lanes, kh, runs, kq, per)
    return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 5, 2, 6))


def pack_apart(packed: NDArray[np.int8]) -> NDArray[np.int8]:
    """Quads of `pack_conv` with the first pairs of all lanes before their second ones."""
    pairs = packed.reshape(*packed.shape[:-1], 2, 2)
    return np.ascontiguousarray(np.swapaxes(pairs, -3, -2)).reshape(packed.shape)


def tame(w: NDArray[np.int8], groups: int, merged: bool) -> bool:
    """Whether products of bytes at places k and k + 2 of a quad always add up within 16 bits.

    Only 128 * 128 twice does not fit.
    """
    least = w == -128
    if not least.any():
        return True
    quads = pack_conv(least.view(np.int8), groups, 1, merged)
    return not (quads[..., :2] & quads[..., 2:]).any()


def pack_depthwise(
    w: NDArray[np.int8], lanes: int, rows: int, quads: int, stride: int, per: int = 4
) -> NDArray[np.int8]:
    """[c, 1, kh, kw] -> [vectors, rows, quads, kw, lanes, per], zero padded.

    Output row o of ``rows`` sees tap ky in row o * stride + ky of the per * quads that are zipped.
    """
    c, _, kh, kw = w.shape
    out = np.zeros((rows, per * quads, kw, round_up(c, lanes)), np.int8)
    for o in range(rows):
        out[o, o * stride : o * stride + kh, :, :c] = w[:, 0].transpose(1, 2, 0)
    split = out.reshape(rows, quads, per, kw, -1, lanes)
    return np.ascontiguousarray(split.transpose(4, 0, 1, 3, 5, 2))


def start_of(
    sums: NDArray[np.int64], bias: NDArray[np.int32] | None, zero: int, groups: int, lanes: int
) -> NDArray[np.int32]:
    """int32 [groups, channels of a group rounded up to lanes]: bias - zero * sum of the weights.

    Wraps like the sums that it starts.
    """
    each = sums.size // groups
    start = -zero * sums + (0 if bias is None else bias.astype(np.int64))
    out = np.zeros((groups, round_up(each, lanes)), np.int64)
    out[:, :each] = start.reshape(groups, each)
    return out.astype(np.uint64).astype(np.uint32).view(np.int32)
