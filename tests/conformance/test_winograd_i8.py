"""Winograd over codes is the direct sum, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cases_i8.case import Case
from cases_i8.compare import FOREIGN, compare
from cases_i8.convolutions import (
    extreme_case,
    winograd_case,
)
from emitted import BYTES_TARGETS
from native_harness import EMULATED, emulator, engine
from sparrow.graph import Module
from sparrow.kernels import (
    KERNELS,
    winograd_i8,
)
from sparrow.ops.conv import Conv
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import I8, TensorType

# the same rows for vectors of other lengths, which have faster ones
WINOGRAD = {row.name: (replace(row, isas=()),) for row in winograd_i8.ROWS}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize(
    ("isa", "threads"),
    [
        *(("wasm", 1), ("wasm_simd", 1), ("wasm_usdot", 1)),
        *(("scalar", 1), ("avx2", 1), ("avx2", 3), ("neon", 1)),
    ],
)
def test_winograd_gives_the_integers_of_the_direct_sum(
    isa: str, threads: int, name: str, tmp_path: Path
) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    cases = [winograd_case(seed) for seed in range(8)]
    assert compare(cases, isa, WINOGRAD[name], tmp_path, threads) == {name}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize(("isa", "threads"), [("scalar", 1), ("avx2", 1), ("avx2", 3), ("neon", 1)])
def test_winograd_of_channels_that_fill_no_vectors(
    isa: str, threads: int, name: str, tmp_path: Path
) -> None:
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    cases = [winograd_case(300 + seed, whole=False) for seed in range(16)]
    assert compare(cases, isa, WINOGRAD[name], tmp_path, threads) == {name}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("budget", [1 << 11, 1 << 18])
def test_winograd_in_blocks_and_groups_of_panels(
    budget: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine("wasm_simd")
    monkeypatch.setattr(winograd_i8, "NEAR", budget)
    cases = [winograd_case(100 + seed) for seed in range(8)]
    assert compare(cases, "wasm_simd", WINOGRAD[name], tmp_path) == {name}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize(
    ("l2_bytes", "threads"), [(1 << 14, 1), (1 << 16, 1), (1 << 16, 3), (1 << 18, 2), (1 << 24, 1)]
)
def test_winograd_in_what_any_cache_holds(
    l2_bytes: int, threads: int, name: str, tmp_path: Path
) -> None:
    """Weights are transformed at once, panel by panel, and in parts of the channels."""
    cases = [winograd_case(200 + seed) for seed in range(8)]
    device = replace(target("x86_64_v3"), l2_bytes=l2_bytes)
    assert compare(cases, "avx2", WINOGRAD[name], tmp_path, threads, device) == {name}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_winograd_is_exact_up_to_what_its_sums_reach(isa: str, name: str, tmp_path: Path) -> None:
    # 9 x 224 products of 128 x 127 are nearly 2^25
    cases = [extreme_case(224, seed) for seed in range(4)]
    assert compare(cases, isa, WINOGRAD[name], tmp_path) == {name}
    beyond = Module("m", (extreme_case(240, 0)[0],))
    p = plan(beyond, target(BYTES_TARGETS[isa]), kernels=(*WINOGRAD[name], *KERNELS))
    taken = {s.kernel for s in p.entries[0].steps}
    assert (taken == {name}) == (name == "winograd_i8")


@pytest.mark.parametrize(
    ("cpu", "direct", "fewer"),
    [
        ("wasm32_simd", "conv2d_compact_i8", True),
        ("x86_64_v3", "conv2d_twos_i8", True),
        ("x86_64_v4_vnni", "conv2d_i8", False),
    ],
)
def test_winograd_is_taken_where_it_multiplies_less(cpu: str, direct: str, fewer: bool) -> None:
    def rows(size: int, channels: int, stride: int) -> set[str]:
        c = Case(0)
        x = c.b.input("x", TensorType((1, size, size, channels), I8))
        op = Conv((stride, stride), (1, 1), ((1, 1), (1, 1)), 1, True)
        y = c.b.add(op, x, c.weights((channels, channels, 3, 3)))
        module = Module("m", (c.finish(y)[0],))
        return {s.kernel for e in plan(module, target(cpu)).entries for s in e.steps}

    taken = {"winograd4_i8"} if fewer else {direct}
    assert rows(14, 64, 1) == rows(56, 64, 1) == taken
    assert rows(14, 60, 1) == ({direct} if target(cpu).isa.engine else taken)
    assert rows(14, 64, 2) == {direct}
