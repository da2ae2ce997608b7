"""Pooling windows of any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.conv import (
    LETTERS,
    from_channels_first,
    pooled_extent,
    to_channels_first,
    windows,
)
from sparrow.tensor import I64, Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

PoolKind = Literal["max", "average", "lp"]
Order = Literal["", "row", "column"]


def lowest(dtype: np.dtype[Any]) -> float | int:
    """The value that never wins a maximum: -inf, or the smallest integer."""
    return -np.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


def layout_flip(perm: tuple[int, ...], channels_last: bool) -> bool:
    """Whether ``perm`` moves the channel axis from position 1 to the end, or with the flag back."""
    n = len(perm) - 2
    if channels_last:
        return perm == (0, n + 1, *range(1, n + 1))
    return perm == (0, *range(2, n + 2), 1)


@dataclass(frozen=True, slots=True)
class Pool(Op):
    """y = max, mean or p-norm over sliding windows. ONNX MaxPool-12, AveragePool-19, LpPool-18.

    x [N, C, *spatial] or, with ``channels_last``, [N, *spatial, C]. Padding never wins a maximum
    and adds nothing to a sum. Windows that hold no element of x give the lowest value (max) or 0.

    Attributes:
        kind: What is computed per window.
        kernel: Window extents.
        strides: One per spatial axis.
        dilations: One per spatial axis.
        pads: (begin, end) per spatial axis.
        ceil: Round the output extents up; windows that would start in the end padding are dropped.
        count_pads: The mean also counts padding (but not what ``ceil`` hangs over the end).
        p: Order of the norm.
        channels_last: Layout of x and y.
        indices: Also return where each maximum lies, as int64 index into the flat channels-first
            x; spatial axes row-major (``"row"``) or with the first one fastest (``"column"``).
    """

    kind: PoolKind
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    ceil: bool = False
    count_pads: bool = False
    p: int = 2
    channels_last: bool = False
    indices: Order = ""

    def out_extents(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Output extents for input extents."""
        rows = zip(spatial, self.kernel, self.strides, self.dilations, self.pads, strict=True)
        return tuple(pooled_extent(n, k, s, d, p, self.ceil) for n, k, s, d, p in rows)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        n = len(self.kernel)
        if x.rank != n + 2 or {len(self.strides), len(self.dilations), len(self.pads)} != {n}:
            raise InvalidGraph(f"{x} does not fit {n} spatial axes")
        if min((*self.kernel, *self.strides, *self.dilations, self.p)) < 1:
            raise InvalidGraph("kernel, strides, dilations and p must be positive")
        if min(v for pair in self.pads for v in pair) < 0:
            raise InvalidGraph(f"negative pads {self.pads}")
        if self.kind != "max" and (x.dtype.kind != "float" or self.indices):
            raise InvalidGraph(f"{self.kind} pooling of {x.dtype}")
        spatial = x.shape[1:-1] if self.channels_last else x.shape[2:]
        out = self.out_extents(spatial)
        shape = (x.shape[0], *out, x.shape[-1]) if self.channels_last else (*x.shape[:2], *out)
        axes = LETTERS.get(n, "") if self.channels_last else ""
        y = TensorType(shape, x.dtype, axes, moved(x.quant, len(shape)))
        return (y, TensorType(shape, I64, axes)) if self.indices else (y,)

    def _spans(self, spatial: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """(begin, end) padding that makes every window whole."""
        out = self.out_extents(spatial)
        rows = zip(spatial, out, self.kernel, self.strides, self.dilations, self.pads, strict=True)
        return tuple(
            (a, max(b, (o - 1) * s + (k - 1) * d + 1 - n - a)) for n, o, k, s, d, (a, b) in rows
        )

    def _windows(self, x: Array, fill: float | int) -> Array:
        spans = self._spans(x.shape[2:])
        padded = np.pad(x, ((0, 0), (0, 0), *spans), constant_values=fill)
        win = windows(padded, self.kernel, self.strides, self.dilations)
        out = self.out_extents(x.shape[2:])
        return win[(slice(None), slice(None), *(slice(0, o) for o in out))]

    def _counts(self, spatial: tuple[int, ...]) -> Array:
        """Elements of each window that the mean counts: [1, 1, *out]."""
        ones = np.ones((1, 1, *spatial), np.float32)
        if self.count_pads:
            extents = zip(spatial, self.pads, strict=True)
            whole = np.ones((1, 1, *(n + a + b for n, (a, b) in extents)), np.float32)
            spans = self._spans(spatial)
            over = [(0, s[1] - p[1]) for s, p in zip(spans, self.pads, strict=True)]
            padded = np.pad(whole, ((0, 0), (0, 0), *over))
            win = windows(padded, self.kernel, self.strides, self.dilations)
            picks = (slice(0, o) for o in self.out_extents(spatial))
            win = win[(slice(None), slice(None), *picks)]
        else:
            win = self._windows(ones, 0)
        taps = tuple(range(-len(self.kernel), 0))
        return np.asarray(np.maximum(win.sum(taps), 1))

    def eval(self, x: Array) -> tuple[Array, ...]:
        n = len(self.kernel)
        first = to_channels_first(x, self.channels_last)
        out = (*first.shape[:2], *self.out_extents(first.shape[2:]))
        taps = tuple(range(-n, 0))
        if prod(out) == 0:
            y = np.zeros(out, x.dtype)
            at = np.zeros(out, np.int64)
        elif self.kind == "max":
            win = self._windows(first, lowest(x.dtype))
            y = win.max(taps)
            at = self._positions(first, win) if self.indices else np.zeros(0, np.int64)
        else:
            wide = first.astype(np.float32) if x.dtype == np.float16 else first
            win = self._windows(wide, 0)
            if self.kind == "average":
                y = win.sum(taps) / self._counts(first.shape[2:])
            else:
                y = (np.abs(win) ** self.p).sum(taps) ** (1.0 / self.p)
        y = from_channels_first(y.astype(x.dtype), self.channels_last)
        return (y, from_channels_first(at, self.channels_last)) if self.indices else (y,)

    def _positions(self, x: Array, win: Array) -> Array:
        n = len(self.kernel)
        # padding holds the lowest value, and is not where an element of that value lies
        there = self._windows(np.ones((1, 1, *x.shape[2:]), np.bool_), False)
        top = win.max(tuple(range(-n, 0)), keepdims=True)
        first = there & ((win == top) | (win != win))
        tap = np.unravel_index(first.reshape(*first.shape[:-n], -1).argmax(-1), self.kernel)
        out = win.shape[2 : 2 + n]
        flat = np.zeros((1,) * (2 + n), np.int64)
        steps = [1] * n
        order = range(n - 1, -1, -1) if self.indices == "row" else range(n)
        step = 1
        for axis in order:
            steps[axis], step = step, step * x.shape[2 + axis]
        for axis in range(n):
            start = np.arange(out[axis]) * self.strides[axis] - self.pads[axis][0]
            start = start.reshape(-1, *(1,) * (n - 1 - axis))
            flat = flat + steps[axis] * (start + tap[axis] * self.dilations[axis])
        planes = np.arange(prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * n)
        return (flat + planes * prod(x.shape[2:])).astype(np.int64)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return y[0].size * prod(self.kernel)

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        return 32

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        if layout_flip(perm, self.channels_last):
            return replace(self, channels_last=not self.channels_last)
        return None

    def export(self, w: Writer, site: Site) -> None:
        with w.codes_in_floats(site) as wide:
            self._export(w, wide)

    def _export(self, w: Writer, site: Site) -> None:
        n = len(self.kernel)
        x = site.inputs[0]
        attrs: dict[str, object] = {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "pads": [p[0] for p in self.pads] + [p[1] for p in self.pads],
            "ceil_mode": int(self.ceil),
        }
        # ones go unsaid: ONNX Runtime (1.32) hands them to a fused average pool that knows none
        if any(d > 1 for d in self.dilations):
            attrs["dilations"] = list(self.dilations)
        if self.kind == "average":
            attrs["count_include_pad"] = int(self.count_pads)
        if self.kind == "lp":
            attrs["p"] = self.p
        if self.indices:
            attrs["storage_order"] = int(self.indices == "column")
        name = {"max": "MaxPool", "average": "AveragePool", "lp": "LpPool"}[self.kind]
        if not self.channels_last:
            w.node(name, [x], list(site.outputs), **attrs)
            return
        x = w.node("Transpose", [x], perm=[0, n + 1, *range(1, n + 1)])
        parts = [w.fresh(name) for _ in site.outputs]
        w.node(name, [x], parts, **attrs)
        for part, y in zip(parts, site.outputs, strict=True):
            w.node("Transpose", [part], [y], perm=[0, *range(2, n + 2), 1])
