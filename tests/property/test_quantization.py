"""What every quantization keeps, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparrow.quant.adaround import adaround, output_error
from sparrow.quant.affine import code_limits, round_trip, scale_and_zero_point
from sparrow.quant.histogram import BINS, Histogram
from sparrow.quant.minmax import minmax
from sparrow.quant.mse import mse, squared_error
from sparrow.quant.ranges import RANGES
from sparrow.quant.weights import block_scales, coded
from sparrow.tensor import I4, I8, I16, DType

reals = st.floats(-1e6, 1e6, width=32, allow_subnormal=True)
arrays = st.lists(reals, min_size=1, max_size=60).map(lambda v: np.array(v, np.float32))
dtypes = st.sampled_from([I4, I8, I16])


@given(arrays, dtypes, st.booleans())
def test_rounding_errs_half_a_step_inside_the_range(
    x: NDArray[np.float32], dtype: DType, symmetric: bool
) -> None:
    limits = (float(x.min()), float(x.max()))
    scale, zero = scale_and_zero_point(limits, dtype, symmetric)
    low, high = code_limits(dtype, symmetric)
    inside = ((low - zero) * scale <= x) & (x <= (high - zero) * scale)
    error = np.abs(round_trip(x, limits, dtype, symmetric) - x.astype(np.float64))
    assert (error[inside] <= scale / 2 * (1 + 1e-9)).all()
    # what rounding the zero point moved out of the range is less than a step away
    assert (error <= scale * (1 + 1e-6)).all()
    assert round_trip(np.zeros(1), limits, dtype, symmetric)[0] == 0


@given(arrays, st.sampled_from([I4, I8]), st.booleans())
@settings(max_examples=50)
def test_mse_is_never_worse_than_minmax(
    x: NDArray[np.float32], dtype: DType, symmetric: bool
) -> None:
    h = Histogram()
    h.add(x)
    found = squared_error(h, mse(h, dtype, symmetric), dtype, symmetric)
    assert found <= squared_error(h, minmax(h, dtype, symmetric), dtype, symmetric)


@given(st.lists(arrays, min_size=1, max_size=5), st.randoms())
@example([np.zeros(1, np.float32), np.full(1, 4e-26, np.float32)], None)
def test_a_histogram_does_not_depend_on_the_order(
    parts: list[NDArray[np.float32]], shuffler: object
) -> None:
    one, other, merged = Histogram(), Histogram(), Histogram()
    for x in parts:
        one.add(x)
        own = Histogram()
        own.add(x)
        merged = merged.merged(own)
    for x in reversed(parts):
        other.add(x)
    for h in (other, merged):
        assert (h.counts == one.counts).all()
        assert (h.first, h.exponent, h.low, h.high) == (one.first, one.exponent, one.low, one.high)
    assert one.total == sum(x.size for x in parts) and one.counts.shape == (BINS,)
    every = np.concatenate(parts).astype(np.float64)
    assert (one.low, one.high) == (every.min(), every.max())
    assert abs(np.dot(one.counts, one.centers()) - every.sum()) <= one.width * every.size


@pytest.mark.parametrize("name", RANGES)
@given(x=arrays, dtype=st.sampled_from([I8, I16]), symmetric=st.booleans())
@settings(max_examples=40)
def test_ranges_are_ranges_of_what_was_seen(
    name: str, x: NDArray[np.float32], dtype: DType, symmetric: bool
) -> None:
    h = Histogram()
    h.add(x)
    low, high = RANGES[name](h, dtype, symmetric)  # type: ignore[index]
    reach = max(-h.low, h.high, 0) if symmetric else None
    assert np.isfinite([low, high]).all()
    assert min(low, 0) >= min(h.low, 0) - 1e-6 or (reach is not None and -low <= reach)
    assert max(high, 0) <= max(h.high, 0) + 1e-6 or (reach is not None and high <= reach)


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=15)
def test_adaround_is_not_worse_than_nearest(seed: int, m: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.uniform(-20, 20, (1, m, k))
    x = rng.standard_normal((30, k)) @ rng.standard_normal((k, k))
    moments = (x.T @ x / len(x))[None]
    found = adaround(w, moments, -127, 127)
    nearest = output_error(np.rint(w) - w, moments)
    assert (output_error(found - w, moments) <= nearest * (1 + 1e-12)).all()
    assert (np.abs(found - w) < 1).all()


@given(
    st.lists(reals, min_size=24, max_size=24),
    st.sampled_from([(-1, -1), (1, -1), (-1, 1), (1, 4), (2, 3)]),
    st.sampled_from([I4, I8]),
)
def test_weights_err_half_a_step(v: list[float], block: tuple[int, ...], dtype: DType) -> None:
    w = np.array(v, np.float32).reshape(4, 6)
    low, high = code_limits(dtype, True)
    c = coded(w, block_scales(w, block, high), block, dtype)
    assert c.codes.min() >= low and c.codes.max() <= high
    peak = np.abs(w).max()
    # a block whose scale would be subnormal counts as zeros
    lost = high * np.finfo(np.float32).tiny
    assert np.abs(c.real() - w).max() <= max(peak / high / 2 * (1 + 1e-4), lost)
