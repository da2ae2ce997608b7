"""Long short-term memory over a sequence, one direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.ops.recurrent import (
    SIGMOID,
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
class LSTM(Recurrent):
    """(y, y_h, y_c) of an LSTM layer in one direction; gates are stacked i, o, f, c. ONNX LSTM-14.

        i = f(x Wi' + h Ri' + Pi c + bi)       c' = F c + i g(x Wc' + h Rc' + bc)
        F = f(x Wf' + h Rf' + Pf c + bf)       h' = o h(c'),  o = f(x Wo' + h Ro' + Po c' + bo)

    Inputs: x [T, B, I], w [4H, I], r [4H, H], b [4H] (sum of both ONNX biases), lens int32 [B],
    h0 [B, H], c0 [B, H], p [3H] (peepholes i, o, f). All but x and r are optional; without w, x
    is [T, B, 4H]: the projection x w' + b computed before (one matrix product for all steps).
    float32 or float64. Outputs: y [T, B, H] (only with ``sequence``), y_h and y_c [B, H].

    Attributes, beside those of `Recurrent`:
        couple: Forget what is not let in: F = 1 - i (ONNX input_forget).
        f: Activation of the gates.
        g: Activation of the cell input.
        h: Activation of the cell state.
    """

    couple: bool = False
    f: Activation = SIGMOID
    g: Activation = TANH
    h: Activation = TANH

    def infer(
        self,
        x: TensorType,
        w: TensorType | None,
        r: TensorType,
        b: TensorType | None = None,
        lens: TensorType | None = None,
        h0: TensorType | None = None,
        c0: TensorType | None = None,
        p: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        y, end = sequence_types(4, x, w, r, b, lens, (h0, c0))
        if p is not None and p != TensorType((3 * r.shape[1],), x.dtype):
            raise InvalidGraph(f"peepholes {p} do not fit a hidden size of {r.shape[1]}")
        return results(self, y, (end, end))

    def eval(
        self,
        x: Array,
        w: Array | None,
        r: Array,
        b: Array | None = None,
        lens: Array | None = None,
        h0: Array | None = None,
        c0: Array | None = None,
        p: Array | None = None,
    ) -> tuple[Array, ...]:
        hidden = r.shape[1]
        p_i, p_o, p_f = np.split(np.zeros(3 * hidden, x.dtype) if p is None else p, 3)

        def step(gates: Array, h: Array, c: Array) -> tuple[Array, Array]:
            i, o, f, g = np.split(gates + h @ r.T, 4, axis=1)
            i = self.f(clipped(i + p_i * c, self.clip))
            f = 1 - i if self.couple else self.f(clipped(f + p_f * c, self.clip))
            c = f * c + i * self.g(clipped(g, self.clip))
            o = self.f(clipped(o + p_o * c, self.clip))
            return o * self.h(c), c

        return walk(self, step, project(x, w, b), r, lens, (h0, c0))

    def export(self, w: Writer, site: Site) -> None:
        names = (*site.inputs, *("",) * (8 - len(site.inputs)))
        r = site.in_types[2]
        assert r is not None
        export_recurrent(
            self,
            w,
            site,
            bias=(names[3], np.zeros(r.shape[0], r.dtype.numpy)) if names[3] else (),
            activations=(self.f, self.g, self.h),
            states=names[5:],
            input_forget=int(self.couple),
        )
