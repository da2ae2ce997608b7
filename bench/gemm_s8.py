"""`sparrow.gemm_s8` against the peak of the machine, which is measured beside it.

    python bench/gemm_s8.py [--rounds 30] [--threads 2]

Medians of interleaved rounds in 1e9 operations per second (a multiply-add counts two), and their
share of the peak: independent `sp_dot4_i32` on one core, all operands in registers.
    u8 x s8   both operands packed ahead: what the instruction multiplies, and nothing else
    s8 x s8   B packed ahead, A as it comes: checked for -128, and 128 added to every byte
    all       neither packed ahead
"""

import argparse
import time
from typing import Any

import numpy as np

import sparrow
from peak import peak

SIZES = ((64, 64, 64), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (12544, 32, 16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rng, best = np.random.default_rng(0), peak("int8")
    print(f"{'m x k x n':16} {'peak':>7} {'u8 x s8':>16} {'s8 x s8':>16} {'all':>16}")
    for m, k, n in SIZES:
        a, b = (rng.integers(-127, 128, s).astype(np.int8) for s in ((m, k), (k, n)))
        pb = sparrow.pack_b_s8(b)
        ways: list[tuple[Any, Any]] = [(sparrow.pack_a_s8(a), pb), (a, pb), (a, b)]
        work = 2 * m * n * k
        out = np.zeros((m, n), np.int32)
        times = max(1, int(2e8 / work))
        found: list[list[float]] = [[], [], [], []]
        for _ in range(args.rounds):
            found[0].append(best() * args.threads)
            for at, (x, y) in enumerate(ways, 1):
                start = time.perf_counter()
                for _ in range(times):
                    sparrow.gemm_s8(x, y, threads=args.threads, out=out)
                found[at].append(work * times / (time.perf_counter() - start))
        top, *rates = (float(np.median(f)) for f in found)
        text = " ".join(f"{r / 1e9:8.0f} {r / top:6.0%} " for r in rates)
        print(f"{f'{m} x {k} x {n}':16} {top / 1e9:7.0f} {text}", flush=True)


if __name__ == "__main__":
    main()
