"""Float32 kernels against NumPy in float64, at odd sizes, on every instruction set this CPU has.

Buffers end at (and, in a second run, start at) a page without access, so that a read outside a
tensor kills the test; outputs start as canaries, so that a write between rows is seen.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import sparrow
from sparrow.kernels import packing_f32 as pf
from sparrow.kernels import params_f32 as pm
from sparrow.kernels.tiling_f32 import Product, choose_conv2d, choose_gemm, gemm_of
from sparrow.kernels.tiling_windows import choose_depthwise, choose_mean2d, choose_pool2d
from sparrow.kernels.tiling_winograd import choose_winograd, winograd_tiles
from sparrow.kernels.tiling_winograd_stream import choose_winograd_stream
from sparrow.kernels.winograd import pack_stream, pack_winograd
from sparrow.targets import target

F32 = NDArray[np.float32]
NATIVE = Path(sparrow.__file__).parent / "native"
CANARY = np.float32(-12345.678)
PAGE = mmap.PAGESIZE

ISAS = (
    ("scalar", pm.simd_of(target("x86_64")), ["-mcpu=x86_64", "-std=c99", "-pedantic"], ""),
    ("avx2", pm.simd_of(target("x86_64_v3")), ["-mcpu=x86_64_v3"], "AVX2"),
    ("avx512", pm.simd_of(target("x86_64_v4")), ["-mcpu=x86_64_v4"], "AVX512_SKX"),
)

EPILOGUE = """
SP_INLINE sp_f32 ep(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n) {
  const float *bias = (const float *)e[0];
  const float *add = (const float *)e[1];
  const sp_f32 v = sp_add_f32(acc, sp_loadn_f32(bias + col, n));
  return sp_add_f32(v, sp_loadn_f32(add + row * *(const int32_t *)e[2] + col, n));
}
"""


@dataclass(frozen=True)
class Case:
    """One kernel call; `want` is [rows, channels] before bias and residual."""

    name: str
    call: str
    tasks: int
    a: F32
    b: F32
    want: NDArray[np.float64]
    ld: int
    scratch: int = 0
    atol: float = 2e-5


def rnd(*shape: int) -> F32:
    """Values in [-1, 1), the same for the same shape."""
    return np.random.default_rng(shape).uniform(-1, 1, shape).astype(np.float32)


class Guarded:
    """`data` between two pages without access, next to the one after (or before) it."""

    def __init__(self, data: F32, at_end: bool) -> None:
        size = -(-data.nbytes // PAGE) * PAGE
        self.map = mmap.mmap(-1, size + 2 * PAGE)
        whole = np.frombuffer(self.map, np.uint8)
        base = whole.ctypes.data
        at = PAGE + (size - data.nbytes if at_end else 0)
        self.array: F32 = whole[at : at + data.nbytes].view(np.float32)
        self.array[:] = data.ravel()
        libc = ctypes.CDLL(None, use_errno=True)
        for page in (base, base + PAGE + size):
            assert libc.mprotect(ctypes.c_void_p(page), PAGE, 0) == 0
        self.pointer = ctypes.c_void_p(base + at)


@functools.cache
def conv_reference(s: pm.Conv2dShape) -> NDArray[np.float64]:
    """The convolution of `conv_data(s)`, [n * oh * ow, co]."""
    x, w = conv_data(s)
    y = np.zeros((s.batch, s.oh, s.ow, s.co))
    gi, go = s.ci // s.groups, s.co // s.groups
    for oy, ox, ky, kx in np.ndindex(s.oh, s.ow, s.kh, s.kw):
        iy, ix = oy * s.sh - s.pt + ky * s.dh, ox * s.sw - s.pl + kx * s.dw
        if 0 <= iy < s.ih and 0 <= ix < s.iw:
            for g in range(s.groups):
                o, i = slice(g * go, (g + 1) * go), slice(g * gi, (g + 1) * gi)
                y[:, oy, ox, o] += x[:, iy, ix, i].astype(float) @ w[o, :, ky, kx].T.astype(float)
    return y.reshape(-1, s.co)


def out(i: int, k: int, stride: int, dil: int, pads: int) -> int:
    return (i + pads - (k - 1) * dil - 1) // stride + 1


def window(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dil: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    *,
    c: int,
    xw: int,
    ldy: int,
    batch: int = 1,
) -> pm.Window:
    """NHWC with pixel distance xw; pads are top, left, bottom, right."""
    return pm.Window(
        batch=batch,
        ih=size[0],
        iw=size[1],
        oh=out(size[0], kernel[0], stride[0], dil[0], pads[0] + pads[2]),
        ow=out(size[1], kernel[1], stride[1], dil[1], pads[1] + pads[3]),
        kh=kernel[0],
        kw=kernel[1],
        sh=stride[0],
        sw=stride[1],
        dh=dil[0],
        dw=dil[1],
        pt=pads[0],
        pl=pads[1],
        xn=size[0] * size[1] * xw,
        xh=size[1] * xw,
        xw=xw,
        ldy=ldy,
    )


def strided(x: F32, ld: int) -> F32:
    """Rows [.., c] at distance ld, without the gap after the last row; gaps hold NaN."""
    c = x.shape[-1]
    flat = np.full((x.size // c, ld), np.nan, np.float32)
    flat[:, :c] = x.reshape(-1, c)
    return flat.ravel()[: flat.size - (ld - c)]


def gemm_cases(cpu: pm.Simd, threads: int) -> Iterator[Case]:
    sizes = [
        (1, 1, 1),
        (1, 10, 37),
        (1, 100, 64),
        (2, 33, 17),
        (3, 48, 5),
        (5, 7, 129),
        (14, 32, 64),
        (17, 65, 20),
        (64, 96, 33),
        (100, 130, 70),
        (49, 24, 40),
        (9, 40, 11),
        (15, 8, 6),
    ]
    for m, n, k in sizes:
        a, b = rnd(m, k), rnd(k, n)
        want = a.astype(float) @ b.astype(float)
        ldc = n + 3
        for form in ("packed", "plain", "trans"):
            p = choose_gemm(
                Product(m, n, k, b=form, lda=k + 2, ldb=max(n, k) + 1, ldc=ldc),
                cpu,
                threads=threads,
            )
            if form == "packed":
                packed = pf.pack_gemm_b(b, cpu.lanes)
            else:
                packed = strided(b if form == "plain" else b.T, max(n, k) + 1)
            yield gemm_case(f"gemm {m}x{n}x{k} {form}", p, strided(a, k + 2), packed, want)
    m, n, k = 9, 150, 20
    a, b = rnd(m, k), rnd(k, n)
    best = choose_gemm(Product(m, n, k), cpu)
    packed = pf.pack_gemm_b(b, cpu.lanes)
    for task_n, tasks in short_tasks(best.nv, -(-n // cpu.lanes)):
        p = replace(best, task_n=task_n, tasks=tasks)
        yield gemm_case(f"gemm tasks of {task_n}", p, a, packed, a.astype(float) @ b)
    m, n, k, batch = 13, 21, 18, 3
    a, b = rnd(batch, k, m), rnd(batch, n, k)
    want = np.einsum("zkm,znk->zmn", a.astype(float), b.astype(float)).reshape(-1, n)
    p = choose_gemm(Product(m, n, k, b="trans", batch=batch, a_trans=True), cpu, threads=threads)
    yield gemm_case("gemm batch, both transposed", p, a, b, want)
    b = rnd(batch, k, n)
    want = np.einsum("zkm,zkn->zmn", a.astype(float), b.astype(float)).reshape(-1, n)
    p = choose_gemm(Product(m, n, k, b="plain", batch=batch, a_trans=True), cpu, threads=threads)
    yield gemm_case("gemm batch, plain", p, a, b, want)
    p = replace(p, mc=p.mr, scratch_bytes=4 * k * (n + 40))
    yield gemm_case("gemm batch, plain packed", p, a, b, want)


def short_tasks(nv: int, vectors: int) -> list[tuple[int, int]]:
    """Vectors of a task, not all of them whole panels of nv, and how many tasks there are."""
    sizes = {1, max(1, nv - 1), nv + 1, -(-vectors // 2)}
    return [(task_n, -(-vectors // task_n)) for task_n in sorted(sizes)]


def gemm_case(name: str, p: pm.Gemm, a: F32, b: F32, want: NDArray[np.float64]) -> Case:
    lit = pm.c_literal(p)
    if p.scratch_bytes:
        call = f"sp_gemm_pack_f32({lit}, a, b, y, scratch, ep, e, i)"
    else:
        call = f"sp_gemm_f32({lit}, a, b, y, ep, e, i)"
    return Case(name, call, p.tasks, a, b, want, p.ldc, p.scratch_bytes)


CONVS: tuple[tuple[str, dict[str, object], int, int, dict[str, int]], ...] = (
    ("3x3", {"size": (9, 30), "kernel": (3, 3), "pads": (1, 1, 1, 1)}, 5, 35, {}),
    ("3x3 wide", {"size": (7, 7), "kernel": (3, 3), "pads": (1, 1, 1, 1)}, 16, 64, {}),
    ("3x3/2", {"size": (9, 31), "kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 1, 1)},
     4, 20, {}),
    ("5x3 dilated", {"size": (11, 40), "kernel": (5, 3), "dil": (2, 3), "pads": (4, 3, 4, 3)},
     3, 9, {}),
    ("1x1", {"size": (7, 9), "kernel": (1, 1)}, 13, 40, {}),
    ("1x1/2", {"size": (7, 9), "kernel": (1, 1), "stride": (2, 2)}, 13, 40, {}),
    ("7x7/2 nchw", {"size": (20, 70), "kernel": (7, 7), "stride": (2, 2), "pads": (3, 3, 3, 3)},
     3, 32, {"nchw": 1}),
    ("9x9 far pads", {"size": (4, 5), "kernel": (9, 9), "pads": (8, 8, 8, 8)}, 2, 3, {}),
    ("1x11", {"size": (1, 50), "kernel": (1, 11), "pads": (0, 5, 0, 5)}, 4, 18, {"batch": 2}),
    ("1x39", {"size": (2, 60), "kernel": (1, 39), "pads": (0, 30, 0, 9)}, 2, 18, {}),
    ("1x80/2", {"size": (1, 99), "kernel": (1, 80), "stride": (1, 2)}, 2, 18, {}),
    ("groups", {"size": (6, 8), "kernel": (3, 3), "pads": (1, 1, 1, 1)}, 6, 27, {"groups": 3}),
    ("all pixels", {"size": (4, 5), "kernel": (4, 5)}, 6, 19, {"dense": 1}),
    ("batch", {"size": (5, 6), "kernel": (2, 2)}, 3, 17, {"batch": 3}),
    ("batch 1x1", {"size": (5, 6), "kernel": (1, 1)}, 3, 17, {"batch": 3}),
    ("dilation past the edge", {"size": (5, 33), "kernel": (3, 3), "dil": (18, 18),
     "pads": (18, 18, 18, 18)}, 2, 16, {}),
)  # fmt: skip


def conv_cases(cpu: pm.Simd, threads: int) -> Iterator[Case]:
    for name, geometry, ci, co, more in CONVS:
        batch, groups = more.get("batch", 1), more.get("groups", 1)
        xw = ci if more.get("dense") else ci + 3
        base = window(**geometry, c=ci, xw=xw, ldy=co + 5, batch=batch)  # type: ignore[arg-type]
        s = pm.Conv2dShape(**base_fields(base), ci=ci, co=co, groups=groups)
        x, w = conv_data(s)
        want = conv_reference(s)
        data = strided(x, xw)
        if more.get("nchw"):
            s = replace(s, xn=ci * s.ih * s.iw, xh=s.iw, xw=1, xc=s.ih * s.iw)
            data = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        p = choose_conv2d(s, cpu, threads=threads)
        call = f"sp_conv2d_f32({pm.c_literal(p)}, a, b, y, ep, e, i)"
        packed = pf.pack_conv(w, groups, cpu.lanes)
        yield Case(f"conv {name}", call, p.tasks, data, packed, want, s.ldy)
        if name in ("3x3", "7x7/2 nchw"):  # as larger images have it
            assert not p.ahead
            call = f"sp_conv2d_f32({pm.c_literal(replace(p, ahead=1))}, a, b, y, ep, e, i)"
            yield Case(f"conv {name} ahead", call, p.tasks, data, packed, want, s.ldy)
        if (product := gemm_of(p)) is not None:
            yield gemm_case(f"conv {name} as gemm", product, data, packed, want)
    base = window((7, 7), (3, 3), pads=(1, 1, 1, 1), c=6, xw=6, ldy=150)
    s = pm.Conv2dShape(**base_fields(base), ci=6, co=150)
    x, w = conv_data(s)
    best = choose_conv2d(s, cpu)
    for task_n, tasks in short_tasks(best.nv, -(-s.co // cpu.lanes)):
        call = f"sp_conv2d_f32({pm.c_literal(replace(best, task_n=task_n))}, a, b, y, ep, e, i)"
        packed = pf.pack_conv(w, 1, cpu.lanes)
        yield Case(f"conv tasks of {task_n}", call, tasks, x, packed, conv_reference(s), s.ldy)


def conv_data(s: pm.Conv2dShape) -> tuple[F32, F32]:
    """Dense x [n, ih, iw, ci] and w [co, ci / groups, kh, kw]."""
    return rnd(s.batch, s.ih, s.iw, s.ci), rnd(s.co, s.ci // s.groups, s.kh, s.kw)


def base_fields(s: pm.Window) -> dict[str, int]:
    return {name: getattr(s, name) for name in pm.Window.__dataclass_fields__}


def winograd_cases(cpu: pm.Simd, threads: int) -> Iterator[Case]:
    shapes = (
        ((9, 11), (1, 1, 1, 1), 5, 35, 2),
        ((13, 14), (1, 0, 1, 2), 34, 17, 1),
        ((33, 41), (2, 2, 2, 2), 32, 48, 1),
    )
    for raw, (rank, (size, pads, ci, co, batch)) in product((False, True), enumerate(shapes)):
        base = window(size, (3, 3), pads=pads, c=ci, xw=ci + 1, ldy=co + 2, batch=batch)
        s = pm.Conv2dShape(**base_fields(base), ci=ci, co=co)
        best = choose_winograd(s, cpu, threads=threads, raw=raw)
        assert best is not None
        # the tile predicted best, second, third
        tile = winograd_tiles(best, cpu)[rank]
        p = choose_winograd(s, cpu, threads=threads, raw=raw, tile=tile)
        assert p is not None and (p.mr, p.nv) == (tile.mr, tile.nv) and p.tb == best.tb
        assert rank or p == best
        x, w = conv_data(s)
        call = f"sp_winograd_f32({pm.c_literal(p)}, a, b, y, scratch, ep, e, i)"
        packed = pf.pack_conv(w, 1, cpu.lanes) if raw else pack_winograd(w, cpu.lanes)
        want = conv_reference(s)
        yield Case(
            f"winograd {size} {ci} {co} {raw}", call, p.tasks, strided(x, ci + 1), packed,
            want, s.ldy, p.scratch_bytes, 1e-5 * float(np.abs(want).max()),
        )  # fmt: skip


def winograd_stream_cases(cpu: pm.Simd, threads: int) -> Iterator[Case]:
    shapes = (  # one tile, tails of tiles, of channels and of vectors, several blocks
        ((4, 3), (1, 1, 1, 1), 32, 16, 1),
        ((9, 11), (1, 1, 1, 1), 5, 35, 2),
        ((13, 14), (1, 0, 1, 2), 70, 17, 1),
        ((33, 41), (2, 2, 2, 2), 33, 48, 1),
    )
    small = replace(cpu, l2_bytes=cpu.l2_bytes // 4)
    for size, pads, ci, co, batch in shapes:
        base = window(size, (3, 3), pads=pads, c=ci, xw=ci + 1, ldy=co + 2, batch=batch)
        s = pm.Conv2dShape(**base_fields(base), ci=ci, co=co)
        p = choose_winograd_stream(s, small, threads=threads)
        assert p is not None
        x, w = conv_data(s)
        want = conv_reference(s)
        yield Case(
            f"winograd stream {size} {ci} {co}",
            f"sp_winograd_stream_f32({pm.c_literal(p)}, a, b, y, scratch, ep, e, i)",
            *(p.tasks, strided(x, ci + 1), pack_stream(w, cpu.lanes), want, s.ldy),
            *(p.scratch_bytes, 1e-5 * float(np.abs(want).max())),
        )


def depthwise_cases(cpu: pm.Simd, threads: int) -> Iterator[Case]:
    for name, geometry, _, c, more in CONVS:
        if more.get("nchw"):
            continue
        batch = more.get("batch", 1)
        s = window(**geometry, c=c, xw=c + 2, ldy=c + 1, batch=batch)  # type: ignore[arg-type]
        full = pm.Conv2dShape(**base_fields(s), ci=c, co=c, groups=c)
        x, w = conv_data(full)
        p = choose_depthwise(s, c, cpu, threads=threads)
        call = f"sp_depthwise_f32({pm.c_literal(p)}, a, b, y, ep, e, i)"
        packed = pf.pack_depthwise(w, cpu.lanes)
        want = conv_reference(full)
        yield Case(f"depthwise {name}", call, p.tasks, strided(x, c + 2), packed, want, s.ldy)


def pool_cases(cpu: pm.Simd, threads: int) -> Iterator[Case]:
    for c in (3, 70):
        for mode in ("max", "mean", "mean, pads count"):
            pads = (1, 0, 2, 1)
            s = window((9, 8), (3, 2), (2, 1), (1, 2), pads, c=c, xw=c + 1, ldy=c + 2, batch=2)
            x = rnd(2, 9, 8, c)
            fill = -np.inf if mode == "max" else 0.0
            wide = np.full((2, 9 + 3, 8 + 1, c), fill)
            wide[:, 1:10, 0:8] = x
            count = np.zeros((1, 12, 9, 1))
            count[:, 1:10, 0:8] = 1
            if mode == "mean, pads count":
                count[:] = 1
            want = np.zeros((2, s.oh, s.ow, c))
            for oy, ox in np.ndindex(s.oh, s.ow):
                at = (slice(None), slice(oy * 2, oy * 2 + 3), slice(ox, ox + 3, 2))
                if mode == "max":
                    want[:, oy, ox] = wide[at].max((1, 2))
                else:
                    want[:, oy, ox] = wide[at].sum((1, 2)) / count[at].sum()
            p = choose_pool2d(
                s,
                c,
                average=mode != "max",
                include_pad="count" in mode,
                pb=2,
                pr=1,
                threads=threads,
            )
            call = f"sp_pool2d_f32({pm.c_literal(p)}, a, y, ep, e, i)"
            data = strided(x, c + 1)
            yield Case(f"pool {mode} {c}", call, p.tasks, data, rnd(1), want.reshape(-1, c), s.ldy)
        m = choose_mean2d(
            7, 6, c, cpu, batch=2, xn=42 * (c + 1), xh=6 * (c + 1), xw=c + 1, ldy=c, threads=threads
        )
        x = rnd(2, 7, 6, c)
        call = f"sp_mean2d_f32({pm.c_literal(m)}, a, y, ep, e, i)"
        want = x.astype(float).mean((1, 2))
        yield Case(f"mean {c}", call, m.tasks, strided(x, c + 1), rnd(1), want, c)
        m = choose_mean2d(1, 6, c, cpu, batch=7, xn=6 * (c + 1), xw=c + 1, ldy=c, threads=threads)
        call = f"sp_mean2d_f32({pm.c_literal(m)}, a, y, ep, e, i)"
        want = x[0].astype(float).mean(1)
        yield Case(f"row means {c}", call, m.tasks, strided(x[:1], c + 1), rnd(1), want, c)


def build(cases: list[Case], isa: str, flags: list[str], path: Path) -> ctypes.CDLL:
    heads = ("gemm", "conv2d", "depthwise", "pool", "winograd", "winograd_stream")
    text = [f'#include "isa/{isa}.h"', *(f'#include "kernels/{h}_f32.h"' for h in heads), EPILOGUE]
    for number, case in enumerate(cases):
        text.append(
            f"void case{number}(const float *a, const float *b, float *y, float *scratch, "
            "const void *const *e) {\n  (void)b;\n  (void)scratch;\n"
            f"  for (int i = {case.tasks}; i-- > 0;) {case.call};\n}}"
        )
    source, library = path.with_suffix(".c"), path.with_suffix(".so")
    source.write_text("\n".join(text) + "\n")
    command = [sys.executable, "-m", "ziglang", "cc", "-O3", "-g0", "-fomit-frame-pointer"]
    command += ["-ffreestanding", "-nostdlib", "-shared", "-fPIC", "-target", "x86_64-linux-musl"]
    command += ["-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{NATIVE}", *flags]
    done = subprocess.run(
        [*command, str(source), "-o", str(library)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]
    return ctypes.CDLL(str(library))


def run(library: ctypes.CDLL, number: int, case: Case, at_end: bool) -> F32:
    rows, n = case.want.shape
    a, b = Guarded(case.a, at_end), Guarded(case.b, at_end)
    y = Guarded(np.full((rows - 1) * case.ld + n, CANARY, np.float32), at_end)
    bias, add = Guarded(rnd(n), at_end), Guarded(rnd(rows, n), at_end)
    scratch = Guarded(np.zeros(max(case.scratch // 4, 1), np.float32), at_end)
    width = ctypes.c_int32(n)
    e = (ctypes.c_void_p * 3)(bias.pointer, add.pointer, ctypes.addressof(width))
    library[f"case{number}"](a.pointer, b.pointer, y.pointer, scratch.pointer, e)
    got = np.full((rows, case.ld), CANARY)
    got.ravel()[: y.array.size] = y.array
    assert (got[:, n:] == CANARY).all(), f"{case.name}: wrote between rows"
    return got[:, :n]


@pytest.mark.parametrize(("isa", "cpu", "flags", "feature"), ISAS, ids=[i[0] for i in ISAS])
def test_kernels(isa: str, cpu: pm.Simd, flags: list[str], feature: str, tmp_path: Path) -> None:
    have = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    if feature and not have.get(feature):
        pytest.skip(f"this CPU has no {feature}")
    convs = (conv_cases, winograd_cases, winograd_stream_cases, depthwise_cases)
    makers = (gemm_cases, *convs, pool_cases)
    cases = [case for make in makers for case in make(cpu, 1)]
    if not cpu.shares:  # the vocabulary has it for all
        shared = [c for m in (gemm_cases, conv_cases) for c in m(replace(cpu, shares=True), 1)]
        cases += [replace(c, name=f"{c.name} shared") for c in shared if ".shared = 1" in c.call]
    cases += [case for make in makers for case in make(cpu, 16) if case.tasks > 1]
    with ThreadPoolExecutor(2) as pool:  # half of the cases each
        parts = (cases[::2], cases[1::2])
        todo = [pool.submit(build, c, isa, flags, tmp_path / str(i)) for i, c in enumerate(parts)]
        libraries = [f.result() for f in todo]
    first: dict[str, F32] = {}
    for number, case in enumerate(cases):
        rows, n = case.want.shape
        want = case.want + rnd(n) + rnd(rows, n)
        for at_end in (True, False):
            got = run(libraries[number % 2], number // 2, case, at_end)
            np.testing.assert_allclose(got, want, 1e-5, case.atol, err_msg=case.name)
            np.testing.assert_array_equal(
                got, first.setdefault(case.name, got), f"{case.name}: depends on tasks"
            )
