"""Sampling at computed positions: grids, deformable convolution, regions, unpooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.conv import pooled_extent
from sparrow.tensor import I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

GridMode = Literal["nearest", "linear", "cubic"]
GridPadding = Literal["zeros", "border", "reflection"]

# Positions are cut to this before they become integers; what is beyond lies outside any tensor
FAR = float(1 << 24)
# More samples per bin than this change nothing but the time an absurd region would take
MAX_GRID = 256


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _finite(x: Array) -> Array:
    """Positions that convert to int safely; NaN becomes far outside."""
    return np.asarray(np.clip(np.nan_to_num(x, nan=-FAR, posinf=FAR, neginf=-FAR), -FAR, FAR))


def reflect(x: Array, low: float, high: float) -> Array:
    """Fold positions back into [low, high]."""
    span = high - low
    if span <= 0:
        return np.full_like(x, low)
    over = np.abs(x - low)
    turns = np.floor(over / span)
    rest = over - turns * span
    return np.where(turns % 2 == 0, low + rest, high - rest)


@dataclass(frozen=True, slots=True)
class GridSample(Op):
    """y[n, c, *o] = x[n, c] interpolated at grid[n, *o], any spatial rank. ONNX GridSample-22.

    x [N, C, *spatial]; grid [N, *out, rank], last axis in the order (x, y, z), in [-1, 1] over x.
    Positions that are not numbers count as outside. Half types compute in float32.

    Attributes:
        mode: Interpolation (cubic with coefficient -0.75).
        padding: What lies outside x: zeros, the border, or the mirror image.
        align_corners: -1 and 1 are the centres of the border elements, not their outer edges.
    """

    mode: GridMode = "linear"
    padding: GridPadding = "zeros"
    align_corners: bool = False

    def infer(self, x: TensorType, grid: TensorType) -> tuple[TensorType, ...]:
        n = x.rank - 2
        if n < 1 or grid.rank != x.rank or grid.shape[-1] != n or grid.shape[0] != x.shape[0]:
            raise InvalidGraph(f"grid {grid} does not fit {x}")
        if grid.dtype.kind != "float" or x.dtype.kind != "float":
            raise InvalidGraph(f"sampling of {x} at {grid}")
        if min((1, *x.shape[2:])) < 1:
            raise InvalidGraph(f"sampling of the empty {x}")
        return (TensorType((*x.shape[:2], *grid.shape[1:-1]), x.dtype),)

    def _axis(self, v: Array, extent: int) -> tuple[Array, Array]:
        """Indices [*out, K] and weights of the taps along one axis; 0 where nothing is read."""
        one = v.dtype.type
        if self.align_corners:
            low, high = 0.0, extent - 1.0
            at = (v + one(1)) / one(2) * one(extent - 1)
        else:
            low, high = -0.5, extent - 0.5
            at = ((v + one(1)) * one(extent) - one(1)) / one(2)
        at = _finite(at)
        if self.mode == "nearest":
            at = np.rint(at)
        if self.padding == "border":
            at = np.clip(at, 0, extent - 1)
        elif self.padding == "reflection":
            folded = reflect(at.astype(np.float64), low, high)
            at = np.where((at < low) | (at > high), folded, at).astype(v.dtype)
        base = np.floor(at)
        f = (at - base)[..., None]
        if self.mode == "nearest":
            offsets, weight = np.arange(1), np.ones_like(f)
        elif self.mode == "linear":
            offsets, weight = np.arange(2), np.concatenate([1 - f, f], -1)
        else:
            a, d = -0.75, np.arange(-1, 3)
            x = np.abs(d - f)
            near = ((a + 2) * x - (a + 3)) * x * x + 1
            far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
            offsets, weight = d, np.where((d == 0) | (d == 1), near, far).astype(v.dtype)
        index = base[..., None].astype(np.int64) + offsets
        inside = (index >= 0) & (index < extent)
        if self.padding == "zeros":
            weight = np.where(inside, weight, 0)
        elif self.padding == "reflection":
            # truncation towards zero, as in the runtimes
            index = np.where(inside, index, reflect(index.astype(np.float64), low, high)).astype(
                np.int64
            )
        return np.clip(index, 0, extent - 1), weight

    def eval(self, x: Array, grid: Array) -> tuple[Array, ...]:
        wide, pos = _wide(x), _wide(grid)
        n = x.ndim - 2
        taps = [self._axis(pos[..., n - 1 - i], x.shape[2 + i]) for i in range(n)]
        batch = np.arange(x.shape[0]).reshape(-1, *(1,) * n)
        y = np.zeros((x.shape[0], *grid.shape[1:-1], x.shape[1]), wide.dtype)
        last = np.moveaxis(wide, 1, -1)
        for pick in product(*(range(index.shape[-1]) for index, _ in taps)):
            where = tuple(index[..., k] for (index, _), k in zip(taps, pick, strict=True))
            weight = np.ones(grid.shape[:-1], wide.dtype)
            for (_, v), k in zip(taps, pick, strict=True):
                weight = weight * v[..., k].astype(wide.dtype)
            # a tap that is not there must not turn infinities into NaN
            value = np.where(weight[..., None] != 0, last[(batch, *where)], 0)
            y += weight[..., None] * value
        return (np.ascontiguousarray(np.moveaxis(y, -1, 1)).astype(x.dtype),)

    def flops(self, x: Types, y: tuple[TensorType, ...]) -> int:  # type: ignore[override]
        return 2 * y[0].size * self._taps(y[0])

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        return 24 + 12 * self._taps(y[0])

    def _taps(self, y: TensorType) -> int:
        return int({"nearest": 1, "linear": 2, "cubic": 4}[self.mode] ** (y.rank - 2))

    def export(self, w: Writer, site: Site) -> None:
        w.node(
            "GridSample",
            list(site.inputs),
            [site.outputs[0]],
            mode=self.mode,
            padding_mode=self.padding,
            align_corners=int(self.align_corners),
        )


def bilinear(x: Array, h: Array, w: Array) -> Array:
    """Bilinear values of x [C, H, W] at h, w [*out]; zero outside. Returns [C, *out]."""
    rows, cols = x.shape[1:]
    h, w = _finite(h), _finite(w)
    y = np.zeros((x.shape[0], *h.shape), x.dtype)
    h0, w0 = np.floor(h), np.floor(w)
    for dh, dw in product((0, 1), (0, 1)):
        i, j = h0.astype(np.int64) + dh, w0.astype(np.int64) + dw
        wh = h - h0 if dh else 1 - (h - h0)
        ww = w - w0 if dw else 1 - (w - w0)
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
        value = x[:, np.clip(i, 0, rows - 1), np.clip(j, 0, cols - 1)]
        y += np.where(inside, value * (wh * ww), 0).astype(x.dtype)
    return y


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
        xs, offs = _wide(x), _wide(offset)
        (n, c), (m, cg, kh, kw) = x.shape[:2], w.shape
        oh, ow = offset.shape[2:]
        offs = offs.reshape(n, self.offset_group, kh, kw, 2, oh, ow)
        one = xs.dtype.type
        shape = (n, self.offset_group, kh, kw, oh, ow)
        gain = np.ones(shape, one) if mask is None else _wide(mask).reshape(shape)
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

    def flops(self, x: Types, y: tuple[TensorType, ...]) -> int:  # type: ignore[override]
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
        xs = _wide(x)
        one = xs.dtype.type
        y = np.zeros((rois.shape[0], x.shape[1], *self.out), xs.dtype)
        for r in range(rois.shape[0]):
            box = _finite(rois[r].astype(one) * one(self.scale) - one(0.5 * self.half_pixel))
            image = xs[int(np.clip(batch[r], 0, x.shape[0] - 1))]
            axes = []
            for i, (start, end) in enumerate(((box[1], box[3]), (box[0], box[2]))):
                span = end - start if self.half_pixel else max(end - start, one(1))
                axes.append(self._samples(start, span, self.out[i], x.shape[2 + i]))
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

    def _samples(self, start: float, span: float, bins: int, extent: int) -> tuple[Array, int]:
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

    def flops(self, x: Types, y: tuple[TensorType, ...]) -> int:  # type: ignore[override]
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
        one = _wide(rois).dtype.type
        for r in range(rois.shape[0]):
            region = _finite(_wide(rois[r]))
            box = [_away(_finite(region[k] * one(self.scale))) for k in (2, 4, 1, 3)]
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

    def flops(self, x: Types, y: tuple[TensorType, ...]) -> int:  # type: ignore[override]
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


@dataclass(frozen=True, slots=True)
class Unpool(Op):
    """y, zero but for y.flat[index] = x; the last of equal indices wins. ONNX MaxUnpool-22.

    x of any shape; index int64 of the same shape; an index outside y writes nothing.

    Attributes:
        shape: Shape of y.
    """

    shape: tuple[int, ...]

    def infer(self, x: TensorType, index: TensorType) -> tuple[TensorType, ...]:
        if index.shape != x.shape or index.dtype != I64:
            raise InvalidGraph(f"indices {index} do not fit {x}")
        return (TensorType(self.shape, x.dtype),)

    def eval(self, x: Array, index: Array) -> tuple[Array, ...]:
        y = np.zeros(prod(self.shape), x.dtype)
        good = (index >= 0) & (index < y.size)
        y[index[good]] = x[good]
        return (y.reshape(self.shape),)

    def flops(self, x: Types, y: tuple[TensorType, ...]) -> int:  # type: ignore[override]
        return 0

    def export(self, w: Writer, site: Site) -> None:
        t = site.in_types[0]
        assert t is not None
        flat = w.const(np.array([-1], np.int64))
        zeros = w.const(np.zeros(prod(self.shape), t.dtype.numpy), t.dtype)
        values = w.node("Reshape", [site.inputs[0], flat])
        index = w.node("Reshape", [site.inputs[1], flat])
        y = w.node("ScatterElements", [zeros, index, values])
        shape = w.const(np.array(self.shape, np.int64))
        w.node("Reshape", [y, shape], [site.outputs[0]], allowzero=1)
