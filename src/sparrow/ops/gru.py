"""Gated recurrent unit over a sequence, one direction."""

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
class GRU(Recurrent):
    """(y, y_h) of a GRU layer in one direction; gates are stacked z, r, h. ONNX GRU-14.

        z = f(x Wz' + h Rz' + bz)              h' = (1 - z) n + z h
        r = f(x Wr' + h Rr' + br)              n = g(x Wh' + (r h) Rh' + bh)
        with ``reset_after``                   n = g(x Wh' + r (h Rh' + rb) + bh)

    Inputs: x [T, B, I], w [3H, I], r [3H, H], b [3H] (sum of the ONNX biases that are only added),
    lens int32 [B], h0 [B, H], rb [H] (only with ``reset_after``). All but x and r are optional;
    without w, x is [T, B, 3H]: the projection x w' + b computed before (one matrix product for
    all steps).
    float32 or float64. Outputs: y [T, B, H] (only with ``sequence``), y_h [B, H].

    Attributes, beside those of `Recurrent`:
        reset_after: Apply the reset gate after the recurrent product (ONNX linear_before_reset).
        f: Activation of the gates.
        g: Activation of the hidden state.
    """

    reset_after: bool = False
    f: Activation = SIGMOID
    g: Activation = TANH

    def infer(
        self,
        x: TensorType,
        w: TensorType | None,
        r: TensorType,
        b: TensorType | None = None,
        lens: TensorType | None = None,
        h0: TensorType | None = None,
        rb: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        y, end = sequence_types(3, x, w, r, b, lens, (h0,))
        if rb is not None and (not self.reset_after or rb != TensorType((r.shape[1],), x.dtype)):
            raise InvalidGraph(f"recurrent bias {rb} does not fit a hidden size of {r.shape[1]}")
        return results(self, y, (end,))

    def eval(
        self,
        x: Array,
        w: Array | None,
        r: Array,
        b: Array | None = None,
        lens: Array | None = None,
        h0: Array | None = None,
        rb: Array | None = None,
    ) -> tuple[Array, ...]:
        hidden = r.shape[1]
        r_zr, r_h = r[: 2 * hidden], r[2 * hidden :]

        def step(gates: Array, h: Array) -> tuple[Array]:
            zr = gates[:, : 2 * hidden] + h @ r_zr.T
            z, reset = np.split(self.f(clipped(zr, self.clip)), 2, axis=1)
            if self.reset_after:
                back = reset * (h @ r_h.T if rb is None else h @ r_h.T + rb)
            else:
                back = (reset * h) @ r_h.T
            n = self.g(clipped(gates[:, 2 * hidden :] + back, self.clip))
            return ((1 - z) * n + z * h,)

        return walk(self, step, project(x, w, b), r, lens, (h0,))

    def export(self, w: Writer, site: Site) -> None:
        names = (*site.inputs, *("",) * (7 - len(site.inputs)))
        r = site.in_types[2]
        assert r is not None
        hidden = r.shape[1]
        zeros = np.zeros(3 * hidden, r.dtype.numpy)
        bias: tuple[str | Array, ...] = ()
        if names[3] or names[6]:
            bias = (names[3] or zeros, zeros[: 2 * hidden], names[6] or zeros[:hidden])
        export_recurrent(
            self,
            w,
            site,
            bias=bias,
            activations=(self.f, self.g),
            states=names[5:6],
            linear_before_reset=int(self.reset_after),
        )
