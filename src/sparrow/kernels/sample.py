"""Rows for sampling at computed positions, regions of interest and unpooling."""

from __future__ import annotations

from math import prod

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
    Tensor,
)
from sparrow.kernels.element import dense, rows_per_task, suffix
from sparrow.kernels.pool_any import three
from sparrow.ops.deform_conv import DeformConv
from sparrow.ops.grid_sample import GridSample
from sparrow.ops.roi import RoiAlign, RoiPool
from sparrow.ops.unpool import Unpool
from sparrow.tensor import F32, F64


def _float32(case: Case) -> Reject | None:
    for t in (*case.x, *case.y):
        if t is not None and t.type.dtype.kind == "float" and t.type.dtype != F32:
            return Reject(f"{t.type.dtype}")
    return dense(case)


def _input(case: Case, i: int) -> Tensor:
    t = case.x[i]
    assert t is not None
    return t


def _grid(case: Case) -> Lowered | Reject:
    op, x, grid, y = case.op, _input(case, 0), _input(case, 1), case.y[0]
    assert isinstance(op, GridSample)
    for t in (x, grid):
        if t.type.dtype not in (F32, F64):
            return Reject(f"{t.type.dtype}")
    if refused := dense(case):
        return refused
    rank = x.type.rank - 2
    if rank > 3:
        return Reject(f"{rank} spatial axes")
    if not y.type.size:
        return Lowered(())
    points = prod(grid.shape[1:-1])
    total = x.shape[0] * points
    rows = rows_per_task(case, total, op.flops((), (y.type,)))
    params: dict[str, Param] = {
        "mode": ("nearest", "linear", "cubic").index(op.mode),
        "padding": ("zeros", "border", "reflection").index(op.padding),
        "corners": int(op.align_corners),
        "rank": rank,
        "batch": x.shape[0],
        "channels": x.shape[1],
        "points": points,
        "task_rows": rows,
        "in": three(x.shape[2:], 1),
    }
    name = f"sp_grid_{suffix(x.type.dtype)}_{suffix(grid.type.dtype)}"
    call = Invoke("sample.h", name, "sp_grid", params, (In(0), In(1), Out(0)))
    cycles = 60.0 * total + 2 * op.flops((), (y.type,))
    return Lowered((call,), -(-total // rows), cycles=cycles)


def _deform(case: Case) -> Lowered | Reject:
    op, x, w, y = case.op, _input(case, 0), _input(case, 1), case.y[0]
    assert isinstance(op, DeformConv)
    if refused := _float32(case):
        return refused
    if not y.type.size:
        return Lowered(())
    bias, mask = (case.x[i] if len(case.x) > i else None for i in (3, 4))
    pixels = y.shape[0] * prod(y.shape[2:])
    taps = prod(w.shape[2:])
    flops = 2 * y.type.size * prod(w.shape[1:])
    rows = rows_per_task(case, pixels, flops)
    tasks = -(-pixels // rows)
    params: dict[str, Param] = {
        "batch": x.shape[0], "ci": x.shape[1], "co": w.shape[0], "groups": op.group,
        "shares": op.offset_group, "ih": x.shape[2], "iw": x.shape[3], "oh": y.shape[2],
        "ow": y.shape[3], "kh": w.shape[2], "kw": w.shape[3], "sh": op.strides[0],
        "sw": op.strides[1], "dh": op.dilations[0], "dw": op.dilations[1], "pt": op.pads[0][0],
        "pl": op.pads[1][0], "bias": int(bias is not None), "mask": int(mask is not None),
        "task_rows": rows,
    }  # fmt: skip
    per_task = -(-4 * x.shape[1] * taps // 64) * 64
    # what is absent is not read
    extra = (In(3) if bias is not None else In(0), In(4) if mask is not None else In(0))
    call = Invoke(
        "sample.h",
        "sp_deform_f32",
        "sp_deform",
        params,
        (In(0), In(1), In(2), *extra, Out(0), Scratch("float", per_task)),
    )
    cycles = 20.0 * pixels * x.shape[1] * taps + flops / case.target.isa.lanes
    return Lowered((call,), tasks, scratch_bytes=per_task * tasks, cycles=cycles)


def _regions(case: Case, out: tuple[int, int], scale: float, **more: int) -> dict[str, Param]:
    x, y = _input(case, 0), case.y[0]
    names = ("batch", "channels", "ih", "iw")
    return {
        "regions": y.shape[0],
        **dict(zip(names, x.shape, strict=True)),
        "oh": out[0],
        "ow": out[1],
        **more,
        "scale": scale,
    }


def _roi_align(case: Case) -> Lowered | Reject:
    op, y = case.op, case.y[0]
    assert isinstance(op, RoiAlign)
    if refused := _float32(case):
        return refused
    if not y.type.size:
        return Lowered(())
    flags = {"sampling": op.sampling, "max": int(op.kind == "max"), "half": int(op.half_pixel)}
    params = _regions(case, op.out, op.scale, **flags)
    call = Invoke("sample.h", "sp_roi_align_f32", "sp_roi", params, (In(0), In(1), In(2), Out(0)))
    return Lowered((call,), y.shape[0], cycles=60.0 * y.type.size * max(op.sampling, 2) ** 2)


def _roi_pool(case: Case) -> Lowered | Reject:
    op, y = case.op, case.y[0]
    assert isinstance(op, RoiPool)
    if refused := _float32(case):
        return refused
    if not y.type.size:
        return Lowered(())
    params = _regions(case, op.out, op.scale)
    call = Invoke("sample.h", "sp_roi_pool_f32", "sp_roi", params, (In(0), In(1), Out(0)))
    return Lowered((call,), y.shape[0], cycles=40.0 * y.type.size)


def _unpool(case: Case) -> Lowered | Reject:
    x, y = _input(case, 0), case.y[0]
    assert isinstance(case.op, Unpool)
    if refused := dense(case):
        return refused
    params: dict[str, Param] = {"count": x.type.size, "size": y.type.size}
    name = f"sp_unpool_{8 * x.type.dtype.bytes}"
    call = Invoke("sample.h", name, "sp_unpool", params, (In(0), In(1), Out(0)))
    return Lowered((call,), cycles=y.type.size + 4.0 * x.type.size)


ROWS = (
    Kernel("grid_sample", GridSample, _grid),
    Kernel("deform_conv_f32", DeformConv, _deform),
    Kernel("roi_align_f32", RoiAlign, _roi_align),
    Kernel("roi_pool_f32", RoiPool, _roi_pool),
    Kernel("unpool", Unpool, _unpool),
)
