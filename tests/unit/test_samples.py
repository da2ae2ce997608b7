"""Samples from arrays, files and images fit the inputs or say why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparrow.errors import BadInput
from sparrow.npz import read_arrays, read_shapes
from sparrow.samples import Pixels, fit, load_image, samples
from sparrow.tensor import F32, I8, I64, U8, TensorType

IMAGE = TensorType((1, 3, 4, 6), F32)
TWO = {"a": TensorType((2,), F32), "b": TensorType((1, 3), I64)}


def test_iterables_of_arrays_dicts_and_tuples() -> None:
    x = np.zeros((1, 3, 4, 6), np.float32)
    assert [f["x"].shape for f in samples([x, x[0]], {"x": IMAGE})] == [(1, 3, 4, 6)] * 2
    a, b = np.ones(2, np.float32), np.arange(3)
    for source in ([{"a": a, "b": b}], [(a, b)]):
        (feeds,) = samples(source, TWO)
        assert feeds["a"].dtype == np.float32 and feeds["b"].shape == (1, 3)


def test_stacked_arrays_and_npz(tmp_path: Path) -> None:
    a, b = np.arange(8, dtype=np.float32).reshape(4, 2), np.zeros((4, 3), np.int64)
    np.savez(tmp_path / "s.npz", a=a, b=b)
    found = list(samples(tmp_path / "s.npz", TWO))
    assert len(found) == 4 and found[3]["a"].tolist() == [6, 7]
    np.save(tmp_path / "x.npy", np.zeros((5, 3, 4, 6), np.float32))
    assert len(list(samples(str(tmp_path / "x.npy"), {"x": IMAGE}))) == 5


def test_images_take_layout_and_dtype_of_the_input(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (255, 0, 128)).save(tmp_path / "p.png")
    x = load_image(tmp_path / "p.png", "x", IMAGE)
    np.testing.assert_allclose(x[0, :, 0, 0], [1, 0, 128 / 255])
    y = load_image(tmp_path / "p.png", "x", TensorType((1, 4, 6, 3), U8))
    assert y[0, 0, 0].tolist() == [255, 0, 128]
    z = load_image(tmp_path / "p.png", "x", TensorType((1, 4, 6, 3), I8))
    assert z[0, 0, 0].tolist() == [127, -128, 0]
    assert load_image(tmp_path / "p.png", "x", TensorType((1, 1, 4, 6), F32)).shape == (1, 1, 4, 6)
    assert len(list(samples(tmp_path, {"x": IMAGE}))) == 1


def test_pixels_become_what_the_model_was_trained_on(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (255, 0, 128)).save(tmp_path / "p.png")
    pixels = Pixels(mean=(127,), std=(128,), bgr=True)
    (feeds,) = samples(tmp_path, {"x": IMAGE}, pixels)
    np.testing.assert_allclose(feeds["x"][0, :, 0, 0], [1 / 128, -127 / 128, 1])
    each = load_image(tmp_path / "p.png", "x", IMAGE, Pixels((255, 1, 128), (1, 2, 4)))
    np.testing.assert_allclose(each[0, :, 0, 0], [0, -0.5, 0])
    with pytest.raises(BadInput, match="has 3 channels"):
        load_image(tmp_path / "p.png", "x", IMAGE, Pixels((1, 2), (1,)))
    with pytest.raises(BadInput, match="expected numbers"):
        Pixels(std=(0,))


def test_shapes_are_read_without_the_elements(tmp_path: Path) -> None:
    a, b = np.zeros((3, 0, 5), np.int8), np.zeros((), np.float32)
    c = np.asfortranarray(np.zeros((20, 7)))
    np.savez_compressed(tmp_path / "x.npz", a=a, b=b, c=c)
    assert read_shapes(tmp_path / "x.npz") == {"a": (3, 0, 5), "b": (), "c": (20, 7)}
    np.save(tmp_path / "x.npy", c)
    assert read_shapes(tmp_path / "x.npy") == {"": (20, 7)}
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[:200])
    with pytest.raises(BadInput, match=r"shape \(20, 7\) needs 1120 bytes"):
        read_shapes(tmp_path / "cut.npy")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"input 'x': expected float32\[1x3x4x6\]"):
        fit(np.zeros((2, 2)), "x", IMAGE)
    for stacked in ((5, *IMAGE.shape), (5, *IMAGE.shape[1:])):
        with pytest.raises(BadInput, match="5 samples"):
            fit(np.zeros(stacked), "x", IMAGE)
    with pytest.raises(BadInput, match="got float64"):
        fit(np.zeros(2), "x", TensorType((2,), I64))
    with pytest.raises(BadInput, match="do not fit int8"):
        fit(np.array([300, 0]), "x", TensorType((2,), I8))
    with pytest.raises(BadInput, match="1 arrays, the model 2"):
        list(samples([(1,)], TWO))
    with pytest.raises(BadInput, match="no array for input 'b'"):
        list(samples({"a": np.zeros((4, 2))}, TWO))
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match="no readable image"):
        load_image(tmp_path / "bad.png", "x", IMAGE)
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match=r"not a \.npy or \.npz"):
        read_arrays(tmp_path / "bad.npz")
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(BadInput, match="plain arrays"):
        read_arrays(tmp_path / "o.npy")
    with pytest.raises(BadInput, match="no images"):
        (tmp_path / "empty").mkdir()
        list(samples(tmp_path / "empty", {"x": IMAGE}))
