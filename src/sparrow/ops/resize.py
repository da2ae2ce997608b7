"""Resampling on a regular grid: outputs are fixed weighted sums along every resized axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.sums import CODES
from sparrow.tensor import BOOL, I64, Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

Mode = Literal["nearest", "linear", "cubic"]
Coordinates = Literal[
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
]
# Three axes of 16-bit elements stay inside int64
WEIGHT_BITS = 14
# Two axes of 8-bit codes stay inside int32.
CODE_BITS = 11
# A table holds them, 12 bytes each.
MAX_TAPS = 1 << 22
NearestMode = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


@dataclass(frozen=True, slots=True)
class Axis:
    """How one axis is resized.

    Attributes:
        axis: Which, >= 0.
        size: Output extent.
        scale: Output over input extent as the coordinates see it; not always the exact ratio.
        roi: (start, end) of the region read, relative to the axis; only for ``tf_crop_and_resize``.
    """

    axis: int
    size: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Output element o along ``axis`` is sum_k weight[o, k] * x[index[o, k]].

    Attributes:
        axis: The axis.
        index: int32 [size, K], inside the axis.
        weight: float64 [size, K]; all ones with K = 1 for nearest.
        outside: bool [size], elements that take the extrapolation value; None for none.
    """

    axis: int
    index: NDArray[np.int32]
    weight: NDArray[np.float64]
    outside: NDArray[np.bool_] | None


def fixed_weights(weight: NDArray[np.float64], bits: int = WEIGHT_BITS) -> NDArray[np.int64]:
    """Weights as multiples of 2^-bits; each row sums to what it did, so constants stay."""
    whole = np.rint(weight * (1 << bits)).astype(np.int64)
    missing = np.rint(weight.sum(1) * (1 << bits)).astype(np.int64) - whole.sum(1)
    whole[np.arange(len(whole)), np.abs(weight).argmax(1)] += missing
    return whole


def _coordinates(mode: Coordinates, a: Axis, extent: int) -> NDArray[np.float64]:
    y = np.arange(a.size, dtype=np.float64)
    out = a.scale * extent
    if mode == "align_corners":
        return np.zeros_like(y) if out == 1 else y * (extent - 1) / (out - 1)
    if mode == "asymmetric":
        return y / a.scale
    if mode == "tf_crop_and_resize":
        start, end = a.roi
        if out == 1:
            return np.full_like(y, (start + end) * (extent - 1) / 2)
        return y * (end - start) * (extent - 1) / (out - 1) + start * (extent - 1)
    if mode == "pytorch_half_pixel" and out == 1:
        return np.full_like(y, -0.5)
    x = (y + 0.5) / a.scale - 0.5
    if mode == "half_pixel_symmetric":
        x = x + extent / 2 * (1 - a.size / out)
    return x


def _cubic(x: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Keys' kernel at distance ``x``."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True, slots=True)
class Resize(Op):
    """y = x resampled along ``axes``. ONNX Resize-19, Upsample-9.

    Every mode reduces to fixed taps per axis, see `taps`. Float types compute in at least float32.
    Integers of 8 and 16 bits take the weights in fixed point (`fixed_weights`), so that sums are
    exact on every target; wider ones compute in float64. Both are truncated and saturate.

    Attributes:
        axes: The axes that change, ascending.
        mode: Interpolation.
        coordinates: Where output elements lie in x.
        nearest: Rounding of the coordinate, for ``nearest``.
        cubic_a: Parameter of Keys' kernel.
        exclude_outside: Taps outside x weigh nothing and the rest is renormalized, instead of
            reading the border element.
        antialias: Widen the kernel when shrinking.
        extrapolation: Value outside x, for ``tf_crop_and_resize``.
        rounded: x are 8-bit codes resized along at most two axes, without extrapolation: weights
            have `CODE_BITS` bits each, sums are int32, and halves are rounded up.
    """

    axes: tuple[Axis, ...]
    mode: Mode = "nearest"
    coordinates: Coordinates = "half_pixel"
    nearest: NearestMode = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0
    rounded: bool = False

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        where = [a.axis for a in self.axes]
        if where != sorted({i for i in where if 0 <= i < x.rank}):
            raise InvalidGraph(f"resize of axes {where} of {x}")
        shape = list(x.shape)
        for a in self.axes:
            if a.size < 0 or not a.scale > 0 or (a.size and shape[a.axis] == 0):
                raise InvalidGraph(f"axis {a.axis} of {x} to {a.size} with scale {a.scale}")
            # else taps outnumber what they lie over without end
            if self.antialias and a.scale * (shape[a.axis] + 1) < 0.5:
                raise InvalidGraph(f"axis {a.axis} of {x} shrunk by a scale of {a.scale}")
            if a.size * self._span(a) > MAX_TAPS:
                raise InvalidGraph(f"axis {a.axis} of {x} to {a.size}: over {MAX_TAPS} taps")
            shape[a.axis] = a.size
        factors = (self.cubic_a, *(v for a in self.axes for v in a.roi))
        if not all(abs(v) < 2.0**30 for v in factors):
            raise InvalidGraph(f"cubic coefficient or region {factors} of {x} is out of range")
        if x.dtype == BOOL and self.mode != "nearest":
            raise InvalidGraph(f"{self.mode} resize of {x}")
        if self.rounded and (x.dtype not in CODES or self.mode == "nearest" or len(where) > 2):
            raise InvalidGraph(f"rounded {self.mode} resize of axes {where} of {x}")
        return (replace(x, shape=tuple(shape), quant=moved(x.quant, x.rank)),)

    def taps(self, shape: tuple[int, ...]) -> tuple[Taps, ...]:
        """Indices and weights per resized axis for an x of this shape."""
        return tuple(self._taps(a, shape[a.axis]) for a in self.axes)

    def _taps(self, a: Axis, extent: int) -> Taps:
        x = _coordinates(self.coordinates, a, extent)
        outside = None
        if self.coordinates == "tf_crop_and_resize":
            over = (x < 0) | (x > extent - 1)
            outside = over if over.any() else None
        # float to int must stay in range whatever roi and scale say
        x = np.clip(np.nan_to_num(x), -(2.0**30), 2.0**30)
        if self.mode == "nearest":
            step: Any = {
                "round_prefer_floor": lambda v: np.ceil(v - 0.5),
                "round_prefer_ceil": lambda v: np.floor(v + 0.5),
                "floor": np.floor,
                "ceil": np.ceil,
            }[self.nearest]
            index = np.clip(step(x), 0, extent - 1).astype(np.int32)[:, None]
            return Taps(a.axis, index, np.ones(index.shape), outside)
        # taps reach from floor(x) + first to floor(x) + 1 - first
        first = 1 - self._span(a) // 2
        base = np.floor(x).astype(np.int64)
        index = base[:, None] + np.arange(first, 2 - first)
        distance = (index - x[:, None]) * self._stretch(a)
        if self.mode == "linear":
            weight = np.clip(1 - np.abs(distance), 0, 1)
        else:
            weight = _cubic(distance, self.cubic_a)
        if self.antialias:
            weight = weight / weight.sum(1, keepdims=True)
        if self.exclude_outside:
            weight = np.where((index < 0) | (index >= extent), 0.0, weight)
            total = weight.sum(1, keepdims=True)
            weight = weight / np.where(total == 0, 1.0, total)
        return Taps(a.axis, np.clip(index, 0, extent - 1).astype(np.int32), weight, outside)

    def _stretch(self, a: Axis) -> float:
        return min(a.scale, 1.0) if self.antialias else 1.0

    def _span(self, a: Axis) -> int:
        """How many taps an axis has."""
        if self.mode == "nearest":
            return 1
        return 2 * ceil((1 if self.mode == "linear" else 2) / self._stretch(a))

    def eval(self, x: Array) -> tuple[Array, ...]:
        rows = self.taps(x.shape)
        fixed = x.dtype.kind in "iu" and x.dtype.itemsize <= 2
        wide = x
        if self.mode != "nearest":
            wide = x.astype(np.int64 if fixed else np.result_type(x.dtype, np.float32))
        for t in rows:
            if self.mode == "nearest":
                wide = np.take(wide, t.index[:, 0], t.axis)
                continue
            weight: Array = t.weight.astype(wide.dtype)
            if fixed:
                weight = fixed_weights(t.weight, self.bits)
            shape = (1,) * t.axis + (-1,) + (1,) * (wide.ndim - t.axis - 1)
            wide = sum(
                (
                    np.take(wide, t.index[:, k], t.axis) * weight[:, k].reshape(shape)
                    for k in range(weight.shape[1])
                ),
                np.zeros((), wide.dtype),
            )
        if self.rounded:
            shift = CODE_BITS * len(rows)
            wide = (wide + (1 << shift >> 1)) >> shift
        elif fixed and self.mode != "nearest":
            # towards zero, as a cast from float would
            wide = np.sign(wide) * (np.abs(wide) >> (WEIGHT_BITS * len(rows)))
        for t in rows:
            if t.outside is not None:
                shape = (1,) * t.axis + (-1,) + (1,) * (wide.ndim - t.axis - 1)
                value = lane.convert(np.asarray(self.extrapolation), wide.dtype)
                wide = np.where(t.outside.reshape(shape), value, wide)
        if fixed:
            limits = np.iinfo(x.dtype)
            wide = np.clip(wide, limits.min, limits.max)
        return (np.asarray(lane.convert(np.asarray(wide), x.dtype), order="C"),)

    @property
    def bits(self) -> int:
        """Bits of the weights of narrow integers."""
        return CODE_BITS if self.rounded else WEIGHT_BITS

    def code_error(self, shape: tuple[int, ...]) -> float:
        """What weights in fixed point may move a sum of 8-bit codes of this shape, in steps."""
        # weights of an output sum to what they should: codes count from the middle of their range
        error = 0.0
        for t in self.taps(shape):
            off = fixed_weights(t.weight, self.bits) / (1 << self.bits) - t.weight
            error += 127.5 * float(np.abs(off).sum(1).max(initial=0.0))
        return error

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        if self.mode == "nearest":
            return 0
        return 2 * y[0].size * prod(self._span(a) for a in self.axes)

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        return sum(24 + 4 * self._span(a) for a in self.axes)

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        moved = [replace(a, axis=perm.index(a.axis)) for a in self.axes]
        return replace(self, axes=tuple(sorted(moved, key=lambda a: a.axis)))

    def export(self, w: Writer, site: Site) -> None:
        t, y = site.in_types[0], site.out_types[0]
        assert t is not None
        where = [a.axis for a in self.axes]
        rest = [i for i in range(t.rank) if i not in where]
        order = [*rest, *where]
        # runtimes interpolate the last axes of [1, channels, ...] only
        lead = [1, prod(t.shape[i] for i in rest), *(1,) * (2 - len(where))]
        shape = [*lead, *(t.shape[i] for i in where)]
        plain = not self.rounded and self._plain(t.shape)
        if plain and shape == [*t.shape] and order == [*range(t.rank)]:
            self._standard(w, site.inputs[0], t.shape, lead, [site.outputs[0]])
            return
        x = w.node("Transpose", [site.inputs[0]], perm=order)
        if self.rounded:
            x = self._rounded(w, x, t)
        elif plain:
            x = w.node("Reshape", [x, w.const(np.array(shape, np.int64))], allowzero=1)
            x = self._standard(w, x, t.shape, lead)
        else:
            x = self._matrices(w, x, t)
        grown = w.const(np.array([y.shape[i] for i in order], np.int64))
        x = w.node("Reshape", [x, grown], allowzero=1)
        back = [order.index(i) for i in range(t.rank)]
        w.node("Transpose", [x], [site.outputs[0]], perm=back)

    def _plain(self, shape: tuple[int, ...]) -> bool:
        """Whether an ONNX Resize can state the coordinates, by sizes or by scales."""
        by_size = self._by_size(shape)
        by_scale = all(
            floor(np.float32(a.scale) * shape[a.axis]) == a.size
            and float(np.float32(a.scale)) == a.scale
            for a in self.axes
        )
        # here the last element lies at a fractional extent, which runtimes round
        by_extent = self.coordinates in ("align_corners", "tf_crop_and_resize")
        return by_size or (by_scale and not by_extent)

    def _by_size(self, shape: tuple[int, ...]) -> bool:
        return all(shape[a.axis] and a.scale == a.size / shape[a.axis] for a in self.axes)

    def _standard(
        self,
        w: Writer,
        x: str,
        shape: tuple[int, ...],
        lead: list[int],
        outputs: Sequence[str] | None = None,
    ) -> str:
        n = len(lead)
        scales = sizes = roi = ""
        if self._by_size(shape):
            sizes = w.const(np.array([*lead, *(a.size for a in self.axes)], np.int64))
        else:
            scales = w.const(np.array([*(1,) * n, *(a.scale for a in self.axes)], np.float32))
        if self.coordinates == "tf_crop_and_resize":
            starts, ends = [a.roi[0] for a in self.axes], [a.roi[1] for a in self.axes]
            roi = w.const(np.array([*(0,) * n, *starts, *(1,) * n, *ends], np.float32))
        attrs: dict[str, Any] = {"antialias": 1} if self.antialias else {}
        if self.mode == "cubic":
            attrs["cubic_coeff_a"] = self.cubic_a
        return w.node(
            "Resize",
            [x, roi, scales, sizes],
            outputs,
            mode=self.mode,
            coordinate_transformation_mode=self.coordinates,
            nearest_mode=self.nearest,
            exclude_outside=int(self.exclude_outside),
            extrapolation_value=self.extrapolation,
            **attrs,
        )

    def _rounded(self, w: Writer, x: str, t: TensorType) -> str:
        """Integer matrices; the division rounds down because nothing is negative there."""
        x = self._matrices(w, w.node("Cast", [x], to=I64), TensorType(t.shape, I64))
        shift = CODE_BITS * len(self.axes)
        up = w.node("Add", [x, w.scalar((1 << shift >> 1) + (1 << shift + 16), I64)])
        down = w.node("Div", [up, w.scalar(1 << shift, I64)])
        y = w.node("Sub", [down, w.scalar(1 << 16, I64)])
        low, high = (w.scalar(v, I64) for v in t.dtype.limits)
        return w.node("Cast", [w.node("Min", [w.node("Max", [y, low]), high])], to=t.dtype)

    def _matrices(self, w: Writer, x: str, t: TensorType) -> str:
        """Gathers (nearest) or products with a dense matrix per axis, on the last axes of ``x``."""
        n, rank = len(self.axes), t.rank
        for i, taps in enumerate(self.taps(t.shape)):
            at = rank - n + i
            if self.mode == "nearest":
                x = w.node("Gather", [x, w.const(taps.index[:, 0].astype(np.int64))], axis=at)
                continue
            dense = np.zeros((t.shape[taps.axis], len(taps.index)), t.dtype.numpy)
            rows = fixed_weights(taps.weight, self.bits) if self.rounded else taps.weight
            for o, (index, weight) in enumerate(zip(taps.index, rows, strict=True)):
                np.add.at(dense[:, o], index, weight.astype(dense.dtype))
            swap = [*range(rank)]
            swap[at], swap[-1] = swap[-1], swap[at]
            x = w.node("Transpose", [x], perm=swap)
            x = w.node("MatMul", [x, w.const(dense, t.dtype)])
            x = w.node("Transpose", [x], perm=swap)
        return x
