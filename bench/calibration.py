"""Memory and time of a quantization by the number of samples, beside NNCF.

    python bench/calibration.py [--model MODEL.onnx] [--quantizers sparrow,nncf,openvino]

Every row is a process of its own that quantizes on samples drawn from a seed as they are asked for;
``peak`` is the most memory it ever held, interpreter and engine included, and the seconds are of
the processor, all threads together, from the float model to the quantized one. The last line of a
quantizer says by how much it grew from the fewest to the most samples. ``nncf`` is NNCF on the ONNX
file, ``openvino`` NNCF on the same model in OpenVINO; what is not installed is left out.
"""

import argparse
import importlib.util
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx

from cases import REPO
from sparrow.graph import Graph
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
from sparrow.portable import to_portable_onnx
from sparrow.quant import Recipe, run
from sparrow.samples import Feeds, draw

COUNTS = (32, 128, 512, 2048, 4096)


class Drawn:
    """Feeds from a seed, made when they are asked for, as often as they are."""

    def __init__(self, g: Graph, count: int) -> None:
        self.graph, self.count = g, count

    def __iter__(self) -> Iterator[Feeds]:
        return (draw(self.graph, (0, i)) for i in range(self.count))

    def __len__(self) -> int:
        return self.count


def sparrow(g: Graph, feeds: Drawn) -> None:
    run(g, feeds, Recipe())


def nncf(g: Graph, feeds: Drawn) -> None:
    import nncf as library

    library.quantize(to_portable_onnx(g), library.Dataset(feeds), subset_size=len(feeds))


def openvino(g: Graph, feeds: Drawn) -> None:
    import nncf as library
    from openvino import convert_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(to_portable_onnx(g), path)
        model = convert_model(path)
    library.quantize(model, library.Dataset(feeds), subset_size=len(feeds))


QUANTIZERS: Mapping[str, tuple[str, Callable[[Graph, Drawn], None]]] = {
    "sparrow": ("sparrow", sparrow),
    "nncf": ("nncf", nncf),
    "openvino": ("nncf", openvino),
}


def one(model: Path, count: int, name: str) -> None:
    """Quantize and print seconds and the peak in kB."""
    g = optimize(import_model(model).graph, FRONT)
    start = time.process_time()
    QUANTIZERS[name][1](g, Drawn(g, count))
    seconds = time.process_time() - start
    print("\n", seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=REPO / "examples/digits/digits.onnx")
    parser.add_argument("--quantizers", default=",".join(QUANTIZERS))
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    parser.add_argument("--count", type=int, help="this number of samples in this process")
    args = parser.parse_args()
    names = args.quantizers.split(",")
    if args.count:
        one(args.model, args.count, names[0])
        return
    for name in names:
        if importlib.util.find_spec(QUANTIZERS[name][0]) is None:
            print(f"{name}: not installed")
            continue
        peaks = []
        for count in map(int, args.counts.split(",")):
            words = ["--model", str(args.model), "--quantizers", name, "--count", str(count)]
            done = subprocess.run(
                [sys.executable, __file__, *words], check=True, capture_output=True, text=True
            )
            seconds, peak = done.stdout.splitlines()[-1].split()
            peaks.append(int(peak))
            print(
                f"{name:9} {count:5} samples  {float(seconds):7.1f} s  "
                f"peak {int(peak) / 1024:7.1f} MB",
                flush=True,
            )
        print(f"{name:9} growth {(peaks[-1] - peaks[0]) / 1024:+.1f} MB")


if __name__ == "__main__":
    main()
