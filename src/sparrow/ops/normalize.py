"""Normalization by mean and variance, and across neighbouring channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.lane import broadcast_shape
from sparrow.ops.reduce import around, around_groups, permuted_axes, reduced_shape
from sparrow.tensor import BF16, F32, Array, DType, TensorType, round_bfloat16

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


def _round(x: Array, like: TensorType | DType) -> Array:
    dtype = like if isinstance(like, DType) else like.dtype
    return round_bfloat16(x.astype(np.float32)) if dtype == BF16 else x.astype(dtype.numpy)


@dataclass(frozen=True, slots=True)
class Normalize(Op):
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias, statistics over ``axes``.

    x of any shape; scale and bias are optional and broadcast to x. Without ``center`` nothing is
    subtracted and the mean square takes the variance's place. Statistics and the normalized value
    are computed in ``stash``, then rounded to the dtype of x, scaled and shifted there.
    ONNX LayerNormalization-17, RMSNormalization-23, InstanceNormalization, GroupNormalization-21.

    Attributes:
        axes: Ascending, each >= 0.
        epsilon: Added to the variance.
        center: Subtract the mean.
        stash: Float type of the statistics.
        stats: Also return the mean (with ``center``) and 1 / sqrt(variance + epsilon), of type
            ``stash`` with the reduced axes at extent 1.
    """

    axes: tuple[int, ...]
    epsilon: float
    center: bool = True
    stash: DType = F32
    stats: bool = False

    def infer(
        self, x: TensorType, scale: TensorType | None = None, bias: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        if list(self.axes) != sorted({a for a in self.axes if 0 <= a < x.rank}) or not self.axes:
            raise InvalidGraph(f"normalization over axes {self.axes} of {x}")
        if x.dtype.kind != "float" or self.stash.kind != "float":
            raise InvalidGraph(f"normalization of {x} in {self.stash}")
        for name, t in (("scale", scale), ("bias", bias)):
            if t is not None and (
                t.dtype != x.dtype or broadcast_shape(t.shape, x.shape) != x.shape
            ):
                raise InvalidGraph(f"{name} {t} does not fit {x}")
        stat = TensorType(reduced_shape(x.shape, self.axes), self.stash)
        if self.stats and stat.size and not x.size:
            raise InvalidGraph(f"mean over axes {self.axes} of {x}, which has no elements")
        return (x, *(stat,) * (1 + self.center)) if self.stats else (x,)

    def eval(
        self, x: Array, scale: Array | None = None, bias: Array | None = None
    ) -> tuple[Array, ...]:
        wide: Array = _round(x, self.stash)
        acc: Any = np.float64 if wide.dtype == np.float64 else np.float32
        n = max(1, prod(x.shape[a] for a in self.axes))
        mean = wide.sum(self.axes, keepdims=True, dtype=acc) / acc(n)
        centred: Array = wide - mean if self.center else wide.astype(acc)
        square = (centred * centred).sum(self.axes, keepdims=True) / acc(n)
        inverse = acc(1) / np.sqrt(square + acc(self.epsilon))
        y = (centred * inverse).astype(x.dtype)
        if scale is not None:
            y = y * scale
        if bias is not None:
            y = y + bias
        y = y.astype(x.dtype, copy=False)
        if not self.stats:
            return (y,)
        stats = (mean, inverse) if self.center else (inverse,)
        return (y, *(_round(s, self.stash) for s in stats))

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 7 * y[0].size

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        rank = len(perm)
        if any(t is not None and t.rank not in (0, rank) for t in x[1:]):
            return None
        axes = permuted_axes(self.axes, perm)
        assert x[0] is not None
        shape = tuple(x[0].shape[i] for i in perm)
        # kernels walk axes that lie together, or around groups of channels
        grouped = x[0].dtype == F32 == self.stash and not self.stats
        if around(shape, axes) is None and not (grouped and around_groups(shape, axes)):
            return None
        return replace(self, axes=axes)

    def transposable(self, x: Types) -> tuple[int, ...]:
        return tuple(i for i, t in enumerate(x) if t is not None and t.rank > 0)

    def export(self, w: Writer, site: Site) -> None:
        x, t = site.inputs[0], site.in_types[0]
        assert t is not None
        scale, bias = ((*site.inputs[1:], "", "")[i] for i in range(2))
        first = self.axes[0]
        trailing = self.axes == tuple(range(first, t.rank))
        fits = all(s is None or s.shape == t.shape[first:] for s in site.in_types[1:])
        if trailing and self.center and scale and fits and self.stash == F32:
            w.node(
                "LayerNormalization",
                [x, scale, bias],
                list(site.outputs),
                axis=first,
                epsilon=self.epsilon,
            )
            return
        axes = w.const(np.array(self.axes, np.int64))
        cast = t.dtype != self.stash
        proto = _proto(self.stash)
        wide = w.node("Cast", [x], to=proto) if cast else x
        mean = ""
        if self.center:
            mean = w.node("ReduceMean", [wide, axes], keepdims=1)
            wide = w.node("Sub", [wide, mean])
        square = w.node("ReduceMean", [w.node("Mul", [wide, wide]), axes], keepdims=1)
        shifted = w.node("Add", [square, w.scalar(self.epsilon, self.stash)])
        inverse = w.node("Reciprocal", [w.node("Sqrt", [shifted])])
        y = w.node("Mul", [wide, inverse])
        if cast:
            y = w.node("Cast", [y], to=_proto(t.dtype))
        if scale:
            y = w.node("Mul", [y, scale])
        if bias:
            y = w.node("Add", [y, bias])
        w.node("Identity", [y], [site.outputs[0]])
        stats = [mean, inverse] if self.center else [inverse]
        for name, out in zip(stats, site.outputs[1:], strict=False):
            w.node("Identity", [name], [out])


def _proto(dtype: DType) -> int:
    from sparrow.export import PROTO

    return int(PROTO[dtype])


@dataclass(frozen=True, slots=True)
class LocalResponse(Op):
    """y = x / (bias + alpha / size * sum of squares of ``size`` neighbours along ``axis``) ** beta.

    The neighbours of i are i - (size - 1) // 2 .. i + size // 2, inside the axis. ONNX LRN-13.
    """

    size: int
    alpha: float
    beta: float
    bias: float
    axis: int = 1

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if not 0 <= self.axis < x.rank or x.dtype.kind != "float" or self.size < 1:
            raise InvalidGraph(f"response normalization of {x}, axis {self.axis}, size {self.size}")
        return (x,)

    def eval(self, x: Array) -> tuple[Array, ...]:
        wide: Array = x.astype(np.float64 if x.dtype == np.float64 else np.float32)
        one = wide.dtype.type
        pads = [(0, 0)] * x.ndim
        pads[self.axis] = ((self.size - 1) // 2, self.size // 2)
        padded = np.pad(wide * wide, pads)
        win = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=self.axis)
        base = one(self.bias) + one(self.alpha / self.size) * win.sum(-1)
        return ((wide / base ** one(self.beta)).astype(x.dtype),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return (2 * self.size + 4) * y[0].size

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return replace(self, axis=perm.index(self.axis))

    def export(self, w: Writer, site: Site) -> None:
        x, t = site.inputs[0], site.in_types[0]
        assert t is not None
        # ONNX normalizes axis 1 of rank-4 tensors
        before, after = prod(t.shape[: self.axis]), prod(t.shape[self.axis + 1 :])
        shape = np.array((before, t.shape[self.axis], after, 1), np.int64)
        flat = w.node("Reshape", [x, w.const(shape)], allowzero=1)
        y = w.node("LRN", [flat], size=self.size, alpha=self.alpha, beta=self.beta, bias=self.bias)
        back = w.const(np.array(t.shape, np.int64))
        w.node("Reshape", [y, back], [site.outputs[0]], allowzero=1)
