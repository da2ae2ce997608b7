"""The workspace of the real models: the plan is touched to its last byte, and no byte more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data import data
from emitted import compiled, session
from sparrow.compiler import Source, compile_sources
from sparrow.device.host import aligned
from sparrow.graph import Graph
from sparrow.targets import target
from sparrow.tensor import Array

MODELS = (
    "face/models/version-slim-320.onnx",
    "models/onnx/FastestDet.onnx",
    "models/onnx/mnist_lstm.onnx",
    "models/onnx/stories260K_step_kv128.onnx",
    "models/onnx/super_resolution_224.onnx",
)
GUARD = 4096


def feeds(g: Graph) -> list[Array]:
    """Random floats, and indices that are valid everywhere."""
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal(t.shape).astype(np.float32)
        if t.dtype.kind == "float"
        else np.ones(t.shape, t.dtype.numpy)
        for t in (g.types[n] for n in g.inputs)
    ]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: Path(m).stem)
def test_high_water_mark_is_the_planned_size(model: str, tmp_path: Path) -> None:
    c = compile_sources({"main": Source(data(model))}, target("x86_64_v3"))
    run = session(c.plan, compiled(c.plan, tmp_path, parts=True))
    memory = aligned(c.plan.arena_bytes + 2 * GUARD)
    touched = np.zeros(memory.size, bool)
    for canary in (0x00, 0xA5, 0xFF):
        memory[:] = canary
        run._calls[0].call.workspace = memory.ctypes.data + GUARD
        run.run(0, feeds(c.module.entries[0]))
        touched |= memory != canary
    at = np.flatnonzero(touched)
    assert at[0] >= GUARD
    assert at[-1] == GUARD + c.plan.arena_bytes - 1
