"""How near the face detectors' ties are, and how much of their noise is a quantization's.

    python bench/ties.py [--models slim-320,RFB-320] [--recipes int8,int16x8] [--wide 362] [--moved]

Non-maximum suppression keeps the best of several anchors on one face, and what is kept is another
box when two of them change places. For every face that the float model finds in held-out photos the
margin is the difference of the logits of the anchor that is kept and of the best that overlaps it
by an IoU of 0.3 to 0.9; the noise is the root mean square of what quantization changes of it.
Printed: the smallest margins, the noise, how many faces it turns by a normal law and how many it
did, and the noise by which the law turns one of these photos' faces in twenty such networks.
"""

import argparse
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from accuracy import Quantizer, float_model, predictor, sparrow
from accuracy_tasks import faces, moved
from cases import data_folder
from sparrow.tensor import Array

RECIPES: dict[str, Quantizer] = {
    "int8": sparrow(),
    "int8-nearest": sparrow(rounding="nearest"),
    "int16x8": sparrow(precision="int16x8"),
    "int16x8-nearest": sparrow(precision="int16x8", rounding="nearest"),
}
THRESHOLD, OVERLAP, SAME = 0.7, 0.3, 0.9
# What is printed of the margins, and the turned faces that are hardly to be expected.
SMALLEST, FEW = 8, 0.05

Floats = NDArray[np.float64]


def logits(scores: Array) -> Floats:
    """Of the faces' probabilities: [1, P, 2] -> [P]."""
    p = np.clip(scores[0, :, 1].astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))


def overlaps(box: Array, boxes: Array) -> Floats:
    """IoU of a box with others: [4] and [P, 4] -> [P]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    both = np.prod(np.clip(sides, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(both / (np.prod(box[2:] - box[:2]) + areas - both), np.float64)


def kept(real: Floats, boxes: Array) -> Iterator[tuple[int, int]]:
    """Every anchor that suppression keeps and the best rival of another box, where it has one."""
    sure = np.log(THRESHOLD / (1 - THRESHOLD))
    left = [int(i) for i in np.argsort(-real, kind="stable") if real[i] > sure]
    while left:
        best, *left = left
        iou = overlaps(boxes[best], boxes)
        rivals = np.flatnonzero((iou > OVERLAP) & (iou < SAME) & (real <= real[best]))
        if rivals.size:
            yield best, int(rivals[np.argmax(real[rivals])])
        left = [i for i in left if iou[i] <= OVERLAP]


def margins(model: str, quantizer: Quantizer, every: bool) -> tuple[Floats, Floats]:
    """Those of all faces, in the float model and in the quantized one."""
    path = data_folder() / "face" / "models" / f"version-{model}.onnx"
    real = predictor(float_model(path))
    pairs: list[tuple[float, float]] = []
    for fold in faces():
        predict = predictor(quantizer(path, fold.calib))
        for photo in fold.held:
            for x in moved(photo["input"]) if every else [photo["input"]]:
                a, b = real({"input": x}), predict({"input": x})
                before, after = logits(a["scores"]), logits(b["scores"])
                for i, j in kept(before, a["boxes"][0]):
                    pairs.append((before[i] - before[j], after[i] - after[j]))
    found = np.asarray(pairs)
    return found[:, 0], found[:, 1]


def quiet_enough(real: Floats) -> float:
    """The largest noise by which fewer than `FEW` faces are expected to turn."""
    tried = np.logspace(0, -6, 241)
    return float(next((s for s in tried if norm.cdf(-real / s).sum() < FEW), 0.0))


def show(model: str, recipes: Mapping[str, Quantizer], every: bool) -> None:
    for name, quantizer in recipes.items():
        real, found = margins(model, quantizer, every)
        noise = float(np.sqrt(np.square(found - real).mean()))
        least = " ".join(f"{m:.4f}" for m in np.sort(real)[:SMALLEST])
        print(f"{model} {name}: {len(real)} faces with rivals, smallest margins {least}")
        print(
            f"  noise {noise:.4f}: {norm.cdf(-real / noise).sum():.1f} expected to turn, "
            f"{(found < 0).sum()} did; {quiet_enough(real):.4f} would turn {FEW}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="slim-320,RFB-320")
    parser.add_argument("--recipes", default="int8,int16x8")
    parser.add_argument("--wide", help="layers that take 16 bits, as a further recipe")
    parser.add_argument("--moved", action="store_true", help="ten images of each photo")
    args = parser.parse_args()
    recipes = {name: RECIPES[name] for name in args.recipes.split(",")}
    if args.wide:
        recipes["wide"] = sparrow(pins=tuple((name, "int16x8") for name in args.wide.split(",")))
    for model in args.models.split(","):
        show(model, recipes, args.moved)


if __name__ == "__main__":
    main()
