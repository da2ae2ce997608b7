"""The main job on the bundled model: compile, prove, time, and open the evidence.

python examples/digits/demo.py [-o build/digits]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import sparrow
from sparrow.timing.measure import comparison, interval, measure

HERE = Path(__file__).resolve().parent
MODEL = HERE / "digits.onnx"


CALIBRATING = 200


def samples() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Images that calibrate, test images, float32 [N, 1, 1, 8, 8], and the labels of the latter.

    The model never saw the test images, and neither does the quantizer.
    """
    digits = load_digits()
    test = json.loads((HERE / "digits.json").read_text())["test"]
    images = (digits.images / 16).astype(np.float32)[:, None, None]
    others = np.setdiff1d(np.arange(len(images)), test)[:CALIBRATING]
    return images[others], images[test], digits.target[test].astype(np.int64)


def main() -> None:
    """Build, verify, evaluate, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("build/digits"))
    args = parser.parse_args()
    calib, images, labels = samples()
    args.out.parent.mkdir(parents=True, exist_ok=True)

    bundle = sparrow.build(MODEL, out=args.out, calib=calib)
    proof = bundle.verify()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    ours = np.array([bundle.run(x)["probabilities"][0] for x in images])
    theirs = np.array([session.run(None, {"image": x})[0][0] for x in images])
    runs = {
        "sparrow": bundle.run,
        "onnxruntime": lambda x: {"probabilities": session.run(None, dict(x))[0]},
    }
    timed = measure(runs, [{"image": x} for x in images[:8]], rounds=30, block_ms=5)
    ratios = timed["onnxruntime"].ns / timed["sparrow"].ns

    table = Table(title=f"digits.onnx on {len(labels)} held-out samples")
    for head in ("", "sparrow", "onnxruntime"):
        table.add_column(head, justify="left" if not head else "right")
    accuracy = [float((p.argmax(1) == labels).mean()) for p in (ours, theirs)]
    table.add_row("precision", bundle.receipt.precision, "float32")
    table.add_row("accuracy", *(f"{a:.1%}" for a in accuracy))
    table.add_row("largest difference of a probability", f"{np.abs(ours - theirs).max():.1e}", "")
    times = [np.median(timed[name].ns) / 1000 for name in runs]
    table.add_row("one call, one thread", *(f"{t:.1f} us" for t in times))
    others = timed["sparrow"].others
    speed = comparison(float(np.median(ratios)), *interval(ratios), threads=1, others=others)
    table.add_row("speed", speed, "")
    memory = bundle.receipt.memory
    table.add_row(
        "code and weights", f"{(memory.code_bytes + memory.weights_bytes) / 1024:.0f} KiB", ""
    )
    table.add_row("working memory", f"{memory.arena_bytes / 1024:.0f} KiB", "")
    table.add_row("proof", "every layer within its bound" if proof.ok else "FAILED", "")
    Console().print(table)
    print(f"evidence: {args.out / 'report.html'}")
    if not proof.ok:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
