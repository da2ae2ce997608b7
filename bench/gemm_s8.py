"""`sparrow.gemm_s8` against the peak of the machine, which is measured beside it.

    python bench/gemm_s8.py [--rounds 30] [--threads 2]

Medians of interleaved rounds in 1e9 operations per second (a multiply-add counts two), and their
share of the peak: independent `sp_dot4_i32` on one core, all operands in registers, which products
in matrix registers exceed.
    in C      s8 x s8, many times from C: B packed ahead, A as it lies
    u8 x s8   `GemmS8`, both operands packed ahead: what the instruction multiplies, nothing else
    s8 x s8   `GemmS8`, B packed ahead
    gemm_s8   the function, B packed ahead
    all       the function, neither packed ahead
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import sparrow
from peak import peak
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine

SIZES = ((64, 64, 64), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (12544, 32, 16))

REPEAT = """
#include "sparrow.h"
SPARROW_API void repeat(int (*run)(void *), void *call, long times);
SPARROW_API void repeat(int (*run)(void *), void *call, long times) {
  for (long i = 0; i < times; ++i) run(call);
}
"""


def from_c(bound: sparrow.GemmS8) -> Callable[[int], None]:
    """Calls of what a bound product calls, as often as asked, without Python in between."""
    machine, tools = host_machine(host_isa()), find_toolchain()
    objects = tools.compile_objects([Unit("repeat.c", REPEAT, (NATIVE,))], machine, ("-std=c99",))
    library = ctypes.CDLL(str(tools.link_shared(objects, machine)))
    # the two values that a call from Python passes
    run, call = bound._run, bound._call
    return lambda times: library.repeat(run, call, ctypes.c_long(times))


def repeated(call: Callable[[], object]) -> Callable[[int], None]:
    def run(times: int) -> None:
        for _ in range(times):
            call()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rng, best, n_threads = np.random.default_rng(0), peak("int8"), args.threads
    names = ("in C", "u8 x s8", "s8 x s8", "gemm_s8", "all")
    print(f"{'m x k x n':16} {'peak':>7}", *(f"{name:>14}" for name in names))
    for m, k, n in SIZES:
        a, b = (rng.integers(-127, 128, s).astype(np.int8) for s in ((m, k), (k, n)))
        pb, out = sparrow.pack_b_s8(b), np.zeros((m, n), np.int32)
        bound = sparrow.GemmS8(a, pb, threads=n_threads, out=out)
        both = sparrow.GemmS8(sparrow.pack_a_s8(a), pb, threads=n_threads, out=out)
        ways = (
            from_c(bound),
            repeated(both),
            repeated(bound),
            repeated(partial(sparrow.gemm_s8, a, pb, threads=n_threads, out=out)),
            repeated(partial(sparrow.gemm_s8, a, b, threads=n_threads, out=out)),
        )
        work = 2 * m * n * k
        times = max(1, int(2e8 / work))
        found: list[list[float]] = [[] for _ in ("peak", *ways)]
        for _ in range(args.rounds):
            found[0].append(best() * n_threads)
            for at, way in enumerate(ways, 1):
                start = time.perf_counter()
                way(times)
                found[at].append(work * times / (time.perf_counter() - start))
        top, *rates = (float(np.median(f)) for f in found)
        text = " ".join(f"{r / 1e9:8.0f} {r / top:4.0%}" for r in rates)
        print(f"{f'{m} x {k} x {n}':16} {top / 1e9:7.0f} {text}", flush=True)


if __name__ == "__main__":
    main()
