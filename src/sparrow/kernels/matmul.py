"""Matrix product rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sparrow.kernels.case import (
    Argument,
    Case,
    Epilogue,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Pack,
    Packed,
    Reject,
    Scratch,
    Tensor,
    Tile,
    row_stride,
)
from sparrow.kernels.epilogue import epilogue_of, stored_half
from sparrow.kernels.loop import batch_axes
from sparrow.kernels.packing_f32 import pack_gemm_b, pack_pairs
from sparrow.kernels.params_f32 import params_of, shape_text, simd_of
from sparrow.kernels.spans import gemm_spans
from sparrow.kernels.tiling_f32 import Form, Product, choose_gemm, gemm_cycles, gemm_tiles
from sparrow.ops.matmul import MatMul
from sparrow.tensor import BF16, F32, Array

MAX_CALLS = 256


def _matrix(t: Tensor, trans: bool) -> tuple[int, bool] | None:
    """Distance of stored rows and whether they are transposed, if one of the two axes is dense."""
    r, c = t.strides[-2:]
    rows, cols = t.shape[-2:]
    if c == 1 or cols == 1:
        return (r if rows > 1 else max(cols, 1)), trans
    if r == 1 or rows == 1:
        return c, not trans
    return None


@dataclass(frozen=True, slots=True)
class _Matrices:
    """Products that a node asks for.

    Attributes:
        product: Of matrices at equal distances all, else one.
        dims: Extents of the batch.
        steps: Of a, b and the result, the distance of matrices along each of ``dims``.
        packed: B where it is constant.
    """

    product: Product
    dims: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    packed: tuple[Pack, ...]


def _matrices(case: Case) -> _Matrices | Reject:
    op = case.op
    assert isinstance(op, MatMul)
    a, b, y = case.x[0], case.x[1], case.y[0]
    assert a is not None and b is not None
    if a.type.dtype != F32:
        return Reject(f"{a.type.dtype}")
    if 0 in y.shape or 0 in a.shape:
        return Reject("empty operands")
    m, n = y.shape[-2:]
    k = a.shape[-2] if op.trans_a else a.shape[-1]
    left, out = _matrix(a, op.trans_a), _matrix(y, False)
    if left is None or out is None or (out[1] and min(m, n) > 1):
        return Reject("rows of an operand are not dense")
    (lda, a_trans), ldc = left, out[0]
    if y.strides[-1] != 1 and n > 1:
        return Reject("output columns are not adjacent")
    dims, (wa, wb, wy) = batch_axes((a, b, y), y.shape[:-2])
    packed: tuple[Pack, ...] = ()
    form: Form
    if b.const is not None and all(w == 0 for w in wb):
        value = b.const.reshape(b.shape[-2:])
        flat, lanes = value.T if op.trans_b else value, simd_of(case.target).lanes
        shape = (-(-n // lanes), k, lanes)
        packed = (Pack(shape, np.dtype(np.float32), lambda: pack_gemm_b(flat, lanes)),)
        form, ldb = "packed", 0
        # rows of all matrices form one when they follow each other
        if not a_trans and len(dims) == 1 and wa[0] == m * lda and wy[0] == m * ldc:
            m, dims, wa, wb, wy = m * dims[0], (), (), (), ()
    else:
        right = _matrix(b, op.trans_b)
        if right is None:
            return Reject("rows of b are not dense")
        ldb, b_trans = right
        form = "trans" if b_trans else "plain"
    equal = len(dims) == 1
    product = Product(
        *(m, n, k),
        b=form,
        a_trans=a_trans,
        lda=lda,
        ldb=ldb or None,
        ldc=ldc,
        batch=dims[0] if equal else 1,
        sa=wa[0] if equal else 0,
        sb=wb[0] if equal else 0,
        sc=wy[0] if equal else 0,
    )
    return _Matrices(product, dims, (wa, wb, wy), packed)


def _gemm(case: Case) -> Lowered | Reject:
    found = _matrices(case)
    if isinstance(found, Reject):
        return found
    op, y, packed = case.op, case.y[0], found.packed
    assert isinstance(op, MatMul)
    m, n, k = found.product.m, found.product.n, found.product.k
    simd = simd_of(case.target)
    p = choose_gemm(found.product, simd, threads=case.threads, tile=case.tile)
    flops = 2 * y.type.size * k
    cycles = gemm_cycles(p, simd) if packed else flops / (case.target.isa.flops_per_cycle * 0.5)
    packs = p.scratch_bytes > 0
    function = "sp_gemm_pack_f32" if packs else "sp_gemm_f32"

    def invoke(oa: int, ob: int, oy: int, ep: Epilogue, repeat: int = 1) -> Invoke:
        args: list[Argument] = [In(0, oa), Packed(0) if packed else In(1, ob), Out(0, oy)]
        if packs:
            args.append(Scratch("float", p.scratch_bytes))
        return Invoke("gemm_f32.h", function, "sp_gemm", params_of(p), (*args, ep), repeat)

    if len(found.dims) <= 1:
        ep = epilogue_of(case, op.epilogue, 2, 3, half=True)
        if isinstance(ep, Reject):
            return ep
        ep, half = stored_half(ep)
        p = replace(p, half=int(half))
        key = shape_text(p), gemm_tiles(p, simd), Tile(p.mr, p.nv)
        if case.threads == 1:
            # one after the other in the same scratch, which then stays in cache
            call = invoke(0, 0, 0, ep, p.tasks)
            return Lowered((call,), 1, packed, p.scratch_bytes, cycles, *key)
        scratch = p.scratch_bytes * p.tasks
        spans = gemm_spans(p, simd.lanes, y, ep)
        return Lowered((invoke(0, 0, 0, ep),), p.tasks, packed, scratch, cycles, *key, spans=spans)
    calls: list[Invoke] = []
    count = math.prod(found.dims)
    if count > MAX_CALLS:
        return Reject(f"{count} matrices at unequal distances")
    p = replace(p, task_m=-(-m // p.mr) * p.mr, task_n=-(-n // simd.lanes), tasks=1)
    if packs:
        p = replace(p, scratch_bytes=4 * -(-n // simd.lanes) * simd.lanes * k)
    for i, index in enumerate(np.ndindex(*found.dims)):
        ep = epilogue_of(case, op.epilogue, 2, 3, row=i * m)
        if isinstance(ep, Reject):
            return ep
        at = [sum(j * s for j, s in zip(index, w, strict=True)) for w in found.steps]
        calls.append(invoke(at[0], at[1], at[2], ep))
    return Lowered(tuple(calls), len(calls), packed, p.scratch_bytes * len(calls), cycles)


def bf16_product(case: Case) -> tuple[int, int, int, Array] | Reject:
    """Rows times a constant bfloat16 matrix, sums in float32.

    Returns:
        Rows, the distances of those of a and of the result, and the matrix [k, n].
    """
    op, a, b, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, MatMul) and a is not None and b is not None
    if a.type.dtype != BF16 or op.accumulate != F32:
        return Reject(f"{a.type.dtype} in {op.accumulate or a.type.dtype}")
    if b.const is None or math.prod(b.shape[:-2]) != 1:
        return Reject("b is no constant matrix")
    if op.trans_a or 0 in y.shape or 0 in a.shape:
        return Reject("a is transposed, or an operand is empty")
    lda, ldc = row_stride(a), row_stride(y)
    if lda is None or ldc is None:
        return Reject("rows are not equally spaced")
    matrix = b.const.reshape(b.shape[-2:])
    return math.prod(a.shape[:-1]), lda, ldc, matrix.T if op.trans_b else matrix


def _gemm_bf16(case: Case) -> Lowered | Reject:
    """Two values of k are one element."""
    found = bf16_product(case)
    if isinstance(found, Reject):
        return found
    rows, lda, ldc, flat = found
    k, n = flat.shape
    if k % 2 or lda % 2:
        return Reject("rows are no whole pairs")
    assert isinstance(case.op, MatMul)
    ep = epilogue_of(case, case.op.epilogue, 2, 3, half=True)
    if isinstance(ep, Reject):
        return ep
    ep, half = stored_half(ep)
    simd = simd_of(case.target)
    product = Product(rows, n, k // 2, lda=lda // 2, ldc=ldc, pair=True, half=half)
    p = choose_gemm(product, simd, threads=case.threads, tile=case.tile)
    packed = Pack(
        (-(-n // simd.lanes), k // 2, simd.lanes, 2),
        np.dtype(np.uint16),
        lambda: pack_pairs(pack_gemm_b(flat, simd.lanes)),
    )
    call = Invoke(
        *("gemm_f32.h", "sp_gemm_f32", "sp_gemm"), params_of(p), (In(0), Packed(0), Out(0), ep)
    )
    return Lowered(
        *((call,), p.tasks, (packed,)),
        cycles=gemm_cycles(p, simd),
        shape=shape_text(p),
        tiles=gemm_tiles(p, simd),
        tile=Tile(p.mr, p.nv),
        spans=gemm_spans(p, simd.lanes, case.y[0], ep),
    )


ROWS = (Kernel("gemm_f32", MatMul, _gemm), Kernel("gemm_bf16", MatMul, _gemm_bf16))
