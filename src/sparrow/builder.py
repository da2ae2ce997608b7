"""Builds a Graph op by op: infers types, folds what is known, shares equal constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from sparrow import lane
from sparrow.errors import BadModel, UnsupportedOp
from sparrow.folding import Folding
from sparrow.graph import Graph, Length, Node, Op, Scheme, State, infer_types, retyped, verify
from sparrow.ops.lane import Lane
from sparrow.ops.reshape import Reshape
from sparrow.ops.transpose import Transpose
from sparrow.tensor import (
    BF16,
    BOOL,
    F32,
    I32,
    I64,
    Array,
    Distinct,
    DType,
    Quantization,
    TensorType,
    dtype_of,
    round_bfloat16,
)

MAX_ELEMENTS = 1 << 31


def _low_bits(e: lane.Expr, dtype: DType) -> lane.Expr:
    """int32 reduced to the values of a narrower type as its low bits give them."""
    low, high = dtype.limits
    shift, mask = lane.imm_like(-low, e), lane.imm_like(high - low, e)
    return lane.call("sub", lane.call("bitand", lane.call("add", e, shift), mask), shift)


class Builder:
    """Values, nodes and constants of a Graph under construction.

    A value is a name. Ops over constants only are evaluated at once, so shape arithmetic never
    reaches the Graph.

    Attributes:
        fixable: Inputs of a few numbers, which a user may be asked to fix.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.types: dict[str, TensorType] = {}
        self.consts: dict[str, Array] = {}
        self.nodes: list[Node] = []
        self.inputs: list[str] = []
        self.fixable: frozenset[str] = frozenset()
        self.states: list[State] = []
        self.lengths: dict[str, tuple[int, str]] = {}
        self.sequences: dict[str, tuple[str, ...]] = {}
        self.scheme: Scheme = "f32"
        self.folded = 0
        self.folding = Folding()
        self.origin = ""
        self._count = 0
        self._shared = Distinct()

    def fresh(self) -> str:
        """A new value name; ``%`` keeps it apart from most names of the model."""
        while True:
            self._count += 1
            name = f"%{self._count}"
            if name not in self.types:
                return name

    @property
    def effort(self) -> int:
        """What was done so far: values made, and small constants computed, each as one of those."""
        return self._count + self.folding.small

    def input(self, name: str, t: TensorType) -> str:
        """Declare a graph input."""
        if name in self.types:
            raise BadModel(f"input {name!r} is declared twice")
        self._check(t)
        self.types[name] = t
        self.inputs.append(name)
        return name

    def const(
        self, array: Array, dtype: DType | None = None, quant: Quantization | None = None
    ) -> str:
        """A constant value; equal constants of equal types share one name."""
        array = np.asarray(array, order="C")
        t = TensorType(array.shape, dtype or dtype_of(array), quant=quant)
        name = self.fresh()
        same = self._shared.first(t, array, name)
        if same == name:
            self._check(t)
            self.types[name], self.consts[name] = t, array
        return same

    def stored(
        self, array: Array, dtype: DType | None = None, quant: Quantization | None = None
    ) -> str:
        """A constant that the model stores, which pays for others to be computed, but only once.

        Raises:
            BadModel: The model reads the same bytes too often, as in a loop.
        """
        count = len(self.consts)
        name = self.const(array, dtype, quant)
        if len(self.consts) > count:
            self.folding.grant(array.nbytes)
        elif not self.folding.repeats(array.nbytes):
            raise BadModel(
                f"{self.origin or self.name}: constants that the model stores once are read over "
                "and over",
                hint="take them out of the body of the loop, into the graph around it",
            )
        return name

    def made(self, elements: int, what: str) -> None:
        """Check, before a constant of so many elements is made, that the model may ask for it.

        Raises:
            UnsupportedOp: What the model stores does not pay for it, see `folding`.
        """
        if not self.folding.affords(4 * elements):
            raise UnsupportedOp(
                f"{self.origin}: {what} would be a constant of {elements} elements",
                hint="compute it outside",
            )

    def places(self, count: int) -> Array:
        """The numbers 0 .. ``count`` - 1, int64, for a constant over an axis; see `made`.

        Counted on their own: of an empty tensor one axis may be as long as it likes.
        """
        self.made(2 * count, "the places")
        return np.arange(count, dtype=np.int64)

    def ints(self, *values: int) -> str:
        """A rank-1 int64 constant."""
        return self.const(np.array(values, np.int64), I64)

    def scalar(self, value: float | int | bool, dtype: DType) -> str:
        """A rank-0 constant."""
        return self.const(np.asarray(value, dtype.numpy), dtype)

    def sequence(self, elements: Sequence[str]) -> str:
        """A list of values, itself none: only what reads lists may be given its name."""
        name = self.fresh()
        self.sequences[name] = tuple(elements)
        return name

    def type(self, name: str) -> TensorType:
        """Type of a value.

        Raises:
            BadModel: It is a sequence of values.
        """
        if name in self.sequences:
            raise BadModel(f"{self.origin}: reads a sequence where a tensor is expected")
        return self.types[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.type(name).shape

    def value(self, name: str) -> Array | None:
        """Array of a constant value, None for one known only at run time."""
        return self.consts.get(name)

    def add(self, op: Op, *inputs: str) -> str:
        """Apply an op with one output; returns the value."""
        (y,) = self.add_n(op, *inputs)
        return y

    def add_n(self, op: Op, *inputs: str) -> tuple[str, ...]:
        """Apply an op; returns its outputs. Trailing absent inputs (``""``) are dropped."""
        names = list(inputs)
        while names and not names[-1]:
            names.pop()
        given = [self.type(x) if x else None for x in names]
        cut = next((x for x in names if x in self.lengths), None)
        if cut is not None:
            raise UnsupportedOp(
                f"{self.origin} ({type(op).__name__}): reads a tensor of data-dependent shape",
                hint="make that tensor a model output and compute the rest outside",
            )
        node = Node(op, tuple(names), (), self.origin)
        out = infer_types(node, self.types)
        for t in out:
            self._check(t)
        known = [self.consts.get(x) if x else None for x in names]
        if (
            all(k is not None or not x for k, x in zip(known, names, strict=True))
            and op.foldable(given)
            and self.folding.takes(op, given, out)
        ):
            with np.errstate(all="ignore"):
                arrays = op.eval(*known)
            self.folded += 1
            arrays = tuple(
                round_bfloat16(a) if t.dtype == BF16 else a
                for a, t in zip(arrays, out, strict=True)
            )
            return tuple(self.const(a, t.dtype, t.quant) for a, t in zip(arrays, out, strict=True))
        outputs = tuple(self.fresh() for _ in out)
        self.types.update(zip(outputs, out, strict=True))
        self.nodes.append(Node(op, node.inputs, outputs, self.origin))
        return outputs

    def arg(self, i: int, name: str) -> lane.Arg:
        """Lane argument ``i`` with the dtype of a value."""
        return lane.Arg(i, self.type(name).dtype)

    def lane(self, expr: lane.Expr, *inputs: str) -> str:
        """An elementwise op."""
        return self.add(Lane(expr), *inputs)

    def call(self, fn: str, *inputs: str) -> str:
        """One lane function over values."""
        return self.lane(lane.call(fn, *(self.arg(i, x) for i, x in enumerate(inputs))), *inputs)

    def cast(self, x: str, dtype: DType) -> str:
        """Convert elementwise; the value itself when it has the dtype."""
        if self.type(x).dtype == dtype:
            return x
        e = self.arg(0, x)
        one = lane.Imm(1, e.dtype) if e.dtype.kind != "float" else lane.Imm(1.0, e.dtype)
        if dtype == BOOL:
            zero = lane.Imm(0 if e.dtype.kind != "float" else 0.0, one.dtype)
            return self.lane(lane.call("not", lane.call("eq", e, zero)), x)
        if dtype.bits < 8:
            return self.lane(lane.cast(_low_bits(lane.cast(e, I32), dtype), dtype), x)
        return self.lane(lane.cast(e, dtype), x)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Reshape; the value itself when nothing changes."""
        if self.shape(x) == tuple(shape):
            return x
        return self.add(Reshape(tuple(int(d) for d in shape)), x)

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """Transpose; the value itself for the identity."""
        if list(perm) == list(range(len(perm))):
            return x
        return self.add(Transpose(tuple(int(p) for p in perm)), x)

    def finish(self, outputs: Mapping[str, str], names: Mapping[str, str]) -> Graph:
        """The finished, verified Graph; counts of data-dependent extents become outputs as well.

        Args:
            outputs: Model output name -> value, in order.
            names: Value -> name in the source model, used where still free.
        """
        outputs = self._with_counts(outputs)
        rename: dict[str, str] = {}
        taken = set(self.inputs) | {s.input for s in self.states}
        produced = {y for n in self.nodes for y in n.outputs}
        for out, v in list(outputs.items()):
            if v in produced and v not in rename and out not in taken:
                rename[v] = out
            else:
                same = self.fresh()
                e = self.arg(0, v)
                if v in self.lengths:
                    self.lengths[same] = self.lengths[v]
                self.types[same] = TensorType(self.shape(v), e.dtype)
                self.nodes.append(Node(Lane(e), (v,), (same,), out))
                if out in taken:
                    raise BadModel(
                        f"output {out!r} has the name of an input",
                        hint="leave that output out, or give it another name by an Identity node",
                    )
                rename[same] = out
            taken.add(out)
        for v, name in names.items():
            # a graph of ours that was exported has names like ours, which mean other values here
            if (
                v.startswith("%")
                and v not in self.inputs
                and v not in rename
                and name not in taken
                and name not in self.types
            ):
                rename[v] = name
                taken.add(name)
        # a model may give a name to one value that is ours for another
        for v in taken & (produced | self.consts.keys()) - rename.keys():
            rename[v] = self._free(taken)
            taken.add(rename[v])

        def to(x: str) -> str:
            return rename.get(x, x)

        live = {rename_inverse for rename_inverse, o in rename.items() if o in outputs}
        live |= {s.output for s in self.states}
        cut = [(out, *self.lengths[v]) for out, v in outputs.items() if v in self.lengths]
        live |= {count for _, _, count in cut}
        kept: list[Node] = []
        for n in reversed(self.nodes):
            if live.intersection(n.outputs):
                live.update(n.inputs)
                kept.append(
                    Node(n.op, tuple(map(to, n.inputs)), tuple(map(to, n.outputs)), n.origin)
                )
        g = Graph(
            self.name,
            tuple(self.inputs),
            tuple(outputs),
            (),
            {to(k): t for k, t in self.types.items()},
            {to(k): a for k, a in self.consts.items()},
            tuple(State(s.name, s.input, to(s.output), s.initial) for s in self.states),
            tuple(Length(out, axis, to(count)) for out, axis, count in cut),
            self.scheme,
        )
        done = retyped(g, kept[::-1])
        verify(done)
        return done

    def _with_counts(self, outputs: Mapping[str, str]) -> dict[str, str]:
        """Outputs, and behind them the counts that say how much of them is filled."""
        known = set(outputs.values())
        added: dict[str, str] = {}
        for out, v in outputs.items():
            count = self.lengths[v][1] if v in self.lengths else ""
            if count and count not in known:
                name = f"{out}.count"
                while name in self.types or name in outputs or name in added:
                    name += "_"
                added[name] = count
                known.add(count)
        return {**outputs, **added}

    def _free(self, taken: set[str]) -> str:
        name = self.fresh()
        while name in taken:
            name = self.fresh()
        return name

    def _check(self, t: TensorType) -> None:
        # no extent is out of range because another is zero
        if min((0, *t.shape)) < 0 or prod(max(d, 1) for d in t.shape) > MAX_ELEMENTS:
            raise BadModel(f"{self.origin or self.name}: tensor of shape {t.shape} is out of range")


__all__ = ["F32", "MAX_ELEMENTS", "Builder"]
