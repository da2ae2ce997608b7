"""What a decoder sees of one operator of a .tflite file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from sparrow import lane
from sparrow.builder import Builder
from sparrow.errors import BadModel, UnsupportedOp
from sparrow.importers.tflite.model import Tensor
from sparrow.ops.lane import Lane
from sparrow.ops.quantize import Dequantize, Quantize, affine
from sparrow.tensor import BF16, F16, F32, F64, I16, I32, I64, Affine, Array, TensorType

# (lowest, highest) value of each fused activation function, in real numbers
RANGES: Mapping[int, tuple[float | None, float | None]] = {
    0: (None, None),
    1: (0.0, None),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}
TANH = 4


@dataclass(slots=True)
class Call:
    """One operator with its operands as Builder values.

    A value is what the file stores, codes where the tensor is quantized; `real` gives the numbers
    they stand for and `write` brings numbers back to codes.

    Attributes:
        b: Where ops are added.
        op: Operator name.
        version: Operator version.
        where: Name for messages.
        inputs: Builder values; ``""`` where absent or variable.
        ins: Tensors of the inputs, None where absent.
        outs: Tensors of the outputs.
        options: Its options by name.
        inner: Intermediate tensors, which only carry quantization.
        load: Value of variable input ``i`` at the start of a call.
        store: Makes a value the new one of variable input ``i``.
        custom: Options of a custom operator.
    """

    b: Builder
    op: str
    version: int
    where: str
    inputs: tuple[str, ...]
    ins: tuple[Tensor | None, ...]
    outs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    inner: tuple[Tensor | None, ...]
    load: Callable[[int], str]
    store: Callable[[int, str], None]
    custom: bytes = b""

    def has(self, i: int) -> bool:
        """Whether input ``i`` is present."""
        return i < len(self.ins) and self.ins[i] is not None

    def x(self, i: int = 0) -> str:
        """Value of input ``i``; it must be present."""
        if i >= len(self.inputs) or not self.inputs[i]:
            raise self.bad(f"input {i} is missing")
        return self.inputs[i]

    def tensor(self, i: int = 0) -> Tensor:
        """Tensor of input ``i``; it must be present."""
        t = self.ins[i] if i < len(self.ins) else None
        if t is None:
            raise self.bad(f"input {i} is missing")
        return t

    def type(self, i: int = 0) -> TensorType:
        """Type of input ``i``."""
        return self.b.type(self.x(i))

    def const(self, i: int, what: str) -> Array:
        """Array of an input that must be known when the model is compiled."""
        v = self.b.value(self.x(i))
        if v is None:
            raise self.unsupported(
                f"{what} is computed at run time", "make it a constant of the model"
            )
        return v

    def ints(self, i: int, what: str) -> tuple[int, ...]:
        """Integers of a constant input, flat."""
        v = self.const(i, what)
        if v.dtype.kind not in "iu" or v.size > 1 << 16:
            raise self.bad(f"{what} is {v.dtype}{list(v.shape)}, expected a few integers")
        return tuple(int(e) for e in v.ravel())

    def option(self, name: str) -> Any:
        """Value of an option."""
        return self.options[name]

    def axis(self, value: int, rank: int) -> int:
        """A non-negative axis."""
        if not -rank <= value < rank:
            raise self.bad(f"axis {value} of a rank-{rank} tensor")
        return value % rank

    def real(self, i: int = 0) -> str:
        """The numbers of input ``i``: float as they are, codes dequantized."""
        t = self.tensor(i)
        x = self.x(i)
        if t.quantized:
            return self.b.add(Dequantize(t.affine(self.b.shape(x))), x)
        # half types are storage: LiteRT computes in float32
        return self.b.cast(x, F32) if self.b.type(x).dtype in (F16, BF16) else x

    def float(self, i: int = 0) -> str:
        """`real`, which must be floating point.

        Raises:
            UnsupportedOp: It is integers without quantization.
        """
        x = self.real(i)
        if self.b.type(x).dtype.kind != "float":
            raise self.unsupported(f"input {i} is {self.b.type(x)} without quantization")
        return x

    def write(self, y: str, k: int = 0) -> str:
        """Numbers as output ``k`` stores them."""
        t = self.outs[k]
        dtype = self.b.type(y).dtype
        if not t.quantized:
            return self.b.cast(y, t.dtype) if dtype.kind == t.dtype.kind == "float" else y
        quant = t.affine(self.b.shape(y))
        if not (quant.scale > 0).all():
            raise self.bad(f"output {t.name!r} has a negative scale")
        if t.dtype.bits <= 16:
            return self.b.add(Quantize(quant, t.dtype), y)
        return self._write_wide(y, t, quant)

    def _write_wide(self, y: str, t: Tensor, quant: Affine) -> str:
        """Codes of more bits than float32 holds, through float64."""
        if not quant.per_tensor or t.dtype != I32:
            raise self.unsupported(f"writes {t.dtype} with {quant.scale.size} scales")
        scale, zero = float(quant.scale.reshape(-1)[0]), int(quant.zero_point.reshape(-1)[0])
        steps = lane.call("div", lane.cast(self.b.arg(0, y), F64), lane.Imm(scale, F64))
        codes = lane.cast(lane.call("add", lane.call("round", steps), lane.Imm(zero, F64)), I32)
        return self.typed(self.b.lane(codes, y), quant)

    def typed(self, y: str, quant: Affine | None) -> str:
        """Codes ``y`` with the meaning ``quant``, whatever they meant before."""
        t = self.b.type(y)
        if t.quant == quant:
            return y
        known = self.b.value(y)
        if known is not None:
            return self.b.const(known, t.dtype, quant)
        made = bool(self.b.nodes) and y in self.b.nodes[-1].outputs and t.quant is None
        if not made or not isinstance(self.b.nodes[-1].op, Lane):
            y = self.b.lane(self.b.arg(0, y), y)
        self.b.types[y] = replace(self.b.type(y), quant=quant)
        return y

    def alike(self, *reads: int) -> bool:
        """Whether codes may pass as they are: these inputs and output 0 mean the same by them."""
        out = self.outs[0]
        for i in reads:
            t = self.tensor(i)
            if t.quantized != out.quantized:
                return False
            if t.quantized and (
                t.scale.tolist() != out.scale.tolist()
                or t.zero_point.tolist() != out.zero_point.tolist()
            ):
                return False
        return True

    def activated(self, y: str) -> str:
        """``y`` behind the fused activation, as numbers."""
        code = self.options.get("activation", 0)
        if code == TANH:
            return self.b.call("tanh", y)
        if code not in RANGES:
            raise self.unsupported(f"fused activation {code}")
        low, high = RANGES[code]
        if low is None and high is None:
            return y
        e = self.b.arg(0, y)
        if low == 0.0 and high is None:
            return self.b.call("relu", y)
        return self.b.lane(
            lane.clip(
                e,
                None if low is None else lane.imm_like(low, e),
                None if high is None else lane.imm_like(high, e),
            ),
            y,
        )

    def weights(self, i: int, perm: Sequence[int]) -> str:
        """Numbers of the weights at input ``i`` with their axes permuted; constant codes stay."""
        t, x = self.tensor(i), self.x(i)
        v = self.b.value(x)
        if v is None or not t.quantized:
            return self.b.transpose(self.float(i), perm)
        if v.ndim != len(perm):
            raise self.bad(f"weights {self.b.type(x)}, expected rank {len(perm)}")
        quant = t.affine(v.shape).permuted(tuple(perm))
        v, quant = _positive(np.ascontiguousarray(v.transpose(perm)), quant)
        return self.b.add(Dequantize(quant), self.b.const(v, t.dtype, quant))

    def bias(self, i: int, x: int, w: int) -> str:
        """Numbers of the bias at input ``i``, ``""`` when absent.

        Integers have the scale of input ``x`` times that of the weights ``w``, whatever the file
        says of them: that is what LiteRT adds them to. Those of 64 bits beside 16-bit codes are
        codes of 32 here, which ONNX can say. Any that do not fit, or have 32 bits there, which
        LiteRT adds otherwise, are floats.
        """
        if not self.has(i):
            return ""
        t = self.tensor(i)
        if t.dtype.kind == "float":
            return self.float(i)
        xs, ws = self.tensor(x).scale, self.tensor(w).scale
        if xs.size != 1 or not ws.size:
            raise self.unsupported(f"bias {self.type(i)} of operands without scales")
        scale = (xs.astype(np.float64) * ws).astype(np.float32)
        quant = affine(scale, np.zeros(scale.shape, np.int32), self.b.shape(self.x(i)), 0, 0)
        v = self.b.value(self.x(i))
        if v is None:
            return self.b.add(Dequantize(quant), self.x(i))
        low, high = I32.limits
        fits = v.min(initial=0) >= low and v.max(initial=0) <= high
        if self.tensor(x).dtype == I16 and (t.dtype != I64 or not fits):
            return self.b.const((v * scale.astype(np.float64)).astype(np.float32), F32)
        dtype = I32 if t.dtype == I64 and fits else t.dtype
        return self.b.add(Dequantize(quant), self.b.const(v.astype(dtype.numpy), dtype, quant))

    def unsupported(self, what: str, hint: str = "") -> UnsupportedOp:
        """An error naming this operator."""
        return UnsupportedOp(f"{self.where} (tflite {self.op}-{self.version}): {what}", hint=hint)

    def bad(self, what: str) -> BadModel:
        """An error naming this operator."""
        return BadModel(f"{self.where} ({self.op}): {what}")


def _positive(codes: Array, quant: Affine) -> tuple[Array, Affine]:
    """Symmetric codes with the sign of a negative scale moved into them, where each has a negative.

    Converters that folded a negative factor into the weights leave such scales behind.
    """
    flip = np.broadcast_to(quant.scale < 0, codes.shape)
    if not flip.any() or quant.zero_point.any() or (codes[flip] == np.iinfo(codes.dtype).min).any():
        return codes, quant
    return np.where(flip, -codes, codes), Affine(np.abs(quant.scale), quant.zero_point, quant.block)


Decoder: TypeAlias = Callable[[Call], Sequence[str]]
