"""Reduction, arg-reduction and running-sum rows."""

from __future__ import annotations

from sparrow.kernels.case import Case, In, Invoke, Kernel, Lowered, Out, Param, Reject
from sparrow.kernels.element import dense, rows_per_task, suffix
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce, around
from sparrow.tensor import F32

KINDS = ("sum", "mean", "max", "min", "prod")
# Vectors of a row that reduce.h takes beside one another, its SP_REDUCED.
REDUCED = 8


def _rows(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Reduce) and x is not None
    dtype = x.type.dtype
    integer = dtype.kind in ("int", "uint") and dtype.bits >= 8
    if dtype != F32 and not (integer and op.kind != "mean"):
        return Reject(f"{op.kind} of {dtype}")
    if refused := dense(case):
        return refused
    if not x.type.size:
        return Reject("empty input")
    view = around(x.shape, op.axes)
    if view is None:
        return Reject("reduced axes do not lie together")
    outer, n, inner = view
    if n == 1 and inner == 1:
        outer, inner = 1, outer
    lanes = max(1, case.target.isa.lanes * 32 // dtype.bits)
    # float32 takes short rows by whole vectors of them, in an order of its own: tasks share these
    turned = dtype == F32 and inner == 1 and n < 4 * lanes
    together = lanes if turned else 1
    rows = together * rows_per_task(case, -(-outer // together), x.type.size)
    columns = inner
    if outer == 1 and inner > 1:  # whole blocks of vectors, so that a column's sum is of one order
        block = REDUCED * lanes
        columns = min(inner, block * rows_per_task(case, -(-inner // block), x.type.size))
    params = {
        "kind": KINDS.index(op.kind), "outer": outer, "n": n, "inner": inner,
        "task_rows": rows, "task_columns": columns,
    }  # fmt: skip
    name = f"sp_reduce_rows_{suffix(dtype)}"
    call = Invoke("reduce.h", name, "sp_rows", params, (In(0), Out(0)))
    width = min(lanes, inner if inner > 1 else 4 if turned else n)
    cycles = x.type.size / width + 10 * y.type.size / lanes
    tasks = -(-outer // rows) * -(-inner // columns)
    return Lowered((call,), tasks, cycles=cycles)


def _grouped(
    shape: tuple[int, ...], strides: tuple[int, ...], axes: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Extents and strides of some axes with neighbours merged, filled up to four; None for more."""
    extents: list[int] = []
    steps: list[int] = []
    for a in axes:
        if shape[a] == 1:
            continue
        if extents and steps[-1] == strides[a] * shape[a]:
            extents[-1] *= shape[a]
            steps[-1] = strides[a]
        else:
            extents.append(shape[a])
            steps.append(strides[a])
    missing = 4 - len(extents)
    if missing < 0:
        return None
    return (*(1,) * missing, *extents), (*(0,) * missing, *steps)


def _general(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Reduce) and x is not None
    if not y.contiguous:
        return Reject("the result is not dense")
    if not y.type.size:
        return Lowered(())
    if not x.type.size and op.kind == "mean":
        return Reject("mean of nothing")
    kept = _grouped(x.shape, x.strides, [i for i in range(x.type.rank) if i not in op.axes])
    reduced = _grouped(x.shape, x.strides, list(op.axes))
    if kept is None or reduced is None:
        return Reject("more than four groups of axes")
    size = rows_per_task(case, y.type.size, x.type.size)
    params: dict[str, Param] = {
        "kind": KINDS.index(op.kind), "kept": kept[0], "ks": kept[1], "reduced": reduced[0],
        "rs": reduced[1], "task_size": size,
    }  # fmt: skip
    name = f"sp_reduce_{suffix(x.type.dtype)}"
    call = Invoke("reduce.h", name, "sp_reduce", params, (In(0), Out(0)))
    return Lowered((call,), -(-y.type.size // size), cycles=4.0 * x.type.size + 8.0 * y.type.size)


def _along(
    case: Case, axis: int, struct: str, flags: dict[str, int], vectors: str = ""
) -> Lowered | Reject:
    """A walk along one axis by a function named after its struct, or ``vectors`` for float32."""
    x = case.x[0]
    assert x is not None
    if refused := dense(case):
        return refused
    if not case.y[0].type.size:
        return Lowered(())
    outer, n, inner = _exact(x.shape, axis)
    rows = rows_per_task(case, outer, 4 * x.type.size)
    params = {**flags, "outer": outer, "n": n, "inner": inner, "task_rows": rows}
    wide = bool(vectors) and x.type.dtype == F32
    function = vectors if wide else f"{struct}_{suffix(x.type.dtype)}"
    call = Invoke("reduce.h", function, struct, params, (In(0), Out(0)))
    lanes = case.target.isa.lanes if wide else 1
    return Lowered((call,), -(-outer // rows), cycles=(4.0 + 4.0 * wide) * x.type.size / lanes)


def _exact(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    found = around(shape, (axis,))
    assert found is not None
    return found


def _arg(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, ArgReduce)
    flags = {"min": int(op.kind == "min"), "last": int(op.last)}
    return _along(case, op.axis, "sp_arg", flags, "sp_arg_lanes_f32")


def _scan(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, Cumulate)
    flags = {
        "prod": int(op.kind == "prod"),
        "exclusive": int(op.exclusive),
        "reverse": int(op.reverse),
    }
    return _along(case, op.axis, "sp_scan", flags)


ROWS = (
    Kernel("reduce_rows", Reduce, _rows),
    Kernel("reduce", Reduce, _general),
    Kernel("arg_reduce", ArgReduce, _arg),
    Kernel("cumulate", Cumulate, _scan, inplace=(0,)),
)
