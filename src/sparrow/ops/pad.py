"""Growing a tensor: padding and broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.lane import broadcast_shape
from sparrow.tensor import Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

PadMode = Literal["constant", "reflect", "edge", "wrap"]


@dataclass(frozen=True, slots=True)
class Pad(Op):
    """y = x with ``pads`` more elements around it. ONNX Pad-21, non-negative pads only.

    Attributes:
        pads: (begin, end) per axis, each >= 0; ``reflect`` takes extents above 1, ``edge`` and
            ``wrap`` extents above 0.
        mode: What the new elements are: ``value``, the mirror image without its border, the
            border element, or the tensor over again.
        value: The constant, of the kind of x.
    """

    pads: tuple[tuple[int, int], ...]
    mode: PadMode = "constant"
    value: float | int | bool = 0

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if len(self.pads) != x.rank or min((0, *(v for p in self.pads for v in p))) < 0:
            raise InvalidGraph(f"pads {self.pads} do not fit {x}")
        least = {"constant": 0, "edge": 1, "wrap": 1, "reflect": 2}[self.mode]
        for d, p in zip(x.shape, self.pads, strict=True):
            if sum(p) and d < least:
                raise InvalidGraph(f"{self.mode} padding {p} of an axis of {d}")
        shape = tuple(d + a + b for d, (a, b) in zip(x.shape, self.pads, strict=True))
        return (replace(x, shape=shape, quant=moved(x.quant, x.rank)),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        if not self.pads:  # NumPy takes no list of no pads
            return (x,)
        if self.mode == "constant":
            fill = np.asarray(self.value).astype(x.dtype)
            return (np.pad(x, self.pads, constant_values=fill),)
        return (np.pad(x, self.pads, mode=self.mode),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        # NumPy mirrors, or repeats, what is there as often as it fits into the padding
        assert x[0] is not None
        rows = zip(x[0].shape, self.pads, strict=True)
        return 16 * sum(sum(p) // max(d - 1, 1) for d, p in rows)

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return replace(self, pads=tuple(self.pads[p] for p in perm))

    def export(self, w: Writer, site: Site) -> None:
        with w.codes_in_floats(site) as wide:
            self._export(w, wide)

    def _export(self, w: Writer, site: Site) -> None:
        t = site.in_types[0]
        assert t is not None
        pads = w.const(np.array([p[0] for p in self.pads] + [p[1] for p in self.pads], np.int64))
        value = w.scalar(self.value, t.dtype) if self.mode == "constant" else ""
        w.node("Pad", [site.inputs[0], pads, value], [site.outputs[0]], mode=self.mode)


@dataclass(frozen=True, slots=True)
class Expand(Op):
    """y = x broadcast to ``shape``; rank of x <= rank of y. ONNX Expand-13."""

    shape: tuple[int, ...]

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if broadcast_shape(x.shape, self.shape) != self.shape:
            raise InvalidGraph(f"{x} does not broadcast to {self.shape}")
        return (TensorType(self.shape, x.dtype, quant=moved(x.quant, len(self.shape))),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        return (np.asarray(np.broadcast_to(x, self.shape), order="C"),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        if x[0] is None or x[0].rank != len(perm):
            return None
        return Expand(tuple(self.shape[p] for p in perm))

    def export(self, w: Writer, site: Site) -> None:
        shape = w.const(np.array(self.shape, np.int64))
        w.node("Expand", [site.inputs[0], shape], [site.outputs[0]])
