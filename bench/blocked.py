"""Depthwise 3x3 then 1x1 in float32: through memory, or a block of rows at a time.

    python bench/blocked.py [--rounds 40] [--realtime]

Block by block, the depthwise rows lie in a scratch of a few rows that the product consumes at once.
Both run the kernels of a build, with its tiles; weights and inputs are the same. Printed is the
time of the pair through memory, and that of each number of rows as a share of it.
"""

import argparse
import ctypes
import time
from contextlib import nullcontext
from dataclasses import replace
from statistics import median

import numpy as np

from nets.build import Array
from run import core_to_itself
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.here import resolve_target
from sparrow.kernels.packing_f32 import pack_conv, pack_depthwise
from sparrow.kernels.params_f32 import Conv2dShape, Window, c_literal, simd_of
from sparrow.kernels.tiling_f32 import choose_conv2d, conv2d_tiles, gemm_of
from sparrow.kernels.tiling_windows import choose_depthwise

# side x stride: channels of the depthwise layer, and of the product
LAYERS = {
    "mobilenet_v1": ((112, 1, 32, 64), (112, 2, 64, 128), (56, 1, 128, 128), (28, 1, 256, 256),
                     (14, 1, 512, 512), (7, 1, 1024, 1024)),
    "mobilenet_v2": ((112, 1, 32, 16), (112, 2, 96, 24), (56, 1, 144, 24), (28, 1, 192, 32),
                     (14, 1, 384, 64), (14, 1, 576, 96), (7, 1, 960, 160)),
    "RFB-320": ((120, 1, 16, 32), (60, 1, 32, 32), (30, 1, 64, 64), (15, 1, 128, 128)),
}  # fmt: skip
ROWS = (1, 2, 4, 8, 16)

SOURCE = """
#include "isa/{isa}.h"
#include "kernels/depthwise_f32.h"
#include "kernels/gemm_f32.h"
#include "sparrow.h"
SP_INLINE sp_f32 ep(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n) {{
  (void)row, (void)e, (void)col, (void)n;
  return sp_maxq_f32(acc, sp_zero_f32());
}}
SPARROW_API void pair(const float *x, const float *w, float *mid, const float *v, float *y);
SPARROW_API void pair(const float *x, const float *w, float *mid, const float *v, float *y) {{
  for (int t = 0; t < {tasks}; ++t) {{
    float *rows = mid - (ptrdiff_t)t * {back};
    sp_depthwise_f32({depthwise}, x, w, rows, ep, NULL, t);
    sp_gemm_f32({product}, rows, v, y, ep, NULL, t);
  }}
}}
"""


def variants(side: int, stride: int, c: int, co: int) -> list[str]:
    """Sources: through memory, then a block of each number of rows."""
    cpu, out = simd_of(resolve_target("host")), (side - 1) // stride + 1
    window = Window(
        ih=side, iw=side, oh=out, ow=out, kh=3, kw=3, xn=0, xh=side * c, xw=c, ldy=c, sh=stride,
        sw=stride, pt=1, pl=1,
    )  # fmt: skip
    shape = Conv2dShape(
        ih=out, iw=out, oh=out, ow=out, kh=1, kw=1, xn=0, xh=out * c, xw=c, ldy=co, ci=c, co=co
    )
    depthwise, whole = choose_depthwise(window, c, cpu), choose_conv2d(shape, cpu)
    found = []
    for rows in (out, *(r for r in ROWS if r < out)):
        # a task takes whole tiles
        tiles = conv2d_tiles(whole, cpu)
        tile = next(t for t in tiles if rows == out or rows * out % t.mr == 0)
        product = gemm_of(choose_conv2d(shape, cpu, tile=tile))
        assert product is not None
        d = replace(depthwise, task_h=rows, rb=min(rows, depthwise.rb))
        p = replace(product, task_m=rows * out, mc=min(rows * out, product.mc))
        found.append(
            SOURCE.format(
                isa=resolve_target("host").isa.name,
                tasks=-(-out // rows),
                back=0 if rows == out else rows * out * c,
                depthwise=c_literal(d),
                product=c_literal(p),
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--realtime", action="store_true", help="see run.py")
    args = parser.parse_args()
    rng, tools, target = np.random.default_rng(0), find_toolchain(), resolve_target("host")
    for name, layers in LAYERS.items():
        for side, stride, c, co in layers:
            runs = []
            for text in variants(side, stride, c, co):
                unit = Unit("pair.c", text, (NATIVE,))
                objects = tools.compile_objects([unit], target.machine, ("-std=gnu99",))
                runs.append(ctypes.CDLL(str(tools.link_shared(objects, target.machine))))
            x = rng.standard_normal(side * side * c + 64, np.float32)
            mid, y = np.zeros_like(x), np.zeros(side * side * co + 64, np.float32)
            w = pack_depthwise(rng.standard_normal((c, 1, 3, 3), np.float32), target.isa.lanes)
            v = pack_conv(rng.standard_normal((co, c, 1, 1), np.float32), 1, target.isa.lanes)
            pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, w, mid, v, y)]
            results: list[Array] = []
            times: list[list[float]] = [[] for _ in runs]
            for run in runs:
                run.pair(*pointers)
                results.append(y.copy())
            assert all((r == results[0]).all() for r in results), "blocks differ"
            with core_to_itself() if args.realtime else nullcontext():
                for _ in range(args.rounds):
                    for run, own in zip(runs, times, strict=True):
                        run.pair(*pointers)
                        start = time.perf_counter()
                        run.pair(*pointers)
                        own.append(time.perf_counter() - start)
            whole, *rest = (median(own) for own in times)
            shares = ", ".join(f"{r} {t / whole:.2f}" for r, t in zip(ROWS, rest, strict=False))
            print(
                f"{name:13} {side:3} s{stride} {c:4} -> {co:4}: {whole * 1e6:7.1f} us through "
                f"memory ({4 * c * (side // stride) ** 2 / 1024:5.0f} kB between); rows: {shares}",
                flush=True,
            )


if __name__ == "__main__":
    main()
