"""How far a native step may be from the NumPy reference: one row per op, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from sparrow.evidence import bounds
from sparrow.evidence.bounds import Judge
from sparrow.graph import Op
from sparrow.ops.attention import Attention
from sparrow.ops.attention_codes import AttentionCodes
from sparrow.ops.bitcast import BitCast
from sparrow.ops.compress import Compress
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.deform_conv import DeformConv
from sparrow.ops.det import Det
from sparrow.ops.gather import Gather
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.grid_sample import GridSample
from sparrow.ops.gru import GRU
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.lookup_linear import LookupLinear
from sparrow.ops.lstm import LSTM
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.matmul import MatMul
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.normalize import LocalResponse, Normalize
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Resize
from sparrow.ops.rnn import RNN
from sparrow.ops.roi import RoiAlign, RoiPool
from sparrow.ops.scatter import ScatterElements, ScatterND
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.ops.softmax_codes import SoftmaxCodes
from sparrow.ops.topk import TopK
from sparrow.ops.transpose import Transpose
from sparrow.ops.unique import Unique
from sparrow.ops.unpool import Unpool


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A row: the ops it is for, how the bound is computed, and why it is that."""

    ops: tuple[type[Op], ...]
    judge: Judge
    reason: str


TOLERANCES: tuple[Tolerance, ...] = (
    Tolerance(
        (
            *(ArgReduce, BitCast, Compress, Concat, Expand, Gather, GatherElements, GatherND),
            *(AttentionCodes, Dequantize, GRUCodes, LSTMCodes, Lookup, LookupLinear, Quantize),
            *(SoftmaxCodes,),
            *(NonMaxSuppression, NonZero, Pad, Reshape, Slice, TopK, Transpose, Unique, Unpool),
        ),
        bounds.exact,
        "moves, compares or counts values, or rounds once and correctly",
    ),
    Tolerance(
        (Lane,),
        bounds.lane,
        "running error analysis of the expression with the ULPs of each function",
    ),
    Tolerance(
        (Conv,),
        bounds.conv,
        "a sum of K products in any order errs by at most (K+2) u (|x| * |w|), then the epilogue",
    ),
    Tolerance((ConvTranspose,), bounds.conv_transpose, "as Conv, K channels times taps"),
    Tolerance((MatMul,), bounds.matmul, "as Conv, K the inner extent"),
    Tolerance(
        (Softmax,),
        bounds.softmax,
        "exp's argument errs by u |x - max|, the sum by n u, each relative to the result",
    ),
    Tolerance(
        (Reduce,), bounds.reduce, "a sum of n terms errs by (n+2) u sum|x|; max and min are exact"
    ),
    Tolerance((Cumulate,), bounds.cumulate, "as Reduce, n the extent of the axis"),
    Tolerance((Pool,), bounds.pool, "as Reduce over the window; maxima are exact"),
    Tolerance(
        (Normalize,),
        bounds.normalize,
        "errors of the mean and the variance, carried through to the result",
    ),
    Tolerance(
        (ScatterElements, ScatterND),
        bounds.scatter,
        "adds or multiplies at most every update; else exact",
    ),
    Tolerance(
        (
            *(DeformConv, Det, GRU, GridSample, LSTM, LocalResponse, RNN),
            *(RoiAlign, RoiPool),
        ),
        bounds.refined,
        "its conditioning differs: 8 times the reference's own distance from double precision",
    ),
    Tolerance(
        (Attention,),
        bounds.attention,
        "as GRU; over bfloat16 a weight that is a tie but for rounding errors may round either way",
    ),
    Tolerance(
        (Resize,),
        bounds.resize,
        "as GRU; 32 and 64-bit integers are sums of K products in double, truncated",
    ),
)
_BY_OP = {op: row for row in TOLERANCES for op in row.ops}
# Kernel rows that do not sum term by term.
_BY_KERNEL = {
    "winograd_f32": Tolerance(
        (Conv,),
        bounds.winograd,
        "running error analysis of the transforms of F(4x4, 3x3), then the epilogue",
    ),
    "winograd_raw_f32": Tolerance(
        (Conv,),
        bounds.winograd_raw,
        "the same, of the transform of the weights as well",
    ),
    "winograd_stream_f32": Tolerance(
        (Conv,),
        bounds.winograd_raw,
        "as winograd_raw_f32: sums are scaled by their quotients, weights take fewer roundings",
    ),
}


def tolerance_of(op: Op, kernel: str = "") -> Tolerance:
    """The row of an op that a kernel row computes.

    A user's own op gets the last one, which assumes nothing.
    """
    if kernel in _BY_KERNEL:
        return _BY_KERNEL[kernel]
    return _BY_OP.get(type(op), TOLERANCES[-1])
