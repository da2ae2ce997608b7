"""GPTQ never errs more than rounding to the nearest, and a statistics file repeats its codes."""

from __future__ import annotations

import numpy as np
import pytest

from small_models import classifier
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
from sparrow.quant import Recipe, from_npz, run, to_npz
from sparrow.quant.adaround import output_error
from sparrow.quant.gptq import gptq
from sparrow.quant.run import requantized
from sparrow.samples import draw


@pytest.mark.parametrize(("groups", "rows", "inputs"), [(1, 8, 40), (12, 1, 9), (2, 5, 1)])
def test_correlated_inputs_gain_and_no_row_loses(groups: int, rows: int, inputs: int) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((groups, 200, inputs)) + 3 * rng.standard_normal((groups, 200, 1))
    moments = x.transpose(0, 2, 1) @ x / 200
    w = rng.uniform(-127, 127, (groups, rows, inputs))
    codes = gptq(w, moments, -127, 127)
    assert (codes == np.rint(codes)).all() and np.abs(codes).max() <= 127
    assert (np.abs(codes - w) < 1).all()
    mine, nearest = output_error(codes - w, moments), output_error(np.rint(w) - w, moments)
    assert (mine <= nearest).all()
    if inputs > 1:
        assert mine.sum() < 0.8 * nearest.sum()


def test_inputs_that_are_always_zero_are_rounded_to_the_nearest() -> None:
    w = np.array([[[0.4, 1.6, -2.5, 127.0]]])
    assert gptq(w, np.zeros((1, 4, 4)), -127, 127).tolist() == [[[0.0, 2.0, -2.0, 127.0]]]


def test_statistics_give_the_same_codes_again() -> None:
    g = optimize(import_model(classifier()).graph, FRONT)
    done = run(g, [draw(g, (0, i)) for i in range(8)], Recipe(rounding="gptq"))
    assert done.statistics.moments
    again = requantized(done.source, from_npz(to_npz(done.statistics)), done.recipe)
    coded = {x: a for x, a in done.graph.consts.items() if a.dtype == np.int8}
    assert coded.keys() <= again.graph.consts.keys()
    assert all((again.graph.consts[x] == a).all() for x, a in coded.items())
    nearest = requantized(done.source, done.statistics, Recipe(rounding="nearest")).graph
    assert any((nearest.consts[x] != a).any() for x, a in coded.items())


def test_inputs_of_rounding_noise_alone_are_rounded() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1, 16, 16)) * 1e-7
    moments = noise + noise.transpose(0, 2, 1)  # no covariance: some eigenvalues are negative
    w = rng.standard_normal((1, 4, 16)) * 10
    codes = gptq(w, moments, -127, 127)
    assert np.array_equal(codes, np.rint(codes)) and np.abs(codes - w).max() <= 1.0
