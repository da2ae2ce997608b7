"""Convolutions written as others that compute the same and suit the kernels better."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from sparrow.kernels.params_f32 import Conv2dShape, Window
from sparrow.tensor import Array

W = TypeVar("W", bound=Window)


def lying(s: W, w: Array) -> tuple[W, Array]:
    """A column of output pixels as a row of them, image and OIHW kernel transposed: registers take
    neighbours of one row, a single pixel of a column.
    """
    if s.ow != 1 or s.oh == 1:
        return s, w
    turned = replace(
        s,
        **{"ih": s.iw, "iw": s.ih, "oh": s.ow, "ow": s.oh, "kh": s.kw, "kw": s.kh},
        **{"xh": s.xw, "xw": s.xh, "sh": s.sw, "sw": s.sh, "dh": s.dw, "dw": s.dh},
        **{"pt": s.pl, "pl": s.pt},
    )
    return turned, w.swapaxes(2, 3)


def _rows_as_channels(s: Conv2dShape, w: Array) -> tuple[Conv2dShape, Array]:
    """A window as wide as all that is read of the image, whose places of a row lie side by side, as
    one place of all their channels.
    """
    dense = s.kw == 1 or (s.dw == 1 and s.xw == s.ci)
    if s.ow != 1 or s.oh == 1 or s.pl or s.kw > s.iw or s.groups != 1 or s.xc != 1 or not dense:
        return s, w
    across = s.kw * s.ci
    merged = replace(s, ci=across, iw=1, kw=1, sw=1, dw=1, xw=across)
    return merged, w.transpose(0, 3, 1, 2).reshape(w.shape[0], across, w.shape[2], 1)


def groups_together(s: Conv2dShape, w: Array, lanes: int, taken: int) -> tuple[Conv2dShape, Array]:
    """Several groups as one, whose weights of the others' channels are 0, where vectors are short.

    Groups of few channels fill a part of each vector of results, and of each product of ``taken``
    channels: by fours those of two channels that give two take eight times as many products as
    four such groups together.
    """
    ci, co, *kernel = int(w.shape[1]), int(w.shape[0]) // s.groups, *w.shape[2:]
    if ci == co == 1:  # depthwise
        return s, w

    def products(m: int) -> int:
        return s.groups // m * -(-m * co // lanes) * -(-m * ci // taken)

    able = (m for m in range(1, s.groups + 1) if s.groups % m == 0 and m * ci >= taken)
    m = min(able, key=lambda m: (products(m), -m), default=1)
    if m == 1:
        return s, w
    wide = np.zeros((s.groups // m, m, co, m, ci, *kernel), w.dtype)
    for i in range(m):
        wide[:, i, :, i] = w.reshape(-1, m, co, ci, *kernel)[:, i]
    return replace(s, groups=s.groups // m), wide.reshape(s.co, m * ci, *kernel)


def in_a_row(s: Conv2dShape, w: Array) -> tuple[Conv2dShape, Array]:
    """`lying`, and rows of the kernel as one place where the image is no wider."""
    return lying(*_rows_as_channels(s, w))
