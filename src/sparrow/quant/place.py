"""Which ops compute on codes, and which values are codes.

An op over codes is *integer*; an op that only moves or picks elements is *movement*: its operands
and its result are the same codes under one scale. All others stay float, *islands* that read from a
Dequantize.

    sums        Conv, ConvTranspose, MatMul: weights constant, or two activations; a result that no
                integer op reads stays the float it is when its sum is scaled: logits, boxes, what
                goes into a softmax or a residual stream lose nothing more
    activations a function of one value, or a sum, difference, product, maximum or minimum of two;
                integer only between integer ops: what comes before the first or after the last
                product (normalising pixels, decoding boxes) stays float, where it loses nothing,
                and so does a residual stream that only float normalisation reads
    clamps      Relu and clips of a result nobody else reads need no codes in between: the range of
                the clamp is what is quantized; so of some functions (`sparrow.quant.functions`)
    means       average pools and means have a range of their own
    attention   queries, keys and values are 8-bit codes where an integer op reads the result; it
                reads 8 bits of what a layer of 16 makes, and all 16 where it is complete and of 16
    tables      constants that are looked up in, such as embeddings, are stored as codes; a row is
                floats once it is picked
    recurrent   LSTM and GRU of constant weights: their input is codes, and what they give, which
                their own products read
    all else    float between codes where the recipe asks for a complete quantization, for devices
                that have integers only; nothing above then stays float for its precision's sake
    movement    Reshape, Transpose, Slice, Concat, Gather, Pad, Expand, maximum pools, Resize: one
                scale for all, so that they cost nothing (Krishnamoorthi 2018, arXiv:1806.08342);
                floats that a float op reads too are moved as floats
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparrow.graph import Graph, Node
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.pool import Pool
from sparrow.quant.functions import fused, read_by_functions
from sparrow.quant.kinds import Kinds, hidden_results, initial_hidden, is_clamp, kinds_of
from sparrow.quant.recipe import Precision, Recipe
from sparrow.tensor import F32, I8, I16, DType


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where codes are.

    Attributes:
        codes: Value -> integer type of its codes.
        group: Value -> the value that stands for all that share its scale.
        sources: Stand-in -> the values of the group that no movement made; their range is the
            group's.
        sums: Nodes with weights or two activations to multiply as codes.
        cells: Recurrent layers over codes.
        tables: Nodes that look up in constants.
        clamped: Result that is never stored -> the result of its clamp or function.
        coded: First results of the nodes that compute on codes or move them; all others read
            as floats what is made as floats.
        functions: Stand-in -> all that reads its group, of those that functions of one value alone
            read.
    """

    codes: Mapping[str, DType]
    group: Mapping[str, str]
    sources: Mapping[str, tuple[str, ...]]
    sums: tuple[Node, ...]
    cells: tuple[Node, ...]
    tables: tuple[Node, ...]
    clamped: Mapping[str, str]
    coded: frozenset[str]
    functions: Mapping[str, tuple[Node, ...]]

    def watched(self, g: Graph) -> set[str]:
        """The values whose ranges have to be known: codes, and what a layer makes codes itself."""
        return {
            *self.codes,
            *(h for h in map(initial_hidden, self.cells) if h and h not in g.consts),
        }

    def stored(self, y: str) -> str:
        """The value under which a result is stored: its own name, or that of its clamp."""
        while y in self.clamped:
            y = self.clamped[y]
        return y


def _moved(n: Node) -> tuple[str, ...]:
    """The values that share their codes through a movement."""
    return (*(n.inputs if isinstance(n.op, Concat) else n.inputs[:1]), n.outputs[0])


def _from_codes(g: Graph, moving: Sequence[Node], integer: Collection[str]) -> set[str]:
    """What integer ops make, and what that is moved into."""
    found = {y for n in g.nodes if n.outputs[0] in integer for y in n.outputs}
    for n in moving:
        if not found.isdisjoint(_moved(n)[:-1]):
            found.add(n.outputs[0])
    return found


def _to_codes(g: Graph, moving: Sequence[Node], integer: Collection[str]) -> set[str]:
    """What integer ops read, and what that was moved from."""
    found = {x for n in g.nodes if n.outputs[0] in integer for x in n.inputs}
    for n in reversed(moving):
        if n.outputs[0] in found:
            found.update(_moved(n)[:-1])
    return found


def _with_float_readers(g: Graph, moving: Sequence[Node], integer: Collection[str]) -> set[str]:
    """Graph outputs, what float ops read, and what those were moved from."""
    moves = {n.outputs[0] for n in moving}
    floats = (n for n in g.nodes if n.outputs[0] not in integer and n.outputs[0] not in moves)
    found = {*g.live_out(), *(x for n in floats for x in n.inputs)}
    for n in reversed(moving):
        if n.outputs[0] in found:
            found.update(_moved(n)[:-1])
    return found


class _Groups:
    """Union-find over values."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, x: str) -> str:
        while (up := self.parent.get(x, x)) != x:
            x = up
        return x

    def join(self, names: tuple[str, ...]) -> None:
        first = self.find(names[0])
        for x in names[1:]:
            self.parent[self.find(x)] = first


def _clamped(g: Graph, kinds: Kinds) -> dict[str, str]:
    """Results that a clamp alone reads -> its result: the value in between is never stored."""
    outputs, users = g.live_out(), g.users()
    return {
        n.inputs[0]: y
        for y, n in kinds.lanes.items()
        if isinstance(n.op, Lane)
        and is_clamp(n.op.expr)
        and n.inputs[0] not in outputs
        and len(users[n.inputs[0]]) == 1
        and (n.inputs[0] in kinds.sums or n.inputs[0] in kinds.lanes)
    }


def _between_codes(g: Graph, kinds: Kinds, complete: bool) -> tuple[set[str], set[str], set[str]]:
    """First results of what computes on codes, and the values they come from and go to.

    Only sums and recurrent layers are worth codes by themselves; all else is, between codes.
    """
    moving, made = list(kinds.movement.values()), g.producers()
    integer = kinds.computing
    while True:
        before, after = _from_codes(g, moving, integer), _to_codes(g, moving, integer)
        useless = {
            y
            for y in integer - kinds.sums.keys() - kinds.cells.keys()
            if before.isdisjoint(kinds.operands(g, made[y])) or y not in after
        }
        if complete or not useless:
            return integer, before, after
        integer -= useless


def place(
    g: Graph,
    wanted: Mapping[str, Precision],
    recipe: Recipe,
    narrow: Iterable[str] = (),
) -> Placement:
    """Decide which ops of a float graph compute on codes.

    Args:
        g: A graph after `sparrow.passes.FRONT`: float, channels first.
        wanted: Precision of every node, by its first result.
        recipe: Whether it is ``complete``, ``fuses``, and what is ``wide``.
        narrow: Values that are not wide all the same, nor what shares a scale with them.
    """
    complete = recipe.complete
    made, users = g.producers(), g.users()
    outputs = g.live_out()
    kinds = kinds_of(g, wanted, complete)
    movement, cells, heads = set(kinds.movement), kinds.cells, kinds.heads
    moving = list(kinds.movement.values())
    integer, before, after = _between_codes(g, kinds, complete)
    # a clamp that stayed while what it clamps did not is an op of its own again
    inner = {x: y for x, y in _clamped(g, kinds).items() if x in integer and y in integer}
    if recipe.fuses:
        inner = fused(g, kinds.sums, integer & kinds.lanes.keys(), recipe.wide) | inner

    if not complete:
        # what is float is moved as float where some reader wants it exact
        exact = _with_float_readers(g, moving, integer)
        movement -= {y for y in movement if y not in before and y in exact}
    groups = _Groups()
    for n in moving:
        if n.outputs[0] in movement:
            groups.join(_moved(n))
    for n in cells.values():
        groups.join(tuple(y for y in hidden_results(n) if y in users or y in outputs) or n.outputs)

    codes: dict[str, DType] = {}
    for y in integer:
        n = made[y]
        asks = I16 if wanted[y] == "int16x8" else I8
        results = tuple(v for v in n.outputs if complete and v and g.types[v].dtype == F32)
        stored = results or ((y,) if y in cells or y in after else ())
        for x in (*kinds.operands(g, n), *stored):
            if x not in inner:
                root = groups.find(x)
                codes[root] = max(asks, codes.get(root, I8), key=lambda t: t.bits)
    kept = set(map(groups.find, narrow))
    codes |= {
        root: I16 for root in map(groups.find, recipe.wide) if root in codes and root not in kept
    }
    # a value that two of them read has 8 bits
    narrowing = sorted(integer & (heads.keys() | cells.keys()), key=lambda y: wanted[y] == "int8")
    for y in narrowing:
        own = hidden_results(made[y]) if y in cells else ()
        roots = (groups.find(x) for x in (*kinds.operands(g, made[y]), *own))
        width = I16 if y in heads and wanted[y] == "int16x8" else I8
        codes |= {root: width for root in roots if root in codes}
    group = {x: groups.find(x) for x in (*g.types,) if groups.find(x) in codes}
    group = {x: r for x, r in group.items() if x not in inner and x not in g.consts}
    sources: dict[str, list[str]] = {}
    for x, root in group.items():
        if x not in movement:
            sources.setdefault(root, []).append(x)
    return Placement(
        {x: codes[r] for x, r in group.items()},
        group,
        {r: tuple(xs) for r, xs in sources.items()},
        tuple(kinds.sums.values()),
        tuple(cells.values()),
        tuple(kinds.tables.values()),
        inner,
        frozenset(integer | movement),
        read_by_functions(g, group, movement, integer),
    )


def channel_axes(g: Graph) -> dict[str, int]:
    """Which axis of each activation says the channel, as the ops around it see it.

    What a convolution or a pool reads or makes has it where they say; a product sums over the last
    axis of its first operand, or the one before; for all else it is the last.
    """
    found = {x: max(t.rank - 1, 0) for x, t in g.types.items()}
    for n in g.nodes:
        if isinstance(n.op, (Conv, ConvTranspose, Pool)) and not n.op.channels_last:
            found[n.inputs[0]] = found[n.outputs[0]] = 1
        if isinstance(n.op, Lane) and n.inputs and found.get(n.inputs[0]) == 1:
            found[n.outputs[0]] = min(1, max(g.types[n.outputs[0]].rank - 1, 0))
    for n in g.nodes:
        if isinstance(n.op, (Conv, ConvTranspose)):
            found[n.inputs[0]] = g.types[n.inputs[0]].rank - 1 if n.op.channels_last else 1
        if isinstance(n.op, MatMul):
            found[n.inputs[0]] = g.types[n.inputs[0]].rank - (2 if n.op.trans_a else 1)
    return found
