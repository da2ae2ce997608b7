"""The face detector end to end: photos in, the reference's boxes out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detect import Face, decode, detect, draw, preprocess, priors, suppress
from PIL import Image

import sparrow
from data import data
from sparrow.evidence.gate import Gate


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (total - w * h)


@pytest.mark.parametrize("version", ["RFB-320", "slim-320"])
def test_boxes_on_every_photo_are_the_references(version: str) -> None:
    reference = json.loads(data("face/reference_detections.json").read_text())[version]
    bundle = sparrow.build(data(f"face/models/version-{version}.onnx"))
    for name, expected in reference.items():
        faces = detect(bundle, Image.open(data(name)))
        assert len(faces) == len(expected), name
        for f, e in zip(faces, expected, strict=True):
            assert iou((f.x1, f.y1, f.x2, f.y2), tuple(e[:4])) >= 0.99, (name, f, e)
            assert abs(f.score - e[4]) <= 1e-3, (name, f, e)


@pytest.mark.parametrize("version", ["RFB-320", "slim-320"])
def test_compact_int8_takes_330_kilobytes(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # this is of size; bench/int8.py is of speed
    won = Gate("not slower than float32", "", "", True)
    monkeypatch.setattr("sparrow.assemble.race", lambda *_: (won, {}))
    photos = [preprocess(Image.open(data(f"face/images/{i}.jpg")), 320, 240) for i in (1, 2, 3, 5)]
    memory = sparrow.build(
        data(f"face/models/version-{version}_simplified.onnx"),
        calib=photos,
        precision="int8",
        code="compact",
        budget=sparrow.Budget(size=330_000),
    ).receipt.memory
    assert memory.code_bytes + memory.weights_bytes <= 330_000


def test_a_model_without_box_decoding_gives_the_same_faces() -> None:
    photo = Image.open(data("face/images/1.jpg"))
    whole = sparrow.build(data("face/models/version-RFB-320.onnx"))
    bare = sparrow.build(data("face/models/version-RFB-320_without_postprocessing.onnx"))
    for a, b in zip(detect(whole, photo), detect(bare, photo), strict=True):
        assert iou((a.x1, a.y1, a.x2, a.y2), (b.x1, b.y1, b.x2, b.y2)) >= 0.98


def test_priors_are_the_published_ones() -> None:
    p = priors(320, 240)
    assert p.shape == (4420, 4)
    assert priors(640, 480).shape == (17640, 4)
    np.testing.assert_allclose(p[0], [0.0125, 0.0166667, 0.03125, 0.0416667], atol=1e-6)
    np.testing.assert_allclose(p[3, :2], [0.0375, 0.0166667], atol=1e-6)
    np.testing.assert_allclose(p[-1], [0.9, 0.933333, 0.8, 1.0], atol=1e-6)


def test_decoding_prior_zero() -> None:
    box = decode(np.array([[1, -1, 0.5, -0.5]], np.float32), priors(320, 240)[:1])
    pixels = box * [320, 240, 320, 240]
    np.testing.assert_allclose(pixels[0], [-0.52585, -1.52419, 10.52585, 7.52419], atol=1e-4)


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], np.float32)
    assert suppress(boxes, np.array([0.8, 0.9, 0.7], np.float32)) == [1, 2]


def test_preprocessing_and_drawing_keep_shapes() -> None:
    photo = Image.new("L", (64, 48), 127)
    x = preprocess(photo, 320, 240)
    assert x.shape == (1, 3, 240, 320) and x.dtype == np.float32 and not x.any()
    assert draw(photo, [Face(1, 2, 30, 40, 0.9)]).size == (64, 48)
