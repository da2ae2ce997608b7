"""What one core of this machine multiplies at best: independent operations, all in registers.

Of matrix registers, that is what they multiply of bfloat16 and bytes. Of bytes elsewhere it is the
best sequence that is exact: `sp_dot4_i32`, one instruction where there is one. With AVX2 it takes
five for 64 products, as convolutions do whose weights allow it: two vpmaddubsw, which are added as
halves, a vpmaddwd that adds neighbours, an addition to the sum: at most 42.7 products a cycle where
two pipes multiply. Each sum takes operands of its own: nothing is done once for all of them.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine
from sparrow.targets.instruction_sets import ISAS, Isa

# Vector type, the operation on accumulator i, and operations per lane.
KINDS = {
    "float32": ("f32", "sp_fma_f32(x, w, acc[i])", 2),
    "bfloat16": ("f32", "sp_dot2_f32(acc[i], sp_bits_f32(x), sp_bits_f32(w))", 4),
    "int8": ("i32", "sp_dot4_i32(acc[i], x, w)", 8),
}
# Of bytes where it is another: two quads a lane, of which twos are added.
TWOS = {
    "avx2": (
        "sp_dot2_i32(acc[i], sp_addp_i32(sp_maddubs_i32(w, x), sp_maddubs_i32(x, w)), w)",
        16,
    )
}

SOURCE = """
#include "isa/{isa}.h"
#include "kernels/tile_f32.h"
#include "sparrow.h"
SPARROW_API void peak(const void *a, void *c, long times);
SPARROW_API void peak(const void *a, void *c, long times) {{
  const sp_{kind} w = sp_load_{kind}(a);
  sp_{kind} x = w;
  sp_{kind} acc[{many}];
  SP_UNROLL
  for (int i = 0; i < {many}; ++i) acc[i] = x;
  SP_ROLLED
  for (long t = 0; t < times; ++t) {{
    SP_UNROLL
    for (int i = 0; i < {many}; ++i) {{
      __asm__("" : "+{register}"(x));
      acc[i] = {operation};
    }}
    SP_UNROLL
    for (int i = 0; i < {many}; ++i) __asm__("" : "+{register}"(acc[i]));
  }}
  SP_UNROLL
  for (int i = 0; i < {many}; ++i) sp_store_{kind}(c, acc[i]);
}}
"""


# The same in four matrix registers of sums, 16 x 16 each over 16 lanes of four or two values.
MATRIX = {"bfloat16_matrix": ("SP_MATRIX_BF16", 4), "int8_matrix": ("SP_MATRIX_U8", 8)}
MATRIX_SOURCE = """
#include "isa/{isa}.h"
#include "sparrow.h"
SPARROW_API void peak(const void *a, void *c, long times);
SPARROW_API void peak(const void *a, void *c, long times) {{
  sp_matrix_shape(2, 2, 16, 16, 16);
  SP_UNROLL
  for (int r = 4; r < 8; ++r) sp_matrix_load(r, a, 0);
  SP_ROLLED
  for (long t = 0; t < times; ++t) {{
    SP_UNROLL
    for (int i = 0; i < {many}; ++i) sp_matrix_dot({kind}, i % 4, 4 + i / 2 % 2, 6 + i % 2);
  }}
  SP_UNROLL
  for (int i = 0; i < 4; ++i) sp_matrix_store(i, (char *)c + 1024 * i, 64);
  sp_matrix_release();
}}
"""


@dataclass(frozen=True, slots=True)
class Peak:
    """`run` takes `operations`; a call is a fresh measurement of how many a second."""

    operations: int
    run: Callable[[], None]

    def __call__(self) -> float:
        start = time.perf_counter()
        self.run()
        return self.operations / (time.perf_counter() - start)


@cache
def peak(name: str) -> Peak:
    """Of a key of `KINDS` or `MATRIX`."""
    isa = next(i for i in ISAS if i.name == host_isa())
    if name in MATRIX:
        kind, each = MATRIX[name]
        text = MATRIX_SOURCE.format(isa=isa.name, kind=kind, many=16)
        return _timed(text, isa, 16 * 16 * 16 * 16 * each, 20_000)
    many = 16 if isa.registers == 32 else 8
    kind, operation, each = KINDS[name]
    if name == "int8":
        operation, each = TWOS.get(isa.name, (operation, each))
    family = "avx5" if isa.matrix else isa.name[:4]
    register = {"neon": "w", "avx5": "v", "avx2": "x"}.get(family, "r" if kind == "i32" else "x")
    text = SOURCE.format(isa=isa.name, kind=kind, many=many, operation=operation, register=register)
    return _timed(text, isa, many * isa.lanes * each, 200_000)


def _timed(text: str, isa: Isa, operations: int, times: int) -> Peak:
    """So many rounds of so many operations."""
    tools, machine = find_toolchain(), host_machine(isa.name)
    objects = tools.compile_objects([Unit("peak.c", text, (NATIVE,))], machine, ("-std=gnu99",))
    library = ctypes.CDLL(str(tools.link_shared(objects, machine)))
    a, c = np.ones(1024, np.uint8), np.zeros(4096, np.uint8)
    arguments = (ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(c.ctypes.data))

    def run(keep: object = (a, c)) -> None:
        library.peak(*arguments, ctypes.c_long(times))

    return Peak(times * operations, run)


def best_of(name: str) -> str:
    """A key of `KINDS`, or of `MATRIX` where this machine has it."""
    isa = next(i for i in ISAS if i.name == host_isa())
    return f"{name}_matrix" if isa.matrix and f"{name}_matrix" in MATRIX else name
