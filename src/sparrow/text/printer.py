"""A Graph as text; `parser.py` reads it back.

    graph main
    input x: float32[1x3x8x8]
    const w: float32[4x3x3x3] = #8c1f2a90b7d3e455
    const b: float32[4] = [0.0, 0.5, -1.0, 2.0]
    y: float32[1x4x6x6] = Conv(x, w, b) {strides=(1, 1), epilogue=relu(%0)}  # /conv1
    output y

A statement is a line. Names stand as they are, or as JSON strings where they would not read back;
``_`` is an absent input. Attributes that have their default are left out. Small constants are
written in place, larger ones by the hash of their content.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Graph, Node
from sparrow.ops import OPS
from sparrow.tensor import (
    BY_NAME,
    DTYPES,
    F32,
    Affine,
    Array,
    BinaryCode,
    Codebook,
    DType,
    Quantization,
    TensorType,
)

INLINE_ELEMENTS = 8
SHORT = {t: re.sub(r"^(float|uint|int)", lambda m: m[0][0], t.name) for t in DTYPES} | {
    t: "bf16" for t in DTYPES if t.name == "bfloat16"
}
NAME = re.compile(r"%?[A-Za-z0-9_./-]+(?::[A-Za-z0-9_./-]+)*")
NUMBER = re.compile(r"-?\d+(\.\d*)?(e[+-]?\d+)?")


def _parts_of(hint: object) -> Iterator[type]:
    """Dataclasses a field may hold, those with a text form of their own excepted."""
    literal = (lane.Arg, lane.Imm, lane.Call, DType, Affine, BinaryCode, Codebook)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint not in literal:
        yield hint
    for inner in typing.get_args(hint):
        yield from _parts_of(inner)


# dataclasses inside attributes, written Name(field=value)
PARTS: dict[str, type] = {
    part.__name__: part
    for op in OPS
    for hint in typing.get_type_hints(op).values()
    for part in _parts_of(hint)
}


def array_key(a: Array) -> str:
    """What the text calls a larger array: 16 hex digits of a hash of dtype, shape and elements."""
    h = hashlib.sha256(f"{a.dtype.str}{a.shape}".encode() + np.ascontiguousarray(a).tobytes())
    return h.hexdigest()[:16]


def elements(words: list[str], dtype: np.dtype[Any]) -> Array:
    """A flat array from literals; raises ValueError, OverflowError or KeyError."""
    if dtype.kind == "b":
        return np.array([{"true": True, "false": False}[w] for w in words], dtype)
    if dtype.kind == "f":
        return np.array([float(w) for w in words], dtype)
    return np.array([int(w) for w in words], dtype)


class _Printer:
    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def data(self, a: Array) -> str:
        """The elements of a small array, else the hash of a larger one."""
        if a.size <= INLINE_ELEMENTS:
            text = "[" + ", ".join(str(v).lower() for v in a.ravel()) + "]"
            # a NaN with a payload has no decimal form
            if elements(text[1:-1].split(", ") if a.size else [], a.dtype).tobytes() == a.tobytes():
                return text
        key = array_key(a)
        self.arrays[key] = a
        return f"#{key}"

    def type_text(self, t: TensorType) -> str:
        if not re.fullmatch("[A-Za-z]*", t.axes):
            raise InvalidGraph(f"axes {t.axes!r} are no letters")
        plain = f"{t.dtype}[{'x'.join(map(str, t.shape))}]{t.axes}"
        return plain if t.quant is None else f"{plain} {self.quant(t.quant)}"

    def quant(self, q: Quantization) -> str:
        match q:
            case Affine(scale, zero_point, block):
                arrays = f"{self.array(scale, F32)}, {self.array(zero_point, BY_NAME['int32'])}"
                return f"affine({arrays}, {self.value(block)})"
            case BinaryCode(alpha, block):
                return f"binary({self.array(alpha, F32)}, {self.value(block)})"
            case Codebook(values):
                return f"codebook({self.array(values, F32)})"

    def array(self, a: Array, dtype: DType) -> str:
        return f"{self.type_text(TensorType(a.shape, dtype))} {self.data(a)}"

    def value(self, v: object) -> str:
        """An attribute: literals, tuples, dtypes, lane expressions and dataclasses of them."""
        match v:
            case None:
                return "none"
            case bool():
                return str(v).lower()
            case int():
                return int.__repr__(v)
            case float():
                return float.__repr__(v)
            case str():
                return json.dumps(v)
            case tuple():
                inner = ", ".join(map(self.value, v))
                return f"({inner},)" if len(v) == 1 else f"({inner})"
            case DType():
                return v.name
            case Affine() | BinaryCode() | Codebook():
                return self.quant(v)
            case lane.Arg(index, dtype):
                return f"%{index}" if dtype == F32 else f"%{index}:{SHORT[dtype]}"
            case lane.Imm(value, dtype):
                text = self.value(value)
                return f"{text}{'' if NUMBER.fullmatch(text) else ':'}{SHORT[dtype]}"
            case lane.Call("cast", (x,), dtype):
                return f"cast({self.value(x)}, {SHORT[dtype]})"
            case lane.Call(fn, args, _):
                return f"{fn}({', '.join(map(self.value, args))})"
        if type(v) in PARTS.values():
            return f"{type(v).__name__}({self.fields(v)})"
        raise InvalidGraph(f"attribute {v!r} has no text form")

    def fields(self, v: Any) -> str:
        """Fields of a dataclass that differ from their default."""
        shown = [
            f"{f.name}={self.value(getattr(v, f.name))}"
            for f in dataclasses.fields(v)
            if f.default is dataclasses.MISSING
            or self.value(getattr(v, f.name)) != self.value(f.default)
        ]
        return ", ".join(shown)

    def node(self, n: Node, g: Graph) -> str:
        if type(n.op) not in OPS:
            raise InvalidGraph(f"op {type(n.op).__name__} is not in OPS")
        outputs = ", ".join(f"{_name(y)}: {self.type_text(g.types[y])}" for y in n.outputs)
        attrs = self.fields(n.op)
        text = f"{outputs} = {type(n.op).__name__}({', '.join(map(_name, n.inputs))})"
        text += f" {{{attrs}}}" if attrs else ""
        return text + (f"  # {_comment(n.origin)}" if n.origin else "")


def _name(name: str) -> str:
    if not name:
        return "_"
    return name if NAME.fullmatch(name) and name != "_" else json.dumps(name)


def _comment(text: str) -> str:
    return text if re.fullmatch(r"[!#-~]([ -~]*[!-~])?", text) else json.dumps(text)


def print_graph(g: Graph) -> tuple[str, dict[str, Array]]:
    """``g`` as text, and the arrays that the text names by hash.

    Raises:
        InvalidGraph: An op is not in OPS or an attribute has no text form.
    """
    p = _Printer()
    lines = [f"graph {json.dumps(g.name) if g.name in ('', '_') else _name(g.name)}"]
    if g.scheme != "f32":
        lines.append(f"scheme {g.scheme}")
    lines += [f"input {_name(x)}: {p.type_text(g.types[x])}" for x in g.inputs]
    for s in g.states:
        names = f"{_name(s.name)}({_name(s.input)}, {_name(s.output)})"
        lines.append(f"state {names}: {p.type_text(g.types[s.input])} = {p.data(s.initial)}")
    for name, a in g.consts.items():
        lines.append(f"const {_name(name)}: {p.type_text(g.types[name])} = {p.data(a)}")
    lines += [p.node(n, g) for n in g.nodes]
    lines += [f"output {_name(y)}" for y in g.outputs]
    lines += [f"length {_name(n.output)} {n.axis} {_name(n.count)}" for n in g.lengths]
    return "\n".join(lines) + "\n", p.arrays
