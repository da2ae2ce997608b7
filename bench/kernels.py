"""Times of the float32 kernels, layer by layer, beside ONNX Runtime's kernels for the same layers.

    python bench/kernels.py [--isa avx2] [--rounds 20] [--cold] [--set name.field=value] [names ...]

Single thread. Both run in turn in one process; ONNX Runtime's time is that of its compute node
alone (its profiler, whole microseconds; layout reorders around a single convolution do not count).
Printed is the lower quartile in GFLOP/s for both, and the ratio (above 1: we are faster).
`--set face.mr=7` overrides a field of the parameters of the layers with that name, for tuning.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

import sparrow
from sparrow.kernels import packing_f32 as pf
from sparrow.kernels import params_f32 as pm
from sparrow.kernels.tiling_f32 import Product, choose_conv2d, choose_gemm
from sparrow.kernels.tiling_windows import choose_depthwise, choose_mean2d, choose_pool2d
from sparrow.kernels.tiling_winograd import choose_winograd
from sparrow.kernels.winograd import pack_winograd
from sparrow.targets import target

F32 = NDArray[np.float32]
NATIVE = Path(sparrow.__file__).parent / "native"
CPUS = {
    "scalar": pm.simd_of(target("x86_64")),
    "avx2": pm.simd_of(target("x86_64_v3")),
    "avx512": pm.simd_of(target("x86_64_v4")),
}
MCPU = {"scalar": "x86_64", "avx2": "x86_64_v3", "avx512": "x86_64_v4"}
COMPUTE = ("Conv", "Gemm", "MatMul", "FusedMatMul", "FusedConv", "MaxPool", "GlobalAveragePool")

EPILOGUE = """
SP_INLINE sp_f32 ep(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n) {
  (void)row;
  return sp_maxq_f32(sp_add_f32(acc, sp_loadn_f32((const float *)e[0] + col, n)), sp_zero_f32());
}
"""


@dataclass(frozen=True)
class Layer:
    """A layer both ways: our parameters and arrays, and a one-node ONNX model with its feeds."""

    name: str
    flops: int
    params: pm.Params
    a: F32
    b: F32
    outputs: int
    model: onnx.ModelProto
    feeds: dict[str, F32]


def rnd(*shape: int) -> F32:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def model(
    op: str, inputs: dict[str, F32], consts: dict[str, F32], domain: str = "", **attributes: Any
) -> onnx.ModelProto:
    """Inputs x (and b), then constants, into one node with one output y."""
    node = helper.make_node(op, [*inputs, *consts], ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(v, n) for n, v in consts.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def conv(
    name: str, size: int | tuple[int, int], ci: int, co: int, k: int, cpu: pm.Simd,
    stride: int = 1, groups: int = 1, nchw: bool = False, winograd: bool = False,
) -> Layer:  # fmt: skip
    """A convolution with pads k // 2; depthwise when ci == co == groups."""
    ih, iw = (size, size) if isinstance(size, int) else size
    pad = k // 2
    oh, ow = ((i + 2 * pad - k) // stride + 1 for i in (ih, iw))
    x, w, bias = rnd(1, ci, ih, iw), rnd(co, ci // groups, k, k), rnd(co)
    window = {
        "ih": ih, "iw": iw, "oh": oh, "ow": ow, "kh": k, "kw": k, "xn": 0, "xh": iw * ci, "xw": ci,
        "ldy": co, "sh": stride, "sw": stride, "pt": pad, "pl": pad,
    }  # fmt: skip
    params: pm.Params
    if ci == co == groups:
        params, packed = (
            choose_depthwise(pm.Window(**window), ci, cpu),
            pf.pack_depthwise(w, cpu.lanes),
        )
    else:
        if nchw:
            window |= {"xh": iw, "xw": 1, "xc": ih * iw}
        params = choose_conv2d(pm.Conv2dShape(**window, ci=ci, co=co, groups=groups), cpu)
        packed = pf.pack_conv(w, groups, cpu.lanes)
        if winograd:
            chosen = choose_winograd(pm.Conv2dShape(**window, ci=ci, co=co), cpu)
            assert chosen is not None
            params, packed = chosen, pack_winograd(w, cpu.lanes)
    node = model(
        "Conv", {"x": x}, {"w": w, "bias": bias}, group=groups, strides=[stride] * 2, pads=[pad] * 4
    )
    data = x if nchw else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    flops = 2 * oh * ow * co * ci // groups * k * k
    return Layer(name, flops, params, data, packed, oh * ow * co, node, {"x": x})


def gemm(name: str, m: int, k: int, n: int, cpu: pm.Simd) -> Layer:
    """A product with constant B."""
    a, b = rnd(m, k), rnd(k, n)
    params = choose_gemm(Product(m, n, k), cpu)
    node = model("Gemm", {"x": a}, {"w": b, "bias": rnd(n)})
    return Layer(
        name, 2 * m * n * k, params, a, pf.pack_gemm_b(b, cpu.lanes), m * n, node, {"x": a}
    )


def attention(name: str, m: int, k: int, n: int, heads: int, trans: bool, cpu: pm.Simd) -> Layer:
    """A product per head, B known at run time."""
    a, b = rnd(heads, m, k), rnd(heads, n, k) if trans else rnd(heads, k, n)
    params = choose_gemm(Product(m, n, k, batch=heads, b="trans" if trans else "plain"), cpu)
    feeds = {"x": a, "b": b}
    node = model("FusedMatMul", feeds, {}, "com.microsoft", transB=int(trans))
    return Layer(name, 2 * m * n * k * heads, params, a, b, heads * m * n, node, feeds)


def pool(name: str, size: int, c: int, k: int, stride: int) -> Layer:
    """A maximum over k x k, with pads as ResNet has them for k = 3."""
    o = (size + 2 - k) // stride + 1
    x = rnd(1, c, size, size)
    window = pm.Window(
        ih=size, iw=size, oh=o, ow=o, kh=k, kw=k, xn=0, xh=size * c, xw=c, ldy=c, sh=stride,
        sw=stride, pt=1, pl=1,
    )  # fmt: skip
    node = model("MaxPool", {"x": x}, {}, kernel_shape=[k] * 2, strides=[stride] * 2, pads=[1] * 4)
    data = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    params = choose_pool2d(window, c)
    return Layer(name, o * o * c * k * k, params, data, x, o * o * c, node, {"x": x})


def mean(name: str, size: int, c: int, cpu: pm.Simd) -> Layer:
    """Global average pooling."""
    x = rnd(1, c, size, size)
    data = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    params = choose_mean2d(size, size, c, cpu)
    node = model("GlobalAveragePool", {"x": x}, {})
    return Layer(name, size * size * c, params, data, x, c, node, {"x": x})


def layers(cpu: pm.Simd) -> list[Layer]:
    return [
        conv("resnet 7x7/2 3-64", 224, 3, 64, 7, cpu, 2, nchw=True),
        conv("resnet 56 3x3 64", 56, 64, 64, 3, cpu),
        conv("resnet 28 3x3 128", 28, 128, 128, 3, cpu),
        conv("resnet 14 3x3 256", 14, 256, 256, 3, cpu),
        conv("resnet 7 3x3 512", 7, 512, 512, 3, cpu),
        *(
            conv(f"winograd {size} 3x3 {ci}", size, ci, ci, 3, cpu, winograd=True)
            for size, ci in ((56, 64), (28, 128), (14, 256), (7, 512), ((60, 80), 32))
        ),
        conv("winograd 120x160 3x3 16", (120, 160), 16, 16, 3, cpu, winograd=True),
        conv("winograd 55 3x3 16-64", 55, 16, 64, 3, cpu, winograd=True),
        conv("winograd 13 3x3 64-256", 13, 64, 256, 3, cpu, winograd=True),
        conv("resnet 56 1x1 64-256", 56, 64, 256, 1, cpu),
        conv("resnet 56 1x1 256-64", 56, 256, 64, 1, cpu),
        conv("resnet 28 1x1 512-128", 28, 512, 128, 1, cpu),
        conv("resnet 14 1x1 256-1024", 14, 256, 1024, 1, cpu),
        conv("resnet 14 1x1 1024-256", 14, 1024, 256, 1, cpu),
        conv("resnet 7 1x1 2048-512", 7, 2048, 512, 1, cpu),
        conv("resnet 7 1x1 512-2048", 7, 512, 2048, 1, cpu),
        conv("resnet 56 1x1/2 256-512", 56, 256, 512, 1, cpu, 2),
        conv("resnet 14 3x3/2 512", 14, 512, 512, 3, cpu, 2),
        conv("mbv2 3x3/2 3-32", 224, 3, 32, 3, cpu, 2, nchw=True),
        conv("mbv2 112 1x1 32-16", 112, 32, 16, 1, cpu),
        conv("mbv2 112 1x1 16-96", 112, 16, 96, 1, cpu),
        conv("mbv2 56 1x1 24-144", 56, 24, 144, 1, cpu),
        conv("mbv2 28 1x1 192-32", 28, 192, 32, 1, cpu),
        conv("mbv2 14 1x1 384-96", 14, 384, 96, 1, cpu),
        conv("mbv2 7 1x1 160-960", 7, 160, 960, 1, cpu),
        conv("mbv2 7 1x1 320-1280", 7, 320, 1280, 1, cpu),
        conv("mbv2 dw 112 32", 112, 32, 32, 3, cpu, 1, 32),
        conv("mbv2 dw/2 112 96", 112, 96, 96, 3, cpu, 2, 96),
        conv("mbv2 dw 56 144", 56, 144, 144, 3, cpu, 1, 144),
        conv("mbv2 dw 28 192", 28, 192, 192, 3, cpu, 1, 192),
        conv("mbv2 dw 14 576", 14, 576, 576, 3, cpu, 1, 576),
        conv("mbv2 dw 7 960", 7, 960, 960, 3, cpu, 1, 960),
        conv("dw 5x5 28 240", 28, 240, 240, 5, cpu, 1, 240),
        conv("face 3x3/2 3-16", (240, 320), 3, 16, 3, cpu, 2, nchw=True),
        conv("face dw 120x160 16", (120, 160), 16, 16, 3, cpu, 1, 16),
        conv("face 1x1 120x160 16-32", (120, 160), 16, 32, 1, cpu),
        conv("face 3x3 120x160 16", (120, 160), 16, 16, 3, cpu),
        conv("face 1x1 60x80 32-32", (60, 80), 32, 32, 1, cpu),
        conv("face 3x3 60x80 32", (60, 80), 32, 32, 3, cpu),
        conv("face 1x1 30x40 64-64", (30, 40), 64, 64, 1, cpu),
        conv("face 3x3 30x40 64-12", (30, 40), 64, 12, 3, cpu),
        conv("face 1x1 15x20 128-128", (15, 20), 128, 128, 1, cpu),
        conv("face 1x1 8x10 256-256", (8, 10), 256, 256, 1, cpu),
        conv("face 3x3 8x10 256-12", (8, 10), 256, 12, 3, cpu),
        conv("squeeze 55 1x1 64-16", 55, 64, 16, 1, cpu),
        conv("squeeze 55 3x3 16-64", 55, 16, 64, 3, cpu),
        conv("squeeze 13 3x3 64-256", 13, 64, 256, 3, cpu),
        conv("squeeze 13 1x1 512-1000", 13, 512, 1000, 1, cpu),
        conv("groups 14 3x3 256 g32", 14, 256, 256, 3, cpu, 1, 32),
        pool("maxpool 112 3x3/2 64", 112, 64, 3, 2),
        pool("maxpool 55 3x3/2 128", 55, 128, 3, 2),
        mean("mean 7 2048", 7, 2048, cpu),
        mean("mean 13 1000", 13, 1000, cpu),
        *(gemm(f"gemm {n}x{n}x{n}", n, n, n, cpu) for n in (64, 256, 512, 1024)),
        gemm("bert 128x256x256", 128, 256, 256, cpu),
        gemm("bert 128x256x1024", 128, 256, 1024, cpu),
        gemm("bert 128x1024x256", 128, 1024, 256, cpu),
        gemm("gemm 64x512x512", 64, 512, 512, cpu),
        attention("attention QK 128x64x128", 128, 64, 128, 4, True, cpu),
        attention("attention QK 128x32x128", 128, 32, 128, 8, True, cpu),
        attention("attention PV 128x128x64", 128, 128, 64, 4, False, cpu),
        gemm("gemv 1x1024x1000", 1, 1024, 1000, cpu),
        gemm("gemv 1x2048x1000", 1, 2048, 1000, cpu),
        gemm("gemv 1x256x256", 1, 256, 256, cpu),
        gemm("gemv 1x64x10", 1, 64, 10, cpu),
    ]


def call(p: pm.Params) -> str:
    text = pm.c_literal(p)
    if isinstance(p, pm.Gemm):
        if p.scratch_bytes:
            return f"sp_gemm_pack_f32({text}, a, b, y, scratch, ep, e, i)"
        return f"sp_gemm_f32({text}, a, b, y, ep, e, i)"
    if isinstance(p, (pm.Pool2d, pm.Mean2d)):
        kind = "pool2d" if isinstance(p, pm.Pool2d) else "mean2d"
        return f"sp_{kind}_f32({text}, a, y, ep, e, i)"
    if isinstance(p, pm.Winograd):
        return f"sp_winograd_f32({text}, a, b, y, scratch, ep, e, i)"
    kind = "conv2d" if isinstance(p, pm.Conv2d) else "depthwise"
    return f"sp_{kind}_f32({text}, a, b, y, ep, e, i)"


def build(chosen: list[Layer], isa: str, folder: Path) -> Path:
    """One function per layer, `times` runs of all its tasks."""
    heads = ("gemm", "conv2d", "depthwise", "pool", "winograd")
    text = [f'#include "isa/{isa}.h"', *(f'#include "kernels/{h}_f32.h"' for h in heads), EPILOGUE]
    for number, layer in enumerate(chosen):
        text.append(
            f"void layer{number}(const float *a, const float *b, float *y, float *scratch, "
            "const void *const *e, int times) {\n  (void)scratch;\n"
            f"  while (times-- > 0)\n    for (int i = 0; i < {layer.params.tasks}; ++i)\n"
            f"      {call(layer.params)};\n}}"
        )
    source, library = folder / "layers.c", folder / "layers.so"
    source.write_text("\n".join(text) + "\n")
    flags = ["-O3", "-Xclang", "-O3", "-g0", "-fomit-frame-pointer", "-ffreestanding", "-nostdlib"]
    flags += ["-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", f"-I{NATIVE}"]
    flags += ["-target", "x86_64-linux-musl", f"-mcpu={MCPU[isa]}"]
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *flags, str(source), "-o", str(library)], check=True
    )
    return library


def ours(library: ctypes.CDLL, number: int, layer: Layer) -> Callable[[int], float]:
    """Seconds per run of `times` runs in a row."""
    aligned = [aligned_copy(v) for v in (layer.a, layer.b, np.zeros(layer.outputs, np.float32))]
    scratch = aligned_copy(
        np.zeros(max(getattr(layer.params, "scratch_bytes", 0) // 4, 1), np.float32)
    )
    bias = rnd(1 << 14)
    e = (ctypes.c_void_p * 1)(bias.ctypes.data)
    pointers = [ctypes.c_void_p(v.ctypes.data) for v in (*aligned, scratch)]
    function = library[f"layer{number}"]

    def run(times: int, keep: object = (aligned, scratch, bias)) -> float:
        if times == 0:  # input and output into the cache, as the layer before leaves them
            return float(aligned[0].sum() + aligned[2].sum() + scratch.sum())
        start = time.perf_counter()
        function(*pointers, e, times)
        return (time.perf_counter() - start) / times

    return run


def aligned_copy(v: F32) -> F32:
    raw = np.empty(v.nbytes + 64, np.uint8)
    out = raw[-raw.ctypes.data % 64 :][: v.nbytes].view(np.float32)
    out[:] = v.ravel()
    return out


def runtime(layer: Layer, folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "ort")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        layer.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def node_seconds(profile: str) -> list[float]:
    events = json.loads(Path(profile).read_text())
    return [
        1e-6 * event["dur"]
        for event in events
        if event.get("cat") == "Node"
        and event["name"].endswith("_kernel_time")
        and event["args"].get("op_name") in COMPUTE
    ]


def override(layer: Layer, settings: list[str]) -> Layer:
    for setting in settings:
        where, value = setting.split("=")
        part, field = where.rsplit(".", 1)
        if part in layer.name and hasattr(layer.params, field):
            changed: dict[str, Any] = {field: int(value)}
            layer = replace(layer, params=replace(layer.params, **changed))
    return layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--isa", default="avx512", choices=CPUS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--cold", action="store_true", help="weights not in any cache")
    parser.add_argument("--no-ort", action="store_true", help="time our side only")
    options = parser.parse_args()
    chosen = [
        override(layer, options.set)
        for layer in layers(CPUS[options.isa])
        if not options.names or any(name in layer.name for name in options.names)
    ]
    sweep = np.zeros((64 << 20) if options.cold else 0, np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = ctypes.CDLL(str(build(chosen, options.isa, folder)))
        for number, layer in enumerate(chosen):
            run = ours(library, number, layer)
            run(1)
            times = max(1, int(2e-3 / run(2)))
            session: Any = None if options.no_ort else runtime(layer, folder)
            mine: list[float] = []
            for _ in range(options.rounds):
                if options.cold:
                    sweep += 1
                run(0 if options.cold else 1)
                mine.append(run(1 if options.cold else times))
                for _ in range((1 if options.cold else 10) if session else 0):
                    if options.cold:
                        sweep += 1
                    session.run(None, layer.feeds)
            t = float(np.quantile(mine, 0.25))
            tile = "x".join(str(getattr(layer.params, f, "")) for f in ("mr", "nv", "ku"))
            line = f"{layer.name:26s}{tile.strip('x'):>8s}{1e6 * t:10.1f} us"
            line += f"{1e-9 * layer.flops / t:8.1f}"
            if session:
                other = float(np.quantile(node_seconds(session.end_profiling()), 0.25))
                line += f"   ort{1e-9 * layer.flops / other:8.1f}   x{other / t:.2f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
