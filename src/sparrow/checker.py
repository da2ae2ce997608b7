"""What would become of every node of a model on a target, without building anything."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparrow.compiler import Source
from sparrow.errors import UnsupportedOp
from sparrow.graph import Graph
from sparrow.importers.imported import Imported, Verdict
from sparrow.importers.model import supported, survey_model
from sparrow.importers.nearest import nearest
from sparrow.kernels import KERNELS
from sparrow.kernels.case import Case
from sparrow.passes import optimize
from sparrow.passes.own_outputs import with_own_outputs
from sparrow.selection import choose, tensors
from sparrow.targets import Target


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """What becomes of a source node.

    Attributes:
        entry: Entry point.
        name: Node name.
        op: Operator of the source format.
        verdict: ``ok``, ``decomposed`` into several ops, ``folded`` at build time, ``missing``, or
            ``unchecked`` because a missing node hides the type of its operands.
        parts: Ops it became.
        reason: Why it is missing or unchecked.
        hint: What to do instead.
    """

    entry: str
    name: str
    op: str
    verdict: str
    parts: tuple[str, ...] = ()
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """Every node of a model on a target; ``ok`` when none is missing or unchecked."""

    target: str
    nodes: tuple[NodeCheck, ...]
    frozen: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the model builds for the target."""
        return all(n.verdict not in ("missing", "unchecked") for n in self.nodes)

    @property
    def counts(self) -> dict[str, int]:
        """Nodes per verdict."""
        found: dict[str, int] = {}
        for n in self.nodes:
            found[n.verdict] = found.get(n.verdict, 0) + 1
        return found

    def __str__(self) -> str:
        lines = [f"frozen: {f}" for f in self.frozen]
        for n in self.nodes:
            if n.verdict in ("missing", "unchecked"):
                hint = f"; {n.hint}" if n.hint else ""
                lines.append(f"{n.verdict:10} {n.op:20} {n.name}: {n.reason}{hint}")
        counts = ", ".join(f"{k} {v}" for k, v in self.counts.items()) or "no nodes"
        return "\n".join([*lines, f"{self.target}: {counts}"])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td>{html.escape(c)}</td>" for c in (n.verdict, n.op, n.name, n.reason, n.hint)
            )
            + "</tr>"
            for n in self.nodes
        )
        head = "".join(f"<th>{h}</th>" for h in ("verdict", "op", "node", "reason", "hint"))
        return f"<table><tr>{head}</tr>{rows}</table>"


def without_kernel(g: Graph, target: Target) -> dict[str, str]:
    """Origin of each node that no kernel computes on the target -> why. Weights are not stored."""
    missing: dict[str, str] = {}
    for n in g.nodes:
        x, y = tensors(g, n)
        found = choose(Case(n.op, x, y, target), KERNELS)
        if isinstance(found, str):
            missing.setdefault(n.origin or n.outputs[0], found)
    return missing


def _row(
    entry: str, v: Verdict, kernels: dict[str, str], target: Target, known: Sequence[str]
) -> NodeCheck:
    if v.verdict in ("missing", "unchecked"):
        # the text of the error: where (op): what; hint
        text = re.sub(r"^\((?:onnx|tflite) [^)]*\): ", "", v.reason.removeprefix(f"{v.name} "))
        reason, _, hint = text.partition("; ")
        if v.verdict == "missing" and not hint:
            hint = nearest(v.op, known)
        return NodeCheck(entry, v.name, v.op, v.verdict, v.parts, reason, hint)
    why = kernels.pop(v.name, "")
    if why:
        reason = f"no kernel for {target.name}: {why}"
        return NodeCheck(entry, v.name, v.op, "missing", v.parts, reason, _kernel_hint(v, known))
    return NodeCheck(entry, v.name, v.op, v.verdict, v.parts)


def _kernel_hint(v: Verdict, known: Sequence[str]) -> str:
    return (
        nearest(v.op, known)
        if not v.parts
        else "pass kernels=[...] to sparrow.build with a row for it"
    )


def check_sources(sources: Mapping[str, Source], target: Target) -> Check:
    """Check every entry point.

    Args:
        sources: Entry point name -> model.
        target: Device.

    Raises:
        BadInput: A file or shape is wrong.
        BadModel: A model is malformed.
    """
    rows: list[NodeCheck] = []
    frozen: list[str] = []
    for entry, s in sources.items():
        found: Imported = survey_model(
            s.model, s.shapes, constants=s.constants, states=s.states, name=entry
        )
        frozen += found.frozen
        try:
            kernels = without_kernel(with_own_outputs(optimize(found.graph)), target)
        except UnsupportedOp as e:
            kernels = {}
            rows.append(NodeCheck(entry, entry, "", "missing", (), e.message, e.hint))
        known = supported(s.model)
        rows += [_row(entry, v, kernels, target, known) for v in found.verdicts]
        # a pass may have given a node an origin that is no source node
        rows += [
            NodeCheck(entry, name, "", "missing", (), f"no kernel for {target.name}: {why}")
            for name, why in kernels.items()
        ]
    return Check(target.name, tuple(rows), tuple(frozen))


__all__ = ["Check", "NodeCheck", "check_sources", "without_kernel"]
