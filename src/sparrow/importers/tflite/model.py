"""What a .tflite file holds: its subgraphs, their tensors and operators, read by the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparrow.errors import InvalidGraph, UnsupportedOp
from sparrow.importers.tflite.flatbuffer import File, Table
from sparrow.importers.tflite.schema import (
    CUSTOM,
    DTYPES,
    INDICES,
    MAGIC,
    OPERATORS,
    OPTIONS,
    RESOURCE,
    SUBGRAPHS,
    UNREAD_TYPES,
    VERSION,
    Field,
    Layout,
)
from sparrow.ops.quantize import affine
from sparrow.tensor import I32, Affine, DType

MAX_OPS = 200_000
MAX_RANK = 8
MAX_OPERANDS = 1 << 16
MAX_CUSTOM = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Sparsity:
    """How a tensor that is stored without its zeros is traversed.

    Attributes:
        order: Its axes and, behind them, those of its blocks, outermost first.
        blocked: The axis that each axis of the blocks divides.
        levels: Of each axis in that order: its extent, or the first entry of every row (and the
            end of the last), and the coordinate of every entry.
    """

    order: tuple[int, ...]
    blocked: tuple[int, ...]
    levels: tuple[int | tuple[NDArray[Any], NDArray[Any]], ...]


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
        resource: Stands for a variable that VAR_HANDLE names; its element type says nothing.
        sparsity: Where the elements of a constant lie, None where all are stored.
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
    resource: bool = False
    sparsity: Sparsity | None = None

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
    """An operator of the file; inputs and outputs are tensor numbers, -1 where absent.

    ``custom`` are the options of a custom operator, in a form of its own.
    """

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]
    intermediates: tuple[int, ...]
    custom: bytes = b""


@dataclass(frozen=True, slots=True)
class Model:
    """A subgraph of a file.

    Attributes:
        name: Its name, or that of the file.
        tensors: What its operators read and write.
        inputs: Tensor numbers.
        outputs: Tensor numbers.
        operators: In order.
        called: Of the main subgraph: the others that operators name, by number.
    """

    name: str
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]
    called: Mapping[int, Model] = field(default_factory=dict)


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
    buffers = [_buffer(t, file) for t in root.tables(4, MAX_OPS * 4)]
    codes = [_code(t) for t in root.tables(1, MAX_OPS)]
    main = _subgraph(graphs[0], root.text(3), buffers, codes, file)
    called: dict[int, Model] = {}
    wanted = _names(main)
    while wanted:
        k = wanted.pop()
        if not 0 < k < len(graphs):
            raise file.bad(f"an operator names subgraph {k} of {len(graphs)}")
        if k not in called:
            called[k] = _subgraph(graphs[k], "", buffers, codes, file)
            wanted += _names(called[k])
    return replace(main, called=called)


def _names(graph: Model) -> list[int]:
    """The subgraphs that operators name."""
    return [int(o.options[k]) for o in graph.operators for k in SUBGRAPHS.get(o.name, ())]


def _subgraph(
    graph: Table,
    name: str,
    buffers: list[NDArray[np.uint8] | None],
    codes: list[tuple[int, str, int]],
    file: File,
) -> Model:
    tensors: list[Tensor] = []
    taken: set[str] = set()
    for i, t in enumerate(graph.tables(0, MAX_OPS * 4)):
        tensors.append(_tensor(t, i, buffers, file, taken))
    found = []
    for t in graph.tables(3, MAX_OPS):
        k = t.number(0, "I")
        if k >= len(codes):
            raise file.bad(f"operator code {k} of {len(codes)}")
        found.append(_operator(t, codes[k], file))
    model = Model(
        graph.text(4) or name,
        tuple(tensors),
        graph.ints(1, MAX_OPERANDS) or (),
        graph.ints(2, MAX_OPERANDS) or (),
        tuple(found),
    )
    for i in (*model.inputs, *model.outputs):
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
        empty = {"v": None, "s": ""}
        return {k: empty.get(f.code, f.default) for k, f in layout.fields.items()}
    if kind != layout.number:
        raise file.bad(f"{where}: options of kind {kind}, expected {layout.number}")
    return {k: _option(table, f) for k, f in layout.fields.items()}


def _option(table: Table, f: Field) -> Any:
    if f.code == "v":
        return table.ints(f.number, MAX_RANK)
    return table.text(f.number) if f.code == "s" else table.number(f.number, f.code, f.default)


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
        _custom(t, name, file) if code == CUSTOM else b"",
    )


def _custom(t: Table, name: str, file: File) -> bytes:
    v = t.vector(5, "u1")
    if v is not None and v.size > MAX_CUSTOM:
        raise file.bad(f"{name}: {v.size} bytes of options, at most {MAX_CUSTOM} are read")
    return b"" if v is None else v.tobytes()


def _tensor(
    t: Table, i: int, buffers: list[NDArray[np.uint8] | None], file: File, taken: set[str]
) -> Tensor:
    name = t.text(3) or f"tensor_{i}"
    while name in taken:
        name += "_"
    taken.add(name)
    code = t.number(1, "b")
    if code not in DTYPES and code != RESOURCE:
        what = UNREAD_TYPES.get(code, str(code))
        raise UnsupportedOp(f"tensor {name!r}: element type {what} is not supported")
    shape = t.ints(0, MAX_RANK) or ()
    signature = t.ints(7, MAX_RANK) or shape
    if min((0, *shape)) < 0 or len(signature) != len(shape):
        raise file.bad(f"tensor {name!r} has shape {shape} and signature {signature}")
    number = t.number(2, "I")
    if number >= max(1, len(buffers)):
        raise file.bad(f"tensor {name!r} is in buffer {number} of {len(buffers)}")
    data = buffers[number] if number < len(buffers) else None
    scale, zero, axis = _quantization(t.table(4), name, file)
    return Tensor(
        name,
        shape,
        signature,
        DTYPES.get(code, I32),
        data,
        scale,
        zero,
        axis,
        bool(t.number(5, "?")),
        code == RESOURCE,
        _sparsity(t.table(6), name, file),
    )


def _sparsity(s: Table | None, name: str, file: File) -> Sparsity | None:
    if s is None:
        return None
    levels: list[int | tuple[NDArray[Any], NDArray[Any]]] = []
    for t in s.tables(2, 2 * MAX_RANK):
        if t.number(0, "b") == 0:
            levels.append(int(t.number(1, "i")))
            continue
        parts = []
        for i in (2, 4):
            kind, table = t.number(i, "B"), t.table(i + 1)
            if kind not in INDICES or table is None:
                raise file.bad(f"tensor {name!r}: indices of kind {kind}")
            v = table.vector(0, INDICES[kind])
            parts.append(np.zeros(0, np.int32) if v is None else v)
        levels.append((parts[0], parts[1]))
    order, blocked = s.ints(0, 2 * MAX_RANK) or (), s.ints(1, MAX_RANK) or ()
    return Sparsity(order, blocked, tuple(levels))


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
