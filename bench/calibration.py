"""Memory and time of calibration by the number of samples.

    python bench/calibration.py [--model MODEL.onnx] [--engine fastest]

Every row is a process of its own that calibrates on samples drawn from a seed as they are asked
for; ``peak`` is the most memory it ever held, interpreter and ONNX Runtime included. The last line
says by how much it grew from the fewest to the most samples.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cases import REPO
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
from sparrow.quant import Recipe, run
from sparrow.quant.engine import engine
from sparrow.samples import Feeds, draw

COUNTS = (32, 128, 512, 2048, 4096)


def one(model: Path, count: int, name: str) -> None:
    """Calibrate and print seconds and the peak in kB."""
    g = optimize(import_model(model).graph, FRONT)

    def feeds() -> Iterator[Feeds]:
        for i in range(count):
            yield draw(g, (0, i))

    start = time.perf_counter()
    run(g, feeds(), Recipe(), engine=engine(name))
    seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=REPO / "examples/digits/digits.onnx")
    parser.add_argument("--engine", default="fastest")
    parser.add_argument("--count", type=int, help="this number of samples in this process")
    args = parser.parse_args()
    if args.count:
        one(args.model, args.count, args.engine)
        return
    peaks = []
    for count in COUNTS:
        words = ["--model", str(args.model), "--engine", args.engine, "--count", str(count)]
        done = subprocess.run(
            [sys.executable, __file__, *words], check=True, capture_output=True, text=True
        )
        seconds, peak = done.stdout.split()
        peaks.append(int(peak))
        print(f"{count:5} samples  {float(seconds):7.1f} s  peak {int(peak) / 1024:7.1f} MB")
    print(f"growth {(peaks[-1] - peaks[0]) / 1024:+.1f} MB")


if __name__ == "__main__":
    main()
