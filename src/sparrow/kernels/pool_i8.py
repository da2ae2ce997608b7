"""The row of maximum pooling over codes, channels last."""

from __future__ import annotations

from dataclasses import asdict

from sparrow.kernels.case import Case, In, Invoke, Kernel, Lowered, Out, Reject, Scratch
from sparrow.kernels.conv import window_of
from sparrow.kernels.element import suffix
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import Window
from sparrow.kernels.tasks import Grid, task_grid
from sparrow.kernels.walk import lead_of
from sparrow.ops.pool import Pool
from sparrow.ops.sums import CODES
from sparrow.tensor import I16

# Bytes that a compiler's loop over bytes handles per lane of the vocabulary.
_BYTES = 4


def _max(case: Case) -> Lowered | Reject:
    op, x = case.op, case.x[0]
    assert isinstance(op, Pool) and x is not None
    dtype = x.type.dtype
    if op.kind != "max" or op.indices or dtype not in (*CODES, I16):
        return Reject("only the maximum of codes, without indices")
    if not op.channels_last or (x.strides[-1] != 1 and x.shape[-1] > 1):
        return Reject("channels are not last and adjacent")
    window = window_of(case, op.kernel, op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    s, c = Window(**window), x.shape[-1]
    flops = s.oh * s.ow * c * (s.kh + s.kw)
    task_h, _ = task_grid(Grid(flops=flops, rows=s.oh, columns=1, copies=s.batch), case.threads)
    tasks = s.batch * -(-s.oh // task_h)
    size = dtype.bits // 8
    line = round_up(s.iw * c * size, 64)
    call = Invoke(
        "pool_i8.h",
        f"sp_max_pool2d_{suffix(dtype)}",
        "sp_pool_i8",
        {**asdict(s), "c": c, "task_h": task_h},
        (In(0), Out(0), Scratch(f"{'u' * (dtype.kind == 'uint')}int{dtype.bits}_t", line)),
    )
    taps = s.batch * s.oh * (s.iw * s.kh + s.ow * s.kw) * c
    cycles = 2 * taps * size / (_BYTES * case.target.isa.lanes)
    lead = lead_of(s, 1, 1, s.ow, copied=True) if tasks == 1 else None
    if lead is not None:
        lead *= size  # both are of one type, and were counted as bytes
    return Lowered((call,), tasks, (), line * tasks, cycles, lead=lead)


ROWS = (Kernel("max_pool_i8", Pool, _max),)
