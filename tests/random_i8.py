"""Random configurations of the rows over 8-bit codes, thousands to one library.

Emitted code has every size as a literal, so each configuration costs a compilation. Here the same
kernel headers are compiled once per instruction set with sizes known at run time, and a row's own
lowering says the parameters, packs the weights and cuts the tasks. Results of convolutions and
products are int32 sums, without an epilogue; those, and specialised code, are what
`test_kernels_i8.py` compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emitted import BYTES_TARGETS
from native_harness import NATIVE, Library, build, call
from sparrow.graph import Op
from sparrow.kernels import attention_i8 as attention_rows
from sparrow.kernels import conv_i8, lookup, pool_i8, recurrent_i8, softmax_i8
from sparrow.kernels import matmul_i8 as matmul_rows
from sparrow.kernels.case import Case, In, Invoke, Lowered, Out, Packed, Reject, Scratch, Tensor
from sparrow.ops.attention_codes import MASK, UNSEEN, AttentionCodes
from sparrow.ops.conv import Conv
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lookup import Lookup
from sparrow.ops.lookup_linear import ENTRIES, REACH, LookupLinear
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.matmul import MatMul
from sparrow.ops.pool import Pool
from sparrow.ops.softmax_codes import MAX_SUM, SoftmaxCodes
from sparrow.targets import target
from sparrow.tensor import F32, I8, I16, I32, U8, Array, TensorType

# Functions of the headers: parameters, pointers after them, and what comes before the task.
_SUMS_END = "sp_ep_none_i32, NULL, "
_FUNCTIONS = {
    "sp_conv2d_i8_run": ("sp_conv2d_i8", 5, _SUMS_END),
    "sp_conv2d_i8_direct": ("sp_conv2d_i8", 4, _SUMS_END),
    "sp_depthwise_i8_run": ("sp_depthwise_i8", 5, _SUMS_END),
    "sp_attention_i8_run": ("sp_attention_i8", 6, ""),
    "sp_matmul_i8_run": ("sp_matmul_i8", 4, _SUMS_END),
    **{
        f"sp_lookup_linear_{x}_{y}": ("sp_lookup_linear", 3, "")
        for x in ("i16", "i32")
        for y in ("i8", "u8", "i16", "i32")
    },
    **{f"sp_lookup_{bits}": ("sp_lookup", 3, "") for bits in (8, 16, 32)},
    **{f"sp_max_pool2d_{x}": ("sp_pool_i8", 3, "") for x in ("i8", "u8", "i16")},
    **{f"sp_softmax_i8_{kind}": ("sp_softmax_i8", 3, "") for kind in ("exact", "litert")},
    "sp_lstm_i8": ("sp_recur_i8", 10, ""),
    "sp_gru_i8": ("sp_recur_i8", 12, ""),
}
_HEADERS = {
    "sp_conv2d_i8": "conv2d_i8.h",
    "sp_depthwise_i8": "depthwise_i8.h",
    "sp_attention_i8": "attention_i8.h",
    "sp_matmul_i8": "matmul_i8.h",
    "sp_lookup": "lookup.h",
    "sp_lookup_linear": "lookup.h",
    "sp_pool_i8": "pool_i8.h",
    "sp_softmax_i8": "softmax_i8.h",
    "sp_recur_i8": "recurrent_i8.h",
}
_FIELDS = {"int": np.int32, "int32_t": np.int32, "float": np.float32, "ptrdiff_t": np.int64}


def _caller(function: str) -> str:
    """A C function that computes all tasks of a kernel, one after the other."""
    struct, count, end = _FUNCTIONS[function]
    names = [f"a{i}" for i in range(count)]
    taken = ", ".join((f"const {struct} *p", *(f"void *{n}" for n in names), "ptrdiff_t tasks"))
    run = f"{function}(*p, {', '.join(names)}, {end}(int)i);"
    signature = f"void all_{function}({taken})"
    return f"{signature};\n{signature} {{ for (ptrdiff_t i = 0; i < tasks; ++i) {run} }}\n"


def library(isa: str, folder: Path) -> Library:
    """The kernels for one instruction set, sizes at run time; skips a machine without it."""
    # sizes are no literals here: nothing unrolls
    quiet = '#ifdef __clang__\n#pragma clang diagnostic ignored "-Wpass-failed"\n#endif\n'
    files = dict.fromkeys(_HEADERS.values())
    headers = "".join(f'#include "kernels/{header}"\n' for header in files)
    return build(quiet + headers + "".join(map(_caller, _FUNCTIONS)), isa, folder)


def _layout(struct: str) -> np.dtype[np.void]:
    """A parameter struct of the headers as a NumPy type."""
    text = (NATIVE / "kernels" / _HEADERS[struct]).read_text(encoding="utf-8")
    found = re.search(rf"typedef struct {struct} {{(.*?)}}", text, re.DOTALL)
    assert found is not None
    fields = [
        (name.strip(), _FIELDS[kind])
        for kind, names in re.findall(rf"({'|'.join(_FIELDS)}) ([^;]+);", found[1])
        for name in names.split(",")
    ]
    return np.dtype(fields, align=True)


_LAYOUTS = {struct: _layout(struct) for struct in _HEADERS}


class Draw:
    """Random integers and codes; extreme ones are common."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def n(self, low: int, high: int) -> int:
        """An integer of both ends included."""
        return int(self.rng.integers(low, high + 1))

    def codes(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        """Codes; of one array in three all are at an end."""
        kind = self.n(0, 5)
        if kind == 0:
            return np.full(shape, self.rng.choice([low, high]))
        values = self.rng.integers(low, high + 1, shape)
        return np.where(values > (low + high) // 2, high, low) if kind == 1 else values

    def flag(self) -> bool:
        """Either."""
        return bool(self.n(0, 1))

    def slice(self, values: Array) -> Array:
        """The same values as a slice of wider rows."""
        before, after = self.n(0, 5), self.n(1, 9)
        n = values.shape[-1]
        wide = np.zeros((*values.shape[:-1], before + n + after), values.dtype)
        wide[..., before : before + n] = values
        return wide[..., before : before + n]

    def operands(
        self, x: tuple[int, ...], w: tuple[int, ...], columns: int
    ) -> tuple[Array, Array, Array | None, int]:
        """(codes of either sign, weights, bias or none, a zero point at an end or anywhere)."""
        dtype = (I8, U8)[self.n(0, 1)]
        low, high = dtype.limits
        zero = (low, high, 0, self.n(low, high))[self.n(0, 3)]
        bias = self.rng.integers(-(1 << 18), 1 << 18, columns).astype(np.int32)
        return (
            self.codes(x, low, high).astype(dtype.numpy),
            self.codes(w, -127, 127).astype(np.int8),
            bias if self.n(0, 1) else None,
            zero,
        )


class Made(NamedTuple):
    """A configuration: op, operands, and which of them are constants."""

    op: Op
    operands: tuple[Array | None, ...]
    constant: range = range(1, 3)


def conv2d_i8_matrix(seed: int) -> Made:
    """The same, of up to several steps of a matrix register, and rows of several blocks."""
    return conv2d_i8(seed, (21, 70, 150)[seed % 3], (9, 9, 80)[seed // 3 % 3])


def conv2d_i8(seed: int, channels: int = 21, side: int = 9) -> Made:
    """A convolution: every stride, dilation, pad and group, channels off every boundary."""
    d = Draw(seed)
    group = (1, 1, 1, 2, 3)[d.n(0, 4)]
    ci, co = d.n(1, channels), d.n(1, 50)
    kernel = tuple((1, 2, 3, 3, 5)[d.n(0, 4)] for _ in range(2))
    if d.n(0, 2) == 0:
        kernel, ci = (1, 1), 4 * d.n(1, 9)
    if group > 1:
        ci = max(ci, 4)
    dilations = tuple(d.n(1, 2) if d.n(0, 3) == 0 else 1 for _ in range(2))
    reach = [(k - 1) * s + 1 for k, s in zip(kernel, dilations, strict=True)]
    pads = tuple((d.n(0, k - 1), d.n(0, k - 1)) for k in kernel)
    more = d.n(0, 9), d.n(0, side)
    sides = tuple(max(1, r - sum(p)) + m for r, p, m in zip(reach, pads, more, strict=True))
    strides = (d.n(1, 3), d.n(1, 3))
    shape = (d.n(1, 2), *sides, group * ci)
    x, w, bias, zero = d.operands(shape, (group * co, ci, *kernel), group * co)
    return Made(Conv(strides, dilations, pads, group, True, zero=zero), (x, w, bias))


def depthwise_i8(seed: int) -> Made:
    """One output per channel."""
    d = Draw(seed)
    channels = (d.n(1, 7), 16, d.n(17, 40))[d.n(0, 2)]
    kernel = tuple((1, 2, 3, 3, 5, 7)[d.n(0, 5)] for _ in range(2))
    dilations = tuple(d.n(1, 2) if d.n(0, 3) == 0 else 1 for _ in range(2))
    strides = (d.n(1, 3), d.n(1, 3))
    reach = [(k - 1) * s + 1 for k, s in zip(kernel, dilations, strict=True)]
    pads = tuple((d.n(0, k - 1), d.n(0, k - 1)) for k in kernel)
    sides = tuple(max(1, r - sum(p)) + d.n(0, 9) for r, p in zip(reach, pads, strict=True))
    x, w, bias, zero = d.operands((d.n(1, 2), *sides, channels), (channels, 1, *kernel), channels)
    return Made(Conv(strides, dilations, pads, channels, True, zero=zero), (x, w, bias))


# Keys of which weights have eight bits yet, and features whose scores stay within `MASK`.
KEYS_MOST = (2**31 - 1) // (255 << 8)
FEATURES_MOST = (MASK - 1) // (255 * 255)
# Products that a sum in int32 holds: codes less a zero point reach 255, weights 127.
K_MOST = (2**31 - 1 - (1 << 18)) // (255 * 127)


def gemm_i8_matrix(seed: int) -> Made:
    """The same of more rows, and inputs of several steps of a matrix register."""
    return gemm_i8(seed, (33, 90, 200)[seed % 3], (90, 300)[seed // 3 % 2])


def gemm_i8(seed: int, rows: int = 33, inputs: int = 90) -> Made:
    """A product with a constant matrix; of one in fifty the sums come close to leaving int32."""
    d = Draw(seed)
    if seed % 50 == 0:
        m, n, k = d.n(1, 3), d.n(1, 5), K_MOST - d.n(0, 7)
    else:
        m, n, k = (1, d.n(1, rows))[d.n(0, 1)], d.n(1, 90), d.n(1, inputs)
    trans = bool(d.n(0, 1))
    x, w, bias, zero = d.operands((m, k), (n, k) if trans else (k, n), n)
    return Made(MatMul(False, trans, zero=zero), (x, w, bias))


def gemm_groups_i8(seed: int) -> Made:
    """The product of one group of inputs, of weights with a scale per group: a slice of rows."""
    made = gemm_i8(seed)
    x = made.operands[0]
    assert x is not None
    return made._replace(operands=(Draw(seed).slice(x), *made.operands[1:]))


def attention_i8_matrix(seed: int) -> Made:
    """The same, of up to several blocks of rows, and steps of features and of keys."""
    return attention_i8(seed, (17, 70, 100)[seed % 3], (40, 64, 150)[seed // 3 % 3])


def attention_i8(seed: int, rows_most: int = 17, features_most: int = 40) -> Made:
    """Attention, masked, causal, with shared heads; of one in 25 a length is at its most."""
    d = Draw(seed)
    batch, groups, repeat = d.n(1, 2), d.n(1, 3), d.n(1, 3)
    rows, keys = d.n(1, rows_most), d.n(1, 70 if rows_most == 17 else 300)
    features, e = d.n(1, features_most), d.n(1, features_most)
    if seed % 50 == 0:
        batch, groups, rows = 1, 1, d.n(1, 3)
        keys = (KEYS_MOST - d.n(0, 7), d.n(500, 1100))[d.n(0, 1)]
    elif seed % 50 == 25:
        batch, groups, rows, keys, features = 1, 1, d.n(1, 3), d.n(1, 7), FEATURES_MOST - d.n(0, 7)
    inside = (d.flag(), d.flag(), d.flag(), d.flag())
    shapes = [(groups * repeat, rows, features), (groups, keys, features), (groups, keys, e)]
    given: list[Array] = []
    zeros: list[int] = []
    for (h, n, w), swap in zip(shapes, inside, strict=False):
        dtype = (I8, U8)[d.n(0, 1)]
        low, high = dtype.limits
        zeros.append((low, high, 0, d.n(low, high))[d.n(0, 3)])
        shape = (batch, n, h, w) if swap else (batch, h, n, w)
        codes = d.codes(shape, low, high).astype(dtype.numpy)
        given.append(d.slice(codes) if d.n(0, 2) == 0 else codes)
    if d.flag():
        full = (batch, groups * repeat, rows, keys)
        values = d.codes(tuple(n if d.flag() else 1 for n in full), -500, 500)
        pick = d.rng.integers(0, 6, values.shape)
        values = np.select([pick == 0, pick == 1, pick == 2], [UNSEEN, -MASK, MASK], values)
        given.append(values.astype(np.int32))
    dtype = (I8, U8, I16)[d.n(0, 2)]
    low, high = dtype.limits
    step = float(np.float32(2.0 ** d.rng.uniform(-9, 9) * 100 / features))
    ratio = float(np.float32(d.rng.uniform(0.5, 2) * (200 if dtype == I16 else 1)))
    zero = 0 if dtype == I16 else (low, high, d.n(low, high))[d.n(0, 2)]
    causal, offset = d.flag(), d.n(-3, keys)
    op = AttentionCodes(zeros[0], zeros[2], zero, dtype, step, ratio, causal, offset, inside)
    return Made(op, tuple(given), range(0))


# Products of two codes less a zero point, each at most 255.
PRODUCTS_MOST = (2**31 - 1) // (255 * 255)


def matmul_i8(seed: int) -> Made:
    """A product of two matrices: batches, stored any way round, zero points of both; of one in 50
    the sums come close to leaving int32.
    """
    d = Draw(seed)
    m, n, k = d.n(1, 19), d.n(1, 90), d.n(1, 70)
    batch: tuple[int, ...] = ((), (d.n(1, 3),), (d.n(1, 2), d.n(1, 3)))[d.n(0, 2)]
    if seed % 50 == 0:
        batch, m, n, k = (), d.n(1, 7), d.n(1, 5), PRODUCTS_MOST - d.n(0, 7)
    elif seed % 50 == 25:  # more columns than are packed at once
        batch, m, n, k = (), d.n(1, 7), d.n(300, 500), d.n(200, 300)
    trans_a, trans_b = d.flag(), d.flag()
    shared = d.n(0, 2) == 0
    given: list[Array] = []
    zeros: list[int] = []
    shapes = [(*batch, *((k, m) if trans_a else (m, k)))]
    shapes.append((*(() if shared else batch), *((n, k) if trans_b else (k, n))))
    for shape in shapes:
        dtype = (I8, U8)[d.n(0, 1)]
        low, high = dtype.limits
        zeros.append((low, high, 0, d.n(low, high))[d.n(0, 3)])
        codes = d.codes(shape, low, high).astype(dtype.numpy)
        given.append(d.slice(codes) if d.n(0, 2) == 0 else codes)
    return Made(MatMul(trans_a, trans_b, zero=zeros[0], zero_b=zeros[1]), tuple(given), range(0))


def lookup_table(seed: int) -> Made:
    """A table of 8, 16 or 32 bits, over whole tensors and slices."""
    d = Draw(seed)
    given, to = (I8, U8)[d.n(0, 1)], (I8, U8, I16, I32, F32)[d.n(0, 4)]
    shape = (d.n(1, 5), (d.n(1, 70), d.n(1, 700))[d.n(0, 1)])
    x = d.codes(shape, *given.limits).astype(given.numpy)
    table = d.rng.standard_normal(256) if to == F32 else d.codes((256,), *to.limits)
    operands = d.slice(x) if d.flag() else x, table.astype(to.numpy)
    return Made(Lookup(), operands, range(1, 2))


def max_pool_i8(seed: int) -> Made:
    """Every window, stride, dilation and pad, windows that hold nothing; bytes and 16 bits."""
    d = Draw(seed)
    kernel = d.n(1, 5), d.n(1, 5)
    dilations = tuple(d.n(1, 2) if d.n(0, 3) == 0 else 1 for _ in range(2))
    pads = tuple((d.n(0, k), d.n(0, k)) for k in kernel)
    reach = [(k - 1) * s + 1 for k, s in zip(kernel, dilations, strict=True)]
    sides = tuple(max(1, r - sum(p)) + d.n(0, 9) for r, p in zip(reach, pads, strict=True))
    dtype = (I8, U8, I16)[d.n(0, 2)]
    shape = (d.n(1, 2), *sides, (d.n(1, 7), 16, d.n(17, 70))[d.n(0, 2)])
    x = d.codes(shape, *dtype.limits).astype(dtype.numpy)
    op = Pool("max", kernel, (d.n(1, 3), d.n(1, 3)), dilations, pads, channels_last=True)
    return Made(op, (d.slice(x) if d.n(0, 2) == 0 else x,), range(0))


# Elements of which each adds 2^15 at most.
ROW_MOST = MAX_SUM >> 15


def softmax_codes(seed: int) -> Made:
    """Both forms, over any axis; of one in 50 the sum comes close to its most."""
    d = Draw(seed)
    axis = d.n(0, 2)
    shape = [d.n(1, 5), d.n(1, 40), d.n(1, 9)]
    if seed % 50 == 0:
        shape = [1, 1, 1]
        shape[axis] = ROW_MOST - d.n(0, 7)
    given, to = (I8, U8)[d.n(0, 1)], (I8, U8)[d.n(0, 1)]
    low, high = to.limits
    x = d.codes(tuple(shape), *given.limits).astype(given.numpy)
    spread = np.exp(-np.arange(256) * 2.0 ** d.rng.uniform(-9, 1))
    zero = (low, high, d.n(low, high))[d.n(0, 2)]
    if d.flag():
        op = SoftmaxCodes(axis, zero, to, step=float(np.float32(d.rng.uniform(0.002, 0.006))))
        return Made(op, (x, spread.astype(np.float32)), range(1, 2))
    shift = d.n(18, 22)
    op = SoftmaxCodes(axis, zero, to, int(d.rng.uniform(0.5, 1) * 2 ** (shift + 8)), shift)
    return Made(op, (x, np.rint(spread * 2**15).astype(np.int32)), range(1, 2))


def lookup_linear(seed: int) -> Made:
    """A function between entries of any size, to codes of every type."""
    d = Draw(seed)
    dtype = (I8, U8, I16, I32)[d.n(0, 3)]
    low, high = (I16 if dtype == I32 else dtype).limits
    reach = REACH if d.flag() else 1 << d.n(0, 23)
    table = d.codes((ENTRIES,), -reach, reach).astype(np.int32)
    given = (I16, I32)[d.n(0, 1)]
    x = d.codes((d.n(1, 300),), *((I16, given)[d.n(0, 1)].limits)).astype(given.numpy)
    ends = sorted((d.n(low, high), d.n(low, high))) if d.flag() else (low, high)
    op = LookupLinear(d.n(low, high), ends[0], ends[1], dtype)
    return Made(op, (x, table), range(1, 2))


def _recurrent(d: Draw, gates: int, wide: bool) -> tuple[Array, Array, Array]:
    """Gates of the inputs, recurrent weights, and ratios."""
    time, batch, hidden = d.n(1, 3), d.n(1, 3), (d.n(1, 70), 16, 32)[d.n(0, 2)]
    if wide:  # sums that float32 has to round
        time, batch, hidden = d.n(1, 2), 1, d.n(520, 560)
    reach = 1 << (20 if d.n(0, 3) == 0 else 13)
    x = d.codes((time, batch, gates * hidden), -reach, reach).astype(np.int32)
    r = d.codes((gates * hidden, hidden), -128, 127).astype(np.int8)
    ratio = d.rng.uniform(0.05, 3, gates * hidden) * 2.0 ** (0, 0, d.n(-12, 12))[d.n(0, 2)]
    return d.slice(x) if d.n(0, 2) == 0 else x, r, ratio.astype(np.float32)


def _cell(d: Draw, bits: int) -> tuple[int, float, bool, bool, int]:
    """Zero point, step, direction, whether every step's output is wanted, clip."""
    zero = (-128, 127, 0, d.n(-128, 127))[d.n(0, 3)]
    step = float(np.float32(2.0**-bits * d.rng.uniform(60, 200) * (1, 1, 9)[d.n(0, 2)]))
    return zero, step, d.flag(), d.flag(), (0, 0, 1 << 15, d.n(1, 40000))[d.n(0, 3)]


def _state(d: Draw, shape: tuple[int, ...], bits: int) -> Array | None:
    """An initial state of int32, or none."""
    values = d.codes(shape, -(1 << bits), (1 << bits) - 1).astype(np.int32)
    return values if d.flag() else None


def lstm_i8(seed: int) -> Made:
    """An LSTM: directions, coupled gates, hidden units off every boundary, states at their ends."""
    d = Draw(seed)
    x, r, ratio = _recurrent(d, 4, seed % 125 == 0)
    end = (x.shape[1], r.shape[1])
    h0 = d.codes(end, -128, 127).astype(np.int8) if d.flag() else None
    c0 = _state(d, end, (23, 31)[d.n(0, 1)])
    return Made(LSTMCodes(*_cell(d, 30), d.flag()), (x, r, ratio, h0, c0))


def gru_i8(seed: int) -> Made:
    """A GRU, likewise, with the reset gate before or after the product."""
    d = Draw(seed)
    x, r, ratio = _recurrent(d, 3, seed % 125 == 0)
    h0 = _state(d, (x.shape[1], r.shape[1]), (20, 31)[d.n(0, 1)])
    op = GRUCodes(*_cell(d, 20), d.flag())
    return Made(op, (x, r, ratio, h0, _state(d, r.shape[1:], 20) if op.reset_after else None))


MAKERS: Mapping[str, Callable[[int], Made]] = {
    f.__name__: f
    for f in (
        *(conv2d_i8, depthwise_i8, gemm_i8, gemm_groups_i8, matmul_i8, lookup_linear),
        *(lookup_table, max_pool_i8, softmax_codes),
        *(attention_i8, lstm_i8, gru_i8, conv2d_i8_matrix, gemm_i8_matrix, attention_i8_matrix),
    )
}
_FAMILIES = (conv_i8, matmul_rows, attention_rows, lookup, pool_i8, softmax_i8, recurrent_i8)
_ROWS = {row.name: row for family in _FAMILIES for row in family.ROWS}
_ROWS |= {
    "gemm_groups_i8": _ROWS["gemm_i8"],
    "lookup_table": _ROWS["lookup"],
    "softmax_codes": _ROWS["softmax_i8"],
}


def rows_of(isa: str) -> list[str]:
    """The configurations for an instruction set; where it has matrix registers, theirs alone."""
    own = [name for name, row in _ROWS.items() if row.isas and isa in row.isas]
    matrix = [name for name in own if name.endswith("_matrix")]
    return matrix or [name for name in MAKERS if not name.endswith("_matrix")]


# What memory holds before it is written, and how much of it follows a result.
_FILL, _BEYOND = 0xA5, 64
_DTYPES = {np.dtype(t.numpy): t for t in (I8, U8, I16, I32, F32)}


def _tensor(a: Array, const: bool = False) -> Tensor:
    strides = tuple(s // a.itemsize for s in a.strides)
    return Tensor(TensorType(a.shape, _DTYPES[a.dtype]), strides, a if const else None)


def _lowered(
    row: str, made: Made, want: tuple[Array, ...], isa: str, seed: int
) -> tuple[Lowered, Invoke]:
    """How a row computes a configuration: for one thread or two, and where RAM is short."""
    t = target(BYTES_TARGETS[isa])
    if seed % 4 == 0:
        t = replace(t, triple="x86_64-freestanding-none")
    operands = tuple(
        None if a is None else _tensor(a, i in made.constant) for i, a in enumerate(made.operands)
    )
    case = Case(made.op, operands, tuple(map(_tensor, want)), t, 1 + seed % 2)
    lowered = _ROWS[row].lower(case)
    assert not isinstance(lowered, Reject), (row, made.op, lowered)
    (invoke,) = lowered.calls
    assert isinstance(invoke, Invoke)
    return lowered, invoke


def _memory(a: Array) -> Array:
    """The bytes from the first element of an array to its last, and 3 more.

    Four bytes at a time are read of the last channels of a pixel.
    """
    span = a.itemsize + sum((n - 1) * s for n, s in zip(a.shape, a.strides, strict=True))
    to = np.zeros(span + 3, np.uint8)
    to[:span] = np.lib.stride_tricks.as_strided(a.view(np.uint8), (span,), (1,))
    return to


def _overlapped(x: Array, y: Array, lead: int) -> tuple[Array, Array]:
    """Memory of an input and of a result, which begins ``lead`` bytes before it."""
    given, result = max(lead, 0), max(-lead, 0)
    size = max(given + x.nbytes + 3, result + y.nbytes + _BEYOND)
    memory = np.full(-(-size // 64) * 64, _FILL, np.uint8)
    memory[given : given + x.nbytes] = x.reshape(-1).view(np.uint8)
    return memory[given:], memory[result:]


def check(native: Library, isa: str, row: str, seed: int) -> str:
    """Compute a configuration; what is wrong with it, empty when nothing is.

    Where the result may run over the input, it is computed in that place.
    """
    made = MAKERS[row](seed)
    want = made.op.eval(*made.operands)
    lowered, invoke = _lowered(row, made, want, isa, seed)
    params = np.zeros(1, _LAYOUTS[invoke.struct])
    for name, value in invoke.params.items():
        params[name] = value
    # neither results nor scratch memory start out as zeros, and nothing follows a result
    results = [np.full(y.nbytes + _BEYOND, _FILL, np.uint8) for y in want]
    scratch = np.full(lowered.scratch_bytes + 64, _FILL, np.uint8)
    x = made.operands[0]
    over = lowered.lead is not None and x is not None and x.flags.c_contiguous
    if over:
        assert lowered.lead is not None and x is not None
        lead = lowered.lead + -lowered.lead % want[0].itemsize
        first, results[0] = _overlapped(x, want[0], lead)
    pointers: list[Array] = []
    for argument in invoke.arguments:
        if isinstance(argument, In):
            given = made.operands[argument.index]
            assert given is not None
            pointers.append(first if over and argument.index == 0 else _memory(given))
        elif isinstance(argument, Packed):
            pointers.append(np.ascontiguousarray(lowered.packed[argument.index]))
        elif isinstance(argument, Out):
            pointers.append(results[argument.index])
        elif isinstance(argument, Scratch):
            pointers.append(scratch)
    tasks = max(lowered.tasks, invoke.repeat)
    call(native, f"all_{invoke.function}", params, *pointers, tasks)
    off = sum(
        int((got[: y.nbytes].view(y.dtype) != y.reshape(-1)).sum())
        + (0 if over else int((got[y.nbytes :] != _FILL).sum()))
        for got, y in zip(results, want, strict=True)
    )
    if off == 0:
        return ""
    shapes = [None if a is None else a.shape for a in made.operands]
    return f"{row} seed {seed} on {isa}: {off} numbers differ: {made.op} {shapes}"
