"""Transposed convolution of any number of spatial axes, with a fused epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.conv import LETTERS, from_channels_first, to_channels_first
from sparrow.ops.epilogue import apply_epilogue, epilogue_type, export_epilogue
from sparrow.tensor import Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class ConvTranspose(Op):
    """y[o] = epilogue(sum of x[i] * w[k], o = i * stride + k * dilation - begin, + b).

    x [N, C, *spatial] or, with ``channels_last``, [N, *spatial, C]; w [C, M/group, *kernel] always;
    b [M] optional; further inputs are operands 1.. of the epilogue as in `Conv`. ConvTranspose-11.

    Attributes:
        strides: One per spatial axis.
        dilations: One per spatial axis.
        pads: (begin, end) cut off per spatial axis. The end may be negative: that many more
            elements (ONNX ``output_padding``), which hold sums that reach there, or only the bias.
        group: Channel groups.
        channels_last: Layout of x and y.
        epilogue: Lane expression applied to the sum, or None.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    group: int = 1
    channels_last: bool = False
    epilogue: lane.Expr | None = None

    def infer(
        self, x: TensorType, w: TensorType, b: TensorType | None = None, *e: TensorType
    ) -> tuple[TensorType, ...]:
        n = len(self.strides)
        if x.rank != n + 2 or w.rank != n + 2 or len(self.pads) != n or len(self.dilations) != n:
            raise InvalidGraph(f"x {x} and w {w} do not fit {n} spatial axes")
        c = x.shape[-1] if self.channels_last else x.shape[1]
        spatial = x.shape[1:-1] if self.channels_last else x.shape[2:]
        m = w.shape[1] * self.group
        if self.group < 1 or c != w.shape[0] or c % self.group or x.dtype != w.dtype:
            raise InvalidGraph(f"{c} channels in {self.group} groups do not fit weights {w}")
        if b is not None and b.shape != (m,):
            raise InvalidGraph(f"bias {b.shape} does not fit {m} output channels")
        if min((*self.strides, *self.dilations, *w.shape[2:])) < 1:
            raise InvalidGraph("strides, dilations and kernel extents must be positive")
        if min(p[0] for p in self.pads) < 0:
            raise InvalidGraph(f"negative begin pads {self.pads}")
        out = self.out_extents(spatial, w.shape[2:])
        if min(out) < 0 or min(spatial) < 1:
            raise InvalidGraph(f"x {x} with pads {self.pads} leaves an output of {out}")
        shape = (x.shape[0], *out, m) if self.channels_last else (x.shape[0], m, *out)
        axes = LETTERS.get(n, "") if self.channels_last else ""
        return (epilogue_type(self.epilogue, TensorType(shape, x.dtype, axes), e),)

    def out_extents(self, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
        """Output extents for input and kernel extents."""
        rows = zip(spatial, kernel, self.strides, self.dilations, self.pads, strict=True)
        return tuple((n - 1) * s + (k - 1) * d + 1 - a - b for n, k, s, d, (a, b) in rows)

    def eval(self, x: Array, w: Array, b: Array | None = None, *e: Array) -> tuple[Array, ...]:
        n = len(self.strides)
        wide = np.float32 if x.dtype == np.float16 else x.dtype
        first = to_channels_first(x, self.channels_last).astype(wide)
        g, batch, spatial, kernel = self.group, x.shape[0], first.shape[2:], w.shape[2:]
        cols = first.reshape(batch, g, first.shape[1] // g, prod(spatial))
        rows = w.astype(wide).reshape(g, w.shape[0] // g, w.shape[1], prod(kernel))
        out = self.out_extents(spatial, kernel)
        m = w.shape[1] * g
        steps = list(zip(spatial, kernel, self.strides, self.dilations, strict=True))
        reach = tuple(
            max((i - 1) * s + (k - 1) * d + 1, a + o)
            for (i, k, s, d), (a, _), o in zip(steps, self.pads, out, strict=True)
        )
        full = np.zeros((batch, m, *reach), wide)
        for tap, at in enumerate(product(*(range(k) for k in kernel))):
            part = np.swapaxes(rows[..., tap], -1, -2) @ cols
            span = tuple(
                slice(t * d, t * d + (i - 1) * s + 1, s)
                for t, (i, _, s, d) in zip(at, steps, strict=True)
            )
            full[(slice(None), slice(None), *span)] += part.reshape(batch, m, *spatial)
        cut = tuple(slice(a, a + o) for (a, _), o in zip(self.pads, out, strict=True))
        y = full[(slice(None), slice(None), *cut)]
        if b is not None:
            y = y + b.reshape(-1, *(1,) * n)
        y = from_channels_first(np.ascontiguousarray(y.astype(x.dtype)), self.channels_last)
        return (apply_epilogue(self.epilogue, y, e),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        a, w = x[0], x[1]
        assert a is not None and w is not None
        return 2 * a.size * prod(w.shape[1:])

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[1] is not None
        return 8 * prod(x[1].shape[2:])

    def export(self, w: Writer, site: Site) -> None:
        n = len(self.strides)
        x = site.inputs[0]
        if self.channels_last:
            x = w.node("Transpose", [x], perm=[0, n + 1, *range(1, n + 1)])
        extra = [max(0, -p[1]) for p in self.pads]
        y = w.node(
            "ConvTranspose",
            [x, *site.inputs[1:3]],
            strides=list(self.strides),
            dilations=list(self.dilations),
            pads=[p[0] for p in self.pads] + [max(0, p[1]) for p in self.pads],
            output_padding=extra,
            group=self.group,
        )
        if self.channels_last:
            y = w.node("Transpose", [y], perm=[0, *range(2, n + 2), 1])
        export_epilogue(w, self.epilogue, y, site, first=3)
