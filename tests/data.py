"""Where the real models and data are; tests that need them skip without, and fail under CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


def missing(what: str) -> None:
    """Skip the running test because something it needs is absent; under CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must have it")
    pytest.skip(what)


def data_folder() -> Path:
    """Folder of the models and data: SPARROW_DATA, or ``../shared/data`` beside the checkout."""
    return Path(os.environ.get("SPARROW_DATA") or REPO.parent / "shared" / "data")


def data(path: str) -> Path:
    """A file of the shared data."""
    found = data_folder() / path
    if not found.exists():
        missing(f"{path} is not under {data_folder()} (set SPARROW_DATA)")
    return found
