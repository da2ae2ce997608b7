"""The Graph: frozen, typed operators over named tensors, and the checks every stage keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from sparrow.errors import InvalidGraph
from sparrow.tensor import Array, TensorType, dtype_of

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

Types = Sequence[TensorType | None]
# How integer arithmetic rounds, see docs/integer-spec.md.
Scheme: TypeAlias = Literal["f32", "fixed31", "pow2", "tflite"]
SCHEMES: tuple[Scheme, ...] = ("f32", "fixed31", "pow2", "tflite")


class Op:
    """An operator: kind and attributes in one typed value; subclasses are frozen dataclasses.

    ``infer`` maps input types to output types and raises InvalidGraph when they do not fit;
    ``eval`` maps arrays to a tuple of arrays and defines what the op means. Absent optional
    inputs are None in both.
    """

    __slots__ = ()
    infer: ClassVar[Callable[..., tuple[TensorType, ...]]]
    eval: ClassVar[Callable[..., tuple[Array, ...]]]

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        """Floating-point (or integer) operations of one call; a multiply-add counts two."""
        return sum(t.size for t in y)

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        """About how many calls `eval` makes in loops of Python, whatever the extents in them."""
        return 0

    def foldable(self, x: Types) -> bool:
        """Whether the op may be evaluated at import when its inputs are constants."""
        return True

    def export(self, w: Writer, site: Site) -> None:
        """Write this op as standard ONNX nodes."""
        raise NotImplementedError(type(self).__name__)

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        """The op that gives permuted outputs for inputs permuted by ``perm``, or None.

        All data inputs (those `transposable` names) and all outputs are permuted alike:
        ``op.permuted(perm)(t(x)) == t(op(x))`` with ``t(x) = transpose(x, perm)``.
        """
        return None

    def transposable(self, x: Types) -> tuple[int, ...]:
        """Indices of the inputs that `permuted` speaks of."""
        return tuple(i for i, t in enumerate(x) if t is not None)


@dataclass(frozen=True, slots=True)
class Node:
    """An operator applied to named tensors.

    Attributes:
        op: Kind and attributes.
        inputs: Names; ``""`` where an optional input is absent.
        outputs: Names this node defines.
        origin: Name of the source node, for messages and reports; never used as an identifier.
        column: Which of several threads computes it alone, where threads have nodes of their own
            (`passes.overlap`, `passes.channel_parts`, `schedule.abreast`); all may share any other.
    """

    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: str = ""
    column: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A tensor that lives from one call to the next until reset.

    Attributes:
        name: Shared by the entry points that carry the same state.
        input: Graph value read at the start of a call; not among ``Graph.inputs``.
        output: Graph value stored at the end of a call.
        initial: Value after reset.
    """

    name: str
    input: str
    output: str
    initial: Array = field(compare=False)


@dataclass(frozen=True, slots=True)
class Length:
    """How much of an output is filled when its extent depends on the data (NonZero, NMS, ...).

    Attributes:
        output: Graph output; its type holds the largest extent. What is filled lies packed in
            row-major order at the start (`filled`), the rest is zero.
        axis: The axis that is cut.
        count: Graph output, int64 of shape (): elements used along ``axis``.
    """

    output: str
    axis: int
    count: str


def filled(y: Array, axis: int, count: int) -> Array:
    """The filled part of an output whose extent depends on the data, see `Length`."""
    shape = tuple(count if i == axis else d for i, d in enumerate(y.shape))
    return y.reshape(-1)[: prod(shape)].reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Typed operators in topological order; every value has one definition and a type.

    Attributes:
        name: Name of the entry point.
        inputs: Values given by the caller, in order.
        outputs: Values returned, in order; may repeat inputs or constants.
        nodes: In execution order.
        types: Type of every value, constants included.
        consts: Values known now, in the storage dtype of their type.
        states: Values carried between calls.
        lengths: Outputs whose extent depends on the data.
        scheme: How sums over codes are brought to the codes of their result.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    consts: Mapping[str, Array]
    states: tuple[State, ...] = ()
    lengths: tuple[Length, ...] = ()
    scheme: Scheme = "f32"

    def producers(self) -> dict[str, Node]:
        """The node that defines each value."""
        return {y: n for n in self.nodes for y in n.outputs if y}

    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each value; a node appears once per use."""
        found: dict[str, list[Node]] = {}
        for n in self.nodes:
            for x in n.inputs:
                if x:
                    found.setdefault(x, []).append(n)
        return found

    def live_out(self) -> frozenset[str]:
        """Values that outlive the last node: outputs, their lengths, and states."""
        kept = {s.output for s in self.states} | {n.count for n in self.lengths}
        return frozenset(self.outputs) | kept

    def in_types(self, node: Node) -> tuple[TensorType | None, ...]:
        """Types of a node's inputs, None where absent."""
        return tuple(self.types[x] if x else None for x in node.inputs)

    def out_types(self, node: Node) -> tuple[TensorType, ...]:
        """Types of a node's outputs."""
        return tuple(self.types[y] for y in node.outputs if y)

    def flops(self) -> int:
        """Operations of one call, see `Op.flops`."""
        return sum(n.op.flops(self.in_types(n), self.out_types(n)) for n in self.nodes)


@dataclass(frozen=True, slots=True)
class Module:
    """Entry points of one artifact; they share weights, arena and states of the same name."""

    name: str
    entries: tuple[Graph, ...]

    def __iter__(self) -> Iterator[Graph]:
        return iter(self.entries)


def infer_types(node: Node, types: Mapping[str, TensorType]) -> tuple[TensorType, ...]:
    """Output types of ``node``, with the node named in the error when they do not exist."""
    try:
        return node.op.infer(*(types[x] if x else None for x in node.inputs))
    except InvalidGraph as e:
        where = node.origin or (node.outputs[0] if node.outputs else "?")
        raise InvalidGraph(f"{where} ({type(node.op).__name__}): {e.message}") from None


def declared(inferred: TensorType, known: TensorType | None) -> TensorType:
    """``inferred`` with the quantization that is known of the value.

    An op that computes codes (a sum with a requantizing epilogue) cannot tell what they mean: their
    quantization is declared in ``Graph.types``. Ops that make or move codes infer it.
    """
    if known is None or inferred.quant is not None:
        return inferred
    if (known.shape, known.dtype) != (inferred.shape, inferred.dtype):
        return inferred
    return replace(inferred, quant=known.quant)


def verify(g: Graph) -> None:
    """Check every invariant of a Graph.

    Raises:
        InvalidGraph: A value is used before or without its definition, defined twice, has no type
            or another than its node infers, or a constant does not have its type.
    """
    defined = set(g.consts) | set(g.inputs) | {s.input for s in g.states}
    if len(defined) != len(g.consts) + len(g.inputs) + len(g.states):
        raise InvalidGraph(f"{g.name}: an input, state or constant is defined twice")
    for name, array in g.consts.items():
        t = g.types.get(name)
        if t is None or t.shape != array.shape or t.dtype.numpy != array.dtype:
            raise InvalidGraph(f"{name}: constant is {array.dtype}{array.shape}, its type is {t}")
    for n in g.nodes:
        for x in n.inputs:
            if x and x not in defined:
                raise InvalidGraph(f"{n.origin or n.outputs}: uses {x!r} before its definition")
        inferred = infer_types(n, g.types)
        if len(inferred) != len(n.outputs):
            raise InvalidGraph(f"{n.origin}: {len(n.outputs)} outputs, its op has {len(inferred)}")
        for y, t in zip(n.outputs, inferred, strict=True):
            if y in defined:
                raise InvalidGraph(f"{n.origin}: defines {y!r} a second time")
            if g.types.get(y) != declared(t, g.types.get(y)):
                raise InvalidGraph(f"{y}: type is {g.types.get(y)}, its node infers {t}")
            defined.add(y)
    for name in g.live_out():
        if name not in defined:
            raise InvalidGraph(f"{g.name}: output {name!r} is not defined")
    for s in g.states:
        if g.types[s.input] != g.types[s.output]:
            raise InvalidGraph(
                f"state {s.name}: read as {g.types[s.input]}, stored as {g.types[s.output]}",
                hint="a state keeps its shape: let the model drop what is oldest, or write into a "
                "cache of fixed length",
            )


def retyped(g: Graph, nodes: Sequence[Node], **changes: object) -> Graph:
    """``g`` with other nodes: types inferred anew, unused constants and types dropped.

    Args:
        g: Graph whose inputs, outputs and states stay.
        nodes: New nodes in any order that respects definitions.
        changes: Other fields of Graph to replace (``consts``, ``types`` of new constants, ...).
    """
    base = replace(g, **changes)  # type: ignore[arg-type]
    consts = dict(base.consts)
    types: dict[str, TensorType] = {}
    for name in (*base.inputs, *(s.input for s in base.states)):
        types[name] = base.types[name]
    for name, array in consts.items():
        types[name] = base.types.get(name) or TensorType(array.shape, dtype_of(array))
    for n in nodes:
        for y, t in zip(n.outputs, infer_types(n, types), strict=True):
            types[y] = declared(t, base.types.get(y))
    used = {x for n in nodes for x in n.inputs} | base.live_out()
    consts = {k: v for k, v in consts.items() if k in used}
    keep = {*base.inputs, *(s.input for s in base.states), *consts}
    keep |= {y for n in nodes for y in n.outputs}
    return replace(
        base,
        nodes=tuple(nodes),
        consts=consts,
        types={k: v for k, v in types.items() if k in keep},
    )
