"""Sums of products by twos: which quads are taken together, and what is turned."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sparrow.builder import Builder
from sparrow.graph import Module
from sparrow.kernels.twos import Steps, steps_of
from sparrow.ops.matmul import MatMul
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import I8, U8, Array, TensorType

LANES = 4


def weights(kind: str, seed: int) -> Array:
    """int8 [vectors, quads, LANES, 4]."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 200)), LANES, 4)
    if kind == "normal":
        w = rng.normal(0, rng.uniform(5, 90), shape)
    elif kind == "uniform":
        w = rng.uniform(-127, 127, shape)
    else:
        w = rng.choice([-127, -64, 0, 64, 127] if kind == "extreme" else [127], shape)
    return w.round().clip(-127, 127).astype(np.int8)


def halves(w: Array, x: Array) -> NDArray[np.int64]:
    """Products by twos [..., LANES, 2], which must fit in 16 bits."""
    found: NDArray[np.int64] = (w.astype(np.int64) * x).reshape(*w.shape[:-1], 2, 2).sum(-1)
    assert found.min(initial=0) >= -(1 << 15) and found.max(initial=0) < 1 << 15
    return found


def sums(s: Steps, w: Array, x: Array) -> NDArray[np.int64]:
    """What the kernel computes of weights [quads, LANES, 4] and bytes [quads, 4]."""
    seen = np.where(s.turned, 255 - x[:, None], x[:, None])
    signed = np.where(s.turned, -w.astype(int), w)
    total = s.start(w).copy()
    for pairs in s.pairs:
        for i, j in pairs:
            both = halves(signed[i], seen[i]) + halves(signed[j], seen[j])
            assert both.min() >= -(1 << 15) and both.max() < 1 << 15
            total += both.sum(-1)
    for i in s.single:
        total += halves(signed[i], seen[i]).sum(-1)
    return total


@pytest.mark.parametrize("kind", ["normal", "uniform", "extreme", "one sign"])
@pytest.mark.parametrize("seed", range(3))
def test_every_quad_is_taken_once_and_nothing_leaves_16_bits(kind: str, seed: int) -> None:
    w = weights(kind, seed)
    rng = np.random.default_rng(seed)
    for s, own in zip(steps_of(w), w, strict=True):
        taken = np.concatenate((*(p.ravel() for p in s.pairs), s.single))
        assert sorted(taken) == list(range(len(own)))
        none, one, _ = s.pairs
        assert not s.turned[none].any() and not s.turned[one[:, 0]].any()
        # the largest sums are those of one side alone
        for x in (
            *(rng.integers(0, 256, (len(own), 4)) for _ in range(3)),
            *(np.where(own[:, lane] > 0, *ends) for lane in range(LANES) for ends in SIDES),
        ):
            want = (own.astype(int) * x[:, None]).sum((0, 2))
            np.testing.assert_array_equal(sums(s, own, x), want)
        assert len(s.pack(own, 4 * np.arange(len(own)))) == s.nbytes


SIDES = ((255, 0), (0, 255))


def test_small_weights_are_never_turned_and_taken_by_twos() -> None:
    (s,) = steps_of(np.full((1, 65, LANES, 4), 32, np.int8))
    assert s.counts == (32, 0, 0, 1) and not s.turned.any()


def test_what_the_kernel_reads() -> None:
    w = np.zeros((3, LANES, 4), np.int8)
    w[1] = (100, 100, 0, 0)  # of one sign and too large together
    (s,) = steps_of(w[None])
    assert s.counts == (1, 0, 0, 1) or s.counts == (0, 1, 0, 1)
    assert s.turned.sum() == LANES and s.turned[1].sum() == LANES
    assert (s.start(w) == 25_500).all()
    packed = np.frombuffer(s.pack(w, np.array([0, 4, 300])), np.int8)
    masks = packed[: s.nbytes - 8].reshape(-1, LANES, 4)
    assert (masks == -1).sum() == LANES and (masks == -100).sum() == LANES
    places = np.frombuffer(packed[-8:].tobytes(), "<u2")
    assert sorted(places[:3]) == [0, 4, 300] and places[3] == 0


@pytest.mark.parametrize(("rows", "taken"), [(1, "gemm_i8"), (16, "gemm_twos_i8")])
def test_weights_of_one_row_come_without_masks(rows: int, taken: str) -> None:
    b = Builder("g")
    w = np.random.default_rng(0).normal(0, 30, (1280, 1000)).clip(-127, 127).astype(np.int8)
    y = b.add(MatMul(), b.input("x", TensorType((rows, 1280), U8)), b.const(w, I8))
    steps = plan(Module("m", (b.finish({"y": y}, {}),)), target("x86_64_v3")).entries[0].steps
    assert [s.kernel for s in steps] == [taken]
