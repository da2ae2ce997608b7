"""The proof: does the native library compute what the reference defines, layer by layer."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparrow.device.session import ModelLibrary, to_native
from sparrow.evidence.gate import SPLIT, Gate
from sparrow.evidence.golden import Golden
from sparrow.evidence.layers import LayerCheck, Layers, judge_call, layer_failure
from sparrow.evidence.outputs import output_gate, run_calls
from sparrow.evidence.plan_record import PlanRecord
from sparrow.graph import Graph
from sparrow.reference import one_thread
from sparrow.tensor import Array


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
    found = Layers()
    for call in golden.calls:
        g, entry = graphs[call.entry], plan.entries[call.entry]
        before = session.state()
        inputs = [to_native(call.feeds[n], g.types[n].dtype) for n in g.inputs]
        _, taps = session.tap(call.entry, inputs)
        by_step = {(t.step, t.output): t.data for t in taps}
        with one_thread():
            judge_call(g, entry, call.entry, call, golden.cap, before, by_step, found)
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
