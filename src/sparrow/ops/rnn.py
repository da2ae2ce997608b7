"""Plain recurrent layer over a sequence, one direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.graph import Op, Types
from sparrow.ops.recurrent import (
    TANH,
    Activation,
    clipped,
    export_recurrent,
    project,
    scan,
    sequence_types,
    zeros_unless,
)
from sparrow.tensor import Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class RNN(Op):
    """(y, y_h) of a plain recurrent layer in one direction: h' = f(x w' + h r' + b). ONNX RNN-14.

    Inputs: x [T, B, I], w [H, I], r [H, H], b [H] (sum of both ONNX biases), lens int32 [B],
    h0 [B, H]. All but x and r are optional; without w, x is [T, B, H]: the projection x w' + b
    computed before. float32 or float64. Outputs: y [T, B, H] (only with ``sequence``), y_h [B, H].

    Attributes:
        reverse: Walk each sequence backwards.
        sequence: Give every step's output, not only the last.
        clip: Limit of what the activation sees, 0 for none.
        f: Activation.
    """

    reverse: bool = False
    sequence: bool = True
    clip: float = 0.0
    f: Activation = TANH

    def infer(
        self,
        x: TensorType,
        w: TensorType | None,
        r: TensorType,
        b: TensorType | None = None,
        lens: TensorType | None = None,
        h0: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        y, end = sequence_types(1, x, w, r, b, lens, (h0,))
        return (y, end) if self.sequence else (end,)

    def eval(
        self,
        x: Array,
        w: Array | None,
        r: Array,
        b: Array | None = None,
        lens: Array | None = None,
        h0: Array | None = None,
    ) -> tuple[Array, ...]:
        def step(gates: Array, h: Array) -> tuple[Array]:
            return (self.f(clipped(gates + h @ r.T, self.clip)),)

        start = (zeros_unless(h0, x, r.shape[1]),)
        y, ends = scan(step, project(x, w, b), lens, self.reverse, start)
        return (y, *ends) if self.sequence else ends

    def flops(self, x: Types, y: tuple[TensorType, ...]) -> int:  # type: ignore[override]
        first, w, r = x[:3]
        assert first is not None and r is not None
        return 2 * first.shape[0] * first.shape[1] * (r.size + (w.size if w else 0))

    def export(self, w: Writer, site: Site) -> None:
        names = (*site.inputs, *("",) * (6 - len(site.inputs)))
        r = site.in_types[2]
        assert r is not None
        export_recurrent(
            "RNN",
            w,
            site,
            bias=(names[3], np.zeros(r.shape[0], r.dtype.numpy)) if names[3] else (),
            activations=(self.f,),
            reverse=self.reverse,
            sequence=self.sequence,
            clip=self.clip,
            states=names[5:],
        )
