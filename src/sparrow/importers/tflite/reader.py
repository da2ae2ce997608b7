"""Decodes the operators of a subgraph of a .tflite file into a Builder."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparrow.builder import Builder
from sparrow.errors import BadInput, BadModel, InvalidGraph, UnsupportedOp
from sparrow.graph import State
from sparrow.importers.file import check_operands
from sparrow.importers.fixed import fixed, said, with_own_shapes
from sparrow.importers.imported import Imported, Shapes, Verdict
from sparrow.importers.nearest import nearest
from sparrow.importers.tflite.call import Call
from sparrow.importers.tflite.constants import Constants
from sparrow.importers.tflite.decode import DECODERS
from sparrow.importers.tflite.model import Model, Operator, Tensor
from sparrow.importers.tflite.variables import (
    declare_state,
    stored_value,
    zero_codes,
)
from sparrow.tensor import I8, Affine, TensorType


def quantization(t: Tensor, shape: tuple[int, ...]) -> Affine | None:
    """What the codes of a tensor mean, for the shape it has."""
    try:
        return t.affine(shape) if t.quantized else None
    except InvalidGraph as e:
        raise BadModel(f"tensor {t.name!r}: {e.message}") from None


# Keras writes recurrent layers as loops, unless its converter sees the layers themselves.
CONTROL = (
    "control flow is not read; recurrent layers take unroll=True, and of an LSTM of Keras 2 "
    "(tf_keras) TFLiteConverter.from_keras_model makes one operator"
)


class Reader:
    """Decodes the operators of one file into a Builder."""

    def __init__(self, model: Model, path: str, name: str, states: Mapping[str, str]) -> None:
        self.model, self.path = model, path
        self.b = Builder(name)
        self.b.scheme = "tflite" if any(t.quantized for t in model.tensors) else "f32"
        self.env: dict[int, str] = {}
        self.names: dict[str, str] = {}
        self.verdicts: list[Verdict] = []
        self.frozen: list[str] = []
        self.bound = dict(states)
        self.stored: dict[int, str] = {}
        self.loaded: dict[int, str] = {}
        self.constants = Constants(path)

    def inputs(self, shapes: Shapes, constants: Mapping[str, Any]) -> None:
        """Declare the inputs, their dynamic extents taken from ``shapes`` or from the file."""
        m = self.model
        known = [m.tensors[i].name for i in m.inputs]
        outs = [m.tensors[i].name for i in m.outputs]
        for what, given in (("shape", shapes), ("constant", constants), ("state", self.bound)):
            for k in given:
                if k not in known:
                    raise BadInput(
                        f"{what} given for {k!r}, which is no input of the model",
                        hint=f"inputs: {', '.join(map(repr, known))}",
                    )
        if both := set(constants) & set(self.bound):
            raise BadInput(f"input {min(both)!r} is given as a constant and as a state")
        shapes = with_own_shapes(shapes, constants)
        for k, out in self.bound.items():
            if out not in outs:
                raise BadInput(
                    f"state {k!r}: {out!r} is no output of the model",
                    hint=f"outputs: {', '.join(map(repr, outs))}",
                )
        for i in m.inputs:
            t = m.tensors[i]
            if i in self.env:
                raise BadModel(f"input {t.name!r} is listed twice")
            shape = self._shape(t, shapes.get(t.name))
            full = TensorType(shape, t.dtype, quant=quantization(t, shape))
            if t.name in constants:
                value = fixed(constants[t.name], t.name, full)
                self.env[i] = self.b.const(value, t.dtype, full.quant)
                self.frozen.append(said(t.name, value))
            elif t.name in self.bound:
                self.b.types[t.name] = full
                self.env[i] = t.name
            else:
                self.env[i] = self.b.input(t.name, full)

    def _shape(self, t: Tensor, given: Sequence[int] | None) -> tuple[int, ...]:
        dynamic = [i for i, d in enumerate(t.signature) if d == -1]
        if given is None:
            for i in dynamic:
                self.frozen.append(f"{t.name}[{i}] (?) = {t.shape[i]} from the file")
            return t.shape
        try:
            want = tuple(operator.index(d) for d in given)
        except TypeError:
            raise BadInput(f"shape of {t.name!r} is {given!r}, expected integers") from None
        if len(want) != len(t.shape) or min((0, *want)) < 0:
            raise BadInput(f"input {t.name!r} is {list(t.shape)}, shape given {list(want)}")
        for i, (d, n) in enumerate(zip(t.shape, want, strict=True)):
            if d != n and i not in dynamic:
                raise BadInput(f"input {t.name!r} axis {i} is {d}, shape given {list(want)}")
        self.frozen += [f"{t.name}[{i}] (?) = {want[i]} from shape {t.name}" for i in dynamic]
        return want

    def value(self, i: int, where: str) -> str:
        """Builder value of a tensor; constants are read when first used."""
        if i < 0:
            return ""
        t = self.model.tensors[i]
        if t.resource:
            raise UnsupportedOp(f"{where}: variable {t.name!r} in a branch")
        if i not in self.env:
            if t.variable and t.data is None:
                return ""
            if t.data is None:
                if 0 in t.shape:
                    empty = np.zeros(t.shape, t.dtype.numpy)
                    self.env[i] = self.b.const(empty, t.dtype)
                    return self.env[i]
                raise BadModel(f"{where}: tensor {t.name!r} is used before it is computed")
            array = self.constants.read(t)
            self.env[i] = self.b.stored(array, t.dtype, quantization(t, t.shape))
        return self.env[i]

    def load(self, i: int) -> str:
        """Value of a variable tensor at the start of a call."""
        if i not in self.loaded:
            t = self.model.tensors[i]
            kind = TensorType(t.shape, t.dtype, quant=quantization(t, t.shape))
            self.loaded[i] = declare_state(self.b, t.name, kind)
        return self.loaded[i]

    def finish_states(self) -> None:
        """States of the file, 0 at first as LiteRT has them: for int8 the zero point."""
        for i, name in self.loaded.items():
            t = self.b.types[name]
            begin = zero_codes(t if t.dtype == I8 else replace(t, quant=None))
            self.b.states.append(State(name, name, self.stored[i], begin))

    def call(self, op: Operator, where: str) -> Call:
        """What the decoder of an operator sees."""
        tensors = self.model.tensors

        def state(i: int) -> int:
            k = op.inputs[i] if i < len(op.inputs) else -1
            if k < 0 or not tensors[k].variable or tensors[k].data is not None:
                raise BadModel(f"{where} ({op.name}): input {i} is no variable tensor")
            if k in self.stored:
                raise UnsupportedOp(f"{where} ({op.name}): state {tensors[k].name!r} has two users")
            return k

        def store(i: int, y: str) -> None:
            k = state(i)
            kept = self.b.types[self.load(k)]
            y = stored_value(self.b, y, list(self.loaded.values()))
            if self.b.types[y] != kept:
                raise BadModel(f"{where} ({op.name}): state {kept} is stored as {self.b.types[y]}")
            self.stored[k] = y

        check_operands(f"{where} ({op.name})", len(op.inputs))
        return Call(
            self.b,
            op.name,
            op.version,
            where,
            tuple(self.value(i, where) for i in op.inputs),
            tuple(tensors[i] if i >= 0 else None for i in op.inputs),
            tuple(tensors[i] for i in op.outputs if i >= 0),
            op.options,
            tuple(tensors[i] if i >= 0 else None for i in op.intermediates),
            lambda i: self.load(state(i)),
            store,
            op.custom,
        )

    def where(self, k: int, op: Operator) -> str:
        """Name of an operator: that of its first output."""
        names = [self.model.tensors[i].name for i in op.outputs if i >= 0]
        return names[0] if names else f"operator {k}"

    def operator(self, k: int, op: Operator) -> None:
        """Decode one operator; its outputs join ``env``."""
        where = self.where(k, op)
        if not op.outputs or min(op.outputs) < 0:
            raise BadModel(f"{where} ({op.name}): an output is missing")
        before, folded = len(self.b.nodes), self.b.folded
        self.b.origin = where
        call = self.call(op, where)
        decoder = DECODERS.get(op.name)
        try:
            if decoder is None:
                hint = CONTROL if op.name in ("WHILE", "IF") else nearest(op.name, DECODERS)
                raise call.unsupported("no decoder for this operator", hint)
            results = list(decoder(call))
            if len(results) != len(op.outputs):
                raise call.bad(f"{len(op.outputs)} outputs, expected {len(results)}")
            results = [self.declared(call, y, t) for y, t in zip(results, call.outs, strict=True)]
        except InvalidGraph as e:
            said = e.message.startswith(where)
            raise (BadModel(e.message) if said else call.bad(e.message)) from None
        parts = tuple(type(n.op).__name__ for n in self.b.nodes[before:])
        kind = "ok" if len(parts) == 1 else "decomposed" if parts else "folded"
        if not parts and self.b.folded == folded:
            kind = "ok"
        self.verdicts.append(Verdict(where, op.name, kind, parts))
        self.define(op, results)

    def define(self, op: Operator, values: Sequence[str]) -> None:
        """Give the outputs of an operator their values."""
        for i, v in zip(op.outputs, values, strict=True):
            t = self.model.tensors[i]
            if i in self.env or t.data is not None:
                raise BadModel(f"tensor {t.name!r} is defined twice")
            self.env[i] = v
            self.names.setdefault(v, t.name)

    def declared(self, call: Call, y: str, t: Tensor) -> str:
        """A result with the meaning that the file states for its codes."""
        found = self.b.type(y)
        if found.dtype != t.dtype:
            raise call.bad(f"output {t.name!r} is {t.dtype}, its operands give {found.dtype}")
        return call.typed(y, quantization(t, found.shape))

    def outputs(self) -> dict[str, str]:
        """Values of the outputs by name."""
        found = {}
        for i in self.model.outputs:
            name = self.model.tensors[i].name
            v = self.value(i, "output")
            if not v:
                raise BadModel(f"output {name!r} is a variable tensor")
            found[name] = v
        return found

    def close(self) -> Imported:
        """The finished Graph: declared states are stored, inputs by another name."""
        result = self.outputs()
        self.finish_states()
        for n, out in self.bound.items():
            value = result.pop(out)
            t = self.b.types[n]
            value = stored_value(self.b, value, list(self.bound))
            self.b.states.append(State(n, n, value, zero_codes(t)))
        result |= self.extra_outputs()
        graph = self.b.finish(result, self.names)
        return Imported(graph, tuple(self.frozen), tuple(self.verdicts))

    def extra_outputs(self) -> dict[str, str]:
        """Values to keep beside the model's outputs, by a name of their own."""
        return {}
