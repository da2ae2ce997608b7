"""Flash, RAM and instructions per inference of real models on Cortex-M cores, in the emulator.

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
from pathlib import Path

import sparrow
from sparrow.errors import SparrowError

CORES = ("cortex_m0", "cortex_m3", "cortex_m4f", "cortex_m7", "cortex_m33", "cortex_m55")
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


def main() -> None:
    """Measure, print, write."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("SPARROW_DATA"))
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--cores", nargs="*", choices=CORES, default=list(CORES))
    parser.add_argument("--out", type=Path, default=here / "results" / "mcu.csv")
    given = parser.parse_args()
    if given.data is None:
        sys.exit("give --data, or set SPARROW_DATA")
    rows: list[dict[str, object]] = []
    print(f"| {' | '.join(FIELDS)} |\n|{'---|' * len(FIELDS)}")
    for model in given.models:
        for core in given.cores:
            try:
                rows.append(measure(given.data, model, core))
            except SparrowError as e:
                print(f"| {model} | {core} | {e.message} |", flush=True)
                continue
            cells = (f"{v:,}" if isinstance(v, int) else str(v) for v in rows[-1].values())
            print(f"| {' | '.join(cells)} |", flush=True)
    done = {(r["model"], r["core"]) for r in rows}
    if given.out.exists():
        with given.out.open(newline="") as f:
            rows += [r for r in csv.DictReader(f) if (r["model"], r["core"]) not in done]
    order = [(m, c) for m in MODELS for c in CORES]
    rows.sort(key=lambda r: order.index((str(r["model"]), str(r["core"]))))
    with given.out.open("w", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
