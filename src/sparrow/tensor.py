"""What a tensor is: its dtype, its quantization and its type."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparrow.errors import InvalidGraph

Array: TypeAlias = NDArray[Any]
Kind = Literal["float", "int", "uint", "bool"]


@dataclass(frozen=True, slots=True)
class DType:
    """A scalar type. ``bits`` is the logical width; packing sub-byte codes is a kernel's matter.

    ``storage`` is the NumPy type of its values in Python; bfloat16 values are kept as float32
    rounded to bfloat16, sub-byte integers as int8/uint8.
    """

    name: str
    kind: Kind
    bits: int
    storage: str

    @property
    def numpy(self) -> np.dtype[Any]:
        """NumPy dtype of values of this type."""
        return np.dtype(self.storage)

    @property
    def bytes(self) -> int:
        """Bytes of one element in a tensor at run time; sub-byte types are stored one per byte."""
        return max(1, self.bits // 8)

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of an integer type."""
        if self.kind == "uint":
            return 0, (1 << self.bits) - 1
        assert self.kind == "int", self.name
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    def __repr__(self) -> str:
        return self.name


F16 = DType("float16", "float", 16, "float16")
BF16 = DType("bfloat16", "float", 16, "float32")
F32 = DType("float32", "float", 32, "float32")
F64 = DType("float64", "float", 64, "float64")
I2 = DType("int2", "int", 2, "int8")
I4 = DType("int4", "int", 4, "int8")
I8 = DType("int8", "int", 8, "int8")
I16 = DType("int16", "int", 16, "int16")
I32 = DType("int32", "int", 32, "int32")
I64 = DType("int64", "int", 64, "int64")
U4 = DType("uint4", "uint", 4, "uint8")
U8 = DType("uint8", "uint", 8, "uint8")
U16 = DType("uint16", "uint", 16, "uint16")
U32 = DType("uint32", "uint", 32, "uint32")
U64 = DType("uint64", "uint", 64, "uint64")
BOOL = DType("bool", "bool", 8, "bool")

DTYPES = (F16, BF16, F32, F64, I2, I4, I8, I16, I32, I64, U4, U8, U16, U32, U64, BOOL)
BY_NAME = {t.name: t for t in DTYPES}
_OF_NUMPY = {t.numpy: t for t in (F16, F64, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, F32)}


def dtype_of(array: Array) -> DType:
    """DType of a NumPy array; sub-byte and bfloat16 types have no NumPy type: never returned."""
    try:
        return _OF_NUMPY[array.dtype]
    except KeyError:
        raise InvalidGraph(f"array of NumPy dtype {array.dtype} has no tensor type") from None


def _digest(*arrays: Array) -> bytes:
    h = hashlib.sha256()
    for a in arrays:
        h.update(f"{a.dtype}{a.shape}".encode())
        h.update(np.ascontiguousarray(a).tobytes())
    return h.digest()


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Affine quantization: real = (code - zero_point) * scale.

    Attributes:
        scale: float32, of shape ``shape / block``: one per block, rank of the tensor.
        zero_point: int32, same shape as scale.
        block: Extent of a quantization block along each axis, -1 for all of it. For rank 4: per
            tensor (-1, -1, -1, -1); per channel of axis 0 (1, -1, -1, -1); groups of 32 of the
            last axis (1, -1, -1, 32).
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    block: tuple[int, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affine) and hash(self) == hash(other)

    def __hash__(self) -> int:
        return hash((self.block, _digest(self.scale, self.zero_point)))

    @property
    def per_tensor(self) -> bool:
        """Whether one scale serves the whole tensor."""
        return self.scale.size == 1

    def permuted(self, perm: tuple[int, ...]) -> Affine:
        """The quantization of the codes transposed by ``perm``."""
        block = tuple(self.block[p] for p in perm)
        return Affine(self.scale.transpose(perm), self.zero_point.transpose(perm), block)


@dataclass(frozen=True, slots=True, eq=False)
class BinaryCode:
    """Binary coding: real = sum_i alpha[i] * code_i, code_i in {-1, +1} (arXiv:2009.07453).

    Attributes:
        alpha: float32 of shape (q, *(shape / block)).
        block: See `Affine.block`.
    """

    alpha: NDArray[np.float32]
    block: tuple[int, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BinaryCode) and hash(self) == hash(other)

    def __hash__(self) -> int:
        return hash((self.block, _digest(self.alpha)))

    def permuted(self, perm: tuple[int, ...]) -> BinaryCode:
        """The quantization of the codes transposed by ``perm``."""
        order = (0, *(p + 1 for p in perm))
        return BinaryCode(self.alpha.transpose(order), tuple(self.block[p] for p in perm))


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Look-up quantization: real = values[code], float32 values of shape (entries,)."""

    values: NDArray[np.float32]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codebook) and hash(self) == hash(other)

    def __hash__(self) -> int:
        return hash(_digest(self.values))


Quantization: TypeAlias = Affine | BinaryCode | Codebook


def moved(quant: Quantization | None, rank: int) -> Quantization | None:
    """Quantization of codes that were rearranged or selected, now of ``rank`` axes.

    What speaks of positions in the tensor (a scale per channel or block) is lost.
    """
    if isinstance(quant, Affine) and quant.per_tensor:
        ones = (1,) * rank
        return Affine(quant.scale.reshape(ones), quant.zero_point.reshape(ones), (-1,) * rank)
    return quant if isinstance(quant, Codebook) else None


# NumPy, in which the reference is written, broadcasts no more.
MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape, dtype, axis meaning and quantization of a tensor.

    Attributes:
        shape: Static extents, each >= 0, of at most `MAX_RANK` axes.
        dtype: Element type; with ``quant``, the type of the codes.
        axes: One letter per axis (``"NCHW"``, ``"NHWC"``), or ``""`` for the order ONNX defines.
        quant: How codes map to real numbers, or None.
    """

    shape: tuple[int, ...]
    dtype: DType
    axes: str = ""
    quant: Quantization | None = None

    def __post_init__(self) -> None:
        if self.axes and len(self.axes) != len(self.shape):
            raise InvalidGraph(f"axes {self.axes!r} do not fit shape {self.shape}")
        if len(self.shape) > MAX_RANK:
            raise InvalidGraph(f"a tensor of {len(self.shape)} axes; there may be {MAX_RANK}")

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        n = 1
        for d in self.shape:
            n *= d
        return n

    @property
    def bytes(self) -> int:
        """Bytes of the tensor at run time."""
        return self.size * self.dtype.bytes

    def __repr__(self) -> str:
        q = "" if self.quant is None else f" {type(self.quant).__name__.lower()}"
        return f"{self.dtype}[{'x'.join(map(str, self.shape))}]{self.axes}{q}"


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a dense row-major tensor, in elements."""
    strides, step = [], 1
    for d in reversed(shape):
        strides.append(step)
        step *= max(d, 1)
    return tuple(strides[::-1])


def type_of(array: Array) -> TensorType:
    """Type of a plain NumPy array."""
    return TensorType(array.shape, dtype_of(array))


def round_bfloat16(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round float32 values to the nearest bfloat16 (ties to even), kept as float32."""
    bits = np.asarray(x, np.float32, order="C").view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, rounded.view(np.float32)).astype(np.float32)


class Distinct:
    """Names of typed arrays by content: the first of equal ones stands for all.

    Arrays are told apart by their ends, and hashed as a whole only where those agree: hashing every
    weight of a large model would cost more than the rest of its import.
    """

    def __init__(self) -> None:
        self._alone: dict[tuple[TensorType, bytes], tuple[str, NDArray[np.uint8]]] = {}
        self._found: dict[tuple[TensorType, bytes], str] = {}

    def first(self, t: TensorType, array: Array, name: str) -> str:
        """The name of the first array of equal type and bytes; ``name`` when there is none."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        ends = t, data[:512].tobytes() + data[-512:].tobytes()
        if data.size <= 512:
            return self._found.setdefault(ends, name)
        other = self._alone.setdefault(ends, (name, data))
        if other[0] == name:
            return name
        self._found.setdefault((t, _digest(other[1])), other[0])
        return self._found.setdefault((t, _digest(data)), name)
