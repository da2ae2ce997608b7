"""docs/integer-spec.md written down once more, in integers of Python: the ops compute that."""

from __future__ import annotations

from math import exp, floor, log2

import numpy as np
import pytest

from sparrow import lane
from sparrow.builder import Builder
from sparrow.ops.attention_codes import AttentionCodes
from sparrow.ops.exponential import LIMIT, halved
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lookup_linear import LookupLinear
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.normalize import Normalize
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.softmax_codes import SoftmaxCodes
from sparrow.passes.integer import integer
from sparrow.passes.integer.tables import _between
from sparrow.passes.requantize import Constants, Grid, blended, scaled
from sparrow.reference import evaluate
from sparrow.rewrite import Reject
from sparrow.tensor import I8, I16, I32, Affine, Array, DType, TensorType

F = np.float32


def clip(v: float, low: float, high: float) -> float:
    return min(max(v, low), high)


def rne(v: np.float32) -> int:
    return int(np.rint(v))


def times(a: int, b: int) -> int:
    return (a * b + (1 << 14)) >> 15


def half(t: int, n: int) -> int:
    x = t % (1 << 15)
    p = (1 << 15) - times(x, 22662 - times(x, 7575 - times(x, 1298)))
    j = (t >> 15) + n
    return p if j == 0 else (p + (1 << (j - 1))) >> j


def sigmoid(x: int) -> int:
    e = half((abs(x) * 47274 + (1 << 10)) >> 11, 0)
    up = rne(F(1 << 30) / F((1 << 15) + e))
    return up if x >= 0 else (1 << 15) - up


def tanh(x: int) -> int:
    e = half((min(abs(x), 1 << 14) * 47274 + (1 << 9)) >> 10, 0)
    up = rne(F(((1 << 15) - e) << 15) / F((1 << 15) + e))
    return up if x >= 0 else -up


def evaluated(expr: lane.Expr | Reject, constants: Constants, *values: Array) -> list[int]:
    assert not isinstance(expr, Reject)
    return [int(v) for v in lane.evaluate(expr, (*values, *constants.arrays))]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scheme", ["f32", "fixed31", "pow2"])
def test_from_sums_to_codes(scheme: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    acc = rng.integers(-(2**31), 2**31, 200).astype(np.int32)
    m = 2.0 ** -int(rng.integers(0, 31)) if scheme == "pow2" else 2.0 ** rng.uniform(-30, -1)
    z, lo, hi = int(rng.integers(-128, 128)), -100, 110
    c = Constants(1)
    expr = scaled(scheme, lane.Arg(0, I32), np.array([m]), Grid(z, lo, hi, I8), c)  # type: ignore[arg-type]
    shift = 0
    while scheme == "fixed31" and np.rint(m * 2.0 ** (shift + 1)) < 2**31:
        shift += 1

    def code(a: int) -> int:
        if scheme == "f32":
            return z + int(clip(rne(F(a) * F(m)), lo - z, hi - z))
        s = round(-log2(m)) if scheme == "pow2" else shift
        whole = a if scheme == "pow2" else a * int(np.rint(m * 2.0**s))
        return z + int(clip((whole + (1 << s >> 1)) >> s, lo - z, hi - z))

    assert evaluated(expr, c, acc) == [code(int(a)) for a in acc]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("dtype", [I8, I16], ids=str)
def test_sums_of_values(seed: int, dtype: DType) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    b = [int(2 ** rng.uniform(7, 16)) for _ in range(count)]
    r = [float(2.0 ** rng.uniform(-9, 3) * rng.choice([-1, 1])) for _ in range(count)]
    x = [rng.integers(-v, v + 1, 100).astype(np.int32) for v in b]
    low, high = dtype.limits
    c = Constants(count)
    terms = [(lane.Arg(i, I32), b[i], np.asarray(r[i])) for i in range(count)]
    expr = blended(terms, Grid(3, low, high, dtype), c)
    reach, most = sum(p * abs(q) for p, q in zip(b, r, strict=True)), max(map(abs, r))
    s = max(n for n in range(31) if n == 0 or (reach + 0.5) * 2.0**n + sum(b) / 2 < 2.0**31)
    if most * 2.0**s < 2**14 or (dtype == I8 and max(b) / 2 >= 2.0 ** (s - 9)):
        s = min(46, 62 - (floor(log2(reach + 0.5 + sum(b) / 2)) + 1))
    m = [int(np.rint(v * 2.0**s)) for v in r]
    want = []
    for row in zip(*x, strict=True):
        total = sum(int(v) * k for v, k in zip(row, m, strict=True))
        want.append(3 + int(clip((total + (1 << s >> 1)) >> s, low - 3, high - 3)))
    assert evaluated(expr, c, *x) == want


def test_powers_of_two() -> None:
    t = np.linspace(0, LIMIT, 5001).astype(np.int32)
    for n in range(8):
        got = lane.evaluate(halved(lane.Arg(0, I32), n), (t,))
        assert got.tolist() == [half(int(v), n) for v in t]
        assert np.abs(got / 2.0 ** (15 - n) - 2.0 ** (-t / 2**15)).max() < 1.8e-4 + 2.0 ** (n - 16)


def test_a_table_with_lines_between_entries() -> None:
    z, s_x, s_y = -77, 8 / 2**15, 1 / 2**14
    f = np.tanh(np.arange(-(2**15), 2**15 + 1) * s_x) / s_y
    found = _between(f, Grid(z, *I16.limits, I16))
    assert not isinstance(found, Reject)
    table = []
    for i in range(513):
        ends = [clip(f[128 * k] * 128, -(2**23), 2**23) for k in (i, min(i + 1, 512))]
        bend = 0.0 if i == 512 else sum(ends) / 2 - f[128 * i + 64] * 128
        table.append(int(np.rint(ends[0] - bend / 2)))
    assert found[1].tolist() == table
    x = np.arange(-(2**15), 2**15, 7).astype(np.int16)
    want = []
    for v in x:
        i, o = divmod(int(v) + 2**15, 128)
        steps = (table[i] * (128 - o) + table[i + 1] * o + 2**13) >> 14
        want.append(int(clip(z + steps, *I16.limits)))
    assert isinstance(found[0], LookupLinear) and found[0].eval(x, found[1])[0].tolist() == want


def test_softmax_to_8_bits() -> None:
    s_x, s_y, z = 0.07, 1 / 256, -128
    x = np.random.default_rng(0).integers(-128, 128, (9, 33)).astype(np.int8)
    t = max(n for n in range(31) if np.rint(2.0**n / s_y) <= 2**30)
    c = int(np.rint(2.0**t / s_y))
    table = [int(np.rint(exp(-d * s_x) * 2**15)) for d in range(256)]
    (got,) = SoftmaxCodes(1, z, I8, c, t).eval(x, np.array(table, np.int32))
    for row, codes in zip(x.astype(int), got, strict=True):
        e = [table[row.max() - v] for v in row]
        r = (c + sum(e) // 2) // sum(e)
        assert codes.tolist() == [
            int(clip(z + ((v * r + (1 << t - 1)) >> t), -128, 127)) for v in e
        ]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("keys", [5, 700])
def test_attention(keys: int, wide: bool) -> None:
    rng, most = np.random.default_rng(keys), 2**15 if wide else 128
    shapes = ((1, 1, n, 8) for n in (3, keys, keys))
    q, k, v = (rng.integers(-most, most, n).astype(np.int16 if wide else np.int8) for n in shapes)
    mask = np.where(rng.random((3, keys)) < 0.2, -(1 << 31), rng.integers(-99, 99, (3, keys)))
    mask[2] = -(1 << 31)
    zq, zv, z, u = (0, 0, 4, 1e-7) if wide else (5, -9, 4, 2e-4)
    ratio, lost = (0.7, (2, 3)) if wide else (0.7, (0, 0))
    step = F(u * 2**15 * log2(np.e))
    op = AttentionCodes(zq, zv, z, I8, float(step), float(F(ratio)), shifts=lost)
    (got,) = op.eval(q, k, v, mask.astype(np.int32))
    bits = min(14, floor(log2((2**31 - 1) / (255 * keys))))
    assert bits == (14 if keys <= 514 else 13)

    def short(x: Array, n: int) -> list[int]:
        return [(int(c) + (1 << n >> 1)) >> n for c in x]

    for i in range(3):
        seen = [j for j in range(keys) if mask[i, j] != -(1 << 31)]
        if not seen:
            assert (got[0, 0, i] == z).all()
            continue
        a = np.array(short(q[0, 0, i], lost[0])) - zq
        s = {j: int(a @ short(k[0, 0, j], lost[1])) + int(mask[i, j]) for j in seen}
        top = max(s.values())
        e = {}
        for j in seen:
            d = rne(min(F(top - s[j]) * step, F(24 * 2**15)))
            e[j] = min(half(d, 15 - bits), 2**bits - 1)
        each = F(ratio) / F(sum(e.values()))
        for n in range(8):
            total = sum(e[j] * (int(v[0, 0, j, n]) - zv) for j in seen)
            total = (total + 128) >> 8 if wide else total
            assert got[0, 0, i, n] == z + clip(rne(F(total) * each), -128 - z, 127 - z)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("given", "to"), [(I8, I8), (I16, I16)], ids=str)
def test_normalization(given: DType, to: DType, center: bool) -> None:
    rng, n = np.random.default_rng(8), 48
    x = rng.integers(given.limits[0], given.limits[1] + 1, (5, n)).astype(given.numpy)
    x[1], x[2] = given.limits[0], x[2] // 99
    x[3, ::2] = given.limits[1]
    s_x, s_y, e = F(4 / given.limits[1]), F(5 / to.limits[1]), 1e-5
    gain, bias = (rng.uniform(-2, 2, n).astype(F) for _ in range(2))
    b = Builder("n")
    steps = [Affine(F(v).reshape(1, 1), np.zeros((1, 1), np.int32), (-1, -1)) for v in (s_x, s_y)]
    real = b.add(Dequantize(steps[0]), b.input("x", TensorType(x.shape, given)))
    y = b.add(Normalize((1,), e, center), real, b.const(gain), b.const(bias))
    g = integer(b.finish({"y": b.add(Quantize(steps[1], to), y)}, {}))
    assert not any(isinstance(k.op, Quantize) for k in g.nodes)
    got = evaluate(g, {"x": x})["y"]
    unit = 1.0 if center else np.sqrt(n)
    for row, codes in zip(x.astype(int).tolist(), got.tolist(), strict=True):
        s, q = (sum(row) if center else 0), sum(c * c for c in row)
        spread = n * q - s * s if center else q
        room = F(e * (n * n if center else n) / float(s_x) ** 2)
        r = F(1) / np.sqrt(F(spread) + room)
        for k in range(n):
            away = F(n * row[k] - s if center else row[k])
            own = F(float(gain[k]) * (unit * 2**12 / float(s_y)))
            shift = int(np.rint(float(bias[k]) * 2**12 / float(s_y)))
            v = rne(away * (r * own)) + shift
            assert codes[k] == clip((v + 2**11) >> 12, *to.limits)


def _part(acc: int, ratio: np.float32) -> int:
    return rne(F(clip(float(F(acc) * ratio), -(2**20), 2**20)))


def _code(value: int, unit: np.float32, z: int, halves: int = 0) -> int:
    low, high = (-halves, halves) if halves else (-128, 127)
    return z + int(clip(rne(F(value) * unit), low - z, high - z))


def _gate(v: int, most: int) -> int:
    return int(clip(v, max(-(2**15), -most), min(2**15 - 1, most)))


@pytest.mark.parametrize(
    ("couple", "z", "halves"), [(False, -3, 0), (True, -3, 0), (False, 0, 9000)]
)
def test_lstm(couple: bool, z: int, halves: int) -> None:
    rng, n, most = np.random.default_rng(3), 4, 20000
    x = rng.integers(-30000, 30000, (6, 1, 4 * n)).astype(np.int32)
    r = rng.integers(-127, 128, (4 * n, n)).astype(np.int8)
    codes = halves or 128
    ratio = (rng.uniform(13, 51, 4 * n) / codes).astype(F)
    unit = F(2.0**-30 * codes)
    op = LSTMCodes(z, float(unit), clip=most, couple=couple, most=halves)
    got, last, cell = op.eval(x, r, ratio)
    q, c = [z] * n, [0] * n
    for t in range(6):
        acc = [sum((q[j] - z) * int(r[g, j]) for j in range(n)) for g in range(4 * n)]
        a = [_gate(int(x[t, 0, g]) + _part(acc[g], ratio[g]), most) for g in range(4 * n)]
        for k in range(n):
            i, o, f = (sigmoid(a[k + n * g]) for g in range(3))
            f = (1 << 15) - i if couple else f
            c[k] = times(c[k], f) + ((i * tanh(a[k + 3 * n]) + 2**9) >> 10)
            q[k] = _code(o * tanh((c[k] + 2**8) >> 9), unit, z, halves)
        assert got[t, 0].tolist() == q
    assert last[0].tolist() == q and cell[0].tolist() == c


@pytest.mark.parametrize("after", [False, True])
def test_gru(after: bool) -> None:
    rng, n, z, most = np.random.default_rng(4), 4, 6, 1 << 20
    x = rng.integers(-30000, 30000, (6, 1, 3 * n)).astype(np.int32)
    r = rng.integers(-127, 128, (3 * n, n)).astype(np.int8)
    b = rng.integers(-5000, 5000, n).astype(np.int32)
    ratio, unit = rng.uniform(0.1, 0.4, 3 * n).astype(F), F(2.0**-20 * 128)
    more = (None, b) if after else ()
    got, last = GRUCodes(z, float(unit), reset_after=after).eval(x, r, ratio, *more)
    h = [0] * n
    for t in range(6):
        q = [_code(v, unit, z) for v in h]
        part = [
            _part(sum((q[j] - z) * int(r[g, j]) for j in range(n)), ratio[g]) for g in range(3 * n)
        ]
        u, s = (
            [sigmoid(_gate(int(x[t, 0, k]) + part[k], most)) for k in range(g * n, g * n + n)]
            for g in range(2)
        )
        if after:
            own = [times(part[2 * n + k] + int(b[k]), s[k]) for k in range(n)]
        else:
            kept = [times(q[j] - z, s[j]) for j in range(n)]
            own = [
                _part(sum(kept[j] * int(r[g, j]) for j in range(n)), ratio[g])
                for g in range(2 * n, 3 * n)
            ]
        for k in range(n):
            fresh = tanh(_gate(int(x[t, 0, 2 * n + k]) + own[k], most)) << 5
            h[k] = fresh + times(h[k] - fresh, u[k])
        assert got[t, 0].tolist() == [_code(v, unit, z) for v in h]
    assert last[0].tolist() == h
