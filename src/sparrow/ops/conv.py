"""Convolution of any number of spatial axes, with a fused epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.epilogue import apply_epilogue, epilogue_type, export_epilogue
from sparrow.ops.sums import CODES, check_zero, narrowed, over_codes, sum_type, widened
from sparrow.tensor import Array, DType, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

LETTERS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def windows(
    x: Array, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> Array:
    """Sliding windows of a channels-first array: [N, C, *out, *kernel], a view."""
    n = len(kernel)
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, 2 + n)))
    picks = tuple(slice(None, None, s) for s in strides)
    taps = tuple(slice(None, None, d) for d in dilations)
    return view[(slice(None), slice(None), *picks, *taps)]


def pooled_extent(size: int, k: int, s: int, d: int, pads: tuple[int, int], ceil: bool) -> int:
    """Output extent of a window sliding over one axis; ceil mode drops windows that start in the
    end pad.
    """
    span = size + pads[0] + pads[1] - ((k - 1) * d + 1)
    if span < 0:
        return 0
    n = (-(-span // s) if ceil else span // s) + 1
    if ceil and (n - 1) * s >= size + pads[0]:
        n -= 1
    return n


def to_channels_first(x: Array, last: bool) -> Array:
    """Move a trailing channel axis to position 1."""
    return np.moveaxis(x, -1, 1) if last else x


def from_channels_first(x: Array, last: bool) -> Array:
    """Undo `to_channels_first`."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x


@dataclass(frozen=True, slots=True)
class Conv(Op):
    """y = epilogue(conv(x, w) + b). ONNX Conv-11; over 8-bit codes exact int32, ConvInteger-10, and
    so over 16-bit ones with 8-bit weights, which no ONNX operator says.

    x [N, C, *spatial] or, with ``channels_last``, [N, *spatial, C]; w [M, C/group, *kernel] always;
    b [M] optional; further inputs are operands 1.. of the epilogue (operand 0 is the sum) and
    broadcast to y.

    Attributes:
        strides: One per spatial axis.
        dilations: One per spatial axis.
        pads: (begin, end) zeros per spatial axis.
        group: Channel groups; C for depthwise.
        channels_last: Layout of x and y.
        epilogue: Lane expression applied to the sum, or None.
        zero: Zero point of x: subtracted from its codes, and what pads hold.
        accumulate: Type of the sum where it is wider than that of x and w; b has it too.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    group: int = 1
    channels_last: bool = False
    epilogue: lane.Expr | None = None
    zero: int = 0
    accumulate: DType | None = None

    def infer(
        self, x: TensorType, w: TensorType, b: TensorType | None = None, *e: TensorType
    ) -> tuple[TensorType, ...]:
        n = len(self.strides)
        if x.rank != n + 2 or w.rank != n + 2 or len(self.pads) != n or len(self.dilations) != n:
            raise InvalidGraph(f"x {x} and w {w} do not fit {n} spatial axes")
        c = x.shape[-1] if self.channels_last else x.shape[1]
        spatial = x.shape[1:-1] if self.channels_last else x.shape[2:]
        m = w.shape[0]
        if self.group < 1 or c != w.shape[1] * self.group or m % self.group:
            raise InvalidGraph(f"{c} channels in {self.group} groups do not fit weights {w.shape}")
        if b is not None and b.shape != (m,):
            raise InvalidGraph(f"bias {b.shape} does not fit {m} output channels")
        if min((*self.strides, *self.dilations, *w.shape[2:])) < 1:
            raise InvalidGraph("strides, dilations and kernel extents must be positive")
        if min((0, *(p for pair in self.pads for p in pair))) < 0:
            raise InvalidGraph(f"negative pads {self.pads}")
        out = tuple(
            pooled_extent(size, k, s, d, p, False)
            for size, k, s, d, p in zip(
                spatial, w.shape[2:], self.strides, self.dilations, self.pads, strict=True
            )
        )
        shape = (x.shape[0], *out, m) if self.channels_last else (x.shape[0], m, *out)
        axes = LETTERS.get(n, "") if self.channels_last else ""
        dtype = sum_type("convolution", (x, w), self.accumulate)
        if dtype.kind != "float" and not over_codes(x.dtype, w.dtype):
            raise InvalidGraph(f"convolution of {x}")
        check_zero(self.zero, x.dtype)
        return (epilogue_type(self.epilogue, TensorType(shape, dtype, axes), e),)

    def eval(self, x: Array, w: Array, b: Array | None = None, *e: Array) -> tuple[Array, ...]:
        """One product per kernel tap, summed over the taps: no copy of the windows is made."""
        g, m = self.group, w.shape[0]
        real = widened(x) - self.zero if self.zero else widened(x)
        last = real if self.channels_last else np.moveaxis(real, 1, -1)
        if any(map(any, self.pads)):
            last = np.pad(last, ((0, 0), *self.pads, (0, 0)))
        padded = np.ascontiguousarray(last)
        kernel, each = widened(w), w.shape[1]
        reach = [(k - 1) * d for k, d in zip(w.shape[2:], self.dilations, strict=True)]
        out = tuple(
            max(0, (size - r - 1) // s + 1)
            for size, r, s in zip(padded.shape[1:-1], reach, self.strides, strict=True)
        )
        rows = x.shape[0] * int(np.prod(out))
        y: Array | None = None
        for tap in np.ndindex(*w.shape[2:]):
            starts = [t * d for t, d in zip(tap, self.dilations, strict=True)]
            picks = tuple(
                slice(a, a + (k - 1) * s + 1, s)
                for a, k, s in zip(starts, out, self.strides, strict=True)
            )
            seen = padded[(slice(None), *picks)].reshape(rows, g, each)
            factor = kernel[(slice(None), slice(None), *tap)].reshape(g, m // g, each)
            if g == 1:
                product = (seen[:, 0] @ factor[0].T)[:, None]
            elif each == 1:
                product = seen * factor[:, :, 0]
            else:
                product = np.matmul(seen.transpose(1, 0, 2), factor.transpose(0, 2, 1))
                product = product.swapaxes(0, 1)
            y = product if y is None else np.add(y, product, out=y)
        assert y is not None
        y = y.reshape(x.shape[0], *out, m)
        if b is not None:
            y = y + b
        y = np.ascontiguousarray(y if self.channels_last else np.moveaxis(y, -1, 1))
        return (apply_epilogue(self.epilogue, narrowed(y, x), e),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        w = x[1]
        assert w is not None
        return 2 * y[0].size * prod(w.shape[1:])

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[1] is not None
        return 8 * prod(x[1].shape[2:])

    def export(self, w: Writer, site: Site) -> None:
        n = len(self.strides)
        x = site.inputs[0]
        forward, back = (0, n + 1, *range(1, n + 1)), (0, *range(2, n + 2), 1)
        if self.channels_last:
            x = w.node("Transpose", [x], perm=list(forward))
        codes = site.in_types[0] is not None and site.in_types[0].dtype in CODES
        operands = [x, *site.inputs[1:3]]
        if self.accumulate is not None:
            operands[:2] = [w.node("Cast", [v], to=self.accumulate) for v in operands[:2]]
        # ConvInteger has zero points where Conv has the bias
        bias = operands.pop() if codes and len(operands) > 2 else ""
        if self.zero:
            assert site.in_types[0] is not None
            operands.append(w.scalar(self.zero, site.in_types[0].dtype))
        y = w.node(
            "ConvInteger" if codes else "Conv",
            operands,
            strides=list(self.strides),
            dilations=list(self.dilations),
            pads=[p[0] for p in self.pads] + [p[1] for p in self.pads],
            group=self.group,
        )
        if bias:
            spread = np.array([-1, *(1,) * n], np.int64)
            y = w.node("Add", [y, w.node("Reshape", [bias, w.const(spread)])])
        if self.channels_last:
            y = w.node("Transpose", [y], perm=list(back))
        export_epilogue(w, self.epilogue, y, site, first=3)
