"""Elements or sub-tensors written into a copy of a tensor at given indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.gather import in_range
from sparrow.ops.gather_elements import check_index_shape, open_grid
from sparrow.tensor import BOOL, I32, I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

Reduction = Literal["none", "add", "mul", "max", "min"]
REDUCTIONS: tuple[Reduction, ...] = ("none", "add", "mul", "max", "min")
_UFUNCS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _check(x: TensorType, updates: TensorType, reduction: Reduction) -> None:
    if updates.dtype != x.dtype:
        raise InvalidGraph(f"updates {updates} into {x}")
    if x.dtype == BOOL and reduction in ("add", "mul"):
        raise InvalidGraph(f"reduction {reduction!r} of {x}")


def _scattered(x: Array, at: tuple[Array, ...], updates: Array, reduction: Reduction) -> Array:
    """Copy of ``x`` with updates combined in row-major order; the last of equal indices wins."""
    wide = np.float32 if x.dtype == np.float16 else x.dtype
    y = x.astype(wide)
    if reduction == "none":
        y[at] = updates
    else:
        _UFUNCS[reduction].at(y, at, updates.astype(wide))
    return y.astype(x.dtype)


@dataclass(frozen=True, slots=True)
class ScatterElements(Op):
    """y = x, then y[i, index[i, j, ..], ..] op= updates[i, j, ..] along ``axis`` (>= 0).

    index int32 or int64; updates of its shape. Updates apply in row-major order, so that the last
    of equal indices wins; an index outside the axis is clamped, see `gather.in_range`. float16 sums
    round once at the end. ONNX ScatterElements-18.
    """

    axis: int
    reduction: Reduction = "none"

    def infer(
        self, x: TensorType, index: TensorType, updates: TensorType
    ) -> tuple[TensorType, ...]:
        check_index_shape(x, index, self.axis)
        _check(x, updates, self.reduction)
        if updates.shape != index.shape:
            raise InvalidGraph(f"updates {updates.shape} for indices {index.shape}")
        return (replace(x, quant=None),)

    def eval(self, x: Array, index: Array, updates: Array) -> tuple[Array, ...]:
        at = open_grid(index.shape)
        at[self.axis] = in_range(index, x.shape[self.axis])
        return (_scattered(x, tuple(at), updates, self.reduction),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        updates = x[2]
        assert updates is not None
        return 0 if self.reduction == "none" else updates.size

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        # the order in which duplicates meet would change
        return None

    def export(self, w: Writer, site: Site) -> None:
        w.node(
            "ScatterElements",
            list(site.inputs),
            [site.outputs[0]],
            axis=self.axis,
            reduction=self.reduction,
        )


@dataclass(frozen=True, slots=True)
class ScatterND(Op):
    """y = x, then y[index[i.., 0], .., index[i.., r-1], ..] op= updates[i.., ..]. ONNX
    ScatterND-18.

    x [D1, .., Dr, R..], index int32 or int64 [I.., r], updates [I.., R..]. Order, duplicates and
    range as for `ScatterElements`.
    """

    reduction: Reduction = "none"

    def infer(
        self, x: TensorType, index: TensorType, updates: TensorType
    ) -> tuple[TensorType, ...]:
        _check(x, updates, self.reduction)
        if index.dtype not in (I32, I64):
            raise InvalidGraph(f"indices are {index.dtype}, expected int32 or int64")
        depth = index.shape[-1] if index.rank else 0
        if not 1 <= depth <= x.rank:
            raise InvalidGraph(f"index vectors of {depth} into {x}")
        if updates.shape != (*index.shape[:-1], *x.shape[depth:]):
            raise InvalidGraph(f"updates {updates.shape} for indices {index.shape} into {x}")
        if index.size and 0 in x.shape[:depth]:
            raise InvalidGraph(f"indices into an empty axis of {x}")
        return (replace(x, quant=None),)

    def eval(self, x: Array, index: Array, updates: Array) -> tuple[Array, ...]:
        depth = index.shape[-1]
        at = tuple(in_range(index[..., j], x.shape[j]) for j in range(depth))
        return (_scattered(x, at, updates, self.reduction),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        updates = x[2]
        assert updates is not None
        return 0 if self.reduction == "none" else updates.size

    def export(self, w: Writer, site: Site) -> None:
        x, index, updates = site.inputs
        t = site.in_types[1]
        if t is not None and t.dtype == I32:
            index = w.node("Cast", [index], to=I64)
        w.node("ScatterND", [x, index, updates], [site.outputs[0]], reduction=self.reduction)
