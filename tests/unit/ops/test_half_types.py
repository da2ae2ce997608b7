"""Half types compute in float32: what is rounded is conversions, and results."""

import numpy as np

from sparrow import lane
from sparrow.tensor import BF16, F16, F32


def test_no_step_within_an_expression_overflows() -> None:
    x = np.array([3.0, 20.0], np.float16)
    grown = lane.call("mul", lane.Arg(0, F16), lane.Imm(60000.0, F16))
    y = lane.evaluate(lane.call("mul", grown, lane.Imm(2.0**-10, F16)), [x])
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, np.array([175.78125, 1171.875], np.float16))


def test_results_and_conversions_round() -> None:
    x = np.ones(2, np.float16)
    third = lane.call("div", lane.Arg(0, F16), lane.Imm(3.0, F16))
    there = lane.cast(third, F32)
    assert lane.evaluate(third, [x])[0] == np.float16(1 / 3)
    # no conversion to a half type stands between
    assert lane.evaluate(there, [x])[0] == np.float32(1 / 3)
    back = lane.cast(lane.cast(there, BF16), F32)
    assert lane.evaluate(back, [x])[0] == np.float32(0.333984375)
