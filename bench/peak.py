"""What one core of this machine multiplies at best: independent operations, all in registers."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache
from statistics import median

import numpy as np

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine
from sparrow.targets.types import ISAS

# Vector type, the operation on accumulator i, and operations per lane.
KINDS = {
    "float32": ("f32", "sp_fma_f32(x, w, acc[i])", 2),
    "bfloat16": ("f32", "sp_dot2_f32(acc[i], sp_bits_f32(x), sp_bits_f32(w))", 4),
    "int8": ("i32", "sp_dot4_i32(acc[i], x, w)", 8),
}

SOURCE = """
#include "isa/{isa}.h"
#include "kernels/tile_f32.h"
#include "sparrow.h"
SPARROW_API void peak(const void *a, void *c, long times);
SPARROW_API void peak(const void *a, void *c, long times) {{
  const sp_{kind} x = sp_load_{kind}(a), w = x;
  sp_{kind} acc[{many}];
  SP_UNROLL
  for (int i = 0; i < {many}; ++i) acc[i] = x;
  SP_ROLLED
  for (long t = 0; t < times; ++t) {{
    SP_UNROLL
    for (int i = 0; i < {many}; ++i) acc[i] = {operation};
    SP_UNROLL
    for (int i = 0; i < {many}; ++i) __asm__("" : "+{register}"(acc[i]));
  }}
  SP_UNROLL
  for (int i = 0; i < {many}; ++i) sp_store_{kind}(c, acc[i]);
}}
"""


def peak(name: str) -> Callable[[], float]:
    """Operations per second of a key of `KINDS`; a fresh measurement each call."""
    isa = next(i for i in ISAS if i.name == host_isa())
    many = 16 if isa.registers == 32 else 8
    kind, operation, each = KINDS[name]
    family = "avx5" if isa.matrix else isa.name[:4]
    register = {"neon": "w", "avx5": "v", "avx2": "x"}.get(family, "r" if kind == "i32" else "x")
    tools, machine = find_toolchain(), host_machine(isa.name)
    text = SOURCE.format(isa=isa.name, kind=kind, many=many, operation=operation, register=register)
    objects = tools.compile_objects([Unit("peak.c", text, (NATIVE,))], machine, ("-std=gnu99",))
    library = ctypes.CDLL(str(tools.link_shared(objects, machine)))
    a, c, times = np.ones(256, np.uint8), np.zeros(256, np.uint8), 200_000
    arguments = (ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(c.ctypes.data))

    def run(keep: object = (a, c)) -> float:
        start = time.perf_counter()
        library.peak(*arguments, ctypes.c_long(times))
        return times * many * isa.lanes * each / (time.perf_counter() - start)

    return run


@cache
def peak_rate(name: str) -> float:
    """Operations per second of a key of `KINDS`: the median of short measurements."""
    once = peak(name)
    return median(once() for _ in range(15))
