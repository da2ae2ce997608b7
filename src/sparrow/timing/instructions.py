"""Instructions of every step of a bundle, counted in the emulator: exact, the same every time."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparrow.bundle import Bundle
from sparrow.device.qemu import count_marks
from sparrow.device.remote import RemoteLibrary
from sparrow.errors import BadInput
from sparrow.folder import hooked_library, load_evidence, weights_of
from sparrow.timing.profiling import call_inputs, record


@dataclass(frozen=True, slots=True)
class StepInstructions:
    """What one step executes.

    Attributes:
        step: Index in the entry point.
        op: Operator.
        origin: Source node.
        kernel: Kernel row.
        instructions: Executed; exact but for the few that call the mark.
        share: Of the sum over all steps.
        flops_per_instruction: Operations of the step per instruction.
    """

    step: int
    op: str
    origin: str
    kernel: str
    instructions: int
    share: float
    flops_per_instruction: float


@dataclass(frozen=True, slots=True)
class Instructions:
    """Executed instructions of one inference of an entry point, from code with hooks.

    Attributes:
        entry: Entry point.
        cpu: What was compiled for.
        total: Sum over the steps.
        steps: In order.
    """

    entry: str
    cpu: str
    total: int
    steps: tuple[StepInstructions, ...]

    def __str__(self) -> str:
        head = (
            f"{'step':>4} {'op':14} {'kernel':24} {'instructions':>14} {'share':>7} "
            f"{'FLOP/ins':>8}  node"
        )
        lines = [
            f"{s.step:4d} {s.op:14.14} {s.kernel:24.24} {s.instructions:14,d} {s.share:7.1%} "
            f"{s.flops_per_instruction:8.2f}  {s.origin:.60}"
            for s in self.steps
        ]
        total = f"{self.entry}: {self.total:,} instructions in {len(self.steps)} steps, {self.cpu}"
        return "\n".join([head, *lines, total])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{s.step}</td><td>{html.escape(s.op)}</td><td>{html.escape(s.origin[:80])}</td>"
            f"<td>{html.escape(s.kernel)}</td><td>{s.instructions:,}</td><td>{s.share:.1%}</td>"
            f"<td>{s.flops_per_instruction:.2f}</td></tr>"
            for s in self.steps
        )
        names = ("step", "op", "node", "kernel", "instructions", "share", "FLOP/instruction")
        head = "".join(f"<th>{h}</th>" for h in names)
        return f"<table><tr>{head}</tr>{rows}</table>"

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json`` and ``measurements.json``."""
        return asdict(self)


def count_bundle(bundle: Bundle, entry: int) -> Instructions:
    """Count an entry point of a bundle on its first golden inputs and record it there.

    Args:
        bundle: Opened with the device ``qemu``.
        entry: Index of the entry point.

    Raises:
        BadInput: The bundle runs elsewhere, or the emulator cannot count.
    """
    library = hooked_library(bundle.folder, bundle.plan, bundle.runner)
    if not isinstance(library, RemoteLibrary):
        raise BadInput("instructions are counted in an emulator", hint="give --device qemu")
    graphs, golden = load_evidence(bundle.folder, bundle.plan)
    inputs = call_inputs(graphs, golden, entry)
    counts = per_step(count_marks(library, weights_of(bundle.folder), entry, inputs))
    plan = bundle.plan.entries[entry]
    assert len(counts) == len(plan.steps), (len(counts), len(plan.steps))
    total = sum(counts)
    steps = tuple(
        StepInstructions(
            *(s.index, s.op, s.origin, s.kernel, n, n / total if total else 0.0),
            s.flops / n if n else 0.0,
        )
        for s, n in zip(plan.steps, counts, strict=True)
    )
    found = Instructions(plan.name, bundle.plan.target.cpu, total, steps)
    record(bundle.folder, "instructions", found.as_json())
    return found


def per_step(marks: Sequence[tuple[int, int, int]]) -> list[int]:
    """Instructions of each step, from (step, begin, count) in the order they happened."""
    found: dict[int, int] = {}
    for step, begin, count in marks:
        found[step] = found.get(step, 0) + (-count if begin else count)
    return [found[step] for step in sorted(found)]
