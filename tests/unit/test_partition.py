"""Which steps are split: no labelling is cheaper, and one costs what it says."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from itertools import product
from typing import Any

import numpy as np
import pytest

import sparrow.planner
from emitted import planned
from sparrow.builder import Builder
from sparrow.emit.c import emit
from sparrow.errors import BadInput
from sparrow.kernels.params_f32 import Conv2dShape, simd_of
from sparrow.kernels.tasks import Grid, core_of, task_grid
from sparrow.kernels.tiling_depthwise_i8 import choose_depthwise
from sparrow.kernels.tiling_f32 import Product, choose_gemm
from sparrow.kernels.tiling_i8 import Bytes, choose_conv2d
from sparrow.memory.partition import Flow, split_cycles, worth_splitting
from sparrow.ops.concat import Concat
from sparrow.ops.matmul import MatMul
from sparrow.ops.softmax import Softmax
from sparrow.targets import target
from sparrow.targets.read import read_device
from sparrow.tensor import F32, TensorType

CPU = replace(target("x86_64_v4"), ghz=4.0, fork_ns=700.0, move_ns_per_byte=0.5)
MOVE_CYCLES = 2.0


def price(
    labels: tuple[bool, ...],
    whole: list[float],
    split: list[float | None],
    flows: list[Flow],
    threads: int,
) -> float:
    total = 0.0
    for label, w, s in zip(labels, whole, split, strict=True):
        total += (s if s is not None else np.inf) if label else w
    for f in flows:
        if labels[f.source] != labels[f.target]:
            total += MOVE_CYCLES * f.bytes * (threads - 1) / threads
    return total


@pytest.mark.parametrize("seed", range(40))
def test_no_labelling_is_cheaper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, threads = int(rng.integers(1, 10)), int(rng.integers(2, 9))
    whole = [float(c) for c in rng.integers(100, 200_000, n)]
    split = [
        split_cycles(w, int(rng.integers(1, 9)), threads, CPU) if rng.random() < 0.8 else None
        for w in whole
    ]
    flows = [
        Flow(int(a), b, int(rng.integers(0, 60_000)))
        for b in range(1, n)
        for a in rng.choice(b, min(b, 2), replace=False)
    ]
    found = worth_splitting(whole, split, flows, threads, CPU)
    mine = price(tuple(i in found for i in range(n)), whole, split, flows, threads)
    best = min(
        price(labels, whole, split, flows, threads)
        for labels in product((False, True), repeat=n)
        if all(s is not None or not label for label, s in zip(labels, split, strict=True))
    )
    # capacities are rounded to 16 cycles
    assert mine <= best + 16.0 * (2 * n + len(flows))


def test_a_small_step_between_split_ones_is_split_and_alone_it_is_not() -> None:
    big, small = 400_000.0, 4_000.0
    halves = [split_cycles(c, 2, 2, CPU) for c in (big, small, big)]
    chain = [Flow(0, 1, 100_000), Flow(1, 2, 100_000)]
    assert worth_splitting([big, small, big], halves, chain, 2, CPU) == {0, 1, 2}
    assert worth_splitting([small], [halves[1]], [], 2, CPU) == frozenset()
    assert worth_splitting([big, small, big], [halves[0], None, halves[2]], chain, 2, CPU) == {0, 2}
    assert worth_splitting([1.0], [None], [], 2, CPU) == frozenset()


def test_uneven_tasks_cost_the_longest_share() -> None:
    assert split_cycles(300.0, 3, 2, CPU) == 200.0 + CPU.fork_cycles
    assert split_cycles(300.0, 4, 2, CPU) == 150.0 + CPU.fork_cycles


def tasks(flops: int, rows: int, columns: int, **more: int) -> tuple[int, int]:
    """Of two cores."""
    return task_grid(Grid(flops=flops, rows=rows, columns=columns, **more), 2, core_of(CPU))


def test_rows_are_split_before_columns() -> None:
    """So that the next layer finds its rows where they were written."""
    image = 4 * 49 * 512
    # 7 rows do not halve evenly, 32 columns would, but then half of the input has to move
    assert tasks(900_000, 7, 32, input_bytes=image) == (4, 32)
    # where there is much to compute, balance counts for more
    assert tasks(500_000_000, 7, 32, input_bytes=image) == (7, 16)
    # one row: nothing else is left
    assert tasks(50_000_000, 1, 64, input_bytes=4096, weight_bytes=4 << 20) == (1, 32)
    # too little work
    assert tasks(10_000, 64, 64, input_bytes=4096, weight_bytes=4096) == (64, 64)


def test_columns_are_halved_between_panels() -> None:
    """7 rows of 32 columns in panels of 3: halves of 16, each with a narrow panel at its end."""
    image = 4 * 49 * 512
    assert tasks(500_000_000, 7, 32, input_bytes=image, panel=3) == (7, 16)
    # whole panels balance as well
    assert tasks(500_000_000, 7, 32, input_bytes=image, panel=4) == (7, 16)
    assert tasks(500_000_000, 1, 30, input_bytes=4096, panel=5) == (1, 15)
    # a narrow panel takes more than its share, and here the whole one that it would spare
    assert tasks(500_000_000, 1, 7, input_bytes=4096, panel=2) == (1, 4)
    assert tasks(10_000, 7, 32, input_bytes=4096, panel=3) == (7, 32)


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize(("pixels", "ci", "co"), [(3136, 24, 144), (3136, 16, 72), (19200, 16, 32)])
@pytest.mark.parametrize("flip", [False, True])
def test_pixels_of_pointwise_int8_layers_are_shared_equally(
    pixels: int, ci: int, co: int, flip: bool, threads: int
) -> None:
    """However they are divided into blocks that stay in the cache."""
    side = 56 if pixels == 3136 else 120
    s = Conv2dShape(
        batch=1, ih=side, iw=pixels // side, oh=side, ow=pixels // side, kh=1, kw=1, sh=1, sw=1,
        dh=1, dw=1, pt=0, pl=0, xn=pixels * ci, xh=pixels // side * ci, xw=ci, ldy=co, ci=ci, co=co,
    )  # fmt: skip
    p, _, _ = choose_conv2d(s, Bytes(flip, 0, 0), target("x86_64_v4_bf16"), threads=threads)
    assert p.tasks == threads
    tasks = [
        (min(y + p.task_h, p.oh) - y) * (min(x + p.task_w, p.ow) - x)
        for y in range(0, p.oh, p.task_h)
        for x in range(0, p.ow, p.task_w)
    ]
    assert sum(tasks) == pixels and len(tasks) == threads
    assert max(tasks) <= 1.05 * pixels / threads


@pytest.mark.parametrize(("height", "width"), [(7, 7), (14, 14), (28, 28), (15, 20)])
@pytest.mark.parametrize("matrix", [False, True])
def test_tasks_of_pixels_end_between_rows(height: int, width: int, matrix: bool) -> None:
    """Where those of the depthwise layer behind them do, whatever the tile."""
    pixels, ci, co = height * width, 96, 576
    s = Conv2dShape(
        batch=1, ih=height, iw=width, oh=height, ow=width, kh=1, kw=1, sh=1, sw=1, dh=1, dw=1,
        pt=0, pl=0, xn=pixels * ci, xh=width * ci, xw=ci, ldy=co, ci=ci, co=co,
    )  # fmt: skip
    cpu = target("x86_64_v4_amx" if matrix else "x86_64_v4_bf16")
    p, _, _ = choose_conv2d(s, Bytes(False, 0, 0), cpu, threads=2, matrix=matrix)
    assert (p.tasks, p.task_w) == (2, -(-height // 2) * width)


@pytest.mark.parametrize(("side", "channels"), [(14, 96), (14, 120), (7, 288)])
def test_cores_add_up_the_rows_that_they_have(side: int, channels: int) -> None:
    """Sums of all rows of each half are small work, but over bytes that the other core has."""
    rows = -(-side // 2)
    s = Conv2dShape(
        batch=1, ih=side, iw=side, oh=2, ow=1, kh=rows, kw=side, sh=rows, sw=side, dh=1, dw=1,
        pt=0, pl=0, xn=side * side * channels, xh=side * channels, xw=channels, ldy=channels,
        ci=channels, co=channels,
    )  # fmt: skip
    p, cycles, _ = choose_depthwise(s, Bytes(False, 0, 2), target("x86_64_v4_bf16"), threads=2)
    alone, same, _ = choose_depthwise(s, Bytes(False, 0, 2), target("x86_64_v4_bf16"))
    assert (p.tasks, p.task_h, alone.tasks) == (2, 1, 1) and cycles == same


@pytest.mark.parametrize(
    ("pixels", "ci", "co", "gains"),
    # measured on a Xeon: 446 and 199 ns, 643 and 320, 1262 and 1460, 1308 and 1885; behind layers
    # like them, 157 and 140 us, 68 and 55, 19 and 39, 7.1 and 20
    [
        *((50, 32, 6, False), (48, 32, 32, False), (49, 64, 128, True), (36, 128, 128, True)),
        *((12544, 16, 96, False), (3136, 24, 144, False), (3136, 96, 32, True)),
        (197, 192, 192, True),
    ],
)
def test_matrix_registers_are_shaped_where_that_pays(
    pixels: int, ci: int, co: int, gains: bool
) -> None:
    s = Conv2dShape(
        batch=1, ih=1, iw=pixels, oh=1, ow=pixels, kh=1, kw=1, sh=1, sw=1, dh=1, dw=1,
        pt=0, pl=0, xn=pixels * ci, xh=pixels * ci, xw=ci, ldy=co, ci=ci, co=co,
    )  # fmt: skip
    cpu, code = target("x86_64_v4_amx"), Bytes(False, 0, 0)
    cycles = [choose_conv2d(s, code, cpu, matrix=matrix)[1] for matrix in (False, True)]
    assert (cycles[1] < cycles[0]) == gains


def test_one_row_leaves_a_tile_for_each_core() -> None:
    """A row of 8 vectors would fit one tile, which no second core could share."""
    simd = simd_of(target("x86_64_v4"))
    assert choose_gemm(Product(1, 128, 640), simd).tasks == 1
    p = choose_gemm(Product(1, 128, 640), simd, threads=2)
    assert (p.tasks, p.nv, p.task_n) == (2, 4, 4)
    assert choose_gemm(Product(1, 128, 640), simd, threads=16).tasks == 4  # of six, two would wait
    assert choose_gemm(Product(1, 16, 64), simd, threads=2).tasks == 1


def test_a_row_says_what_sharing_costs() -> None:
    """Rows that do not say take stated figures; one's own are typed like every other."""
    row = target("x86_64_v4")
    assert (row.fork_ns, row.move_ns_per_byte) == (1000.0, 0.1)
    assert (CPU.fork_cycles, CPU.move_cycles) == (2800.0, MOVE_CYCLES)
    text = (resources.files("sparrow") / "targets" / "cpu" / "x86_64_v4.toml").read_text()
    own = read_device("own", "cpu", f'{text}fork_ns = [90, "measured"]\n').target
    assert own is not None and own.fork_ns == 90.0 and own.move_ns_per_byte == 0.1
    with pytest.raises(BadInput, match="fork_ns is 0"):
        read_device("own", "cpu", f'{text}fork_ns = [0, "measured"]\n')


def test_dear_bytes_keep_a_chain_on_one_core() -> None:
    """What tuning measures decides: a machine whose caches are far apart splits less."""
    whole = [60_000.0, 60_000.0]
    near, far = replace(CPU, move_ns_per_byte=0.01), replace(CPU, move_ns_per_byte=50.0)
    chain = [Flow(0, 1, 100_000)]
    for cpu, split in ((near, {0}), (far, frozenset())):
        halves = [split_cycles(whole[0], 2, 2, cpu), None]
        assert worth_splitting(whole, halves, chain, 2, cpu) == split


def test_bytes_flow_through_concatenations_and_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps write parts of a buffer that a third reads through a reshape."""
    seen: list[tuple[int, list[Flow]]] = []

    def worth(whole: list[float], split: list[float | None], flows: list[Flow], *rest: Any) -> Any:
        seen.append((len(whole), list(flows)))
        return worth_splitting(whole, split, flows, *rest)

    monkeypatch.setattr(sparrow.planner, "worth_splitting", worth)
    b = Builder("g")
    x = b.input("x", TensorType((1, 4096, 8), F32))
    parts = [b.call("exp", x), b.add(MatMul(), x, b.const(np.eye(8, dtype=np.float32)))]
    joined = b.reshape(b.add(Concat(0), *parts), (2, 8, 4096))
    g = b.finish({"y": b.add(Softmax(2), joined)}, {})
    planned(g, isa="avx2", threads=2)
    ((steps, flows),) = seen
    assert steps == 3
    size = 4096 * 8 * 4
    assert sorted((f.source, f.target, f.bytes) for f in flows) == [(0, 2, size), (1, 2, size)]


def test_small_copies_run_one_after_the_other() -> None:
    """Each operand of a concatenation is a task; only where it pays do threads share them."""
    for size, whole in ((64, True), (1 << 20, False)):
        b = Builder("g")
        parts = [b.input(name, TensorType((1, size), F32)) for name in ("a", "b")]
        g = b.finish({"y": b.add(Concat(0), *parts)}, {})
        p = planned(g, isa="avx2", threads=2)
        (step,) = p.entries[0].steps
        assert step.lowered.tasks == 2 and step.whole == whole
        text = emit(p).files["model.c"].decode()
        assert ("sp_split(f, model_e0_s0, 2)" in text) != whole
        assert ("model_e0_s0(f, 1);" in text) == whole
