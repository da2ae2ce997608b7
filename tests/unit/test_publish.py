"""Folders are put in place whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparrow.errors import BadInput
from sparrow.publish import MARK, check_place, publish, remove_stale

FILES = {MARK: b'{"files": {"a.txt": ""}}', "a.txt": b"new"}
OLD = {MARK: b'{"files": {"old.txt": ""}}', "old.txt": b"old"}


def test_new_folder_and_missing_parents(tmp_path: Path) -> None:
    publish(FILES, tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "a.txt").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["out"]


def test_an_empty_folder_is_used_and_a_bundle_is_swapped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    publish(OLD, out)
    publish(FILES, out)
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_swap_without_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparrow.publish._exchange", None)
    publish(OLD, tmp_path / "out")
    publish(FILES, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES)
    remove_stale(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(MARK)]


def test_foreign_folders_files_and_links_are_left(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("three years")
    with pytest.raises(BadInput, match="holds other files and no bundle"):
        publish(FILES, foreign)
    assert (foreign / "thesis.txt").read_text() == "three years"
    with pytest.raises(BadInput, match="not a folder"):
        check_place(foreign / "thesis.txt")
    link = tmp_path / "link"
    link.symlink_to(foreign)
    with pytest.raises(BadInput, match="not a folder"):
        check_place(link)


@pytest.mark.parametrize("receipt", [OLD[MARK], b"{}", b"no json", b"[" * 100_000])
def test_what_somebody_put_into_a_bundle_is_left(tmp_path: Path, receipt: bytes) -> None:
    out = tmp_path / "out"
    publish(OLD | {"report.html": b"", ".DS_Store": b""}, out)
    publish(OLD, out)
    (out / MARK).write_bytes(receipt)
    (out / "notes").mkdir()
    with pytest.raises(BadInput, match="holds 'notes', which is not of the bundle") as e:
        publish(FILES, out)
    assert "another -o" in e.value.hint
    assert (out / "notes").is_dir() and (out / "old.txt").read_bytes() == b"old"


def test_a_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        publish({MARK: b"{}", "b": tmp_path / "missing"}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_folders_of_dead_processes_go_and_those_of_living_stay(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (tmp_path / f".sparrow-{done.pid}-abc").mkdir()
    (tmp_path / f".sparrow-{os.getpid()}-abc").mkdir()
    (tmp_path / ".sparrow-notes").mkdir()
    remove_stale(tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f".sparrow-{os.getpid()}-abc", ".sparrow-notes"}
