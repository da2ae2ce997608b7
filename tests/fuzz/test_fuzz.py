"""A share of every fuzzing target: what was made by hand, what once broke, and some at random."""

from __future__ import annotations

import pytest

from fuzz.campaign import run_range
from fuzz.targets import TARGETS, Target

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


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_more_cases(target: Target) -> None:
    assert not broken(target, SEED + 1, 5000)
