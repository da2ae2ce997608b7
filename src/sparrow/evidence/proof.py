"""The proof: does the native library compute what the reference defines, layer by layer.

Each step is judged on the inputs it really got: the reference op is fed the natively computed
values, so that a step answers for its *own* error only. What it inherits from the steps before is
reported too.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sparrow.device.session import ModelLibrary, ModelSession, from_native, to_native
from sparrow.errors import BadBundle
from sparrow.evidence.golden import Golden, GoldenCall, thin
from sparrow.evidence.plan_record import EntryRecord, PlanRecord, StepRecord, ValueRecord
from sparrow.evidence.receipt import MemoryRecord, ReceiptRecord
from sparrow.evidence.tolerances import UNIT, tolerance_of
from sparrow.graph import Graph, Node
from sparrow.lane import Call, Expr, walk
from sparrow.ops.lane import Lane
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.quantize import Quantize
from sparrow.ops.reduce import ArgReduce
from sparrow.ops.topk import TopK
from sparrow.ops.unique import Unique
from sparrow.reference import one_thread
from sparrow.tensor import BF16, BY_NAME, F16, Array

# End to end, as a share of an output's largest magnitude: five times the most by which ONNX Runtime
# with and without optimisation and OpenVINO differ over the benchmark's networks.
OUTPUT_BOUND = 1e-4
# Networks with half types: this many roundings of the coarsest of them, one may go the other way.
HALF_ROUNDINGS = 16
# Where a network rounds or picks, a difference in the last bit may move an element by a whole step.
TIPPED_SHARE = 1e-3
# Where a float that some op computed is rounded to 8-bit codes, one code may fall on the other side
# and move what follows by steps of 1/255 of a range: a dozen of them. Each layer is proved by its
# own bound all the same; a network on codes throughout keeps OUTPUT_BOUND.
CODED_BOUND = 0.05
# The same of codes of 16 bits, which are int32 between elementwise ops: steps of 1/65535, five
# dozen, because networks that need so many bits are deep and normalise what they carry.
FINELY_CODED_BOUND = 1e-3
# The gate of the build itself: a bundle is not written without it.
AUDITED = "memory plan audited"
SPLIT = "splitting the work changes no bit"
# Steps judged at once: each holds a few double-precision copies of its tensors.
JUDGES = 8
_TIPS = ("floor", "ceil", "round", "trunc", "sign", "eq", "lt", "le", "gt", "ge", "mod", "fmod")


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


@dataclass(frozen=True, slots=True)
class Gate:
    """A named check: what was expected and what was found."""

    name: str
    expected: str
    found: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """Every gate and every layer; ``ok`` when all hold."""

    gates: tuple[Gate, ...]
    layers: tuple[LayerCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return all(g.ok for g in self.gates)

    @property
    def failure(self) -> str:
        """The first layer or gate that does not hold, in words; empty when all do."""
        for c in self.layers:
            if not c.ok:
                return layer_failure(c)
        for g in self.gates:
            if not g.ok:
                return f"{g.name}: expected {g.expected}, found {g.found}"
        return ""

    def __str__(self) -> str:
        lines = [f"{'ok ' if g.ok else 'BAD'} {g.name}: {g.found}" for g in self.gates]
        return "\n".join([*lines, f"verdict: {'ok' if self.ok else 'FAILED: ' + self.failure}"])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'ok' if g.ok else 'failed'}</td><td>{html.escape(g.name)}</td>"
            f"<td>{html.escape(g.expected)}</td><td>{html.escape(g.found)}</td></tr>"
            for g in self.gates
        )
        verdict = "proved" if self.ok else f"failed: {html.escape(self.failure)}"
        head = "<tr><th></th><th>check</th><th>expected</th><th>found</th></tr>"
        return f"<p><b>{verdict}</b></p><table>{head}{rows}</table>"


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


class _Layers:
    """Collects the worst of every step over the calls."""

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


def _judge(
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


def _check_call(
    g: Graph,
    entry: EntryRecord,
    index: int,
    call: GoldenCall,
    cap: int,
    states: Mapping[str, Array],
    taps: Mapping[tuple[int, int], bytes],
    found: _Layers,
) -> None:
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
        _, _, own, bound, ok, got, want = _judge(n, step.kernel, g, env, native)
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


def _expressions(graphs: Sequence[Graph]) -> Iterator[Expr]:
    """Every subexpression of every lane expression."""
    for g in graphs:
        for n in g.nodes:
            e = n.op.expr if isinstance(n.op, Lane) else getattr(n.op, "epilogue", None)
            if e is not None:
                yield from walk(e)


def _tips(graphs: Sequence[Graph]) -> bool:
    """Whether some op turns a tiny difference into a whole step."""
    picks = (ArgReduce, NonMaxSuppression, NonZero, Quantize, TopK, Unique)
    if any(isinstance(n.op, picks) for g in graphs for n in g.nodes):
        return True
    return any(
        isinstance(e, Call)
        and (e.fn in _TIPS or (e.fn == "cast" and e.dtype.kind in ("int", "uint")))
        for e in _expressions(graphs)
    )


def _output_bound(graphs: Sequence[Graph]) -> float:
    """Allowed difference of outputs, as a share of their largest magnitude."""
    dtypes = {t.dtype for g in graphs for t in g.types.values()}
    dtypes |= {e.dtype for e in _expressions(graphs)}
    half = max((UNIT[d] for d in (F16, BF16) if d in dtypes), default=0.0)
    coded = max(map(_coded_bound, graphs), default=0.0)
    return max(OUTPUT_BOUND, HALF_ROUNDINGS * half, coded)


def _coded_bound(g: Graph) -> float:
    """What codes that some node makes of a float, which another node computed, may move."""
    made = g.producers()

    def inexact(x: str) -> bool:
        return x in made and g.types[x].dtype.kind == "float"

    bound = 0.0
    for n in g.nodes:
        dtype = g.types[n.outputs[0]].dtype
        if not isinstance(n.op, Lane | Quantize) or dtype.kind not in ("int", "uint"):
            continue
        if not any(inexact(x) for x in n.inputs if x):
            continue
        if dtype.bits <= 8:
            bound = max(bound, CODED_BOUND)
        elif isinstance(n.op, Quantize) or _rounds(n.op.expr):
            bound = max(bound, FINELY_CODED_BOUND)
    return bound


def _rounds(e: Expr) -> bool:
    return any(isinstance(x, Call) and x.fn == "round" for x in walk(e))


def output_gate(
    graphs: Sequence[Graph], golden: Golden, outputs: Sequence[Mapping[str, Array]]
) -> Gate:
    """End to end: the shipped library's outputs against the golden ones."""
    worst, beyond, total = 0.0, 0, 0
    bound = _output_bound(graphs)
    where = ""
    for call, got in zip(golden.calls, outputs, strict=True):
        for name, want in call.outputs.items():
            y = got[name]
            off = gap(y, want)
            finite = np.abs(want.astype(np.float64))
            scale = float(finite[np.isfinite(finite)].max(initial=0.0))
            limit = bound * scale if want.dtype.kind == "f" else 0.0
            beyond += int(np.count_nonzero(off > limit))
            total += off.size
            share = float(off.max(initial=0.0)) / scale if scale else float(off.max(initial=0.0))
            if share > worst:
                worst, where = share, name
    tips = _tips(graphs)
    allowed = max(1, int(TIPPED_SHARE * total)) if tips else 0
    expected = f"within {bound:g} of the largest magnitude"
    expected += f"; {allowed} of {total} elements may tip" if tips else ""
    found = f"at most {worst:.2g} away" + (f" (output {where!r})" if where else "")
    found += f", {beyond} beyond" if beyond else ""
    return Gate("outputs equal the reference", expected, found, beyond <= allowed)


def run_calls(
    session: ModelSession, graphs: Sequence[Graph], golden: Golden
) -> list[dict[str, Array]]:
    """Outputs of every golden call in order, from the initial state, at their largest extent."""
    session.reset()
    results = []
    for call in golden.calls:
        g = graphs[call.entry]
        info = session.library.info.entries[call.entry]
        inputs = [to_native(call.feeds[n], g.types[n].dtype) for n in g.inputs]
        out = [np.zeros(t.shape, t.numpy) for t in info.outputs]
        session.run(call.entry, inputs, out)
        named = zip(info.outputs, out, strict=True)
        results.append({t.name: from_native(y, t.dtype) for t, y in named})
    return results


def _same(a: Sequence[Mapping[str, Array]], b: Sequence[Mapping[str, Array]]) -> str:
    """The first output that is not bit-identical, or ``""``."""
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        for name in x:
            if x[name].tobytes() != y[name].tobytes():
                return f"{name!r} of call {k}"
    return ""


def prove(
    graphs: Sequence[Graph],
    plan: PlanRecord,
    golden: Golden,
    shipped: ModelLibrary,
    hooked: ModelLibrary,
    weights: Array | None,
) -> Proof:
    """Run the golden calls and judge every step and every output.

    Args:
        graphs: Graph of each entry point, as compiled.
        plan: Record of the plan.
        golden: Calls with their reference results.
        shipped: The library of the bundle.
        hooked: The same code built with taps.
        weights: The weight blob.
    """
    one = run_calls(shipped.open(weights), graphs, golden)
    two = run_calls(shipped.open(weights, threads=2), graphs, golden)
    session = hooked.open(weights)
    found = _Layers()
    outputs = []
    for call in golden.calls:
        g, entry = graphs[call.entry], plan.entries[call.entry]
        before = session.state()
        inputs = [to_native(call.feeds[n], g.types[n].dtype) for n in g.inputs]
        _, taps = session.tap(call.entry, inputs)
        by_step = {(t.step, t.output): t.data for t in taps}
        with one_thread():
            _check_call(g, entry, call.entry, call, golden.cap, before, by_step, found)
    outputs = run_calls(session, graphs, golden)
    layers = tuple(found.rows[k] for k in sorted(found.rows))
    bad = [c for c in layers if not c.ok]
    top = max(layers, key=lambda c: c.share, default=None)
    nearest = f"; nearest is {top.share:.0%} of its bound" if top and not bad else ""
    apart = _same(one, two)
    other = _same(one, outputs)
    gates = (
        Gate(
            "every layer within its own bound",
            f"{len(layers)} layers",
            f"{len(layers) - len(bad)} of {len(layers)}{nearest}",
            not bad,
        ),
        output_gate(graphs, golden, one),
        Gate(
            SPLIT,
            "identical",
            f"differs: {apart}" if apart else f"identical, {shipped.split}",
            not apart,
        ),
        Gate(
            "shipped and tapped code agree",
            "identical",
            f"differs: {other}" if other else "identical",
            not other,
        ),
    )
    return Proof(gates, layers)


def receipt_gate(receipt: ReceiptRecord, memory: MemoryRecord, done: Proof) -> Gate:
    """Whether a receipt, which no hash covers, says what verifying finds again.

    Compared are memory, the steps with their outcomes, and the gates with theirs. The sizes of
    errors are not: they follow the order of sums in this machine's NumPy. A receipt that claims no
    proof (built for another machine) must hold no layer and no gate of one.

    Args:
        receipt: The record in the bundle.
        memory: What the artifact takes.
        done: The proof made now.
    """
    differs = next((c for c in _claims(receipt, memory, done) if c[1] != c[2]), None)
    name = "receipt agrees with the proof"
    if differs is None:
        return Gate(name, "no contradiction", "no contradiction", True)
    field, expected, found = differs
    return Gate(name, f"{field} = {expected!r}", f"{field} = {found!r}", False)


def _claims(
    receipt: ReceiptRecord, memory: MemoryRecord, done: Proof
) -> Iterator[tuple[str, object, object]]:
    """Each compared field of a receipt: its path, what it must be, what it is."""
    for field in MemoryRecord.model_fields:
        yield f"memory.{field}", memory[field], receipt.memory[field]
    layers = done.layers if receipt.ok else ()
    yield "number of layers", len(layers), len(receipt.layers)
    for i, (c, r) in enumerate(zip(layers, receipt.layers, strict=True)):
        for field in ("entry", "step", "op", "origin", "ok"):
            yield f"layers[{i}].{field}", getattr(c, field), r[field]
    budget = receipt.budget
    limits = {"drop": budget.drop, "size": budget.size_bytes, "ram": budget.ram_bytes}
    gates = [(g.name, g.ok) for g in done.gates] if receipt.ok else []
    gates += [(AUDITED, True), *((k, True) for k, most in limits.items() if most is not None)]
    yield "gates", [name for name, _ in gates], [g.name for g in receipt.gates]
    for i, ((_, ok), g) in enumerate(zip(gates, receipt.gates, strict=True)):
        yield f"gates[{i}].ok", ok, g.ok


__all__ = [
    "AUDITED",
    "Gate",
    "LayerCheck",
    "Proof",
    "gap",
    "layer_failure",
    "prove",
    "receipt_gate",
    "run_calls",
]
