"""Strides, in elements, under which a tensor has another shape or lies in a larger one."""

from __future__ import annotations

from typing import TypeAlias

from sparrow.tensor import row_major

Strides: TypeAlias = tuple[int, ...]


def reshape_strides(shape: Strides, strides: Strides, to: Strides) -> Strides | None:
    """Strides under which a strided tensor has another shape over the same elements in order.

    Both shapes are cut into the smallest groups of axes of equal product; within a group the old
    axes must form one run.
    """
    if 0 in shape:
        return row_major(to)
    old = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    new = [axis for axis, d in enumerate(to) if d != 1]
    found = [1] * len(to)
    k = i = 0
    while i < len(new):
        start = i
        have, need = old[k][0], to[new[i]]
        k, i = k + 1, i + 1
        while have != need:
            if have > need:
                need *= to[new[i]]
                i += 1
                continue
            if old[k - 1][1] != old[k][0] * old[k][1]:
                return None
            have *= old[k][0]
            k += 1
        step = old[k - 1][1]
        for axis in reversed(new[start:i]):
            found[axis] = step
            step *= to[axis]
    # kernels compare distances of rows: axes of extent 1 get what a dense tensor would have
    for axis in range(len(to) - 2, -1, -1):
        if to[axis] == 1:
            found[axis] = found[axis + 1] * to[axis + 1]
    return tuple(found)


def repitch(
    offset: int, shape: Strides, strides: Strides, pitch: int, to: int
) -> tuple[int, Strides] | None:
    """Offset and strides (in elements) after rows of ``pitch`` elements were pulled ``to`` elements
    apart.

    None when an axis runs across the end of a row.
    """
    if 0 in shape:
        return 0, strides
    row, at = divmod(offset, pitch)
    moved: list[int] = []
    reach = at
    for d, s in zip(shape, strides, strict=True):
        if d == 1 or s % pitch == 0:
            moved.append(s // pitch * to if s % pitch == 0 else s)
        elif s < 0:
            return None
        else:
            reach += (d - 1) * s
            moved.append(s)
    return (row * to + at, tuple(moved)) if reach < pitch else None
