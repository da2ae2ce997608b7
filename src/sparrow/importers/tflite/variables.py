"""Variables of a .tflite file that VAR_HANDLE names: states of the network, or constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparrow.builder import MAX_ELEMENTS, Builder
from sparrow.errors import BadModel, UnsupportedOp
from sparrow.graph import State
from sparrow.importers.tflite.model import Model, Operator
from sparrow.tensor import Affine, Array, TensorType


def declare_state(b: Builder, name: str, t: TensorType) -> str:
    """A value that a state holds at the start of a call, under a name that is free."""
    while name in b.types:
        name += "_"
    if t.size > MAX_ELEMENTS:
        raise BadModel(f"state {name!r} of shape {t.shape} is out of range")
    b.types[name] = t
    return name


def stored_value(b: Builder, y: str, states: Sequence[str]) -> str:
    """``y`` as a state may store it: computed, and neither an input nor another state."""
    if y in b.consts or y in b.inputs or y in states:
        t = b.types[y]
        y = b.lane(b.arg(0, y), y)
        if y in b.consts:  # copying a constant gives that constant
            raise UnsupportedOp(f"{b.origin}: the state {t} is assigned a constant")
        b.types[y] = t
    return y


def zero_codes(t: TensorType) -> Array:
    """What stands for 0, the same element everywhere: a shape of any size takes no memory."""
    zero = t.quant.zero_point.reshape(-1)[0] if isinstance(t.quant, Affine) else 0
    return np.broadcast_to(np.array(zero).astype(t.dtype.numpy), t.shape)


@dataclass(slots=True)
class _Variable:
    initial: str = ""
    loaded: str = ""
    now: str = ""


class Variables:
    """What the variables of one file hold while its operators are decoded in order.

    Args:
        b: Where values are declared.
        model: The main subgraph.
    """

    def __init__(self, b: Builder, model: Model) -> None:
        self.b = b
        self._all: dict[str, _Variable] = {}
        names = handles(model)
        self._assigned = {
            names.get(op.inputs[0], "")
            for op in model.operators
            if op.name == "ASSIGN_VARIABLE" and op.inputs
        }

    def _of(self, name: str) -> _Variable:
        return self._all.setdefault(name, _Variable())

    def begin(self, name: str, y: str, where: str) -> None:
        """Let a variable begin as ``y``, which must be constant, before anything asks for it."""
        if self.b.value(y) is None:
            raise UnsupportedOp(
                f"{where}: variable {name!r} begins as something computed at run time",
                hint="initialize it with a constant",
            )
        if self._of(name).now:
            raise UnsupportedOp(f"{where}: variable {name!r} begins after it was read or assigned")
        self._of(name).initial = y

    def read(self, name: str, t: TensorType, where: str) -> str:
        """What a variable of type ``t`` holds now; what nothing assigns to is a constant."""
        v = self._of(name)
        if v.now:
            return v.now
        if name not in self._assigned:
            if not v.initial:
                raise UnsupportedOp(
                    f"{where}: variable {name!r} is read, and nothing gives it a value",
                    hint="convert the trained network (TFLiteConverter.from_keras_model)",
                )
            return v.initial
        kind = self.b.types[v.initial] if v.initial else t
        v.now = v.loaded = declare_state(self.b, name or "variable", kind)
        return v.now

    def held(self, name: str) -> TensorType | None:
        """Type of what a variable holds; None where nothing says it yet."""
        v = self._of(name)
        y = v.loaded or v.initial or v.now
        return self.b.types[y] if y else None

    def assign(self, name: str, y: str) -> None:
        """Let a variable hold ``y`` from here on."""
        self._of(name).now = y

    def states(self) -> Iterator[State]:
        """The variables that are read before they are assigned to."""
        loaded = [v.loaded for v in self._all.values()]
        for name, v in self._all.items():
            if v.loaded:
                self.b.origin = name
                t = self.b.types[v.loaded]
                begin = self.b.value(v.initial) if v.initial else zero_codes(t)
                assert begin is not None, name
                now = stored_value(self.b, v.now, loaded)
                yield State(v.loaded, v.loaded, now, begin)


def handles(model: Model) -> dict[int, str]:
    """The variable that each tensor of a subgraph stands for."""
    return {
        op.outputs[0]: _name(op)
        for op in model.operators
        if op.name == "VAR_HANDLE" and len(op.outputs) == 1
    }


def _name(op: Operator) -> str:
    container, name = str(op.options["container"]), str(op.options["name"])
    return f"{container}/{name}" if container else name
