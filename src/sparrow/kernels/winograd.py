"""Winograd's F(4x4, 3x3): its transforms, packed weights, and a bound of its rounding errors.

    y = A' [(G w G') * (B' d B)] A      d 6 x 6 pixels of a channel, y 4 x 4 outputs, * per element

The transforms are those of Cook and Toom for the points 0, +-5/8, +-13/8 and infinity (Lavin &
Gray, arXiv:1509.09308; choice of points: Barabasz et al., arXiv:1803.10986). All constants of A and
B are binary fractions, exact in float32. For independent inputs of equal variance, an error of u in
every transformed product is at most 20 u in the output, 8 u for random weights; for the customary
points 0, +-1, +-2 it is 81 and 31, for F(6x6, 3x3) over 0, +-1/2, +-1, +-2 117 and 46, for
F(2x2, 3x3) 3.4 and 1.7. Over 64 channels it errs by 1.8 times what the direct sum errs by.
"""

from __future__ import annotations

import numpy as np

from sparrow.kernels.packing_f32 import F32, round_up
from sparrow.tensor import Array

OUT, IN = 4, 6
_A, _B = 5 / 8, 13 / 8
_A2, _B2 = _A * _A, _B * _B

AT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, _A, -_A, _B, -_B, 0],
        [0, _A2, _A2, _B2, _B2, 0],
        [0, _A2 * _A, -_A2 * _A, _B2 * _B, -_B2 * _B, 1],
    ]
)
BT = np.array(
    [
        [_A2 * _B2, 0, -_A2 - _B2, 0, 1, 0],
        [0, -_A * _B2, -_B2, _A, 1, 0],
        [0, _A * _B2, -_B2, -_A, 1, 0],
        [0, -_B * _A2, -_A2, _B, 1, 0],
        [0, _B * _A2, -_A2, -_B, 1, 0],
        [0, _A2 * _B2, 0, -_A2 - _B2, 0, 1],
    ]
)
_NA, _NB = 2 * _A2 * (_A2 - _B2), 2 * _B2 * (_B2 - _A2)
G = np.array(
    [
        [1 / (_A2 * _B2), 0, 0],
        [1 / _NA, _A / _NA, _A2 / _NA],
        [1 / _NA, -_A / _NA, _A2 / _NA],
        [1 / _NB, _B / _NB, _B2 / _NB],
        [1 / _NB, -_B / _NB, _B2 / _NB],
        [0, 0, 1],
    ]
)
# Roundings on the way of a value, beside the sum over channels: two in each of the two input
# transforms, three in each of the two output transforms, one in the weights; one more for what is
# of second order.
_ROUNDINGS = 12
# The same where every product may be rounded before it is added: four in each of the transforms and
# one in the product; weights that are transformed in the call take eight.
_ROUNDINGS_RAW = 18
_ROUNDINGS_WEIGHTS = 8


def transformed(w: F32) -> Array:
    """OIHW weights [co, ci, 3, 3] -> G w G' in double precision, [co, ci, 6, 6]."""
    return _transformed(w, G)


def _transformed(w: Array, g: Array) -> Array:
    u: Array = np.einsum("ij,oajk,lk->oail", g, w.astype(np.float64), g)
    return u


def pack_winograd(w: F32, lanes: int) -> F32:
    """[co, ci, 3, 3] -> G w G', [ceil(co / lanes), 36, ci, lanes], zero padded."""
    co, ci, _, _ = w.shape
    out = np.zeros((round_up(co, lanes), ci, IN * IN), np.float32)
    out[:co] = transformed(w).reshape(co, ci, -1)
    return np.ascontiguousarray(out.reshape(-1, lanes, ci, IN * IN).transpose(0, 3, 2, 1))


def pack_stream(w: F32, lanes: int) -> F32:
    """[co, ci, 3, 3] -> [ceil(co / lanes), ci, 9, lanes], zero padded."""
    co, ci, _, _ = w.shape
    out = np.zeros((round_up(co, lanes), ci, 9), np.float32)
    out[:co] = w.reshape(co, ci, 9)
    return np.ascontiguousarray(out.reshape(-1, lanes, ci, 9).transpose(0, 2, 3, 1))


def rounding_error(
    x: Array,
    w: Array,
    pads: tuple[tuple[int, int], ...],
    unit: float = 2.0**-24,
    raw: bool = False,
) -> Array:
    """How far the sum of a 3x3 convolution of stride 1 may be from the exact one.

    Running error analysis: a value of size s that is rounded k times errs by at most k u s, and
    what passes a transform grows by the magnitudes of its constants.

    Args:
        x: Input, NHWC.
        w: Weights, OIHW.
        pads: (before, after) of the two spatial axes.
        unit: Rounding unit u.
        raw: Weights are transformed in the call, and nothing need be fused.

    Returns:
        Bound for every output, NHWC.
    """
    n, h, width, ci = x.shape
    (pt, pb), (pl, pr) = pads
    oh, ow = h + pt + pb - 2, width + pl + pr - 2
    th, tw = -(-oh // OUT), -(-ow // OUT)
    size = np.zeros((n, OUT * th + 2, OUT * tw + 2, ci))
    size[:, pt : pt + h, pl : pl + width] = np.abs(x)
    windows = np.lib.stride_tricks.sliding_window_view(size, (IN, IN), axis=(1, 2))
    d = windows[:, ::OUT, ::OUT]
    v = np.einsum("ij,nyxcjk,lk->ilnyxc", np.abs(BT), d, np.abs(BT), optimize=True)
    u = (ci + (_ROUNDINGS_RAW if raw else _ROUNDINGS)) * np.abs(transformed(w))
    if raw:
        u += _ROUNDINGS_WEIGHTS * _transformed(np.abs(w), np.abs(G))
    m = v.reshape(IN, IN, -1, ci) @ u.transpose(2, 3, 1, 0)
    y = np.einsum("ij,jlto,kl->tiko", np.abs(AT), m, np.abs(AT), optimize=True)
    y = y.reshape(n, th, tw, OUT, OUT, -1).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(n, OUT * th, OUT * tw, -1)[:, :oh, :ow]
    bound: Array = unit * y
    return bound
