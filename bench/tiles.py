"""Is the predicted register tile the fastest? Every tile of some int8 layers, measured.

    python bench/tiles.py [--shapes 14x96x576,56x24x144] [--rounds 15] [--realtime]

Layers are 1x1 convolutions, side x channels in x channels out, over int8 codes, which are turned
into scratch; a tile of 3x3 differs in the number of its quads alone. Printed are the chosen tile,
the fastest one and what the choice loses: what a search by measurement would gain.
"""

import argparse
import ctypes
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from statistics import median

import numpy as np

from run import core_to_itself
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine, resolve_target
from sparrow.kernels.params_f32 import Conv2dShape
from sparrow.kernels.params_i8 import Conv2dI8
from sparrow.kernels.tiles_i8 import tiles
from sparrow.kernels.tiling_i8 import Bytes, choose_conv2d
from sparrow.targets.types import Target

SHAPES = "112x16x96,112x32x16,56x24x144,56x144x24,56x64x128,28x32x192,28x192x32,28x256x256,"
SHAPES += "14x96x576,14x576x96,14x384x64,14x512x512,7x160x960,7x960x160"

SOURCE = """
#include "isa/{isa}.h"
#include "kernels/conv2d_i8.h"
#include "sparrow.h"
SP_INLINE sp_i32 ep(sp_i32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n) {{
  (void)row;
  const sp_f32 m = sp_loadn_f32((const float *)e[0] + col, n);
  const sp_f32 v = sp_maxq_f32(sp_set1_f32(-115.0f), sp_mul_f32(sp_cvt_i32_f32(acc), m));
  return sp_add_i32(sp_rne_f32_i32(sp_minq_f32(sp_set1_f32(140.0f), v)), sp_set1_i32(-13));
}}
SPARROW_API void layer(const void *x, const int8_t *w, const int32_t *init, void *y,
                       uint8_t *scratch, const void *const *e);
SPARROW_API void layer(const void *x, const int8_t *w, const int32_t *init, void *y,
                       uint8_t *scratch, const void *const *e) {{
  for (int task = 0; task < {tasks}; ++task)
    sp_conv2d_i8_run((sp_conv2d_i8){{{fields}}}, x, w, init, y, scratch, ep, e, task);
}}
"""


def candidates(side: int, ci: int, co: int, cpu: Target) -> list[Conv2dI8]:
    """The chosen parameters, then those of all other tiles that fill half of the registers."""
    pixels = side * side
    s = Conv2dShape(
        ih=side, iw=side, oh=side, ow=side, kh=1, kw=1, xn=pixels * ci, xh=side * ci, xw=ci,
        ldy=co, ci=ci, co=co,
    )  # fmt: skip
    chosen, *_ = choose_conv2d(s, Bytes(flip=True, pad=128, put=0), cpu)
    vectors = -(-co // cpu.isa.lanes)
    found = [chosen]
    for t in tiles(chosen.ow, vectors, cpu.isa):
        if (t.mr, t.nv) != (chosen.mr, chosen.nv) and 2 * t.mr * t.nv >= cpu.isa.registers:
            wb = max(1, chosen.wb // t.mr) * t.mr
            found.append(
                replace(chosen, mr=t.mr, nv=t.nv, wb=wb, task_n=-(-vectors // t.nv) * t.nv)
            )
    return found


def libraries(params: list[Conv2dI8]) -> list[ctypes.CDLL]:
    machine, tools = host_machine(host_isa()), find_toolchain()
    hidden = ("tasks", "scratch_bytes")
    loaded = []
    for p in params:
        fields = ", ".join(f".{k} = {v}" for k, v in asdict(p).items() if k not in hidden)
        text = SOURCE.format(isa=host_isa(), tasks=p.tasks, fields=fields)
        objects = tools.compile_objects([Unit("layer.c", text, (NATIVE,))], machine, ("-std=c99",))
        loaded.append(ctypes.CDLL(str(tools.link_shared(objects, machine))))
    return loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--realtime", action="store_true", help="see run.py")
    args = parser.parse_args()
    rng, cpu = np.random.default_rng(0), resolve_target("host")
    for shape in args.shapes.split(","):
        side, ci, co = (int(v) for v in shape.split("x"))
        params = candidates(side, ci, co, cpu)
        runs = libraries(params)
        room = 64 * (co + 64)
        x, w = (rng.integers(-127, 128, n).astype(np.int8) for n in (side * side * ci, room * ci))
        init, m = np.zeros(co + 64, np.int32), np.full(co + 64, 1e-3, np.float32)
        y = np.zeros(side * side * co + 64, np.int8)
        scratch = np.zeros(max(p.scratch_bytes for p in params) + 64, np.uint8)
        e = (ctypes.c_void_p * 1)(m.ctypes.data)
        pointers = [ctypes.c_void_p(v.ctypes.data) for v in (x, w, init, y, scratch)]
        times: list[list[float]] = [[] for _ in runs]
        with core_to_itself() if args.realtime else nullcontext():
            for _ in range(args.rounds):
                for run, own in zip(runs, times, strict=True):
                    run.layer(*pointers, e)
                    start = time.perf_counter()
                    run.layer(*pointers, e)
                    own.append(time.perf_counter() - start)
        each = [median(own) for own in times]
        best = int(np.argmin(each))
        rate = 2 * side * side * ci * co / each[0] / 1e9
        print(
            f"{shape:12} chosen {params[0].mr:2}x{params[0].nv} {each[0] * 1e6:7.1f} us "
            f"{rate:4.0f} GOP/s, best of {len(each):3} {params[best].mr:2}x{params[best].nv} "
            f"{each[best] * 1e6:7.1f} us: loses {each[0] / each[best] - 1:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
