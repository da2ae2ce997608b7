"""Range setting against figures of the papers and exhaustive search."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sparrow.quant.aciq import Law, clipping_factor
from sparrow.quant.affine import per_tensor
from sparrow.quant.histogram import Histogram
from sparrow.quant.mse import squared_error
from sparrow.quant.power_of_two import activation_steps
from sparrow.quant.ranges import RANGES
from sparrow.tensor import I4, I8


def counted(x: NDArray[np.float64]) -> Histogram:
    h = Histogram()
    h.add(x.astype(np.float32))
    return h


@pytest.mark.parametrize(
    ("law", "bits", "factor"),
    [
        *(("laplace", 2, 2.83), ("laplace", 3, 3.89), ("laplace", 4, 5.03)),
        *(("gauss", 2, 1.71), ("gauss", 3, 2.15), ("gauss", 4, 2.55)),
    ],
)
def test_aciq_finds_the_factors_of_the_paper(law: Law, bits: int, factor: float) -> None:
    # arXiv:1810.05723, section 2.1 and its code; they are given to two digits
    assert clipping_factor(law, bits) == pytest.approx(factor, abs=0.02)


@pytest.mark.parametrize("name", ["mse", "octav"])
def test_the_error_is_near_the_least_of_all_symmetric_ranges(name: str) -> None:
    h = counted(np.random.default_rng(0).laplace(size=40000))
    low, high = RANGES[name](h, I4, True)  # type: ignore[index]
    every = [squared_error(h, (-s, s), I4, True) for s in np.linspace(0.5, 12, 400)]
    assert squared_error(h, (low, high), I4, True) <= min(every) * 1.02


def test_percentile_leaves_out_what_is_rare() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 1_000_000)
    x[0] = 100
    low, high = RANGES["percentile"](counted(x), I8, False)
    assert -1.1 < low < -0.9 and 0.9 < high < 1.2


def test_entropy_cuts_a_tail_and_keeps_an_even_law() -> None:
    rng = np.random.default_rng(0)
    tail = np.concatenate([rng.standard_normal(100_000), [60.0]])
    assert RANGES["entropy"](counted(tail), I4, True)[1] < 30
    even = rng.uniform(0, 1, 100_000)
    assert RANGES["entropy"](counted(even), I8, False)[1] > 0.9


def test_a_relu_keeps_its_zero() -> None:
    x = np.maximum(np.random.default_rng(0).standard_normal(10_000), 0)
    for name in RANGES:
        assert RANGES[name](counted(x), I8, False)[0] == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seen", [0.0, 1e-45, 3.0])
def test_a_step_of_a_power_of_two_covers_what_was_seen_even_of_nothing(seen: float) -> None:
    h = Histogram()
    h.add(np.full(9, seen, np.float32))
    quant = per_tensor((0.0, seen), I8, 0, True)
    (step,) = activation_steps(h, I8, quant).scale.reshape(-1)
    assert np.frexp(step)[0] == 0.5 and step * 127 >= seen
