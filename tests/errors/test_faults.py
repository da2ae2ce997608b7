"""Full disks, kills, bad caches, odd clocks: the right answer or one clear line, no half bundle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparrow
from small_models import classifier
from sparrow.errors import SparrowError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits and signals")

TESTS = Path(__file__).resolve().parent.parent
# A step of the build by the function that does it, in order.
STAGES = (
    "sparrow.assemble.describe",
    "sparrow.assemble.compile_library",
    "sparrow.device.cache.FileCache.put",
    "sparrow.assemble.make_golden",
    "sparrow.assemble.dump_golden",
    "sparrow.evidence.accuracy.oracle_outputs",
    "sparrow.assemble.render",
    "sparrow.publish.shutil.copyfile",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file, and a cache that has what its build compiles."""
    made = tmp_path_factory.mktemp("faults")
    (made / "m.onnx").write_bytes(classifier().SerializeToString())
    assert build(made, "warm").returncode == 0
    return made


def build(
    folder: Path, name: str, before: str = "", cache: str = "cache"
) -> subprocess.CompletedProcess[str]:
    """``sparrow build`` of the model into ``folder/place/name``, with code that runs before it."""
    words = ["build", str(folder / "m.onnx"), "-o", str(folder / "place" / name)]
    code = f"import os, signal\n{before}\nfrom sparrow.cli import main\nmain({words!r})"
    env = {
        **os.environ,
        "SPARROW_CACHE": str(folder / cache),
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def one_line(p: subprocess.CompletedProcess[str]) -> None:
    assert p.returncode == 2, (p.returncode, p.stderr)
    assert re.fullmatch(r"error: [^\n]+\n", p.stderr), p.stderr


@pytest.mark.parametrize("limit", [0, 3000, 6000, 20_000])
def test_a_full_disk(limit: int, folder: Path) -> None:
    """No file may grow beyond a limit: writing fails where a full disk would let it fail."""
    full = (
        "import resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    )
    name = f"full{limit}"
    one_line(build(folder, name, full))
    assert not (folder / "place" / name).exists()
    assert build(folder, name).returncode == 0
    assert sparrow.load_bundle(folder / "place" / name).verify().ok


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_every_stage(stage: str, folder: Path) -> None:
    module, name = stage.rsplit(".", 1)
    modules = module.split(".")
    loaded = ".".join(m for m in modules if m == m.lower() and m != "shutil")
    # what is cached is not compiled again, so this one needs an empty cache
    cache = "cold" if stage.endswith("put") else "cache"
    kill = f"import {loaded}\n{module}.{name} = lambda *a, **k: os.kill(os.getpid(), 9)"
    p = build(folder, "killed", kill, cache)
    assert p.returncode == -signal.SIGKILL, p.stderr
    assert not (folder / "place" / "killed").exists()
    # the next build into the same place removes what is left, and trusts nothing half written
    assert build(folder, "next").returncode == 0
    left = [q.name for q in (folder / "place").iterdir() if q.name.startswith(".")]
    assert left == []


def test_a_cache_with_broken_entries(folder: Path) -> None:
    entries = sorted((folder / "cache" / "entries").glob("*/*"))
    assert entries
    for i, path in enumerate(entries):
        data = path.read_bytes()
        broken = (data[: len(data) // 2], b"", data[:-1] + bytes([data[-1] ^ 1]))[i % 3]
        path.write_bytes(broken)
    assert build(folder, "broken").returncode == 0
    assert sparrow.load_bundle(folder / "place" / "broken").verify().ok


def test_a_cache_of_another_version(folder: Path) -> None:
    """Entries of other compilers or sources have other keys; unknown files are left alone."""
    shard = folder / "cache" / "entries" / "00"
    shard.mkdir(exist_ok=True)
    (shard / "stranger.o").write_bytes(b"not ours")
    (folder / "cache" / "format-9").mkdir(exist_ok=True)
    assert build(folder, "version").returncode == 0
    assert (shard / "stranger.o").read_bytes() == b"not ours"


@pytest.mark.parametrize("now", [0.0, 4e9])
def test_a_clock_that_jumps(now: float, folder: Path) -> None:
    """Entries from the future and the past are still found by content."""
    for path in (folder / "cache" / "entries").glob("*/*"):
        os.utime(path, (4e9 - now, 4e9 - now))
    name = f"clock{int(now)}"
    assert build(folder, name, f"import time\ntime.time = lambda: {now}").returncode == 0
    assert sparrow.load_bundle(folder / "place" / name).verify().ok


def test_a_cache_folder_that_is_a_file(folder: Path) -> None:
    (folder / "file").write_text("x")
    one_line(build(folder, "nowhere", cache="file"))
    assert not (folder / "place" / "nowhere").exists()


def test_a_truncated_bundle_is_refused_before_its_code_is_loaded(folder: Path) -> None:
    out = folder / "place" / "warm"
    library = next(p for p in out.iterdir() if p.stem == "model" and p.suffix in (".so", ".dylib"))
    weights = out / "weights.bin"
    for path in (library, weights):
        data = path.read_bytes()
        for n in (0, 1, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:n])
            with pytest.raises(SparrowError):
                sparrow.load_bundle(out)
        path.write_bytes(data)
    assert sparrow.load_bundle(out).verify().ok


def on_a_full_disk(*words: str) -> subprocess.CompletedProcess[str]:
    """A command where no file can hold more than a thousand bytes."""
    code = (
        "import signal, resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"from sparrow.cli import main\nmain({list(words)!r})"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_report_that_cannot_be_written_leaves_the_old_one(folder: Path) -> None:
    out = folder / "place" / "warm"
    page = out / "report.html"
    before = page.read_bytes()
    one_line(on_a_full_disk("report", str(out)))
    assert page.read_bytes() == before
    assert not [q for q in out.iterdir() if q.name.startswith(".")]


def test_a_model_that_cannot_be_written_leaves_the_old_one(folder: Path) -> None:
    """Nor half of a new one: an empty file was left by a full disk."""
    place, samples = folder / "files", folder / "samples.npz"
    place.mkdir()
    np.savez(samples, x=np.random.default_rng(0).standard_normal((8, 3, 12, 12)).astype(np.float32))
    old, new = place / "old.onnx", place / "new.onnx"
    old.write_bytes(b"as it was")
    for out in (old, new):
        words = ("quantize", str(folder / "m.onnx"), "--calib", str(samples), "-o", str(out))
        p = on_a_full_disk(*words)
        one_line(p)
        assert f"{out} cannot be written: File too large" in p.stderr
    assert old.read_bytes() == b"as it was" and list(place.iterdir()) == [old]


# Root writes where it may not, unless it gives up its capabilities.
POWERLESS = (
    "import ctypes\n"
    "header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()\n"
    "assert ctypes.CDLL(None).capset(header, none) == 0"
)


@pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities")
def test_folders_that_may_not_be_written(folder: Path) -> None:
    """Neither that of the bundle, which is one line, nor that of the cache."""
    place, cold = folder / "place" / "read_only", folder / "read_only_cache"
    for made in (place, cold):
        made.mkdir(parents=True)
        made.chmod(0o555)
    p = build(folder, "read_only/out", POWERLESS)
    one_line(p)
    assert "cannot be written" in p.stderr and not any(place.iterdir())
    p = build(folder, "no_cache", POWERLESS, "read_only_cache")
    if p.returncode:
        one_line(p)
        assert not (folder / "place" / "no_cache").exists()
    else:
        assert sparrow.load_bundle(folder / "place" / "no_cache").verify().ok
    assert not any(cold.iterdir())
