"""Convolution rows: depthwise row kernels and implicit GEMM, channels last."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparrow.kernels.case import (
    Case,
    Epilogue,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Pack,
    Packed,
    Reject,
    Scratch,
    Tensor,
    Tile,
    row_stride,
)
from sparrow.kernels.conv_forms import groups_together, in_a_row, lying
from sparrow.kernels.epilogue import epilogue_of, stored_half
from sparrow.kernels.packing_f32 import pack_conv, pack_depthwise, pack_pairs
from sparrow.kernels.params_f32 import (
    Conv2dShape,
    Window,
    Winograd,
    WinogradStream,
    params_of,
    shape_text,
    simd_of,
)
from sparrow.kernels.spans import channels_of, gemm_spans, window_spans
from sparrow.kernels.tiling_f32 import choose_conv2d, conv2d_cycles, conv2d_tiles, gemm_of
from sparrow.kernels.tiling_windows import choose_depthwise, depthwise_tiles
from sparrow.kernels.tiling_winograd import choose_winograd, winograd_cycles, winograd_tiles
from sparrow.kernels.tiling_winograd_stream import (
    choose_winograd_stream,
    inside,
    winograd_stream_cycles,
)
from sparrow.kernels.winograd import pack_stream, pack_winograd
from sparrow.ops.conv import Conv
from sparrow.targets.instruction_sets import ENGINE_ISAS
from sparrow.tensor import BF16, F32, Array, DType


def image_strides(t: Tensor) -> tuple[int, int, int, int]:
    """(xn, xh, xw, xc) of a channels-last tensor of one or two spatial axes."""
    n, *spatial, c = t.strides
    return (n, spatial[0] if len(spatial) == 2 else 0, spatial[-1], c)


def window_of(
    case: Case,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
) -> dict[str, int] | Reject:
    """Sizes of a channels-last window layer as `Window` fields."""
    x, y = case.x[0], case.y[0]
    assert x is not None
    ldy = row_stride(y)
    if ldy is None:
        return Reject("output pixels are not equally spaced")
    if len(kernel) > 2:
        return Reject(f"{len(kernel)} spatial axes")
    if 0 in (*x.shape, *y.shape):
        return Reject("empty operands")
    one = len(kernel) == 1
    xn, xh, xw, _ = image_strides(x)

    def two(v: tuple[int, ...], fill: int) -> tuple[int, int]:
        return (fill, v[0]) if one else (v[0], v[1])

    ih, iw = two(x.shape[1:-1], 1)
    oh, ow = two(y.shape[1:-1], 1)
    kh, kw = two(kernel, 1)
    sh, sw = two(strides, 1)
    dh, dw = two(dilations, 1)
    pt, pl = two(tuple(p[0] for p in pads), 0)
    return {
        "ih": ih, "iw": iw, "oh": oh, "ow": ow, "kh": kh, "kw": kw, "xn": xn, "xh": xh, "xw": xw,
        "ldy": ldy, "sh": sh, "sw": sw, "dh": dh, "dw": dw, "pt": pt, "pl": pl, "batch": x.shape[0],
    }  # fmt: skip


def _common(case: Case, dtype: DType = F32) -> tuple[Conv, Tensor, Tensor] | Reject:
    op = case.op
    assert isinstance(op, Conv)
    x, w = case.x[0], case.x[1]
    assert x is not None and w is not None
    if not op.channels_last:
        return Reject("channels are not last")
    if x.type.dtype != dtype or w.type.dtype != dtype:
        return Reject(f"{x.type.dtype} x {w.type.dtype}")
    if dtype == BF16 and op.accumulate != F32:
        return Reject("sums are not float32")
    if w.const is None:
        return Reject("weights are not constant")
    return op, x, w


def _two_d(w: Tensor) -> Array:
    assert w.const is not None
    o, i, *kernel = w.shape
    return w.const if len(kernel) == 2 else w.const.reshape(o, i, 1, *kernel)


def _depthwise(case: Case) -> Lowered | Reject:
    half_in = case.x[0] is not None and case.x[0].type.dtype == BF16
    common = _common(case, BF16 if half_in else F32)
    if isinstance(common, Reject):
        return common
    op, x, w = common
    c = x.shape[-1]
    if op.group != c or w.shape[0] != c:
        return Reject("not depthwise with one output per channel")
    if x.strides[-1] != 1 and c > 1:
        return Reject("input channels are not adjacent")
    window = window_of(case, w.shape[2:], op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    ep = epilogue_of(case, op.epilogue, 2, 3, half=True)
    if isinstance(ep, Reject):
        return ep
    simd = simd_of(case.target)
    ep, half = stored_half(ep)
    s, weights = lying(Window(**window), _two_d(w))
    p = choose_depthwise(s, c, simd, threads=case.threads, xhalf=half_in, half=half, tile=case.tile)
    call = Invoke(
        "depthwise_f32.h",
        "sp_depthwise_f32",
        "sp_depthwise",
        params_of(p),
        (In(0), Packed(0), Out(0), ep),
    )
    flops = op.flops([t.type if t else None for t in case.x], (case.y[0].type,))
    columns = -(-c // simd.lanes) * simd.lanes
    packed = Pack(
        (s.kh * s.kw, columns),
        np.dtype(np.float32),
        lambda: pack_depthwise(weights, simd.lanes),
    )
    # bfloat16 is half as much to read, and two more instructions a vector
    rate = 0.4 if half_in and simd.dot2_ops == 1 else 0.35
    cycles = flops / (case.target.isa.flops_per_cycle * rate)
    return Lowered(
        *((call,), p.tasks, (packed,)),
        cycles=cycles,
        shape=shape_text(s, c=c, xhalf=int(half_in), half=int(half)),
        tiles=depthwise_tiles(s, simd),
        tile=Tile(p.mr, 1),
        spans=window_spans(
            *(p, p.task_h, channels_of(c, simd.lanes, p.task_c)),
            *((c, x.type.dtype.bytes), case.y[0], ep),
        ),
    )


def _shape_of(case: Case, dtype: DType = F32) -> tuple[Conv2dShape, Epilogue, Array] | Reject:
    common = _common(case, dtype)
    if isinstance(common, Reject):
        return common
    op, x, w = common
    window = window_of(case, w.shape[2:], op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    ep = epilogue_of(case, op.epilogue, 2, 3, half=True)
    if isinstance(ep, Reject):
        return ep
    ci, co, xc = x.shape[-1], w.shape[0], image_strides(x)[3]
    s = Conv2dShape(**window, ci=ci, co=co, groups=op.group, xc=xc)
    weights = _two_d(w)
    if dtype == F32 and not case.target.machine.bare:
        s, weights = groups_together(s, weights, case.target.isa.lanes, 1)
    s, weights = in_a_row(s, weights)
    return s, ep, weights


def bf16_shape(case: Case) -> tuple[Conv2dShape, Array] | Reject:
    """Sizes and OIHW weights of a convolution of bfloat16 with adjacent channels."""
    found = _shape_of(case, BF16)
    if isinstance(found, Reject):
        return found
    s, _, w = found
    return Reject("input channels are not adjacent") if s.xc != 1 else (s, w)


def _conv2d(case: Case) -> Lowered | Reject:
    found = _shape_of(case)
    if isinstance(found, Reject):
        return found
    return _implicit_gemm(case, *found)


def _conv2d_bf16(case: Case) -> Lowered | Reject:
    """The kernel of `_conv2d` over pairs of bfloat16: two channels are one element."""
    found = _shape_of(case, BF16)
    if isinstance(found, Reject):
        return found
    s, ep, w = found
    if s.ci // s.groups % 2:
        return Reject("an odd number of input channels")
    if s.xc != 1 or any(d % 2 for d in (s.xn, s.xh, s.xw)):
        return Reject("pairs of input channels do not lie at whole distances")
    halved = replace(s, ci=s.ci // 2, xn=s.xn // 2, xh=s.xh // 2, xw=s.xw // 2)
    return _implicit_gemm(case, halved, ep, w, pair=True)


def _implicit_gemm(
    case: Case, s: Conv2dShape, ep: Epilogue, w: Array, pair: bool = False
) -> Lowered:
    simd = simd_of(case.target)
    ep, half = stored_half(ep)
    p = choose_conv2d(s, simd, threads=case.threads, pair=pair, half=half, tile=case.tile)
    gemm = gemm_of(p)
    arguments = (In(0), Packed(0), Out(0), ep)
    if gemm is not None:
        call = Invoke("gemm_f32.h", "sp_gemm_f32", "sp_gemm", params_of(gemm), arguments)
        spans = gemm_spans(gemm, simd.lanes, case.y[0], ep)
    else:
        call = Invoke("conv2d_f32.h", "sp_conv2d_f32", "sp_conv2d", params_of(p), arguments)
        across, reach = channels_of(s.co, simd.lanes, p.task_n, s.groups), (s.ci - 1) * s.xc + 1
        spans = window_spans(p, p.task_h, across, (reach, 4), case.y[0], ep)
    packed = _packed_conv(s, w, simd.lanes)
    if pair:
        plain = packed.make
        packed = Pack((*packed.shape, 2), np.dtype(np.uint16), lambda: pack_pairs(plain()))
    return Lowered(
        *((call,), p.tasks, (packed,)),
        cycles=conv2d_cycles(p, simd),
        shape=shape_text(s, pair=int(pair), half=int(half)),
        tiles=conv2d_tiles(p, simd),
        tile=Tile(p.mr, p.nv),
        spans=spans,
    )


def _packed_conv(s: Conv2dShape, w: Array, lanes: int) -> Pack:
    shape = (s.groups, -(-(s.co // s.groups) // lanes), s.kh, s.kw, s.ci // s.groups, lanes)
    return Pack(shape, np.dtype(np.float32), lambda: pack_conv(w, s.groups, lanes))


# Winograd is taken where it is predicted to be this much faster: its rounding errors are some two
# times larger and, unless they are raw, its weights take four times the space.
WINOGRAD_GAIN = 1.1


def _winograd_raw(case: Case) -> Lowered | Reject:
    """The kernel of `_winograd` over the weights of `_conv2d`: pages would download four times as
    many bytes.
    """
    return _winograd(case, raw=True)


def _winograd(case: Case, raw: bool = False) -> Lowered | Reject:
    found = _shape_of(case)
    if isinstance(found, Reject):
        return found
    s, ep, w = found
    simd = simd_of(case.target)
    ep, half = stored_half(ep)
    p = choose_winograd(s, simd, threads=case.threads, half=half, raw=raw, tile=case.tile)
    if p is None:
        return Reject("not a dense 3x3 convolution of stride 1 with adjacent channels")
    packed = _packed_conv(s, w, simd.lanes)
    if not raw:
        shape = (-(-s.co // simd.lanes), 36, s.ci, simd.lanes)
        packed = Pack(shape, packed.dtype, lambda: pack_winograd(w, simd.lanes))
    return Lowered(
        *_winograd_call(case, "winograd", p, ep, packed),
        cycles=WINOGRAD_GAIN * winograd_cycles(p, simd),
        shape=shape_text(s, half=int(half)),
        tiles=winograd_tiles(p, simd),
        tile=Tile(p.mr, p.nv),
    )


def _winograd_call(
    case: Case, name: str, p: Winograd | WinogradStream, ep: Epilogue, packed: Pack
) -> tuple[tuple[Invoke, ...], int, tuple[Pack, ...], int]:
    """The call, its tasks, weights and bytes of scratch; one thread has all tasks in one."""
    tasks = 1 if case.threads == 1 else p.tasks
    arguments = (In(0), Packed(0), Out(0), Scratch("float", p.scratch_bytes), ep)
    call = Invoke(
        *(f"{name}_f32.h", f"sp_{name}_f32", f"sp_{name}", params_of(p), arguments),
        p.tasks // tasks,
    )
    return (call,), tasks, (packed,), p.scratch_bytes * tasks


# Of L2, from where on weights are streamed: what stays near is cheaper to transform once for all.
STREAM_FROM = 1.0


def _winograd_stream(case: Case) -> Lowered | Reject:
    """Few tiles, and weights that come from memory: a quarter of the bytes of `_winograd`."""
    found = _shape_of(case)
    if isinstance(found, Reject):
        return found
    s, ep, w = found
    simd = simd_of(case.target)
    ep, half = stored_half(ep)
    p = choose_winograd_stream(s, simd, threads=case.threads, half=half)
    if p is None:
        return Reject("not a dense 3x3 convolution of stride 1 with adjacent channels")
    if w.nbytes <= STREAM_FROM * simd.l2_bytes:
        return Reject("its weights stay near")
    shape = (-(-s.co // simd.lanes), s.ci, 9, simd.lanes)
    packed = Pack(shape, np.dtype(np.float32), lambda: pack_stream(w, simd.lanes))
    return Lowered(
        *_winograd_call(case, "winograd_stream", p, ep, packed),
        cycles=WINOGRAD_GAIN * winograd_stream_cycles(p, simd, case.threads) / inside(s),
        shape=shape_text(s, half=int(half)),
    )


ROWS = (
    Kernel("depthwise_f32", Conv, _depthwise),
    Kernel("conv2d_f32", Conv, _conv2d),
    Kernel("conv2d_bf16", Conv, _conv2d_bf16),
    Kernel(
        "winograd_f32",
        Conv,
        _winograd,
        isas=("avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amx", "neon", "neon_dot"),
    ),
    Kernel(
        "winograd_stream_f32",
        Conv,
        _winograd_stream,
        isas=("avx512", "avx512vnni", "avx512bf16", "amx"),
    ),
    Kernel(
        "winograd_raw_f32",
        Conv,
        _winograd_raw,
        isas=ENGINE_ISAS,
    ),
)
