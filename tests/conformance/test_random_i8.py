"""500 random configurations of every row over 8-bit codes on every instruction set, bit for bit.

`tools/random_int8.py` runs ten thousand of each.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from native_harness import BYTES
from random_i8 import check, library, rows_of

CONFIGURATIONS = 500


@pytest.mark.parametrize("isa", BYTES)
def test_random_configurations(isa: str, tmp_path: Path) -> None:
    native = library(isa, tmp_path)
    for row in rows_of(isa):
        wrong = [text for s in range(CONFIGURATIONS) if (text := check(native, isa, row, s))]
        assert not wrong, wrong[:5]
