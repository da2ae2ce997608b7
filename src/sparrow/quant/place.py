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

from sparrow import lane
from sparrow.graph import Graph, Node
from sparrow.ops.attention import Attention
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gather import Gather
from sparrow.ops.gru import GRU
from sparrow.ops.lane import Lane
from sparrow.ops.lstm import LSTM
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.pool import Pool
from sparrow.ops.recurrent import SIGMOID, TANH
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Resize
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.quant.functions import fused, read_by_functions
from sparrow.quant.recipe import Precision, Recipe
from sparrow.tensor import F32, I8, I16, DType

# Elements: what codes of a smaller table save, the code that scales its rows takes.
SMALLEST_TABLE = 1024
BINARY = ("add", "sub", "mul", "max", "min")


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

    def stored(self, y: str) -> str:
        """The value under which a result is stored: its own name, or that of its clamp."""
        while y in self.clamped:
            y = self.clamped[y]
        return y


def is_sum(g: Graph, n: Node) -> bool:
    """Whether a node is a product over codes: one of its operands at most is constant."""
    if not isinstance(n.op, (Conv, ConvTranspose, MatMul)) or n.op.epilogue is not None:
        return False
    if any(g.types[x].dtype != F32 for x in n.inputs if x):
        return False
    fixed = [x in g.consts for x in n.inputs[:2]]
    if not isinstance(n.op, MatMul):
        return fixed == [False, True] and _bias_is_constant(g, n)
    return not all(fixed) and _bias_is_constant(g, n)


def _bias_is_constant(g: Graph, n: Node) -> bool:
    return len(n.inputs) < 3 or not n.inputs[2] or n.inputs[2] in g.consts


def is_clamp(e: lane.Expr) -> bool:
    """Whether an expression cuts its argument off at literals and changes nothing in between."""
    if isinstance(e, lane.Arg):
        return True
    if not isinstance(e, lane.Call):
        return False
    if e.fn == "relu":
        return is_clamp(e.args[0])
    if e.fn not in ("max", "min"):
        return False
    inner = [a for a in e.args if not isinstance(a, lane.Imm)]
    return len(inner) == 1 and is_clamp(inner[0])


def _is_activation(g: Graph, n: Node) -> bool:
    if not isinstance(n.op, Lane) or any(g.types[x].dtype != F32 for x in n.inputs):
        return False
    if any(x in g.consts for x in n.inputs) or n.op.expr.dtype != F32:
        return False
    e = n.op.expr
    if len(set(n.inputs)) == 1:
        return all(a.dtype == F32 for a in lane.walk(e) if isinstance(a, lane.Arg))
    plain = isinstance(e, lane.Call) and all(isinstance(a, lane.Arg) for a in e.args)
    return plain and isinstance(e, lane.Call) and e.fn in BINARY


def _is_mean(n: Node) -> bool:
    if isinstance(n.op, Pool):
        return n.op.kind == "average"
    return isinstance(n.op, Reduce) and n.op.kind == "mean"


def _is_attention(g: Graph, n: Node) -> bool:
    """Whether attention has a form over codes."""
    if not isinstance(n.op, Attention) or n.op.softcap:
        return False
    return all(g.types[x].dtype == F32 and x not in g.consts for x in n.inputs[:3])


def _is_recurrent(g: Graph, n: Node) -> bool:
    """Whether a recurrent layer has a form over codes."""
    if not isinstance(n.op, LSTM | GRU) or g.types[n.inputs[0]].dtype != F32:
        return False
    x, w, r, *rest = (*n.inputs, *("",) * (8 - len(n.inputs)))
    bias, lens = rest[:2]
    plain = n.op.f == SIGMOID and n.op.g == TANH and (isinstance(n.op, GRU) or n.op.h == TANH)
    peepholes = rest[4] if isinstance(n.op, LSTM) else ""
    extra = rest[3] if isinstance(n.op, GRU) else ""
    fixed = all(v in g.consts for v in (w, r)) and x not in g.consts
    fixed = fixed and all(not v or v in g.consts for v in (bias, extra))
    return plain and fixed and not lens and not peepholes


def _is_table(g: Graph, n: Node) -> bool:
    """Whether an op picks rows of a constant that is worth a scale for each."""
    if not isinstance(n.op, Gather) or n.inputs[0] not in g.consts or n.inputs[1] in g.consts:
        return False
    t = g.types[n.inputs[0]]
    return t.dtype == F32 and t.rank > 1 and t.size >= SMALLEST_TABLE


def hidden_results(n: Node) -> tuple[str, ...]:
    """What a recurrent layer gives of its hidden state."""
    return n.outputs[:-1] if isinstance(n.op, LSTM) else n.outputs


def _moves(g: Graph, n: Node) -> bool:
    """Whether every element of the result is one of the first operand's, or between two of them."""
    op = n.op
    if not n.inputs or g.types[n.outputs[0]].dtype != F32 or n.inputs[0] in g.consts:
        return False
    if isinstance(op, Concat):
        return not any(x in g.consts for x in n.inputs)
    if isinstance(op, Pad):
        return op.mode != "constant" or op.value == 0
    if isinstance(op, Pool):
        return op.kind == "max" and not op.indices
    if isinstance(op, Reduce):
        return op.kind in ("max", "min")
    if isinstance(op, Resize):
        return op.mode in ("nearest", "linear")
    if isinstance(op, Lane):
        return isinstance(op.expr, lane.Arg)
    return isinstance(op, (Reshape, Transpose, Slice, Gather, Expand))


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
    asked = {n.outputs[0]: wanted[n.outputs[0]] in ("int8", "int16x8") for n in g.nodes}
    movement = {n.outputs[0] for n in g.nodes if asked[n.outputs[0]] and _moves(g, n)}
    sums = {n.outputs[0]: n for n in g.nodes if asked[n.outputs[0]] and is_sum(g, n)}
    lanes = {
        n.outputs[0]: n
        for n in g.nodes
        if asked[n.outputs[0]] and n.outputs[0] not in movement and _is_activation(g, n)
    }
    means = {n.outputs[0]: n for n in g.nodes if asked[n.outputs[0]] and _is_mean(n)}
    cells = {
        n.outputs[0]: n for n in g.nodes if wanted[n.outputs[0]] == "int8" and _is_recurrent(g, n)
    }
    attends = ("int8", "int16x8") if complete else ("int8",)
    heads = {
        n.outputs[0]: n for n in g.nodes if wanted[n.outputs[0]] in attends and _is_attention(g, n)
    }
    tables = tuple(n for n in g.nodes if asked[n.outputs[0]] and not complete and _is_table(g, n))
    ours = {*movement, *sums, *cells, *lanes, *means, *heads}
    others = {
        n.outputs[0]: n
        for n in g.nodes
        if complete
        and asked[n.outputs[0]]
        and n.outputs[0] not in ours
        and g.types[n.outputs[0]].dtype == F32
    }

    def operands(n: Node) -> tuple[str, ...]:
        y = n.outputs[0]
        count = 1 if y in cells else 2 if y in sums else 3 if y in heads else len(n.inputs)
        found = (x for x in n.inputs[:count] if x and x not in g.consts)
        return tuple(x for x in found if g.types[x].dtype == F32)

    # a clamp joins its producer: the value in between is never stored
    inner = {
        n.inputs[0]: y
        for y, n in lanes.items()
        if isinstance(n.op, Lane)
        and is_clamp(n.op.expr)
        and n.inputs[0] not in outputs
        and len(users[n.inputs[0]]) == 1
        and (n.inputs[0] in sums or n.inputs[0] in lanes)
    }

    integer = {*sums, *cells, *lanes, *means, *heads, *others}
    moving = [n for n in g.nodes if n.outputs[0] in movement]
    while True:
        before, after = _from_codes(g, moving, integer), _to_codes(g, moving, integer)
        useless = {
            y
            for y in integer - sums.keys() - cells.keys()
            if before.isdisjoint(operands(made[y])) or y not in after
        }
        if complete or not useless:
            break
        integer -= useless
    # a clamp that stayed while what it clamps did not is an op of its own again
    inner = {x: y for x, y in inner.items() if x in integer and y in integer}
    if recipe.fuses:
        inner = fused(g, sums, integer & lanes.keys(), recipe.wide) | inner

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
        for x in (*operands(n), *stored):
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
        roots = (groups.find(x) for x in (*operands(made[y]), *own))
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
        tuple(n for n in g.nodes if n.outputs[0] in sums),
        tuple(cells.values()),
        tables,
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
