"""Does blame name channels of very different size, and does its cure restore the network?

    python bench/uneven.py [--seed 4]

A MobileNet-like network of random weights whose depthwise channels differ a thousand times: what is
behind them undoes it, so that nothing of it shows in float. Weights per tensor collapse. Blame has
to name "uneven channels" for the first layer, and what `--apply` writes is compared with the float
network's answers on crops of photos that nothing was calibrated on. Exits with 1 if that fails.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import sparrow
from accuracy import predictor
from accuracy_tasks import Feeds
from cases import data_folder
from sparrow.blame import apply_cure, blame_model
from sparrow.tensor import Array

SIDE = 48
CALIBRATED = 64
# (channels, stride) of each block, and the blocks that are planted.
BLOCKS = ((32, 1), (64, 2), (64, 1), (128, 2))
UNEVEN = (1, 2)
SPREAD = (0.01, 10.0)
CLASSES = 10


Constants = dict[str, NDArray[np.float64]]


def network(seed: int, samples: Sequence[Feeds]) -> onnx.ModelProto:
    """Depthwise and pointwise convolutions behind a full one, ReLU after each.

    What all samples have in common is taken from the answers, which would be one class otherwise.
    """
    rng = np.random.default_rng(seed)
    constants: Constants = {}
    nodes: list[onnx.NodeProto] = []

    def layer(x: str, y: str, weights: NDArray[np.float64], stride: int, group: int = 1) -> str:
        k = weights.shape[-1]
        size = np.abs(weights).max((1, 2, 3))
        constants[f"{y}.w"] = weights
        constants[f"{y}.b"] = 0.05 * size * rng.normal(size=len(weights))
        names, pads, strides = [x, f"{y}.w", f"{y}.b"], [k // 2] * 4, [stride, stride]
        conv = helper.make_node(
            "Conv", names, [f"{y}.sum"], y, strides=strides, pads=pads, group=group
        )
        nodes.append(conv)
        nodes.append(helper.make_node("Relu", [f"{y}.sum"], [y], f"{y}.relu"))
        return y

    def drawn(*shape: int) -> NDArray[np.float64]:
        values: NDArray[np.float64] = rng.normal(size=shape)
        return values * float(np.sqrt(2 / np.prod(shape[1:])))

    x, c = layer("x", "first", drawn(16, 3, 3, 3), 2), 16
    for i, (m, stride) in enumerate(BLOCKS):
        deep, wide = drawn(c, 1, 3, 3), drawn(m, c, 1, 1)
        if i in UNEVEN:
            low, high = (float(v) for v in np.log(SPREAD))
            size = np.exp(rng.uniform(low, high, c))
            deep, wide = deep * size[:, None, None, None], wide / size[None, :, None, None]
        x = layer(layer(x, f"depthwise{i}", deep, stride, c), f"pointwise{i}", wide, 1)
        c = m
    constants["end"] = 0.3 * rng.normal(size=(c, CLASSES))
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "end", "common"], ["y"], "end"),
    ]
    constants["common"] = np.zeros(CLASSES)
    predict = predictor(_model(nodes, constants))
    answers = [predict(x)["y"][0] for x in samples]
    constants["common"] = -np.mean(answers, 0)
    return _model(nodes, constants)


def _model(nodes: list[onnx.NodeProto], constants: Constants) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "uneven",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def crops(seed: int) -> list[Feeds]:
    """Nine pieces of each photo, in [-1, 1], in random order."""
    folder = data_folder()
    found = []
    for p in sorted([*folder.glob("images/**/*.jpg"), *folder.glob("face/images/*.jpg")]):
        with Image.open(p) as photo:
            small = photo.convert("RGB").resize((3 * SIDE, 3 * SIDE))
        a = (np.asarray(small, np.float32) / 127.5 - 1).transpose(2, 0, 1)
        found += [
            {"x": np.ascontiguousarray(a[None, :, i : i + SIDE, j : j + SIDE])}
            for i in range(0, 3 * SIDE, SIDE)
            for j in range(0, 3 * SIDE, SIDE)
        ]
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))]


def main() -> None:
    """Collapse, blame, cure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=4)
    seed = parser.parse_args().seed
    samples = crops(seed)
    calib, held = samples[:CALIBRATED], samples[CALIBRATED:]
    real = network(seed, calib)

    def run(m: onnx.ModelProto) -> Array:
        predict = predictor(m)
        return np.concatenate([predict(x)["y"] for x in held])

    answers = run(real)

    def judged(what: str, m: onnx.ModelProto) -> float:
        y = run(m)
        same = float((y.argmax(1) == answers.argmax(1)).mean())
        db = 10 * np.log10(np.square(answers).sum() / np.square(y - answers).sum())
        print(f"{what:40} {db:5.1f} dB, {same:.1%} of {len(held)} answers", flush=True)
        return float(db)

    collapsed = sparrow.quantize(real, calib, sparrow.Recipe(weights="per_tensor"))
    before = judged("int8 per tensor", collapsed)
    judged("int8 per channel", sparrow.quantize(real, calib))
    found = blame_model(collapsed, real, calib)
    first = found.culprit
    print(f"{'blame':40} {first.name}: {first.cause} ({first.detail})")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cured.onnx"
        cure = apply_cure(found, real, calib, path)
        after = judged(f"--apply: {cure.what}"[:60], onnx.load(path))
    sys.exit(not (before < 15 and first.cause == "uneven channels" and after > before + 20))


if __name__ == "__main__":
    main()
