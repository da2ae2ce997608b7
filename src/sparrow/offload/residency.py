"""Which operator of a file runs on an accelerator, which falls back to its host, and why.

A vendor's compiler splits a model by its own list of operators and numeric rules; whoever learns
of it from a slow device learns late. `residency` applies the recorded `Rules` of a row to the ONNX
file that is handed over: operators as that file spells them, types as its QuantizeLinear nodes say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

from sparrow.offload.compression import packed_bytes
from sparrow.offload.conforming import rules_of
from sparrow.targets import Device, Rules
from sparrow.tensor import Array

# Widths of types that are codes, and of real numbers.
BITS: Mapping[int, int] = {
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}
FLOATS: Mapping[int, int] = {TensorProto.FLOAT: 32, TensorProto.FLOAT16: 16}
# Joined with the operator before: no value of their own is stored.
CLAMPS = ("Relu", "Clip")
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operands that are data; what follows are sizes and literals.
DATA = {"Clip": 1, "Resize": 1, "Pad": 1, "Reshape": 1, "Slice": 1, "Gather": 1, "Relu": 1}
# A key of peak_gops by mode.
PEAKS = {"int8": "int8", "int16x8": "int16", "FP16": "float16", "FP32": "float32"}
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class Placed:
    """An operator of a file.

    Attributes:
        name: Its first result.
        op: ONNX operator.
        where: ``device`` or ``host``.
        why: Reason for the host.
        macs: Multiply-adds.
        weight_bytes: Of its constants as stored.
        weight_moved: Of those, what compression leaves to be moved.
        feature_bytes: Of what it reads and writes besides.
    """

    name: str
    op: str
    where: str
    why: str
    macs: int
    weight_bytes: int
    weight_moved: int
    feature_bytes: int


@dataclass(frozen=True, slots=True)
class Residency:
    """Where every operator of a file runs.

    Attributes:
        device: Row name.
        mode: What the device computes with: ``int8``, ``int16x8``, or ``<operand>.<accumulator>``.
        ops: In the order of the file.
        parts: Runs of operators on the device; every border moves a tensor.
        parameter_bytes: Constants of the operators on the device.
        parameter_limit: Of them, what the device keeps; 0: not known.
        moved_bytes: What operators on the device move in a call, compressed where the device does.
        ns: At least this long in a call on the device, by its peak and bandwidth; None where they
            are not known.
        bound: What that time comes from: ``compute``, ``memory`` or nothing.
    """

    device: str
    mode: str
    ops: tuple[Placed, ...]
    parts: int
    parameter_bytes: int
    parameter_limit: int
    moved_bytes: int
    ns: float | None
    bound: str

    @property
    def share(self) -> float:
        """Multiply-adds on the device over all."""
        total = sum(p.macs for p in self.ops)
        there = sum(p.macs for p in self.ops if p.where == "device")
        return there / total if total else 0.0

    def __str__(self) -> str:
        lines = [f"{'operator':18} {'result':32} {'runs on':8} {'MMAC':>8} {'weights':>10}"]
        for p in self.ops:
            why = f"  {p.why}" if p.why else ""
            lines.append(
                f"{p.op:18.18} {p.name:32.32} {p.where:8} {p.macs / 1e6:8.2f} "
                f"{p.weight_bytes:8,} B{why}"
            )
        on = sum(p.where == "device" for p in self.ops)
        lines.append(
            f"{self.device} ({self.mode}): {on} of {len(self.ops)} operators in {self.parts} "
            f"part{'' if self.parts == 1 else 's'}, {self.share:.1%} of the multiply-adds"
        )
        lines.append(f"parameters: {self.parameter_bytes:,} B{self._limit()}")
        if self.ns is not None:
            lines.append(
                f"moved in a call: {self.moved_bytes:,} B; at least {self.ns / 1e3:,.1f} us "
                f"({self.bound} bound, by the recorded peaks)"
            )
        return "\n".join(lines)

    def _limit(self) -> str:
        if not self.parameter_limit:
            return ""
        over = self.parameter_bytes - self.parameter_limit
        kept = f" of {self.parameter_limit:,} B on the chip"
        return f"{kept}, {over:,} B are fetched in every call" if over > 0 else kept


class _File:
    """What the operators of a file read and write, seen through its Quantize and Dequantize."""

    def __init__(self, model: onnx.ModelProto, rules: Rules) -> None:
        g = model.graph
        self.nodes = [n for n in g.node if n.op_type not in (_QUANTIZE, _DEQUANTIZE)]
        self.made = {y: n for n in g.node for y in n.output}
        self.uses: dict[str, list[onnx.NodeProto]] = {}
        for n in g.node:
            for x in n.input:
                self.uses.setdefault(x, []).append(n)
        self.consts = {t.name: t for t in g.initializer}
        self.outputs = {o.name for o in g.output}
        self.quantized = any(n.op_type == _QUANTIZE for n in g.node)
        # what real numbers of a float file would become
        coded = min(rules.weight_bits) if rules.weight_bits and not self.quantized else 0
        self.floats = dict.fromkeys(FLOATS, coded) if coded else FLOATS
        self.shapes, self.types = _shapes(model)

    def scale(self, x: str) -> tuple[Array, Array]:
        """Scale and zero point of the codes that a value is read from."""
        names = self.made[x].input
        scale = numpy_helper.to_array(self.consts[names[1]])
        if len(names) < 3 or not names[2]:
            return scale, np.zeros(scale.shape, np.int8)
        return scale, numpy_helper.to_array(self.consts[names[2]])

    def bias_bits(self, x: str) -> int:
        """Width of a constant that is read from codes as wide as sums; 0: it is no such one."""
        n = self.made.get(x)
        t = self.consts.get(n.input[0]) if n is not None and n.op_type == _DEQUANTIZE else None
        return 32 if t is not None and t.data_type == TensorProto.INT32 else 0

    def bits(self, x: str) -> int:
        """Width of the codes that a value is read from; 0: it is float."""
        n = self.made.get(x)
        if n is None or n.op_type != _DEQUANTIZE:
            return 0
        return BITS.get(self.types.get(n.input[0], 0), 0)

    def is_float(self, x: str) -> bool:
        """Whether a value is one of real numbers."""
        return self.types.get(x, int(TensorProto.FLOAT)) in FLOATS

    def stored(self, y: str) -> int:
        """Width of the codes a result is stored in; 0: some reader gets it as float."""
        readers = self.uses.get(y, [])
        if y in self.outputs or not readers:
            return 0
        found = {self._width(r) for r in readers}
        return found.pop() if len(found) == 1 else 0

    def _width(self, r: onnx.NodeProto) -> int:
        return BITS.get(self.types.get(r.output[0], 0), 0) if r.op_type == _QUANTIZE else 0

    def constant(self, x: str) -> tuple[Array | None, int]:
        """(elements, stored bytes) of a constant operand; (None, 0) of another."""
        n = self.made.get(x)
        if n is not None and n.op_type == _DEQUANTIZE:
            x = n.input[0]
        t = self.consts.get(x)
        if t is None:
            return None, 0
        a = numpy_helper.to_array(t)
        width = BITS.get(t.data_type) or self.floats.get(t.data_type) or a.dtype.itemsize * 8
        return a, -(-a.size * width // 8)

    def clamped(self, n: onnx.NodeProto) -> str:
        """The result under which an operator's is stored: its own, or that of the clamp behind."""
        y = str(n.output[0])
        readers = self.uses.get(y, [])
        if len(readers) == 1 and readers[0].op_type in CLAMPS and y not in self.outputs:
            return self.clamped(readers[0])
        return y

    def joins(self, n: onnx.NodeProto) -> bool:
        """Whether a clamp belongs to the operator before it."""
        x = n.input[0] if n.input else ""
        before = self.made.get(x)
        alone = len(self.uses.get(x, [])) == 1 and x not in self.outputs
        return (
            n.op_type in CLAMPS
            and alone
            and before is not None
            and before.op_type not in (_QUANTIZE, _DEQUANTIZE)
        )

    def size(self, x: str) -> int:
        """Bytes of a value as it is stored."""
        width = self.bits(x) or self.stored(x) or self.floats.get(self.types.get(x, 0), 32)
        return -(-int(np.prod(self.shapes.get(x, ()), dtype=np.int64)) * width // 8)


def _shapes(model: onnx.ModelProto) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    g = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in g.initializer}
    types = {t.name: t.data_type for t in g.initializer}
    for v in (*g.input, *g.output, *g.value_info):
        t = v.type.tensor_type
        shapes[v.name] = tuple(d.dim_value for d in t.shape.dim)
        types[v.name] = t.elem_type
    return shapes, types


def residency(
    model: onnx.ModelProto,
    device: Device,
    mode: str = "",
    feature_shares: Mapping[str, float] | None = None,
) -> Residency:
    """Where the operators of a file run on an accelerator and its host.

    Args:
        model: A file for the device, in QDQ form or of its float type; a float file for a device
            of integers is judged by its operators alone, as if all were quantized.
        device: A row with `Rules`.
        mode: What it computes with; of a QDQ file its widths say so.
        feature_shares: Value -> what compression leaves of its bytes, where the device compresses.

    Raises:
        BadInput: The row has no rules.
    """
    rules = rules_of(device)
    f = _File(model, rules)
    shares = feature_shares or {}
    ops: list[Placed] = []
    place: dict[str, str] = {}
    stopped = ""
    wide = False
    for n in f.nodes:
        why = _why_not(f, n, rules)
        if stopped and not why:
            why = f"behind {stopped}: the device takes one part"
        if not why and f.joins(n) and place[n.input[0]] == "host":
            why = "what it clamps runs on the host"
        if why and rules.one_part and not stopped:
            stopped = n.output[0]
        where = "host" if why else "device"
        place.update(dict.fromkeys(n.output, where))
        wide |= where == "device" and any(f.bits(x) == 16 for x in n.input)
        ops.append(_placed(f, n, where, why, rules, shares))
    there = [p for p in ops if p.where == "device"]
    parameters = sum(p.weight_bytes for p in there)
    kept = min(1.0, rules.parameter_bytes / parameters) if parameters else 1.0
    fetched = sum(p.weight_moved for p in there) * (1 - kept)
    moved = int(fetched) + sum(p.feature_bytes for p in there)
    mode = mode or ("int16x8" if wide else "int8")
    ns, bound = _roofline(device, mode, sum(p.macs for p in there), moved)
    runs = [p.where for p in ops]
    parts = sum(a == "device" != b for a, b in zip(runs, ["host", *runs], strict=False))
    return Residency(
        device.name, mode, tuple(ops), parts, parameters, rules.parameter_bytes, moved, ns, bound
    )


def _placed(
    f: _File,
    n: onnx.NodeProto,
    where: str,
    why: str,
    rules: Rules,
    shares: Mapping[str, float],
) -> Placed:
    stored = moved = features = 0
    for x in n.input:
        array, size = f.constant(x)
        stored += size
        packs = array is not None and array.dtype.itemsize == 1 and "weights" in rules.compressed
        moved += packed_bytes(array) if packs and array is not None else size
        if x and array is None and not f.joins(n):
            features += int(f.size(x) * shares.get(x, 1.0))
    if f.clamped(n) == n.output[0]:
        features += sum(int(f.size(y) * shares.get(y, 1.0)) for y in n.output if y)
    return Placed(n.output[0], n.op_type, where, why, _macs(f, n), stored, moved, features)


def _why_not(f: _File, n: onnx.NodeProto, rules: Rules) -> str:
    """Why an operator does not run on the device; empty when it does."""
    if rules.ops and n.op_type not in rules.ops:
        return f"{n.op_type} is not among its operators"
    if not f.quantized or rules.float_dtypes:
        return _why_not_codes(f, n, rules)
    for x in n.input[: DATA.get(n.op_type, len(n.input))]:
        array, _ = f.constant(x)
        if x and f.is_float(x) and not f.bits(x) and not (f.joins(n) and x == n.input[0]):
            if array is None:
                return f"reads {x} as float"
            if f.bias_bits(x) != rules.accumulator_bits:
                return f"its constant {x} is float"
    y = f.clamped(n)
    if f.is_float(y) and not f.stored(y):
        return f"its result {y} stays float"
    return _why_not_codes(f, n, rules)


def _why_not_codes(f: _File, n: onnx.NodeProto, rules: Rules) -> str:
    """What of the codes an operator reads breaks a rule."""
    for x in n.input:
        width = f.bits(x)
        if not width:
            continue
        constant = f.constant(x)[0] is not None
        if width not in (rules.weight_bits if constant else rules.activation_bits):
            return f"{x} has {width} bits"
        scale, zero = f.scale(x)
        if scale.size > 1 and (rules.weights == "per-tensor" or not constant):
            return f"{x} has {scale.size} scales"
        if zero.any() and not rules.zero_points:
            return f"{x} has zero point {int(zero.reshape(-1)[0])}"
        if rules.scales == "power-of-two" and not (np.frexp(scale)[0] == 0.5).all():
            return f"{x} has scale {scale.reshape(-1)[0]:g}, no power of two"
    return ""


def _macs(f: _File, n: onnx.NodeProto) -> int:
    """Multiply-adds of a product."""
    if n.op_type not in PRODUCTS:
        return 0
    x, w, y = (f.shapes.get(v, ()) for v in (n.input[0], n.input[1], n.output[0]))
    if n.op_type == "Conv":
        return prod(y) * prod(w[1:])
    if n.op_type == "ConvTranspose":
        return prod(x) * prod(w[1:])
    if n.op_type == "MatMul":
        return prod(y) * (x[-1] if x else 0)
    flipped = any(a.name == "transA" and a.i for a in n.attribute)
    return prod(y) * (x[0 if flipped else -1] if x else 0)


def _roofline(device: Device, mode: str, macs: int, moved: int) -> tuple[float | None, str]:
    """(least ns, what bounds it) by peak and bandwidth, as far as they are recorded."""
    peak = device.peak_gops.get(PEAKS.get(mode.split(".")[0], "int8"))
    bandwidth = device.figures.get("bandwidth_gbs")
    times = []
    if peak is not None:
        times.append((2 * macs / peak.value, "compute"))
    if bandwidth is not None:
        times.append((moved / bandwidth.value, "memory"))
    return max(times) if times else (None, "")
