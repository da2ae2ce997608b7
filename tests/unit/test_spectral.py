"""Fourier transforms as matrix products, against numpy.fft; windows against scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy import signal

from sparrow.errors import SparrowError
from sparrow.graph import Graph
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array

RNG = np.random.default_rng(3)


def build(op: str, x: Array | None, constants: dict[str, Array], **attrs: Any) -> Graph:
    """A model of one node over ``x`` and constants, ``""`` where an input is absent."""
    first = [] if x is None else ["x"]
    names = [k if v.size or v.ndim == 0 else "" for k, v in constants.items()]
    node = helper.make_node(op, first + names, ["y"], **attrs)
    inputs = []
    if x is not None:
        code = helper.np_dtype_to_tensor_dtype(x.dtype)
        inputs = [helper.make_tensor_value_info("x", code, x.shape)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(v, k) for k, v in constants.items() if k in names]
    graph = helper.make_graph([node], "g", inputs, [output], held)
    opset = helper.make_opsetid("", 20)
    return import_onnx(helper.make_model(graph, opset_imports=[opset])).graph


def scalar(v: int) -> Array:
    return np.array(v, np.int64)


NONE = np.zeros(0, np.int64)


def parts(z: Array) -> Array:
    return np.stack([z.real, z.imag], -1)


@pytest.mark.parametrize("axis", [1, 2, -2])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("length", [None, 5, 11])
def test_complex_dft(axis: int, inverse: int, length: int | None) -> None:
    z = RNG.standard_normal((2, 7, 6, 2))
    size = NONE if length is None else scalar(length)
    g = build("DFT", z, {"n": size, "axis": scalar(axis)}, inverse=inverse)
    run = np.fft.ifft if inverse else np.fft.fft
    want = parts(run(z[..., 0] + 1j * z[..., 1], length, axis % 4))
    np.testing.assert_allclose(evaluate(g, {"x": z})["y"], want, 1e-9, 1e-9)


@pytest.mark.parametrize("length", [None, 8, 9])
def test_one_sided_dft_and_its_inverse(length: int | None) -> None:
    x = RNG.standard_normal((2, 10, 1))
    size = NONE if length is None else scalar(length)
    forward = build("DFT", x, {"n": size}, onesided=1)
    spectrum = evaluate(forward, {"x": x})["y"]
    np.testing.assert_allclose(spectrum, parts(np.fft.rfft(x[..., 0], length, 1)), 1e-9, 1e-9)
    back = build("DFT", spectrum, {"n": scalar(length or 10)}, onesided=1, inverse=1)
    want = np.fft.irfft(spectrum[..., 0] + 1j * spectrum[..., 1], length or 10, 1)
    np.testing.assert_allclose(evaluate(back, {"x": spectrum})["y"][..., 0], want, 1e-9, 1e-9)


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("onesided", [0, 1])
def test_stft_is_one_convolution(windowed: bool, onesided: int) -> None:
    x = RNG.standard_normal((2, 50, 1)).astype(np.float32)
    w = np.hanning(16).astype(np.float32) if windowed else np.ones(16, np.float32)
    consts = {"step": scalar(6), "w": w if windowed else NONE, "n": scalar(16)}
    g = build("STFT", x, consts, onesided=onesided)
    assert [type(n.op).__name__ for n in g.nodes].count("Conv") == 1
    frames = np.lib.stride_tricks.sliding_window_view(x[..., 0], 16, 1)[:, ::6] * w
    want = parts(np.fft.rfft(frames) if onesided else np.fft.fft(frames))
    np.testing.assert_allclose(evaluate(g, {"x": x})["y"], want, 1e-4, 1e-4)


@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("name", ["hann", "blackman"])
def test_windows(name: str, periodic: int) -> None:
    op = f"{name.capitalize()}Window"
    g = build(op, None, {"n": scalar(12)}, periodic=periodic)
    want = signal.get_window(name, 12, fftbins=bool(periodic))
    np.testing.assert_allclose(evaluate(g, {})["y"], want, 1e-6, 1e-6)


def test_a_transform_that_needs_too_large_a_matrix_is_refused() -> None:
    with pytest.raises(SparrowError, match="the transform would be a constant of"):
        build("DFT", np.zeros((1, 1 << 14, 1), np.float32), {})
