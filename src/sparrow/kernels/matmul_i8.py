"""The row of products of two matrices of 8-bit codes: the second is packed at run time."""

from __future__ import annotations

from math import prod

from sparrow.kernels.attention import balanced
from sparrow.kernels.case import (
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Param,
    Reject,
    Scratch,
)
from sparrow.kernels.conv_any import put_of
from sparrow.kernels.epilogue import SUM_RESULTS, epilogue_of
from sparrow.kernels.loop import batch_axes
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.tiles_i8 import EPILOGUE
from sparrow.kernels.tiling_i8 import PAIRED
from sparrow.ops.matmul import MatMul
from sparrow.ops.sums import CODES
from sparrow.targets import Isa
from sparrow.tensor import U8

# Bytes of packed columns that stay in cache beside the rows that pass them.
BLOCK_BYTES = 1 << 16


def _matmul(case: Case) -> Lowered | Reject:
    op, a, b, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, MatMul) and a is not None and b is not None
    if a.type.dtype not in CODES or b.type.dtype not in CODES or y.type.dtype not in SUM_RESULTS:
        return Reject(f"{a.type.dtype} x {b.type.dtype} to {y.type.dtype}")
    if b.const is not None and b.type.rank == 2 and not (op.zero_b or op.trans_a):
        return Reject("the second matrix is packed when the model is built")
    if 0 in y.shape or 0 in a.shape:
        return Reject("empty operands")
    if y.strides[-1] != 1 and y.shape[-1] > 1:
        return Reject("output columns are not adjacent")
    ep = epilogue_of(case, op.epilogue, 2, 3)
    if isinstance(ep, Reject):
        return ep
    (m, n), k = y.shape[-2:], a.shape[-2 if op.trans_a else -1]
    rows, within = a.strides[:-3:-1] if op.trans_a else a.strides[-2:]
    # distances of k and of columns in b
    down, along = b.strides[:-3:-1] if op.trans_b else b.strides[-2:]
    columns = (down == 1 or k == 1) and (along != 1 or n == 1)
    if not columns and along != 1 and n > 1:
        return Reject("neither rows nor columns of b are dense")
    dims, walks = batch_axes((a, b, y), y.shape[:-2])
    if len(dims) > 2:
        return Reject(f"{len(dims)} batch axes")
    between = y.strides[-2]
    if len(dims) == 1 and walks[1] == (0,):
        if m == 1:
            (rows,), _, (between,) = walks
        # rows of all matrices form one when they follow each other
        if walks[0] == (m * rows,) and walks[2] == (m * between,):
            m, dims, walks = m * dims[0], (), [(), (), ()]
    before = (1,) * (2 - len(dims))
    batch, heads = *before, *dims
    isa = case.target.isa
    paired = isa.packs_pairs
    vectors, quads = -(-n // isa.lanes), -(-k // (2 if paired else 4))
    mr, nv = _tile(m, vectors, isa)
    task = -(-vectors // (case.threads if prod(dims) < case.threads else 1))
    task = round_up(task, nv)
    block = min(task, max(1, BLOCK_BYTES // (4 * quads * isa.lanes * nv)) * nv)
    unsigned = a.type.dtype == U8
    flip_a, flip_b = unsigned != isa.dot_unsigned, b.type.dtype == U8
    zero_b = op.zero_b - 128 * flip_b
    plain = within == 1 and not flip_a and not isa.packs_pairs and k % 4 == 0
    params: dict[str, Param] = {
        "batch": batch, "heads": heads, "m": m, "n": n, "k": k, "columns": int(columns),
        "mr": mr, "nv": nv, "block": block, "task_n": task, "pair": PAIRED if paired else 0,
        "flip_a": int(flip_a), "flip_b": int(flip_b),
        "seen_a": op.zero + flip_a * (128 if isa.dot_unsigned else -128), "zero_b": zero_b,
        "sign_a": int(not unsigned), "zero_a": op.zero, "direct": int(plain and not zero_b),
        "put": put_of(y.type.dtype), "as": rows, "ak": within if k > 1 else 1,
        "bs": along if columns else down, "ys": between,
    }  # fmt: skip
    for name, walk in zip("aby", walks, strict=True):
        z, h = (*(0,) * len(before), *walk)
        params |= {f"{name}z": z, f"{name}h": h}
    scratch = round_up(4 * (block * isa.lanes * (quads + 1) + mr * quads), 64)
    tasks = batch * heads * -(-vectors // task)
    together = tasks if case.threads == 1 else 1
    count = tasks // together
    args = (In(0), In(1), Out(0), Scratch("int32_t", scratch), ep)
    name = "sp_matmul_i8"
    call = Invoke("matmul_i8.h", f"{name}_run", name, params, args, together)
    each = m * vectors * (quads * isa.packed_ops / 2 + EPILOGUE) + n * 2 * quads + m * k / 4
    return Lowered((call,), count, (), scratch * count, batch * heads * each)


def _tile(rows: int, vectors: int, isa: Isa) -> tuple[int, int]:
    """Rows and vectors of columns whose sums registers hold."""
    wide = isa.registers > 16
    most = 4 if wide else 1 if isa.lanes == 1 else 2
    # products of halves by halves, as of bytes where the set has no better, need registers too
    return balanced(rows, 6 if wide else 4), min(vectors, most)


ROWS = (Kernel("matmul_i8", MatMul, _matmul),)
