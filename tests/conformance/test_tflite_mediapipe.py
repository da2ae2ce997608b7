"""MediaPipe's custom operators against what its published kernels compute, written out in NumPy."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import atan2, cos, floor, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flatbuffers import flexbuffers

import sparrow
from sparrow.errors import BadModel, UnsupportedOp
from sparrow.importers.tflite import import_tflite
from sparrow.importers.tflite.flexbuffer import read_options
from sparrow.reference import evaluate
from sparrow.tensor import F32, Array
from tflite_files import O, T, constant, write

RNG = np.random.default_rng(3)


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def custom(
    name: str,
    feeds: Mapping[str, Array],
    outputs: Sequence[tuple[int, ...]],
    options: bytes,
    version: int = 1,
    consts: Mapping[str, Array] | None = None,
) -> bytes:
    """A file of one custom operator."""
    given = consts or {}
    tensors = [T(k, v.shape, F32) for k, v in feeds.items()]
    tensors += [constant(k, v) for k, v in given.items()]
    made = [T(f"y{i}", shape, F32) for i, shape in enumerate(outputs)]
    names = [t.name for t in made]
    op = O(f"CUSTOM:{name}", [*feeds, *given], names, custom=options, version=version)
    return write([*tensors, *made], [op], list(feeds), names)


def answers(tmp_path: Path, model: bytes, feeds: dict[str, Array]) -> list[Array]:
    """Outputs of the imported graph, which the native code gives as well."""
    path = tmp_path / "m.tflite"
    path.write_bytes(model)
    found = evaluate(import_tflite(path).graph, feeds)
    bundle = sparrow.build(path, target="x86_64")
    for k, v in bundle.run(feeds).items():
        np.testing.assert_allclose(v, found[k], rtol=1e-5, atol=1e-5)
    return [found[k] for k in sorted(found)]


def flex(**options: int | float | Sequence[int]) -> bytes:
    """A map of options; lists of integers are typed vectors."""
    b = flexbuffers.Builder()
    with b.Map():
        for k, v in options.items():
            b.Key(k)
            if isinstance(v, Sequence):
                b.TypedVectorFromElements(list(v))
            else:
                b.Add(v)
    return bytes(b.Finish())


@pytest.mark.parametrize(("padding", "extent"), [(1, 2), (1, 3), (2, 3), (1, 4)])
def test_transposed_convolution_with_a_bias(tmp_path: Path, padding: int, extent: int) -> None:
    x, w, b = f32(1, 4, 5, 3), f32(2, extent, 2, 3), f32(2)
    strides = (2, 2)
    cut = [max(0, k - (n - 1) % 2 - 1) if padding == 1 else 0 for n, k in ((4, extent), (5, 2))]
    full = [2 * (n - 1) + k for n, k in ((4, extent), (5, 2))]
    y = np.zeros((1, *full, 2), np.float64)
    for i in range(4):
        for j in range(5):
            y[0, 2 * i : 2 * i + extent, 2 * j : 2 * j + 2] += np.einsum(
                "ohwc,c->hwo", w, x[0, i, j]
            )
    ends = [n - c for n, c in zip(full, cut, strict=True)]
    y = y[:, cut[0] // 2 : cut[0] // 2 + ends[0], cut[1] // 2 : cut[1] // 2 + ends[1]] + b
    model = custom("Convolution2DTransposeBias", {"x": x}, [y.shape],
                   struct.pack("<3i", padding, *strides), consts={"w": w, "b": b})  # fmt: skip
    (found,) = answers(tmp_path, model, {"x": x})
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [1, 2])
def test_pooling_with_places_and_back(tmp_path: Path, padding: int) -> None:
    x = RNG.integers(-3, 3, (1, 5, 7, 4)).astype(np.float32)
    out = [-(-n // 2) if padding == 1 else n // 2 for n in (5, 7)]
    best, place = (np.zeros((1, *out, 4), np.float32) for _ in range(2))
    for i in range(out[0]):
        for j in range(out[1]):
            for c in range(4):
                top, at = float(np.finfo(np.float32).min), 0
                for k in range(4):
                    row, column = 2 * i + k // 2, 2 * j + k % 2
                    if row < 5 and column < 7 and x[0, row, column, c] > top:
                        top, at = x[0, row, column, c], k
                best[0, i, j, c], place[0, i, j, c] = top, at + np.float32(0.1)
    options = struct.pack("<6i", padding, 2, 2, 2, 2, 0)
    model = custom("MaxPoolingWithArgmax2D", {"x": x}, [best.shape] * 2, options)
    found = answers(tmp_path, model, {"x": x})
    np.testing.assert_array_equal(found[0], best)
    np.testing.assert_array_equal(found[1], place)
    wide = np.zeros((1, 2 * out[0], 2 * out[1], 4), np.float32)
    for i, j, c in np.ndindex(*out, 4):
        k = int(place[0, i, j, c])
        wide[0, 2 * i + k // 2, 2 * j + k % 2, c] = best[0, i, j, c]
    feeds = {"v": best, "at": place}
    model = custom("MaxUnpooling2D", feeds, [wide.shape], options)
    np.testing.assert_array_equal(answers(tmp_path, model, feeds)[0], wide)


@pytest.mark.parametrize("still", [False, True])
def test_matrix_of_landmarks(tmp_path: Path, still: bool) -> None:
    x = 50 * f32(1, 9, 3)
    if still:
        x[0, 4] = x[0, 1]
    subset, size, scale, wanted = [0, 2, 3, 5, 8], (16, 12), (1.5, 2.0), 0.25
    r = wanted - atan2(x[0, 4, 1] - x[0, 1, 1], x[0, 4, 0] - x[0, 1, 0])

    def turn(a: float) -> Array:
        return np.array([[cos(a), -sin(a)], [sin(a), cos(a)]])

    turned = x[0, subset, :2].astype(np.float64) @ turn(r).T
    high, low = turned.max(0), turned.min(0)
    matrix = np.eye(4)
    matrix[:2, :2] = turn(-r) * (np.array(scale) * (high - low) / size)
    matrix[:2, 3] = turn(-r) @ ((high + low) / 2) - matrix[:2, :2] @ (np.array(size) / 2)
    options = flex(
        left_rotation_idx=1,
        right_rotation_idx=4,
        output_height=12,
        output_width=16,
        scale_x=1.5,
        scale_y=2,
        subset_idxs=subset,
        target_rotation_radians=wanted,
    )
    model = custom("Landmarks2TransformMatrix", {"x": x}, [(1, 4, 4)], options, 2)
    found = answers(tmp_path, model, {"x": x})[0]
    np.testing.assert_allclose(found[0], matrix, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [2, 3])
def test_transformed_landmarks(tmp_path: Path, axes: int) -> None:
    feeds = {"x": f32(1, 7, axes), "m": f32(1, 4, 4)}
    y = feeds["x"].copy()
    y[0, :, :2] = feeds["x"][0, :, :2] @ feeds["m"][0, :2, :2].T + feeds["m"][0, :2, 3]
    model = custom("TransformLandmarks", feeds, [y.shape], b"", 2)
    np.testing.assert_allclose(answers(tmp_path, model, feeds)[0], y, rtol=1e-5, atol=1e-5)


def test_transformed_tensor(tmp_path: Path) -> None:
    x, m = f32(1, 6, 9, 3), np.eye(4, dtype=np.float32)[None]
    # turned, and in part outside of the image
    m[0, :2] = [[0.9, -0.4, 0, 1.3], [0.5, 0.8, 0, -0.7]]
    y = np.zeros((1, 5, 8, 3))
    for i, j in np.ndindex(5, 8):
        u, v = m[0, :2, :2] @ [j + 0.5, i + 0.5] + m[0, :2, 3] - 0.5
        if 0 <= u <= 8 and 0 <= v <= 5:
            a, b = floor(u), floor(v)
            for di, dj in np.ndindex(2, 2):
                row, column = min(b + di, 5), min(a + dj, 8)
                weight = (1 - abs(v - b - di)) * (1 - abs(u - a - dj))
                y[0, i, j] += weight * x[0, row, column]
    assert (y == 0).all(-1).any()
    feeds = {"x": x, "m": m}
    model = custom("TransformTensorBilinear", feeds, [y.shape],
                   flex(output_height=5, output_width=8), 2)  # fmt: skip
    np.testing.assert_allclose(answers(tmp_path, model, feeds)[0], y, rtol=1e-4, atol=1e-4)


def test_what_is_not_published_so_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    feeds = {"x": f32(1, 6, 9, 3), "m": f32(1, 4, 4)}

    def load(name: str, options: bytes, version: int = 2) -> None:
        path.write_bytes(custom(name, feeds, [(1, 5, 8, 3)], options, version))
        import_tflite(path)

    with pytest.raises(UnsupportedOp, match="version 1; version 2 is read"):
        load("TransformTensorBilinear", flex(output_height=5, output_width=8), 1)
    with pytest.raises(BadModel, match="'output_width' is 0, expected 1 to 4096"):
        load("TransformTensorBilinear", flex(output_height=5))
    with pytest.raises(BadModel, match="'output_width' is a list, expected a number"):
        load("TransformTensorBilinear", flex(output_height=5, output_width=[8] * 4000))
    with pytest.raises(BadModel, match="options are no map"):
        load("TransformTensorBilinear", b"abc")
    with pytest.raises(BadModel, match="4 bytes of options, expected 24"):
        load("MaxUnpooling2D", bytes(4))
    with pytest.raises(UnsupportedOp, match=r"CUSTOM:Unheard-2.*no decoder"):
        load("Unheard", b"")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("option", ["subset_idxs", "scale_x", "target_rotation_radians"])
def test_options_that_are_no_numbers_are_refused(tmp_path: Path, option: str, value: float) -> None:
    options: dict[str, Any] = {"left_rotation_idx": 0, "right_rotation_idx": 1, "scale_y": 1}
    options |= {"output_width": 8, "output_height": 8, "scale_x": 1, "subset_idxs": [0, 1]}
    options[option] = [value, 1.0] if option == "subset_idxs" else value
    feeds = {"x": f32(1, 5, 3)}
    path = tmp_path / "m.tflite"
    path.write_bytes(custom("Landmarks2TransformMatrix", feeds, [(1, 4, 4)], flex(**options), 2))
    with pytest.raises(BadModel, match=f"'{option}' is .*, expected a number of float32"):
        import_tflite(path)


def test_options_end_in_one_line_wherever_they_are_cut_or_changed() -> None:
    good = flex(a=1, b=2.5, c=[1, 2, 300], d=-70000)
    assert read_options(good, "m") == {"a": 1, "b": 2.5, "c": (1, 2, 300), "d": -70000}
    for i in range(len(good)):
        for changed in (
            good[:i],
            good[i:],
            *(good[:i] + bytes([v]) + good[i + 1 :] for v in (0, 1, 41, 255)),
        ):
            try:
                read_options(changed, "m")
            except BadModel as e:
                assert "\n" not in str(e)
