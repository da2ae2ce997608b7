"""The row of maximum pooling over 8-bit codes, channels last."""

from __future__ import annotations

from dataclasses import asdict

from sparrow.kernels.case import Case, In, Invoke, Kernel, Lowered, Out, Reject, Scratch
from sparrow.kernels.conv import window_of
from sparrow.kernels.element import suffix
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import Window
from sparrow.kernels.tasks import task_grid
from sparrow.kernels.walk import lead_of
from sparrow.ops.pool import Pool
from sparrow.ops.sums import CODES

# Bytes that a compiler's loop over bytes handles per lane of the vocabulary.
_BYTES = 4


def _max(case: Case) -> Lowered | Reject:
    op, x = case.op, case.x[0]
    assert isinstance(op, Pool) and x is not None
    if op.kind != "max" or op.indices or x.type.dtype not in CODES:
        return Reject("only the maximum of 8-bit codes, without indices")
    if not op.channels_last or (x.strides[-1] != 1 and x.shape[-1] > 1):
        return Reject("channels are not last and adjacent")
    window = window_of(case, op.kernel, op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    s, c = Window(**window), x.shape[-1]
    task_h = task_grid(s.oh * s.ow * c * (s.kh + s.kw), s.oh, 1, s.batch, case.threads)[0]
    tasks = s.batch * -(-s.oh // task_h)
    line = round_up(s.iw * c, 64)
    call = Invoke(
        "pool_i8.h",
        f"sp_max_pool2d_{suffix(x.type.dtype)}",
        "sp_pool_i8",
        {**asdict(s), "c": c, "task_h": task_h},
        (In(0), Out(0), Scratch(f"{'u' * (x.type.dtype.kind == 'uint')}int8_t", line)),
    )
    taps = s.batch * s.oh * (s.iw * s.kh + s.ow * s.kw) * c
    cycles = 2 * taps / (_BYTES * case.target.isa.lanes)
    lead = lead_of(s, 1, 1, s.ow, copied=True) if tasks == 1 else None
    return Lowered((call,), tasks, (), line * tasks, cycles, lead=lead)


ROWS = (Kernel("max_pool_i8", Pool, _max),)
