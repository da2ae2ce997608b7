"""10,000 random configurations of every row over 8-bit codes: the nightly check of the integers.

PYTHONPATH=tests python tools/random_int8.py [--count 10000] [--isa avx2] [--first 0]

Bit for bit the reference's integers, on every instruction set of this machine; the exit code is 1
if a configuration differs. How it takes minutes and not days: `tests/random_i8.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from native_harness import ISAS
from random_i8 import check, library, rows_of
from sparrow.device.cpu import host_isas

LEVELS = tuple(ISAS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="configurations of each row")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--isa", choices=LEVELS, help="one instruction set instead of all")
    args = parser.parse_args()
    mine = [isa for isa in LEVELS if isa in host_isas()]
    wrong = 0
    for isa in [args.isa] if args.isa else mine:
        with tempfile.TemporaryDirectory() as folder:
            native = library(isa, Path(folder))
            for row in rows_of(isa):
                start = time.perf_counter()
                found = [
                    text
                    for seed in range(args.first, args.first + args.count)
                    if (text := check(native, isa, row, seed))
                ]
                seconds = time.perf_counter() - start
                wrong += len(found)
                text = f"{isa:12} {row:14} {args.count} in {seconds:.0f} s, {len(found)} wrong"
                print(text, flush=True)
                for text in found[:5]:
                    print(f"  {text}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
