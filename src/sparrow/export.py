"""Graph -> standard ONNX, at every stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sparrow import lane
from sparrow.graph import Graph
from sparrow.tensor import BF16, BOOL, DTYPES, F32, F64, I16, U16, Array, DType, TensorType

OPSET = 21
IR_VERSION = 10
# Metadata key of a rounding scheme other than the default.
SCHEME = "sparrow.scheme"
PROTO = {
    t: getattr(TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(t.name, t.name.upper()))
    for t in DTYPES
    if t.name != "int2"
}


@dataclass(frozen=True, slots=True)
class Site:
    """Where an op is written: its operands under their ONNX names."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    in_types: tuple[TensorType | None, ...]
    out_types: tuple[TensorType, ...]


class Writer:
    """Collects ONNX nodes and initializers under fresh names."""

    def __init__(self, taken: set[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.opset = OPSET
        self._taken = taken
        self._count = 0

    def require(self, opset: int) -> None:
        """Raise the opset of the model for an operator that is newer than OPSET."""
        self.opset = max(self.opset, opset)

    def fresh(self, hint: str) -> str:
        """A name nothing else has."""
        while True:
            self._count += 1
            name = f"{hint}_{self._count}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def node(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str] | None = None, **attrs: Any
    ) -> str:
        """Append a node; returns its first output. A DType in ``attrs`` becomes its ONNX code."""
        out = list(outputs) if outputs is not None else [self.fresh(op)]
        names = list(inputs)
        while names and not names[-1]:
            names.pop()
        attrs = {k: PROTO[v] if isinstance(v, DType) else v for k, v in attrs.items()}
        self.nodes.append(helper.make_node(op, names, out, name=self.fresh("n"), **attrs))
        return out[0]

    def const(self, array: Array, dtype: DType | None = None) -> str:
        """Append an initializer; returns its name."""
        name = self.fresh("const")
        self.initializers.append(_tensor(name, array, dtype))
        return name

    @contextmanager
    def codes_in_floats(self, site: Site) -> Iterator[Site]:
        """Where to write an operator that ONNX, or ONNX Runtime, has not over 16-bit integers.

        Floats hold their values. Of operand and result 0, which have one type.
        """
        t = site.in_types[0]
        if t is None or t.dtype not in (I16, U16):
            yield site
            return
        wide, made = self.node("Cast", [site.inputs[0]], to=F32), self.fresh("wide")
        yield Site(
            (wide, *site.inputs[1:]),
            (made, *site.outputs[1:]),
            (TensorType(t.shape, F32, t.axes), *site.in_types[1:]),
            (TensorType(site.out_types[0].shape, F32, t.axes), *site.out_types[1:]),
        )
        self.node("Cast", [made], [site.outputs[0]], to=t.dtype)

    def scalar(self, value: float | int | bool, dtype: DType) -> str:
        """A rank-0 initializer."""
        return self.const(np.asarray(value, dtype.numpy), dtype)

    def expr(self, e: lane.Expr, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> str:
        """Write a lane expression as elementwise nodes that broadcast to all of ``shapes``."""
        done: dict[lane.Expr, str] = {}
        y = self._expr(e, names, done)
        full = np.broadcast_shapes(*shapes)
        used = {a.index for a in lane.walk(e) if isinstance(a, lane.Arg)}
        if np.broadcast_shapes(*(shapes[i] for i in used)) != full:
            y = self.node("Expand", [y, self.const(np.array(full, np.int64))])
        return y

    def _expr(self, e: lane.Expr, names: Sequence[str], done: dict[lane.Expr, str]) -> str:
        if e in done:
            return done[e]
        if isinstance(e, lane.Arg):
            return names[e.index]
        if isinstance(e, lane.Imm):
            y = self.scalar(e.value, e.dtype)
        elif e.fn == "cast":
            y = self.node("Cast", [self._expr(e.args[0], names, done)], to=PROTO[e.dtype])
        elif e.fn == "mod" and e.dtype.kind == "float":
            y = self._expr(_float_mod(*e.args), names, done)
        elif e.fn == "rshr":
            y = self._expr(_rounding_shift(*e.args), names, done)
        elif e.fn == "relu" and e.dtype.kind == "int":  # ONNX Runtime has none of int64
            y = self._expr(lane.call("max", e.args[0], lane.imm_like(0, e.args[0])), names, done)
        elif e.fn in EXPANSIONS:
            y = self._expr(EXPANSIONS[e.fn](e.args[0]), names, done)
        elif e.fn in ("gelu", "gelu_tanh"):
            form = "tanh" if e.fn == "gelu_tanh" else "none"
            y = self.node("Gelu", [self._expr(e.args[0], names, done)], approximate=form)
        elif (slope := slope_of(e)) is not None:
            y = self.node("LeakyRelu", [self._expr(e.args[2], names, done)], alpha=slope)
        elif (ramp := _ramp(e)) is not None:
            x, alpha, beta = ramp
            y = self.node("HardSigmoid", [self._expr(x, names, done)], alpha=alpha, beta=beta)
        else:
            row = lane.BY_NAME[e.fn].onnx
            assert row is not None, e.fn
            args = [self._expr(a, names, done) for a in e.args]
            y = self.node(row[0], args, **dict(row[1]))
        done[e] = y
        return y


def slope_of(e: lane.Call) -> float | None:
    """The slope of where(x < 0, slope * x, x), for which runtimes and devices have an operator."""
    if e.fn != "where" or e.dtype != F32:
        return None
    below, scaled, x = e.args
    if below != lane.call("lt", x, lane.imm_like(0, x)) or not isinstance(scaled, lane.Call):
        return None
    other = [a for a in scaled.args if a != x]
    slope = other[0] if scaled.fn == "mul" and len(other) == 1 else None
    return float(slope.value) if isinstance(slope, lane.Imm) else None


def _ramp(e: lane.Call) -> tuple[lane.Expr, float, float] | None:
    """(x, alpha, beta) of alpha * x + beta between 0 and 1, HardSigmoid."""
    match e:
        case lane.Call("min", (lane.Call("max", (line, lane.Imm() as low)), lane.Imm() as high)):
            if e.dtype != F32 or (low.value, high.value) != (0, 1):
                return None
        case _:
            return None
    match line:
        case lane.Call("add", (lane.Call("mul", (x, lane.Imm() as alpha)), lane.Imm() as beta)):
            return x, float(alpha.value), float(beta.value)
    return None


def _silu(x: lane.Expr) -> lane.Expr:
    return lane.call("mul", x, lane.call("sigmoid", x))


def _hardswish(x: lane.Expr) -> lane.Expr:
    lin = lane.call("add", lane.call("mul", x, lane.imm_like(1 / 6, x)), lane.imm_like(0.5, x))
    return lane.call("mul", x, lane.clip(lin, lane.imm_like(0, x), lane.imm_like(1, x)))


def _expm1(x: lane.Expr) -> lane.Expr:
    return lane.call("sub", lane.call("exp", x), lane.imm_like(1, x))


def _log1p(x: lane.Expr) -> lane.Expr:
    return lane.call("log", lane.call("add", x, lane.imm_like(1, x)))


def _trunc(x: lane.Expr) -> lane.Expr:
    return lane.call("mul", lane.call("sign", x), lane.call("floor", lane.call("abs", x)))


def _float_mod(a: lane.Expr, b: lane.Expr) -> lane.Expr:
    """The remainder with the sign of the divisor, which Mod has for integers only."""
    zero = lane.imm_like(0, a)
    r = lane.call("fmod", a, b)
    other = lane.call("xor", lane.call("lt", r, zero), lane.call("lt", b, zero))
    wrong = lane.call("and", lane.call("not", lane.call("eq", r, zero)), other)
    return lane.call("where", wrong, lane.call("add", r, b), r)


def _rounding_shift(a: lane.Expr, b: lane.Expr) -> lane.Expr:
    """In float64, where sums below 2^53 and powers of two are exact: BitShift takes no sign."""
    step = lane.call("pow", lane.Imm(2.0, F64), lane.call("neg", lane.cast(b, F64)))
    scaled = lane.call("mul", lane.cast(a, F64), step)
    half = lane.call("where", lane.call("gt", b, lane.imm_like(0, b)), *_HALF_OR_NONE)
    return lane.cast(lane.call("floor", lane.call("add", scaled, half)), a.dtype)


_HALF_OR_NONE = (lane.Imm(0.5, F64), lane.Imm(0.0, F64))


# Functions of lane.LANE_FNS that are several operators in ONNX.
EXPANSIONS = {
    "silu": _silu,
    "hardswish": _hardswish,
    "expm1": _expm1,
    "log1p": _log1p,
    "trunc": _trunc,
}


def _tensor(name: str, array: Array, dtype: DType | None = None) -> TensorProto:
    if dtype is None or (dtype.numpy == array.dtype and dtype not in (BF16,) and dtype.bits >= 8):
        return numpy_helper.from_array(np.asarray(array, order="C"), name)
    return helper.make_tensor(name, PROTO[dtype], array.shape, array.ravel().tolist())


def _value(name: str, t: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, PROTO[t.dtype], t.shape)


def to_onnx(g: Graph) -> onnx.ModelProto:
    """``g`` as standard ONNX with the same names and answers; states become inputs and outputs."""
    w = Writer(set(g.types))
    state_names = {s.output: s for s in g.states}
    inputs = [*g.inputs, *(s.input for s in g.states)]
    outputs = [*g.outputs, *(o for o in state_names if o not in g.outputs)]
    for name, array in g.consts.items():
        w.initializers.append(_tensor(name, array, g.types[name].dtype))
    for n in g.nodes:
        n.op.export(w, Site(n.inputs, n.outputs, g.in_types(n), g.out_types(n)))
    # ONNX wants graph outputs to be produced by nodes, each once
    final: list[str] = []
    for name in outputs:
        if (
            name in g.inputs
            or name in g.consts
            or any(s.input == name for s in g.states)
            or name in final
        ):
            final.append(w.node("Identity", [name]))
        else:
            final.append(name)
    graph = helper.make_graph(
        w.nodes,
        g.name or "graph",
        [_value(i, g.types[i]) for i in inputs],
        [_value(o, g.types[name]) for o, name in zip(final, outputs, strict=True)],
        w.initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", w.opset)],
        ir_version=IR_VERSION,
        producer_name="sparrow",
    )
    if g.scheme != "f32":
        helper.set_model_props(model, {SCHEME: g.scheme})
    return model


__all__ = ["BOOL", "F32", "IR_VERSION", "OPSET", "SCHEME", "Site", "Writer", "to_onnx"]
