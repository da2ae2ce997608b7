"""C = A * B of int8 matrices, exact in int32: the 8-bit kernels of the compiler as a function.

    c = sparrow.gemm_s8(a, b)                        # a int8 [m, k], b int8 [k, n], c int32 [m, n]
    w = sparrow.pack_b_s8(b)                         # once
    c = sparrow.gemm_s8(a, w, threads=2)             # many times
    product = sparrow.GemmS8(a, w, out=c)            # every address fixed:
    product()                                        # a call costs half a microsecond

Values are symmetric, in [-127, 127], as quantizers write them. Kernels that add two products in 16
bits need that of one operand: b with -128 is refused, a is searched for it only where k products
of -128 may leave int32. The native code is compiled for this machine at the first
call and cached. It is one instance for all sizes: these are known at run time.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparrow.device.build import NATIVE, Unit
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine, host_toolchain
from sparrow.device.host import aligned
from sparrow.device.pool import shared_pool
from sparrow.errors import BadInput
from sparrow.kernels.tiles_i8 import tile_of_any
from sparrow.targets.instruction_sets import ISAS, MATRIX_ISAS, Isa

# Products of 127 * 127 that a sum in int32 holds.
K_MAX = (2**31 - 1) // 127**2
# And products of -128 * 127.
K_FULL = (2**31 - 1) // (128 * 127)
# Bytes of packed rows that stay in a first-level cache beside a panel of B.
BLOCK_BYTES = 1 << 14
# Bytes of B that stay in a second-level cache while all rows pass, and in one of 2 MB, which
# processors with matrix registers have.
PANEL_BYTES, MATRIX_PANEL_BYTES = 1 << 19, 1 << 20
# Columns from which packing rows is predicted to cost less than reading them across cache lines.
WIDE = 128
ASYMMETRIC = 1  # what `sparrow_gemm_s8_run` says of a
# Rows and vectors of a tile whose products are added by twos, and rows of one vector: masks take
# registers as well (Zen 3, 512 cubed in GOP/s: 4 x 2 155, 5 x 2 154, 11 x 1 146).
TWOS, TWOS_TALL = (4, 2), 10
# Multiplications below which a second thread costs more than it brings.
TASK_MACS = 1 << 17


class _Call(ctypes.Structure):
    """`sparrow_gemm_s8` of gemm_s8.h."""

    _fields_ = [
        *((name, ctypes.c_ssize_t) for name in ("m", "n", "k", "row", "pack", "packed")),
        *((name, ctypes.c_ssize_t) for name in ("task_m", "task_n", "block", "tasks")),
        *((name, ctypes.c_ssize_t) for name in ("turn", "check")),
        *((name, ctypes.c_void_p) for name in ("a", "b", "start", "c", "scratch")),
        *((name, ctypes.c_void_p) for name in ("parallel_for", "parallel_ctx")),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class PackedA:
    """Rows of a matrix [m, k] as the kernel of this machine reads them."""

    m: int
    k: int
    data: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class PackedB:
    """A matrix [k, n] as the kernel of this machine reads it."""

    k: int
    n: int
    data: NDArray[np.uint8]
    start: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class _Native:
    library: ctypes.CDLL
    isa: Isa
    mr: int
    nv: int
    tall: int  # rows of a tile of one vector

    @property
    def matrix(self) -> bool:
        """Whether sums are in matrix registers."""
        return self.isa.name in MATRIX_ISAS

    def quads(self, k: int) -> int:
        """Quads that a row of k bytes is read by."""
        return int(self.library.sparrow_gemm_s8_quads(ctypes.c_ssize_t(k)))

    def vector(self, k: int) -> int:
        """Bytes of a vector of k rows of columns."""
        return int(self.library.sparrow_gemm_s8_vector(ctypes.c_ssize_t(k)))

    def row(self, k: int) -> int:
        """Bytes of a packed row: whole quads, and no power of two, whose rows share cache sets."""
        row = 4 * self.quads(k)
        if self.matrix:
            row = -(-row // 64) * 64
        return row + 64 if row and row % 512 == 0 else row

    def packs(self, a: NDArray[np.int8], n: int) -> bool:
        """Whether rows of a are copied before they are multiplied: quads must not reach beyond."""
        k = a.shape[1]
        if not self.matrix:
            return bool(k % 4)
        apart = (a.strides[0] | _address(a)) % 64 != 0
        return 4 * self.quads(k) != k or (apart and n >= WIDE)


@functools.cache
def _native(isa: str) -> _Native:
    row = next(i for i in ISAS if i.name == isa)
    # two registers of 16 rows and two of 16 columns make four of sums
    mr, nv = (32, 2) if isa in MATRIX_ISAS else TWOS if row.widens else tile_of_any(row)
    tall = TWOS_TALL if row.widens else tile_of_any(row, vectors=1)[0]
    text = (
        f'#include "isa/{isa}.h"\n#define SP_GEMM_MR {mr}\n#define SP_GEMM_NV {nv}\n'
        f"#define SP_GEMM_TALL {tall}\n"
        '#include "runtime/gemm_s8.h"\n'
    )
    machine, tools = host_machine(isa), host_toolchain()
    objects = tools.compile_objects([Unit("gemm_s8.c", text, (NATIVE,))], machine, ("-std=c99",))
    library = ctypes.CDLL(str(tools.link_shared(objects, machine)))
    library.sparrow_gemm_s8_quads.restype = ctypes.c_ssize_t
    library.sparrow_gemm_s8_vector.restype = ctypes.c_ssize_t
    return _Native(library, row, mr, nv, mr if isa in MATRIX_ISAS else tall)


@functools.cache
def _here() -> str:
    return host_isa()


def _matrix(given: object, name: str) -> NDArray[np.int8]:
    if not isinstance(given, np.ndarray):
        raise BadInput(f"gemm_s8: {name} is {type(given).__name__}, expected an int8 matrix")
    x: NDArray[np.int8] = given
    if x.dtype != np.int8 or x.ndim != 2:
        raise BadInput(f"gemm_s8: {name} is {x.dtype} of shape {x.shape}, expected an int8 matrix")
    _depth(x.shape[1] if name == "a" else x.shape[0])
    return np.ascontiguousarray(x) if x.strides[1] != 1 and x.shape[1] > 1 else x


def _symmetric(x: NDArray[np.int8], name: str) -> NDArray[np.int8]:
    """A matrix without -128."""
    size = (ctypes.c_ssize_t(v) for v in (x.strides[0], *x.shape))
    if not _native(_here()).library.sparrow_gemm_s8_symmetric(ctypes.c_void_p(_address(x)), *size):
        raise _asymmetric(name)
    return x


def _asymmetric(name: str) -> BadInput:
    return BadInput(
        f"gemm_s8: {name} holds -128, expected values in [-127, 127]",
        hint="quantize symmetrically, or clip to -127",
    )


def _depth(k: int) -> None:
    if k > K_MAX:
        raise BadInput(
            f"gemm_s8: {k:,} products may leave int32, expected at most {K_MAX:,}",
            hint="split K and add the parts in int64",
        )


def _address(x: NDArray[Any]) -> int:
    return int(x.__array_interface__["data"][0])


def pack_a_s8(a: NDArray[np.int8]) -> PackedA:
    """Pack the left operand, int8 [m, k], for many products; in [-127, 127] where k > 132,104.

    Raises:
        BadInput: It is no such matrix.
    """
    a = _matrix(a, "a")
    m, k = a.shape
    if k > K_FULL:
        _symmetric(a, "a")
    native = _native(_here())
    data = aligned(m * native.row(k))
    row, rows, depth, packed = (ctypes.c_ssize_t(v) for v in (a.strides[0], m, k, native.row(k)))
    to = ctypes.c_void_p(_address(data))
    pack = native.library.sparrow_gemm_s8_pack_a
    pack(ctypes.c_void_p(_address(a)), row, rows, depth, to, packed)
    return PackedA(m, k, data)


def pack_b_s8(b: NDArray[np.int8]) -> PackedB:
    """Pack the right operand, int8 [k, n] in [-127, 127], for many products: weights, once.

    Raises:
        BadInput: It is no such matrix.
    """
    b = _symmetric(_matrix(b, "b"), "b")
    k, n = b.shape
    native = _native(_here())
    vectors = -(-n // native.isa.lanes)
    data = aligned(vectors * native.vector(k))
    start = aligned(vectors * native.isa.lanes * 4).view(np.int32)
    row, depth, width = (ctypes.c_ssize_t(v) for v in (b.strides[0], k, n))
    native.library.sparrow_gemm_s8_pack_b(
        *(ctypes.c_void_p(_address(b)), row, depth, width),
        *(ctypes.c_void_p(_address(v)) for v in (data, start)),
    )
    return PackedB(k, n, data, start)


class GemmS8:
    """A product whose operands stay where they are: a call multiplies what they then hold.

    Args:
        a: int8 [m, k], or one packed by `pack_a_s8`; in [-127, 127] where k is over 132,104.
        b: int8 [k, n] in [-127, 127], which is packed here, or one packed by `pack_b_s8`.
        threads: Threads at most; small products take fewer. Never changes the result.
        out: C-contiguous int32 [m, n] to write to; a new one when None.

    Attributes:
        out: Where results go.

    Raises:
        BadInput: Wrong type or shape, or k is over 133,144, where sums could leave int32.
        CompileError: There is no C compiler for the first one.
    """

    __slots__ = ("_call", "_kept", "_run", "out")

    def __init__(
        self,
        a: NDArray[np.int8] | PackedA,
        b: NDArray[np.int8] | PackedB,
        *,
        threads: int = 1,
        out: NDArray[np.int32] | None = None,
    ) -> None:
        if threads < 1:
            raise BadInput(f"threads must be at least 1, got {threads}")
        b = b if isinstance(b, PackedB) else pack_b_s8(b)
        packed = isinstance(a, PackedA)
        if not isinstance(a, PackedA):
            given, a = a, _matrix(a, "a")
            if a is not given:
                raise BadInput("gemm_s8: the elements of a row of a are not adjacent")
        m, k = (a.m, a.k) if isinstance(a, PackedA) else a.shape
        if k != b.k:
            raise BadInput(f"gemm_s8: a has {k} columns, b has {b.k} rows")
        c = np.empty((m, b.n), np.int32) if out is None else out
        if c.dtype != np.int32 or c.shape != (m, b.n) or not c.flags.carray:
            raise BadInput(
                f"gemm_s8: out is {c.dtype} of shape {c.shape}, expected int32 of shape "
                f"{(m, b.n)}, C-contiguous"
            )
        self.out = c
        if c.size == 0 or k == 0:
            self._run: Callable[[object], int] = self._zero
            self._call: object = None
            return
        native = _native(_here())
        row = native.row(k)
        pack = isinstance(a, np.ndarray) and native.packs(a, b.n)
        vectors = -(-b.n // native.isa.lanes)
        rows = native.mr if vectors >= native.nv else native.tall
        many = max(1, min(threads, m * b.n * k // TASK_MACS))
        # rows first: tasks of the same rows pack them again
        by_rows = m >= many * rows or vectors < many
        task_m = -(-m // (many * rows)) * rows if by_rows else m
        task_n = vectors if by_rows else -(-vectors // (many * native.nv)) * native.nv
        panel = MATRIX_PANEL_BYTES if native.matrix else PANEL_BYTES
        near = panel // native.vector(k) // native.nv * native.nv
        task_n = min(task_n, max(near, native.nv))
        tasks = -(-m // task_m) * -(-vectors // task_n)
        block = max(1, BLOCK_BYTES // (rows * row)) * rows if pack else task_m
        block = min(block, task_m)
        scratch = aligned(tasks * block * row if pack else 0)
        data = a.data if isinstance(a, PackedA) else a
        pool = shared_pool(many) if tasks > 1 else None
        call = _Call(
            *(m, b.n, k, row if packed else data.strides[0], int(pack), row),
            *(
                task_m,
                task_n,
                block,
                tasks,
                int(not packed and not pack),
                int(not packed and k > K_FULL),
            ),
            *(_address(v) for v in (data, b.data, b.start, c, scratch)),
            *((pool.parallel_for, pool.handle) if pool else (None, None)),
        )
        # No argtypes: converting a prebuilt byref through them costs more than the call.
        self._run, self._call = native.library.sparrow_gemm_s8_run, ctypes.byref(call)
        self._kept = data, b, scratch, pool

    def __call__(self) -> NDArray[np.int32]:
        """Multiply; returns `out`.

        Raises:
            BadInput: k is over 132,104 and a holds -128; `out` is as it was then.
        """
        if refused := self._run(self._call):
            raise (
                _asymmetric("a")
                if refused == ASYMMETRIC
                else BadInput(
                    "gemm_s8: the system does not let this process use matrix registers",
                    hint="start it where arch_prctl(ARCH_REQ_XCOMP_PERM) is allowed",
                )
            )
        return self.out

    def _zero(self, _: object) -> int:
        self.out[:] = 0
        return 0


def gemm_s8(
    a: NDArray[np.int8] | PackedA,
    b: NDArray[np.int8] | PackedB,
    *,
    threads: int = 1,
    out: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]:
    """The product of two int8 matrices, exact; see `GemmS8`, which is faster for many small ones.

    Args:
        a: int8 [m, k], or one packed by `pack_a_s8`; in [-127, 127] where k is over 132,104.
        b: int8 [k, n] in [-127, 127], or one packed by `pack_b_s8`.
        threads: Threads at most; small products take fewer. Never changes the result.
        out: C-contiguous int32 [m, n] to write to; a new one when None.

    Returns:
        int32 [m, n].

    Raises:
        BadInput: Wrong type or shape, -128 where it may not be, or k is over 133,144, where sums
            could leave int32.
        CompileError: There is no C compiler for the first call.
    """
    if not isinstance(a, PackedA):
        a = _matrix(a, "a")
    return GemmS8(a, b, threads=threads, out=out)()


__all__ = ["GemmS8", "PackedA", "PackedB", "gemm_s8", "pack_a_s8", "pack_b_s8"]
