"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import BOOL, F32, I64, Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

ReduceKind = Literal["sum", "mean", "max", "min", "prod"]
_ONNX = {
    "sum": "ReduceSum",
    "mean": "ReduceMean",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "prod": "ReduceProd",
}


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with the reduced axes kept at extent 1."""
    return tuple(1 if i in axes else d for i, d in enumerate(shape))


def around(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Extents [outer, n, inner] of ``shape`` around ``axes``; None when those lie apart."""
    kept = [a for a in axes if shape[a] != 1]
    if not kept:
        return prod(shape), 1, 1
    first, last = kept[0], kept[-1]
    if any(shape[i] != 1 and i not in axes for i in range(first, last)):
        return None
    return prod(shape[:first]), prod(shape[first : last + 1]), prod(shape[last + 1 :])


def around_groups(
    shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    """Extents [outer, n, groups, inner] with ``axes`` making n and inner; None for other ways.

    So lie the axes of groups of channels of a channels-last image.
    """
    long = [a for a, d in enumerate(shape) if d != 1]
    kinds = [a in axes for a in long]
    turns = [i for i in range(1, len(long)) if kinds[i] != kinds[i - 1]]
    if not kinds or not kinds[-1] or len(turns) not in (2, 3) or kinds[0] != (len(turns) == 2):
        return None
    cuts = [0, *(long[i] for i in turns), len(shape)]
    cuts = cuts if len(turns) == 3 else [0, *cuts]
    outer, n, groups, inner = (prod(shape[a:b]) for a, b in pairwise(cuts))
    return outer, n, groups, inner


def permuted_axes(axes: tuple[int, ...], perm: tuple[int, ...]) -> tuple[int, ...]:
    """Where ``axes`` of x lie in transpose(x, perm)."""
    return tuple(sorted(perm.index(a) for a in axes))


@dataclass(frozen=True, slots=True)
class Reduce(Op):
    """y = sum, mean, max, min or product of x over ``axes``, which stay with extent 1.

    Half types accumulate in float32, integers wrap; a mean of integers is truncated towards zero.
    Nothing reduces to 0 (sum), 1 (product), NaN (mean) and the identity of max and min.
    ONNX ReduceSum-13, ReduceMean-18 and the like.

    Attributes:
        kind: The reduction.
        axes: Ascending, each >= 0; empty leaves x as it is.
    """

    kind: ReduceKind
    axes: tuple[int, ...]

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if list(self.axes) != sorted({a for a in self.axes if 0 <= a < x.rank}):
            raise InvalidGraph(f"reduction over axes {self.axes} of {x}")
        if x.dtype == BOOL and self.kind not in ("max", "min"):
            raise InvalidGraph(f"{self.kind} of {x}")
        quant = moved(x.quant, x.rank) if self.kind in ("max", "min") else None
        return (replace(x, shape=reduced_shape(x.shape, self.axes), quant=quant),)

    def identity(self, dtype: np.dtype[Any]) -> float | int | bool:
        """What an empty reduction gives."""
        if self.kind in ("sum", "mean", "prod"):
            return float("nan") if self.kind == "mean" else int(self.kind == "prod")
        low = self.kind == "max"
        if dtype.kind == "f":
            return -np.inf if low else np.inf
        if dtype.kind == "b":
            return not low
        info = np.iinfo(dtype)
        return int(info.min if low else info.max)

    def eval(self, x: Array) -> tuple[Array, ...]:
        shape = reduced_shape(x.shape, self.axes)
        if not self.axes:
            return (x,)
        if x.size == 0:
            fill = 0 if self.kind == "mean" and x.dtype.kind != "f" else self.identity(x.dtype)
            return (np.full(shape, fill).astype(x.dtype),)
        if self.kind in ("max", "min"):
            pick = np.max if self.kind == "max" else np.min
            return (np.asarray(pick(x, axis=self.axes, keepdims=True)),)
        wide = x.astype(np.float32) if x.dtype == np.float16 else x
        total = np.prod if self.kind == "prod" else np.sum
        acc = np.dtype(np.int64) if x.dtype.kind in "iu" and self.kind == "mean" else wide.dtype
        y = np.asarray(total(wide, axis=self.axes, keepdims=True, dtype=acc))
        if self.kind == "mean":
            n = prod(x.shape[a] for a in self.axes)
            y = y / n if x.dtype.kind == "f" else np.sign(y) * (np.abs(y) // n)
        return (y.astype(x.dtype),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[0] is not None
        return x[0].size

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return Reduce(self.kind, permuted_axes(self.axes, perm))

    def export(self, w: Writer, site: Site) -> None:
        t = site.in_types[0]
        assert t is not None
        if t.size == 0:
            # runtimes disagree about nothing; its value is known
            (y,) = self.eval(np.zeros(t.shape, t.dtype.numpy))
            w.node("Identity", [w.const(y, t.dtype)], [site.outputs[0]])
            return
        if self.kind == "mean" and t.dtype == F32 and self.axes == tuple(range(2, max(t.rank, 3))):
            # what vendors look for, and older than axes as an operand
            w.node("GlobalAveragePool", [site.inputs[0]], [site.outputs[0]])
            return
        axes = w.const(np.array(self.axes, np.int64))
        with w.codes_in_floats(site) as wide:
            w.node(
                _ONNX[self.kind],
                [wide.inputs[0], axes],
                [wide.outputs[0]],
                keepdims=1,
                noop_with_empty_axes=1,
            )


@dataclass(frozen=True, slots=True)
class ArgReduce(Op):
    """y = index of the largest or smallest element along ``axis``, which stays with extent 1.

    The first of equal elements, with ``last`` the last one. int64. ONNX ArgMax-13, ArgMin-13.
    """

    kind: Literal["max", "min"]
    axis: int
    last: bool = False

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if not 0 <= self.axis < x.rank:
            raise InvalidGraph(f"axis {self.axis} of {x}")
        if x.shape[self.axis] == 0:
            raise InvalidGraph(f"{self.kind} over an empty axis of {x}")
        return (TensorType(reduced_shape(x.shape, (self.axis,)), I64, x.axes),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        pick = np.argmax if self.kind == "max" else np.argmin
        if self.last:
            at = x.shape[self.axis] - 1 - pick(np.flip(x, self.axis), axis=self.axis)
        else:
            at = pick(x, axis=self.axis)
        return (np.expand_dims(np.asarray(at, np.int64), self.axis),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[0] is not None
        return x[0].size

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return replace(self, axis=perm.index(self.axis))

    def export(self, w: Writer, site: Site) -> None:
        w.node(
            "ArgMax" if self.kind == "max" else "ArgMin",
            [site.inputs[0]],
            [site.outputs[0]],
            axis=self.axis,
            keepdims=1,
            select_last_index=int(self.last),
        )


@dataclass(frozen=True, slots=True)
class Cumulate(Op):
    """y = running sum or product along ``axis``. ONNX CumSum-14, CumProd-26.

    Attributes:
        kind: The operation.
        axis: Axis, >= 0.
        exclusive: Element i covers what comes before it only (the first is 0 or 1).
        reverse: Run from the end.
    """

    kind: Literal["sum", "prod"]
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if not 0 <= self.axis < x.rank or x.dtype == BOOL:
            raise InvalidGraph(f"running {self.kind} over axis {self.axis} of {x}")
        return (replace(x, quant=None),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        wide = x.astype(np.float32) if x.dtype == np.float16 else x
        if self.reverse:
            wide = np.flip(wide, self.axis)
        run = np.cumsum if self.kind == "sum" else np.cumprod
        y = run(wide, axis=self.axis, dtype=wide.dtype)
        if self.exclusive and x.shape[self.axis]:
            first = np.full(reduced_shape(x.shape, (self.axis,)), self.kind == "prod", y.dtype)
            kept = np.take(y, np.arange(x.shape[self.axis] - 1), self.axis)
            y = np.concatenate([first, kept], self.axis)
        if self.reverse:
            y = np.flip(y, self.axis)
        return (np.ascontiguousarray(y).astype(x.dtype, copy=False).reshape(x.shape),)

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return replace(self, axis=perm.index(self.axis))

    def export(self, w: Writer, site: Site) -> None:
        x, t = site.inputs[0], site.in_types[0]
        assert t is not None
        if self.kind == "sum":
            w.node(
                "CumSum",
                [x, w.const(np.array(self.axis, np.int64))],
                [site.outputs[0]],
                exclusive=int(self.exclusive),
                reverse=int(self.reverse),
            )
            return
        # opset 21 has no CumProd: a product over a masked square of rows
        n = t.shape[self.axis]
        before = np.tri(n, n, -1 if self.exclusive else 0, bool)
        mask = (before[::-1, ::-1] if self.reverse else before).reshape(
            n, n, *(1,) * (t.rank - 1 - self.axis)
        )
        one = w.scalar(1, t.dtype)
        rows = w.node("Unsqueeze", [x, w.const(np.array([self.axis], np.int64))])
        square = w.node("Where", [w.const(np.ascontiguousarray(mask)), rows, one])
        over = w.const(np.array([self.axis + 1], np.int64))
        w.node("ReduceProd", [square, over], [site.outputs[0]], keepdims=0)
