"""How many instructions the int8 sums of real networks take on Arm and RISC-V, layer by layer.

    python bench/arm.py                                            # all networks and targets
    python bench/arm.py --models slim-320 --targets aarch64_i8mm   # some

Counts in the emulator everything a layer executes, epilogue and rearranging of its input included,
of convolutions and products over at least 64 values each that are not depthwise. Sums of a pixel's
codes, which zero points of uint8 weights ask for, are part of the layer that reads them. ``share``
is the part of the instructions that the multiply-accumulates would take if nothing but the target's
widest product were there. Prints a summary and updates the rows in ``bench/results/arm.csv``.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import onnx

import sparrow
from cases import data_folder, described, stored
from sparrow.compiler import Compiled, Source, compile_sources
from sparrow.device.library import compile_library
from sparrow.device.qemu import count_marks
from sparrow.device.remote import RemoteLibrary
from sparrow.device.runners import find_runner
from sparrow.device.session import to_native
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets import target
from sparrow.timing.instructions import per_step

# Multiply-accumulates of the widest product over bytes; on RISC-V of all lanes of a vector.
TARGETS = {"aarch64": 8, "aarch64_dotprod": 16, "aarch64_i8mm": 32, "armv7": 8, "riscv64_v": 16}
MODELS = {
    "slim-320": "face__version-slim-320_simplified__onnx",
    "RFB-320": "face__version-RFB-320_simplified__onnx",
    "mobilenet_v1_0.25_128": "tflite__mobilenet_v1_0.25_128_quant__tflite",
    "mobilenet_v2_1.0_224": "tflite__mobilenet_v2_1.0_224_quant__tflite",
}
LEAST_K = 64


@dataclass(frozen=True, slots=True)
class Layer:
    """A row of the table; ``share`` is of the target's widest product."""

    model: str
    target: str
    step: int
    kernel: str
    rows: int
    columns: int
    k: int
    macs: int
    instructions: int
    share: float


def network(name: str) -> Path | onnx.ModelProto:
    """The network of a stored reference in int8."""
    reference = data_folder() / "refs" / f"{MODELS[name]}.npz"
    meta = described(reference)
    path = data_folder() / str(meta["model"])
    if path.suffix == ".tflite":
        return path
    return sparrow.quantize(onnx.load(path), stored(reference, meta["inputs"]))


def layers(name: str, c: Compiled) -> Iterator[Layer]:
    """Every sum over codes of `LEAST_K` values or more."""
    t, entry = c.plan.target, c.plan.entries[0]
    g = entry.graph
    runner = find_runner(t.machine)
    path = compile_library(c.artifact.files, t.machine, c.artifact.parts, hooks=True)
    library = runner.load(path)
    assert isinstance(library, RemoteLibrary)
    rng = np.random.default_rng(0)
    inputs = []
    for x in g.inputs:
        u = g.types[x]
        drawn = rng.random(u.shape) if u.dtype.kind == "float" else rng.integers(0, 127, u.shape)
        inputs.append(to_native(np.asarray(drawn).astype(u.dtype.numpy), u.dtype))
    counts = per_step(count_marks(library, np.frombuffer(c.plan.weights, np.uint8), 0, inputs))
    over_codes = [
        isinstance(s.node.op, Conv | MatMul) and s.kernel.endswith("_i8") for s in entry.steps
    ]
    added = {
        x for s, k in zip(entry.steps, over_codes, strict=True) if k for x in s.node.inputs[3:]
    }
    sums: dict[str, int] = {}
    for i, (s, n) in enumerate(zip(entry.steps, counts, strict=True)):
        if not over_codes[i]:
            continue
        w, y = g.types[s.node.inputs[1]].shape, g.types[s.node.outputs[0]].shape
        if isinstance(s.node.op, Conv):
            k, columns = math.prod(w[1:]), w[0] // s.node.op.group
        else:
            k, columns = math.prod(w) // y[-1], y[-1]
        if columns == 1 and s.node.outputs[0] in added:
            sums[s.node.outputs[0]] = n
            continue
        if s.kernel.startswith("depthwise") or k < LEAST_K:
            continue
        n += sum(sums.get(x, 0) for x in s.node.inputs)
        macs = math.prod(y) * k
        share = macs / TARGETS[t.name] / n
        rows = math.prod(y) // columns
        yield Layer(name, t.name, i, s.kernel, rows, columns, k, macs, n, round(share, 4))


def write(rows: Sequence[Layer], out: Path) -> None:
    """Put rows in place of those of the same network and target."""
    done = {(r.model, r.target) for r in rows}
    columns = [f.name for f in fields(Layer)]
    lines = [dict(zip(columns, map(str, astuple(r)), strict=True)) for r in rows]
    if out.exists():
        with out.open(newline="") as f:
            lines += [r for r in csv.DictReader(f) if (r["model"], r["target"]) not in done]
    place = [(m, t) for m in MODELS for t in TARGETS]
    lines.sort(key=lambda r: (place.index((r["model"], r["target"])), int(r["step"])))
    with out.open("w", newline="") as f:
        writer = csv.DictWriter(f, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def main() -> None:
    """Measure, print, write."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--targets", nargs="*", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--out", type=Path, default=here / "results" / "arm.csv")
    parser.add_argument("--layers", action="store_true", help="print every layer")
    given = parser.parse_args()
    print("| network | target | layers | MAC per instruction | share of all | lowest | highest |")
    print("|---|---|---|---|---|---|---|")
    for model in given.models:
        source = {model: Source(network(model))}
        for name in given.targets:
            rows = list(layers(model, compile_sources(source, target(name))))
            write(rows, given.out)
            macs, n = sum(r.macs for r in rows), sum(r.instructions for r in rows)
            shares = [r.share for r in rows]
            print(
                f"| {model} | {name} | {len(rows)} | {macs / n:.2f} "
                f"| {macs / TARGETS[name] / n:.0%} | {min(shares):.0%} | {max(shares):.0%} |",
                flush=True,
            )
            for r in rows if given.layers else ():
                print("   ", *astuple(r)[2:])


if __name__ == "__main__":
    main()
