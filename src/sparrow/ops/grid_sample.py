"""Interpolation at the positions of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.positions import finite, wide
from sparrow.tensor import Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

GridMode = Literal["nearest", "linear", "cubic"]
GridPadding = Literal["zeros", "border", "reflection"]


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
        at = finite(at)
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
        xs, pos = wide(x), wide(grid)
        n = x.ndim - 2
        taps = [self._axis(pos[..., n - 1 - i], x.shape[2 + i]) for i in range(n)]
        batch = np.arange(x.shape[0]).reshape(-1, *(1,) * n)
        y = np.zeros((x.shape[0], *grid.shape[1:-1], x.shape[1]), xs.dtype)
        last = np.moveaxis(xs, 1, -1)
        for pick in product(*(range(index.shape[-1]) for index, _ in taps)):
            where = tuple(index[..., k] for (index, _), k in zip(taps, pick, strict=True))
            weight = np.ones(grid.shape[:-1], xs.dtype)
            for (_, v), k in zip(taps, pick, strict=True):
                weight = weight * v[..., k].astype(xs.dtype)
            # a tap that is not there must not turn infinities into NaN
            value = np.where(weight[..., None] != 0, last[(batch, *where)], 0)
            y += weight[..., None] * value
        return (np.ascontiguousarray(np.moveaxis(y, -1, 1)).astype(x.dtype),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
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
