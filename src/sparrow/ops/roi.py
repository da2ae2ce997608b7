"""Pooling over regions of interest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.positions import finite, wide
from sparrow.tensor import I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

# More samples per bin than this change nothing but the time an absurd region would take
MAX_GRID = 256


@dataclass(frozen=True, slots=True)
class RoiAlign(Op):
    """Bins of regions of interest, averaged or maximized over bilinear samples. ONNX RoiAlign-16.

    x [N, C, H, W]; rois [R, 4] as (x1, y1, x2, y2); batch [R] int64, which image each lies in
    (cut to the valid range). y [R, C, *out]. At most `MAX_GRID` samples per bin and axis are taken.

    Attributes:
        out: (height, width) in bins.
        scale: From the coordinates of rois to those of x.
        sampling: Samples per bin and axis; 0 takes ceil(bin extent).
        kind: Over the samples; the maximum is over their four weighted neighbours, as in ONNX.
        half_pixel: Shift by half an element, and let regions be smaller than one.
    """

    out: tuple[int, int]
    scale: float = 1.0
    sampling: int = 0
    kind: Literal["average", "max"] = "average"
    half_pixel: bool = True

    def infer(self, x: TensorType, rois: TensorType, batch: TensorType) -> tuple[TensorType, ...]:
        if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 4 or batch.shape != rois.shape[:1]:
            raise InvalidGraph(f"regions {rois} of images {batch} do not fit {x}")
        if min(*self.out, *x.shape[2:], x.shape[0]) < 1 or self.sampling < 0:
            raise InvalidGraph(f"regions of {self.out} bins, {self.sampling} samples, of {x}")
        if batch.dtype != I64 or x.dtype.kind != "float" or rois.dtype != x.dtype:
            raise InvalidGraph(f"regions {rois} of images {batch} of {x}")
        return (TensorType((rois.shape[0], x.shape[1], *self.out), x.dtype),)

    def eval(self, x: Array, rois: Array, batch: Array) -> tuple[Array, ...]:
        xs = wide(x)
        one = xs.dtype.type
        y = np.zeros((rois.shape[0], x.shape[1], *self.out), xs.dtype)
        for r in range(rois.shape[0]):
            box = finite(rois[r].astype(one) * one(self.scale) - one(0.5 * self.half_pixel))
            image = xs[int(np.clip(batch[r], 0, x.shape[0] - 1))]
            axes = []
            for i, (start, end) in enumerate(((box[1], box[3]), (box[0], box[2]))):
                span = end - start if self.half_pixel else max(end - start, one(1))
                axes.append(self._samples(start, span, self.out[i]))
            (h, hs), (w, ws) = axes
            if not hs * ws:
                continue
            values = self._gather(image, h, w)
            bins = values.reshape(-1, self.out[0], hs, self.out[1], ws, 4)
            if self.kind == "average":
                y[r] = bins.sum((2, 4, 5)) / one(hs * ws)
            else:
                y[r] = bins.max((2, 4, 5))
        return (y.astype(x.dtype),)

    def _samples(self, start: float, span: float, bins: int) -> tuple[Array, int]:
        one = np.result_type(start).type
        size = span / one(bins)
        count = self.sampling or int(min(max(np.ceil(size), 0), MAX_GRID))
        at = np.arange(bins).astype(one)[:, None] * size
        inner = (np.arange(count).astype(one) + one(0.5)) * size / one(max(count, 1))
        return (start + at + inner).ravel(), count

    def _gather(self, image: Array, h: Array, w: Array) -> Array:
        """The four weighted neighbours of every sample: [C, len(h), len(w), 4]."""
        taps = []
        for at, extent in ((h, image.shape[1]), (w, image.shape[2])):
            outside = (at < -1) | (at > extent)
            at = np.maximum(at, 0)
            low = np.minimum(at.astype(np.int64), extent - 1)
            f = np.where(low >= extent - 1, 0, at - low).astype(at.dtype)
            taps.append((low, np.minimum(low + 1, extent - 1), 1 - f, f, outside))
        (h0, h1, hl, hh, ho), (w0, w1, wl, wh, wo) = taps
        dead = ho[:, None] | wo
        parts = [
            np.where(dead, 0, image[:, i[:, None], j] * (a[:, None] * b))
            for i, a in ((h0, hl), (h1, hh))
            for j, b in ((w0, wl), (w1, wh))
        ]
        return np.stack(parts, -1)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        # as many samples as a region needs are rarely more than those of the whole image
        assert x[0] is not None
        each = self.sampling**2 or -(-prod(x[0].shape[2:]) // prod(self.out))
        return 8 * y[0].size * each

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        return 96 * y[0].shape[0]

    def export(self, w: Writer, site: Site) -> None:
        w.node(
            "RoiAlign",
            list(site.inputs),
            [site.outputs[0]],
            output_height=self.out[0],
            output_width=self.out[1],
            spatial_scale=self.scale,
            sampling_ratio=self.sampling,
            mode="avg" if self.kind == "average" else "max",
            coordinate_transformation_mode="half_pixel" if self.half_pixel else "output_half_pixel",
        )


@dataclass(frozen=True, slots=True)
class RoiPool(Op):
    """Maximum of x over the bins of regions of interest; an empty bin is 0. ONNX MaxRoiPool-1.

    x [N, C, H, W]; rois [R, 5] as (image, x1, y1, x2, y2), ends included. y [R, C, *out].

    Attributes:
        out: (height, width) in bins.
        scale: From the coordinates of rois to those of x.
    """

    out: tuple[int, int]
    scale: float = 1.0

    def infer(self, x: TensorType, rois: TensorType) -> tuple[TensorType, ...]:
        if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 5 or x.dtype != rois.dtype:
            raise InvalidGraph(f"regions {rois} do not fit {x}")
        if min(*self.out, *x.shape[2:], x.shape[0]) < 1 or x.dtype.kind != "float":
            raise InvalidGraph(f"regions of {self.out} bins of {x}")
        return (TensorType((rois.shape[0], x.shape[1], *self.out), x.dtype),)

    def eval(self, x: Array, rois: Array) -> tuple[Array, ...]:
        y = np.zeros((rois.shape[0], x.shape[1], *self.out), x.dtype)
        one = wide(rois).dtype.type
        for r in range(rois.shape[0]):
            region = finite(wide(rois[r]))
            box = [_away(finite(region[k] * one(self.scale))) for k in (2, 4, 1, 3)]
            spans = []
            for start, end, bins, extent in (
                (box[0], box[1], self.out[0], x.shape[2]),
                (box[2], box[3], self.out[1], x.shape[3]),
            ):
                size = one(max(end - start + 1, 1)) / one(bins)
                i = np.arange(bins).astype(one)
                low = np.clip(np.floor(i * size) + start, 0, extent).astype(np.int64)
                high = np.clip(np.ceil((i + 1) * size) + start, 0, extent).astype(np.int64)
                spans.append(list(zip(low, high, strict=True)))
            source = x[int(np.clip(int(region[0]), 0, x.shape[0] - 1))]
            for row, col in product(range(self.out[0]), range(self.out[1])):
                (a, b), (c, d) = spans[0][row], spans[1][col]
                if a < b and c < d:
                    y[r, :, row, col] = source[:, a:b, c:d].max((1, 2))
        return (y,)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[0] is not None
        return y[0].shape[0] * prod(x[0].shape[1:])

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        return 4 * y[0].shape[0] * prod(self.out)

    def export(self, w: Writer, site: Site) -> None:
        w.node(
            "MaxRoiPool",
            list(site.inputs),
            [site.outputs[0]],
            pooled_shape=list(self.out),
            spatial_scale=self.scale,
        )


def _away(x: Array) -> int:
    """Nearest integer, halves away from zero (C ``round``)."""
    return int(np.copysign(np.floor(np.abs(x) + x.dtype.type(0.5)), x))
