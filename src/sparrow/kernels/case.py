"""What selection asks a kernel row about, and what a row answers: plain values, no text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from sparrow import lane
from sparrow.graph import Op
from sparrow.targets import Target
from sparrow.tensor import F32, Array, DType, TensorType, row_major


@dataclass(frozen=True, slots=True)
class Reject:
    """Why a row or a rule does not apply."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An operand as a kernel sees it.

    Attributes:
        type: Its type.
        strides: Distance of neighbours along each axis, in elements.
        const: Its value when known at build time.
        placed: Operand of a concatenation that already lies inside the output.
    """

    type: TensorType
    strides: tuple[int, ...]
    const: Array | None = None
    placed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self.type.shape

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie dense in row-major order."""
        return is_contiguous(self.shape, self.strides)


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether strides are those of a dense row-major tensor (axes of extent 1 do not matter)."""
    return all(d == 1 or s == r for d, s, r in zip(shape, strides, row_major(shape), strict=True))


def row_stride(t: Tensor) -> int | None:
    """Distance of rows when all axes but the last collapse into one and the last is dense."""
    if t.type.rank == 0:
        return 1
    if t.shape[-1] > 1 and t.strides[-1] != 1:
        return None
    ld = None
    expected = None
    for d, s in zip(t.shape[-2::-1], t.strides[-2::-1], strict=True):
        if d == 1:
            continue
        if ld is None:
            ld = expected = s
        if s != expected:
            return None
        assert expected is not None
        expected = s * d
    return t.shape[-1] if ld is None else ld


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows (pixels) and vectors of output channels whose sums registers hold."""

    mr: int
    nv: int

    def __str__(self) -> str:
        return f"{self.mr}x{self.nv}"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One node to be computed: op, operands, target, and how many threads are wished for.

    ``tile`` is the register tile to take, one of `Lowered.tiles`; None: the one predicted best.
    """

    op: Op
    x: tuple[Tensor | None, ...]
    y: tuple[Tensor, ...]
    target: Target
    threads: int = 1
    tile: Tile | None = None


@dataclass(frozen=True, slots=True)
class In:
    """Argument: pointer to input ``index``, ``offset`` elements in."""

    index: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Out:
    """Argument: pointer to output ``index``, ``offset`` elements in."""

    index: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Packed:
    """Argument: pointer to ``Lowered.packed[index]`` in the weights."""

    index: int


@dataclass(frozen=True, slots=True)
class Scratch:
    """Argument: scratch memory as ``ctype *``; every task has ``per_task`` bytes of its own."""

    ctype: str
    per_task: int


@dataclass(frozen=True, slots=True)
class Extra:
    """An epilogue operand: where it is and how it moves with the output row and column.

    ``largest``: magnitude of a constant, at most.
    """

    source: In | Packed
    type: TensorType
    row_stride: int
    col_stride: int
    largest: float = math.inf


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Argument pair (function, operand table): ``expr`` over the sum (operand 0) and ``extras``.

    ``sum`` is the type of the sum, float32 or int32, and says which kind of function it is. One of
    int32 is within ``reach`` either way. ``shortens``: see `Isa.shortens`.
    """

    expr: lane.Expr | None
    extras: tuple[Extra, ...] = ()
    sum: DType = F32
    reach: int = 1 << 31
    shortens: bool = False


@dataclass(frozen=True, slots=True)
class Literal:
    """Argument: a number that the compiler shall know."""

    value: int


Argument: TypeAlias = In | Out | Packed | Scratch | Literal | Epilogue
Param: TypeAlias = "int | float | tuple[int, ...] | tuple[float, ...]"


@dataclass(frozen=True, slots=True)
class Invoke:
    """A call of a native kernel: ``function((struct){params}, arguments.., task)``.

    With ``repeat`` > 1 one task makes that many calls, numbered from 0, one after the other.
    ``shared`` hands the struct over as a pointer: calls that differ in it alone share code. Fields
    named by ``handed`` are integer arguments: calls that differ in those alone share code.
    """

    header: str
    function: str
    struct: str
    params: Mapping[str, Param]
    arguments: tuple[Argument, ...]
    repeat: int = 1
    shared: bool = False
    handed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """An operand of a Loop: element ``offset + sum(i * stride)``."""

    operand: In | Out | Packed
    type: TensorType
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """An emitted elementwise loop nest: y[i] = expr(x0[i], x1[i], ..). Also every strided copy.

    Where its first axis is split, a task has a multiple of ``together``.
    """

    dims: tuple[int, ...]
    expr: lane.Expr
    x: tuple[Stream, ...]
    y: Stream
    together: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """An array to be made when the weights are written; asking a row for its cost does not pack.

    Attributes:
        shape: Shape of the packed array.
        dtype: Its NumPy dtype.
        make: Packs.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: object = None, copy: object = None) -> Array:
        """The packed array, for ``np.asarray``."""
        packed = self.make()
        assert packed.shape == self.shape and packed.dtype == self.dtype, (packed.shape, self)
        return packed


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [low, high) of an operand, from where it begins, outside of which a task stays."""

    operand: In | Out
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """How a step is computed.

    Attributes:
        calls: One call split into ``tasks``, or several calls that are a task each.
        tasks: Independent parts; part i writes what no other part writes.
        packed: Arrays to be stored in the weights.
        scratch_bytes: Scratch memory of the step (all tasks).
        cycles: Predicted cycles on one core.
        shape: Sizes and strides as text, under which times of this work are kept; empty where
            there is nothing to choose.
        tiles: Register tiles that it may take, the one predicted best first.
        tile: The one it takes.
        lead: Bytes that input 0 must begin behind output 0 for output 0 to run over it, both dense
            (`walk.lead_of`); None where it must not.
        spans: Of each task where its operands are touched; all of those that are not named. Empty:
            every task may touch everything.
    """

    calls: tuple[Invoke | Loop, ...]
    tasks: int = 1
    packed: tuple[Array | Pack, ...] = ()
    scratch_bytes: int = 0
    cycles: float = 0.0
    shape: str = ""
    tiles: tuple[Tile, ...] = ()
    tile: Tile | None = None
    lead: int | None = None
    spans: tuple[tuple[Span, ...], ...] = ()


def scratch_of(lowered: Lowered) -> Iterator[Scratch]:
    """The arguments of a step's calls that point to its scratch memory."""
    for c in lowered.calls:
        if isinstance(c, Invoke):
            yield from (a for a in c.arguments if isinstance(a, Scratch))


@dataclass(frozen=True, slots=True)
class Kernel:
    """A row of the kernel table.

    Attributes:
        name: Shown in reports; unique.
        op: The operator it computes.
        lower: The call for a case, or the reason why the row does not apply.
        isas: Vocabularies it is for; empty for all.
        inplace: Indices of inputs that output 0 may overwrite when strides and element size agree.
    """

    name: str
    op: type[Op]
    lower: Callable[[Case], Lowered | Reject]
    isas: tuple[str, ...] = ()
    inplace: tuple[int, ...] = field(default=())
