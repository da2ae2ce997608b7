"""10,000 random configurations of every row that computes with codes: the nightly check.

PYTHONPATH=tests python tools/random_int8.py [--count 10000] [--isa avx2] [--row gemm_i8]

Bit for bit the reference's integers, on every instruction set of this machine and, of rows that
only Arm has, in an emulator; the exit code is 1 if a configuration differs. How it takes an hour
and not weeks: `tests/random_i8/native.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from native_harness import NATIVE_BYTES_ONLY
from random_i8 import GENERATORS, X86, Native, rows_of, wrong
from sparrow.device.cpu import host_isas

LEVELS = (*X86, "amx", "neon_dot", "neon_i8mm")
# Configurations whose epilogues and loops are compiled together.
BATCH = 1000


def _runs(isa: str) -> bool:
    """Whether this machine runs or emulates an instruction set."""
    needed = "avx512vnni" if isa in NATIVE_BYTES_ONLY else isa
    return needed in host_isas() or isa.startswith("neon")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="configurations of each row")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--isa", choices=LEVELS, help="one instruction set instead of all")
    parser.add_argument("--row", choices=GENERATORS, help="one kind instead of all")
    args = parser.parse_args()
    bad, whole = 0, time.perf_counter()
    for isa in [args.isa] if args.isa else filter(_runs, LEVELS):
        for name in rows_of(isa):
            if args.row not in (None, name):
                continue
            start, found = time.perf_counter(), []
            # one for each row: it remembers all that it compiled
            with tempfile.TemporaryDirectory() as folder:
                native = Native(isa, Path(folder))
                for first in range(args.first, args.first + args.count, BATCH):
                    end = min(first + BATCH, args.first + args.count)
                    found += wrong(native, [(name, seed) for seed in range(first, end)])
            seconds = time.perf_counter() - start
            bad += len(found)
            print(f"{isa:10} {name:22} {args.count} in {seconds:.0f} s, {len(found)} wrong")
            print(*(f"  {text}\n" for text in found[:5]), end="", flush=True)
    print(f"{bad} wrong, {(time.perf_counter() - whole) / 60:.0f} minutes")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
