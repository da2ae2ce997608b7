"""Every lane function and dtype as compiled C, against its meaning in NumPy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitted import TARGETS, compiled, planned, run
from sparrow import lane
from sparrow.builder import Builder
from sparrow.emit.clips import bounds
from sparrow.emit.quotient import divides_exactly
from sparrow.graph import Graph
from sparrow.kernels.case import In, Loop, Out, Stream
from sparrow.kernels.loop import schedule, split_axis
from sparrow.ops.concat import Concat
from sparrow.ops.matmul import MatMul
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.reference import evaluate
from sparrow.tensor import (
    BF16,
    BOOL,
    DTYPES,
    F16,
    F32,
    F64,
    I8,
    I32,
    I64,
    U8,
    U16,
    Array,
    DType,
    TensorType,
    round_bfloat16,
)

WHOLE = tuple(t for t in DTYPES if t.bits >= 8)
# distance in units of the result's last place; two correct float functions differ by that much
ULPS = {F16: 2, BF16: 2, F32: 8, F64: 16}


def edge_values(t: DType) -> Array:
    """Values at which functions of a dtype do something special."""
    if t == BOOL:
        return np.array([False, True])
    if t.kind == "float":
        rng = np.random.default_rng(1)
        usual = np.concatenate([rng.standard_normal(6) * 3, rng.standard_normal(3) * 100])
        exact = [
            0.0,
            -0.0,
            np.nan,
            np.inf,
            -np.inf,
            1.0,
            -1.0,
            0.5,
            2.5,
            -3.5,
            127.6,
            255.4,
            -128.9,
        ]
        far = [3e9, -3e9, 1e-7] if t != F16 else [3e4, -3e4, 1e-7]
        with np.errstate(over="ignore"):
            values = np.concatenate([exact, far, usual]).astype(t.numpy)
        return round_bfloat16(values) if t == BF16 else values
    low, high = t.limits
    some = [
        v for v in (0, 1, 2, 3, 7, -1, -2, -5, low, low + 1, high, high - 1, 100, -77) if v >= low
    ]
    return np.array([v for v in some if v <= high], t.numpy)


def operands(count: int, t: DType) -> list[Array]:
    """Every combination of edge values, flat; a third operand is arbitrary."""
    v = edge_values(t)
    if count == 1:
        return [v]
    grid = np.meshgrid(v, v, indexing="ij")
    return [g.ravel() for g in grid]


def expressions() -> list[tuple[str, lane.Expr, DType]]:
    """Every function at every dtype it takes and every cast: name, expression, operand dtype."""
    found: list[tuple[str, lane.Expr, DType]] = []
    for t in WHOLE:
        x, y = lane.Arg(0, t), lane.Arg(1, t)
        for f in lane.LANE_FNS:
            if f.name == "cast" or t.kind not in f.kinds.split():
                continue
            if f.name == "where":
                e: lane.Expr = lane.call("where", _flag(x, t), x, y)
            elif f.name == "rshr":
                e = lane.call("rshr", x, lane.Imm(3, t))
            else:
                e = lane.call(f.name, *(x, y)[: f.arity])
            found.append((f"{f.name}_{t}", e, t))
        found += [(f"{t}_to_{u}", lane.cast(x, u), t) for u in WHOLE if u != t]
        if t == I32:
            product = lane.call("mul", lane.cast(x, I64), lane.cast(y, I64))
            high = lane.cast(lane.call("rshr", product, lane.Imm(31, I64)), I32)
            found.append(("high_product", high, t))
            count = lane.call("bitand", y, lane.Imm(15, I32))
            found.append(
                ("rshr_each", lane.call("rshr", lane.cast(lane.cast(x, I8), I32), count), t)
            )
    return found


def _flag(x: lane.Expr, t: DType) -> lane.Expr:
    return x if t == BOOL else lane.call("eq", x, x)


@functools.cache
def graph_of(kind: str) -> Graph:
    """One loop per expression over operands of float or of integer dtypes."""
    b = Builder(kind)
    names: dict[tuple[DType, int], str] = {}
    outputs: dict[str, str] = {}
    for name, e, t in expressions():
        if (t.kind == "float") != (kind == "float"):
            continue
        used = {a.index for a in lane.walk(e) if isinstance(a, lane.Arg)}
        count = max(used) + 1
        for i in range(count):
            if (t, i) not in names:
                size = operands(2, t)[0].size
                names[t, i] = b.input(f"{t}_{i}", TensorType((size,), t))
        outputs[name] = b.lane(e, *(names[t, i] for i in range(count)))
    return b.finish(outputs, {})


def values(g: Graph) -> dict[str, Array]:
    by_name = {t.name: t for t in DTYPES}
    parts = {n: n.rsplit("_", 1) for n in g.inputs}
    return {n: operands(2, by_name[t])[int(i)] for n, (t, i) in parts.items()}


def real(raw: Array, t: DType) -> Array:
    """An output as the reference holds it."""
    return (raw.astype(np.uint32) << 16).view(np.float32) if t == BF16 else raw


def assert_close(name: str, got: Array, want: Array, t: DType, slack: Array | float = 0.0) -> None:
    if t.kind != "float":
        np.testing.assert_array_equal(got, want, name)
        return
    wide = np.float64
    with np.errstate(all="ignore"):
        step = np.spacing(np.abs(want.astype(t.numpy)))
        step = (step.astype(wide) * (1 << 16)) if t == BF16 else step.astype(wide)
        near = np.abs(got.astype(wide) - want.astype(wide)) <= ULPS[t] * step + slack
    same = near | (got == want) | (np.isnan(got) & np.isnan(want))
    at = np.flatnonzero(~same)
    assert not at.size, f"{name}: {[(i, got[i], want[i]) for i in at[:5]]}"


@pytest.mark.parametrize("kind", ["float", "int"])
@pytest.mark.parametrize("form", ["vector", "scalar"])
@pytest.mark.parametrize("isa", TARGETS)
def test_every_function(
    isa: str, form: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "scalar":
        monkeypatch.setattr("sparrow.kernels.loop.vectorizable", lambda e: False)
    g = graph_of(kind)
    feeds = values(g)
    p = planned(g, isa=isa)
    got = run(p, compiled(p, tmp_path, flags=("-O1",)), feeds)
    want = evaluate(g, feeds)
    sources = {name: t for name, _, t in expressions()}
    for name, y in zip(g.outputs, got, strict=True):
        t = g.types[name].dtype
        source = sources[name]
        y = real(y, t)
        x0, x1 = (feeds.get(f"{source}_{i}", np.zeros(1)) for i in range(2))
        slack = np.zeros(y.shape)
        if name.startswith("gelu"):
            # 1 + erf cancels for negative x: good to the last places of x, not of the result
            slack = 8 * np.spacing(np.abs(x0.astype(np.float32)))
        if name in ("pow_int64", "pow_uint64"):
            # the reference computes in float64
            small = (np.abs(x0.astype(float)) < 1 << 20) & (np.abs(x1.astype(float)) < 3)
            y, want[name], slack = y[small], want[name][small], slack[small]
        assert_close(name, y, want[name], t, slack)


# -- walks ---------------------------------------------------------------------------------------


def walks() -> Graph:
    """Loops and copies over every kind of stride: broadcast, negative, transposed, short axes."""
    b = Builder("walks")
    outputs: dict[str, str] = {}
    tanh = lane.call("tanh", lane.Arg(0, F32))
    add = lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32))

    def x(*shape: int, t: DType = F32) -> str:
        return b.input(f"x{len(b.inputs)}", TensorType(shape, t))

    def out(y: str) -> None:
        outputs[f"y{len(outputs)}"] = y

    for n in (1, 2, 3, 5, 7, 8, 13, 16, 17, 33):
        image = x(2, 19, n)
        out(b.lane(add, image, x(n)))
        out(b.lane(add, image, x(19, 1)))
        out(b.lane(add, image, x(2, 1, n)))
        out(b.lane(tanh, b.transpose(image, (0, 2, 1))))
        out(b.transpose(image, (2, 1, 0)))
        out(b.transpose(b.lane(tanh, image), (1, 2, 0)))
        back = b.add(Slice((1, 18, n - 1), (1, 19, n), (1, -1, -1)), image)
        out(b.lane(tanh, back))
        out(b.add(Concat(2), b.lane(tanh, image), image))
        half = b.add(Slice((0, 0, 0), (2, 10, (n + 1) // 2), (1, 2, 2)), image)
        out(b.lane(add, half, x(1, 10, 1)))
    for t in (U8, I8, U16, F16, BF16, F64, I64, BOOL):
        wide = x(1, 5, 20, 21, t=t)
        out(b.add(Transpose((0, 2, 3, 1)), wide))
        out(b.add(Transpose((0, 3, 1, 2)), wide))
    quantize: lane.Expr = lane.call("round", lane.call("mul", lane.Arg(0, F32), lane.Imm(0.5, F32)))
    quantize = lane.clip(quantize, lane.Imm(-128.0, F32), lane.Imm(127.0, F32))
    out(b.lane(lane.cast(quantize, I8), x(3, 41)))
    for n in (2, 3, 4):
        planes = b.lane(lane.cast(quantize, I8), b.lane(add, x(n, 9, 23), x(n, 1, 1)))
        out(b.transpose(planes, (1, 2, 0)))
    scaled = lane.call("mul", lane.cast(lane.Arg(0, U8), F32), lane.Imm(0.25, F32))
    out(b.lane(scaled, x(3, 41, t=U8)))
    wide_sum = lane.call("add", lane.cast(lane.Arg(0, I8), I32), lane.Arg(1, I32))
    out(b.lane(wide_sum, x(5, 1, t=I8), x(37, t=I32)))
    out(
        b.lane(
            lane.call("where", lane.Arg(0, BOOL), lane.Arg(1, F32), lane.Imm(-1.0, F32)),
            x(1, 37, t=BOOL),
            x(3, 1),
        )
    )
    return b.finish(outputs, {})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", TARGETS)
def test_walks(isa: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if threads > 1:
        # cut even small loops into tasks
        monkeypatch.setattr("sparrow.kernels.loop.TASK_ELEMENTS", 64)
    g = walks()
    rng = np.random.default_rng(0)
    feeds = {}
    for n in g.inputs:
        u = g.types[n].dtype
        v = rng.standard_normal(g.types[n].shape) * 3
        feeds[n] = round_bfloat16(v.astype(np.float32)) if u == BF16 else v.astype(u.numpy)
    p = planned(g, isa=isa, threads=threads)
    assert threads == 1 or any(s.lowered.tasks > 1 for s in p.entries[0].steps)
    got = run(p, compiled(p, tmp_path, flags=("-O1",)), feeds, threads=threads)
    want = evaluate(g, feeds)
    for name, y in zip(g.outputs, got, strict=True):
        t = g.types[name].dtype
        assert_close(name, real(y, t).ravel(), want[name].ravel(), t)


def stream(operand: In | Out, *strides: int) -> Stream:
    return Stream(operand, TensorType((), F32), strides)


def loop(dims: Sequence[int], x: Sequence[int], y: Sequence[int], fn: str = "tanh") -> Loop:
    e: lane.Expr = lane.Arg(0, F32)
    e = lane.call(fn, e) if fn else e
    return Loop(tuple(dims), e, (stream(In(0), *x),), stream(Out(0), *y))


def test_schedules() -> None:
    assert schedule(loop((4420, 4), (4, 1), (4, 1)), 16).form == "blocks"
    assert schedule(loop((64, 640), (640, 1), (700, 1)), 16) == schedule(
        loop((64, 640), (640, 1), (700, 1)), 16
    )
    assert schedule(loop((64, 640), (640, 1), (700, 1)), 16).form == "vector"
    assert schedule(loop((3, 76800), (76800, 1), (1, 3), ""), 16).form == "scalar"
    assert schedule(loop((3, 76800), (76800, 1), (1, 3)), 16).form == "interleave"
    assert schedule(loop((76800, 3), (1, 76800), (3, 1)), 16).form == "interleave"
    assert schedule(loop((64, 6400), (6400, 1), (1, 64), ""), 16).form == "transpose"
    assert schedule(loop((640, 2), (4, 1), (2, 1)), 1).form in ("scalar", "vector")


def test_tasks_divide_a_long_axis() -> None:
    assert split_axis(loop((3, 76800), (76800, 1), (1, 3))) == 1
    assert split_axis(loop((64, 640), (640, 1), (700, 1))) == 0
    assert split_axis(loop((3, 9), (9, 1), (10, 1))) == 1
    assert split_axis(loop((3, 5), (5, 1), (6, 1))) == 0


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 8, 16]))
def test_the_schedule_is_never_slower_than_one_element_at_a_time(
    rows: int, cols: int, lanes: int
) -> None:
    c = loop((rows, cols), (cols, 1), (cols + 1, 1))
    assert schedule(c, lanes).cycles <= rows * cols * (0.5 + 14 + 2)


@pytest.mark.parametrize("isa", TARGETS)
def test_codes_are_those_of_the_division(isa: str, tmp_path: Path) -> None:
    """Beside every half, at the ends and at no number at all, whatever stands for the quotient."""
    rng = np.random.default_rng(5)
    steps = [np.float32(s) for s in (0.030478380620479584, 1 / 255, 0.1, *rng.uniform(1e-3, 9, 3))]
    b, values, outputs = Builder("codes"), {}, {}
    for i, s in enumerate(steps):
        middle = (np.arange(-129, 130) + 0.5).astype(np.float64) * s
        near = middle.astype(np.float32).view(np.int32)[:, None] + np.arange(-3, 4, dtype=np.int32)
        x = np.concatenate([near.view(np.float32).ravel(), edge_values(F32).astype(np.float32)])
        values[f"x{i}"] = x
        ratio = lane.call("div", lane.Arg(0, F32), lane.Imm(float(s), F32))
        low = lane.call("max", lane.call("round", ratio), lane.Imm(-127.0, F32))
        clipped = lane.call("min", low, lane.Imm(128.0, F32))
        code = lane.call("add", lane.cast(clipped, I32), lane.Imm(-1, I32))
        real = b.input(f"x{i}", TensorType(x.shape, F32))
        outputs[f"y{i}"] = b.lane(lane.cast(code, I8), real)
    g = b.finish(outputs, {})
    p = planned(g, isa=isa)
    assert divides_exactly(float(steps[0]), -127, 128)
    want = evaluate(g, values)
    for name, got in zip(g.outputs, run(p, compiled(p, tmp_path), values), strict=True):
        np.testing.assert_array_equal(got, want[name])


def test_a_reciprocal_that_rounds_badly_is_not_taken() -> None:
    below_two = float(np.nextafter(np.float32(2), np.float32(0)))
    assert not divides_exactly(below_two, -128, 127)
    assert not divides_exactly(1e-30, -128, 127)


def _hard_swish_of_sums(scale: float) -> tuple[Graph, dict[str, Array]]:
    """Codes of a hard-swish of sums over codes, 21 columns of scales up to the one given."""
    rng = np.random.default_rng(7)
    b, x = Builder("codes"), rng.integers(-128, 128, (40, 9)).astype(np.int8)
    total = lane.call("mul", lane.cast(lane.Arg(0, I32), F32), lane.Arg(1, F32))
    share: lane.Expr = lane.call("mul", total, lane.Imm(5.0, F32))
    share = lane.call("add", share, lane.Imm(15.0, F32))
    share = lane.clip(share, lane.Imm(0.0, F32), lane.Imm(30.0, F32))
    steps: lane.Expr = lane.call("round", lane.call("mul", total, share))
    steps = lane.clip(steps, lane.Imm(-119.0, F32), lane.Imm(136.0, F32))
    e = lane.cast(lane.call("add", lane.cast(steps, I32), lane.Imm(-9, I32)), I8)
    w = b.const(rng.integers(-127, 128, (9, 21)).astype(np.int8), I8)
    scales = b.const(rng.uniform(0.5, 1.0, (1, 21)).astype(np.float32) * np.float32(scale))
    y = b.add(MatMul(epilogue=e), b.input("x", TensorType(x.shape, I8)), w, "", scales)
    return b.finish({"y": y}, {}), {"x": x}


@pytest.mark.parametrize("scale", [2e-4, 3.0, 3e38])
@pytest.mark.parametrize("isa", TARGETS)
def test_codes_of_a_function_of_a_sum(isa: str, scale: float, tmp_path: Path) -> None:
    """Where magnitudes are known no clip is left, and where they leave float32 NaN is 0."""
    g, feeds = _hard_swish_of_sums(scale)
    p = planned(g, isa=isa)
    (got,) = run(p, compiled(p, tmp_path), feeds)
    want = evaluate(g, feeds)["y"]
    off = np.abs(got.astype(np.int64) - want)
    assert off.max() <= 1 and np.count_nonzero(off) <= off.size // 100
    assert len(np.unique(want)) > 20 or scale > 1
    if isa.startswith("avx512"):
        text = (tmp_path / "model.c").read_text(encoding="utf-8")
        assert ("INT32_MIN, INT32_MAX, " in text) == (scale < 1e3)


def int32_expressions() -> st.SearchStrategy[lane.Expr]:
    """Sums of products of a code and a scaled sum, clipped somewhere or not."""
    scaled = lane.call("mul", lane.cast(lane.Arg(1, I32), F32), lane.Imm(0.37, F32))
    rounded = lane.call("round", scaled)
    code = lane.call("min", lane.call("max", rounded, lane.Imm(-119, F32)), lane.Imm(136, F32))
    leaves: st.SearchStrategy[lane.Expr] = st.one_of(
        st.sampled_from([lane.cast(lane.Arg(0, I8), I32), lane.Arg(1, I32), lane.cast(code, I32)]),
        st.builds(lane.Imm, st.integers(-(1 << 23), 1 << 23), st.just(I32)),
    )
    return st.recursive(
        leaves,
        lambda e: st.builds(lane.call, st.sampled_from(["add", "sub", "mul", "min", "max"]), e, e),
        max_leaves=6,
    )


@given(int32_expressions(), st.integers(0, 1 << 16))
@settings(max_examples=200)
def test_bounds_hold(e: lane.Expr, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sums = rng.integers(-(1 << 31), 1 << 31, 256).astype(np.int32)
    sums[::2] >>= 16
    operands: list[Array] = [rng.integers(-128, 128, 256).astype(np.int8), sums]
    with np.errstate(over="ignore"):
        got = lane.evaluate(e, operands)
    low, high = bounds(e)
    assert low <= got.min() and got.max() <= high


def test_bounds_are_those_of_intervals() -> None:
    code = lane.cast(lane.Arg(0, I8), I32)
    assert bounds(lane.call("sub", code, lane.Imm(18, I32))) == (-146, 109)
    product = lane.call("mul", code, lane.Imm(-3, I32))
    assert bounds(product) == (-381, 384)
    assert bounds(lane.call("max", product, lane.Imm(-7, I32))) == (-7, 384)
    wraps = lane.call("mul", lane.Arg(1, I32), lane.Imm(2, I32))
    assert bounds(wraps) == I32.limits
