"""Regions of many steps: where columns of tasks wait, and that tasks touch what their rows say."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sparrow.kernels.element
import sparrow.kernels.loop
import sparrow.kernels.tasks
from any_graphs import feeds
from code_chains import chain
from emitted import TARGETS, blob, compiled
from native_harness import pool_library
from small_graphs import network
from sparrow import lane
from sparrow.builder import Builder
from sparrow.device.build import NATIVE
from sparrow.device.host import Session
from sparrow.graph import Graph, Module
from sparrow.memory.partition import share
from sparrow.memory.stages import stages, uses_of
from sparrow.ops.conv import Conv
from sparrow.ops.lookup import Lookup
from sparrow.ops.matmul import MatMul
from sparrow.plan import Entry, Plan
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import F32, I8, Array, TensorType

PROBE = Path(__file__).resolve().parent.parent / "native" / "region_probe.c"
_TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
_SPLIT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_STEP = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)


def probe() -> ctypes.CDLL:
    return pool_library(PROBE.name)


@pytest.mark.parametrize("columns", [2, 3, 5])
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_stages_wait_for_one_another(threads: int, columns: int) -> None:
    pool = ctypes.c_void_p(probe().sparrow_pool_create(threads))
    assert probe().probe_regions(pool, 0, columns, 2000, 11, 0) == 0
    # longer than a participant waits, so that it leaves and comes back
    assert probe().probe_regions(pool, 0, columns, 3, 5, 1_500_000) == 0
    probe().sparrow_pool_destroy(pool)


@pytest.mark.parametrize("columns", [1, 2, 5])
@pytest.mark.parametrize("backwards", [0, 1])
def test_one_thread_runs_all_columns(backwards: int, columns: int) -> None:
    assert probe().probe_regions(None, backwards, columns, 500, 3, 0) == 0


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc has the sanitizer")
def test_no_data_race(tmp_path: Path) -> None:
    program = tmp_path / "probe"
    sources = [str(PROBE), str(NATIVE / "runtime" / "pool.c")]
    flags = ["-fsanitize=thread", "-O1", "-std=gnu99", "-DPROBE_MAIN", f"-I{NATIVE}", "-pthread"]
    made = subprocess.run(
        ["gcc", *flags, *sources, "-o", str(program)], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no thread sanitizer: {made.stderr[-200:]}")
    done = subprocess.run([str(program)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.usefixtures("split_all")
def test_a_step_that_is_not_split_is_of_one_column() -> None:
    """All of a layer that one thread computes, beside tables that both do."""
    p = shared("avx2", 2, layers())
    first, *rest = p.entries[0].steps
    alone = next(s for s in rest if s.kernel == "depthwise_f32" and s.lowered.spans)
    whole = replace(alone, whole=True)
    assert stages([first, whole], 2)
    assert share(3, 1) == [range(3)] and share(3, 2, 1) == [range(0), range(3)]
    # nothing of column 1 is left that could wait
    assert stages([whole, whole], 2) == ()
    assert stages([first, whole, whole], 2)[-1] <= 1


def test_shares_are_those_of_the_pool() -> None:
    for tasks in range(9):
        for columns in range(1, 6):
            parts = share(tasks, columns)
            assert len(parts) == columns
            assert [t for p in parts for t in p] == list(range(tasks))
            assert not tasks or len(parts[0]) == max(map(len, parts))


@pytest.fixture
def split_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers are shared among threads, too."""
    monkeypatch.setattr(sparrow.kernels.tasks, "LEAST_FLOPS", 2)
    monkeypatch.setattr(sparrow.kernels.loop, "TASK_ELEMENTS", 1)
    monkeypatch.setattr(sparrow.kernels.element, "TASK_ELEMENTS", 1)


def shared(isa: str, threads: int, *graphs: Graph) -> Plan:
    """Plans that split whatever can be split."""
    near = replace(target(TARGETS[isa]), fork_ns=0.0, move_ns_per_byte=0.0)
    named = tuple(replace(g, name=f"g{i}") for i, g in enumerate(graphs))
    return plan(Module("m", named), near, threads=threads)


def layers() -> Graph:
    """Float32: depthwise and pointwise layers, a residual, functions, rows of products."""
    b, rng = Builder("layers"), np.random.default_rng(1)
    relu = lane.call("relu", lane.Arg(0, F32))

    def conv(x: str, m: int, k: int, stride: int = 1, group: int = 1) -> str:
        c = b.shape(x)[-1]
        w = rng.standard_normal((m, c // group, k, k)).astype(np.float32) / (c * k)
        op = Conv((stride, stride), (1, 1), ((k // 2, k // 2),) * 2, group, True, relu)
        return b.add(op, x, b.const(w))

    x = b.input("x", TensorType((1, 13, 11, 24), F32))
    y = conv(conv(conv(x, 40, 1), 40, 5, 1, 40), 24, 1)
    y = b.call("add", y, x)
    y = conv(conv(b.call("sigmoid", y), 24, 3, 2, 24), 33, 3)
    flat = b.reshape(y, (7, 6 * 33))
    w = rng.standard_normal((6 * 33, 50)).astype(np.float32)
    return b.finish({"y": b.add(MatMul(), flat, b.const(w)), "z": y}, {})


def tables() -> Graph:
    """Codes through a table, between two layers."""
    b, rng = Builder("tables"), np.random.default_rng(2)
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, None, 3)
    x = b.input("x", TensorType((1, 8, 8, 32), I8))
    table = b.const(rng.integers(-128, 127, 256).astype(np.int8))
    y = b.add(Lookup(), x, table)
    w = b.const(rng.integers(-99, 99, (16, 32, 1, 1)).astype(np.int8))
    return b.finish({"y": b.add(op, y, w), "t": y}, {})


def graphs() -> tuple[Graph, ...]:
    return (*map(chain, range(7, 12)), network(), layers(), tables())


def callbacks(session: Session, entry: int, split: object, profile: object | None = None) -> None:
    """Let a session split work by ``split``, and call ``profile`` around steps."""
    call = session._calls[entry].call
    call.parallel_for = ctypes.cast(split, ctypes.c_void_p).value  # type: ignore[arg-type]
    if profile is not None:
        call.profile = ctypes.cast(profile, ctypes.c_void_p).value  # type: ignore[arg-type]


class Alone:
    """A call whose tasks run one by one, twice each: what they may not touch changed between."""

    def __init__(self, session: Session, entry: Entry, index: int, outputs: list[Array]) -> None:
        self.entry, self.step = entry, 0
        self.blocks = {("arena", 0): session._workspace}
        self.blocks |= {("output", i): y.reshape(-1).view(np.uint8) for i, y in enumerate(outputs)}
        self.faults: list[str] = []
        self.split = 0
        self._kept = _SPLIT(self.parallel_for), _STEP(self.profile)
        callbacks(session, index, *self._kept)

    def profile(self, _ctx: object, step: int, begin: int) -> None:
        self.step = step

    def parallel_for(self, _ctx: object, fn: int, arg: int, n: int) -> None:
        self.split += bool(self.entry.steps[self.step].lowered.spans)
        for task in range(n):
            self.run(functools.partial(_TASK(fn), arg, task), task)

    def run(self, task: Callable[[], object], number: int) -> None:
        where = f"step {self.step} task {number}"
        before = {k: b.copy() for k, b in self.blocks.items()}
        mine, touched = ({k: np.zeros(b.size, bool) for k, b in before.items()} for _ in range(2))
        for u in uses_of(self.entry.steps[self.step], range(number, number + 1)):
            if u.memory in before:
                touched[u.memory][u.low : u.high] = True
                mine[u.memory][u.low : u.high] |= u.written
        task()
        after = {k: b.copy() for k, b in self.blocks.items()}
        for k, b in self.blocks.items():
            if (b[~mine[k]] != before[k][~mine[k]]).any():
                self.faults.append(f"{where} writes elsewhere")
            b[:] = np.where(touched[k], before[k], before[k] ^ 0x55)
        task()
        for k, b in self.blocks.items():
            if (b[mine[k]] != after[k][mine[k]]).any():
                self.faults.append(f"{where} reads elsewhere")
            b[:] = after[k]


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512vnni", "amx"])
@pytest.mark.usefixtures("split_all")
def test_tasks_stay_within_their_spans(isa: str, tmp_path: Path) -> None:
    """Alone, a task changes nothing outside of what it may write, and the same bytes whatever lies
    outside of what it may touch.
    """
    p = shared(isa, 2, *graphs())
    library = compiled(p, tmp_path, parts=True, flags=("-O1", "-DSPARROW_HOOKS"))
    split = 0
    for i, entry in enumerate(p.entries):
        session = Session(library, blob(p))
        session._workspace[:] = np.random.default_rng(i).integers(0, 256, session._workspace.size)
        outputs = [np.zeros(t.shape, t.numpy) for t in library.info.entries[i].outputs]
        alone = Alone(session, entry, i, outputs)
        session.run(i, list(feeds(p.module.entries[i]).values()), outputs)
        assert not alone.faults, (i, alone.faults)
        split += alone.split
    assert split > 20


def in_turn(first: int, ran: list[int]) -> Callable[[object, int, int, int], None]:
    """Indices one after the other from ``first`` on."""

    def parallel_for(_ctx: object, fn: int, arg: int, n: int) -> None:
        ran.append(n)
        for i in range(n):
            _TASK(fn)(arg, (first + i) % n)

    return parallel_for


@pytest.mark.parametrize(("isa", "threads"), [("scalar", 2), ("scalar", 3), ("amx", 2)])
@pytest.mark.usefixtures("split_all")
def test_no_column_needs_what_another_does_in_its_stage(
    isa: str, threads: int, tmp_path: Path
) -> None:
    """Each column as far ahead of the others as it gets, and as far behind."""
    p = shared(isa, threads, *graphs())
    library = compiled(p, tmp_path, parts=True, flags=("-O1",))
    for i, g in enumerate(p.module.entries):
        given = list(feeds(g).values())
        want = [y.tobytes() for y in Session(library, blob(p)).run(i, given)]
        for first in range(threads):
            session, ran = Session(library, blob(p)), list[int]()
            split = _SPLIT(in_turn(first, ran))
            callbacks(session, i, split)
            assert [y.tobytes() for y in session.run(i, given)] == want, (i, first)
            assert ran == [threads] * bool(stages(p.entries[i].steps, threads))


def test_no_kernel_has_a_name_of_the_region() -> None:
    """All may be in one file."""
    text = (NATIVE / "region.h").read_text(encoding="utf-8")
    mine = set(re.findall(r"\bsp_\w+", text)) - {"sp_frame"}
    for path in [*(NATIVE / "kernels").glob("*.h"), *(NATIVE / "isa").glob("*.h")]:
        words = set(re.findall(r"\b\w+\b", path.read_text(encoding="utf-8")))
        assert not words & mine, (path.name, words & mine)


@pytest.mark.usefixtures("split_all")
def test_layers_of_own_rows_are_one_stage() -> None:
    """Pointwise layers, functions and tables of the same rows wait for nobody; a halo does."""
    (entry,) = shared("avx2", 2, layers()).entries
    kinds, starts = [s.kernel for s in entry.steps], stages(entry.steps, 2)
    assert starts[0] == 0 and kinds.index("depthwise_f32") in starts
    assert len(starts) < len(entry.steps)
    assert stages(entry.steps, 1) == ()
    (entry,) = shared("avx512vnni", 2, tables()).entries
    assert len(entry.steps) > 1 and stages(entry.steps, 2) == (0,)
