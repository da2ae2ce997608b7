"""What a node is to codes; `sparrow.quant.place` says what comes of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from sparrow.ops.quantize import Dequantize
from sparrow.ops.recurrent import SIGMOID, TANH
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Resize
from sparrow.ops.slice import Slice
from sparrow.ops.sums import over_codes
from sparrow.ops.transpose import Transpose
from sparrow.quant.recipe import Precision
from sparrow.tensor import F32

# Elements: what codes of a smaller table save, the code that scales its rows takes.
SMALLEST_TABLE = 1024
BINARY = ("add", "sub", "mul", "max", "min")
INTEGERS: tuple[Precision, ...] = ("int8", "int16x8")
# What has weights.
LAYERS = (Conv, ConvTranspose, GRU, LSTM, MatMul)
_MOVED = (Reshape, Slice, Transpose)


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """The nodes of a graph that may compute on codes, or move them, by first result.

    Attributes:
        movement: Every element of the result is one of the first operand's, or between two.
        sums: Products of constant weights, or of two activations.
        lanes: Functions of one value, and plain arithmetic of two.
        means: Average pools and means.
        cells: Recurrent layers of constant weights.
        heads: Attention.
        others: All else, where the quantization is complete.
        tables: Constants that are looked up in.
    """

    movement: Mapping[str, Node]
    sums: Mapping[str, Node]
    lanes: Mapping[str, Node]
    means: Mapping[str, Node]
    cells: Mapping[str, Node]
    heads: Mapping[str, Node]
    others: Mapping[str, Node]
    tables: Mapping[str, Node]

    @property
    def computing(self) -> set[str]:
        """First results of all that do not only move."""
        return {*self.sums, *self.cells, *self.lanes, *self.means, *self.heads, *self.others}

    def operands(self, g: Graph, n: Node) -> tuple[str, ...]:
        """The values of a node that computes on codes which it reads as codes."""
        y = n.outputs[0]
        count = 1 if y in self.cells else 2 if y in self.sums else 3 if y in self.heads else None
        found = (x for x in n.inputs[:count] if x and x not in g.consts)
        return tuple(x for x in found if g.types[x].dtype == F32)


def kinds_of(g: Graph, wanted: Mapping[str, Precision], complete: bool) -> Kinds:
    """The kinds of the nodes of a float graph.

    Args:
        g: A graph after `sparrow.passes.FRONT`: float, channels first.
        wanted: Precision of every node, by its first result.
        complete: Whether whatever is float becomes codes.
    """

    def those(
        fits: Callable[[Graph, Node], bool], precisions: tuple[Precision, ...] = INTEGERS
    ) -> dict[str, Node]:
        nodes = (n for n in g.nodes if wanted[n.outputs[0]] in precisions)
        return {n.outputs[0]: n for n in nodes if fits(g, n)}

    movement, sums, means = those(moves), those(_is_sum), those(_is_mean)
    lanes = {y: n for y, n in those(_is_activation).items() if y not in movement}
    cells = those(_is_recurrent, ("int8",))
    heads = those(_is_attention, INTEGERS if complete else ("int8",))
    ours = {*movement, *sums, *cells, *lanes, *means, *heads}
    others = those(lambda g, n: n.outputs[0] not in ours and g.types[n.outputs[0]].dtype == F32)
    return Kinds(
        movement,
        sums,
        lanes,
        means,
        cells,
        heads,
        others=others if complete else {},
        tables={} if complete else those(_is_table),
    )


def sums_over_codes(g: Graph) -> list[Node]:
    """The sums of products over codes of a graph, as it was imported or as it is compiled."""
    return [n for n in g.nodes if _multiplies_codes(g, n)]


def _multiplies_codes(g: Graph, n: Node) -> bool:
    sums = isinstance(n.op, (Conv, ConvTranspose, MatMul))
    return sums and over_codes(*(g.types[x].dtype for x in n.inputs[:2]))


def layers_of_codes(g: Graph) -> list[Node]:
    """The layers of a graph after `sparrow.passes.FRONT` that read codes already, or codes as
    floats: those of a quantized file. Codes of inputs alone, such as pixels, are no quantization.
    """
    made = g.producers()

    def of_codes(x: str) -> bool:
        n = made.get(x)
        while n is not None and isinstance(n.op, _MOVED):
            n = made.get(n.inputs[0])
        return n is not None and isinstance(n.op, Dequantize) and n.inputs[0] not in g.inputs

    return [
        n
        for n in g.nodes
        if isinstance(n.op, LAYERS) and (_multiplies_codes(g, n) or any(map(of_codes, n.inputs)))
    ]


def _is_sum(g: Graph, n: Node) -> bool:
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


def _is_mean(g: Graph, n: Node) -> bool:
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


def initial_hidden(n: Node) -> str:
    """The hidden state that a recurrent layer begins with; empty where that is zeros."""
    return n.inputs[5] if len(n.inputs) > 5 else ""


def moves(g: Graph, n: Node) -> bool:
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
