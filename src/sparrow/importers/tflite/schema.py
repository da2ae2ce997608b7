"""The published .tflite schema as data: operators, element types and options.

Only what is imported has a row. Field numbers are those of ``schema.fbs``, which never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sparrow.tensor import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    I4,
    I8,
    I16,
    I32,
    I64,
    U4,
    U8,
    U16,
    U32,
    U64,
    DType,
)

MAGIC = b"TFL3"
VERSION = 3
CUSTOM = 32

# fmt: off
OPERATORS: Mapping[int, str] = dict(enumerate((
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE",
    "DEQUANTIZE", "EMBEDDING_LOOKUP", "FLOOR", "FULLY_CONNECTED", "HASHTABLE_LOOKUP",
    "L2_NORMALIZATION", "L2_POOL_2D", "LOCAL_RESPONSE_NORMALIZATION", "LOGISTIC",
    "LSH_PROJECTION", "LSTM", "MAX_POOL_2D", "MUL", "RELU", "RELU_N1_TO_1", "RELU6", "RESHAPE",
    "RESIZE_BILINEAR", "RNN", "SOFTMAX", "SPACE_TO_DEPTH", "SVDF", "TANH", "CONCAT_EMBEDDINGS",
    "SKIP_GRAM", "CALL", "CUSTOM", "EMBEDDING_LOOKUP_SPARSE", "PAD",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "GATHER", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND",
    "TRANSPOSE", "MEAN", "SUB", "DIV", "SQUEEZE", "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "STRIDED_SLICE", "BIDIRECTIONAL_SEQUENCE_RNN", "EXP", "TOPK_V2", "SPLIT", "LOG_SOFTMAX",
    "DELEGATE", "BIDIRECTIONAL_SEQUENCE_LSTM", "CAST", "PRELU", "MAXIMUM", "ARG_MAX", "MINIMUM",
    "LESS", "NEG", "PADV2", "GREATER", "GREATER_EQUAL", "LESS_EQUAL", "SELECT", "SLICE", "SIN",
    "TRANSPOSE_CONV", "SPARSE_TO_DENSE", "TILE", "EXPAND_DIMS", "EQUAL", "NOT_EQUAL", "LOG", "SUM",
    "SQRT", "RSQRT", "SHAPE", "POW", "ARG_MIN", "FAKE_QUANT", "REDUCE_PROD", "REDUCE_MAX", "PACK",
    "LOGICAL_OR", "ONE_HOT", "LOGICAL_AND", "LOGICAL_NOT", "UNPACK", "REDUCE_MIN", "FLOOR_DIV",
    "REDUCE_ANY", "SQUARE", "ZEROS_LIKE", "FILL", "FLOOR_MOD", "RANGE",
    "RESIZE_NEAREST_NEIGHBOR", "LEAKY_RELU", "SQUARED_DIFFERENCE", "MIRROR_PAD", "ABS", "SPLIT_V",
    "UNIQUE", "CEIL", "REVERSE_V2", "ADD_N", "GATHER_ND", "COS", "WHERE", "RANK", "ELU",
    "REVERSE_SEQUENCE", "MATRIX_DIAG", "QUANTIZE", "MATRIX_SET_DIAG", "ROUND", "HARD_SWISH", "IF",
    "WHILE", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "SCATTER_ND", "SELECT_V2",
    "DENSIFY", "SEGMENT_SUM", "BATCH_MATMUL", "PLACEHOLDER_FOR_GREATER_OP_CODES", "CUMSUM",
    "CALL_ONCE", "BROADCAST_TO", "RFFT2D", "CONV_3D", "IMAG", "REAL", "COMPLEX_ABS", "HASHTABLE",
    "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE", "REDUCE_ALL", "CONV_3D_TRANSPOSE",
    "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "BROADCAST_ARGS", "RANDOM_STANDARD_NORMAL",
    "BUCKETIZE", "RANDOM_UNIFORM", "MULTINOMIAL", "GELU", "DYNAMIC_UPDATE_SLICE", "RELU_0_TO_1",
    "UNSORTED_SEGMENT_PROD", "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_SUM", "ATAN2",
    "UNSORTED_SEGMENT_MIN", "SIGN", "BITCAST", "BITWISE_XOR", "RIGHT_SHIFT",
)))
DTYPES: Mapping[int, DType] = {
    0: F32, 1: F16, 2: I32, 3: U8, 4: I64, 6: BOOL, 7: I16, 9: I8, 10: F64, 12: U64, 15: U32,
    16: U16, 17: I4, 18: BF16, 20: U4,
}
UNREAD_TYPES = {5: "string", 8: "complex64", 11: "complex128", 14: "variant", 19: "int2",
                21: "float8", 22: "float8"}
# fmt: on
# Element types of the indices of a sparse tensor.
INDICES: Mapping[int, str] = {1: "<i4", 2: "<u2", 3: "u1"}
# Which variable a tensor stands for.
RESOURCE = 13


class Field(NamedTuple):
    """An option: its field number, `struct` code (``"v"``: a list of int32, ``"s"``: a string) and
    default.
    """

    number: int
    code: str
    default: float = 0


class Layout(NamedTuple):
    """The options table of an operator: its number in the union and its fields by name."""

    number: int
    fields: Mapping[str, Field]


def _layout(number: int, **fields: tuple[int, str] | tuple[int, str, float]) -> Layout:
    return Layout(number, {k: Field(*v) for k, v in fields.items()})


_STRIDES: dict[str, Any] = {"padding": (0, "b"), "stride_w": (1, "i"), "stride_h": (2, "i")}
_POOL = _layout(5, **_STRIDES, filter_w=(3, "i"), filter_h=(4, "i"), activation=(5, "b"))
_REDUCER = _layout(27, keep_dims=(0, "?"))
OPTIONS: Mapping[str, Layout] = {
    "ADD": _layout(11, activation=(0, "b"), shifts=(1, "?", True)),
    "ARG_MAX": _layout(40, output_type=(0, "b")),
    "ARG_MIN": _layout(57, output_type=(0, "b")),
    "AVERAGE_POOL_2D": _POOL,
    "BATCH_MATMUL": _layout(101, adj_x=(0, "?"), adj_y=(1, "?")),
    "CALL_ONCE": _layout(103, subgraph=(0, "i")),
    "CONCATENATION": _layout(10, axis=(0, "i"), activation=(1, "b")),
    "CONV_2D": _layout(
        1, **_STRIDES, activation=(3, "b"), dilation_w=(4, "i", 1), dilation_h=(5, "i", 1)
    ),
    "CUMSUM": _layout(102, exclusive=(0, "?"), reverse=(1, "?")),
    "DEPTH_TO_SPACE": _layout(94, block=(0, "i")),
    "DEPTHWISE_CONV_2D": _layout(
        2, **_STRIDES, activation=(4, "b"), dilation_w=(5, "i", 1), dilation_h=(6, "i", 1)
    ),
    "DIV": _layout(29, activation=(0, "b")),
    "FAKE_QUANT": _layout(58, min=(0, "f"), max=(1, "f"), bits=(2, "i"), narrow=(3, "?")),
    "FULLY_CONNECTED": _layout(
        8, activation=(0, "b"), weights_format=(1, "b"), keep_num_dims=(2, "?"), sum_type=(4, "b")
    ),
    "GATHER": _layout(23, axis=(0, "i"), batch_dims=(1, "i")),
    "GELU": _layout(116, approximate=(0, "?")),
    "IF": _layout(92, then=(0, "i"), otherwise=(1, "i")),
    "L2_NORMALIZATION": _layout(12, activation=(0, "b")),
    "L2_POOL_2D": _POOL,
    "LEAKY_RELU": _layout(75, alpha=(0, "f")),
    "MAX_POOL_2D": _POOL,
    "MEAN": _REDUCER,
    "MIRROR_PAD": _layout(77, mode=(0, "b")),
    "MUL": _layout(21, activation=(0, "b")),
    "ONE_HOT": _layout(61, axis=(0, "i")),
    "PACK": _layout(59, count=(0, "i"), axis=(1, "i")),
    "REDUCE_ALL": _REDUCER,
    "REDUCE_ANY": _REDUCER,
    "REDUCE_MAX": _REDUCER,
    "REDUCE_MIN": _REDUCER,
    "REDUCE_PROD": _REDUCER,
    "RESHAPE": _layout(17, new_shape=(0, "v")),
    "RESIZE_BILINEAR": _layout(15, align_corners=(2, "?"), half_pixel=(3, "?")),
    "RESIZE_NEAREST_NEIGHBOR": _layout(74, align_corners=(0, "?"), half_pixel=(1, "?")),
    "SHAPE": _layout(55, out_type=(0, "b")),
    "SOFTMAX": _layout(9, beta=(0, "f")),
    "SPACE_TO_DEPTH": _layout(19, block=(0, "i")),
    "SQUEEZE": _layout(30, axes=(0, "v")),
    "STRIDED_SLICE": _layout(
        32,
        begin_mask=(0, "i"),
        end_mask=(1, "i"),
        ellipsis_mask=(2, "i"),
        new_axis_mask=(3, "i"),
        shrink_axis_mask=(4, "i"),
        offset=(5, "?"),
    ),
    "SUB": _layout(28, activation=(0, "b"), shifts=(1, "?", True)),
    "SUM": _REDUCER,
    "SVDF": _layout(6, rank=(0, "i"), activation=(1, "b")),
    "TRANSPOSE_CONV": _layout(49, **_STRIDES, activation=(3, "b")),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _layout(
        71,
        activation=(0, "b"),
        cell_clip=(1, "f"),
        projection_clip=(2, "f"),
        time_major=(3, "?"),
        diagonal=(5, "?"),
    ),
    "UNPACK": _layout(64, count=(0, "i"), axis=(1, "i")),
    "VAR_HANDLE": _layout(111, container=(0, "s"), name=(1, "s")),
}
# Options that name another subgraph.
SUBGRAPHS: Mapping[str, tuple[str, ...]] = {
    "CALL_ONCE": ("subgraph",),
    "IF": ("then", "otherwise"),
}
