"""What a quantization is judged on: real models, samples to calibrate on, others to score."""

import io
import json
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cases import REPO, data_folder
from sparrow.tensor import Array

Feeds = dict[str, Array]
Predict = Callable[[Feeds], Mapping[str, Array]]
# One number per sample, higher is better; the first predictor is the float model's.
Score = Callable[[Predict, Predict], list[float]]


@dataclass(frozen=True, slots=True)
class Fold:
    """Samples to calibrate on, others, and the score over those."""

    calib: Sequence[Feeds]
    held: Sequence[Feeds]
    score: Score


@dataclass(frozen=True, slots=True)
class Task:
    """A model with folds; ``unit`` says what the mean score is."""

    name: str
    model: Path
    unit: str
    folds: Callable[[], list[Fold]]


def labelled(feeds: Sequence[Feeds], labels: Sequence[int], output: str = "") -> Score:
    """100 where the largest output is the label."""

    def score(_: Predict, predict: Predict) -> list[float]:
        return [
            100.0 * (int(np.argmax(_one(predict(f), output))) == y)
            for f, y in zip(feeds, labels, strict=True)
        ]

    return score


def agreement(feeds: Sequence[Feeds], output: str = "") -> Score:
    """Share of positions whose largest output is the float model's, in percent."""

    def score(real: Predict, predict: Predict) -> list[float]:
        found = []
        for f in feeds:
            same = _one(real(f), output).argmax(-1) == _one(predict(f), output).argmax(-1)
            found.append(100.0 * float(same.mean()))
        return found

    return score


def fidelity(feeds: Sequence[Feeds]) -> Score:
    """Power of the float outputs over the power of the difference, in dB, mean over outputs.

    What is called exact has 120 dB: float32 itself has no more.
    """

    def score(real: Predict, predict: Predict) -> list[float]:
        found = []
        for f in feeds:
            y, z = real(f), predict(f)
            shares = [
                np.square(y[k] - z[k]).sum(dtype=np.float64)
                / max(np.square(y[k]).sum(dtype=np.float64), 1e-30)
                for k in y
            ]
            found.append(float(np.mean([-10 * np.log10(max(s, 1e-12)) for s in shares])))
        return found

    return score


def next_tokens(feeds: Sequence[Feeds]) -> Score:
    """Share of tokens that the largest logit before them foretells, in percent."""

    def score(_: Predict, predict: Predict) -> list[float]:
        found = []
        for f in feeds:
            foretold, told = _one(predict(f), "").argmax(-1)[0, :-1], f["tokens"][0, 1:]
            found.append(100.0 * float((foretold == told).mean()))
        return found

    return score


def _one(outputs: Mapping[str, Array], name: str) -> Array:
    return outputs[name] if name else next(iter(outputs.values()))


def _npz(path: str) -> dict[str, Array]:
    with np.load(data_folder() / path) as f:
        return dict(f)


def _photo(path: Path, size: tuple[int, int]) -> Array:
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32)


def digits() -> list[Fold]:
    from sklearn.datasets import load_digits

    d = load_digits()
    x = [{"image": i} for i in (d.images / 16).astype(np.float32)[:, None, None]]
    return [Fold(x[:128], x[-500:], labelled(x[-500:], d.target[-500:].tolist()))]


def moved(x: Array) -> list[Array]:
    """A photo, its mirror image, and both shifted by 7 pixels each way (around the border)."""
    found = []
    for dy, dx in ((0, 0), (0, 7), (0, -7), (7, 0), (-7, 0)):
        found += [np.roll(a, (dy, dx), (2, 3)) for a in (x, x[..., ::-1])]
    return [np.ascontiguousarray(a) for a in found]


def faces(every: bool = False) -> list[Fold]:
    """Three folds over the 15 photos, and the 4 labelled ones calibrated on all 15.

    Args:
        every: Score all that `moved` makes of a photo, too.
    """
    sys.path.append(str(REPO / "examples" / "face_detection"))
    import detect

    def feed(path: Path) -> tuple[Feeds, tuple[int, int]]:
        with Image.open(path) as photo:
            return {"input": detect.preprocess(photo, 320, 240)}, photo.size

    def found(outputs: Mapping[str, Array], size: tuple[int, int]) -> list[detect.Face]:
        return detect.postprocess(outputs["scores"], outputs["boxes"], size)

    def score(photos: Sequence[Path]) -> Score:
        given = [feed(p) for p in photos]
        if every:
            given = [({"input": x}, size) for f, size in given for x in moved(f["input"])]

        def of(real: Predict, predict: Predict) -> list[float]:
            shares = []
            for feeds, size in given:
                want, have = found(real(feeds), size), found(predict(feeds), size)
                hit = sum(any(_iou(a, b) >= 0.9 for b in have) for a in want)
                extra = sum(not any(_iou(a, b) >= 0.5 for a in want) for b in have)
                shares.append(100.0 * hit / max(1, len(want) + extra))
            return shares

        return of

    folder = data_folder() / "face"
    photos = sorted((folder / "images").glob("*.jpg"))
    folds = []
    for k in range(3):
        held = photos[k::3]
        calib = [feed(p)[0] for p in photos if p not in held]
        folds.append(Fold(calib, [feed(p)[0] for p in held], score(held)))
    more = sorted((folder / "labelled").glob("*.jpg"))
    all_of_them = [feed(p)[0] for p in photos]
    return [*folds, Fold(all_of_them, [feed(p)[0] for p in more], score(more))]


def _iou(a: object, b: object) -> float:
    ax, ay, bx, by = (getattr(a, k) for k in ("x1", "y1", "x2", "y2"))
    cx, cy, dx, dy = (getattr(b, k) for k in ("x1", "y1", "x2", "y2"))
    both = max(0.0, min(bx, dx) - max(ax, cx)) * max(0.0, min(by, dy) - max(ay, cy))
    return float(both / ((bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - both))


def keywords() -> list[Fold]:
    z = _npz("datasets/kws01/kws01_mfcc_a500.npz")
    # the scale and zero point of the int8 model's input
    x = (z["x"].astype(np.float32) - 83) * np.float32(0.584703)
    feeds = [{"input_1": i[None]} for i in x]
    y = z["y"].tolist()
    return [Fold(feeds[:100], feeds[100:], labelled(feeds[100:], y[100:]))]


def _cifar(name: str, per_class: int) -> tuple[list[Feeds], list[int]]:
    feeds, labels = [], []
    with zipfile.ZipFile(data_folder() / "datasets" / "cifar10" / name) as z:
        files = sorted(n for n in z.namelist() if n.endswith((".jpg", ".jpeg", ".png")))
        classes = sorted({n.split("/")[-2] for n in files})
        for c, kind in enumerate(classes):
            for n in [n for n in files if n.split("/")[-2] == kind][:per_class]:
                picture = Image.open(io.BytesIO(z.read(n))).convert("RGB")
                feeds.append({"input_1": np.asarray(picture, np.float32)[None]})
                labels.append(c)
    return feeds, labels


def cifar() -> list[Fold]:
    calib, _ = _cifar("cifar10_train_20k_jpg.zip", 13)
    feeds, labels = _cifar("cifar10_test_a_jpg.zip", 200)
    return [Fold(calib, feeds, labelled(feeds, labels))]


def mnist(name: str, shape: tuple[int, ...], scale: float) -> Callable[[], list[Fold]]:
    def folds() -> list[Fold]:
        train, test = (_npz(f"datasets/mnist/mnist_{p}.npz") for p in ("train", "test_a"))

        def feeds(x: Array) -> list[Feeds]:
            return [{name: i.astype(np.float32).reshape(shape) / np.float32(scale)} for i in x]

        held = feeds(test["x"])
        return [Fold(feeds(train["x"][:128]), held, labelled(held, test["y"].tolist()))]

    return folds


def photos(
    name: str, size: int, layout: str, score: Callable[[Sequence[Feeds]], Score]
) -> Callable[[], list[Fold]]:
    """Two folds over the photos there are, in [0, 1]; BGR for channels first."""

    def folds() -> list[Fold]:
        files = [
            *sorted((data_folder() / "images").glob("*.jpg")),
            *sorted((data_folder() / "images" / "coco").glob("*.jpg")),
            *sorted((data_folder() / "face" / "images").glob("*.jpg")),
        ]
        feeds = []
        for p in files:
            x = _photo(p, (size, size)) / 255
            x = x[..., ::-1].transpose(2, 0, 1) if layout == "NCHW" else x
            feeds.append({name: np.ascontiguousarray(x[None])})
        return [Fold(feeds[1 - k :: 2], feeds[k::2], score(feeds[k::2])) for k in (0, 1)]

    return folds


def stories(score: Callable[[Sequence[Feeds]], Score]) -> list[Fold]:
    """Texts of 64 tokens drawn from the model itself, at a temperature of 0.8."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(data_folder() / "models/onnx/stories260K_prefill64.onnx"))
    rng = np.random.default_rng(0)
    feeds: list[Feeds] = []
    for _ in range(108):
        tokens = np.ones((1, 64), np.int64)
        for i in range(1, 64):
            logits = session.run(None, {"tokens": tokens})[0][0, i - 1].astype(np.float64)
            p = np.exp((logits - logits.max()) / 0.8)
            tokens[0, i] = rng.choice(len(p), p=p / p.sum())
        feeds.append({"tokens": tokens})
    return [Fold(feeds[:12], feeds[12:], score(feeds[12:]))]


def noisy_speech() -> list[Fold]:
    """Frames of the recording, states as the float model leaves them; the enhanced spectrum."""
    z = _npz("refs/onnx__gtcrn_stream_simple__onnx.npz")
    names = json.loads(str(z["meta"]))["inputs"]
    frames = [{n: z[f"in{k}"][i] for k, n in enumerate(names)} for i in range(len(z["in0"]))]
    return [Fold(frames[1 - k :: 2], frames[k::2], fidelity(frames[k::2])) for k in (0, 1)]


def tasks() -> tuple[Task, ...]:
    m = data_folder() / "models"
    face, tiny, onnx = data_folder() / "face" / "models", m / "mlperf_tiny", m / "onnx"
    return (
        Task("digits", REPO / "examples/digits/digits.onnx", "% right", digits),
        Task("RFB-320", face / "version-RFB-320.onnx", "% faces", faces),
        Task("slim-320", face / "version-slim-320.onnx", "% faces", faces),
        Task("RFB-320 moved", face / "version-RFB-320.onnx", "% faces", partial(faces, True)),
        Task("slim-320 moved", face / "version-slim-320.onnx", "% faces", partial(faces, True)),
        Task("DS-CNN", tiny / "kws_dscnn_fp32.tflite", "% right", keywords),
        Task("ResNet-8", tiny / "resnet8_cifar10_fp32.tflite", "% right", cifar),
        Task("mnist-8", onnx / "mnist-8.onnx", "% right", mnist("Input3", (1, 1, 28, 28), 1)),
        Task("mnist_lstm", onnx / "mnist_lstm.onnx", "% right", mnist("input", (1, 28, 28), 255)),
        Task(
            "VWW MobileNet",
            tiny / "vww_mobilenet025_96_fp32.tflite",
            "% same",
            photos("input_1", 96, "NHWC", agreement),
        ),
        Task(
            "FastestDet", onnx / "FastestDet.onnx", "dB", photos("input.1", 352, "NCHW", fidelity)
        ),
        Task(
            "stories260K",
            onnx / "stories260K_prefill64.onnx",
            "% same",
            partial(stories, agreement),
        ),
        Task(
            "stories260K text",
            onnx / "stories260K_prefill64.onnx",
            "% right",
            partial(stories, next_tokens),
        ),
        Task("GTCRN", onnx / "gtcrn_stream_simple.onnx", "dB", noisy_speech),
    )


def mean(scores: Sequence[float]) -> float:
    return float(np.mean(scores))


def paired(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a - b over samples, and its bootstrap 95 % interval."""
    d: NDArray[np.float64] = np.asarray(a) - np.asarray(b)
    rng = np.random.default_rng(0)
    means = d[rng.integers(0, len(d), (4000, len(d)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(d.mean()), float(low), float(high)
