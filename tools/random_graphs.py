"""Compiles random graphs for a while and judges every layer: the nightly campaign.

PYTHONPATH=tests python tools/random_graphs.py --minutes 60 [--seed 1] [--isa avx512]
PYTHONPATH=tests python tools/random_graphs.py --replay FOLDER [--isa avx512]

A graph that fails is shrunk and written to a folder (graph.txt, arrays.npz, why.txt) that can be
attached to a report and given to --replay. The exit code is 1 if any failed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from any_graphs import any_graphs
from emitted import TARGETS
from random_native import check, restore
from sparrow.device.cpu import host_isas
from sparrow.graph import Graph

PER_LIBRARY = 8
PER_ROUND = 40
LEVELS = tuple(TARGETS)


def levels() -> tuple[str, ...]:
    """The instruction sets that this machine runs, lowest first."""
    return tuple(isa for isa in LEVELS if isa in host_isas())


def round_of(isa: str, number: int) -> tuple[int, str]:
    """Compile some libraries of random graphs; how many graphs, and what is wrong with one."""
    count = 0

    @seed(number)
    @settings(
        max_examples=PER_ROUND,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(any_graphs(8), min_size=1, max_size=PER_LIBRARY))
    def run(graphs: list[Graph]) -> None:
        nonlocal count
        count += len(graphs)
        check(graphs, isa)

    try:
        run()
    except Exception as e:
        # whatever goes wrong with one graph is a finding, not the end of the campaign
        return count, f"{type(e).__name__}: {e}"
    return count, ""


def main() -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--isa", choices=levels())
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    chosen = (options.isa,) if options.isa else levels()
    if options.replay:
        for isa in chosen:
            check([restore(options.replay)], isa)
        print(f"right on {', '.join(chosen)}")
        return 0
    end = time.monotonic() + 60 * options.minutes
    total = failed = 0
    number = options.seed
    while time.monotonic() < end:
        isa = chosen[number % len(chosen)]
        count, wrong = round_of(isa, number)
        total, failed = total + count, failed + bool(wrong)
        if wrong:
            print(f"seed {number}: {wrong}", flush=True)
        number += 1
    print(
        f"{total} graphs in {number - options.seed} rounds on {', '.join(chosen)}, {failed} failed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
