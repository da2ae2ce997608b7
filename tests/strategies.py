"""Hypothesis strategies: lane expressions and small graphs over the op table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from sparrow import lane
from sparrow.builder import Builder
from sparrow.errors import InvalidGraph
from sparrow.graph import Graph
from sparrow.lane import Expr
from sparrow.ops.attention import Attention
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.gather import Gather
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.matmul import MatMul
from sparrow.ops.reduce import Reduce, ReduceKind
from sparrow.ops.rnn import RNN
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.tensor import BOOL, F32, F64, I32, I64, U8, Array, DType, TensorType

# extents worth trying: one, powers of two, primes around vector widths
EXTENTS = (1, 2, 3, 5, 7, 8, 11, 17)
# functions without jumps or poles: two correct implementations agree on all of them
SMOOTH = (
    "add", "sub", "mul", "max", "min", "abs", "neg", "tanh", "sigmoid", "relu", "erf", "atan",
    "sin", "cos", "asinh", "hardswish", "gelu", "silu", "softplus",
)  # fmt: skip


def extents(most: int = 17) -> st.SearchStrategy[int]:
    """An extent of an axis."""
    return st.sampled_from([e for e in EXTENTS if e <= most])


@st.composite
def shapes(draw: st.DrawFn, max_rank: int = 4, max_size: int = 600) -> tuple[int, ...]:
    """A shape of few elements."""
    shape: list[int] = []
    for _ in range(draw(st.integers(0, max_rank))):
        room = max_size // max(1, int(np.prod(shape)))
        shape.append(draw(extents(max(1, room))))
    return tuple(shape)


def literals(dtype: DType) -> st.SearchStrategy[lane.Imm]:
    """An immediate; floats include zeros of both signs, infinities and NaN."""
    if dtype == BOOL:
        return st.booleans().map(lambda v: lane.Imm(v, BOOL))
    if dtype.kind == "float":
        floats = st.floats(width=32 if dtype == F32 else 64)
        return floats.map(lambda v: lane.Imm(v, dtype))
    low, high = dtype.limits
    return st.integers(low, high).map(lambda v: lane.Imm(v, dtype))


@st.composite
def any_exprs(draw: st.DrawFn, args: Sequence[DType], depth: int = 4) -> Expr:
    """Any well-typed expression over operands of these dtypes; its value may be anything."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        i = draw(st.integers(0, len(args) - 1))
        return lane.Arg(i, args[i]) if draw(st.booleans()) else draw(literals(args[i]))
    fn = draw(st.sampled_from([f for f in lane.LANE_FNS if f.name != "cast"]))
    first = draw(any_exprs(args, depth - 1))
    if draw(st.integers(0, 4)) == 0:
        return lane.cast(first, draw(st.sampled_from([F32, F64, I32, I64, U8, BOOL])))
    rest = []
    if fn.result == "second":
        first = first if first.dtype == BOOL else lane.Imm(True, BOOL)
        rest.append(draw(any_exprs(args, depth - 1)))
    while len(rest) + 1 < fn.arity:
        like = rest[0].dtype if fn.result == "second" else first.dtype
        other = draw(any_exprs(args, depth - 1))
        rest.append(lane.cast(other, like))
    if fn.name == "rshr" and first.dtype.kind == "int":
        # it means something for counts below the width only, and is nothing a model can ask for
        rest = [lane.call("bitand", rest[0], lane.Imm(first.dtype.bits - 1, first.dtype))]
    try:
        return lane.call(fn.name, first, *rest)
    except InvalidGraph:
        return first


@st.composite
def smooth_exprs(draw: st.DrawFn, count: int, depth: int = 3) -> Expr:
    """A float32 expression over ``count`` operands on whose value implementations agree."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        if draw(st.integers(0, 3)):
            return lane.Arg(draw(st.integers(0, count - 1)), F32)
        return lane.Imm(draw(st.sampled_from([0.0, 1.0, -0.5, 2.0, 0.1])), F32)
    fn = lane.BY_NAME[draw(st.sampled_from(SMOOTH))]
    return lane.call(fn.name, *(draw(smooth_exprs(count, depth - 1)) for _ in range(fn.arity)))


def arrays(t: TensorType, seed: int) -> Array:
    """Values of a type: normal floats, small integers."""
    rng = np.random.default_rng(seed)
    if t.dtype.kind == "float":
        return rng.standard_normal(t.shape).astype(t.dtype.numpy)
    return rng.integers(0, 3, t.shape).astype(t.dtype.numpy)


class Sketch:
    """A Builder with a growing list of float32 values to draw operands from."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.b = Builder("sketch")
        self.values: list[str] = []

    def pick(self, rank: int | None = None) -> str:
        """A value, of a rank if one is given: an earlier one, a constant or a new input."""
        fit = [v for v in self.values if rank in (None, len(self.b.shape(v)))]
        if fit and self.draw(st.integers(0, 5)) > 0:
            return self.draw(st.sampled_from(fit))
        shape = self.draw(shapes(max_rank=4))
        while rank is not None and len(shape) < rank:
            shape += (self.draw(extents(5)),)
        return self.fresh(shape[: len(shape) if rank is None else rank])

    def fresh(self, shape: Sequence[int]) -> str:
        """A new input, or a constant."""
        t = TensorType(tuple(shape), F32)
        if self.draw(st.booleans()) or len(self.b.inputs) > 3:
            return self.weights(*shape)
        name = self.b.input(f"in{len(self.b.inputs)}", t)
        self.values.append(name)
        return name

    def weights(self, *shape: int) -> str:
        """A constant."""
        a = arrays(TensorType(shape, F32), self.draw(st.integers(0, 99)))
        return self.b.const(a / np.float32(max(1, shape[-1]) ** 0.5) if shape else a)

    def flag(self) -> bool:
        """Heads or tails."""
        return self.draw(st.booleans())

    def below(self, n: int) -> int:
        """An integer of range(n)."""
        return self.draw(st.integers(0, n - 1))


def _lane(s: Sketch) -> str:
    x = s.pick()
    shape = s.b.shape(x)
    names = [x]
    for _ in range(s.below(3)):
        cut = s.below(len(shape) + 1)
        names.append(s.fresh([d if s.flag() else 1 for d in shape[cut:]]))
    return s.b.lane(s.draw(smooth_exprs(len(names))), *names)


def _matmul(s: Sketch) -> str:
    a = s.pick(s.draw(st.sampled_from([2, 3])))
    n, flip_a, flip_b = s.draw(extents()), s.flag(), s.flag()
    k = s.b.shape(a)[-2 if flip_a else -1]
    b = s.weights(n, k) if flip_b else s.weights(k, n)
    epilogue = s.draw(smooth_exprs(1)) if s.flag() else None
    return s.b.add(MatMul(flip_a, flip_b, epilogue), a, b, s.weights(n) if s.flag() else "")


def _conv(s: Sketch) -> str:
    x = s.pick(4)
    _, c, h, w = s.b.shape(x)
    kernel = tuple(1 + s.below(min(3, d)) for d in (h, w))
    group = c if s.flag() else 1
    m = group * (1 + s.below(3))
    pads = tuple((s.below(2), s.below(2)) for _ in range(2))
    op = Conv((1 + s.below(2), 1 + s.below(2)), (1, 1), pads, group)
    return s.b.add(op, x, s.weights(m, c // group, *kernel), s.weights(m) if s.flag() else "")


def _reshape(s: Sketch) -> str:
    x = s.pick()
    shape = s.b.shape(x)
    at = s.below(len(shape) + 1)
    head, tail = shape[:at], shape[at:]
    return s.b.reshape(x, s.draw(st.sampled_from([(*head, 1, *tail), (*head, int(np.prod(tail)))])))


def _transpose(s: Sketch) -> str:
    x = s.pick()
    return s.b.transpose(x, s.draw(st.permutations(range(len(s.b.shape(x))))))


def _concat(s: Sketch) -> str:
    x = s.pick(1 + s.below(4))
    shape = list(s.b.shape(x))
    axis = s.below(len(shape))
    other = list(shape)
    other[axis] = s.draw(extents(5))
    names = [x, s.fresh(other)]
    return s.b.add(Concat(axis), *(names if s.flag() else names[::-1]))


def _slice(s: Sketch) -> str:
    x = s.pick()
    picks = []
    for d in s.b.shape(x):
        size, step = 1 + s.below(d), -1 if s.flag() else 1
        if size * 2 <= d and s.flag():
            step *= 2
        span = (size - 1) * abs(step)
        start = s.below(d - span)
        picks.append((start + span if step < 0 else start, size, step))
    starts, sizes, steps = zip(*picks, strict=True) if picks else ((), (), ())
    return s.b.add(Slice(starts, sizes, steps), x)


def _softmax(s: Sketch) -> str:
    x = s.pick(1 + s.below(4))
    return s.b.add(Softmax(s.below(len(s.b.shape(x))), s.flag()), x)


def _gather(s: Sketch) -> str:
    x = s.pick(1 + s.below(4))
    axis = s.below(len(s.b.shape(x)))
    extent = s.b.shape(x)[axis]
    index = s.draw(st.lists(st.integers(-extent, extent - 1), min_size=1, max_size=4))
    return s.b.add(Gather(axis), x, s.b.ints(*index))


def _reduce(s: Sketch) -> str:
    x = s.pick(1 + s.below(4))
    rank = len(s.b.shape(x))
    axes = tuple(sorted(s.draw(st.sets(st.integers(0, rank - 1), min_size=1))))
    kinds: tuple[ReduceKind, ...] = ("sum", "mean", "max", "min")
    return s.b.add(Reduce(s.draw(st.sampled_from(kinds)), axes), x)


def _recurrent(s: Sketch) -> str:
    x = s.pick(3)
    width, hidden = s.b.shape(x)[2], s.draw(extents(8))
    common = (s.flag(), s.flag(), 0.5 if s.flag() else 0.0)
    gates, op = s.draw(
        st.sampled_from(
            [(4, LSTM(*common, s.flag())), (3, GRU(*common, s.flag())), (1, RNN(*common))]
        )
    )
    bias = s.weights(gates * hidden) if s.flag() else ""
    w, r = s.weights(gates * hidden, width), s.weights(gates * hidden, hidden)
    outputs = s.b.add_n(op, x, w, r, bias)
    return s.draw(st.sampled_from(outputs))


def _attention(s: Sketch) -> str:
    q = s.pick(4)
    b, heads, rows, d = s.b.shape(q)
    groups = s.draw(st.sampled_from([g for g in range(1, heads + 1) if heads % g == 0]))
    keys, e = s.draw(extents(8)), s.draw(extents(8))
    k, v = s.weights(b, groups, keys, d), s.weights(b, groups, keys, e)
    mask = s.weights(rows, keys) if s.flag() else ""
    op = Attention(0.5, 2.0 if s.flag() else 0.0, s.flag(), s.below(3))
    return s.b.add(op, q, k, v, mask)


MAKERS: Sequence[Callable[[Sketch], str]] = (
    _lane, _matmul, _conv, _reshape, _transpose, _concat, _slice, _softmax, _gather, _reduce,
    _recurrent, _attention,
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn, max_nodes: int = 6) -> Graph:
    """A verified graph of float32 values: inputs of odd shapes, constants, one to three outputs."""
    s = Sketch(draw)
    s.values.append(s.b.input("in0", TensorType(draw(shapes()), F32)))
    for _ in range(draw(st.integers(1, max_nodes))):
        maker = draw(st.sampled_from(MAKERS))
        y = maker(s)
        s.values.append(y)
        # products of products leave the range where two implementations agree
        s.values[-1] = s.b.lane(lane.call("tanh", s.b.arg(0, y)), y) if draw(st.booleans()) else y
    count = min(len(s.values), draw(st.integers(1, 3)))
    picked = dict.fromkeys([s.values[-1], *draw(st.permutations(s.values))[: count - 1]])
    return s.b.finish({f"out{i}": v for i, v in enumerate(picked)}, {})


def names() -> st.SearchStrategy[str]:
    """Names of values as models have them, odd ones included."""
    odd = st.sampled_from(["_", "%1", "a b", "x:0", "input", "é", '"', "a:", "-", "/m/Add_1", "#1"])
    return odd | st.text(min_size=1, max_size=6)


def feeds(g: Graph, seed: int = 0) -> dict[str, Array]:
    """An input for every graph input."""
    return {x: arrays(g.types[x], seed + i) for i, x in enumerate(g.inputs)}
