"""Options of the test run."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A busy machine is no failure: how long an example takes is judged nowhere.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``: rewrite golden files instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")
