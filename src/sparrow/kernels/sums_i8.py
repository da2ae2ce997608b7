"""Convolutions and products of codes with constant int8 weights, as their rows see them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sparrow import lane
from sparrow.kernels.case import Case, Epilogue, Pack, Reject, Tensor, row_stride
from sparrow.kernels.conv import window_of
from sparrow.kernels.conv_any import put_of
from sparrow.kernels.conv_forms import groups_together, in_a_row
from sparrow.kernels.epilogue import SUM_RESULTS, epilogue_of
from sparrow.kernels.packing_i8 import start_of
from sparrow.kernels.params_f32 import Conv2dShape
from sparrow.kernels.tiles_matrix import SIGNED, UNSIGNED
from sparrow.kernels.tiling_i8 import Bytes
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.sums import CODES
from sparrow.tensor import I8, I16, I32, U8, Array, DType

QUAD = 4  # channels that a product takes at least


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """A sum over codes.

    Attributes:
        shape: As a convolution; of a depthwise one groups are the channels.
        weights: OIHW.
        bias: One int32 for each output channel.
        code: How the input is read.
        zero: Its zero point as the dot product sees it.
        epilogue: What becomes of the sums.
    """

    shape: Conv2dShape
    weights: Array
    bias: Array | None
    code: Bytes
    zero: int
    epilogue: Epilogue

    def start(self, lanes: int) -> Pack:
        """Where sums begin, int32 [groups, channels of a group rounded up to whole vectors].

        Those of a depthwise convolution are [1, channels rounded up].
        """
        c = self.weights.shape[0]
        groups = 1 if self.shape.groups == self.shape.ci else self.shape.groups
        each = -(-c // groups // lanes) * lanes
        flat = self.weights.reshape(c, -1)
        return Pack(
            (groups, each),
            np.dtype(np.int32),
            lambda: start_of(flat.sum(1, dtype=np.int64), self.bias, self.zero, groups, lanes),
        )


def conv2d_sum(
    case: Case,
    either: bool = False,
    unsigned: bool | None = None,
    upright: bool = False,
    small: bool = False,
    halves: bool = False,
) -> Sum | Reject:
    """A convolution, or the product with a constant matrix: 1x1 over the rows of a.

    ``either``: the kernel multiplies signed bytes as well as unsigned ones. ``unsigned``: what it
    takes, if not what others do. ``upright``: the window stays that of the convolution.
    ``small``: weights that are 0 are worth their room only where a product needs them.
    ``halves``: codes have 16 bits, not eight, and sizes count elements all the same.
    """
    op = case.op
    assert isinstance(op, Conv | MatMul)
    given = _operands(case, halves)
    if isinstance(given, Reject):
        return given
    x, w, bias = given
    found = _conv_shape(case, op, x, w) if isinstance(op, Conv) else _product_shape(case, op, x, w)
    if isinstance(found, Reject):
        return found
    s, taps = found
    # strips of rows share code, which those of columns would not
    if isinstance(op, Conv) and s.groups == 1 and not (upright or case.target.machine.bare):
        s, taps = in_a_row(s, taps)
    if bias is not None:
        bias = np.tile(bias, parts_of(case))
    enough = small and s.ci // s.groups >= QUAD
    if not (enough or case.target.machine.bare):
        s, taps = groups_together(s, taps, case.target.isa.lanes, QUAD)
    if s.groups > 1 and s.ci // s.groups < QUAD:
        return Reject("groups of fewer than four channels")
    if unsigned is None:
        unsigned = x.type.dtype == U8 if either else case.target.isa.dot_unsigned
    return _sum(case, s, np.ascontiguousarray(taps), bias, unsigned)


def in_bytes(s: Conv2dShape) -> Conv2dShape:
    """Of codes of 16 bits the same image, whose channels are bytes."""
    return replace(s, ci=2 * s.ci, xn=2 * s.xn, xh=2 * s.xh, xw=2 * s.xw)


def depthwise_sum(case: Case, unsigned: bool | None = None, halves: bool = False) -> Sum | Reject:
    """A convolution of each channel by itself; ``unsigned``: the bytes that products take.

    ``halves``: as of `conv2d_sum`.
    """
    op = case.op
    assert isinstance(op, Conv)
    given = _operands(case, halves)
    if isinstance(given, Reject):
        return given
    x, w, bias = given
    if op.group != x.shape[-1] or w.shape[0] != x.shape[-1]:
        return Reject("not depthwise with one output per channel")
    found = _conv_shape(case, op, x, w)
    if unsigned is None:
        unsigned = case.target.isa.dot_unsigned and not case.target.isa.engine
    return found if isinstance(found, Reject) else _sum(case, *found, bias, unsigned)


def one_column(s: Conv2dShape, w: Array) -> tuple[Conv2dShape, Array]:
    """A single window over places of the image, equally far apart, as a column of them.

    Four rows of taps are multiplied at once, and columns are unrolled: a mean over a thousand
    places of a signal would be a thousand instructions, a quarter of whose products count.
    """
    step = s.dw * s.xw
    even = s.kh == 1 or s.dh * s.xh == s.kw * step
    inside = (s.kh - 1) * s.dh < s.ih and (s.kw - 1) * s.dw < s.iw
    if not even or not inside or s.kw == 1 or (s.oh, s.ow, s.pt, s.pl) != (1, 1, 0, 0):
        return s, w
    taps = s.kh * s.kw
    one = dict.fromkeys(("iw", "kw", "sh", "sw", "dh", "dw"), 1)
    column = replace(s, **one, ih=taps, kh=taps, xh=step)
    return column, w.reshape(*w.shape[:2], taps, 1)


def _operands(case: Case, halves: bool) -> tuple[Tensor, Array, Array | None] | Reject:
    """(x, int8 weights, int32 bias); x of 16 bits or of eight."""
    if isinstance(case.op, Conv) and not case.op.channels_last:
        return Reject("channels are not last")
    x, w = case.x[0], case.x[1]
    assert x is not None and w is not None
    if x.type.dtype not in ((I16,) if halves else CODES) or w.type.dtype != I8:
        return Reject(f"{x.type.dtype} x {w.type.dtype}")
    if w.const is None or (isinstance(case.op, MatMul) and case.op.zero_b):
        return Reject("weights are not constant, or have a zero point")
    b = case.x[2] if len(case.x) > 2 else None
    if b is not None and (b.const is None or b.type.dtype != I32):
        return Reject("the bias is not constant int32")
    return x, w.const, None if b is None else b.const


def _conv_shape(
    case: Case, op: Conv, x: Tensor, weights: Array
) -> tuple[Conv2dShape, Array] | Reject:
    if x.strides[-1] != 1 and x.shape[-1] > 1:
        return Reject("input channels are not adjacent")
    window = window_of(case, weights.shape[2:], op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    s = Conv2dShape(**window, ci=x.shape[-1], co=weights.shape[0], groups=op.group)
    o, i, *kernel = weights.shape
    return s, weights if len(kernel) == 2 else weights.reshape(o, i, 1, *kernel)


def _product_shape(
    case: Case, op: MatMul, a: Tensor, b: Array
) -> tuple[Conv2dShape, Array] | Reject:
    parts = parts_of(case)
    if op.trans_a or (b.ndim != 2 and parts == 1):
        return Reject("a is transposed, or b is no matrix")
    y = case.y[0] if parts == 1 else _part(case.y[0])
    lda, ldy = row_stride(a), row_stride(y)
    if lda is None or ldy is None:
        return Reject("rows are not equally spaced")
    if 0 in y.shape or 0 in a.shape:
        return Reject("empty operands")
    w = np.ascontiguousarray(b if op.trans_b else np.swapaxes(b, -1, -2))
    rows = math.prod(a.shape[:-1])
    w = w.reshape(-1, w.shape[-1])
    n, k = w.shape
    s = Conv2dShape(
        ih=1, iw=rows, oh=1, ow=rows, kh=1, kw=1, xn=0, xh=0, xw=lda, ldy=ldy, ci=k, co=n
    )
    return s, w.reshape(n, k, 1, 1)


def parts_of(case: Case) -> int:
    """Matrices that a product of one matrix with several constant ones has; 1 of anything else.

    They are a product with all of their columns, which lie in so many parts.
    """
    a, b = case.x[0], case.x[1]
    assert a is not None and b is not None
    one = isinstance(case.op, MatMul) and b.type.rank > 2 and math.prod(a.shape[:-2]) == 1
    return b.shape[-3] if one and math.prod(b.shape[:-3]) == 1 else 1


def _part(y: Tensor) -> Tensor:
    """The first of the products."""
    return Tensor(replace(y.type, shape=y.shape[-2:]), y.strides[-2:])


def _in_one(case: Case) -> Case | None:
    """A product in parts as one whose columns are adjacent; None where operands do not allow it."""
    y, parts = case.y[0], parts_of(case)
    columns = parts * y.shape[-1]
    x = list(case.x)
    for i, t in enumerate(case.x[3:], 3):
        if t is None or t.type.size == 1:
            continue
        shape = (1,) * (3 - t.type.rank) + t.shape
        if shape[-3:] != (parts, 1, y.shape[-1]) or t.type.size != columns or not t.contiguous:
            return None
        x[i] = replace(t, type=replace(t.type, shape=(columns,)), strides=(1,))
    whole = Tensor(replace(y.type, shape=(y.shape[-2], columns)), (columns, 1))
    return replace(case, x=tuple(x), y=(whole,))


def _own_bias(
    case: Case, expr: lane.Expr | None, bias: Array | None
) -> tuple[lane.Expr | None, Array | None]:
    """An epilogue without the constants it first adds to the sums, which join their bias."""
    for i, t in enumerate(case.x[3:], 1):
        if t is None or t.const is None or t.type.dtype != I32 or expr is None:
            continue
        added = lane.call("add", lane.Arg(0, I32), lane.Arg(i, I32))
        rest = lane.replaced(expr, added, lane.Arg(-1, I32))
        if not {lane.Arg(0, I32), lane.Arg(i, I32)} & set(lane.walk(rest)):
            values = np.broadcast_to(np.ravel(t.const), case.y[0].shape[-1:])
            bias = values if bias is None else bias + values
            expr = lane.replaced(rest, lane.Arg(-1, I32), lane.Arg(0, I32))
    return expr, bias


def _sum(case: Case, s: Conv2dShape, w: Array, bias: Array | None, unsigned: bool) -> Sum | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Conv | MatMul) and x is not None
    if y.type.dtype not in SUM_RESULTS:
        return Reject(f"results of {y.type.dtype}")
    parts, seen, expr = parts_of(case), case, op.epilogue
    if parts > 1:
        in_one = _in_one(case)
        if in_one is None or y.shape[-1] < case.target.isa.lanes:
            return Reject("operands do not lie as the columns of the parts do, or these are short")
        seen = in_one
        expr, bias = _own_bias(seen, expr, bias)
    ep = epilogue_of(seen, expr, None, 3)
    if isinstance(ep, Reject):
        return ep
    flip = (x.type.dtype == U8) != unsigned
    zero = op.zero + (0 if not flip else 128 if unsigned else -128)
    code = Bytes(flip, zero & 255, put_of(y.type.dtype), kind=UNSIGNED if unsigned else SIGNED)
    if parts > 1:
        code = replace(code, part=y.shape[-1], ldp=y.strides[-3])
    reach = _reach(x.type.dtype, op.zero, w, bias)
    ep = replace(ep, reach=reach, shortens=case.target.isa.shortens)
    if ep.shortens and any(e.row_stride and e.col_stride for e in ep.extras):
        code = replace(code, each=True)
    return Sum(s, w, bias, code, zero, ep)


def _reach(dtype: DType, zero: int, w: Array, bias: Array | None) -> int:
    """Magnitude of a sum, at most."""
    least, most = dtype.limits
    sums = np.abs(w.astype(np.int64)).reshape(w.shape[0], -1).sum(1) * max(
        most - zero, zero - least
    )
    if bias is not None:
        sums += np.abs(bias.astype(np.int64))
    return int(sums.max(initial=0))
