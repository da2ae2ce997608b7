"""Which steps of a network lose most time against this machine's roofline, and what they wait for.

    python bench/roofline.py resnet18 [--precision bfloat16] [--top 12] [--realtime]
    python bench/roofline.py --top 0 mobilenet_v1 mobilenet_v2      # totals alone

One thread. The least time of a step is the larger of its operations at the peak of its kernel's
arithmetic (peak.py) and its bytes at the bandwidth of the cache level that holds the network. Steps
are listed by the time beyond that. Winograd multiplies less than it counts, and may be faster than
its roofline. What a step waits for:
    memory      its bytes alone take more than half of its time
    arithmetic  it multiplies at more than 70 % of the peak: only fewer products would help
    overhead    neither: transforms, tails of tiles, loads that hit no cache, dependent chains
"""

import argparse
import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from statistics import median

import numpy as np

import sparrow
from cases import named
from peak import KINDS, best_of, peak
from run import core_to_itself
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine
from sparrow.timing.profiling import StepTime

SOURCE = """
#include "isa/{isa}.h"
#include "sparrow.h"
SPARROW_API void stream(const float *a, float *c, long n);
SPARROW_API void stream(const float *a, float *c, long n) {{
  sp_f32 acc[8];
  SP_UNROLL
  for (int i = 0; i < 8; ++i) acc[i] = sp_zero_f32();
  for (long k = 0; k < n; k += 8 * SP_LANES) {{
    SP_UNROLL
    for (int i = 0; i < 8; ++i) acc[i] = sp_maxq_f32(acc[i], sp_load_f32(a + k + i * SP_LANES));
  }}
  SP_UNROLL
  for (int i = 0; i < 8; ++i) sp_store_f32(c + i * SP_LANES, acc[i]);
}}
"""


def bandwidth() -> Callable[[int], float]:
    """Bytes per second that one core reads from an array of so many bytes, read over and over."""
    machine = host_machine(host_isa())
    unit = Unit("stream.c", SOURCE.format(isa=host_isa()), (NATIVE,))
    tools = find_toolchain()
    objects = tools.compile_objects([unit], machine, ("-std=gnu99",))
    library = ctypes.CDLL(str(tools.link_shared(objects, machine)))
    c = np.zeros(256, np.float32)

    def run(size: int) -> float:
        a = np.ones(max(1, size // 4096) * 1024, np.float32)
        pointers = ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(c.ctypes.data)
        repeats = max(1, (1 << 24) // a.nbytes)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            for _ in range(repeats):
                library.stream(*pointers, ctypes.c_long(a.size))
            times.append((time.perf_counter() - start) / repeats)
        return a.nbytes / median(times[1:])

    return run


def arithmetic(kernel: str) -> str:
    """What a kernel row multiplies: a key of `peak.KINDS` or `peak.MATRIX`."""
    kind = {"i8": "int8", "bf16": "bfloat16"}.get(
        kernel.removesuffix("_matrix").rsplit("_", 1)[-1], "float32"
    )
    return f"{kind}_matrix" if kernel.endswith("_matrix") else kind


def waits_for(step: StepTime, compute_ns: float, memory_ns: float) -> str:
    """See the module's text."""
    if memory_ns > step.ns / 2:
        return "memory"
    return "arithmetic" if compute_ns > 0.7 * step.ns else "overhead"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="name")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--residual", default="int8", help="as in Recipe, where precision is int8")
    parser.add_argument("--top", type=int, default=12, help="steps to list of each network")
    parser.add_argument("--realtime", action="store_true", help="see run.py")
    args = parser.parse_args()
    kinds = {k: None for kind in KINDS for k in (kind, best_of(kind))}
    rates = bandwidth()
    for case in named(args.names, parser):
        model = case.model()
        if args.precision == "int8":
            recipe = sparrow.Recipe(residual=args.residual)
            bundle = sparrow.build(sparrow.quantize(model, case.inputs(), recipe))
        else:
            bundle = sparrow.build(model, precision=args.precision)
        memory = bundle.receipt.memory
        with core_to_itself() if args.realtime else nullcontext():
            peaks = {k: median(peak(k)() for _ in range(9)) for k in kinds}
            # the weights are read once a call: what holds all of them decides
            rate = rates(memory.weights_bytes + memory.arena_bytes)
            profile = bundle.profile()
        lost = show(profile.steps, peaks, rate, args.top)
        print(
            f"{case.name}: {profile.total_ns / 1e3:.1f} us, {lost / 1e3:.1f} of it beyond the "
            f"roofline, which is {1 - lost / profile.total_ns:.0%} of it",
            flush=True,
        )


def show(steps: Sequence[StepTime], peaks: Mapping[str, float], rate: float, most: int) -> float:
    """List the steps that lose most; returns the nanoseconds that all of them lose.

    Args:
        steps: Of a network.
        peaks: Operations per second by kind of arithmetic.
        rate: Bytes per second.
        most: Steps to list.
    """
    reached = ", ".join(f"{k} {v / 1e9:.0f} GOP/s" for k, v in peaks.items())
    rows = []
    for s in steps:
        compute = s.gflops * s.ns * 1e9 / peaks[arithmetic(s.kernel)]
        rows.append((s.ns - max(compute, s.bytes / rate * 1e9), compute, s))
    if most:
        print(f"{reached}, {rate / 1e9:.0f} GB/s")
        print(f"{'step':>4} {'kernel':16} {'us':>9} {'lost':>9} {'of peak':>8}  waits for   node")
    for lost, compute, s in sorted(rows, key=lambda r: -r[0])[:most]:
        what = waits_for(s, compute, s.bytes / rate * 1e9)
        times = f"{s.ns / 1e3:9.2f} {lost / 1e3:9.2f} {compute / s.ns:8.0%}"
        print(f"{s.step:4d} {s.kernel:16.16} {times}  {what:11} {s.origin:.50}")
    return sum(max(lost, 0.0) for lost, _, _ in rows)


if __name__ == "__main__":
    main()
