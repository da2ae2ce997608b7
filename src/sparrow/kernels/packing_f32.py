"""Weight packing of the float32 kernels.

Packed weights depend on the weight's shape and the lane count only, never on tiles: entry points
with different M, and re-tuned tiles, share one blob.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]


def pack_gemm_b(b: F32, lanes: int) -> F32:
    """[k, n] -> [ceil(n / lanes), k, lanes], see `padded`."""
    return np.ascontiguousarray(padded(b, 1, lanes).reshape(len(b), -1, lanes).transpose(1, 0, 2))


def pack_conv(w: F32, groups: int, lanes: int) -> F32:
    """OIHW [co, i, kh, kw] -> [groups, ceil(co / groups / lanes), kh, kw, i, lanes], `padded`."""
    co, ci, kh, kw = w.shape
    out = padded(w.reshape(groups, co // groups, ci, kh, kw), 1, lanes)
    split = out.reshape(groups, -1, lanes, ci, kh, kw)
    return np.ascontiguousarray(split.transpose(0, 1, 4, 5, 3, 2))


def padded(w: F32, axis: int, lanes: int) -> F32:
    """Whole vectors along an axis: zeros behind, or what the last one has once more in its upper
    half, where there is room for that (`shared` of tile_f32.h).
    """
    n, half = w.shape[axis], lanes // 2
    moved = np.moveaxis(w, axis, 0)
    out = np.zeros((round_up(n, lanes), *moved.shape[1:]), np.float32)
    out[:n] = moved
    if fits_twice(n, lanes):
        full = n // lanes * lanes
        out[full + half :][: n - full] = moved[full:]
    return np.moveaxis(out, 0, axis)


def fits_twice(n: int, lanes: int) -> bool:
    """Whether at most half of the last vector of n elements is used, and some of it."""
    return 0 < n % lanes <= lanes // 2


def pack_pairs(packed: F32) -> NDArray[np.uint16]:
    """[.., i, lanes] of `pack_gemm_b` or `pack_conv` -> bfloat16 [.., i / 2, lanes, 2].

    The values are bfloat16 already; two that follow each other in k share a lane.
    """
    *outer, k, lanes = packed.shape
    halves = (packed.view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(halves.reshape(*outer, k // 2, 2, lanes).swapaxes(-1, -2))


def pack_depthwise(w: F32, lanes: int) -> F32:
    """[c, 1, kh, kw] -> [kh * kw, c rounded up to lanes], zero padded."""
    c, _, kh, kw = w.shape
    out = np.zeros((kh * kw, round_up(c, lanes)), np.float32)
    out[:, :c] = w.reshape(c, kh * kw).T
    return out


def round_up(n: int, to: int) -> int:
    """The least multiple of ``to`` that is not below ``n``."""
    return -(-n // to) * to
