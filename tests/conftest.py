"""Options of the test run, and what many of its files set up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from emulated_avx512 import emulate
from sparrow.device.cpu import host_isas
from sparrow.evidence.gate import Gate

# A busy machine is no failure: how long an example takes is judged nowhere.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden`` and ``--emulate-avx512``."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")
    parser.addoption("--emulate-avx512", action="store_true", help="run its tests without it")


def pytest_configure(config: pytest.Config) -> None:
    """Emulate AVX-512 where that is asked for, and the processor has none."""
    if config.getoption("--emulate-avx512") and "avx512" not in host_isas():
        emulate()


@pytest.fixture(scope="module")
def won_races() -> Iterator[None]:
    """A busy machine decides races: here each is won."""
    with pytest.MonkeyPatch.context() as patch:
        won = Gate("not slower than float32", "", "", True)
        patch.setattr("sparrow.assemble.race", lambda *_: (won, {}))
        yield
