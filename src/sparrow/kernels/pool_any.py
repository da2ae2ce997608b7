"""Pooling rows for every type, layout and rank up to three spatial axes."""

from __future__ import annotations

from math import prod

from sparrow.kernels.case import Case, In, Invoke, Kernel, Lowered, Out, Param, Reject
from sparrow.kernels.element import rows_per_task, suffix
from sparrow.ops.pool import Pool


def three(v: tuple[int, ...], fill: int) -> tuple[int, ...]:
    """Values per spatial axis, filled up in front to three."""
    return (*(fill,) * (3 - len(v)), *v)


def _pool(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Pool) and x is not None
    n = len(op.kernel)
    if n > 3:
        return Reject(f"{n} spatial axes")
    if not y.type.size:
        return Lowered(())
    if op.indices and case.y[1].strides != y.strides:
        return Reject("values and indices lie differently")
    spatial = slice(1, -1) if op.channels_last else slice(2, None)
    channel = -1 if op.channels_last else 1
    planes = x.shape[0] * x.shape[channel]
    taps = y.type.size * prod(op.kernel)
    rows = rows_per_task(case, planes, taps)
    kind = {"max": 0, "average": 2 if op.count_pads else 1, "lp": 3}[op.kind]
    params: dict[str, Param] = {
        "kind": kind,
        "index": ("", "row", "column").index(op.indices),
        "power": op.p,
        "planes": planes,
        "channels": x.shape[channel],
        "task_rows": rows,
        "in": three(x.shape[spatial], 1),
        "out": three(y.shape[spatial], 1),
        "k": three(op.kernel, 1),
        "s": three(op.strides, 1),
        "d": three(op.dilations, 1),
        "begin": three(tuple(p[0] for p in op.pads), 0),
        "end": three(tuple(p[1] for p in op.pads), 0),
        "xn": x.strides[0],
        "xc": x.strides[channel],
        "yn": y.strides[0],
        "yc": y.strides[channel],
        "xs": three(x.strides[spatial], 0),
        "ys": three(y.strides[spatial], 0),
    }
    name = suffix(x.type.dtype)
    if op.kind == "max":
        places = (Out(1),) if op.indices else ()
        function = f"sp_{'arg' if op.indices else 'max'}_pool_{name}"
    else:
        places, function = (), f"sp_sum_pool_{name}"
    call = Invoke("pool.h", function, "sp_pool", params, (In(0), Out(0), *places))
    return Lowered((call,), -(-planes // rows), cycles=4.0 * taps)


ROWS = (Kernel("pool", Pool, _pool),)
