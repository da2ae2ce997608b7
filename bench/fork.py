"""What a fork and its join cost: regions of two equal tasks, after pauses, beside other programs.

    python bench/fork.py [--regions 100] [--neighbour]

Rows are what the caller does before a region (nothing, 1 or 10 ms of computing, 10 ms of sleep),
columns how long each task lasts: medians in microseconds, the first regions of every cell left
out, in which the pool learns whether it pays to wake somebody. ``--neighbour`` puts a program that
never sleeps on one of the cores.
"""

import argparse
import ctypes
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from sparrow.device.build import NATIVE, Unit
from sparrow.device.here import host_machine, host_toolchain
from sparrow.device.pool import Pool

TASKS_US = (0, 2, 10, 40, 100, 300, 1000)
PAUSES = {"no pause": 0.0, "1 ms computing": 1e-3, "10 ms computing": 1e-2, "10 ms sleep": -1e-2}
LEARNING = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", type=int, default=100)
    parser.add_argument("--neighbour", action="store_true")
    args = parser.parse_args()
    neighbour = multiprocessing.Process(target=compute, args=(float("inf"),), daemon=True)
    if args.neighbour:
        neighbour.start()
    region_ns = timed_region()
    print(f"{'each task lasts (us)':22s}" + "".join(f"{us:9d}" for us in TASKS_US), flush=True)
    for name, seconds in PAUSES.items():
        cells = []
        for us in TASKS_US:
            pool = Pool(2)
            split, handle = ctypes.c_void_p(pool.parallel_for), ctypes.c_void_p(pool.handle)
            taken = []
            for _ in range(LEARNING + args.regions):
                pause(seconds)
                taken.append(region_ns(split, handle, ctypes.c_uint64(1000 * us)) / 1e3)
            cells.append(statistics.median(taken[LEARNING:]))
        print(f"{name:22s}" + "".join(f"{us:9.2f}" for us in cells), flush=True)
    if args.neighbour:
        neighbour.terminate()


def pause(seconds: float) -> None:
    """Compute, or where negative sleep."""
    if seconds < 0:
        time.sleep(-seconds)
    else:
        compute(seconds)


def compute(seconds: float) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        pass


def timed_region() -> Callable[..., int]:
    machine, tools = host_machine("scalar"), host_toolchain()
    path = Path(__file__).with_suffix(".c")
    unit = Unit(path.name, path.read_text(encoding="utf-8"), (NATIVE,))
    library = ctypes.CDLL(
        str(tools.link_shared(tools.compile_objects([unit], machine, ("-std=c99",)), machine))
    )
    library.region_ns.restype = ctypes.c_uint64
    function: Callable[..., int] = library.region_ns
    return function


if __name__ == "__main__":
    main()
