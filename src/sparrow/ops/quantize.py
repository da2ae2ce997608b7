"""Real numbers to codes and back; a quantized tensor is a tensor whose type says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import (
    BF16,
    F32,
    I32,
    I64,
    Affine,
    Array,
    DType,
    TensorType,
    round_bfloat16,
)

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


def affine(
    scale: Array, zero_point: Array, shape: tuple[int, ...], axis: int, block: int
) -> Affine:
    """Quantization of a tensor of ``shape`` from ONNX operands.

    Args:
        scale: One element (per tensor), [shape[axis]] (per axis), or of the rank of the tensor with
            ceil(shape[axis] / block) elements along ``axis`` (blocked).
        zero_point: As scale.
        shape: Of the codes.
        axis: >= 0; ignored per tensor.
        block: Block size, 0 when not blocked.

    Raises:
        InvalidGraph: The operands do not fit the shape.
    """
    rank = len(shape)
    z = zero_point.astype(np.int32)
    s = scale.astype(np.float32)
    if z.shape != s.shape:
        raise InvalidGraph(f"scale {s.shape} and zero point {z.shape} differ in shape")
    if block:
        want = tuple(-(-d // block) if i == axis else d for i, d in enumerate(shape))
        if s.shape != want:
            raise InvalidGraph(f"scale {s.shape} for blocks of {block} along axis {axis}: {want}")
        return Affine(s, z, tuple(block if i == axis else 1 for i in range(rank)))
    if s.size == 1:
        ones = (1,) * rank
        return Affine(s.reshape(ones), z.reshape(ones), (-1,) * rank)
    if s.ndim != 1 or not 0 <= axis < rank or s.size != shape[axis]:
        raise InvalidGraph(f"scale {s.shape} along axis {axis} of {shape}")
    spread = tuple(s.size if i == axis else 1 for i in range(rank))
    blocks = tuple(1 if i == axis else -1 for i in range(rank))
    return Affine(s.reshape(spread), z.reshape(spread), blocks)


def spread(values: Array, block: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Values per block repeated so that they broadcast to ``shape``."""
    for axis, (b, d) in enumerate(zip(block, shape, strict=True)):
        if b > 1:
            values = np.take(np.repeat(values, b, axis), np.arange(d), axis)
    return values


def _check(quant: Affine, x: TensorType) -> None:
    want = tuple(1 if b == -1 else -(-d // b) for b, d in zip(quant.block, x.shape, strict=False))
    found = {quant.scale.shape, quant.zero_point.shape}
    if len(quant.block) != x.rank or found != {want}:
        raise InvalidGraph(
            f"quantization by blocks {quant.block}, scale {quant.scale.shape} of {x}"
        )


def _onnx_operands(quant: Affine, shape: tuple[int, ...]) -> tuple[Array, Array, dict[str, Any]]:
    """(scale, zero point, attributes) of QuantizeLinear and DequantizeLinear."""
    scale, zero = quant.scale, quant.zero_point
    if quant.per_tensor:
        return scale.reshape(()), zero.reshape(()), {}
    own = [i for i, b in enumerate(quant.block) if b != -1 and shape[i] != 1]
    if len(own) == 1 and quant.block[own[0]] == 1:
        return scale.reshape(-1), zero.reshape(-1), {"axis": own[0]}
    # ONNX blocks one axis and has one scale per element of the others
    wide = [i for i in own if quant.block[i] > 1]
    axis = wide[0] if wide else own[0]
    step = quant.block[axis]
    full = tuple(-(-d // step) if i == axis else d for i, d in enumerate(shape))
    rest = tuple(1 if i == axis else b for i, b in enumerate(quant.block))
    scale, zero = (np.broadcast_to(spread(v, rest, full), full) for v in (scale, zero))
    return scale, zero, {"axis": axis, "block_size": step}


class _Operands:
    """Collects the constants of a lane expression behind operand 0: literals where one value
    serves.
    """

    def __init__(self, quant: Affine, shape: tuple[int, ...]) -> None:
        self.quant, self.shape = quant, shape
        self.arrays: list[Array] = []

    def take(self, values: Array, dtype: DType) -> lane.Expr:
        if values.size == 1:
            return lane.Imm(values.reshape(-1)[0].item(), dtype)
        full = spread(values, self.quant.block, self.shape).astype(dtype.numpy)
        self.arrays.append(np.asarray(full, order="C"))
        return lane.Arg(len(self.arrays), dtype)


@dataclass(frozen=True, slots=True)
class Quantize(Op):
    """codes = saturate(rne(x / scale) + zero_point), NaN to zero_point. ONNX QuantizeLinear-21.

    x float of any width, divided in float32; the type of y carries ``quant``.

    Attributes:
        quant: Scale and zero point per block.
        dtype: Integer type of the codes.
    """

    quant: Affine
    dtype: DType

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.dtype.kind != "float" or self.dtype.kind not in ("int", "uint"):
            raise InvalidGraph(f"quantization of {x} to {self.dtype}")
        _check(self.quant, x)
        return (TensorType(x.shape, self.dtype, x.axes, self.quant),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        scale, zero = (
            spread(v, self.quant.block, x.shape) for v in (self.quant.scale, self.quant.zero_point)
        )
        steps = np.rint(x.astype(np.float32) / scale).astype(np.float64)
        low, high = self.dtype.limits
        codes = np.clip(np.where(np.isnan(steps), 0.0, steps) + zero, low, high)
        return (codes.astype(self.dtype.numpy),)

    def expression(self, x: TensorType) -> tuple[lane.Expr, tuple[Array, ...]]:
        """The same as an expression over x and constants that broadcast to it; at most 16 bits."""
        assert self.dtype.bits <= 16, self.dtype
        c = _Operands(self.quant, x.shape)
        low, high = (limit - self.quant.zero_point for limit in self.dtype.limits)
        x32 = lane.cast(lane.Arg(0, x.dtype), F32)
        steps = lane.call("div", x32, c.take(self.quant.scale, F32))
        # clipped before the zero point is added: both exact, and NaN becomes 0 in between
        clipped = lane.clip(
            lane.call("round", steps),
            c.take(low.astype(np.float32), F32),
            c.take(high.astype(np.float32), F32),
        )
        codes = lane.cast(clipped, I32)
        if self.quant.zero_point.any():
            codes = lane.call("add", codes, c.take(self.quant.zero_point, I32))
        return lane.cast(codes, self.dtype), tuple(c.arrays)

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return self if self.quant.scale.size == 1 else None

    def export(self, w: Writer, site: Site) -> None:
        t = site.in_types[0]
        assert t is not None
        x = site.inputs[0]
        if t.dtype != F32:
            x = w.node("Cast", [x], to=F32)
        scale, zero, attrs = _onnx_operands(self.quant, t.shape)
        if self.dtype.bits != 8:
            w.require(21)
        zero_point = w.const(zero.astype(self.dtype.numpy), self.dtype)
        w.node("QuantizeLinear", [x, w.const(scale), zero_point], [site.outputs[0]], **attrs)


@dataclass(frozen=True, slots=True)
class Dequantize(Op):
    """y = (codes - zero_point) * scale in float32, rounded to ``dtype``. ONNX DequantizeLinear-21.

    The type of the codes carries ``quant`` or none (an integer model input). Codes that are
    constant stay so: kernels want them, see `foldable`.

    Attributes:
        quant: Scale and zero point per block.
        dtype: Float type of y.
    """

    quant: Affine
    dtype: DType = F32

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.dtype.kind not in ("int", "uint") or self.dtype.kind != "float":
            raise InvalidGraph(f"dequantization of {x} to {self.dtype}")
        if x.quant is not None and x.quant != self.quant:
            raise InvalidGraph(f"{x} is dequantized with another scale than its own")
        _check(self.quant, x)
        return (TensorType(x.shape, self.dtype, x.axes),)

    def foldable(self, x: Types) -> bool:
        # codes of 32 bits are those of a bias, which sums begin with
        return all(t is None or (t.size == 1 and t.dtype != I32) for t in x)

    def eval(self, x: Array) -> tuple[Array, ...]:
        scale, zero = (
            spread(v, self.quant.block, x.shape) for v in (self.quant.scale, self.quant.zero_point)
        )
        y = (x.astype(np.int64) - zero).astype(np.float32) * scale
        if self.dtype == BF16:
            return (round_bfloat16(y),)
        return (y.astype(self.dtype.numpy),)

    def expression(self, x: TensorType) -> tuple[lane.Expr, tuple[Array, ...]]:
        """The same as an expression over the codes and constants that broadcast to them."""
        c = _Operands(self.quant, x.shape)
        codes: lane.Expr = lane.Arg(0, x.dtype)
        if self.quant.zero_point.any():
            wide = I32 if x.dtype.bits <= 16 else I64
            codes = lane.call("sub", lane.cast(codes, wide), c.take(self.quant.zero_point, wide))
        y = lane.call("mul", lane.cast(codes, F32), c.take(self.quant.scale, F32))
        return lane.cast(y, self.dtype), tuple(c.arrays)

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return self if self.quant.scale.size == 1 else None

    def export(self, w: Writer, site: Site) -> None:
        t = site.in_types[0]
        assert t is not None
        scale, zero, attrs = _onnx_operands(self.quant, t.shape)
        names = [site.inputs[0], w.const(scale)]
        # ONNX has no zero points of int32
        if t.dtype != I32 or zero.any():
            names.append(w.const(zero.astype(t.dtype.numpy), t.dtype))
        if self.dtype == F32:
            w.node("DequantizeLinear", names, [site.outputs[0]], **attrs)
        else:
            wide = w.node("DequantizeLinear", names, **attrs)
            w.node("Cast", [wide], [site.outputs[0]], to=self.dtype)
