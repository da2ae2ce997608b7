"""Powers of what values are apart, also where they are no numbers."""

import numpy as np

from sparrow.quant.noise import apart, decibels, power


def test_differences_are_finite() -> None:
    inf, nan = np.inf, np.nan
    real = np.array([1.0, inf, nan, -inf, inf, 2.0, -4.0, nan], np.float32)
    found = np.array([1.5, inf, nan, inf, 3.0, nan, -4.0, 0.0], np.float32)
    np.testing.assert_array_equal(apart(found, real), [0.5, 0, 0, 4, 4, 4, 0, 4])
    np.testing.assert_array_equal(apart(found[1:2], real[3:4]), [1.0])


def test_powers_leave_out_what_is_no_number() -> None:
    assert power(np.array([3.0, np.inf, np.nan, -4.0])) == 25.0
    assert power(np.array([1e30], np.float32)) == float(np.float32(1e30)) ** 2
    assert decibels(100.0, 1.0) == 20.0 and decibels(1.0, 0.0) == np.inf
