"""Strided sub-tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Slice(Op):
    """y[i0, i1, ..] = x[starts + i * steps], every axis named. ONNX Slice-13, Split-18.

    Attributes:
        starts: First index per axis, inside the axis (0 where the extent is 0).
        sizes: Extent of y per axis.
        steps: Non-zero step per axis; negative walks backwards.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if not len(self.starts) == len(self.sizes) == len(self.steps) == x.rank:
            raise InvalidGraph(f"slice of rank {len(self.starts)} on {x}")
        for d, a, n, s in zip(x.shape, self.starts, self.sizes, self.steps, strict=True):
            last = a + (n - 1) * s
            if n < 0 or s == 0 or (n and not (0 <= a < d and 0 <= last < d)):
                raise InvalidGraph(f"slice start {a} size {n} step {s} leaves an axis of {d}")
        return (replace(x, shape=self.sizes, quant=moved(x.quant, x.rank)),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        for axis, (a, n, s) in enumerate(zip(self.starts, self.sizes, self.steps, strict=True)):
            x = np.take(x, a + s * np.arange(n), axis) if n else np.take(x, np.arange(0), axis)
        return (np.asarray(x, order="C"),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        return 4 * len(self.starts)

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        pick = [(self.starts[p], self.sizes[p], self.steps[p]) for p in perm]
        starts, sizes, steps = zip(*pick, strict=True)
        return Slice(starts, sizes, steps)

    def export(self, w: Writer, site: Site) -> None:
        if not self.starts:
            # ONNX has no slice of a scalar
            w.node("Identity", list(site.inputs), [site.outputs[0]])
            return
        ends = []
        for a, n, s in zip(self.starts, self.sizes, self.steps, strict=True):
            end = a + n * s
            # an end before index 0 must not wrap around to the back
            ends.append(end if end >= 0 else -(2**31))
        rank = len(self.starts)
        parts = [
            w.const(np.array(v, np.int64))
            for v in (self.starts, ends, tuple(range(rank)), self.steps)
        ]
        w.node("Slice", [site.inputs[0], *parts], [site.outputs[0]])
