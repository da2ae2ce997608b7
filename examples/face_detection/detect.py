"""From a photo to drawn boxes: the ultra-light face detector, built by Sparrow.

    python examples/face_detection/detect.py MODEL.onnx PHOTO.jpg [-o OUT.png] [--threshold 0.7]

MODEL is a version-RFB-320 or version-slim-320 ONNX file of Linzaer's
Ultra-Light-Fast-Generic-Face-Detector.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import sparrow

Floats = NDArray[np.float32]

STRIDES = (8, 16, 32, 64)
MIN_SIZES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


@dataclass(frozen=True, slots=True)
class Face:
    """A box in pixels of the photo, to a tenth, and its score in [0, 1]."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float


def preprocess(photo: Image.Image, width: int, height: int) -> Floats:
    """RGB, bilinear resize, aspect not kept, (v - 127) / 128: float32 [1, 3, height, width]."""
    rgb = photo.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    x = (np.asarray(rgb, np.float32) - 127) / 128
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def priors(width: int, height: int) -> Floats:
    """Anchor boxes as (cx, cy, w, h) in [0, 1]: float32 [P, 4]; 4,420 at 320 x 240."""
    rows: list[Floats] = []
    for stride, sizes in zip(STRIDES, MIN_SIZES, strict=True):
        nx, ny = -(-width // stride), -(-height // stride)
        j, i, k = np.meshgrid(np.arange(ny), np.arange(nx), np.arange(len(sizes)), indexing="ij")
        s = np.asarray(sizes, np.float64)[k]
        box = ((i + 0.5) * stride / width, (j + 0.5) * stride / height, s / width, s / height)
        rows.append(np.stack(box, -1).reshape(-1, 4).astype(np.float32))
    return np.clip(np.concatenate(rows), 0, 1)


def decode(deltas: Floats, anchors: Floats) -> Floats:
    """SSD regression to corner boxes in [0, 1]: [P, 4] and [P, 4] -> [P, 4]."""
    center = deltas[:, :2] * CENTER_VARIANCE * anchors[:, 2:] + anchors[:, :2]
    size = np.exp(deltas[:, 2:] * SIZE_VARIANCE) * anchors[:, 2:]
    return np.concatenate([center - size / 2, center + size / 2], 1).astype(np.float32)


def suppress(boxes: Floats, scores: Floats, overlap: float = 0.3, limit: int = 1500) -> list[int]:
    """Hard non-maximum suppression; indices of kept boxes, best first.

    Args:
        boxes: Corners, float32 [N, 4].
        scores: float32 [N].
        overlap: Boxes whose IoU with a better one exceeds this are dropped.
        limit: Candidates looked at.
    """
    order = np.argsort(-scores, kind="stable")[:limit]
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while order.size:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        low = np.maximum(boxes[order, :2], boxes[best, :2])
        high = np.minimum(boxes[order, 2:], boxes[best, 2:])
        both = np.prod(np.clip(high - low, 0, None), axis=1)
        iou = both / (area[order] + area[best] - both + 1e-5)
        order = order[iou <= overlap]
    return kept


def postprocess(
    scores: Floats, boxes: Floats, size: tuple[int, int], threshold: float = 0.7
) -> list[Face]:
    """Faces from the network's outputs.

    Args:
        scores: Background and face probability, [1, P, 2].
        boxes: Corners in [0, 1], [1, P, 4].
        size: Width and height of the photo in pixels.
        threshold: Least score.
    """
    s = scores[0, :, 1]
    picked = np.flatnonzero(s > threshold)
    corners = boxes[0, picked] * np.tile(np.asarray(size, np.float32), 2)
    kept = suppress(corners, s[picked])
    faces = []
    for i in kept:
        x1, y1, x2, y2 = (round(float(v), 1) for v in corners[i])
        faces.append(Face(x1, y1, x2, y2, float(s[picked][i])))
    return faces


def detect(bundle: sparrow.Bundle, photo: Image.Image, threshold: float = 0.7) -> list[Face]:
    """Faces in a photo; models without box decoding get their deltas decoded here."""
    _, _, height, width = bundle.session.library.info.entries[0].inputs[0].shape
    y = bundle.run({"input": preprocess(photo, width, height)})
    boxes = y["boxes"]
    if is_delta(boxes):
        boxes = decode(boxes[0], priors(width, height))[None]
    return postprocess(y["scores"], boxes, photo.size, threshold)


def is_delta(boxes: Floats) -> bool:
    """Whether boxes are regression deltas: decoded corners all have x1 <= x2 and y1 <= y2."""
    return bool(np.any(boxes[..., :2] > boxes[..., 2:]))


def draw(photo: Image.Image, faces: list[Face]) -> Image.Image:
    """The photo with boxes and scores."""
    canvas = photo.convert("RGB")
    pen = ImageDraw.Draw(canvas)
    for f in faces:
        pen.rectangle((f.x1, f.y1, f.x2, f.y2), outline=(40, 220, 120), width=2)
        pen.text((f.x1 + 2, f.y1 + 2), f"{f.score:.2f}", fill=(40, 220, 120))
    return canvas


def main() -> None:
    """Detect, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("faces.png"))
    parser.add_argument("--threshold", type=float, default=0.7)
    args = parser.parse_args()
    bundle = sparrow.build(args.model)
    photo = Image.open(args.photo)
    faces = detect(bundle, photo, args.threshold)
    for f in faces:
        print(f"{f.score:.4f}  {f.x1:7.1f} {f.y1:7.1f} {f.x2:7.1f} {f.y2:7.1f}")
    draw(photo, faces).save(args.out)
    print(f"{len(faces)} faces drawn in {args.out}")


if __name__ == "__main__":
    main()
