"""Native code under the address and undefined-behaviour sanitizers: no complaint, right answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sanitized
from conformance.test_real_models import NAMES, model_file
from random_graphs import levels

PARTS = 30
needs_sanitizers = pytest.mark.skipif(
    shutil.which("gcc") is None or not sanitized.available(), reason="no gcc with sanitizers"
)
# The others take minutes: most of the time goes into compiling, and into what is checked.
QUICK = ("models/onnx/mnist-8.onnx", "models/onnx/mnist_lstm.onnx")


@needs_sanitizers
def test_an_overrun_of_one_byte_is_seen() -> None:
    done = sanitized.run("broken")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


@needs_sanitizers
@pytest.mark.parametrize("isa", levels())
@pytest.mark.parametrize(
    "part", [pytest.param(k, marks=pytest.mark.slow) if k else k for k in range(PARTS)]
)
def test_node_tests(part: int, isa: str) -> None:
    if part == 0 and isa != "scalar":
        pytest.skip("this share is for the quick run")
    done = sanitized.run("nodes", str(part), str(PARTS), isa)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) > 40


@needs_sanitizers
@pytest.mark.parametrize(
    "path", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_real_models(path: str) -> None:
    model_file(path)
    done = sanitized.run("model", path, "scalar")
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) > 0


@needs_sanitizers
@pytest.mark.slow
@pytest.mark.parametrize("path", NAMES, ids=lambda n: Path(n).stem)
def test_real_models_on_the_best_level(path: str) -> None:
    model_file(path)
    done = sanitized.run("model", path, levels()[-1])
    assert done.returncode == 0, done.stderr[-4000:]
