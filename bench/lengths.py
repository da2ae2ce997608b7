"""Instructions per inference on RISC-V vectors of several lengths, in the emulator.

    python bench/lengths.py                           # all networks
    python bench/lengths.py --models ds_cnn resnet8   # some

One library of each network runs on processors whose vectors have 128, 256 and 512 bits; it holds
code for each. Instructions are exact and the same every time; they are no cycles: with 128 bits an
instruction works on four registers, with 512 on one. Prints a Markdown table and updates the rows
in ``bench/results/lengths.csv``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx

import sparrow
from cases import data_folder, described, stored
from mcu import print_head, print_row, write_rows
from models import MODELS as NETWORKS
from sparrow.compiler import Source, compile_sources
from sparrow.device.library import compile_library
from sparrow.device.qemu import count_marks, emulated_library
from sparrow.device.session import to_native
from sparrow.targets import target
from sparrow.timing.instructions import per_step

FIELDS = ("model", "precision", "bits", "instructions")
LENGTHS = (128, 256, 512)
PRECISIONS = ("float32", "int8")


def built(name: str, precision: str) -> onnx.ModelProto:
    """One of the benchmark's own networks."""
    row = next(r for r in NETWORKS if r.name == name)
    model = row.build()
    if precision == "float32":
        return model
    rng = np.random.default_rng(0)
    return sparrow.quantize(model, [row.feeds(rng) for _ in range(4)])


def detector(precision: str) -> onnx.ModelProto:
    """The face detector."""
    reference = data_folder() / "refs" / "face__version-RFB-320_simplified__onnx.npz"
    meta = described(reference)
    model = onnx.load(data_folder() / str(meta["model"]))
    return (
        model
        if precision == "float32"
        else sparrow.quantize(model, stored(reference, meta["inputs"]))
    )


MODELS: dict[str, Callable[[str], onnx.ModelProto]] = {
    "RFB-320": detector,
    **{name: partial(built, name) for name in ("mobilenet_v2", "ds_cnn", "resnet8")},
}


def measure(name: str, precision: str) -> Iterator[dict[str, object]]:
    """The rows of a network, by length."""
    c = compile_sources({"net": Source(MODELS[name](precision))}, target("riscv64_v"))
    machine, g = c.plan.target.machine, c.plan.entries[0].graph
    path = compile_library(c.artifact.files, machine, c.artifact.parts, hooks=True)
    rng = np.random.default_rng(0)
    inputs = [
        to_native(rng.random(g.types[x].shape).astype(g.types[x].dtype.numpy), g.types[x].dtype)
        for x in g.inputs
    ]
    weights = np.frombuffer(c.plan.weights, np.uint8)
    for bits in LENGTHS:
        library = emulated_library(path, machine, f"rv64,v=true,vext_spec=v1.0,vlen={bits}")
        n = sum(per_step(count_marks(library, weights, 0, inputs)))
        yield dict(zip(FIELDS, (name, precision, bits, n), strict=True))


def main() -> None:
    """Measure, print, write."""
    results = Path(__file__).resolve().parent / "results"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--out", type=Path, default=results / "lengths.csv")
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    print_head(FIELDS)
    for name in given.models:
        for precision in PRECISIONS:
            for row in measure(name, precision):
                print_row(row)
                rows.append(row)
    if given.out.exists():
        with given.out.open(newline="") as f:
            rows += [r for r in csv.DictReader(f) if r["model"] not in given.models]
    order = list(MODELS)
    rows.sort(key=lambda r: (order.index(str(r["model"])), r["precision"], int(str(r["bits"]))))
    write_rows(given.out, FIELDS, rows)


if __name__ == "__main__":
    main()
