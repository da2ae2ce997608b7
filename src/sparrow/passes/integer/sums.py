"""Convolutions and products of codes with constant weights.

before   y = Quantize(relu(Conv(Dequantize(x), Dequantize(w), b)))
after    s = Conv(x, w, b')        exact int32, b' in units of s_x * s_w
         y = requantize(s)         a lane expression, see passes/requantize.py

before   y = Conv(Dequantize(x), Dequantize(w), b)          used as float
after    y = float32(Conv(x, w, b')) * s_x * s_w

Weights of a matrix with a scale per group of inputs: the scales of a channel's groups are multiples
of one unit (VS-Quant, Dai et al. 2021, arXiv:2102.04503), so that sums of groups add as integers.

before   y = MatMul(Dequantize(x), Dequantize(w, blocks of k inputs))
after    s = sum over groups g of MatMul(x[g], w[g]) m[g]         exact, int32 or int64
         y = float32(s) * s_x * unit

Activations of 16 bits are two of 8, x = 256 h + l with h int8 and l uint8, and their sums two sums:
dot products of bytes take no longer for both than those over 16 bits would. Where there are none,
they become one (`passes/halves.py`).

before   y = Quantize(Conv(Dequantize(x), ..))              x int16
after    s = 256 Conv(h, w) + Conv(l, w, b')                int32, or int64 where s may leave it
         y = requantize(s)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node, Scheme
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.passes import litert
from sparrow.passes.integer.codes import Codes, Edit, Target, codes_of
from sparrow.passes.integer.constants import Groups, Weights, bias_codes, weight_codes
from sparrow.passes.requantize import Constants, scaled
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I8, I16, I32, I64, U8, Array, TensorType

_CODE = lane.cast(lane.Arg(0, I16), I32)
_REST = lane.call("bitand", _CODE, lane.Imm(255, I32))
# Digits of a 16-bit code; of the higher one a multiple of 256 is divided: nothing is rounded.
LOW = lane.cast(_REST, U8)
HIGH = lane.cast(lane.call("rshr", lane.call("sub", _CODE, _REST), lane.Imm(8, I32)), I8)


def beyond_int32(products: int, reach: int) -> str:
    """That sums of so many ``products`` may reach a number that int32 does not hold."""
    return f"sums of {products:,} products may reach {reach:,}, and int32 ends at {(1 << 31) - 1:,}"


@dataclass(frozen=True, slots=True)
class _Sum:
    """An integer sum of products: op, operands, units and largest magnitudes per channel.

    Weights of 9 bits (8 minus a zero point far from their middle) are codes plus an offset, which
    counts once per window.
    """

    op: Conv | MatMul
    x: Codes
    weights: Weights
    bias: Array | None
    unit: Array
    reach: Array

    @property
    def terms(self) -> int:
        """How many int32 sums the value is made of."""
        if self.weights.groups is not None:
            return 1
        return 2 if self.weights.offset or self.x.type.dtype == I16 else 1

    @property
    def wide(self) -> bool:
        """Whether the value may leave int32."""
        return int(self.reach.max(initial=0)) >= 1 << 31

    @property
    def splits(self) -> bool:
        """Whether it is made of sums that fit int32 where the value does not."""
        return self.weights.groups is not None or self.x.type.dtype == I16

    @property
    def extent(self) -> str:
        """How large it may be, in words."""
        count = self.weights.codes.size // len(self.reach)
        return beyond_int32(count, int(self.reach.max(initial=0)))


def _sum_of(m: Match, n: Node) -> _Sum | Reject:
    """A convolution or product of codes with constant weights, whose sums fit."""
    s = _unbounded(m, n)
    # kernels may add the offset of unsigned products and take it off again: that wraps and is exact
    if isinstance(s, Reject) or s.splits or not s.wide:
        return s
    return Reject(f"{s.extent}: they stay float")


def wide_sums(g: Graph) -> dict[str, str]:
    """Convolutions and products of codes whose sums may leave int32, by name, and how far."""
    m = Match(g)
    found = {}
    for n in g.nodes:
        if isinstance(n.op, Conv | MatMul):
            s = _unbounded(m, n)
            if not isinstance(s, Reject) and s.wide and not s.splits:
                found[n.origin or n.outputs[0]] = s.extent
    return found


def _unbounded(m: Match, n: Node) -> _Sum | Reject:
    """The same, however large its sums may be."""
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
    found = weight_codes(m, n.inputs[1], axis)
    if isinstance(found, Reject):
        return found
    unit = x.scale * found.scale
    if not (unit > 0).all() or not np.isfinite(unit).all():
        return Reject("a scale is not positive and finite")
    bias: Array | None = None
    if len(n.inputs) > 2 and n.inputs[2]:
        given = bias_codes(m, n.inputs[2], unit)
        if isinstance(given, Reject):
            return given
        bias = given
    if found.groups is not None and (isinstance(op, Conv) or op.trans_a):
        return Reject("weights per group of a convolution or a transposed operand")
    reach = found.magnitudes(axis) * x.reach
    if bias is not None:
        reach = reach + np.abs(bias.astype(np.int64))
    s = _Sum(replace(op, zero=x.zero), x, found, bias, unit, reach)
    much = x.zero or found.offset or int(reach.max(initial=0)) >= 1 << 39
    if x.type.dtype == I16 and much:
        return Reject("16-bit codes with a zero point, or weights of more than 8 bits")
    return s


def _emit_sum(e: Edit, s: _Sum) -> tuple[str, ...]:
    """The operands of `_value`."""
    if s.weights.groups is not None:
        return (_sum_of_groups(e, s, s.weights.groups),)
    weight = e.const(s.weights.codes, I8)
    bias = () if s.bias is None else (e.const(s.bias, I32),)
    if s.x.type.dtype == I16:
        low, high = digits(e, s.x)
        return e.add(s.op, low, weight, *bias), e.add(s.op, high, weight)
    total = e.add(s.op, s.x.name, weight, *bias)
    if not s.weights.offset:
        return (total,)
    shape = list(s.weights.codes.shape)
    axis = 0 if isinstance(s.op, Conv) or s.op.trans_b else 1
    if not isinstance(s.op, Conv) or s.op.group == 1:
        # the window is the same for every output channel
        shape[axis] = 1
    return total, e.add(s.op, s.x.name, e.const(np.ones(shape, np.int8), I8))


def _sum_of_groups(e: Edit, s: _Sum, groups: Groups) -> str:
    """The sum over groups of inputs, each a product times its multiples; int64 where it is wide."""
    assert isinstance(s.op, MatMul)
    low_first = digits(e, s.x) if s.x.type.dtype == I16 else (s.x.name,)
    weight = s.weights.codes if s.op.trans_b else s.weights.codes.T
    shape, dtype = s.x.type.shape, I64 if s.wide else I32
    total = "" if s.bias is None else e.const(s.bias.astype(dtype.numpy), dtype)
    for g, multiples in enumerate(groups.multiples):
        at = g * groups.size
        count = min(groups.size, shape[-1] - at)
        part = Slice((*(0,) * (len(shape) - 1), at), (*shape[:-1], count), (1,) * len(shape))
        own = weight[:, at : at + count]
        codes = e.const(np.ascontiguousarray(own if s.op.trans_b else own.T), I8)
        sums = [e.add(s.op, e.add(part, x), codes) for x in low_first]
        one, *more = (lane.cast(lane.Arg(i, I32), dtype) for i in range(len(sums)))
        for high in more:
            one = lane.call("add", one, lane.call("mul", high, lane.Imm(256, dtype)))
        scaled_sum = lane.call("mul", one, lane.Arg(len(sums), dtype))
        operands = [*sums, e.const(multiples.astype(dtype.numpy), dtype)]
        if total:
            scaled_sum = lane.call("add", scaled_sum, lane.Arg(len(operands), dtype))
            operands.append(total)
        total = e.add(Lane(scaled_sum), *operands)
    return total


def digits(e: Edit, x: Codes) -> tuple[str, str]:
    """(l uint8, h int8) of 16-bit codes, x = 256 h + l."""
    return e.add(Lane(LOW), x.name), e.add(Lane(HIGH), x.name)


def _value(s: _Sum, *, wide: bool = False) -> lane.Expr:
    """The sum from what `_emit_sum` names, in int32 where it fits unless it shall be ``wide``."""
    dtype = I64 if s.wide or wide else I32
    if s.weights.groups is not None:
        return lane.Arg(0, dtype)
    total, rest = (lane.cast(lane.Arg(i, I32), dtype) for i in range(2))
    if s.terms == 1:
        return total
    factor = 256 if s.x.type.dtype == I16 else s.weights.offset
    return lane.call("add", total, lane.call("mul", rest, lane.Imm(factor, dtype)))


def _along_channels(op: Conv | MatMul, values: Array, rank: int) -> Array:
    """Values per output channel, shaped to broadcast to the output."""
    first = isinstance(op, Conv) and not op.channels_last
    return values.reshape(-1, *(1,) * (rank - 2)) if first else values


def _litert(m: Match, n: Node, s: _Sum, t: Target, constants: Constants) -> lane.Expr | Reject:
    """The codes of a sum as LiteRT rounds them."""
    conv, wide = isinstance(s.op, Conv), s.x.type.dtype == I16
    if wide != (t.grid.dtype == I16):
        return Reject("LiteRT multiplies codes of one width")
    if wide and s.bias is not None and m.producer(n.inputs[2], Dequantize) is None:
        return Reject("its bias is no constant of 64 bits")
    weights = m.producer(n.inputs[1], Dequantize)
    assert weights is not None and isinstance(weights.op, Dequantize)
    long = wide and (conv or s.bias is not None)
    double = long or ((conv or not weights.op.quant.per_tensor) and s.x.type.dtype != U8)
    rank = m.type(t.node.outputs[0]).rank
    steps = litert.sum_ratio(s.x.scale, s.weights.scale, t.scale, double=double)
    ratio, reach = (_along_channels(s.op, v, rank) for v in (steps, s.reach))
    if long:
        bits = 16 if conv else 31
        value = _value(s, wide=True)
        return litert.requantized_wide(value, reach, ratio, t.grid, constants, bits=bits)
    if s.wide:
        return Reject("LiteRT would wrap")
    away = litert.is_depthwise(s.op)
    return litert.requantized(_value(s), reach, ratio, t.grid, constants, away=away)


def sums(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    s = _sum_of(m, n)
    if isinstance(s, Reject):
        return s
    if m.only_user(t.source) is None:
        return Reject("its float result is used elsewhere")
    y = t.node.outputs[0]
    constants = Constants(s.terms)
    if scheme == "tflite" and s.weights.groups is not None:
        return Reject("LiteRT has no weights per group")
    if scheme == "tflite":
        expr = _litert(m, n, s, t, constants)
    else:
        ratio = _along_channels(s.op, s.unit / t.scale, m.type(y).rank)
        expr = scaled(scheme, _value(s), ratio, t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    e = Edit(m, n.origin)
    e.add(Lane(expr), *_emit_sum(e, s), *map(e.const, constants.arrays), y=y)
    return e.done(t.node)


def float_result(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a sum of products of codes whose result is used as float."""
    if not isinstance(n.op, Conv | MatMul) or codes_of(m, n.inputs[0]) is None:
        return None
    s = _sum_of(m, n)
    if isinstance(s, Reject):
        return s
    y = n.outputs[0]
    constants = Constants(s.terms)
    unit = _along_channels(s.op, s.unit, m.type(y).rank)
    expr = lane.call("mul", lane.cast(_value(s), F32), constants.take(unit, F32))
    e = Edit(m, n.origin)
    e.add(Lane(expr), *_emit_sum(e, s), *map(e.const, constants.arrays), y=y)
    return e.done(n)


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
