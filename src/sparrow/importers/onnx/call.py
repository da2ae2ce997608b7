"""What a decoder sees of one ONNX node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from sparrow.builder import Builder
from sparrow.errors import BadModel, UnsupportedOp
from sparrow.tensor import BY_NAME, Array, DType, TensorType

# Elements of a constant that is read as a list of integers: pads, sizes, axes.
MAX_INTS = 1 << 16

ELEM = {
    int(getattr(onnx.TensorProto, name)): BY_NAME[ours]
    for name, ours in (
        ("FLOAT", "float32"),
        ("FLOAT16", "float16"),
        ("BFLOAT16", "bfloat16"),
        ("DOUBLE", "float64"),
        ("INT4", "int4"),
        ("UINT4", "uint4"),
        ("INT8", "int8"),
        ("UINT8", "uint8"),
        ("INT16", "int16"),
        ("UINT16", "uint16"),
        ("INT32", "int32"),
        ("UINT32", "uint32"),
        ("INT64", "int64"),
        ("UINT64", "uint64"),
        ("BOOL", "bool"),
    )
}


def elem_type(code: int, where: str) -> DType:
    """DType of an ONNX element type code.

    Raises:
        UnsupportedOp: Strings, complex numbers, float8 and the like.
    """
    try:
        return ELEM[code]
    except KeyError:
        known = onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(code) if code in known else str(code)
        raise UnsupportedOp(f"{where}: element type {name} is not supported") from None


@dataclass(slots=True)
class Call:
    """One ONNX node with its operands as Builder values.

    Attributes:
        b: Where ops are added.
        op_type: ONNX operator name.
        version: Opset version of its domain that the model imports.
        where: Node name for messages.
        inputs: Builder values; ``""`` where absent.
        n_outputs: Outputs the node names, trailing absent ones excluded.
        attrs: Decoded attributes (subgraphs stay GraphProto).
        run: Decodes a subgraph: (graph, formal input values) -> output values; for control flow.
        wanted: Of every output the node names, whether something reads it.
        room: Nodes and values that it may unfold to.
    """

    b: Builder
    op_type: str
    version: int
    where: str
    inputs: tuple[str, ...]
    n_outputs: int
    attrs: Mapping[str, Any]
    run: Callable[[onnx.GraphProto, Sequence[str]], list[str]]
    wanted: tuple[bool, ...] = ()
    room: int = 0

    def has(self, i: int) -> bool:
        """Whether input ``i`` is present."""
        return i < len(self.inputs) and self.inputs[i] != ""

    def x(self, i: int = 0) -> str:
        """Input ``i``, which must be present."""
        if not self.has(i):
            raise BadModel(f"{self.where} ({self.op_type}): input {i} is missing")
        return self.inputs[i]

    def xs(self, first: int = 0) -> tuple[str, ...]:
        """All inputs from ``first`` on, each of which must be present."""
        return tuple(self.x(i) for i in range(first, len(self.inputs)))

    def opt(self, i: int) -> str:
        """Input ``i``, or ``""``."""
        return self.inputs[i] if i < len(self.inputs) else ""

    def type(self, i: int = 0) -> TensorType:
        """Type of input ``i``."""
        return self.b.type(self.x(i))

    def const(self, i: int, what: str) -> Array:
        """Input ``i``, which must be known when the model is compiled.

        Raises:
            UnsupportedOp: It is computed from run-time values.
        """
        v = self.b.value(self.x(i))
        if v is None:
            hint = self.fixing(self.x(i)) or "export the model with static shapes and constants"
            raise self.unsupported(f"{what} must be constant", hint)
        return v

    def fixing(self, value: str) -> str:
        """How a user makes ``value`` known, where it follows from inputs of a few numbers alone."""
        made = {y: node.inputs for node in self.b.nodes for y in node.outputs}
        found: dict[str, None] = {}
        seen, left = set[str](), [value]
        while left:
            x = left.pop()
            if not x or x in seen or x in self.b.consts:
                continue
            seen.add(x)
            if x in made:
                left += reversed(made[x])
            elif x in self.b.fixable:
                found[x] = None
            else:
                return ""
        given = " ".join(f"--constant {x}=.." for x in found)
        return f"fix what decides it: {given}" if given else ""

    def ints_at(self, i: int, what: str) -> tuple[int, ...] | None:
        """Constant integers of input ``i``, None when absent."""
        if not self.has(i):
            return None
        v = self.const(i, what)
        if v.dtype.kind not in "iu" or v.size > MAX_INTS:
            raise self.bad(f"{what} is {v.dtype}{list(v.shape)}, expected a few integers")
        return tuple(int(e) for e in v.ravel())

    def number(self, i: int, what: str) -> float:
        """Constant input ``i``, which must have one element."""
        v = self.const(i, what)
        if v.size != 1:
            raise self.bad(f"{what} has {v.size} elements, expected one")
        return float(v.item()) if v.dtype.kind == "f" else int(v.item())

    def integer(self, i: int, what: str) -> int:
        """Constant input ``i``, which must be one whole number."""
        value = self.number(i, what)
        if not isinstance(value, int) and not value.is_integer():
            raise self.bad(f"{what} is {value}, expected an integer")
        return int(value)

    def attr(self, name: str, default: Any = None) -> Any:
        """Attribute value, or the default, of whose kind it must be: a number, or a text.

        Raises:
            BadModel: It is of another.
        """
        value = self.attrs.get(name, default)
        for kind in ((int, float), str):
            if isinstance(default, kind) and not isinstance(value, kind):
                raise self.bad(f"attribute {name!r} is a {type(value).__name__}")
        return value

    def ints(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...] | None:
        """Integer-list attribute, or the default.

        Raises:
            BadModel: It is something else.
        """
        v = self.attrs.get(name, default)
        if v is None:
            return None
        if not isinstance(v, (list, tuple)) or not all(isinstance(i, int) for i in v):
            raise self.bad(f"attribute {name!r} is {type(v).__name__}, expected integers")
        return tuple(v)

    def axis(self, value: int, rank: int) -> int:
        """A non-negative axis.

        Raises:
            BadModel: Outside [-rank, rank).
        """
        if not -rank <= value < rank:
            raise BadModel(f"{self.where} ({self.op_type}): axis {value} of a rank-{rank} tensor")
        return value % rank

    def unsupported(self, what: str, hint: str = "") -> UnsupportedOp:
        """An error naming this node."""
        return UnsupportedOp(
            f"{self.where} (onnx {self.op_type}-{self.version}): {what}", hint=hint
        )

    def bad(self, what: str) -> BadModel:
        """An error naming this node."""
        return BadModel(f"{self.where} ({self.op_type}): {what}")


Decoder: TypeAlias = Callable[[Call], Sequence[str]]


def attribute(a: onnx.AttributeProto, where: str) -> Any:
    """Python value of an attribute; strings decoded, tensors as arrays, graphs as they are."""
    kinds = onnx.AttributeProto
    if a.ref_attr_name:
        raise BadModel(
            f"{where}: attribute {a.name!r} refers to {a.ref_attr_name!r} of a function, "
            "but is in none"
        )
    if a.type in (kinds.GRAPH, kinds.GRAPHS):
        return a.g if a.type == kinds.GRAPH else list(a.graphs)
    if a.type == kinds.TENSOR:
        elem_type(a.t.data_type, where)
        return a.t
    value = onnx.helper.get_attribute_value(a)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if a.type == kinds.STRINGS:
        return [v.decode("utf-8", "replace") for v in value]
    return value


def to_array(t: onnx.TensorProto, where: str) -> tuple[Array, DType]:
    """Array (storage dtype) and DType of an inline tensor.

    Raises:
        BadModel: It is no tensor, but another kind of attribute; or its data do not match its
            shape.
    """
    if not isinstance(t, onnx.TensorProto):
        raise BadModel(f"{where}: value is {type(t).__name__}, expected a tensor")
    dtype = elem_type(t.data_type, where)
    if t.data_location == onnx.TensorProto.EXTERNAL or t.external_data:
        raise BadModel(
            f"{where}: tensor {t.name!r} lies outside the model file, only initializers may"
        )
    if min((0, *t.dims)) < 0:
        raise BadModel(f"{where}: tensor {t.name!r} has shape {tuple(t.dims)}")
    try:
        a = numpy_helper.to_array(t)
    except (ValueError, TypeError, OverflowError) as e:
        raise BadModel(f"{where}: tensor {t.name!r} is malformed: {e}") from None
    return np.asarray(a).astype(dtype.numpy, copy=False), dtype
