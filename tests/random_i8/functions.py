"""Attention, tables, pools, softmax and recurrent layers over codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from random_i8.draw import Draw, Made
from sparrow.ops.attention_codes import MASK, UNSEEN, AttentionCodes
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lookup import Lookup
from sparrow.ops.lookup_linear import ENTRIES, REACH, LookupLinear
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.pool import Pool
from sparrow.ops.softmax_codes import MAX_SUM, SoftmaxCodes
from sparrow.tensor import F32, I8, I16, I32, U8, Array

# Keys of which weights have eight bits yet, and features whose scores stay within `MASK`.
KEYS_MOST = (2**31 - 1) // (255 << 8)
FEATURES_MOST = (MASK - 1) // (255 * 255)


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
    wide = d.n(0, 2) == 0
    for (h, n, w), swap in zip(shapes, inside, strict=False):
        dtype = I16 if wide else (I8, U8)[d.n(0, 1)]
        low, high = dtype.limits
        zeros.append(0 if wide else (low, high, 0, d.n(low, high))[d.n(0, 3)])
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
    lost = (0, 0)
    if wide:
        least = features.bit_length() + 1
        first = d.n(max(0, least - 15), min(15, least))
        lost = first, least - first + d.n(0, 1) * (least - first < 15)
        step /= 1 << min(30 - sum(lost), 16)
    ops = zeros[0], zeros[2], zero, dtype, float(np.float32(step)), ratio, causal, offset
    op = AttentionCodes(*ops, inside, lost)
    return Made(op, tuple(given), ())


def lookup(seed: int) -> Made:
    """A table of 8, 16 or 32 bits, over whole tensors and slices."""
    d = Draw(seed)
    given, to = (I8, U8)[d.n(0, 1)], (I8, U8, I16, I32, F32)[d.n(0, 4)]
    shape = (d.n(1, 9), (d.n(1, 70), d.n(1, 700), 16, 32)[d.n(0, 3)])
    x = d.codes(shape, *given.limits).astype(given.numpy)
    table = d.rng.standard_normal(256) if to == F32 else d.codes((256,), *to.limits)
    operands = d.slice(x) if d.flag() else x, table.astype(to.numpy)
    return Made(Lookup(), operands, (1,))


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
    return Made(op, (d.slice(x) if d.n(0, 2) == 0 else x,), ())


# Elements of which each adds 2^15 at most.
ROW_MOST = MAX_SUM >> 15


def softmax_i8(seed: int) -> Made:
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
        return Made(op, (x, spread.astype(np.float32)), (1,))
    shift = d.n(18, 22)
    op = SoftmaxCodes(axis, zero, to, int(d.rng.uniform(0.5, 1) * 2 ** (shift + 8)), shift)
    return Made(op, (x, np.rint(spread * 2**15).astype(np.int32)), (1,))


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
    return Made(op, (x, table), (1,))


def _recurrent(d: Draw, gates: int, wide: bool) -> tuple[Array, Array, Array]:
    """Gates of the inputs, recurrent weights, and ratios."""
    time, batch, hidden = d.n(1, 3), d.n(1, 3), (d.n(1, 70), 16, 32)[d.n(0, 2)]
    if wide:  # sums that float32 has to round
        time, batch, hidden = d.n(1, 2), 1, d.n(520, 560)
    reach = 1 << (20 if d.n(0, 3) == 0 else 13)
    x = d.codes((time, batch, gates * hidden), -reach, reach).astype(np.int32)
    r = d.codes((gates * hidden, hidden), -128 + d.flag(), 127).astype(np.int8)
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
    op = LSTMCodes(*_cell(d, 30), d.flag())
    if d.n(0, 2) == 0 and x.shape[2] < 2048:
        # hidden codes of 16 bits
        most = (32767, d.n(200, 32767))[d.n(0, 1)]
        h0 = None if h0 is None else (h0.astype(np.int32) * most // 128).astype(np.int16)
        op = replace(op, zero=0, step=float(np.float32(op.step * most / 128)), most=most)
        ratio = ratio * np.float32(128 / most)
    return Made(op, (x, r, ratio, h0, c0))


def gru_i8(seed: int) -> Made:
    """A GRU, likewise, with the reset gate before or after the product."""
    d = Draw(seed)
    x, r, ratio = _recurrent(d, 3, seed % 125 == 0)
    h0 = _state(d, (x.shape[1], r.shape[1]), (20, 31)[d.n(0, 1)])
    op = GRUCodes(*_cell(d, 20), d.flag())
    return Made(op, (x, r, ratio, h0, _state(d, r.shape[1:], 20) if op.reset_after else None))
