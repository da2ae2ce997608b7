"""Operators beyond one subgraph: variables that live from call to call, and branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparrow.errors import BadModel, UnsupportedOp
from sparrow.importers.imported import Verdict
from sparrow.importers.tflite.model import Model, Operator
from sparrow.importers.tflite.reader import Reader, quantization
from sparrow.importers.tflite.variables import Variables, handles
from sparrow.tensor import BOOL, Affine, TensorType

# Operators of subgraphs that a model may run while it is read: branches of branches double them.
MAX_INNER = 1024
OWN = ("ASSIGN_VARIABLE", "CALL_ONCE", "IF", "READ_VARIABLE", "VAR_HANDLE")


class Controlled(Reader):
    """A Reader of the main subgraph that follows operators into others."""

    def __init__(self, model: Model, path: str, name: str, states: Mapping[str, str]) -> None:
        super().__init__(model, path, name, states)
        self.variables = Variables(self.b, model)
        self.handles = handles(model)
        self.inner = 0

    def where(self, k: int, op: Operator) -> str:
        """Name of an operator: that of the variable it has to do with, or as `Reader` says."""
        of = next((self.handles[i] for i in op.inputs[:1] if i in self.handles), "")
        return of or super().where(k, op)

    def value(self, i: int, where: str) -> str:
        """As `Reader.value`; not of a variable.

        Raises:
            UnsupportedOp: A variable is passed on.
        """
        if i >= 0 and self.model.tensors[i].resource:
            name = self.handles.get(i, self.model.tensors[i].name)
            raise UnsupportedOp(
                f"{where}: variable {name!r} is passed on",
                hint="only READ_VARIABLE and ASSIGN_VARIABLE of the main subgraph may take one",
            )
        return super().value(i, where)

    def operator(self, k: int, op: Operator) -> None:
        """Decode one operator."""
        if op.name not in OWN:
            super().operator(k, op)
            return
        where = self.where(k, op)
        before = len(self.b.nodes)
        self.b.origin = where
        if op.name == "CALL_ONCE":
            self._begin(op, where)
        elif op.name == "READ_VARIABLE":
            self._read(op, where)
        elif op.name == "ASSIGN_VARIABLE":
            self._assign(op, where)
        elif op.name == "IF":
            self._if(op, where)
        parts = tuple(type(n.op).__name__ for n in self.b.nodes[before:])
        self.verdicts.append(Verdict(where, op.name, "decomposed" if parts else "ok", parts))

    def finish_states(self) -> None:
        """As `Reader.finish_states`, and the variables."""
        super().finish_states()
        self.b.states += self.variables.states()

    def _variable(self, op: Operator, where: str, count: int) -> str:
        if len(op.inputs) != count or op.inputs[0] not in self.handles:
            raise UnsupportedOp(
                f"{where} ({op.name}): input 0 is no variable that VAR_HANDLE of the main "
                f"subgraph names"
            )
        return self.handles[op.inputs[0]]

    def _read(self, op: Operator, where: str) -> None:
        name = self._variable(op, where, 1)
        call = self.call(replace(op, inputs=()), where)
        if len(call.outs) != 1:
            raise call.bad(f"{len(op.outputs)} outputs, expected 1")
        t = call.outs[0]
        full = TensorType(t.shape, t.dtype, quant=quantization(t, t.shape))
        self.define(op, [self.declared(call, self.variables.read(name, full, where), t)])

    def _assign(self, op: Operator, where: str) -> None:
        """The codes pass as they are."""
        name = self._variable(op, where, 2)
        call = self.call(replace(op, inputs=op.inputs[1:]), where)
        y, held = call.x(), self.variables.held(name)
        found = self.b.type(y)
        if held is not None:
            if (held.shape, held.dtype) != (found.shape, found.dtype):
                raise call.unsupported(f"variable {name!r} holds {held} and is assigned {found}")
            y = call.typed(y, held.quant if isinstance(held.quant, Affine) else None)
        self.variables.assign(name, y)

    def _begin(self, op: Operator, where: str) -> None:
        """What runs before the first call says how variables begin."""
        reader, graph = self._inside(int(op.options["subgraph"]), ())
        names = handles(graph)
        for k, inner in enumerate(graph.operators):
            if inner.name == "VAR_HANDLE":
                continue
            if inner.name != "ASSIGN_VARIABLE":
                reader.operator(k, inner)
                continue
            if len(inner.inputs) != 2 or inner.inputs[0] not in names:
                raise UnsupportedOp(f"{where} (CALL_ONCE): assigns to no variable that it names")
            name = names[inner.inputs[0]]
            self.variables.begin(name, reader.value(inner.inputs[1], where), where)

    def _inside(self, number: int, values: Sequence[str]) -> tuple[Reader, Model]:
        """A reader of another subgraph over the same values."""
        graph = self.model.called[number]
        self.inner += len(graph.operators)
        if self.inner > MAX_INNER:
            raise UnsupportedOp(
                f"{self.b.origin}: more than {MAX_INNER} operators in subgraphs",
                hint="convert the model without control flow",
            )
        reader = Reader(graph, self.path, graph.name, {})
        reader.b, reader.constants = self.b, self.constants
        if len(values) != len(graph.inputs):
            raise BadModel(f"{self.b.origin}: {len(values)} values for {len(graph.inputs)} inputs")
        reader.env.update(zip(graph.inputs, values, strict=True))
        return reader, graph

    def _branch(self, number: int, values: Sequence[str]) -> list[str]:
        """Results of a branch, which may keep nothing from call to call."""
        reader, graph = self._inside(number, values)
        for k, op in enumerate(graph.operators):
            reader.operator(k, op)
        if reader.loaded:
            raise UnsupportedOp(f"{self.b.origin}: a branch that keeps a state")
        found = [reader.value(i, self.b.origin) for i in graph.outputs]
        if not all(found):
            raise BadModel(f"{self.b.origin}: a branch gives a variable tensor")
        return found

    def _if(self, op: Operator, where: str) -> None:
        """The branch that a constant condition takes; else both, selected elementwise.

        What only the side that is not taken needs does not run (`sparrow.branches`).
        """
        call = self.call(op, where)
        condition, values = call.x(0), call.inputs[1:]
        if call.type(0).size != 1 or call.type(0).dtype != BOOL:
            raise call.bad(f"the condition is {call.type(0)}, expected one bool")
        known = self.b.value(condition)
        then, other = int(op.options["then"]), int(op.options["otherwise"])
        if known is not None:
            found = self._branch(then if known.ravel()[0] else other, values)
        else:
            one, two = self._branch(then, values), self._branch(other, values)
            if len(one) != len(two):
                raise call.bad(f"its branches give {len(one)} and {len(two)} outputs")
            bare = self.b.reshape(condition, ())
            found = []
            for a, b in zip(one, two, strict=True):
                ta, tb = self.b.type(a), self.b.type(b)
                if (ta.shape, ta.dtype) != (tb.shape, tb.dtype):
                    raise call.unsupported(
                        f"the condition is computed at run time and the branches give {ta} and {tb}"
                    )
                found.append(a if a == b else self.b.call("where", bare, a, b))
        if len(found) != len(op.outputs) or min(op.outputs, default=0) < 0:
            raise call.bad(f"{len(op.outputs)} outputs, its branches give {len(found)}")
        results = [self.declared(call, y, t) for y, t in zip(found, call.outs, strict=True)]
        self.define(op, results)
