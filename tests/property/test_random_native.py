"""Random graphs over the whole op table, compiled for every instruction set of this machine.

A longer campaign: ``PYTHONPATH=tests python tools/random_graphs.py --minutes 60``.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from any_graphs import any_graphs
from random_graphs import levels
from random_native import check
from sparrow.graph import Graph

LIBRARIES = 3


@pytest.mark.parametrize("isa", levels())
def test_native_code_is_right_in_every_layer(isa: str) -> None:
    @seed(1)
    @settings(max_examples=LIBRARIES, suppress_health_check=list(HealthCheck))
    @given(st.lists(any_graphs(), min_size=12, max_size=12))
    def run(graphs: list[Graph]) -> None:
        check(graphs, isa)

    run()
