"""Native code under the address and undefined-behaviour sanitizers: no complaint, right answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sanitized
from conformance.test_real_models import NAMES
from conformance.test_real_tflite import CODES, FLOATS, UNRECORDED
from data import data
from random_graphs import levels

# A process takes a while to start, whatever its share.
PARTS = 6
needs_sanitizers = pytest.mark.skipif(
    shutil.which("gcc") is None or not sanitized.available(), reason="no gcc with sanitizers"
)
PATHS = (*NAMES, *(f"{n}.tflite" for n in (*FLOATS, *CODES, *UNRECORDED)))
QUANTIZED = (
    "face/models/version-RFB-320_without_postprocessing.onnx",
    "models/onnx/FastestDet.onnx",
    "models/onnx/mnist-8.onnx",
)
# The others take minutes: most of the time goes into compiling, and into what is checked.
QUICK = ("models/onnx/mnist-8.onnx", "models/onnx/mnist_lstm.onnx")


@needs_sanitizers
def test_an_overrun_of_one_byte_is_seen() -> None:
    done = sanitized.run("broken")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


@needs_sanitizers
def test_some_node_tests() -> None:
    assert_nodes(0, 5 * PARTS, "scalar")


@needs_sanitizers
@pytest.mark.slow
@pytest.mark.parametrize("isa", levels())
@pytest.mark.parametrize("part", range(PARTS))
def test_node_tests(part: int, isa: str) -> None:
    assert_nodes(part, PARTS, isa)


def assert_nodes(part: int, parts: int, isa: str) -> None:
    done = sanitized.run("nodes", str(part), str(parts), isa)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) > 1200 // parts


@needs_sanitizers
@pytest.mark.parametrize("path", QUICK)
def test_small_real_models(path: str) -> None:
    assert_model(path, "scalar", "float32")


@needs_sanitizers
@pytest.mark.slow
@pytest.mark.parametrize("isa", levels())
@pytest.mark.parametrize(
    ("path", "precision"),
    [*((p, "float32") for p in PATHS), *((p, "int8") for p in QUANTIZED)],
    ids=lambda v: Path(v).name,
)
def test_real_models(path: str, precision: str, isa: str) -> None:
    """As it is, in floats or in the integers of its file, or quantized by Sparrow."""
    assert_model(path, isa, precision)


def assert_model(path: str, isa: str, precision: str) -> None:
    data(path)
    done = sanitized.run("model", path, isa, precision)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) > 0
