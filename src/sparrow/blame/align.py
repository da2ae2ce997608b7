"""A quantized graph beside its float graph: which values are the same, and what lies between them.

The quantized graph is in QDQ form. A *cut* is a value of the float graph that the quantized one
holds too: as codes (Quantize, then Dequantize), or as floats where a product stays float or the
network ends. The nodes of the float graph between cuts are a *segment*, the layer of its last cut.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sparrow import lane
from sparrow.blame.spelling import RECOGNIZE, spelled_alike, steps_of_folded
from sparrow.errors import BadInput, InvalidGraph
from sparrow.graph import Graph, Node, Op, retyped
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gather import Gather
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Resize
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.passes import optimize
from sparrow.reference import one_thread
from sparrow.tensor import F32, Affine, Array, DType

# How exporters name a value before it is quantized, and its codes.
_SUFFIXES = (".f", ".q", "_QuantizeLinear_Output", "_QuantizeLinear", "_quantized")

# Their elements are elements of their operands, or lie between some, be they codes or what those
# stand for.
_MOVEMENT = (Concat, Gather, Pool, Reshape, Resize, Slice, Transpose)


@dataclass(frozen=True, slots=True)
class Cut:
    """A value of both graphs.

    Attributes:
        name: In the float graph.
        before: In the quantized graph, before it is quantized.
        after: In the quantized graph, as its readers see it; ``before`` where it stays float.
        dtype: Of the codes; None where it stays float.
        quant: Of the codes; None where it stays float.
    """

    name: str
    before: str
    after: str
    dtype: DType | None
    quant: Affine | None


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """A QDQ graph whose weights are float constants again.

    Attributes:
        graph: Activations are quantized in it as before.
        steps: Constant that was codes -> its scales, flat: one, or one per output channel.
    """

    graph: Graph
    steps: Mapping[str, Array]


def dequantized_weights(g: Graph) -> Quantization:
    """Compute what follows from constants alone, weights from their codes among it.

    Raises:
        BadInput: Nothing is quantized in the graph.
    """
    if not any(isinstance(n.op, Quantize) for n in g.nodes):
        raise BadInput(
            f"{g.name}: nothing is quantized in this model",
            hint="give a model in QDQ form, or a bundle built with int8 precision",
        )
    consts = dict(g.consts)
    steps: dict[str, Array] = {}
    nodes = []
    for n in _giving_floats(g):
        if not n.inputs or any(x and x not in consts for x in n.inputs):
            nodes.append(n)
            continue
        with one_thread():
            made = n.op.eval(*(consts[x] if x else None for x in n.inputs))
        consts.update(zip(n.outputs, made, strict=True))
        scales = [steps[x] for x in n.inputs if x in steps]
        if isinstance(n.op, Dequantize):
            scales = [n.op.quant.scale.reshape(-1)]
        steps.update((y, scales[0]) for y in n.outputs if scales)
    done = spelled_alike(optimize(retyped(g, nodes, consts=consts), RECOGNIZE))
    return Quantization(done, steps | steps_of_folded(consts, steps, done.consts))


def _giving_floats(g: Graph) -> list[Node]:
    """The nodes of ``g``; outputs of codes are floats, and so is what moves from place to place.

    Files of integers move codes and give them: between Dequantize and Quantize it is a layer.
    """
    of = {x: t.quant for x, t in g.types.items() if isinstance(t.quant, Affine)}
    coded = {y: y + ".q" for y in g.outputs if y in of and y not in g.inputs}
    nodes: list[Node] = []
    for n in g.nodes:
        made, codes = n.outputs[0], [x for x in n.inputs if x in of]
        inputs = tuple(coded.get(x, x) for x in n.inputs)
        outputs = tuple(coded.get(y, y) for y in n.outputs)
        if not isinstance(n.op, _MOVEMENT) or made not in of or not codes:
            nodes.append(replace(n, inputs=inputs, outputs=outputs))
            continue
        moved = f"%f.{made}"
        floats = {x: f"{moved}%{x}" for x in codes}
        nodes += [Node(Dequantize(of[x]), (coded.get(x, x),), (floats[x],)) for x in floats]
        nodes.append(replace(n, inputs=tuple(floats.get(x, x) for x in n.inputs), outputs=(moved,)))
        nodes.append(Node(Quantize(of[made], g.types[made].dtype), (moved,), outputs, n.origin))
    return nodes + [Node(Dequantize(of[y]), (q,), (y,)) for y, q in coded.items()]


def without_quantization(g: Graph) -> Graph:
    """The float graph inside a QDQ graph: readers of a Dequantize read what was quantized."""
    made = g.producers()
    read: dict[str, str] = {}
    nodes = []
    for n in g.nodes:
        q = made.get(n.inputs[0]) if isinstance(n.op, Dequantize) else None
        if q is not None and isinstance(q.op, Quantize):
            read[n.outputs[0]] = read.get(q.inputs[0], q.inputs[0])
        else:
            nodes.append(replace(n, inputs=tuple(read.get(x, x) for x in n.inputs)))
    # codes that something computes with stay
    computed = {x for n in nodes for x in n.inputs}
    # outputs keep their names
    own = {read[y]: y for y in g.outputs if y in read and read[y] not in g.inputs}
    # and what a file names by its codes alone is called by them
    for n in g.nodes:
        if isinstance(n.op, Quantize) and n.inputs[0][0] == "%" and n.outputs[0] not in computed:
            own.setdefault(n.inputs[0], n.outputs[0])
    nodes = [
        replace(
            n,
            inputs=tuple(own.get(x, x) for x in n.inputs),
            outputs=tuple(own.get(y, y) for y in n.outputs),
        )
        for n in nodes
        if not isinstance(n.op, Quantize) or n.outputs[0] in computed
    ]
    return optimize(retyped(g, nodes), RECOGNIZE)


def _names(*values: str) -> list[str]:
    """What a value may be called in the float graph; names of ours (%) are new in every graph."""
    found = [v for v in values if v[0] != "%"]
    for v in values:
        found += [v.removesuffix(s) for s in _SUFFIXES if v.endswith(s)]
    return found


def cuts(f: Graph, q: Graph) -> list[Cut]:
    """The values of both graphs, in the order of the float one.

    Args:
        f: Float graph.
        q: Quantized graph, see `dequantized_weights`.

    Raises:
        BadInput: The graphs have nothing quantized in common.
    """
    known = {x for x in f.types if x not in f.consts and f.types[x].dtype == F32}
    made, users = q.producers(), f.users()
    found: dict[str, Cut] = {}
    for n in q.nodes:
        source = made.get(n.inputs[0]) if isinstance(n.op, Dequantize) else None
        if source is None or not isinstance(source.op, Quantize):
            continue
        before, codes, after = source.inputs[0], n.inputs[0], n.outputs[0]
        shape = q.types[after].shape
        for name in _names(after, before, codes):
            if name in known and f.types[name].shape == shape and name not in found:
                found[name] = Cut(name, before, after, source.op.dtype, source.op.quant)
                break
    if not found:
        raise BadInput(
            f"{f.name} and its quantization have no quantized value in common",
            hint="is it the model that was quantized?",
        )
    taken = {x for c in found.values() for x in (c.before, c.after)}
    for n in f.nodes:
        for y in n.outputs:
            if y[0] == "%" or y not in known or y not in made or y in found or y in taken:
                continue
            if f.types[y].shape != q.types[y].shape:
                continue
            # the clamp behind a product is part of its layer
            clamped = [isinstance(u.op, Lane) for u in users.get(y, ())] == [True]
            product = isinstance(n.op, Conv | ConvTranspose | MatMul) and not clamped
            if y in f.outputs or product:
                found[y] = Cut(y, y, y, None, None)
    begin = (*f.inputs, *(s.input for s in f.states))
    order = {x: i for i, x in enumerate((*begin, *(y for n in f.nodes for y in n.outputs)))}
    return sorted(found.values(), key=lambda c: order[c.name])


def segment(g: Graph, value: str, ends: frozenset[str]) -> list[Node]:
    """The nodes that compute ``value`` from ``ends``, inputs and constants, in order."""
    made = g.producers()
    wanted, todo = set(), [value]
    while todo:
        n = made.get(todo.pop())
        if n is not None and n.outputs not in wanted:
            wanted.add(n.outputs)
            todo += [x for x in n.inputs if x and x not in ends]
    return [n for n in g.nodes if n.outputs in wanted]


OWN, EXACT = "%own", "%exact"


def exact_readers(f: Graph, q: Graph, at: Sequence[Cut]) -> set[tuple[str, str]]:
    """Which nodes of the float graph read a cut that is codes for others, but not for them.

    Returns:
        First result of the node, name of the cut.
    """
    users, theirs = f.users(), q.users()

    def kinds(x: str) -> set[type[Op]]:
        return {type(n.op) for n in theirs.get(x, ())}

    return {
        (n.outputs[0], c.name)
        for c in at
        if c.before != c.after
        # values between cuts have names of their own in every graph; ops are of the same kinds
        for kind in kinds(c.before) - kinds(c.after) - {Quantize}
        for n in users.get(c.name, ())
        if type(n.op) is kind
    }


def opened(g: Graph, values: Sequence[str], exact: Collection[tuple[str, str]] = ()) -> Graph:
    """``g`` cut open: every value is an input, and under its name + `OWN` what its segment makes.

    Args:
        g: Float graph.
        values: Names of values; graph inputs among them stay what they are.
        exact: See `exact_readers`: those read the value's name + `EXACT`, an input too.
    """
    inside = [x for x in values if x not in g.inputs]
    rename = {x: x + OWN for x in inside}
    nodes = [
        replace(
            n,
            inputs=tuple(x + EXACT if (n.outputs[0], x) in exact else x for x in n.inputs),
            outputs=tuple(rename.get(y, y) for y in n.outputs),
        )
        for n in g.nodes
    ]
    further = sorted({x for _, x in exact})
    types = {**g.types, **{rename[x]: g.types[x] for x in inside}}
    types |= {x + EXACT: g.types[x] for x in further}
    return retyped(
        g,
        nodes,
        inputs=(*g.inputs, *inside, *(x + EXACT for x in further)),
        outputs=tuple(rename[x] for x in inside),
        types=types,
        lengths=(),
    )


def codes_between(q: Graph, at: Sequence[Cut]) -> dict[str, Cut]:
    """Values of the quantized graph that are codes and no cut, by what their readers see."""
    made = q.producers()
    ends = {c.before for c in at}
    found = {}
    for n in q.nodes:
        source = made.get(n.inputs[0]) if isinstance(n.op, Dequantize) else None
        if source is None or not isinstance(source.op, Quantize) or source.inputs[0] in ends:
            continue
        before, after = source.inputs[0], n.outputs[0]
        found[after] = Cut(before, before, after, source.op.dtype, source.op.quant)
    return found


def opened_in_floats(q: Graph, at: Sequence[Cut], between: Collection[str]) -> Graph:
    """The quantized graph cut open, as `opened` does it, and no codes between the cuts.

    Args:
        q: Quantized graph.
        at: Cuts: what they are before and after they are codes are inputs, where something reads
            them, and under ``before`` + `OWN` is what their segment makes.
        between: See `codes_between`.
    """
    made = q.producers()
    ends = {x for c in at for x in (c.before, c.after)} - set(q.inputs)
    read: dict[str, str] = {}
    nodes = []
    for n in q.nodes:
        if n.outputs[0] in between:
            x = made[n.inputs[0]].inputs[0]
            read[n.outputs[0]] = read.get(x, x)
            if _begins_at_zero(made[n.inputs[0]]):
                # quantizers remove a Relu there
                relu = Lane(lane.call("relu", lane.Arg(0, F32)))
                nodes.append(Node(relu, (read.pop(n.outputs[0]),), n.outputs, n.origin))
        elif not isinstance(n.op, Dequantize) or n.outputs[0] not in ends:
            inputs = tuple(read.get(x, x) for x in n.inputs)
            outputs = tuple(y + OWN if y in ends else y for y in n.outputs)
            nodes.append(replace(n, inputs=inputs, outputs=outputs))
    needed = {x for n in nodes for x in n.inputs}
    nodes = [n for n in nodes if not isinstance(n.op, Quantize) or n.outputs[0] in needed]
    # codes of codes are computed by nothing
    computed = {y for n in nodes for y in n.outputs}
    return retyped(
        q,
        nodes,
        inputs=(*q.inputs, *sorted(ends & needed)),
        outputs=tuple(x for x in dict.fromkeys(c.before + OWN for c in at) if x in computed),
        types={**q.types, **{x + OWN: q.types[x] for x in ends}},
        lengths=(),
    )


def _begins_at_zero(n: Node) -> bool:
    """Whether no code stands for a value below 0."""
    assert isinstance(n.op, Quantize)
    return bool((n.op.quant.zero_point == n.op.dtype.limits[0]).all())


def with_float_layer(q: Graph, f: Graph, at: Sequence[Cut], layer: Cut) -> Graph:
    """The quantized graph with one layer as the float graph computes it, its result not rounded.

    Raises:
        InvalidGraph: The layer reads what the quantized graph does not have at that place.
    """
    after = {c.name: c.after for c in at}
    nodes = segment(f, layer.name, frozenset(after) - {layer.name})
    if not nodes:  # an input
        changed = [
            replace(n, inputs=tuple(layer.before if x == layer.after else x for x in n.inputs))
            for n in q.nodes
        ]
        return retyped(q, changed)
    prefix = "%float."
    inner = {y: prefix + y for n in nodes for y in n.outputs} | {layer.name: layer.after}
    consts = {prefix + x: f.consts[x] for n in nodes for x in n.inputs if x in f.consts}
    types = {prefix + x: f.types[x] for n in nodes for x in n.inputs if x in f.consts}

    def read(x: str) -> str:
        if prefix + x in consts:
            return prefix + x
        return inner[x] if x in inner else after.get(x, x)

    island = [
        replace(n, inputs=tuple(map(read, n.inputs)), outputs=tuple(inner[y] for y in n.outputs))
        for n in nodes
    ]
    done: list[Node] = []
    needed = {x for n in island for x in n.inputs if x} - {y for n in island for y in n.outputs}
    needed -= {*q.inputs, *q.consts, *consts}
    for n in q.nodes:
        if layer.after in n.outputs:
            if later := needed.difference(*(k.outputs for k in done)):
                raise InvalidGraph(f"{layer.name} reads {min(later)}, which is made after it")
            outputs = tuple(prefix + "was" if y == layer.after else y for y in n.outputs)
            done += [replace(n, outputs=outputs), *island]
        else:
            done.append(n)
    return retyped(q, done, consts={**q.consts, **consts}, types={**q.types, **types})


__all__ = [
    "EXACT",
    "OWN",
    "Cut",
    "Quantization",
    "codes_between",
    "cuts",
    "dequantized_weights",
    "exact_readers",
    "opened",
    "opened_in_floats",
    "segment",
    "with_float_layer",
    "without_quantization",
]
