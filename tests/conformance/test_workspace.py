"""The workspace: touched to its last byte and no byte more, each step in its own part only."""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import random_native
from any_graphs import any_graphs
from any_graphs import feeds as any_feeds
from data import data
from emitted import compiled, planned, session
from sparrow.compiler import Source, compile_sources
from sparrow.device.host import Session, aligned
from sparrow.device.session import to_native
from sparrow.graph import Graph
from sparrow.plan import Plan, Step
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


def owned(plan: Plan, s: Step) -> Array:
    """Which bytes of the arena a step may write: the elements of its outputs, and its scratch."""
    mask = np.zeros(plan.arena_bytes, bool)
    if s.scratch is not None:
        mask[s.scratch.offset : s.scratch.offset + s.lowered.scratch_bytes] = True
    for v in s.outputs:
        if v.place.kind != "arena" or not v.type.size:
            continue
        at = np.asarray(v.place.offset + v.offset)
        for d, stride in zip(v.type.shape, v.strides, strict=True):
            at = at[..., None] + np.arange(d) * stride * v.type.dtype.bytes
        mask[(at[..., None] + np.arange(v.type.dtype.bytes)).reshape(-1)] = True
    return mask


def trespassers(p: Plan, run: Session, entry: int, inputs: list[Array]) -> list[str]:
    """Steps that change a byte of the arena that is not theirs, canaries all around."""
    steps = p.entries[entry].steps
    masks = [owned(p, s) for s in steps]
    found: list[str] = []
    seen: list[int] = []
    for canary in (0x00, 0xA5, 0xFF):
        run._workspace[:] = canary
        before = run._workspace.copy()

        def hook(_ctx: object, step: int, output: int, _data: int, _size: int) -> None:
            nonlocal before
            if output + 1 == len(steps[step].outputs):
                changed = before != run._workspace
                changed[: p.arena_bytes] &= ~masks[step]
                seen.append(step)
                if changed.any():
                    found.append(steps[step].node.origin or steps[step].kernel)
                before = run._workspace.copy()

        native = ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64
        )(hook)
        call = run._calls[entry].call
        call.tap = ctypes.cast(native, ctypes.c_void_p).value
        run.run(entry, inputs)
        call.tap = None
    # what is raised in a callback is lost
    assert seen == 3 * list(range(len(steps)))
    return found


@pytest.mark.parametrize("model", MODELS, ids=lambda m: Path(m).stem)
def test_no_step_writes_what_is_not_its_own(model: str, tmp_path: Path) -> None:
    c = compile_sources({"main": Source(data(model))}, target("x86_64_v3"))
    library = compiled(c.plan, tmp_path, parts=True, flags=("-DSPARROW_HOOKS",))
    run = session(c.plan, library)
    assert not trespassers(c.plan, run, 0, feeds(c.module.entries[0]))


@given(st.lists(any_graphs(), min_size=12, max_size=12))
@seed(1)
@settings(max_examples=2, suppress_health_check=list(HealthCheck))
def test_no_step_of_random_graphs_writes_what_is_not_its_own(graphs: list[Graph]) -> None:
    ready = [g for g in graphs if random_native.planned(g, "avx2") is not None]
    entries = [replace(g, name=f"g{i}") for i, g in enumerate(ready)]
    p = planned(*entries, isa="avx2")
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(p, Path(folder), flags=("-O1", "-DSPARROW_HOOKS"))
        run = session(p, library)
        for i, g in enumerate(entries):
            values = any_feeds(g)
            inputs = [to_native(values[n], g.types[n].dtype) for n in g.inputs]
            assert not trespassers(p, run, i, inputs), random_native.save(g, "trespasses")
