"""Random configurations of every row of the kernel table that computes with codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from random_i8 import functions, lanes, moves, sums
from random_i8.draw import Made
from random_i8.native import Native
from sparrow.kernels import COMPACT, KERNELS
from sparrow.kernels.case import Kernel

__all__ = [
    "ENGINES",
    "FLOATS",
    "GENERATORS",
    "ROWS",
    "X86",
    "Native",
    "rows_of",
    "share_of",
    "wrong",
]

# Every row, of both tables.
ROWS: Mapping[str, Kernel] = {row.name: row for row in (*KERNELS, *COMPACT)}
X86 = ("scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16")


class Generator(NamedTuple):
    """Where configurations of a row come from.

    Attributes:
        row: Name of the row.
        make: Makes the one of a seed.
        isas: Instruction sets that they are for; empty for all that the row is for.
    """

    row: str
    make: Callable[[int], Made]
    isas: tuple[str, ...] = ()


_OWN = (
    *(sums.conv2d_i8, sums.depthwise_i8, sums.gemm_i8, sums.matmul_i8, sums.conv_any),
    *(sums.conv2d_i16, sums.depthwise_i16, sums.gemm_i16),
    *(sums.matmul_any, sums.conv2d_i8_matrix, sums.gemm_i8_matrix),
    *(sums.column_i8, sums.column_gemm_i8),
    *(functions.attention_i8, functions.attention_i8_matrix, functions.lookup),
    *(functions.lookup_linear, functions.max_pool_i8, functions.softmax_i8, functions.lstm_i8),
    *(functions.gru_i8, lanes.loop_quantize, lanes.loop_dequantize),
    *(moves.copy_transpose, moves.copy_reshape, moves.copy_slice, moves.copy_expand),
    *(moves.copy_bitcast, moves.copy_concat, moves.pad_copies, moves.pad_moved, moves.resize),
    *(moves.gather, moves.gather_elements, moves.gather_nd, moves.scatter_elements),
    *(moves.scatter_nd, moves.unpool, moves.reduce, moves.reduce_rows, moves.arg_reduce),
    *(moves.cumulate, moves.pool, moves.topk, moves.nonzero, moves.compress, moves.unique),
)
_LANES = (
    *(lanes.added, lanes.multiplied, lanes.rescaled, lanes.sums_i16, lanes.digits),
    *(lanes.clipped, lanes.powers),
)
GENERATORS: Mapping[str, Generator] = {
    **{make.__name__: Generator(make.__name__, make) for make in _OWN},
    **{f"loop {make.__name__}": Generator("loop", make) for make in _LANES},
    "depthwise_i8 means": Generator("depthwise_i8", sums.mean_i8),
    "conv2d_compact_i16": Generator("conv2d_compact_i16", sums.conv2d_i16),
    "gemm_compact_i16": Generator("gemm_compact_i16", sums.gemm_i16),
    "conv_any i16": Generator("conv_any", sums.conv2d_i16),
    "matmul_any i16": Generator("matmul_any", sums.gemm_i16),
    "gemm_i8 groups": Generator("gemm_i8", sums.gemm_groups_i8),
    "gemm_i8 parts": Generator("gemm_i8", sums.products_i8, X86),
    "conv2d_twos_i8": Generator("conv2d_twos_i8", sums.conv2d_i8),
    "gemm_twos_i8": Generator("gemm_twos_i8", sums.gemm_i8),
    "gemm_twos_i8 parts": Generator("gemm_twos_i8", sums.products_i8),
    "conv2d_compact_i8": Generator("conv2d_compact_i8", sums.conv2d_i8, X86),
    "depthwise_pairs_i8": Generator("depthwise_pairs_i8", sums.depthwise_i8, ("avx2",)),
    "depthwise_compact_i8": Generator("depthwise_compact_i8", sums.depthwise_i8, X86),
    "gemm_compact_i8": Generator("gemm_compact_i8", sums.gemm_i8, X86),
    "winograd_i8": Generator("winograd_i8", sums.winograd_i8, ("scalar", "avx2", "avx512")),
    "winograd4_i8": Generator("winograd4_i8", sums.winograd_i8, ("scalar", "avx2", "avx512")),
}
# Rows with code of their own for instruction sets.
_EVERYWHERE = (
    *("conv2d_i8", "depthwise_i8", "gemm_i8", "gemm_i8 groups", "matmul_i8", "attention_i8"),
    *("conv2d_i16", "depthwise_i16", "gemm_i16"),
    *("lookup", "lookup_linear", "max_pool_i8", "softmax_i8", "lstm_i8", "gru_i8"),
    "loop sums_i16",
)
# Rows that take no codes, though they are named after no float type.
FLOATS = ("det", "grid_sample", "normalize", "softmax", "conv_transpose")
# Rows of an engine alone, whose products no header of a processor has: configurations of those
# are emitted and run in Node.js (`test_kernels_i8.py`), hundreds and not thousands.
ENGINES = ("conv2d_maddubs_i8", "gemm_maddubs_i8")


def rows_of(isa: str) -> list[str]:
    """The configurations for an instruction set.

    Of one with matrix registers, and of one that is emulated, only those of rows of its own.
    """
    mine = [name for name, g in GENERATORS.items() if isa in (g.isas or ROWS[g.row].isas or X86)]
    return mine if isa in X86 else [n for n in mine if _own(n)]


def _own(name: str) -> bool:
    """Whether only some instruction sets have the row."""
    return name.endswith("_matrix") or name.startswith("column_")


def share_of(isa: str, isas: Sequence[str]) -> list[str]:
    """Those of `rows_of` that an instruction set runs where all ``isas`` together run each row.

    Rows that add up products run on all of them, the others on one, by turns.
    """

    def here(name: str) -> bool:
        there = [other for other in isas if name in rows_of(other)]
        turn = list(GENERATORS).index(name)
        return name in _EVERYWHERE or not there or there[turn % len(there)] == isa

    return list(filter(here, rows_of(isa)))


def wrong(native: Native, cases: list[tuple[str, int]]) -> list[str]:
    """Compute configurations, (name, seed) each; what is wrong."""
    return native.wrong(
        [
            (name, seed, ROWS[GENERATORS[name].row], GENERATORS[name].make(seed))
            for name, seed in cases
        ]
    )
