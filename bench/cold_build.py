"""What a first build takes: `sparrow build` in a process of its own, with an empty cache.

    python bench/cold_build.py [--precision int8] [mobilenet_v2 resnet50 ...]

Everything counts: Python's start, the passes, every kernel compiled, the proof, ONNX Runtime's
answers and the race against it. Seconds of the clock, and of all processors.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from cases import drawn
from models import MODELS

NAMES = ("mobilenet_v2", "resnet50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of bench/models.py; default: {', '.join(NAMES)}")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "int8"))
    args = parser.parse_args()
    rows = {m.name: m for m in MODELS}
    for name in args.names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            model, samples = Path(folder, f"{name}.onnx"), Path(folder, "samples.npz")
            onnx.save(rows[name].build(), model)
            feeds = drawn(rows[name])
            stacked: dict[str, Any] = {x: np.stack([f[x] for f in feeds]) for x in feeds[0]}
            np.savez(samples, **stacked)
            command = [sys.executable, "-m", "sparrow", "build", str(model), "-o", f"{folder}/out"]
            if args.precision != "float32":
                command += ["--precision", args.precision]
            if args.precision == "int8":
                command += ["--calib", str(samples)]
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            done = subprocess.run(
                command,
                check=False,
                env={**os.environ, "SPARROW_CACHE": f"{folder}/cache"},
                capture_output=True,
                text=True,
            )
            seconds = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr.strip()}")
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{name:20} {args.precision:9} {seconds:6.1f} s, processors {used:6.1f} s")


if __name__ == "__main__":
    main()
