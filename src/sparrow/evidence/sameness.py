"""One bundle on every target that runs here: the same integers in every layer, or not.

The graphs of a bundle are planned, compiled and run anew for each target, each entry point on its
first golden call from the initial states. Every value of integers is compared with the NumPy
reference bit for bit; floats are not, their last bits may differ. Integers behind floats are judged
as `sparrow verify` does, by the reference on what the target itself computed before them. Where
they are what it makes of these, the hash takes what it makes of its own floats, so that the same
layers have the same hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparrow.device.cache import cache_folder
from sparrow.device.library import code_bytes_of, compile_library
from sparrow.device.qemu import count_marks, emulated_cpu, emulated_library
from sparrow.device.remote import RemoteLibrary
from sparrow.device.runners import Runner, find_runner
from sparrow.device.session import ModelLibrary, Tap, from_native, to_native
from sparrow.emit.c import emit
from sparrow.errors import BadInput, SparrowError
from sparrow.evidence.describe import describe
from sparrow.evidence.layers import judge_step, tapped
from sparrow.evidence.plan_record import EntryRecord, PlanRecord
from sparrow.evidence.record import load
from sparrow.folder import load_evidence
from sparrow.graph import Graph, Module
from sparrow.planner import plan
from sparrow.reference import evaluate, one_thread
from sparrow.samples import Feeds
from sparrow.targets import Machine, Target, devices
from sparrow.tensor import Array
from sparrow.timing.instructions import per_step

# Kinds of rows that differ in code; boards and phones repeat the CPUs.
_KINDS = ("cpu", "microcontroller", "browser")


@dataclass(frozen=True, slots=True)
class Sameness:
    """A bundle's first golden call of each entry point on one target.

    Attributes:
        target: The row.
        device: Where it ran; empty where it did not.
        vector_bits: Of the emulated processor, where a library has code for several lengths.
        equal: Values of integers that are those of the reference; see ``behind``.
        layers: Values of integers.
        behind: Those that follow from computed floats, judged on the target's own inputs.
        digest: SHA-256 over all of them, in the order of the graphs; of those behind floats that
            are exactly the reference's over the target's floats, as over the reference's own.
        instructions: Of these calls, in an emulator; 0 where none counts them.
        code_bytes: Code and constants.
        arena_bytes: Workspace.
        reason: Why it did not run, or the first value that differs; one behind floats that does so
            within its bound counts as equal, and spoils the hash.
    """

    target: str
    device: str
    vector_bits: int = 0
    equal: int = 0
    layers: int = 0
    behind: int = 0
    digest: str = ""
    instructions: int = 0
    code_bytes: int = 0
    arena_bytes: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ran and every integer is the reference's."""
        return bool(self.device) and self.equal == self.layers

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {"ok": self.ok, **asdict(self)}


def table(rows: Sequence[Sameness]) -> str:
    """All rows as text."""
    lines = [
        f"{'target':20} {'device':7} {'layers equal':>13}  {'hash of all layers':18} "
        f"{'instructions':>14} {'code':>9} {'arena':>10}"
    ]
    for r in rows:
        if not r.device:
            lines.append(f"{r.target:20} not run: {r.reason}")
            continue
        equal = f"{r.equal} of {r.layers}"
        count = f"{r.instructions:,}" if r.instructions else "-"
        name = f"{r.target} {r.vector_bits}" if r.vector_bits else r.target
        lines.append(
            f"{name:20} {r.device:7} {equal:>13}  {r.digest[:16]:18} {count:>14} "
            f"{r.code_bytes:9,} {r.arena_bytes:10,}{f'  {r.reason}' if r.reason else ''}"
        )
    behind = max((r.behind for r in rows), default=0)
    if behind:
        lines.append(
            f"{behind} layers follow from floats: judged on the target's own, "
            "hashed as on the reference's"
        )
    return "\n".join(lines)


def runnable(names: str) -> list[Target]:
    """The rows of ``all`` or of a list with commas; those that are built alike once.

    Raises:
        BadInput: A name is no row, or Sparrow does not compile for it.
    """
    from sparrow.targets import target

    if names != "all":
        return [target(n.strip()) for n in names.split(",") if n.strip()]
    found: dict[object, Target] = {}
    for kind in _KINDS:
        for row in devices(kind).values():
            if row.target is not None:
                found.setdefault(row.target.machine, row.target)
    return list(found.values())


def compare_targets(
    folder: Path, names: str, progress: Callable[[str], None] = lambda _: None
) -> list[Sameness]:
    """Run a bundle on several targets.

    Args:
        folder: The bundle.
        names: ``all``, or names of target rows with commas between them.
        progress: Told which target is next.

    Raises:
        BadBundle: It is no bundle.
        BadInput: A name is no target, or none of the bundle's values are integers.
    """
    graphs, golden = load_evidence(folder, load(PlanRecord, folder / "plan.json"))
    calls: dict[int, Feeds] = {}
    for c in golden.calls:
        calls.setdefault(c.entry, c.feeds)
    wanted = [_Wanted.of(e, graphs[e], feeds) for e, feeds in sorted(calls.items())]
    layers = sum(len(w.integers) for w in wanted)
    if not layers:
        raise BadInput(
            f"{folder}: no value of the network is an integer",
            hint="floats are judged by `sparrow verify` on each target; build with int8",
        )
    behind = layers - sum(len(w.free.intersection(w.integers)) for w in wanted)
    digest = _digest([w.values for w in wanted], wanted)
    rows = [Sameness("reference", "numpy", 0, layers, layers, behind, digest)]
    module = Module(graphs[0].name, tuple(graphs))
    for t in runnable(names):
        progress(t.name)
        try:
            for bits, runner in _runners(t.machine):
                rows.append(_run(module, t, runner, bits, wanted))
        except SparrowError as e:
            rows.append(Sameness(t.name, "", reason=_of_no_file(e.message)))
    return rows


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one call must compute.

    Attributes:
        entry: Index of the entry point.
        feeds: The call's inputs.
        values: Every value of its graph by the reference.
        integers: Which are integers, in order.
        free: Which follow from no computed float.
    """

    entry: int
    feeds: Feeds
    values: Mapping[str, Array]
    integers: Sequence[str]
    free: frozenset[str]

    @staticmethod
    def of(entry: int, g: Graph, feeds: Feeds) -> _Wanted:
        """A call of a graph, evaluated from the initial states."""
        values: dict[str, Array] = {}
        with one_thread():
            evaluate(
                g, feeds, observe=lambda n, out: values.update(zip(n.outputs, out, strict=True))
            )
        found = [y for n in g.nodes for y in n.outputs if y and g.types[y].dtype.kind in _INTEGERS]
        return _Wanted(entry, feeds, values, found, independent(g))


def _runners(machine: Machine) -> Iterator[tuple[int, Runner]]:
    """Where code runs; in an emulator once with every length of vectors that it is made for."""
    runner = find_runner(machine)
    if runner.name != "qemu" or not machine.lengths:
        yield 0, runner
        return
    for bits in machine.lengths:
        yield bits, find_runner(machine, f"qemu:{emulated_cpu(machine, bits)}")


def _counting(library: ModelLibrary, path: Path, machine: Machine) -> RemoteLibrary | None:
    """A library where instructions are counted, if anything here does that."""
    if isinstance(library, RemoteLibrary):
        return None if library.timed else library
    try:
        return emulated_library(path, machine)
    except BadInput:
        return None


def _of_no_file(message: str) -> str:
    """Why a library did not run; where it lies in the cache says nothing."""
    return re.sub(re.escape(str(cache_folder())) + r"[^\s:]*", "the library", message)


_INTEGERS = ("int", "uint", "bool")


def independent(g: Graph) -> frozenset[str]:
    """Values that follow from no computed float."""
    found = {*g.consts, *g.inputs, *(s.input for s in g.states)}
    for n in g.nodes:
        outputs = [y for y in n.outputs if y]
        whole = all(g.types[y].dtype.kind in _INTEGERS for y in outputs)
        if whole and found.issuperset(x for x in n.inputs if x):
            found.update(outputs)
    return frozenset(found)


def _digest(found: Sequence[Mapping[str, Array]], wanted: Sequence[_Wanted]) -> str:
    digest = hashlib.sha256()
    for values, w in zip(found, wanted, strict=True):
        for name in w.integers:
            digest.update(np.ascontiguousarray(values[name]).tobytes())
    return digest.hexdigest()


def _run(
    module: Module, t: Target, runner: Runner, bits: int, wanted: Sequence[_Wanted]
) -> Sameness:
    """What a target says of the calls."""
    p = plan(module, t)
    artifact, machine = emit(p), t.machine
    files, parts = artifact.files, artifact.parts
    shipped = compile_library(files, machine, parts)
    weights = np.frombuffer(p.weights, np.uint8)
    path = compile_library(files, machine, parts, hooks=True)
    hooked = runner.load(path)
    session = hooked.open(weights)
    counter = _counting(hooked, path, machine)
    models = [f"{g.name}.onnx" for g in module]
    records = describe(p, parts=parts, threads=1, models=models).entries
    found: list[Mapping[str, Array]] = []
    differing: list[str] = []
    within: list[str] = []
    instructions = 0
    for w in wanted:
        g = module.entries[w.entry]
        inputs = [to_native(w.feeds[n], g.types[n].dtype) for n in g.inputs]
        session.reset()
        _, taps = session.tap(w.entry, inputs)
        seen = _compare(g, records[w.entry], taps, w)
        found.append(seen.values)
        differing.extend(seen.differing)
        within.extend(seen.within)
        if counter is not None:
            instructions += sum(per_step(count_marks(counter, weights, w.entry, inputs)))
    layers = sum(len(w.integers) for w in wanted)
    free = sum(len(w.free.intersection(w.integers)) for w in wanted)
    reasons = [f"{x!r} differs" for x in differing]
    reasons += [f"{x!r} differs within its bound" for x in within]
    return Sameness(
        *(t.name, runner.name, bits),
        *(layers - len(differing), layers, layers - free),
        *(_digest(found, wanted), instructions),
        code_bytes_of(shipped, machine),
        p.arena_bytes,
        reasons[0] if reasons else "",
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A call on a target.

    Attributes:
        values: Every integer as it is hashed.
        differing: Integers that are not the reference's.
        within: Those behind floats that are not exactly the reference's, and within their bounds.
    """

    values: Mapping[str, Array]
    differing: Sequence[str]
    within: Sequence[str]


def _compare(g: Graph, record: EntryRecord, taps: Sequence[Tap], w: _Wanted) -> _Seen:
    """All integers of a call as a target computed them, beside those of the reference."""
    data = {(tap.step, tap.output): tap.data for tap in taps}
    steps = {s.outputs[0].name: s for s in record.steps}
    asked = set(w.integers)
    hashed: dict[str, Array] = {}
    differing: list[str] = []
    within: list[str] = []
    env: dict[str, Array] = {**g.consts, **w.feeds}
    for s in g.states:
        env[s.input] = from_native(s.initial, g.types[s.input].dtype)
    for n in g.nodes:
        step = steps.get(n.outputs[0])
        ours = [y for y in n.outputs if y in asked]
        behind = not w.free.issuperset(ours)
        want: Mapping[str, Array] = w.values
        if step is None or behind:
            with one_thread(), np.errstate(all="ignore"):
                made = n.op.eval(*(env[x] if x else None for x in n.inputs))
            want = dict(zip(n.outputs, made, strict=True)) if behind else want
        if step is None:  # a view of what was written
            native = made
        else:
            native = tuple(tapped(data[step.index, k], v) for k, v in enumerate(step.outputs))
        got = dict(zip(n.outputs, native, strict=True))
        off = [y for y in ours if not np.array_equal(got[y], want[y])]
        hashed |= {y: got[y] if y in off else w.values[y] for y in ours}
        bounded = step is not None and behind and judge_step(n, step.kernel, g, env, native)[4]
        (within if bounded else differing).extend(off)
        env |= got
    return _Seen(hashed, differing, within)


__all__ = ["Sameness", "compare_targets", "runnable", "table"]
