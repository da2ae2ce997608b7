"""Operators of the Graph, one file each; ``OPS`` is all of them."""

from __future__ import annotations

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

OPS: tuple[type[Op], ...] = (
    ArgReduce,
    Attention,
    AttentionCodes,
    BitCast,
    Compress,
    Concat,
    Conv,
    ConvTranspose,
    Cumulate,
    DeformConv,
    Dequantize,
    Det,
    Expand,
    GRU,
    GRUCodes,
    Gather,
    GatherElements,
    GatherND,
    GridSample,
    LSTM,
    LSTMCodes,
    Lane,
    LocalResponse,
    Lookup,
    LookupLinear,
    MatMul,
    NonMaxSuppression,
    NonZero,
    Normalize,
    Pad,
    Pool,
    Quantize,
    RNN,
    Reduce,
    Reshape,
    Resize,
    RoiAlign,
    RoiPool,
    ScatterElements,
    ScatterND,
    Slice,
    Softmax,
    SoftmaxCodes,
    TopK,
    Transpose,
    Unique,
    Unpool,
)
