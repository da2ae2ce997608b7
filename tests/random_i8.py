"""Random configurations of the 8-bit sums, thousands to one library.

Emitted code has every size as a literal, so each configuration costs a compilation. Here the same
kernel headers are compiled once per instruction set with sizes known at run time, and a row's own
lowering says the parameters, packs the weights and cuts the tasks. Results are int32 sums, without
an epilogue; those, and specialised code, are what `test_kernels_i8.py` compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from emitted import TARGETS
from native_harness import NATIVE, Library, build, call
from sparrow.kernels import conv_i8
from sparrow.kernels.case import Case, Invoke, Lowered, Reject, Tensor
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets import target
from sparrow.tensor import I8, I32, U8, Array, TensorType, row_major

_TEXT = """
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* sizes are no literals here: nothing unrolls */
#endif
#include "kernels/conv2d_i8.h"
#include "kernels/depthwise_i8.h"
#define SP_SUMS(name, run, struct_name) \\
  void name(const struct_name *p, const uint8_t *x, const int8_t *w, const int32_t *init, \\
            int32_t *y, uint8_t *scratch, ptrdiff_t tasks); \\
  void name(const struct_name *p, const uint8_t *x, const int8_t *w, const int32_t *init, \\
            int32_t *y, uint8_t *scratch, ptrdiff_t tasks) { \\
    for (ptrdiff_t i = 0; i < tasks; ++i) \\
      run(*p, x, w, init, y, scratch, sp_ep_none_i32, NULL, (int)i); \\
  }
SP_SUMS(conv2d, sp_conv2d_i8_run, sp_conv2d_i8)
SP_SUMS(depthwise, sp_depthwise_i8_run, sp_depthwise_i8)
"""
_HEADERS = {"sp_conv2d_i8": "conv2d_i8.h", "sp_depthwise_i8": "depthwise_i8.h"}


def library(isa: str, folder: Path) -> Library:
    """The kernels for one instruction set, sizes at run time; skips a machine without it."""
    return build(_TEXT, isa, folder)


def _layout(struct: str) -> np.dtype[np.void]:
    """A parameter struct of the headers as a NumPy type."""
    text = (NATIVE / "kernels" / _HEADERS[struct]).read_text(encoding="utf-8")
    found = re.search(rf"typedef struct {struct} {{(.*?)}}", text, re.DOTALL)
    assert found is not None
    fields = [
        (name.strip(), np.int32 if kind == "int" else np.int64)
        for kind, names in re.findall(r"(int|ptrdiff_t) ([^;]+);", found[1])
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


Made = tuple[Conv | MatMul, Array, Array, Array | None]


def conv2d_i8(seed: int) -> Made:
    """A convolution: every stride, dilation, pad and group, channels off every boundary."""
    d = Draw(seed)
    group = (1, 1, 1, 2, 3)[d.n(0, 4)]
    ci, co = d.n(1, 21), d.n(1, 50)
    kernel = tuple((1, 2, 3, 3, 5)[d.n(0, 4)] for _ in range(2))
    if d.n(0, 2) == 0:
        kernel, ci = (1, 1), 4 * d.n(1, 9)
    if group > 1:
        ci = max(ci, 4)
    dilations = tuple(d.n(1, 2) if d.n(0, 3) == 0 else 1 for _ in range(2))
    reach = [(k - 1) * s + 1 for k, s in zip(kernel, dilations, strict=True)]
    pads = tuple((d.n(0, k - 1), d.n(0, k - 1)) for k in kernel)
    sides = tuple(max(1, r - sum(p)) + d.n(0, 9) for r, p in zip(reach, pads, strict=True))
    strides = (d.n(1, 3), d.n(1, 3))
    shape = (d.n(1, 2), *sides, group * ci)
    x, w, bias, zero = d.operands(shape, (group * co, ci, *kernel), group * co)
    return Conv(strides, dilations, pads, group, True, zero=zero), x, w, bias


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
    return Conv(strides, dilations, pads, channels, True, zero=zero), x, w, bias


# Products that a sum in int32 holds: codes less a zero point reach 255, weights 127.
K_MOST = (2**31 - 1 - (1 << 18)) // (255 * 127)


def gemm_i8(seed: int) -> Made:
    """A product with a constant matrix; of one in fifty the sums come close to leaving int32."""
    d = Draw(seed)
    if seed % 50 == 0:
        m, n, k = d.n(1, 3), d.n(1, 5), K_MOST - d.n(0, 7)
    else:
        m, n, k = (1, d.n(1, 33))[d.n(0, 1)], d.n(1, 90), d.n(1, 90)
    trans = bool(d.n(0, 1))
    x, w, bias, zero = d.operands((m, k), (n, k) if trans else (k, n), n)
    return MatMul(False, trans, zero=zero), x, w, bias


MAKERS: Mapping[str, Callable[[int], Made]] = {
    f.__name__: f for f in (conv2d_i8, depthwise_i8, gemm_i8)
}
_ROWS = {row.name: row for row in conv_i8.ROWS}


def _lowered(row: str, made: Made, isa: str, threads: int) -> tuple[Lowered, Array]:
    """How a row computes a configuration, and what it has to give."""
    op, x, w, bias = made
    arrays = [x, w] if bias is None else [x, w, bias]
    (want,) = op.eval(*arrays)
    dtypes = {a.dtype: t for t in (I8, U8, I32) for a in [np.zeros(1, t.numpy)]}

    def tensor(a: Array, const: Array | None) -> Tensor:
        return Tensor(TensorType(a.shape, dtypes[a.dtype]), row_major(a.shape), const)

    operands = (tensor(x, None), *(tensor(a, a) for a in arrays[1:]))
    case = Case(op, operands, (tensor(want, None),), target(TARGETS[isa]), threads)
    lowered = _ROWS[row].lower(case)
    assert not isinstance(lowered, Reject), (row, op, lowered)
    return lowered, want


def check(native: Library, isa: str, row: str, seed: int) -> str:
    """Compute a configuration; what is wrong with it, empty when nothing is."""
    made = MAKERS[row](seed)
    lowered, want = _lowered(row, made, isa, 1 + seed % 2)
    (invoke,) = lowered.calls
    assert isinstance(invoke, Invoke)
    params = np.zeros(1, _LAYOUTS[invoke.struct])
    for name, value in invoke.params.items():
        params[name] = value
    name = "depthwise" if "depthwise" in invoke.function else "conv2d"
    w, init = (np.ascontiguousarray(a).reshape(-1) for a in lowered.packed)
    # four bytes at a time are read of the last channels of a pixel
    x = np.concatenate([made[1].reshape(-1).view(np.uint8), np.zeros(3, np.uint8)])
    y, scratch = np.zeros(want.size, np.int32), np.zeros(lowered.scratch_bytes + 64, np.uint8)
    tasks = max(lowered.tasks, invoke.repeat)
    call(native, name, params, x, w, init, y, scratch, tasks)
    if np.array_equal(y.reshape(want.shape), want):
        return ""
    off = int((y.reshape(want.shape) != want).sum())
    return (
        f"{row} seed {seed} on {isa}: {off} of {want.size} sums differ: {made[0]} {made[1].shape}"
    )
