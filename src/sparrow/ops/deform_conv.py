"""Convolution at displaced positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.conv import pooled_extent
from sparrow.ops.positions import bilinear, wide
from sparrow.tensor import Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class DeformConv(Op):
    """Convolution whose taps are displaced by offsets and weighed by a mask. ONNX DeformConv-22.

    x [N, C, H, W]; w [M, C/group, kh, kw]; offset [N, offset_group * kh * kw * 2, oh, ow], pairs
    (dy, dx) per tap; bias [M] and mask [N, offset_group * kh * kw, oh, ow] optional.

    Attributes:
        strides: (h, w).
        dilations: (h, w).
        pads: (begin, end) per spatial axis.
        group: Channel groups of the weights.
        offset_group: Channel groups that share offsets.
    """

    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[tuple[int, int], ...]
    group: int = 1
    offset_group: int = 1

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        offset: TensorType,
        b: TensorType | None = None,
        mask: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        if x.rank != 4 or w.rank != 4 or x.dtype.kind != "float":
            raise InvalidGraph(f"deformable convolution of {x} with {w}")
        if not len(self.strides) == len(self.dilations) == len(self.pads) == 2:
            raise InvalidGraph("strides, dilations and pads are those of two axes")
        c, m = x.shape[1], w.shape[0]
        if min(self.group, self.offset_group) < 1 or c % self.offset_group:
            raise InvalidGraph(f"{c} channels in {self.offset_group} offset groups")
        if c != w.shape[1] * self.group or m % self.group:
            raise InvalidGraph(f"{c} channels in {self.group} groups do not fit weights {w.shape}")
        if min((*self.strides, *self.dilations, *w.shape[2:], *x.shape[2:])) < 1:
            raise InvalidGraph("strides, dilations and extents must be positive")
        if b is not None and b.shape != (m,):
            raise InvalidGraph(f"bias {b.shape} does not fit {m} output channels")
        rows = zip(x.shape[2:], w.shape[2:], self.strides, self.dilations, self.pads, strict=True)
        out = tuple(pooled_extent(n, k, s, d, p, False) for n, k, s, d, p in rows)
        taps = self.offset_group * prod(w.shape[2:])
        if offset.shape != (x.shape[0], 2 * taps, *out):
            raise InvalidGraph(f"offset {offset.shape}, expected {(x.shape[0], 2 * taps, *out)}")
        if mask is not None and mask.shape != (x.shape[0], taps, *out):
            raise InvalidGraph(f"mask {mask.shape}, expected {(x.shape[0], taps, *out)}")
        return (TensorType((x.shape[0], m, *out), x.dtype),)

    def eval(
        self, x: Array, w: Array, offset: Array, b: Array | None = None, mask: Array | None = None
    ) -> tuple[Array, ...]:
        xs, offs = wide(x), wide(offset)
        (n, c), (m, cg, kh, kw) = x.shape[:2], w.shape
        oh, ow = offset.shape[2:]
        offs = offs.reshape(n, self.offset_group, kh, kw, 2, oh, ow)
        one = xs.dtype.type
        shape = (n, self.offset_group, kh, kw, oh, ow)
        gain = np.ones(shape, one) if mask is None else wide(mask).reshape(shape)
        cols = np.zeros((n, c, kh, kw, oh, ow), xs.dtype)
        step = c // self.offset_group
        top, left = np.arange(oh)[:, None] * self.strides[0], np.arange(ow) * self.strides[1]
        for i, g, r, s in product(range(n), range(self.offset_group), range(kh), range(kw)):
            h = one(1) * (top - self.pads[0][0] + r * self.dilations[0]) + offs[i, g, r, s, 0]
            v = one(1) * (left - self.pads[1][0] + s * self.dilations[1]) + offs[i, g, r, s, 1]
            part = slice(g * step, (g + 1) * step)
            cols[i, part, r, s] = bilinear(xs[i, part], h, v) * gain[i, g, r, s]
        rows = w.astype(xs.dtype).reshape(self.group, m // self.group, cg * kh * kw)
        y = rows @ cols.reshape(n, self.group, cg * kh * kw, oh * ow)
        y = y.reshape(n, m, oh, ow)
        if b is not None:
            y = y + b.reshape(-1, 1, 1)
        return (y.astype(x.dtype),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[1] is not None
        return 2 * y[0].size * prod(x[1].shape[1:])

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[0] is not None and x[1] is not None
        return 64 * x[0].shape[0] * self.offset_group * prod(x[1].shape[2:])

    def export(self, w: Writer, site: Site) -> None:
        w.node(
            "DeformConv",
            list(site.inputs),
            [site.outputs[0]],
            strides=list(self.strides),
            dilations=list(self.dilations),
            pads=[p[0] for p in self.pads] + [p[1] for p in self.pads],
            group=self.group,
            offset_group=self.offset_group,
        )
