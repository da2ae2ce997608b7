"""A share of every fuzzing target: what was made by hand, what once broke, and some at random."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.campaign import run_range
from fuzz.targets import TARGETS, Target, prepare
from sparrow.errors import SparrowError

SEED = 0
RANDOM = 150
# What is compiled, or runs a command, takes milliseconds for each case.
SLOW_SHARE = 300


def broken(target: Target, seed: int, count: int) -> list[str]:
    tallies = list(run_range(target.name, seed, 0, count))
    found = [v for t in tallies for v in t.violations]
    assert sum(t.accepted + t.refused for t in tallies) + len(found) == count
    return [f"{v.target}:{v.seed}:{v.index} {v.kind}: {v.detail}" for v in found]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_hostile_input_ends_in_one_line(target: Target) -> None:
    count = len(target.made()) + RANDOM
    if target.heavy or target.may_write or target.name.startswith("evidence"):
        count = min(count, SLOW_SHARE)
    assert not broken(target, SEED, count)


@pytest.mark.parametrize("target", [t for t in TARGETS if t.file], ids=lambda t: t.name)
def test_the_corpus_is_what_this_version_reads(target: Target, tmp_path: Path) -> None:
    """A mutated file teaches nothing if what it was made of is refused as well."""
    folder = tmp_path / "case"
    prepare(folder)
    refused = []
    for data in target.seeds():
        (folder / target.file).write_bytes(data)
        try:
            target.run(data, folder)
        except SparrowError as e:
            refused.append(str(e))
    # a shape that is not known, an operator that nobody has, an array of text
    assert len(refused) <= len(target.seeds()) // 5, refused


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_more_cases(target: Target) -> None:
    assert not broken(target, SEED + 1, 5000)
