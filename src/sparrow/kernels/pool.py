"""Pooling and mean-over-pixels rows, channels last."""

from __future__ import annotations

from sparrow.kernels.case import Case, Epilogue, In, Invoke, Kernel, Lowered, Out, Reject, Scratch
from sparrow.kernels.conv import window_of
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import Pool2d, Window, params_of, simd_of
from sparrow.kernels.tiling_windows import choose_mean2d, choose_pool2d
from sparrow.ops.pool import Pool
from sparrow.ops.reduce import Reduce
from sparrow.tensor import F32


def _pool(case: Case) -> Lowered | Reject:
    found = _pool2d(case)
    if isinstance(found, Reject):
        return found
    call = Invoke(
        "pool_f32.h",
        "sp_pool2d_f32",
        "sp_pool2d",
        params_of(found),
        (In(0), Out(0), Epilogue(None)),
    )
    lanes = case.target.isa.lanes
    pixels = found.batch * found.oh * found.ow
    cycles = 2.0 * pixels * -(-found.c // lanes) * found.kh * found.kw
    return Lowered((call,), found.tasks, cycles=cycles)


def _arg(case: Case) -> Lowered | Reject:
    """The maximum and where it lies, as networks that pool back need it."""
    op = case.op
    assert isinstance(op, Pool)
    if op.indices != "row":
        return Reject("no places in row-major order")
    found = _pool2d(case, indices=True)
    if isinstance(found, Reject):
        return found
    if case.y[1].strides != case.y[0].strides:
        return Reject("values and indices lie differently")
    if found.ih * found.iw >= 1 << 31:
        return Reject("places of a plane exceed 31 bits")
    arguments = (In(0), Out(0), Out(1))
    call = Invoke("pool_f32.h", "sp_arg_pool2d_f32", "sp_pool2d", params_of(found), arguments)
    vectors = found.batch * found.oh * found.ow * -(-found.c // case.target.isa.lanes)
    # the places are widened one by one
    cycles = vectors * (6.0 * found.kh * found.kw + case.target.isa.lanes)
    return Lowered((call,), found.tasks, cycles=cycles)


def _max_rows(case: Case) -> Lowered | Reject:
    found = _pool2d(case)
    if isinstance(found, Reject):
        return found
    if found.average:
        return Reject("sums would be taken in another order")
    if found.sw != 1 or found.xw != found.c or found.ldy != found.c:
        return Reject("windows of a row do not lie side by side")
    across = found.ow + (found.kw - 1) * found.dw
    line = round_up(4 * across * found.c, 64)
    arguments = (In(0), Out(0), Scratch("float", line))
    call = Invoke("pool_f32.h", "sp_max_rows_f32", "sp_pool2d", params_of(found), arguments)
    # twice each row: the largest of its columns is stored and read again
    columns = found.iw * (found.kh + 1) + found.ow * found.kw
    cycles = 2.0 * found.batch * found.oh * columns * found.c / case.target.isa.lanes
    return Lowered((call,), found.tasks, (), line * found.tasks, cycles)


def _pool2d(case: Case, *, indices: bool = False) -> Pool2d | Reject:
    op, x = case.op, case.x[0]
    assert isinstance(op, Pool) and x is not None
    if op.kind not in ("max", "average") or bool(op.indices) != indices or x.type.dtype != F32:
        return Reject("only float32 maximum and mean without indices")
    if not op.channels_last:
        return Reject("channels are not last")
    if x.strides[-1] != 1 and x.shape[-1] > 1:
        return Reject("input channels are not adjacent")
    window = window_of(case, op.kernel, op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    c = x.shape[-1]
    end = [p[1] for p in op.pads]
    pb, pr = (0, end[0]) if len(end) == 1 else (end[0], end[1])
    return choose_pool2d(
        Window(**window),
        c,
        average=op.kind == "average",
        include_pad=op.count_pads,
        pb=pb,
        pr=pr,
        threads=case.threads,
    )


def _mean(case: Case) -> Lowered | Reject:
    """The mean over all axes between the first and the last, or over the pixels of each row."""
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Reduce) and x is not None
    rank = x.type.rank
    if op.kind != "mean" or x.type.dtype != F32 or rank not in (3, 4):
        return Reject("only the float32 mean over the pixels of an image")
    rows = rank == 4 and op.axes == (2,)
    if not (rows or op.axes == tuple(range(1, rank - 1))) or 0 in x.shape:
        return Reject("not a mean over every axis between batch and channel, or over rows")
    if (x.strides[-1] != 1 and x.shape[-1] > 1) or not y.contiguous:
        return Reject("channels are not adjacent")
    n, c = x.shape[0], x.shape[-1]
    ih, iw = (1, x.shape[1]) if rank == 3 else x.shape[1:3]
    xn, xh = x.strides[0], x.strides[1] if rank == 4 else 0
    if rows and n > 1 and xn != ih * xh:
        return Reject("rows lie at unequal distances")
    if rows:
        n, ih, xn = n * ih, 1, xh
    p = choose_mean2d(
        ih,
        iw,
        c,
        simd_of(case.target),
        batch=n,
        xn=xn,
        xh=xh,
        xw=x.strides[-2],
        ldy=c,
        threads=case.threads,
    )
    call = Invoke(
        "pool_f32.h",
        "sp_mean2d_f32",
        "sp_mean2d",
        params_of(p),
        (In(0), Out(0), Epilogue(None)),
    )
    return Lowered((call,), p.tasks, cycles=x.type.size / case.target.isa.lanes)


ROWS = (
    Kernel("pool2d_f32", Pool, _pool),
    Kernel("max_rows_f32", Pool, _max_rows),
    Kernel("arg_pool2d_f32", Pool, _arg),
    Kernel("mean2d_f32", Reduce, _mean),
)
