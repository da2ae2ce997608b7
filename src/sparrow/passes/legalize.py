"""Let ops that have kernels for float32 only compute half types in it.

    before   y = Conv(x, w)                                    float16
    after    y = half(Conv(float(x), float(w)))                constants become float32 here and now

Sums of half values are taken in float32 anyway; what changes is that the result is rounded once,
where an op defines several roundings. Movement and elementwise chains stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Op
from sparrow.ops.attention import Attention
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.deform_conv import DeformConv
from sparrow.ops.det import Det
from sparrow.ops.grid_sample import GridSample
from sparrow.ops.gru import GRU
from sparrow.ops.lane import Lane
from sparrow.ops.lstm import LSTM
from sparrow.ops.matmul import MatMul
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.normalize import LocalResponse, Normalize
from sparrow.ops.pool import Pool
from sparrow.ops.reduce import Reduce
from sparrow.ops.resize import Resize
from sparrow.ops.rnn import RNN
from sparrow.ops.roi import RoiAlign, RoiPool
from sparrow.ops.softmax import Softmax
from sparrow.rewrite import Match, Rewrite
from sparrow.tensor import BF16, F16, F32, DType

HALVES = (F16, BF16)
# Those without a half kernel, and those whose half kernel goes element by element.
WIDENED: tuple[type[Op], ...] = (
    Attention,
    Conv,
    ConvTranspose,
    DeformConv,
    Det,
    GridSample,
    GRU,
    LocalResponse,
    LSTM,
    MatMul,
    NonMaxSuppression,
    Normalize,
    Pool,
    Reduce,
    Resize,
    RNN,
    RoiAlign,
    RoiPool,
    Softmax,
)


def computes_in(op: Op, dtype: DType) -> DType:
    """The type whose kernels compute ``op`` on operands of ``dtype``."""
    if dtype not in HALVES or not isinstance(op, WIDENED):
        return dtype
    moves = isinstance(op, Resize) and op.mode == "nearest"
    return dtype if moves else F32


def legalize(m: Match, n: Node) -> Rewrite | None:
    """Match an op with an operand of a type it has no kernel for."""
    if getattr(n.op, "epilogue", None) is not None:
        return None
    new: list[Node] = []
    consts = {}
    inputs = list(n.inputs)
    types = [m.type(x) if x else None for x in n.inputs]
    for i, (x, t) in enumerate(zip(n.inputs, types, strict=True)):
        if t is None or (to := computes_in(n.op, t.dtype)) == t.dtype:
            continue
        inputs[i] = m.fresh()
        types[i] = replace(t, dtype=to)
        value = m.const(x)
        if value is not None:
            consts[inputs[i]] = np.asarray(lane.convert(value, to.numpy))
        else:
            new.append(_cast(t.dtype, to, x, inputs[i], n))
    if inputs == list(n.inputs):
        return None
    outputs = list(n.outputs)
    back: list[Node] = []
    for i, (y, t) in enumerate(zip(n.outputs, n.op.infer(*types), strict=True)):
        if y and t.dtype != (old := m.type(y).dtype):
            outputs[i] = m.fresh()
            back.append(_cast(t.dtype, old, outputs[i], y, n))
    middle = Node(n.op, tuple(inputs), tuple(outputs), n.origin)
    return Rewrite((*new, middle, *back), (n,), consts=consts)


def _cast(old: DType, to: DType, x: str, y: str, n: Node) -> Node:
    return Node(Lane(lane.cast(lane.Arg(0, old), to)), (x,), (y,), n.origin)
