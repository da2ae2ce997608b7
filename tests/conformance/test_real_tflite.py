"""Every real .tflite model gives LiteRT's recorded answers: interpreted, exported and natively."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import sparrow
from data import data, data_folder, missing
from sparrow.export import to_onnx
from sparrow.graph import Scheme
from sparrow.importers.tflite import import_tflite
from sparrow.passes.integer import integer
from sparrow.reference import evaluate
from sparrow.tensor import Array
from tflite_files import litert_tensors

# relative to the largest value: float32 rounding, in another order of sums
TOLERANCE = 2e-5
# These weights are codes and activations float32. LiteRT's own kernels also round the activations
# to 8 bits on the fly, which costs it this much; we do not.
HYBRID = 2e-3
FLOATS: Mapping[str, float] = {
    "datasets/hand_gesture/point_history_classifier": TOLERANCE,
    "face/models/version-RFB-320_without_postprocessing": TOLERANCE,
    "face/models/version-slim-320_without_postprocessing": TOLERANCE,
    "models/mlperf_tiny/ad01_fp32": TOLERANCE,
    "models/mlperf_tiny/kws_dscnn_fp32": HYBRID,
    "models/mlperf_tiny/resnet8_cifar10_fp32": TOLERANCE,
    "models/mlperf_tiny/vww_mobilenet025_96_fp32": TOLERANCE,
    "models/tflm/hello_world_float": TOLERANCE,
    "models/tflm/mnist_lstm_float": TOLERANCE,
}
CODES = (
    "models/mcunet/mcunet-320kb-1mb_imagenet",
    "models/mlperf_tiny/ad01_int8",
    "models/mlperf_tiny/kws_dscnn_int8",
    "models/mlperf_tiny/resnet8_cifar10_int8",
    "models/mlperf_tiny/vww_mobilenet025_96_int8",
    "models/tflite/deeplabv3_mnv2_dm05_pascal_quant",
    "models/tflite/mobilenet_v1_0.25_128_quant",
    "models/tflite/mobilenet_v2_1.0_224_quant",
    "models/tflm/hello_world_int8",
    "models/tflm/micro_speech_quantized",
    "models/tflm/mnist_lstm_int8",
    "models/tflm/person_detect_patched",
)
# not recorded: LiteRT refuses the first, the second has scrambled weights
UNRECORDED = ("models/tflm/person_detect", "models/tflm/keyword_scrambled_8bit")


class Recorded:
    """Recorded samples of one model."""

    def __init__(self, name: str) -> None:
        stem = name.removeprefix("models/").replace("/models/", "/").replace("/", "__")
        with np.load(data(f"refs/{stem}__tflite.npz")) as z:
            self.meta = json.loads(str(z["meta"]))
            self.inputs = {k: z[f"in{i}"] for i, k in enumerate(self.meta["inputs"])}
            self.outputs = {k: z[f"out{i}"] for i, k in enumerate(self.meta["outputs"])}
        self.count = int(self.meta["samples"])

    def sample(self, i: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Inputs and outputs of one sample."""
        return {k: v[i] for k, v in self.inputs.items()}, {k: v[i] for k, v in self.outputs.items()}


def assert_numbers(name: str, found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Assert equality up to the bound of the model."""
    assert list(found) == list(wanted)
    for k, y in wanted.items():
        assert found[k].shape == y.shape and found[k].dtype == y.dtype, k
        atol = FLOATS[name] * max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(found[k], y, rtol=0, atol=atol, err_msg=k)


@pytest.mark.parametrize("name", FLOATS)
def test_float_models_give_the_recorded_answers(name: str) -> None:
    g = import_tflite(data(f"{name}.tflite")).graph
    r = Recorded(name)
    for i in range(r.count):
        feeds, wanted = r.sample(i)
        found = evaluate(g, feeds)
        assert_numbers(name, {k: found[k] for k in g.outputs}, wanted)


@pytest.mark.parametrize(
    "name", ["models/mlperf_tiny/kws_dscnn_fp32", "models/tflm/mnist_lstm_float"]
)
def test_native_code_gives_the_recorded_answers(name: str) -> None:
    bundle = sparrow.build(data(f"{name}.tflite"))
    r = Recorded(name)
    for i in range(r.count):
        feeds, wanted = r.sample(i)
        bundle.reset()
        assert_numbers(name, bundle.run(feeds), wanted)
    (against,) = (a for a in bundle.receipt.accuracy if "onnxruntime" in a.what)
    assert not against.note and all(d.max <= TOLERANCE for d in against.differences)


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOATS)
def test_native_code_of_every_float_model(name: str) -> None:
    bundle = sparrow.build(data(f"{name}.tflite"))
    r = Recorded(name)
    for i in range(r.count):
        feeds, wanted = r.sample(i)
        bundle.reset()
        assert_numbers(name, bundle.run(feeds), wanted)


def assert_codes(name: str, run: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> None:
    """Assert that every code of every recorded sample is LiteRT's."""
    r = Recorded(name)
    for i in range(r.count):
        feeds, wanted = r.sample(i)
        found = run(feeds)
        for k, y in wanted.items():
            assert found[k].dtype == y.dtype
            np.testing.assert_array_equal(found[k], y, err_msg=f"sample {i}, {k}")


@pytest.mark.parametrize("name", CODES)
def test_integer_graphs_give_the_very_codes(name: str) -> None:
    g = import_tflite(data(f"{name}.tflite")).graph
    assert g.scheme == "tflite"
    g = integer(g)
    assert_codes(name, lambda feeds: evaluate(g, feeds))


NATIVE = ("models/mlperf_tiny/kws_dscnn_int8", "models/tflite/mobilenet_v1_0.25_128_quant")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in NATIVE else pytest.mark.slow) for n in CODES]
)
def test_native_code_gives_the_very_codes(name: str) -> None:
    bundle = sparrow.build(data(f"{name}.tflite"))

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        bundle.reset()
        return bundle.run(feeds)

    assert_codes(name, run)


@pytest.mark.parametrize("scheme", ["f32", "fixed31"])
@pytest.mark.parametrize("name", NATIVE)
def test_each_layer_is_within_a_step_under_other_schemes(name: str, scheme: Scheme) -> None:
    """Each layer is fed LiteRT's own inputs."""
    path = data(f"{name}.tflite")
    feeds, _ = Recorded(name).sample(0)
    taps = litert_tensors(path.read_bytes(), feeds)
    g = integer(replace(import_tflite(path).graph, scheme=scheme))
    env: dict[str, Array] = {**g.consts, **feeds}
    compared = 0
    for n in g.nodes:
        out = n.op.eval(*(env[x] if x else None for x in n.inputs))
        for y, v in zip(n.outputs, out, strict=True):
            env[y] = v
            if y in taps:
                apart = np.abs(v.astype(int) - taps[y].reshape(v.shape).astype(int))
                assert apart.max() <= 1, f"{y}: {apart.max()} steps"
                env[y] = taps[y].reshape(v.shape)
                compared += 1
    assert compared >= 12


def test_float_arithmetic_wins_alike() -> None:
    """Dequantize, float operator, Quantize: what other runtimes make of the exported file."""
    name = "models/mlperf_tiny/kws_dscnn_int8"
    g = import_tflite(data(f"{name}.tflite")).graph
    r = Recorded(name)
    (k,) = g.outputs
    for i in range(r.count):
        feeds, wanted = r.sample(i)
        assert evaluate(g, feeds)[k].argmax() == wanted[k].argmax()


@pytest.mark.parametrize(
    "name", ["models/mlperf_tiny/kws_dscnn_int8", "models/tflm/mnist_lstm_int8"]
)
def test_onnxruntime_gives_the_same_codes_on_our_export(name: str) -> None:
    g = import_tflite(data(f"{name}.tflite")).graph
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(to_onnx(g).SerializeToString(), options)
    feeds, _ = Recorded(name).sample(0)
    states = {s.input: s.initial for s in g.states}
    (k,) = g.outputs
    (found,) = session.run([k], {**feeds, **states})
    assert np.abs(found.astype(int) - evaluate(g, feeds)[k].astype(int)).max() <= 1


@pytest.mark.parametrize("name", UNRECORDED)
def test_models_without_records_are_decoded(name: str) -> None:
    g = import_tflite(data(f"{name}.tflite")).graph
    rng = np.random.default_rng(0)
    feeds = {
        k: rng.integers(-100, 100, g.types[k].shape).astype(g.types[k].dtype.numpy)
        for k in g.inputs
    }
    assert set(g.outputs) <= set(evaluate(g, feeds))


def test_states_are_carried_from_call_to_call() -> None:
    g = import_tflite(data("models/tflm/mnist_lstm_float.tflite")).graph
    assert len(g.states) == 2
    feeds, _ = Recorded("models/tflm/mnist_lstm_float").sample(0)
    first = evaluate(g, feeds)
    again = evaluate(g, feeds, {s.name: first[s.output] for s in g.states})
    (k,) = g.outputs
    assert not np.array_equal(first[k], again[k])


def test_the_patched_file_is_the_same_network() -> None:
    a, b = (
        import_tflite(data(f"models/tflm/person_detect{s}.tflite")).graph for s in ("", "_patched")
    )
    x = np.random.default_rng(0).integers(-128, 127, (1, 96, 96, 1)).astype(np.int8)
    ya, yb = (next(iter(evaluate(g, {g.inputs[0]: x}).values())) for g in (a, b))
    np.testing.assert_array_equal(ya, yb)


def test_every_tflite_file_is_tested() -> None:
    folder = data_folder()
    if not folder.exists():
        missing("the shared data are not there")
    found = {
        str(p.relative_to(folder)).removesuffix(".tflite") for p in Path(folder).rglob("*.tflite")
    }
    assert found == {*FLOATS, *CODES, *UNRECORDED}
