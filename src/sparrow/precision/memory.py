"""What goes from layer to layer, and the memory that is held while each layer runs.

How wide a value is, its readers decide (docs/quantization.md), so that plans of one precision
throughout say how many elements are alive when, and not how many bytes they have in a mix. Codes of
what dies run over the floats that they are made of: a conversion holds no more than was there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sparrow.compiler import Compiled
from sparrow.evidence.describe import buffers, live_bytes
from sparrow.evidence.plan_record import BufferRecord
from sparrow.graph import Graph
from sparrow.ops.concat import Concat
from sparrow.ops.sums import CODES
from sparrow.precision.choice import FLOATS, Moment, Value
from sparrow.quant.kinds import moves
from sparrow.quant.recipe import Precision
from sparrow.tensor import BF16, F32, I16, DType

# What has the width that a precision gives it; what has another has it whatever reads it.
STORED: Mapping[Precision, tuple[DType, ...]] = {
    "float32": (F32,),
    "bfloat16": (BF16,),
    "int16x8": (I16,),
    "int8": CODES,
}
# Owner of the steps before the first layer.
OUTSIDE = ""


def owners(g: Graph, layers: frozenset[str]) -> dict[str, str]:
    """The layer that each node belongs to, by the node's first result; `OUTSIDE` for none.

    A node that the source calls a layer is that layer; any other belongs to the last layer before
    it that it reads from.
    """
    order: dict[str, int] = {OUTSIDE: -1}
    owner: dict[str, str] = {}
    found: dict[str, str] = {}
    for i, n in enumerate(g.nodes):
        if n.origin in layers:
            mine = n.origin
            order[mine] = i
        else:
            mine = max((owner.get(x, OUTSIDE) for x in n.inputs), key=order.__getitem__, default="")
        owner.update(dict.fromkeys(n.outputs, mine))
        found[n.outputs[0]] = mine
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Who makes and who reads the values of a graph, layers by their position.

    Attributes:
        makers: Of every value that is not constant; -1 before the first layer.
        readers: The other layers that read it, or what the maker's own steps make of it.
    """

    makers: Mapping[str, int]
    readers: Mapping[str, frozenset[int]]


def flow_of(g: Graph, layers: Sequence[str]) -> Flow:
    """The flow of a graph at any stage that names its nodes after the source's layers."""
    place = {name: i for i, name in enumerate(layers)}
    owner = {y: place.get(x, -1) for y, x in owners(g, frozenset(layers)).items()}
    makers = dict.fromkeys((*g.inputs, *(s.input for s in g.states)), -1)
    makers |= {y: owner[n.outputs[0]] for n in g.nodes for y in n.outputs}
    readers: dict[str, frozenset[int]] = {}
    for n in reversed(g.nodes):
        mine = owner[n.outputs[0]]
        behind = frozenset[int]().union(*(readers.get(y, frozenset()) for y in n.outputs))
        for x in n.inputs:
            if x in makers:
                own = mine == makers[x] or isinstance(n.op, Concat)
                found = (behind if own else frozenset((mine,))) - {makers[x]}
                readers[x] = readers.get(x, frozenset()) | found
    return Flow(makers, readers)


def crossing(g: Graph, flow: Flow) -> Iterator[str]:
    """Values that nodes of other layers than their maker read; what a concat joins, not its result.

    Args:
        g: A graph.
        flow: Its.
    """
    read = {
        x
        for n in g.nodes
        for x in n.inputs
        if x in flow.makers
        and (isinstance(n.op, Concat) or flow.makers[n.outputs[0]] != flow.makers[x])
    }
    joined = {y for n in g.nodes if isinstance(n.op, Concat) for y in n.outputs}
    yield from (x for x in flow.makers if x in read - joined and flow.readers.get(x))


@dataclass(slots=True)
class Values:
    """The values of a problem, each found once, whichever build it is met in."""

    places: dict[tuple[int, frozenset[int]], int] = field(default_factory=dict)

    def place(self, source: int, readers: frozenset[int]) -> int:
        """Its position."""
        return self.places.setdefault((source, readers), len(self.places))

    def all(self, ns: Mapping[int, float]) -> tuple[Value, ...]:
        """Them, with the time to convert each."""
        return tuple(
            Value(source, tuple(sorted(readers)), ns.get(at, 0.0))
            for (source, readers), at in self.places.items()
        )


def _moments(
    p: Precision, b: Compiled, layers: Sequence[str], values: Values, floats: frozenset[str]
) -> Iterator[Moment]:
    """What the steps of each layer hold in a build of all layers at one precision.

    Args:
        p: The precision.
        b: The build.
        layers: Names, in order.
        values: Where what goes from layer to layer is noted.
        floats: Values that are float where all layers are codes.
    """
    e = b.plan.entries[0]
    flow, held = flow_of(e.graph, layers), buffers(e)

    def split(alive: Sequence[BufferRecord], yet: frozenset[str]) -> tuple[dict[int, float], float]:
        """Elements of what is as wide as its readers say, and bytes of the rest, ``yet`` in it."""
        elements: dict[int, float] = {}
        fixed = 0.0
        for v in alive:
            names = [x for x in v.values if x in flow.makers]
            readers = frozenset[int]().union(*(flow.readers.get(x, frozenset()) for x in names))
            at = flow.makers[names[0]] if names else -1
            kind = e.graph.types[names[0]].dtype if names else None
            own = not yet.isdisjoint(names) or not floats.isdisjoint(names[:1])
            if kind is None or at < 0 or own or not readers or kind not in STORED[p]:
                fixed += v.bytes
            else:
                place = values.place(at, readers)
                elements[place] = elements.get(place, 0.0) + v.bytes / (kind.bits / 8)
        return elements, fixed

    for i, s in enumerate(e.steps):
        layer = flow.makers[s.node.outputs[0]]
        if layer < 0 and p != "float32":
            continue
        alive = [v for v in held if v.first <= i <= v.last]
        # results may run over what they are made of
        rest = float(live_bytes(held, i) - sum(v.bytes for v in alive) + b.plan.state_bytes)
        # what a float layer computes, and computes with, is float; what it moves may be codes
        computing = p in FLOATS and not moves(e.graph, s.node)
        own = (x for x in (*s.node.inputs, *s.node.outputs) if flow.makers.get(x) == layer)
        yet = frozenset(own) if computing else frozenset[str]()
        elements, fixed = split(alive, yet)
        yield Moment(layer, p, elements, fixed + rest)


def moments_of(
    builds: Mapping[Precision, Compiled], layers: Sequence[str], values: Values
) -> tuple[Moment, ...]:
    """What the steps of builds of one entry point hold, by layer and precision."""
    g = builds["int8"].plan.entries[0].graph if "int8" in builds else None
    floats = frozenset(x for x, t in g.types.items() if t.dtype == F32) if g else frozenset[str]()
    return tuple(m for p, b in builds.items() for m in _moments(p, b, layers, values, floats))
