"""Flash, RAM and instructions per inference of real models on microcontrollers, in the emulator.

    python bench/mcu.py                                   # all models and cores
    python bench/mcu.py --models kws --cores cortex_m4f   # some

Prints a Markdown table and updates the rows in ``bench/results/mcu.csv``. Instructions are exact
and the same every time; they are no cycles. The arena is set beside the least that any placement
needs.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import sparrow
from sparrow.errors import SparrowError

CORES = ("cortex_m0", "cortex_m3", "cortex_m4f", "cortex_m7", "cortex_m33", "cortex_m55", "rv32imc")
MODELS = {
    "kws": "models/mlperf_tiny/kws_dscnn_int8.tflite",
    "vww": "models/mlperf_tiny/vww_mobilenet025_96_int8.tflite",
    "resnet8": "models/mlperf_tiny/resnet8_cifar10_int8.tflite",
    "ad": "models/mlperf_tiny/ad01_int8.tflite",
    "micro_speech": "models/tflm/micro_speech_quantized.tflite",
    "keyword": "models/tflm/keyword_scrambled_8bit.tflite",
    "person_detect": "models/tflm/person_detect_patched.tflite",
    "hello_world": "models/tflm/hello_world_int8.tflite",
    "lstm": "models/tflm/mnist_lstm_int8.tflite",
    "mcunet": "models/mcunet/mcunet-320kb-1mb_imagenet.tflite",
}
FIELDS = (
    *("model", "core", "code_bytes", "weights_bytes", "arena_bytes", "least_arena_bytes"),
    *("io_bytes", "state_bytes", "stack_bytes", "instructions"),
)


def measure(data: Path, model: str, core: str) -> dict[str, object]:
    """A row of the table."""
    # no limit of RAM: whole layers, not strips of rows
    f = sparrow.fits(data / MODELS[model], core, ram=0)
    return dict(
        zip(
            FIELDS,
            (
                *(model, core, f.code_bytes, f.weights_bytes, f.arena_bytes, f.live_bytes),
                *(f.io_bytes, f.state_bytes, f.stack_bytes),
                sum(x.instructions for x in f.layers),
            ),
            strict=True,
        )
    )


def arguments(
    description: str | None, models: Sequence[str], cores: Sequence[str], out: str
) -> argparse.Namespace:
    """The words of the command line: ``data``, ``models``, ``cores`` and ``out``."""
    results = Path(__file__).resolve().parent / "results"
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=os.environ.get("SPARROW_DATA"))
    parser.add_argument("--models", nargs="*", choices=MODELS, default=models)
    parser.add_argument("--cores", nargs="*", choices=CORES, default=cores)
    parser.add_argument("--out", type=Path, default=results / out)
    given = parser.parse_args()
    if given.data is None:
        sys.exit("give --data, or set SPARROW_DATA")
    return given


def print_head(fields: Sequence[str]) -> None:
    """Begin a Markdown table."""
    print(f"| {' | '.join(fields)} |\n|{'---|' * len(fields)}")


def print_row(row: Mapping[str, object]) -> None:
    """A line of a Markdown table, as soon as it is known."""
    cells = (f"{v:,}" if isinstance(v, int) else str(v) for v in row.values())
    print(f"| {' | '.join(cells)} |", flush=True)


def write_rows(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a table as CSV."""
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Measure, print, write."""
    given = arguments(__doc__, list(MODELS), CORES, "mcu.csv")
    rows: list[dict[str, object]] = []
    print_head(FIELDS)
    for model in given.models:
        for core in given.cores:
            try:
                rows.append(measure(given.data, model, core))
            except SparrowError as e:
                print(f"| {model} | {core} | {e.message} |", flush=True)
                continue
            print_row(rows[-1])
    done = {(r["model"], r["core"]) for r in rows}
    if given.out.exists():
        with given.out.open(newline="") as f:
            rows += [r for r in csv.DictReader(f) if (r["model"], r["core"]) not in done]
    order = [(m, c) for m in MODELS for c in CORES]
    rows.sort(key=lambda r: order.index((str(r["model"]), str(r["core"]))))
    write_rows(given.out, FIELDS, rows)


if __name__ == "__main__":
    main()
