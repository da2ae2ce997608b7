"""Every real ONNX model gives the recorded answers: interpreted, exported and built natively.

The models and recorded answers lie in the folder SPARROW_DATA (default: ``shared/data`` beside the
repository); they are not part of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import sparrow
from sparrow.export import to_onnx
from sparrow.graph import Graph
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array

DEFAULT = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(os.environ.get("SPARROW_DATA", DEFAULT))
NAMES = (
    "face/models/version-RFB-320.onnx",
    "face/models/version-RFB-320_simplified.onnx",
    "face/models/version-RFB-320_without_postprocessing.onnx",
    "face/models/version-slim-320.onnx",
    "face/models/version-slim-320_simplified.onnx",
    "face/models/version-slim-320_without_postprocessing.onnx",
    "models/onnx/FastestDet.onnx",
    "models/onnx/gtcrn_stream_simple.onnx",
    "models/onnx/mnist-8.onnx",
    "models/onnx/mnist_lstm.onnx",
    "models/onnx/stories260K_prefill64.onnx",
    "models/onnx/stories260K_step_kv128.onnx",
    "models/onnx/super_resolution_224.onnx",
)
# what the model gives back is its input of this name in the next call
STATES: Mapping[str, Mapping[str, str]] = {
    "gtcrn_stream_simple": {
        "conv_cache": "conv_cache_out",
        "tra_cache": "tra_cache_out",
        "inter_cache": "inter_cache_out",
    },
    "stories260K_step_kv128": {"k_cache": "k_cache_out", "v_cache": "v_cache_out"},
}
# relative to the largest value of an output: depth times float32 rounding, in another order of sums
TOLERANCE = 2e-5


@dataclass(frozen=True, slots=True)
class Recorded:
    """Recorded samples of one model: arrays stacked over samples, by the model's own names."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    count: int

    def sample(self, i: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Inputs and outputs of one sample."""
        return {k: v[i] for k, v in self.inputs.items()}, {k: v[i] for k, v in self.outputs.items()}


def model_file(name: str) -> Path:
    """The model, or the reason to skip; a failure where CI must have it."""
    path = DATA / name
    if not path.exists():
        reason = f"{path} is not there: set SPARROW_DATA to the folder of models"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def recorded(name: str) -> Recorded:
    """Recorded answers of a model."""
    stem = name.removesuffix(".onnx").removeprefix("models/").replace("/models/", "/")
    with np.load(DATA / "refs" / f"{stem.replace('/', '__')}__onnx.npz") as z:
        meta = json.loads(str(z["meta"]))
        inputs = {k: z[f"in{i}"] for i, k in enumerate(meta["inputs"])}
        outputs = {k: z[f"out{i}"] for i, k in enumerate(meta["outputs"])}
        return Recorded(inputs, outputs, int(meta["samples"]))


def session_of(m: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A quiet single-thread session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(m.SerializeToString(), options)


def assert_close(name: str, found: Array, wanted: Array) -> None:
    """Assert equality up to float32 rounding."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype, name
    atol = TOLERANCE * max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol, err_msg=name)


def steps(g: Graph, r: Recorded) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """Answers of successive calls of ``g`` that carry its states, with what was recorded."""
    states: dict[str, Array] = {s.name: r.inputs[s.name][0] for s in g.states}
    for i in range(r.count):
        inputs, wanted = r.sample(i)
        found = evaluate(g, {k: inputs[k] for k in g.inputs}, states)
        states = {s.name: found[s.output] for s in g.states}
        yield found, wanted


@pytest.mark.parametrize("name", NAMES)
def test_interpreter_gives_the_recorded_answers(name: str) -> None:
    g = import_onnx(model_file(name)).graph
    r = recorded(name)
    for i in range(r.count):
        inputs, wanted = r.sample(i)
        found = evaluate(g, inputs)
        assert set(found) == set(wanted)
        for k, y in wanted.items():
            assert_close(k, found[k], y)


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_gives_the_recorded_answers_on_our_export(name: str) -> None:
    session = session_of(to_onnx(import_onnx(model_file(name)).graph))
    r = recorded(name)
    for i in range(r.count):
        inputs, wanted = r.sample(i)
        for k, y in zip(wanted, session.run(list(wanted), inputs), strict=True):
            assert_close(k, y, wanted[k])


@pytest.mark.parametrize("name", NAMES)
def test_native_code_gives_the_recorded_answers(name: str) -> None:
    bundle = sparrow.build(model_file(name))
    r = recorded(name)
    pairs = STATES.get(Path(name).stem, {})
    states = {k: r.inputs[k][0] for k in pairs}
    for i in range(r.count):
        inputs, wanted = r.sample(i)
        found = bundle.run({**inputs, **states})
        assert set(found) == set(wanted)
        for k, y in wanted.items():
            assert_close(k, found[k], y)
        # successive steps: its own caches, not the recorded ones
        states = {k: found[y] for k, y in pairs.items()}


@pytest.mark.parametrize("name", [n for n in NAMES if Path(n).stem in STATES])
def test_declared_states_are_carried_from_call_to_call(name: str) -> None:
    pairs = STATES[Path(name).stem]
    g = import_onnx(model_file(name), states=pairs).graph
    assert {s.name for s in g.states} == set(pairs)
    for found, wanted in steps(g, recorded(name)):
        for k in g.outputs:
            assert_close(k, found[k], wanted[k])
        for s in g.states:
            assert_close(s.name, found[s.output], wanted[pairs[s.name]])


def test_every_model_of_the_folder_is_tested() -> None:
    model_file(".")
    assert {str(p.relative_to(DATA)) for p in DATA.rglob("*.onnx")} == set(NAMES)
