"""Convolutions over codes: few channels, few rows, short sums, pairs of rows, largest codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cases_i8.compare import PORTABLE, compare
from cases_i8.convolutions import (
    extreme_case,
    groups_case,
    short_sums_case,
    two_rows_case,
)
from cases_i8.depthwise import interleaved_case
from emitted import BYTES_TARGETS
from native_harness import needs_isa
from sparrow.emit.c import emit
from sparrow.graph import Module
from sparrow.kernels import (
    KERNELS,
    conv_i8,
    depthwise_pairs_i8,
)
from sparrow.planner import plan
from sparrow.targets import target


@pytest.mark.parametrize(("threads", "lines"), [(1, depthwise_pairs_i8.LINES), (3, 1)])
def test_rows_interleaved_by_pairs_give_the_integers_of_the_reference(
    threads: int, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of few bytes blocks are a row of tiles
    monkeypatch.setattr(depthwise_pairs_i8, "LINES", lines)
    cases = [interleaved_case(s) for s in range(24)]
    rows = (*depthwise_pairs_i8.ROWS, *PORTABLE)
    assert "depthwise_pairs_i8" in compare(cases, "avx2", rows, tmp_path, threads)


@pytest.mark.parametrize(("isa", "threads"), [("avx2", 1), ("avx2", 3), ("avx512vnni", 1)])
def test_groups_of_few_channels_are_taken_together(isa: str, threads: int, tmp_path: Path) -> None:
    used = compare([groups_case(s) for s in range(24)], isa, KERNELS, tmp_path, threads)
    assert used & {"conv2d_twos_i8", "conv2d_i8"} and "conv_any" not in used


@pytest.mark.parametrize(("isa", "threads"), [("avx2", 1), ("avx512vnni", 1), ("avx512vnni", 3)])
def test_two_rows_share_broadcasts(isa: str, threads: int, tmp_path: Path) -> None:
    cases = [two_rows_case(s) for s in range(24)]
    assert compare(cases, isa, conv_i8.ROWS, tmp_path, threads) >= {"conv2d_i8"}
    if isa == "avx512vnni":
        module = Module("m", tuple(g for g, _ in cases))
        planned = plan(module, target(BYTES_TARGETS[isa]), threads=threads)
        assert emit(planned).files["model.c"].decode().count(".ro = 2") > len(cases) // 2


@pytest.mark.parametrize(("isa", "threads"), [("avx512vnni", 1), ("avx512vnni", 3), ("avx2", 1)])
def test_epilogues_between_the_sums_of_the_next_tile(
    isa: str, threads: int, tmp_path: Path
) -> None:
    cases = [short_sums_case(s) for s in range(48)]
    assert compare(cases, isa, conv_i8.ROWS, tmp_path, threads) >= {"conv2d_i8"}
    module = Module("m", tuple(g for g, _ in cases))
    text = emit(plan(module, target(BYTES_TARGETS[isa]), threads=threads)).files["model.c"].decode()
    turns = len(re.findall(r"\.between = [1-9]", text))
    assert turns > len(cases) // 3 if isa == "avx512vnni" else not turns


@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_sums_are_exact_for_the_largest_codes(isa: str, tmp_path: Path) -> None:
    needs_isa(isa)
    cases = [extreme_case(ci, seed, least) for ci in (3, 4, 33) for seed in range(3)
             for least in (-127, -128)]  # fmt: skip
    assert compare(cases, isa, conv_i8.ROWS, tmp_path) == {"conv2d_i8"}
