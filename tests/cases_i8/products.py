"""Products of matrices of codes."""

from __future__ import annotations

import numpy as np

from cases_i8.case import Case
from drawn import Made
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.transpose import Transpose
from sparrow.tensor import I8


def matmul_case(seed: int, wide: bool = False) -> Made:
    c = Case(seed)
    m, n, k = (1, c.n(1, 33))[c.n(0, 1)], c.n(1, 90), c.n(1, 70)
    batch = (c.n(1, 3),) if c.flag() else ()
    trans_b = c.flag()
    x, _, zero = c.input((*batch, m, k), wide)
    w = c.weights((n, k) if trans_b else (k, n))
    return c.sum(MatMul(False, trans_b, zero=zero), x, w, c.bias(n), k, n)


def column_case(seed: int) -> Made:
    """One column, as zero points of weights take it: ones, or any weights."""
    c = Case(seed)
    rows, k = c.n(1, 43), 16 * c.n(1, 9)
    x, _, zero = c.input((1, rows, 2, k) if seed % 2 else (rows, k))
    ones = c.b.const(np.ones(k, np.int8).reshape((1, k, 1, 1) if seed % 2 else (k, 1)), I8)
    w = ones if c.flag() else c.weights((1, k, 1, 1) if seed % 2 else (k, 1))
    none = ((0, 0), (0, 0))
    conv = Conv((1, 1), (1, 1), none, 1, True, zero=zero)
    op = conv if seed % 2 else MatMul(False, False, zero=zero)
    bias = c.bias(1)
    return c.finish(c.b.add(op, *[v for v in (x, w, bias) if v]))


def parts_case(seed: int) -> Made:
    """One matrix times several constant ones, whose products lie apart."""
    c = Case(seed)
    parts, m, n, k = c.n(2, 4), c.n(1, 33), c.n(16, 90), c.n(1, 70)
    trans_b = c.flag()
    x, _, zero = c.input((1, 1, m, k) if c.flag() else (m, k))
    w = c.weights((parts, n, k) if trans_b else (parts, k, n))
    expr, extras = c.requantized(k, parts * n)
    shaped = [
        c.b.const(v.reshape(parts, 1, n) if v.size > 1 else v)
        for v in (c.b.consts[name] for name in extras)
    ]
    op = MatMul(False, trans_b, zero=zero, epilogue=expr)
    y = c.b.add(op, x, w, c.bias(n), *shaped)
    return c.finish(c.b.add(Concat(len(c.b.type(y).shape) - 1), y, y) if c.flag() else y)


def product_case(seed: int) -> Made:
    """Two operands known at run time, turned by views as heads are."""
    c = Case(seed)
    m, n, k, heads = (1, c.n(1, 19))[c.n(0, 1)], c.n(1, 70), c.n(1, 50), c.n(1, 3)
    trans_a, trans_b = c.flag(), c.flag()
    batch = (c.n(1, 2), heads)
    left = (k, m) if trans_a else (m, k)
    right = (n, k) if trans_b else (k, n)
    if c.flag():
        a, _, zero = c.input((batch[0], left[0], heads, left[1]))
        a = c.b.add(Transpose((0, 2, 1, 3)), a)
    else:
        a, _, zero = c.input((*batch, *left))
    b, _, zero_b = c.input((*(batch if c.flag() else ()), *right))
    op = MatMul(trans_a, trans_b, zero=zero, zero_b=zero_b)
    return c.sum(op, a, b, c.bias(n), k, n)
