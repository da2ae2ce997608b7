"""Random networks quantized in random ways: files, integers and native code agree.

A longer campaign: ``PYTHONPATH=tests python tools/random_quantized.py --minutes 60``.
"""

from __future__ import annotations

import pytest

from random_graphs import levels
from random_quantized import judge

EACH = 2


@pytest.mark.parametrize(
    ("isa", "seed"),
    [(isa, len(levels()) * k + i) for i, isa in enumerate(levels()) for k in range(EACH)],
)
def test_integers_are_those_of_the_file_and_of_native_code(isa: str, seed: int) -> None:
    judge(seed, isa)
