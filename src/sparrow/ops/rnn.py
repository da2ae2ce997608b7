"""Plain recurrent layer over a sequence, one direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.ops.recurrent import (
    TANH,
    Activation,
    Recurrent,
    clipped,
    export_recurrent,
    project,
    results,
    sequence_types,
    walk,
)
from sparrow.tensor import Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class RNN(Recurrent):
    """(y, y_h) of a plain recurrent layer in one direction: h' = f(x w' + h r' + b). ONNX RNN-14.

    Inputs: x [T, B, I], w [H, I], r [H, H], b [H] (sum of both ONNX biases), lens int32 [B],
    h0 [B, H]. All but x and r are optional; without w, x is [T, B, H]: the projection x w' + b
    computed before. float32 or float64. Outputs: y [T, B, H] (only with ``sequence``), y_h [B, H].

    Attributes, beside those of `Recurrent`:
        f: Activation.
    """

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
        return results(self, y, (end,))

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

        return walk(self, step, project(x, w, b), r, lens, (h0,))

    def export(self, w: Writer, site: Site) -> None:
        names = (*site.inputs, *("",) * (6 - len(site.inputs)))
        r = site.in_types[2]
        assert r is not None
        export_recurrent(
            self,
            w,
            site,
            bias=(names[3], np.zeros(r.shape[0], r.dtype.numpy)) if names[3] else (),
            activations=(self.f,),
            states=names[5:],
        )
