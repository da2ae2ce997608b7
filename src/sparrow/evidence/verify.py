"""A bundle proved again, from its folder alone."""

from __future__ import annotations

from pathlib import Path

import onnx

from sparrow.device.library import code_bytes_of
from sparrow.device.runners import find_runner
from sparrow.evidence.claims import receipt_gate
from sparrow.evidence.gate import Gate
from sparrow.evidence.plan_record import PlanRecord
from sparrow.evidence.proof import Proof, prove
from sparrow.evidence.receipt import MemoryRecord, ReceiptRecord
from sparrow.evidence.record import load
from sparrow.evidence.twin import twin_gates
from sparrow.folder import (
    check_hashes,
    check_model,
    hooked_library,
    library_path,
    load_evidence,
    machine_of,
    weights_of,
)
from sparrow.rendering.page import page_gates


def verify_bundle(folder: Path, device: str = "auto") -> Proof:
    """Prove a bundle from its folder alone; code of altered bundles is not run.

    Args:
        folder: The bundle.
        device: Where to run it, as for `find_runner`.

    Raises:
        BadBundle: It is no bundle.
        BadInput: Nothing here runs code for its target.
        DeviceError: The device cannot be used, or was lost.
    """
    receipt = load(ReceiptRecord, folder / "receipt.json")
    altered = check_hashes(folder, receipt.files)
    hashes = Gate(
        "files are those of the receipt",
        f"{len(receipt.files)} hashes",
        altered or f"{len(receipt.files)} of {len(receipt.files)}",
        not altered,
    )
    if altered:
        return Proof((hashes,), ())
    plan = load(PlanRecord, folder / "plan.json")
    graphs, golden = load_evidence(folder, plan)
    runner = find_runner(machine_of(plan), device)
    hooked = hooked_library(folder, plan, runner)
    path = library_path(folder)
    library = runner.load(path)
    check_model(library, plan)
    weights = weights_of(folder)
    done = prove(graphs, plan, golden, library, hooked, weights)
    builds = page_gates(folder, graphs, golden, runner)
    twins = [onnx.load(folder / Path(e.model).name) for e in plan.entries]
    done = Proof((*done.gates, *builds, *twin_gates(twins, graphs, golden)), done.layers)
    memory = MemoryRecord(
        code_bytes=code_bytes_of(path, machine_of(plan)),
        weights_bytes=(folder / "weights.bin").stat().st_size,
        arena_bytes=library.info.workspace_bytes,
        state_bytes=library.info.state_bytes,
        stack_bytes=receipt.memory.stack_bytes,
    )
    agrees = receipt_gate(receipt, memory, done)
    return Proof((hashes, *done.gates, agrees), done.layers)
