"""What tests of devices share: a bundle of this machine, and a fake phone."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparrow
from fake_adbd import AWAKE, Phone, fake_phones, free_port
from small_models import classifier


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for this machine; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("bundle") / "out"
    sparrow.build(classifier(), "host", out)
    return out


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An adb server and key of the test's own."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def phone(private: Path) -> Iterator[Phone]:
    """One phone; afterwards nothing must be left on it, and it may sleep again."""
    with fake_phones(private, True) as (found,):
        yield found
        gc.collect()
        assert found.left() == []
        assert found.setting(AWAKE) == "null"
