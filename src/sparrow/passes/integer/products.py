"""Products of two matrices of codes that are both known at run time only.

before   y = Quantize(relu(MatMul(Dequantize(a), Dequantize(b))))
after    s = MatMul(a, b)         exact int32, zero points subtracted
         y = requantize(s)

before   y = MatMul(Dequantize(a), Dequantize(b))          used as float
after    y = float32(MatMul(a, b)) * s_a * s_b

Codes of 16 bits are two digits, x = 256 h + l with h int8 and l uint8, as in `sums`: the product of
two such is four products of bytes,

         s = 65536 MatMul(h_a, h_b) + 256 (MatMul(h_a, l_b) + MatMul(l_a, h_b)) + MatMul(l_a, l_b)

in int32. Where s may leave that, its last n bits are rounded off first,

         s' = floor((s + 2^(n-1)) / 2^n)

from the same int32 sums and in int32; or s is added in int64, where a step of y is so few units
that this would show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.passes import litert
from sparrow.passes.integer.codes import Codes, Edit, Target, codes_of
from sparrow.passes.integer.constants import bias_codes
from sparrow.passes.integer.sums import digits, sums
from sparrow.passes.requantize import Constants, scaled
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I16, I32, I64, Array

# Largest share of a step of the result that bits which are rounded off may be worth.
SHOWS = 0.25


@dataclass(frozen=True, slots=True)
class _Product:
    """A product of codes: op, operands, bias in units of the sum, and greatest magnitude."""

    op: MatMul
    a: Codes
    b: Codes
    bias: Array | None
    reach: int

    @property
    def unit(self) -> float:
        """What a unit of the sum is worth."""
        return self.a.scale * self.b.scale

    @property
    def spare(self) -> int:
        """Bits that have to go from the sum so that int32 holds it."""
        return max(0, int(self.reach).bit_length() - 31)

    @property
    def terms(self) -> int:
        """How many int32 sums the value is made of."""
        wide = (x.type.dtype == I16 for x in (self.a, self.b))
        return 1 << sum(wide)


def matmul(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    """A product with constant weights, or of two operands known at run time."""
    p = _product_of(m, n)
    if p is None:
        return sums(m, n, t, scheme)
    if isinstance(p, Reject):
        return p
    if m.only_user(t.source) is None:
        return Reject("its float result is used elsewhere")
    constants = Constants(p.terms)
    if scheme == "tflite":
        types = {x == I16 for x in (p.a.type.dtype, p.b.type.dtype, t.grid.dtype)}
        if len(types) > 1:
            return Reject("LiteRT multiplies codes of one width")
        each = np.asarray([p.b.scale])
        ratio = litert.sum_ratio(p.a.scale, each, t.scale, double=False)
        reach = np.asarray([p.reach])
        if types == {True}:
            value = _value(p, wide=True)
            expr = litert.requantized_wide(value, reach, ratio, t.grid, constants, bits=16)
        else:
            expr = litert.requantized(_value(p), reach, ratio, t.grid, constants, away=True)
    else:
        ratio = np.asarray(p.unit / t.scale)
        rounded = 2.0**p.spare * ratio <= SHOWS
        value = _rounded(p) if rounded else _value(p)
        factor = 2.0**p.spare if rounded else 1.0
        expr = scaled(scheme, value, ratio * factor, t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    return _emit(m, n, p, expr, constants, t.node.outputs[0]).done(t.node)


def float_product(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a product of two operands of codes whose result is used as float."""
    p = _product_of(m, n) if isinstance(n.op, MatMul) else None
    if p is None or isinstance(p, Reject):
        return p
    unit = lane.Imm(float(np.float32(p.unit * 2.0**p.spare)), F32)
    expr = lane.call("mul", lane.cast(_rounded(p), F32), unit)
    return _emit(m, n, p, expr, Constants(p.terms), n.outputs[0]).done(n)


def _product_of(m: Match, n: Node) -> _Product | Reject | None:
    """A product of two operands of codes; None where one is no codes or a matrix of weights."""
    op = n.op
    assert isinstance(op, MatMul)
    a, b = (codes_of(m, x) for x in n.inputs[:2])
    if a is None or b is None or (m.const(b.name) is not None and b.type.rank == 2):
        return None
    if op.epilogue is not None or len(n.inputs) > 3:
        return Reject("it has an epilogue already")
    if any(x.zero for x in (a, b) if x.type.dtype == I16):
        return Reject("16-bit codes with a zero point")
    unit = a.scale * b.scale
    if not unit > 0 or not np.isfinite(unit):
        return Reject("a scale is not positive and finite")
    bias: Array | None = None
    if len(n.inputs) > 2 and n.inputs[2]:
        columns = m.type(n.outputs[0]).shape[-1]
        given = bias_codes(m, n.inputs[2], np.full(columns, unit))
        if isinstance(given, Reject):
            return given
        bias = given
    k = a.type.shape[-2 if op.trans_a else -1]
    most = 0 if bias is None else int(np.abs(bias.astype(np.int64)).max(initial=0))
    # of digits, too, and of what rounding them adds: kernels may add offsets to bytes and take them
    # off again, which is exact
    whole = k * 255 * 255 + most + (1 << 15) < 1 << 31
    if not whole or (a.type.dtype == b.type.dtype == I16 and k >= 1 << 15):
        return Reject(f"sums of {k} products may leave int32")
    return _Product(op, a, b, bias, k * a.reach * b.reach + most)


def _value(p: _Product, *, wide: bool = False) -> lane.Expr:
    """The sum from the operands that `_emit` makes: int32, least digits first; in int32 where it
    fits, unless it shall be ``wide``.
    """
    dtype = I64 if wide or p.reach >= 1 << 31 else I32
    total = lane.cast(lane.Arg(0, I32), dtype)
    for i, shift in enumerate(_shifts(p)[1:], 1):
        term = lane.cast(lane.Arg(i, I32), dtype)
        total = lane.call("add", total, lane.call("mul", term, lane.Imm(1 << shift, dtype)))
    return total


def _rounded(p: _Product) -> lane.Expr:
    """The sum without its last ``p.spare`` bits, in int32; halves up."""
    if not p.spare:
        return _value(p)
    shifts = _shifts(p)
    low, *others = (lane.Arg(i, I32) for i in range(p.terms))
    within = [x for x, bits in zip(others, shifts[1:], strict=True) if bits < p.spare]
    if within:
        # floors nest: a shift that rounds, of half a unit less, is one that does not
        total: lane.Expr = lane.call("sub", low, lane.Imm(128, I32))
        total = lane.call("rshr", total, lane.Imm(8, I32))
        for x in within:
            total = lane.call("add", total, x)
        total = lane.call("rshr", total, lane.Imm(p.spare - 8, I32))
    else:
        total = lane.call("rshr", low, lane.Imm(p.spare, I32))
    for x, bits in zip(others, shifts[1:], strict=True):
        if bits >= p.spare:
            whole = lane.call("mul", x, lane.Imm(1 << (bits - p.spare), I32))
            total = lane.call("add", total, whole)
    return total


def _shifts(p: _Product) -> list[int]:
    """Bits that the terms are worth."""
    first, second = ((0, 8) if x.type.dtype == I16 else (0,) for x in (p.a, p.b))
    return [i + j for i in first for j in second]


def _emit(m: Match, n: Node, p: _Product, expr: lane.Expr, constants: Constants, y: str) -> Edit:
    """The products of digits and the expression over them."""
    e = Edit(m, n.origin)
    a, b = (digits(e, x) if x.type.dtype == I16 else (x.name,) for x in (p.a, p.b))
    op = replace(p.op, zero=p.a.zero, zero_b=p.b.zero)
    bias: tuple[str, ...] = () if p.bias is None else (e.const(p.bias, I32),)
    terms = []
    for left in a:
        for right in b:
            terms.append(e.add(op, left, right, *bias))
            bias = ()
    e.add(Lane(expr), *terms, *map(e.const, constants.arrays), y=y)
    return e
