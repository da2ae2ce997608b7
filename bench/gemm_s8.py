"""`sparrow.gemm_s8` against the peak of the machine, which is measured beside it.

    python bench/gemm_s8.py [--rounds 30] [--threads 2]

Medians of interleaved rounds in 1e9 operations per second (a multiply-add counts two), and their
share of the peak: independent `sp_dot4_i32` on one core, all operands in registers.
    u8 x s8   both operands packed ahead: what the instruction multiplies, and nothing else
    s8 x s8   B packed ahead, A as it comes: checked for -128, and 128 added to every byte
    all       neither packed ahead
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import sparrow
from sparrow.device.build import NATIVE, Unit, find_toolchain, host_machine
from sparrow.device.cpu import host_isa
from sparrow.targets.types import ISAS

SIZES = ((64, 64, 64), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (12544, 32, 16))

PEAK = """
#include "isa/{isa}.h"
#include "sparrow.h"
SPARROW_API void peak(const uint8_t *a, int32_t *c, long times);
SPARROW_API void peak(const uint8_t *a, int32_t *c, long times) {{
  const sp_i32 x = sp_loadq_i32(a), w = sp_loadq_i32(a + 64);
  sp_i32 acc[{many}];
  SP_UNROLL
  for (int i = 0; i < {many}; ++i) acc[i] = sp_set1_i32(i);
  SP_ROLLED
  for (long t = 0; t < times; ++t) {{
    SP_UNROLL
    for (int i = 0; i < {many}; ++i) acc[i] = sp_dot4_i32(acc[i], x, w);
    SP_UNROLL
    for (int i = 0; i < {many}; ++i) __asm__("" : "+v"(acc[i]));
  }}
  SP_UNROLL
  for (int i = 0; i < {many}; ++i) sp_store_i32(c + i * SP_LANES, acc[i]);
}}
"""


def peak() -> Callable[[], float]:
    """Operations per second of the dot product instruction; a fresh measurement each call."""
    isa = next(i for i in ISAS if i.name == host_isa())
    many = 16 if isa.registers == 32 else 8
    tools, machine = find_toolchain(), host_machine(isa.name)
    unit = Unit("peak.c", PEAK.format(isa=isa.name, many=many), (NATIVE,))
    objects = tools.compile_objects([unit], machine, ("-std=gnu99",))
    library = ctypes.CDLL(str(tools.link_shared(objects, machine)))
    a, c, times = np.ones(256, np.uint8), np.zeros(many * isa.lanes, np.int32), 200_000
    arguments = (ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(c.ctypes.data))

    def run(keep: object = (a, c)) -> float:
        start = time.perf_counter()
        library.peak(*arguments, ctypes.c_long(times))
        return times * many * isa.lanes * 8 / (time.perf_counter() - start)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rng, best = np.random.default_rng(0), peak()
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
