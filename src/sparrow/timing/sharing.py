"""What splitting work among threads costs on this machine: figures of a target row."""

from __future__ import annotations

import ctypes

import numpy as np

from sparrow.device.build import NATIVE, Unit
from sparrow.device.here import host_machine, host_toolchain
from sparrow.device.pool import shared_pool

# Lines of 64 bytes that each thread reads: in L2, beyond L1; so many follow one another.
LINES = 2048
RUN = 32
# Of many regions the quickest counts: what disturbs only ever adds.
REGIONS = 200


def sharing_figures(threads: int) -> dict[str, float]:
    """``fork_ns`` and ``move_ns_per_byte`` of as many threads, measured in some 50 ms.

    A fork costs what a region takes beyond one of its tasks; a byte costs what it takes longer to
    read when another core has written it. Lines are waited for one by one, in runs of `RUN`, as
    kernels read rows: prefetching helps within a run. With cores far apart on Zen 4 that is 0.13 ns
    a byte, 0.95 where every line is a jump, 0.02 where none is; planned by 0.5 MobileNetV3-small
    takes 1.6 times as long as by 0.1, ResNet-8 by 0.02 a sixth longer.

    Returns:
        Nothing where threads never ran side by side.

    Raises:
        CompileError: The compiler is missing.
    """
    pool = shared_pool(threads)
    if pool.threads < 2:
        return {}
    machine, tools = host_machine("scalar"), host_toolchain()
    unit = Unit.from_file(NATIVE / "runtime" / "sharing.c")
    objects = tools.compile_objects([unit], machine, ("-std=c99",))
    system = {"windows": ("-lkernel32",), "macos": ("-lSystem",)}.get(machine.os, ())
    library = ctypes.CDLL(str(tools.link_shared(objects, machine, flags=system)))
    library.sparrow_read_ns.restype = ctypes.c_double
    words = np.zeros((pool.threads, LINES, 8), np.uint64)
    starts = RUN * np.random.default_rng(0).permutation(LINES // RUN)
    order = (starts[:, None] + np.arange(RUN)).ravel()
    words[:, order, 0] = np.roll(order, -1)
    at = ctypes.c_void_p(words.ctypes.data)

    def read(handle: int | None, turn: int) -> float:
        given = ctypes.c_void_p(pool.parallel_for), ctypes.c_void_p(handle), pool.threads
        each = [library.sparrow_read_ns(*given, at, LINES, turn) for _ in range(REGIONS)]
        return min((ns for ns in each if ns > 0), default=0.0)

    alone, own, other = read(None, 0), read(pool.handle, 0), read(pool.handle, 1)
    if not 0.0 < alone < own < other:
        return {}
    return {
        "fork_ns": round(own - alone, 1),
        "move_ns_per_byte": round((other - own) / (64 * LINES), 4),
    }


__all__ = ["sharing_figures"]
