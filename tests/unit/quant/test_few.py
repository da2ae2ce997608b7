"""A few of many samples: how many, which, and in what order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow.quant.few import Few, spread


@given(st.integers(0, 300), st.integers(1, 9))
def test_some_of_a_stream_are_spread_over_it(length: int, wanted: int) -> None:
    few: Few[int] = Few(wanted)
    assert list(few.passing(range(length))) == list(range(length))
    taken = few.taken
    assert len(taken) == min(length, wanted)
    assert taken == sorted(set(taken))
    if length:
        assert taken[0] == 0
        # no part of the stream that is longer than twice an even share goes unseen
        gaps = np.diff([*taken, length])
        assert gaps.max() <= max(2, 2 * length / wanted + 1)


@given(st.integers(0, 40), st.integers(1, 9))
def test_samples_in_a_row_are_the_first(length: int, wanted: int) -> None:
    few: Few[int] = Few(wanted, in_a_row=True)
    list(few.passing(range(length)))
    assert few.taken == list(range(min(length, wanted)))


@pytest.mark.parametrize(
    ("length", "wanted", "expected"),
    [(3, 4, [0, 1, 2]), (8, 4, [0, 2, 4, 6]), (10, 4, [0, 2, 5, 7]), (0, 4, [])],
)
def test_a_sequence_is_spread_evenly(length: int, wanted: int, expected: list[int]) -> None:
    assert spread(range(length), wanted) == expected
