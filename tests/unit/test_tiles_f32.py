"""The choice of register tiles follows the caches of the row."""

from dataclasses import replace

import numpy as np

from sparrow.kernels.packing_f32 import pack_gemm_b
from sparrow.kernels.params_f32 import Conv2dShape, simd_of
from sparrow.kernels.tiles_f32 import (
    RegisterTile,
    Sums,
    block_of,
    choose_tile,
    prefetch_of,
    tile_cycles,
)
from sparrow.kernels.tiling_f32 import Product, choose_conv2d, choose_gemm, gemm_cycles
from sparrow.targets import target

CPU = simd_of(target("x86_64_v4"))
WIDE, TALL = RegisterTile(4, 6, 1), RegisterTile(12, 2, 1)


def test_wide_tiles_wait_for_a_slow_second_cache() -> None:
    slow = replace(CPU, l2_rate=26.0)
    cycles = {(t, cpu.l2_rate): tile_cycles(t, Sums(120, 60, 256, 1088), cpu) for t in (WIDE, TALL)
              for cpu in (CPU, slow)}  # fmt: skip
    assert cycles[WIDE, slow.l2_rate] > 1.1 * cycles[WIDE, CPU.l2_rate]
    assert cycles[TALL, slow.l2_rate] == cycles[TALL, CPU.l2_rate]


def test_panels_that_stay_in_l1_do_not_ask_the_second_cache() -> None:
    slow = replace(CPU, l2_rate=1.0)
    sums = Sums(120, 60, 16, 1088)
    assert tile_cycles(WIDE, sums, slow) == tile_cycles(WIDE, sums, CPU)


def test_panels_beyond_l1_are_not_read_again_for_every_two_rows() -> None:
    # half of 14 x 14 x 1024 -> 256, whose rows share a set; and of 672 -> 112
    for rows, vectors, k in ((98, 16, 1024), (98, 7, 672)):
        assert choose_tile(Sums(rows, vectors, k, 4 * k), CPU).mr >= 4


def test_weights_of_one_row_come_from_the_second_cache_by_any_tile() -> None:
    narrow, wide = (RegisterTile(1, nv, 2) for nv in (1, 4))
    for rate in (50.0, 26.0):
        slow = replace(CPU, l2_rate=rate)
        for vectors, k in ((64, 1024), (40, 576), (40, 128)):
            costs = [tile_cycles(t, Sums(1, vectors, k, 4 * k), slow) for t in (narrow, wide)]
            assert costs[0] > costs[1]


def test_rows_a_page_apart_take_tiles_of_fewer_rows_than_the_cache_has_ways() -> None:
    for ways in (8, 12):
        cpu = replace(CPU, ways=ways)
        apart, shared = (choose_tile(Sums(128, 16, 1024, step), cpu) for step in (4096 + 64, 4096))
        assert shared.mr + shared.nv < apart.mr + apart.nv
        assert shared.mr + shared.nv <= ways + 2


def test_the_next_panel_comes_evenly_where_many_tiles_read_this_one() -> None:
    assert prefetch_of(RegisterTile(13, 2, 1), 4, 0, 512, 512, CPU) == (-1, 2)
    assert prefetch_of(RegisterTile(13, 2, 1), 3, 0, 512, 512, CPU) == (-1, 1)


def test_weights_that_stay_in_l1_or_panels_larger_than_l2_are_not_prefetched() -> None:
    assert prefetch_of(RegisterTile(13, 2, 1), 4, 0, 16, 64, CPU)[0] == 0
    assert prefetch_of(RegisterTile(4, 6, 1), 4, 0, 9 * 2048, 512, CPU)[0] == 0
    assert prefetch_of(RegisterTile(13, 2, 1), 4, CPU.l2_bytes, 512, 512, CPU)[0] == 0


def test_one_row_reads_few_streams_and_asks_ahead_where_they_pass_through_l2() -> None:
    def chosen(k: int, n: int, threads: int = 1) -> tuple[int, int]:
        p = choose_gemm(Product(1, n, k), CPU, threads=threads)
        return p.nv, p.pf

    assert chosen(64, 128)[1] == 0 and chosen(64, 128)[0] > 4  # in L1 fewer rows of a are read
    assert chosen(1536, 128) == (4, 0)
    assert chosen(1024, 1024) == (2, 16)
    assert chosen(4096, 4096) == (4, 0)
    # each of two cores reads half of it
    assert chosen(1024, 512) == (2, 16)
    assert chosen(1024, 512, threads=2) == (4, 0)
    assert chosen(2048, 16)[0] == 1


def test_results_larger_than_l2_are_finished_a_few_rows_at_a_time() -> None:
    wide = block_of(12544, 14, 64, 384, 6144, CPU)
    assert wide % 14 == 0 and wide * (64 + 384) <= CPU.l1_bytes
    assert block_of(196, 14, 64, 384, 6144, CPU) == 196
    # their weights would leave L2 as well
    assert block_of(12544, 14, 1024, 384, CPU.l2_bytes, CPU) * 1024 > CPU.l1_bytes


def test_rows_of_a_callers_image_are_asked_for_ahead() -> None:
    def layer(ci: int, side: int, kernel: int) -> Conv2dShape:
        return Conv2dShape(
            ih=side, iw=side, oh=side, ow=side, kh=kernel, kw=kernel, xn=0, xh=side, xw=1, ldy=32,
            pt=kernel // 2, pl=kernel // 2, ci=ci, co=32, xc=side * side,
        )  # fmt: skip

    assert choose_conv2d(layer(3, 224, 3), CPU).ahead == 1
    assert choose_conv2d(layer(64, 56, 3), CPU).ahead == 0
    assert choose_conv2d(layer(3, 32, 3), CPU).ahead == 0  # comes whole from a near cache


def test_two_pixels_share_the_vector_of_which_channels_fill_half() -> None:
    kept = replace(CPU, shares=False)
    for n, gain in ((24, 0.8), (40, 0.9), (8, 1.0), (116, 0.97)):
        vectors = -(-n // CPU.lanes)
        alone, both = (choose_gemm(Product(784, n, 96), cpu) for cpu in (kept, CPU))
        assert (alone.shared, both.shared) == (0, 1)
        assert gemm_cycles(both, CPU) < gain * gemm_cycles(alone, kept)
        assert both.mr * vectors >= alone.mr  # the pairs leave registers for more rows
    for n in (16, 26, 32, 58, 320):  # whole vectors, or more than half of one
        assert choose_gemm(Product(784, n, 96), CPU) == choose_gemm(Product(784, n, 96), kept)
    assert choose_gemm(Product(1, 24, 96), CPU).shared == 0  # one row has nobody to share with
    assert choose_gemm(Product(784, 24, 96, pair=True), CPU).shared == 0


def test_columns_lie_twice_where_there_is_room() -> None:
    w = np.arange(1, 1 + 3 * 24, dtype=np.float32).reshape(3, 24)
    last = pack_gemm_b(w, 16)[-1]
    assert (last[:, :8] == w[:, 16:]).all() and (last[:, 8:] == w[:, 16:]).all()
    wide = pack_gemm_b(np.concatenate([w, w[:, :1]], axis=1), 16)[-1]
    assert (wide[:, :8] == w[:, 16:]).all() and (wide[:, 8] == w[:, 0]).all()
    assert not wide[:, 9:].any()
