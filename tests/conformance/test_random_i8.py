"""500 random configurations of every row that computes with codes, bit for bit.

`tools/random_int8.py` runs ten thousand of each on every instruction set.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from native_harness import BYTES
from random_i8 import ENGINES, FLOATS, GENERATORS, ROWS, Native, rows_of, share_of, wrong
from sparrow.kernels import tiling_i8

CONFIGURATIONS = 500
EMULATED = ("neon_dot", "neon_i8mm")


@pytest.mark.parametrize("isa", [*BYTES, *EMULATED])
def test_random_configurations(isa: str, tmp_path: Path) -> None:
    native = Native(isa, tmp_path)
    for name in share_of(isa, BYTES):
        found = wrong(native, [(name, seed) for seed in range(CONFIGURATIONS)])
        assert not found, found[:5]


@pytest.mark.parametrize("name", ["conv2d_i8_matrix", "gemm_i8_matrix"])
def test_epilogues_between_the_products_of_the_next_tile(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of layers of any size, not of large ones alone."""
    monkeypatch.setattr(tiling_i8, "DENSE", 0.0)
    found = wrong(Native("amx", tmp_path), [(name, seed) for seed in range(CONFIGURATIONS)])
    assert not found, found[:5]


def test_every_row_has_configurations() -> None:
    made = {g.row for g in GENERATORS.values()}
    floats = {n for n in ROWS if {"f32", "bf16"} & set(n.split("_"))} | set(FLOATS)
    assert set(ROWS) - floats - set(ENGINES) == made


def test_every_generator_runs_somewhere() -> None:
    isas = (*BYTES, *EMULATED)
    assert {n for isa in isas for n in share_of(isa, BYTES)} == set(GENERATORS)
    assert {n for isa in isas for n in rows_of(isa)} == set(GENERATORS)
