"""Each step of a run judged by its own bound.

A step is judged on the inputs it really got: the reference op is fed the natively computed values,
so that a step answers for its *own* error only. What it inherits from the steps before is reported
too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sparrow.device.session import from_native
from sparrow.errors import BadBundle
from sparrow.evidence.golden import GoldenCall, thin
from sparrow.evidence.plan_record import EntryRecord, StepRecord, ValueRecord
from sparrow.evidence.tolerances import tolerance_of
from sparrow.graph import Graph, Node
from sparrow.tensor import BF16, BY_NAME, Array

# Steps judged at once: each holds a few double-precision copies of its tensors.
JUDGES = 8


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """Error of one step over all golden calls.

    Attributes:
        entry: Entry point.
        step: Index of the step in it.
        op: Operator.
        origin: Source node.
        own: |native - reference on the native inputs| at the element nearest to its bound.
        bound: What is allowed there.
        inherited: Largest |native - reference from the network's inputs|.
        scale: Largest magnitude of the reference.
        ok: Whether every element is within its bound.
        found: The native value at that element.
        expected: The reference's value at that element.
        reason: Why the bound is what it is.
    """

    entry: str
    step: int
    op: str
    origin: str
    own: float
    bound: float
    inherited: float
    scale: float
    ok: bool
    found: float
    expected: float
    reason: str

    @property
    def share(self) -> float:
        """Own error as a share of its bound; 0 for exact steps that are exact."""
        if self.own == 0:
            return 0.0
        return self.own / self.bound if self.bound > 0 else float("inf")


def layer_failure(c: LayerCheck) -> str:
    """One line about a layer beyond its bound."""
    return (
        f"layer {c.entry}.{c.step} {c.origin or '?'} ({c.op}): expected {c.expected:.9g}, "
        f"found {c.found:.9g}, off by {c.own:.3g}, bound {c.bound:.3g} ({c.reason})"
    )


def tapped(data: bytes, v: ValueRecord) -> Array:
    """The value that a step wrote, from the bytes its tap spans."""
    dtype = BY_NAME[v.dtype]
    raw = np.dtype(np.uint16) if dtype == BF16 else dtype.numpy
    if len(data) != v.bytes:
        raise BadBundle(
            f"step output {v.name!r}: {len(data)} bytes tapped, the plan says {v.bytes}"
        )
    if not v.bytes:
        return np.zeros(v.shape, dtype.numpy)
    reach = [(d - 1) * s for d, s in zip(v.shape, v.strides, strict=True)]
    start = -sum(min(r, 0) for r in reach) * raw.itemsize
    strides = [s * raw.itemsize for s in v.strides]
    y: Array = np.ndarray(v.shape, raw, data, start, strides)
    return from_native(np.ascontiguousarray(y).reshape(v.shape), dtype)


def gap(a: Array, b: Array) -> Array:
    """|a - b| in double precision; 0 where both are NaN or equal, else infinite."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        # 64-bit integers would lose their low bits in a double
        return np.where(a == b, 0.0, np.maximum(np.abs(a.astype(np.float64) - b), 1.0))
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off: Array = np.abs(x - y)
    if not np.isnan(off).any():
        return off
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def _overflown(got: Array, want: Array) -> tuple[Array, Array]:
    """Both, infinite where the reference is and the other one is on the brink of it."""
    if want.dtype.kind != "f" or not np.isinf(want).any():
        return got, want
    brink = (np.abs(got) > np.finfo(want.dtype).max / 2) & (np.sign(got) == np.sign(want))
    return np.where(np.isinf(want) & brink, want, got), want


class Layers:
    """Collects the worst of every step over the calls: ``rows`` by entry point and step."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], LayerCheck] = {}

    def add(self, key: tuple[int, int], row: LayerCheck) -> None:
        old = self.rows.get(key)
        if old is None:
            self.rows[key] = row
            return
        worst = row if (row.share, not row.ok) > (old.share, not old.ok) else old
        self.rows[key] = LayerCheck(
            *(worst.entry, worst.step, worst.op, worst.origin, worst.own, worst.bound),
            max(row.inherited, old.inherited),
            max(row.scale, old.scale),
            row.ok and old.ok,
            *(worst.found, worst.expected, worst.reason),
        )


def judge_step(
    n: Node, kernel: str, g: Graph, env: Mapping[str, Array], native: Sequence[Array]
) -> tuple[int, int, float, float, bool, float, float]:
    """Worst output and element of a step: own error, bound, ok, native and reference value."""
    row = tolerance_of(n.op, kernel)
    operands = [env[x] if x else None for x in n.inputs]
    with np.errstate(all="ignore"):
        judged = row.judge(n.op, operands, g.in_types(n), g.out_types(n))
    worst: tuple[int, int, float, float, bool, float, float] = (0, 0, 0.0, 0.0, True, 0.0, 0.0)
    top = -1.0
    for k, (got, want, bound) in enumerate(zip(native, judged.outputs, judged.bounds, strict=True)):
        if not want.size:
            continue
        off = gap(*_overflown(got, want)).reshape(-1)
        allowed = np.broadcast_to(bound, want.shape).reshape(-1)
        # infinity is within an infinite bound of everything, and no evidence
        allowed = np.where(np.isfinite(allowed), allowed, 0.0)
        bad = ~((off <= allowed) | (off == 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(off == 0, 0.0, np.where(bad & ~(allowed > 0), np.inf, off / allowed))
        at = int(np.argmax(np.where(np.isnan(share), np.inf, share)))
        if share[at] > top:
            top = float(share[at])
            values = float(got.reshape(-1)[at]), float(want.reshape(-1)[at])
            worst = (k, at, float(off[at]), float(allowed[at]), not bad.any(), *values)
        elif bad.any():
            worst = (*worst[:4], False, *worst[5:])
    return worst


def judge_call(
    g: Graph,
    entry: EntryRecord,
    index: int,
    call: GoldenCall,
    cap: int,
    states: Mapping[str, Array],
    taps: Mapping[tuple[int, int], bytes],
    found: Layers,
) -> None:
    """Judge every step of one call.

    Args:
        g: Graph of the entry point, as compiled.
        entry: The plan's record of it.
        index: Its number.
        call: Inputs, and the reference's results.
        cap: Elements that ``call`` holds of a value at most, as for `thin`.
        states: Native states before the call, by name.
        taps: Bytes of (step, output) as the native code wrote them.
        found: Where the results go.

    Raises:
        BadBundle: A tap has another size than the plan says.
    """
    steps = {s.outputs[0].name: s for s in entry.steps}
    env: dict[str, Array] = {**g.consts, **call.feeds}
    for s in g.states:
        env[s.input] = from_native(states[s.name], g.types[s.input].dtype)
    checked: list[tuple[Node, StepRecord, list[Array]]] = []
    for n in g.nodes:
        step = steps.get(n.outputs[0])
        if step is None:
            # the planner made it a view: its value follows from what was really written
            out: Sequence[Array] = n.op.eval(*(env[x] if x else None for x in n.inputs))
        else:
            out = [tapped(taps[step.index, k], v) for k, v in enumerate(step.outputs)]
            checked.append((n, step, list(out)))
        env.update(zip(n.outputs, out, strict=True))

    def row(n: Node, step: StepRecord, native: list[Array]) -> LayerCheck:
        _, _, own, bound, ok, got, want = judge_step(n, step.kernel, g, env, native)
        inherited = scale = 0.0
        for y, a in zip(n.outputs, native, strict=True):
            stored = call.layers[y]
            inherited = max(inherited, float(gap(thin(a, cap), stored).max(initial=0.0)))
            finite = np.abs(stored.astype(np.float64))
            scale = max(scale, float(finite[np.isfinite(finite)].max(initial=0.0)))
        return LayerCheck(
            *(entry.name, step.index, step.op, step.origin, own, bound, inherited, scale, ok),
            *(got, want, tolerance_of(n.op, step.kernel).reason),
        )

    # every step is judged by what the native code gave it, so the steps do not wait for each other
    with ThreadPoolExecutor(min(os.cpu_count() or 1, JUDGES)) as pool:
        rows = pool.map(lambda c: row(*c), checked)
        for (_, step, _), found_row in zip(checked, rows, strict=True):
            found.add((index, step.index), found_row)
