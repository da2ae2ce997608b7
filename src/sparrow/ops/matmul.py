"""Matrix product with broadcast batch axes, transposition flags and a fused epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.epilogue import apply_epilogue, epilogue_type, export_epilogue
from sparrow.ops.lane import broadcast_shape
from sparrow.ops.sums import CODES, check_zero, narrowed, sum_type, widened
from sparrow.tensor import F32, I8, I32, U8, Array, DType, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


def _swapped(shape: tuple[int, ...], swap: bool) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if swap else shape


@dataclass(frozen=True, slots=True)
class MatMul(Op):
    """y = epilogue(a @ b + bias). a [.., M, K], b [.., K, N], bias [N] optional.

    The product of 8-bit codes (either sign) is exact int32, and so is that of 16-bit ones and 8-bit
    weights, which no ONNX operator says. ONNX MatMul-13, Gemm-13, MatMulInteger-10.

    Attributes:
        trans_a: a is stored [.., K, M].
        trans_b: b is stored [.., N, K].
        epilogue: Lane expression over the sum (operand 0) and further inputs, or None.
        zero: Zero point of a, subtracted from its codes.
        zero_b: Zero point of b, likewise.
        accumulate: Type of the sum where it is wider than that of a and b; the bias has it too.
    """

    trans_a: bool = False
    trans_b: bool = False
    epilogue: lane.Expr | None = None
    zero: int = 0
    accumulate: DType | None = None
    zero_b: int = 0

    def infer(
        self, a: TensorType, b: TensorType, bias: TensorType | None = None, *e: TensorType
    ) -> tuple[TensorType, ...]:
        if a.rank < 2 or b.rank < 2:
            raise InvalidGraph(f"matrix product of ranks {a.rank} and {b.rank}")
        dtype = sum_type("matrix product", (a, b), self.accumulate)
        check_zero(self.zero, a.dtype)
        check_zero(self.zero_b, b.dtype)
        (*_, m, k), (*_, kb, n) = _swapped(a.shape, self.trans_a), _swapped(b.shape, self.trans_b)
        if k != kb:
            raise InvalidGraph(f"inner extents {k} and {kb} differ")
        if bias is not None and bias.shape != (n,):
            raise InvalidGraph(f"bias {bias.shape} does not fit {n} columns")
        batch = broadcast_shape(a.shape[:-2], b.shape[:-2])
        y = TensorType((*batch, m, n), dtype)
        return (epilogue_type(self.epilogue, y, e),)

    def eval(self, a: Array, b: Array, bias: Array | None = None, *e: Array) -> tuple[Array, ...]:
        left, right = widened(a), widened(b)
        left = left - self.zero if self.zero else left
        right = right - self.zero_b if self.zero_b else right
        y = (np.swapaxes(left, -1, -2) if self.trans_a else left) @ (
            np.swapaxes(right, -1, -2) if self.trans_b else right
        )
        if bias is not None:
            y = y + bias
        return (apply_epilogue(self.epilogue, narrowed(y, a), e),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        a = x[0]
        assert a is not None
        return 2 * y[0].size * _swapped(a.shape, self.trans_a)[-1]

    def export(self, w: Writer, site: Site) -> None:
        names = list(site.inputs[:2])
        bias = site.inputs[2] if len(site.inputs) > 2 else ""
        if self._is_gemm(site) and (bias or self.trans_a or self.trans_b):
            y = w.node("Gemm", [*names, bias], transA=int(self.trans_a), transB=int(self.trans_b))
            export_epilogue(w, self.epilogue, y, site, first=3)
            return
        if self.accumulate is not None:
            names = [w.node("Cast", [v], to=self.accumulate) for v in names]
        for i, swap in enumerate((self.trans_a, self.trans_b)):
            t = site.in_types[i]
            assert t is not None
            if swap:
                order = [*range(t.rank - 2), t.rank - 1, t.rank - 2]
                names[i] = w.node("Transpose", [names[i]], perm=order)
        a, b = (t.dtype for t in site.in_types[:2] if t is not None)
        codes, zero_b = a in CODES, self.zero_b
        if (a, b) == (U8, I8):
            # without VNNI, ONNX Runtime adds two products of these in 16 bits, which saturate
            moved = w.node("Add", [w.node("Cast", [names[1]], to=I32), w.scalar(128, I32)])
            names[1], b, zero_b = w.node("Cast", [moved], to=U8), U8, zero_b + 128
        if self.zero or zero_b:
            names += [w.scalar(self.zero, a), w.scalar(zero_b, b)]
        y = w.node("MatMulInteger" if codes else "MatMul", names)
        if bias:
            y = w.node("Add", [y, bias])
        export_epilogue(w, self.epilogue, y, site, first=3)

    def _is_gemm(self, site: Site) -> bool:
        """Whether runtimes may see a fully connected layer: they have integer forms of Gemm, and
        none of a product whose coded weights pass through a Transpose.
        """
        a, b = site.in_types[:2]
        plain = self.accumulate is None and not self.zero and not self.zero_b
        return plain and all(t is not None and t.rank == 2 and t.dtype == F32 for t in (a, b))
