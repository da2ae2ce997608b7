"""Winograd's convolution: its identity, how errors grow in it, its bound on every vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emitted import TARGETS, compiled, run
from native_harness import needs_isa
from sparrow.builder import Builder
from sparrow.graph import Graph, Module
from sparrow.kernels import conv
from sparrow.kernels.winograd import AT, BT, G, rounding_error, transformed
from sparrow.ops.conv import Conv
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import F32, Array, TensorType

WINOGRAD = {r.name: replace(r, isas=()) for r in conv.ROWS if r.name.startswith("winograd")}
# (height, width), pads, input and output channels: tails of tiles, vectors and images of one tile
SHAPES = (
    ((7, 7), ((1, 1), (1, 1)), 33, 20),
    ((9, 14), ((0, 2), (1, 0)), 5, 35),
    ((3, 3), ((0, 0), (0, 0)), 16, 3),
    ((1, 18), ((1, 1), (2, 2)), 8, 17),
    ((33, 35), ((1, 1), (1, 1)), 6, 5),
)


def test_the_transforms_convolve() -> None:
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal((6, 6)), rng.standard_normal((1, 1, 3, 3)).astype(np.float32)
    y = AT @ (transformed(w)[0, 0] * (BT @ d @ BT.T)) @ AT.T
    windows = np.lib.stride_tricks.sliding_window_view(d, (3, 3))
    np.testing.assert_allclose(y, (windows * w[0, 0]).sum((2, 3)), rtol=0, atol=1e-13)
    for constants in (AT, BT):
        np.testing.assert_array_equal(constants.astype(np.float32), constants)


def _growth() -> tuple[float, float]:
    """By how much the transforms multiply an error of every product, for independent inputs of
    equal variance: for the worst weights, and for random ones.
    """
    size = (BT**2).sum(1)
    worst = mean = 0.0
    for m in np.ndindex(4, 4):
        form = np.zeros((9, 9))
        for i, j in np.ndindex(6, 6):
            g = np.outer(G[i], G[j]).reshape(-1)
            gain = AT[m[0], i] ** 2 * AT[m[1], j] ** 2 * size[i] * size[j]
            form += gain * np.outer(g, g)
        worst = max(worst, float(np.linalg.eigvalsh(form)[-1]))
        mean = max(mean, float(np.trace(form)) / 9)
    return worst**0.5, mean**0.5


def test_errors_grow_as_documented() -> None:
    worst, mean = _growth()
    assert worst < 20 and mean < 8


def _case(seed: int, outliers: bool) -> tuple[Graph, dict[str, Array], Conv]:
    size, pads, ci, co = SHAPES[seed % len(SHAPES)]
    rng = np.random.default_rng(seed)
    b = Builder(f"case{seed}")
    shape = (1, *size, ci)
    x = rng.standard_normal(shape)
    if outliers:
        x *= np.where(rng.random(shape) < 0.02, 1e5, 1e-3)
    w = rng.standard_normal((co, ci, 3, 3)).astype(np.float32)
    op = Conv((1, 1), (1, 1), pads, channels_last=True)
    y = b.add(op, b.input("x", TensorType(shape, F32, "NHWC")), b.const(w))
    return b.finish({"y": y}, {}), {"x": x.astype(np.float32)}, op


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_errors_stay_within_their_bound(
    isa: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_isa(isa)
    monkeypatch.setattr(conv, "STREAM_FROM", 0.0)
    made = [_case(seed, seed >= len(SHAPES)) for seed in range(2 * len(SHAPES))]
    module = Module("m", tuple(g for g, _, _ in made))
    p = plan(module, target(TARGETS[isa]), kernels=(WINOGRAD[name],))
    library = compiled(p, tmp_path, parts=True, flags=("-O1",))
    for i, (g, feeds, op) in enumerate(made):
        (got,) = run(p, library, feeds, entry=i)
        (w,) = g.consts.values()
        (exact,) = op.eval(feeds["x"].astype(np.float64), w.astype(np.float64))
        off, bound = (
            np.abs(got - exact),
            rounding_error(feeds["x"], w, op.pads, raw=name != "winograd_f32"),
        )
        assert bound.shape == got.shape and (off <= bound).all(), (i, float((off / bound).max()))
        # rounding errors are never all alike: a bound a hundred times looser would find nothing
        assert (off > bound / 1000).any()


def test_one_large_pixel_errs_beyond_the_bound_of_the_direct_sum() -> None:
    # an output whose window holds only small numbers shares a tile with a large one
    x = np.full((1, 6, 6, 1), 1e-3, np.float32)
    x[0, 3, 3, 0] = 1e6
    w = np.ones((1, 1, 3, 3), np.float32)
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), channels_last=True)
    (size,) = op.eval(x, w)
    bound = rounding_error(x, w, op.pads)
    assert bound[0, 0, 0, 0] > 1000 * 11 * 2.0**-24 * size[0, 0, 0, 0]
