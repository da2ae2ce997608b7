"""What a receipt claims against what proving it again finds."""

from __future__ import annotations

from collections.abc import Iterator

from sparrow.evidence.gate import AUDITED, Gate
from sparrow.evidence.proof import Proof
from sparrow.evidence.receipt import MemoryRecord, ReceiptRecord


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
