"""Quantized operators: types on codes, and float ops between Dequantize and Quantize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder, elem_type
from sparrow.importers.onnx.decode import (
    channels_last,
    elementwise,
    indexing,
    linear,
    movement,
    normalize,
    pooling,
    reduction,
    run_time_scale,
)
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize, Quantize, affine
from sparrow.tensor import BF16, F16, F32, U4, U8, Affine, Array, DType

_FLOATS: Mapping[str, Decoder] = {
    **elementwise.DECODERS,
    **linear.DECODERS,
    **movement.DECODERS,
    **normalize.DECODERS,
    **pooling.DECODERS,
    **reduction.DECODERS,
}
_STANDARD_OPSET = 21


def _scale(n: Call, i: int) -> Array:
    """Constant scale of input ``i`` as float32."""
    if n.b.value(n.x(i)) is None:
        raise n.unsupported(
            "a scale computed at run time", "use static quantization, or DynamicQuantizeLinear"
        )
    scale = n.const(i, "the scale")
    if n.type(i).dtype not in (F32, F16, BF16):
        raise n.bad(f"a scale of {n.type(i)}, expected float32, float16 or bfloat16")
    return scale.astype(np.float32)


def _zero(n: Call, i: int, like: Array) -> Array:
    """Constant zero point of input ``i``, 0 when absent, shaped like the scale."""
    if not n.has(i):
        return np.zeros(like.shape, np.int32)
    z = n.const(i, "the zero point")
    if z.dtype.kind not in "iu":
        raise n.bad(f"a zero point of {n.type(i)}, expected integers")
    z = z.astype(np.int32)
    return z.reshape(like.shape) if z.size == like.size else z


def _affine(n: Call, x: str, i: int, axis: int, block: int = 0) -> Affine:
    """Quantization of ``x`` from scale input ``i`` and zero-point input ``i`` + 1."""
    shape = n.b.shape(x)
    scale = _scale(n, i)
    if scale.size == 1 and not block:
        axis = 0
    elif shape:
        axis = n.axis(axis, len(shape))
    return affine(scale, _zero(n, i + 1, scale), shape, axis, block)


def _typed(n: Call, x: str, quant: Affine) -> str:
    """Codes with their quantization: a constant gets the type, a run-time value keeps its own."""
    v = n.b.value(x)
    return x if v is None else n.b.const(v, n.b.type(x).dtype, quant)


def dequantize(n: Call, x: str, quant: Affine, dtype: DType = F32) -> str:
    """Real values of codes: by arithmetic where they were made with another quantization."""
    op, t = Dequantize(quant, dtype), n.b.type(x)
    if n.b.value(x) is None and t.quant is not None and t.quant != quant:
        expr, operands = op.expression(t)
        return n.b.lane(expr, x, *map(n.b.const, operands))
    return n.b.add(op, _typed(n, x, quant))


def _read(n: Call, i: int, axis: int = 1) -> str:
    """Real values of (codes, scale, zero point) at inputs ``i``, ``i`` + 1, ``i`` + 2."""
    if not run_time_scale.is_static(n, i + 1):
        return run_time_scale.dequantize(n, n.x(i), i + 1, axis)
    return dequantize(n, n.x(i), _affine(n, n.x(i), i + 1, axis))


def _write(n: Call, y: str, i: int, axis: int = 1) -> str:
    """Codes of ``y`` for (scale, zero point) at inputs ``i`` and ``i`` + 1."""
    dtype = _check_codes(n, n.type(i + 1).dtype if n.has(i + 1) else U8)
    if not run_time_scale.is_static(n, i):
        return run_time_scale.quantize(n, y, i, dtype, axis)
    return n.b.add(Quantize(_affine(n, y, i, axis), dtype), y)


def _check_codes(n: Call, dtype: DType) -> DType:
    if dtype.kind not in ("int", "uint"):
        raise n.unsupported(f"quantization to {dtype}")
    return dtype


def _quantize_linear(n: Call) -> Sequence[str]:
    given = int(n.attr("output_dtype", 0))
    if n.has(2):
        dtype = n.type(2).dtype
    else:
        dtype = elem_type(given, n.where) if given else U8
    x = n.x() if n.type().dtype.kind == "float" else n.b.cast(n.x(), F32)
    axis, block = int(n.attr("axis", 1)), int(n.attr("block_size", 0))
    if not run_time_scale.is_static(n, 1):
        return [run_time_scale.quantize(n, x, 1, _check_codes(n, dtype), axis, block)]
    return [n.b.add(Quantize(_affine(n, x, 1, axis, block), _check_codes(n, dtype)), x)]


def _dequantize_linear(n: Call) -> Sequence[str]:
    _check_codes(n, n.type().dtype)
    given = int(n.attr("output_dtype", 0))
    dtype = elem_type(given, n.where) if given else n.type(1).dtype
    axis, block = int(n.attr("axis", 1)), int(n.attr("block_size", 0))
    if not run_time_scale.is_static(n, 1):
        return [run_time_scale.dequantize(n, n.x(), 1, axis, block, dtype)]
    return [dequantize(n, n.x(), _affine(n, n.x(), 1, axis, block), dtype)]


def _qlinear_conv(n: Call) -> Sequence[str]:
    x, w = _read(n, 0), _read(n, 3, axis=0)
    bias = ""
    if n.has(8):
        b = n.b
        if b.value(n.x(1)) is None or b.value(n.x(4)) is None:
            scale_x = b.reshape(n.x(1), ())
            scales = b.call("mul", scale_x, b.reshape(n.x(4), (n.type(4).size,)))
            bias = b.call("mul", b.cast(n.x(8), F32), scales)
        else:
            scale = _scale(n, 1).reshape(-1)[:1] * _scale(n, 4).reshape(-1)
            quant = affine(scale, np.zeros(scale.shape, np.int32), n.type(8).shape, 0, 0)
            bias = dequantize(n, n.x(8), quant)
    last = bool(n.attr("channels_last", 0))
    if last:
        x = channels_last.to_first(n, x)
    (y,) = linear.DECODERS["Conv"](replace(n, inputs=(x, w, bias)))
    return [_write(n, channels_last.to_last(n, y) if last else y, 6)]


def _rows_affine(n: Call, i: int, axis: int) -> Affine:
    """Quantization of a matrix operand: per tensor, per row (a, y) or per column (b)."""
    shape, scale = n.type(i).shape, _scale(n, i + 1)
    zero = _zero(n, i + 2, scale)
    if scale.ndim <= 1:
        return affine(scale, zero, shape, axis % len(shape), 0)
    blocks = tuple(-1 if s == 1 else 1 for s in scale.shape)
    return Affine(scale, zero, blocks)


def _matrix(n: Call, i: int, axis: int) -> str:
    """Real values of a matrix operand of QLinearMatMul."""
    if not run_time_scale.is_static(n, i + 1):
        return run_time_scale.dequantize(n, n.x(i), i + 1, axis)
    return dequantize(n, n.x(i), _rows_affine(n, i, axis))


def _qlinear_matmul(n: Call) -> Sequence[str]:
    if n.type(0).rank < 2 or n.type(3).rank < 2:
        raise n.unsupported(f"product of {n.type(0)} and {n.type(3)}")
    a, b = _matrix(n, 0, -2), _matrix(n, 3, -1)
    return [_write(n, linear.matmul(n, a, b), 6, axis=-2)]


def _qgemm(n: Call) -> Sequence[str]:
    """com.microsoft.QGemm: a, b, c = int32 of scale a * b; without a y scale the result is
    float.
    """
    a = _read(n, 0)
    b = _read(n, 3, axis=0 if n.attr("transB", 0) else 1)
    alpha = np.float32(n.attr("alpha", 1.0))
    c = ""
    if n.has(6):
        scale = (alpha * _scale(n, 1).reshape(-1)[:1] * _scale(n, 4).reshape(-1)).astype(np.float32)
        shape = n.type(6).shape
        zero = np.zeros(scale.shape, np.int32)
        c = dequantize(n, n.x(6), affine(scale, zero, shape, len(shape) - 1, 0))
    (y,) = linear.DECODERS["Gemm"](replace(n, inputs=(a, b, c)))
    return [_write(n, y, 7) if n.has(7) else y]


def _float(op_type: str, *reads: int, write: int) -> Decoder:
    """A float operator over dequantized inputs; ``reads`` and ``write`` say where the operands
    start.
    """

    def decode(n: Call) -> Sequence[str]:
        inputs = [_read(n, i) for i in reads]
        last = bool(n.attr("channels_last", 0))
        if last:
            inputs = [channels_last.to_first(n, x) for x in inputs]
        call = replace(n, op_type=op_type, version=_STANDARD_OPSET, inputs=tuple(inputs))
        (y,) = _FLOATS[op_type](call)
        return [_write(n, channels_last.to_last(n, y) if last else y, write)]

    return decode


def _qlinear_softmax(n: Call) -> Sequence[str]:
    version = int(n.attr("opset", 13))
    call = replace(n, op_type="Softmax", version=version, inputs=(_read(n, 0),))
    (y,) = _FLOATS["Softmax"](call)
    return [_write(n, y, 3)]


def _qlinear_concat(n: Call) -> Sequence[str]:
    if len(n.inputs) < 5 or len(n.inputs) % 3 != 2:
        raise n.bad(f"{len(n.inputs)} inputs, expected 2 and then 3 per tensor")
    parts = tuple(_read(n, i) for i in range(2, len(n.inputs), 3))
    (y,) = _FLOATS["Concat"](replace(n, inputs=parts))
    return [_write(n, y, 0)]


def _qlinear_where(n: Call) -> Sequence[str]:
    y = n.b.call("where", n.x(0), _read(n, 1), _read(n, 4))
    return [_write(n, y, 7)]


def _qlinear_reduce_mean(n: Call) -> Sequence[str]:
    call = replace(n, op_type="ReduceMean", version=13, inputs=(_read(n, 0),))
    (y,) = _FLOATS["ReduceMean"](call)
    return [_write(n, y, 3)]


def nibbles(packed: Array, bits: int, count: int) -> Array:
    """The first ``count`` codes of each row of bytes, low bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]


def _matmul_nbits(n: Call) -> Sequence[str]:
    """com.microsoft.MatMulNBits: x [.., k] times weights [n, k] of 4 or 8 bits, blocks along k."""
    rows, depth = int(n.attr("N", 0)), int(n.attr("K", 0))
    bits, block = int(n.attr("bits", 4)), int(n.attr("block_size", 0))
    if bits not in (4, 8):
        raise n.unsupported(f"weights of {bits} bits")
    if rows < 1 or depth < 1 or block < 1:
        raise n.bad(f"N {rows}, K {depth}, block_size {block}")
    if n.has(4) or n.type(2).dtype not in (F32, F16):
        raise n.unsupported("a group index or scales of another type than float")
    blocks = -(-depth // block)
    packed, scale = n.const(1, "the weights"), _scale(n, 2)
    if packed.size * (8 // bits) != rows * blocks * block or scale.size != rows * blocks:
        raise n.bad(f"weights {n.type(1)} and scales {n.type(2)} for N {rows}, K {depth}")
    dtype = U4 if bits == 4 else U8
    codes = nibbles(packed.reshape(rows, -1), bits, depth)
    zero = np.full((rows, blocks), 1 << (bits - 1), np.int32)
    between: Array | None = None
    if n.has(3):
        points = n.const(3, "the zero points")
        if n.type(3).dtype in (F32, F16) and points.size == rows * blocks:
            # these lie between codes, as HQQ finds them
            between = points.reshape(rows, blocks).astype(np.float32)
        elif points.dtype != np.uint8 or points.size != rows * -(-blocks * bits // 8):
            raise n.unsupported(f"zero points {n.type(3)}")
        else:
            zero = nibbles(points.reshape(rows, -1), bits, blocks).astype(np.int32)
    if between is None:
        quant = affine(scale.reshape(rows, blocks), zero, (rows, depth), 1, block)
        w = dequantize(n, n.b.const(np.asarray(codes, order="C"), dtype), quant)
    else:
        far, step = (v.repeat(block, 1)[:, :depth] for v in (between, scale.reshape(rows, blocks)))
        w = n.b.const((codes - far) * step, F32)
    x = n.b.cast(n.x(), F32)
    if n.type().rank < 2:
        raise n.unsupported(f"product of {n.type()}")
    y = n.b.add(MatMul(trans_b=True), x, w)
    if n.has(5):
        y = n.b.call("add", y, n.b.cast(n.x(5), F32))
    return [n.b.cast(y, n.type().dtype)]


def _gather_blocks(n: Call) -> Sequence[str]:
    """com.microsoft.GatherBlockQuantized: rows of a table of codes with scales per block.

    Codes, indices, scales, zero points.
    """
    table, bits, block = n.const(0, "the table"), int(n.attr("bits", 4)), n.attr("block_size", 128)
    packed = table.dtype == np.uint8 and bits == 4 and n.type(0).dtype == U8
    if n.type(0).rank != 2 or bits not in (4, 8) or int(block) < 1:
        raise n.unsupported(f"a table {n.type(0)} of {bits} bits in blocks of {block}")
    if n.attr("gather_axis", 0) not in (0, -2) or n.attr("quantize_axis", 1) not in (1, -1):
        raise n.unsupported("a gather axis other than 0, or blocks along another than 1")
    depth = table.shape[1] * (2 if packed else 1)
    codes = nibbles(table, 4, depth) if packed else table
    scale = _scale(n, 2)
    middle = 1 << (bits - 1) if n.type(0).dtype == U8 else 0
    zero = np.full(scale.shape, middle, np.int32)
    if n.has(3):
        points = n.const(3, "the zero points")
        zero = (nibbles(points, 4, scale.shape[-1]) if packed else points).astype(np.int32)
    quant = affine(scale, zero, (table.shape[0], depth), 1, int(block))
    dtype = U4 if packed else n.type(0).dtype
    rows = dequantize(n, n.b.const(np.asarray(codes, order="C"), dtype), quant)
    (y,) = indexing.DECODERS["Gather"](replace(n, inputs=(rows, n.x(1)), attrs={"axis": 0}))
    return [n.b.cast(y, n.type(2).dtype)]


def _embed_norm(n: Call) -> Sequence[str]:
    """com.microsoft.QEmbedLayerNormalization: tables, scale and bias of the norm are codes."""
    inputs = [n.x(0), n.opt(1)]
    for i in range(2, 7):
        if not n.has(i):
            inputs.append("")
            continue
        scale = _scale(n, i + 6)
        zero = _zero(n, i + 11, scale)
        inputs.append(dequantize(n, n.x(i), affine(scale, zero, n.type(i).shape, 0, 0)))
    call = replace(n, inputs=(*inputs, n.opt(7)))
    return normalize.DECODERS["com.microsoft.EmbedLayerNormalization"](call)[: n.n_outputs]


DECODERS: Mapping[str, Decoder] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "com.microsoft.QuantizeLinear": _quantize_linear,
    "com.microsoft.DequantizeLinear": _dequantize_linear,
    "com.microsoft.GatherBlockQuantized": _gather_blocks,
    "com.microsoft.MatMulNBits": _matmul_nbits,
    "com.microsoft.QEmbedLayerNormalization": _embed_norm,
    "com.microsoft.QGemm": _qgemm,
    "com.microsoft.QLinearConv": _qlinear_conv,
    "com.microsoft.QLinearAdd": _float("Add", 0, 3, write=6),
    "com.microsoft.QLinearMul": _float("Mul", 0, 3, write=6),
    "com.microsoft.QLinearSigmoid": _float("Sigmoid", 0, write=3),
    "com.microsoft.QLinearLeakyRelu": _float("LeakyRelu", 0, write=3),
    "com.microsoft.QLinearAveragePool": _float("AveragePool", 0, write=3),
    "com.microsoft.QLinearGlobalAveragePool": _float("GlobalAveragePool", 0, write=3),
    "com.microsoft.QLinearSoftmax": _qlinear_softmax,
    "com.microsoft.QLinearConcat": _qlinear_concat,
    "com.microsoft.QLinearWhere": _qlinear_where,
    "com.microsoft.QLinearReduceMean": _qlinear_reduce_mean,
}
