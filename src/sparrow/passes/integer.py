"""Compute on codes where a float op stands between Dequantize and Quantize.

    before   y = Quantize(relu(Conv(Dequantize(x), Dequantize(w), b)))
    after    s = Conv(x, w, b')        exact int32, b' in units of s_x * s_w
             y = requantize(s)         a lane expression, see passes/requantize.py

    before   y = Quantize(Dequantize(a) + Dequantize(b))
    after    y = requantize of (a - z_a) m_a + (b - z_b) m_b

    before   y = Quantize(f(Dequantize(x)))                     y = Quantize(move(Dequantize(x)))
    after    y = Lookup(x, table of f over all codes)           y = move(x)

    before   y = Conv(Dequantize(x), Dequantize(w), b)          used as float
    after    y = float32(Conv(x, w, b')) * s_x * s_w

Clips between the op and its Quantize become the range of the codes: rounding is monotone. A mean
over a window is a convolution with ones. What matches no rule stays float
(`passes/lower_quant.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node, Op, Scheme
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.gather import Gather
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Resize
from sparrow.ops.slice import Slice
from sparrow.ops.sums import CODES
from sparrow.ops.transpose import Transpose
from sparrow.passes import litert
from sparrow.passes.requantize import Constants, Grid, blended, scaled
from sparrow.rewrite import Match, Reject, Remark, Rewrite, apply_rules
from sparrow.tensor import F32, F64, I8, I32, U8, Affine, Array, DType, TensorType

MOVES = (Reshape, Transpose, Slice, Expand, Gather, Concat)
MAX_WINDOW = 1 << 16


@dataclass(frozen=True, slots=True)
class Codes:
    """A value that is read through Dequantize: codes with one scale and zero point."""

    name: str
    type: TensorType
    scale: float
    zero: int

    @property
    def reach(self) -> int:
        """Greatest magnitude of a code minus the zero point."""
        low, high = self.type.dtype.limits
        return max(high - self.zero, self.zero - low)

    def real(self, arg: int) -> lane.Expr:
        """The code minus the zero point, in int32."""
        code = lane.cast(lane.Arg(arg, self.type.dtype), I32)
        return lane.call("sub", code, lane.Imm(self.zero, I32)) if self.zero else code


@dataclass(frozen=True, slots=True)
class Target:
    """Where codes go: the Quantize, the value it rounds, and the range clips leave."""

    node: Node
    source: str
    scale: float
    grid: Grid
    clipped: bool


def codes_of(m: Match, value: str) -> Codes | None:
    """The codes behind a float32 value that one Dequantize per tensor makes."""
    d = m.producer(value, Dequantize)
    if d is None:
        return None
    assert isinstance(d.op, Dequantize)
    t = m.type(d.inputs[0])
    if not d.op.quant.per_tensor or t.dtype not in CODES or d.op.dtype != F32:
        return None
    scale, zero = float(d.op.quant.scale.reshape(())), int(d.op.quant.zero_point.reshape(()))
    low, high = t.dtype.limits
    return Codes(d.inputs[0], t, scale, zero) if low <= zero <= high else None


def clip_of(e: lane.Expr) -> tuple[float, float] | None:
    """Bounds of an expression that only clips operand 0."""
    if isinstance(e, lane.Arg):
        return -np.inf, np.inf
    if not isinstance(e, lane.Call) or e.fn not in ("relu", "max", "min"):
        return None
    picked = [a for a in e.args if not isinstance(a, lane.Imm)]
    inner = clip_of(picked[0]) if len(picked) == 1 else None
    if inner is None:
        return None
    bound = next((float(a.value) for a in e.args if isinstance(a, lane.Imm)), 0.0)
    low, high = inner
    if e.fn == "min":
        return min(low, bound), min(high, bound)
    return max(low, bound), max(high, bound)


def _target(m: Match, n: Node) -> Target | Reject:
    """The quantization at ``n`` with the clips before it."""
    op = n.op
    assert isinstance(op, Quantize)
    if not op.quant.per_tensor or op.dtype not in CODES:
        return Reject(f"codes of {op.dtype} with more than one scale")
    zero = int(op.quant.zero_point.reshape(()))
    grid = Grid(zero, *op.dtype.limits, op.dtype)
    source, clipped = n.inputs[0], False
    one = replace(op, quant=Affine(op.quant.scale.reshape(()), op.quant.zero_point.reshape(()), ()))
    while (c := m.producer(source, Lane)) is not None and len(c.inputs) == 1:
        assert isinstance(c.op, Lane)
        bounds = clip_of(c.op.expr)
        if bounds is None or m.only_user(source) is None:
            break
        low, high = (int(one.eval(np.asarray(b, np.float32))[0]) for b in bounds)
        # bounds of an inner clip apply first
        grid = replace(grid, low=max(grid.low, low), high=min(grid.high, high))
        source, clipped = c.inputs[0], True
    if grid.low > grid.high:
        return Reject("clips that leave no code")
    return Target(n, source, float(op.quant.scale.reshape(())), grid, clipped)


@dataclass(frozen=True, slots=True)
class _Sum:
    """An integer sum of products: op, operands, units and largest magnitudes per channel.

    Weights of 9 bits (uint8 minus a zero point far from 128) are ``weight`` plus ``offset``, which
    counts once per window.
    """

    op: Conv | MatMul
    x: Codes
    weight: Array
    offset: int
    scale: Array
    bias: Array | None
    unit: Array
    reach: Array


def _weights(m: Match, value: str, axis: int) -> tuple[Array, int, Array] | Reject:
    """(int8 codes, what each lacks, scale [n]) of constant weights with scales along ``axis``."""
    d = m.producer(value, Dequantize)
    codes = None if d is None else m.const(d.inputs[0])
    if d is None or codes is None:
        return Reject("the weights are no constant codes")
    assert isinstance(d.op, Dequantize)
    quant, t = d.op.quant, m.type(d.inputs[0])
    if t.dtype not in CODES:
        return Reject(f"weights of {t.dtype}")
    apart = [i for i, s in enumerate(quant.scale.shape) if s > 1 and i != axis]
    if apart or quant.block[axis] not in (-1, 1):
        return Reject("scales of the weights do not run along the output channels")
    # every zero point that keeps the difference in int8 is one of symmetric weights
    plain = codes.astype(np.int32) - quant.zero_point
    offset = 0
    if plain.min(initial=0) < -128 or plain.max(initial=0) > 127:
        if not quant.per_tensor or t.dtype != U8:
            return Reject("weights minus their zero point leave int8")
        offset = 128 - int(quant.zero_point.reshape(()))
        plain = plain - offset
    scale = np.broadcast_to(quant.scale.reshape(-1), (codes.shape[axis],)).astype(np.float64)
    return plain.astype(np.int8), offset, scale


def _bias(m: Match, value: str, unit: Array) -> Array | Reject:
    """The bias in units of the sum, as int32."""
    d = m.producer(value, Dequantize)
    if d is not None and (codes := m.const(d.inputs[0])) is not None:
        assert isinstance(d.op, Dequantize)
        own = np.broadcast_to(d.op.quant.scale.reshape(-1), unit.shape)
        same = np.allclose(own, unit, rtol=1e-6, atol=0.0) and not d.op.quant.zero_point.any()
        if m.type(d.inputs[0]).dtype == I32 and same:
            return codes
        real = (codes.astype(np.float64) - d.op.quant.zero_point.reshape(-1)) * own
    elif (floats := m.const(value)) is not None:
        real = floats.astype(np.float64)
    else:
        return Reject("the bias is not constant")
    steps = np.rint(real / unit)
    if not (np.abs(steps) < 2.0**31).all():
        return Reject("the bias leaves int32 in units of the sum")
    return steps.astype(np.int32)


def _sum_of(m: Match, n: Node) -> _Sum | Reject:
    """A convolution or product of codes with constant weights."""
    op = n.op
    assert isinstance(op, Conv | MatMul)
    if op.epilogue is not None or len(n.inputs) > 3:
        return Reject("it has an epilogue already")
    x = codes_of(m, n.inputs[0])
    if x is None:
        return Reject("its input is no codes of one scale")
    t = m.type(n.inputs[1])
    if isinstance(op, MatMul) and t.rank != 2:
        return Reject("its second operand is no matrix of weights")
    axis = 0 if isinstance(op, Conv) or op.trans_b else 1
    found = _weights(m, n.inputs[1], axis)
    if isinstance(found, Reject):
        return found
    weight, offset, scale = found
    unit = x.scale * scale
    if not (unit > 0).all() or not np.isfinite(unit).all():
        return Reject("a scale is not positive and finite")
    bias: Array | None = None
    if len(n.inputs) > 2 and n.inputs[2]:
        given = _bias(m, n.inputs[2], unit)
        if isinstance(given, Reject):
            return given
        bias = given
    others = tuple(i for i in range(weight.ndim) if i != axis)
    reach = (np.abs(weight.astype(np.int64)) + abs(offset)).sum(others) * x.reach
    if bias is not None:
        reach = reach + np.abs(bias.astype(np.int64))
    # kernels may add the offset of unsigned products and take it off again: that wraps and is exact
    if int(reach.max(initial=0)) >= 1 << 31:
        return Reject("the sum may leave int32")
    return _Sum(replace(op, zero=x.zero), x, weight, offset, scale, bias, unit, reach)


class _Edit:
    """Nodes and constants of a rewrite under construction."""

    def __init__(self, m: Match, origin: str) -> None:
        self.m, self.origin = m, origin
        self.nodes: list[Node] = []
        self.consts: dict[str, Array] = {}
        self.types: dict[str, TensorType] = {}

    def const(self, array: Array, dtype: DType | None = None) -> str:
        name = self.m.fresh()
        self.consts[name] = np.ascontiguousarray(array)
        if dtype is not None:
            self.types[name] = TensorType(array.shape, dtype)
        return name

    def add(self, op: Op, *inputs: str, y: str = "") -> str:
        y = y or self.m.fresh()
        self.nodes.append(Node(op, inputs, (y,), self.origin))
        return y

    def done(self, *remove: Node) -> Rewrite:
        return Rewrite(tuple(self.nodes), remove, consts=self.consts, types=self.types)


def _emit_sum(e: _Edit, s: _Sum) -> tuple[str, ...]:
    """The operands of `_value`."""
    names = [s.x.name, e.const(s.weight, I8)]
    if s.bias is not None:
        names.append(e.const(s.bias, I32))
    total = e.add(s.op, *names)
    if not s.offset:
        return (total,)
    shape = list(s.weight.shape)
    axis = 0 if isinstance(s.op, Conv) or s.op.trans_b else 1
    if not isinstance(s.op, Conv) or s.op.group == 1:
        # the window is the same for every output channel
        shape[axis] = 1
    return total, e.add(s.op, s.x.name, e.const(np.ones(shape, np.int8), I8))


def _value(s: _Sum) -> lane.Expr:
    """The sum from what `_emit_sum` names."""
    total = lane.Arg(0, I32)
    if not s.offset:
        return total
    rest = lane.call("mul", lane.Arg(1, I32), lane.Imm(s.offset, I32))
    return lane.call("add", total, rest)


def _along_channels(op: Conv | MatMul, values: Array, rank: int) -> Array:
    """Values per output channel, shaped to broadcast to the output."""
    first = isinstance(op, Conv) and not op.channels_last
    return values.reshape(-1, *(1,) * (rank - 2)) if first else values


def _sum(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    s = _sum_of(m, n)
    if isinstance(s, Reject):
        return s
    if m.only_user(t.source) is None:
        return Reject("its float result is used elsewhere")
    y = t.node.outputs[0]
    constants = Constants(1 if not s.offset else 2)
    if scheme == "tflite":
        steps = litert.sum_ratio(s.op, s.x.type.dtype, s.x.scale, s.scale, t.scale)
        away = litert.is_depthwise(s.op)
        ratio = _along_channels(s.op, steps, m.type(y).rank)
        reach = _along_channels(s.op, s.reach, m.type(y).rank)
        expr = litert.requantized(_value(s), reach, ratio, t.grid, constants, away=away)
    else:
        ratio = _along_channels(s.op, s.unit / t.scale, m.type(y).rank)
        expr = scaled(scheme, _value(s), ratio, t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    e = _Edit(m, n.origin)
    e.add(Lane(expr), *_emit_sum(e, s), *map(e.const, constants.arrays), y=y)
    return e.done(t.node)


def _elementwise(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    op = n.op
    assert isinstance(op, Lane)
    live = [x for x in dict.fromkeys(n.inputs) if m.const(x) is None]
    if len(live) == 1:
        return _table(m, n, t, live[0])
    args = tuple(lane.Arg(i, F32) for i in range(2))
    kinds: dict[lane.Expr, str] = {lane.call(f, *args): f for f in ("add", "sub", "mul")}
    kinds |= {lane.call(f, args[1], args[0]): f for f in ("add", "mul")}
    fn = kinds.get(op.expr)
    found = [codes_of(m, x) for x in n.inputs]
    if fn is None or len(found) != 2:
        return Reject("it is no sum, difference or product of two values")
    a, b = found
    if a is None or b is None:
        return Reject("an operand is no codes of one scale")
    constants = Constants(2)
    if fn == "mul":
        product = lane.call("mul", a.real(0), b.real(1))
        ratio = np.asarray(a.scale * b.scale / t.scale)
        if scheme == "tflite":
            reach = np.asarray(a.reach * b.reach)
            expr = litert.requantized(product, reach, ratio, t.grid, constants, away=True)
        else:
            expr = scaled(scheme, product, ratio, t.grid, constants)
    elif scheme == "tflite":
        first, second = (a.real(0), a.scale), (b.real(1), b.scale)
        expr = litert.added(first, second, t.scale, t.grid, minus=fn == "sub")
    else:
        sign = -1.0 if fn == "sub" else 1.0
        terms = [
            (a.real(0), a.reach, np.asarray(a.scale / t.scale)),
            (b.real(1), b.reach, np.asarray(sign * b.scale / t.scale)),
        ]
        expr = blended(terms, t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    e = _Edit(m, n.origin)
    e.add(Lane(expr), a.name, b.name, y=t.node.outputs[0])
    return e.done(t.node)


def _table(m: Match, n: Node, t: Target, value: str) -> Rewrite | Reject:
    """A function of one value: every code's result, computed in double precision."""
    op, x = n.op, codes_of(m, value)
    assert isinstance(op, Lane)
    if x is None:
        return Reject("its input is no codes of one scale")
    if any(v is not None and v.size != 1 for v in map(m.const, n.inputs)):
        return Reject("it has an operand that varies")
    if m.type(value).shape != m.type(n.outputs[0]).shape:
        return Reject("it broadcasts")
    low, high = x.type.dtype.limits
    reals = (np.arange(low, high + 1) - x.zero) * x.scale
    args: list[Array] = []
    for name in n.inputs:
        known = m.const(name)
        args.append(reals if known is None else known.astype(np.float64).reshape(()))
    with np.errstate(all="ignore"):
        result = np.broadcast_to(lane.evaluate(_double(op.expr), args), reals.shape)
    if np.isnan(result).any():
        return Reject("it is undefined for some code")
    steps = np.rint(np.clip(result / t.scale, -(2.0**31), 2.0**31)) + t.grid.zero
    table = np.clip(steps, t.grid.low, t.grid.high).astype(t.grid.dtype.numpy)
    e = _Edit(m, n.origin)
    e.add(Lookup(), x.name, e.const(table, t.grid.dtype), y=t.node.outputs[0])
    return e.done(t.node)


def _double(e: lane.Expr) -> lane.Expr:
    """A float32 expression in float64."""
    if isinstance(e, lane.Arg):
        return lane.Arg(e.index, F64 if e.dtype == F32 else e.dtype)
    if isinstance(e, lane.Imm):
        return lane.Imm(e.value, F64 if e.dtype == F32 else e.dtype)
    return lane.Call(e.fn, tuple(map(_double, e.args)), F64 if e.dtype == F32 else e.dtype)


def _rescaled(e: _Edit, x: Codes, t: Target, scheme: Scheme, y: str = "") -> str | Reject:
    """Codes of ``x`` on the grid of the target."""
    same = (x.zero, x.type.dtype) == (t.grid.zero, t.grid.dtype) and x.scale == t.scale
    whole = (t.grid.low, t.grid.high) == t.grid.dtype.limits
    if same and whole and not y:
        return x.name
    if same:
        arg = lane.Arg(0, x.type.dtype)
        low, high = (lane.Imm(v, x.type.dtype) for v in (t.grid.low, t.grid.high))
        return e.add(Lane(arg if whole else lane.clip(arg, low, high)), x.name, y=y)
    constants, ratio = Constants(1), np.asarray(x.scale / t.scale)
    if scheme == "tflite":
        reach = np.asarray(x.reach)
        expr = litert.requantized(x.real(0), reach, ratio, t.grid, constants, away=True)
    else:
        expr = blended([(x.real(0), x.reach, ratio)], t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    return e.add(Lane(expr), x.name, y=y)


def _move(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    """Movement of codes; each operand is first brought to the scale of the result."""
    op = n.op
    moved = len(n.inputs) if isinstance(op, Concat) else 1
    e = _Edit(m, n.origin)
    inputs = list(n.inputs)
    for i in range(moved):
        x = codes_of(m, inputs[i])
        if x is None:
            return Reject("an operand is no codes of one scale")
        name = _rescaled(e, x, t, scheme)
        if isinstance(name, Reject):
            return name
        inputs[i] = name
    if isinstance(op, Pad) and op.mode == "constant":
        fill = round(float(op.value) / t.scale) + t.grid.zero
        op = replace(op, value=min(max(fill, t.grid.low), t.grid.high))
    node = Node(op, tuple(inputs), t.node.outputs, n.origin)
    return Rewrite((*e.nodes, node), (t.node,), consts=e.consts, types=e.types)


def _pool(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    op = n.op
    x = codes_of(m, n.inputs[0])
    if x is None:
        return Reject("its input is no codes of one scale")
    if isinstance(op, Reduce):
        if op.kind == "max":
            return _move(m, n, t, scheme)
        if op.kind != "mean":
            return _NO_POOL
        return _window_mean(m, n, t, x, *_whole(op, x.type))
    assert isinstance(op, Pool)
    if op.kind == "max" and not op.indices:
        # maxima commute with a monotone rescaling
        return _move(m, n, t, scheme)
    if op.kind != "average" or op.ceil:
        return _NO_POOL
    conv = Conv(op.strides, op.dilations, op.pads, 1, op.channels_last)
    counts = np.asarray(float(prod(op.kernel)))
    if any(v for p in op.pads for v in p) and not op.count_pads:
        ones = np.ones((1, *(x.type.shape[1:-1] if op.channels_last else x.type.shape[2:]), 1))
        last = replace(conv, channels_last=True)
        (counts,) = last.eval(ones, np.ones((1, 1, *op.kernel)))
        if counts.min() < 1:
            return Reject("a window holds nothing")
        counts = counts if op.channels_last else np.moveaxis(counts, -1, 1)
    return _window_mean(m, n, t, x, conv, op.kernel, counts, of_codes=scheme == "tflite")


_NO_POOL = Reject("no integer form of this pooling")


def _whole(op: Reduce, t: TensorType) -> tuple[Conv | None, tuple[int, ...], Array]:
    """The window of a mean over all spatial axes: (convolution, kernel, counts)."""
    spatial = op.axes
    first, last = tuple(range(2, t.rank)), tuple(range(1, t.rank - 1))
    if t.rank < 3 or t.rank > 4 or spatial not in (first, last):
        return None, (), np.asarray(1.0)
    ones = (1,) * len(spatial)
    kernel = tuple(t.shape[a] for a in spatial)
    conv = Conv(ones, ones, ((0, 0),) * len(spatial), 1, spatial == last)
    return conv, kernel, np.asarray(float(prod(kernel)))


def _window_mean(
    m: Match,
    n: Node,
    t: Target,
    x: Codes,
    conv: Conv | None,
    kernel: tuple[int, ...],
    counts: Array,
    *,
    of_codes: bool = False,
) -> Rewrite | Reject:
    """The mean of windows: a depthwise sum with ones, then one integer multiplier per pixel."""
    if conv is None or prod(kernel) > MAX_WINDOW:
        return Reject("no window of at most 65536 elements")
    c = x.type.shape[-1] if conv.channels_last else x.type.shape[1]
    e = _Edit(m, n.origin)
    weight = e.const(np.ones((c, 1, *kernel), np.int8), I8)
    total = e.add(replace(conv, group=c, zero=x.zero), x.name, weight)
    constants = Constants(1)
    expr: lane.Expr | Reject
    if of_codes and (x.scale, x.zero) == (t.scale, t.grid.zero):
        expr = litert.averaged(lane.Arg(0, I32), x.zero, counts, t.grid, constants)
    else:
        terms = [(lane.Arg(0, I32), x.reach * prod(kernel), x.scale / t.scale / counts)]
        expr = blended(terms, t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    e.add(Lane(expr), total, *map(e.const, constants.arrays), y=t.node.outputs[0])
    return e.done(t.node)


def _resize(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    assert isinstance(n.op, Resize)
    if n.op.mode == "nearest":
        return _move(m, n, t, scheme)
    x = codes_of(m, n.inputs[0])
    alike = x is not None and (x.scale, x.zero, x.type.dtype) == (
        t.scale,
        t.grid.zero,
        t.grid.dtype,
    )
    if scheme != "tflite" or x is None or x.type.dtype != U8 or not alike:
        return Reject(f"{n.op.mode} resizing has no integer form")
    e = _Edit(m, n.origin)
    numbers = e.add(Lane(lane.cast(lane.Arg(0, U8), F32)), x.name)
    blend = e.add(n.op, numbers)
    e.add(Lane(litert.resized(t.grid)), blend, y=t.node.outputs[0])
    return e.done(t.node)


def turned_weights(m: Match, n: Node) -> Rewrite | None:
    """Match a Transpose of constant codes that are dequantized; the codes are transposed here."""
    if not isinstance(n.op, Transpose):
        return None
    d = m.producer(n.inputs[0], Dequantize)
    codes = None if d is None else m.const(d.inputs[0])
    if d is None or codes is None:
        return None
    assert isinstance(d.op, Dequantize)
    t, quant = m.type(d.inputs[0]), d.op.quant.permuted(n.op.perm)
    name = m.fresh()
    turned = np.ascontiguousarray(codes.transpose(n.op.perm))
    return Rewrite(
        (Node(replace(d.op, quant=quant), (name,), n.outputs, n.origin),),
        (n,),
        consts={name: turned},
        types={name: TensorType(turned.shape, t.dtype, quant=quant)},
    )


def coded_bias(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a product plus dequantized constants, one per column: its bias."""
    if not isinstance(n.op, Lane) or n.op.expr not in _ADDS:
        return None
    for i, x in enumerate(n.inputs):
        p, d = m.producer(x, MatMul), m.producer(n.inputs[1 - i], Dequantize)
        if p is None or d is None or m.const(d.inputs[0]) is None:
            continue
        assert isinstance(p.op, MatMul)
        bias, y = m.type(n.inputs[1 - i]), m.type(x)
        if len(p.inputs) != 2 or p.op.epilogue is not None or m.only_user(x) is None:
            return Reject(f"{p.origin}: it has a bias already, or its result is used elsewhere")
        if bias.shape != y.shape[-1:] or m.type(n.outputs[0]).shape != y.shape:
            return Reject("the constants are not one per column")
        new = Node(p.op, (*p.inputs, n.inputs[1 - i]), n.outputs, p.origin)
        return Rewrite((new,), (p, n))
    return None


_ADDS = tuple(lane.call("add", lane.Arg(i, F32), lane.Arg(1 - i, F32)) for i in range(2))
Handler = Callable[[Match, Node, Target, Scheme], Rewrite | Reject]
HANDLERS: tuple[tuple[tuple[type, ...], Handler], ...] = (
    ((Conv, MatMul), _sum),
    ((Lane,), _elementwise),
    ((*MOVES, Pad), _move),
    ((Pool, Reduce), _pool),
    ((Resize,), _resize),
)


def _quantized(m: Match, n: Node, scheme: Scheme) -> Rewrite | Reject | None:
    """Match a Quantize and what it rounds."""
    if not isinstance(n.op, Quantize):
        return None
    t = _target(m, n)
    if isinstance(t, Reject):
        return t
    x = codes_of(m, t.source)
    if x is not None:
        e = _Edit(m, n.origin)
        named = _rescaled(e, x, t, scheme, y=n.outputs[0])
        return named if isinstance(named, Reject) else e.done(n)
    source = m.producer(t.source)
    if source is None or len(source.outputs) != 1:
        return None
    for kinds, handler in HANDLERS:
        if isinstance(source.op, kinds):
            r = handler(m, source, t, scheme)
            if isinstance(r, Reject):
                return Reject(f"{source.origin or source.outputs[0]}: {r.reason}")
            return r
    return None


def _float_result(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a sum of products of codes whose result is used as float."""
    if not isinstance(n.op, Conv | MatMul) or codes_of(m, n.inputs[0]) is None:
        return None
    s = _sum_of(m, n)
    if isinstance(s, Reject):
        return s
    y = n.outputs[0]
    constants = Constants(1 if not s.offset else 2)
    unit = _along_channels(s.op, s.unit, m.type(y).rank)
    expr = lane.call("mul", lane.cast(_value(s), F32), constants.take(unit, F32))
    e = _Edit(m, n.origin)
    e.add(Lane(expr), *_emit_sum(e, s), *map(e.const, constants.arrays), y=y)
    return e.done(n)


def integer(g: Graph, remarks: list[Remark] | None = None) -> Graph:
    """Compute on codes; see the module."""
    if not any(isinstance(n.op, Dequantize) for n in g.nodes):
        return g

    def quantized(m: Match, n: Node) -> Rewrite | Reject | None:
        return _quantized(m, n, g.scheme)

    g = apply_rules(g, (("turned_weights", turned_weights), ("coded_bias", coded_bias)), remarks)
    # results that are quantized first: what is left of the sums gives floats
    g = apply_rules(g, (("integer", quantized),), remarks)
    return apply_rules(g, (("integer_float", _float_result),), remarks)
