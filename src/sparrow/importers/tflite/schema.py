"""The published .tflite schema as data: operators, element types, options, and how a file is read.

Only what is imported has a row. Field numbers are those of ``schema.fbs``, which never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparrow.errors import InvalidGraph, UnsupportedOp
from sparrow.importers.tflite.flatbuffer import File, Table
from sparrow.ops.quantize import affine
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
    Affine,
    Array,
    DType,
)

MAGIC = b"TFL3"
VERSION = 3
MAX_OPS = 200_000
MAX_RANK = 8
MAX_OPERANDS = 1 << 16
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
UNREAD_TYPES = {5: "string", 8: "complex64", 11: "complex128", 13: "resource", 14: "variant",
                19: "int2", 21: "float8", 22: "float8"}
# fmt: on
# What holds a variable, where the converter did not make it a constant.
_VARIABLE = (
    "freeze the variables: convert the trained network (TFLiteConverter.from_keras_model), or what "
    "convert_variables_to_constants_v2 makes of the function"
)


class Field(NamedTuple):
    """An option: its field number, `struct` code (``"v"``: a list of int32) and default."""

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
        8, activation=(0, "b"), weights_format=(1, "b"), keep_num_dims=(2, "?")
    ),
    "GATHER": _layout(23, axis=(0, "i"), batch_dims=(1, "i")),
    "GELU": _layout(116, approximate=(0, "?")),
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
}


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the file.

    Attributes:
        name: Its name, never empty.
        shape: Static extents; those that ``signature`` has as -1 are only one possibility.
        signature: Extents, -1 where dynamic.
        dtype: Element type.
        data: Bytes of a constant, None for what is computed.
        scale: float32, empty when not quantized.
        zero_point: As scale.
        axis: Axis of several scales.
        variable: Keeps its value from call to call.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: DType
    data: NDArray[np.uint8] | None
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    axis: int
    variable: bool

    @property
    def quantized(self) -> bool:
        """Whether its integers stand for real numbers."""
        return self.scale.size > 0 and self.dtype.kind in ("int", "uint")

    def affine(self, shape: tuple[int, ...]) -> Affine:
        """What its codes mean, for the shape it has; scales of weights may be negative.

        Raises:
            InvalidGraph: Scales or zero points are out of range, or fit no axis.
        """
        low, high = self.dtype.limits
        zero, scale = self.zero_point, self.scale
        if not np.isfinite(scale).all() or not low <= int(zero.min()) <= int(zero.max()) <= high:
            raise InvalidGraph(f"tensor {self.name!r}: a scale or zero point is out of range")
        # a scale of 0 stands for a channel of zeros
        scale = np.where(scale == 0, np.float32(1.0), scale)
        # several scales of a vector lie along its only axis whatever the file says
        return affine(scale, zero, shape, 0 if len(shape) == 1 else self.axis, 0)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of the file; inputs and outputs are tensor numbers, -1 where absent."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]
    intermediates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """The main subgraph of a file."""

    name: str
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


def read_model(data: bytes, name: str) -> Model:
    """Parse a file.

    Args:
        data: Its bytes.
        name: What messages call it.

    Raises:
        BadModel: It is malformed or beyond a limit.
        UnsupportedOp: It has element types or several subgraphs that are not read.
    """
    file = File(data, name)
    if data[4:8] != MAGIC:
        raise file.bad(f"bytes 4 to 8 are {data[4:8]!r}, expected {MAGIC!r}")
    root = file.root()
    if root.number(0, "I") != VERSION:
        raise file.bad(f"schema version {root.number(0, 'I')}, expected {VERSION}")
    graphs = root.tables(2, 1 << 10)
    if not graphs:
        raise file.bad("it has no subgraph")
    main = graphs[0]
    buffers = [_buffer(t, file) for t in root.tables(4, MAX_OPS * 4)]
    tensors: list[Tensor] = []
    taken: set[str] = set()
    for i, t in enumerate(main.tables(0, MAX_OPS * 4)):
        tensors.append(_tensor(t, i, buffers, file, taken))
    codes = [_code(t) for t in root.tables(1, MAX_OPS)]
    found = []
    for t in main.tables(3, MAX_OPS):
        k = t.number(0, "I")
        if k >= len(codes):
            raise file.bad(f"operator code {k} of {len(codes)}")
        found.append(_operator(t, codes[k], file))
    model = Model(
        main.text(4) or root.text(3),
        tuple(tensors),
        main.ints(1, MAX_OPERANDS) or (),
        main.ints(2, MAX_OPERANDS) or (),
        tuple(found),
    )
    ends = (*model.inputs, *model.outputs)
    for i in ends:
        if not 0 <= i < len(tensors):
            raise file.bad(f"tensor {i} of {len(tensors)}")
    for op in found:
        for i in (*op.inputs, *op.outputs, *op.intermediates):
            if not -1 <= i < len(tensors):
                raise file.bad(f"{op.name}: tensor {i} of {len(tensors)}")
    return model


def _buffer(t: Table, file: File) -> NDArray[np.uint8] | None:
    """Bytes of a buffer: in the table, or behind it in a file larger than offsets reach."""
    offset, size = t.number(1, "Q"), t.number(2, "Q")
    if offset > 1:
        if offset + size > len(file.data):
            raise file.bad(f"a buffer at {offset} of {size} bytes is longer than the file")
        return np.frombuffer(file.data, np.uint8, int(size), int(offset))
    found = t.vector(0, "u1")
    return found if found is not None and found.size else None


def _code(t: Table) -> tuple[int, str, int]:
    """(builtin code, custom name, version); codes above 127 are in the second field only."""
    return max(t.number(0, "b"), t.number(3, "i")), t.text(1), t.number(2, "i", 1)


def _options(t: Table, layout: Layout, where: str, file: File) -> dict[str, Any]:
    kind, table = t.number(3, "B"), t.table(4)
    if table is None:
        return {k: None if f.code == "v" else f.default for k, f in layout.fields.items()}
    if kind != layout.number:
        raise file.bad(f"{where}: options of kind {kind}, expected {layout.number}")
    return {
        k: table.ints(f.number, MAX_RANK)
        if f.code == "v"
        else table.number(f.number, f.code, f.default)
        for k, f in layout.fields.items()
    }


def _operator(t: Table, kind: tuple[int, str, int], file: File) -> Operator:
    code, custom, version = kind
    name = OPERATORS.get(code, f"operator {code}")
    if code == CUSTOM:
        name = f"CUSTOM:{custom}"
    layout = OPTIONS.get(name)
    return Operator(
        name,
        version,
        t.ints(1, MAX_OPERANDS) or (),
        t.ints(2, MAX_OPERANDS) or (),
        _options(t, layout, name, file) if layout else {},
        t.ints(8, MAX_OPERANDS) or (),
    )


def _tensor(
    t: Table, i: int, buffers: list[NDArray[np.uint8] | None], file: File, taken: set[str]
) -> Tensor:
    name = t.text(3) or f"tensor_{i}"
    while name in taken:
        name += "_"
    taken.add(name)
    code = t.number(1, "b")
    if code not in DTYPES:
        what = UNREAD_TYPES.get(code, str(code))
        raise UnsupportedOp(
            f"tensor {name!r}: element type {what} is not supported",
            hint=_VARIABLE if what == "resource" else "",
        )
    if t.table(6) is not None:
        raise UnsupportedOp(
            f"tensor {name!r} is stored sparse", hint="convert the model without sparsity"
        )
    shape = t.ints(0, MAX_RANK) or ()
    signature = t.ints(7, MAX_RANK) or shape
    if min((0, *shape)) < 0 or len(signature) != len(shape):
        raise file.bad(f"tensor {name!r} has shape {shape} and signature {signature}")
    number = t.number(2, "I")
    if number >= max(1, len(buffers)):
        raise file.bad(f"tensor {name!r} is in buffer {number} of {len(buffers)}")
    data = buffers[number] if number < len(buffers) else None
    scale, zero, axis = _quantization(t.table(4), name, file)
    variable = bool(t.number(5, "?"))
    return Tensor(name, shape, signature, DTYPES[code], data, scale, zero, axis, variable)


def _quantization(
    q: Table | None, name: str, file: File
) -> tuple[NDArray[np.float32], NDArray[np.int32], int]:
    """(scale, zero point, axis) of a tensor; empty arrays for none."""
    scale = q.vector(2, "<f4") if q is not None else None
    if q is None or scale is None or not scale.size:
        return np.zeros(0, np.float32), np.zeros(0, np.int32), 0
    zero = q.vector(3, "<i8")
    zero = np.zeros(scale.shape, np.int64) if zero is None or not zero.size else zero
    if zero.size == 1:
        zero = np.broadcast_to(zero, scale.shape)
    if zero.shape != scale.shape or not -(1 << 31) <= int(zero.min()) <= int(zero.max()) < 1 << 31:
        raise file.bad(f"tensor {name!r}: {zero.size} zero points for {scale.size} scales")
    return scale.astype(np.float32), zero.astype(np.int32), q.number(6, "i")


def constant(t: Tensor, file: str) -> Array:
    """The array of a constant tensor, in the storage type of its elements.

    Raises:
        BadModel: Its bytes do not fill its shape.
    """
    assert t.data is not None, t.name
    count = int(np.prod(t.shape, dtype=np.float64))
    wanted = -(-count * t.dtype.bits // 8)
    if t.data.size != wanted:
        raise File(b"", file).bad(
            f"tensor {t.name!r}: {t.data.size} bytes for {t.dtype}{list(t.shape)}, "
            f"expected {wanted}"
        )
    if t.dtype.bits == 4:
        nibbles = np.stack([t.data & 15, t.data >> 4], 1).reshape(-1)[:count]
        if t.dtype == I4:
            nibbles = (nibbles.astype(np.int8) ^ 8) - 8
        return nibbles.astype(t.dtype.numpy).reshape(t.shape)
    if t.dtype == BF16:
        wide = t.data.view("<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(t.shape)
    if t.dtype == BOOL:
        found: Array = t.data != 0
    else:
        found = t.data.view(t.dtype.numpy)
    return found.reshape(t.shape)
