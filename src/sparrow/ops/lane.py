"""Elementwise computation with broadcasting: one fused loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import MAX_RANK, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


def broadcast_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Shape after multidirectional broadcasting, as ONNX and NumPy define it."""
    rank = max(map(len, shapes), default=0)
    if rank > MAX_RANK:
        raise InvalidGraph(f"a tensor of {rank} axes; there may be {MAX_RANK}")
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise InvalidGraph(f"shapes {', '.join(map(str, shapes))} do not broadcast") from None


def broadcast_axes(x: Types, rank: int) -> str:
    """Axis letters of a broadcast result: those of the first full-rank input that has some."""
    return next((t.axes for t in x if t is not None and t.rank == rank and t.axes), "")


@dataclass(frozen=True, slots=True)
class Lane(Op):
    """y = expr(x0, x1, ...), elementwise with broadcasting. Any shapes that broadcast."""

    expr: lane.Expr

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        for a in lane.walk(self.expr):
            if isinstance(a, lane.Arg) and x[a.index].dtype != a.dtype:
                raise InvalidGraph(f"operand {a.index} is {x[a.index].dtype}, expected {a.dtype}")
        shape = broadcast_shape(*(t.shape for t in x))
        return (TensorType(shape, self.expr.dtype, broadcast_axes(x, len(shape))),)

    def eval(self, *x: Array) -> tuple[Array, ...]:
        y = lane.evaluate(self.expr, x)
        shape = np.broadcast_shapes(*(a.shape for a in x))
        return (np.asarray(np.broadcast_to(y, shape), order="C"),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return y[0].size * self._calls()

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        return 4 * self._calls()

    def _calls(self) -> int:
        return sum(isinstance(e, lane.Call) for e in lane.walk(self.expr))

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return self

    def transposable(self, x: Types) -> tuple[int, ...]:
        return tuple(i for i, t in enumerate(x) if t is not None and t.rank > 0)

    def export(self, w: Writer, site: Site) -> None:
        y = w.expr(self.expr, site.inputs, tuple(t.shape for t in site.in_types if t))
        w.node("Identity", [y], [site.outputs[0]])
