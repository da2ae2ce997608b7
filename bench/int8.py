"""Our int8 against our float32, ONNX Runtime's float32 and ONNX Runtime on the same QDQ network.

    python bench/int8.py [mobilenet_v2 version-RFB-320_simplified] [--threads 1] [--rounds 20]

Without names: every real convolutional network above 10 MFLOP. Interleaved in one process, medians
with bootstrap 95 % intervals of the ratio within each round. Random networks are calibrated on
random inputs: only their speed means anything. The int8 bundles are proved like any other; the race
against float32 of a build is this bench's own, so it is off.
"""

import argparse
from collections.abc import Callable

import numpy as np
import onnx

import sparrow
from cases import Case, data_folder, named, real_cases, tflite_cases
from sparrow.importers.model import import_model
from sparrow.ops.conv import Conv
from sparrow.ort import open_session
from sparrow.timing.measure import Feeds, Outputs, Samples, comparison, interval, measure

CONVOLUTIONAL_FLOPS = 10_000_000


def peer(model: onnx.ModelProto, threads: int) -> Callable[[Feeds], Outputs]:
    s = open_session(model.SerializeToString(), optimized=True, threads=threads)
    names = [o.name for o in s.get_outputs()]
    return lambda feeds: dict(zip(names, s.run(names, dict(feeds)), strict=True))


def row(name: str, found: dict[str, Samples], against: str, threads: int) -> str:
    ratio = found[against].ns / found["int8"].ns
    low, high = interval(ratio)
    others = max(found["int8"].others, found[against].others)
    text = comparison(float(np.median(ratio)), low, high, threads, others)
    return f"{name:28} {against:12} {np.median(found[against].ns) / 1e6:8.3f} ms   int8 is {text}"


def convolutional() -> list[Case]:
    """Real networks whose convolutions are most of at least 10 MFLOP."""
    found = []
    for case in (*real_cases(data_folder()), *tflite_cases(data_folder())):
        g = import_model(case.model()).graph
        own = [n.op.flops(g.in_types(n), g.out_types(n)) for n in g.nodes if isinstance(n.op, Conv)]
        if g.flops() >= CONVOLUTIONAL_FLOPS and 2 * sum(own) > g.flops():
            found.append(case)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    for case in named(args.names, parser) if args.names else convolutional():
        model, inputs = case.model(), list(case.inputs())
        coded = sparrow.quantize(model, inputs)
        small, full = (sparrow.build(m, threads=args.threads) for m in (coded, model))
        runs = {
            "int8": small.run,
            "float32": full.run,
            "ort float32": peer(model, args.threads),
            "ort int8": peer(coded, args.threads),
        }
        found = measure(runs, inputs, args.rounds, 30)
        print(f"{case.name:28} {'int8':12} {np.median(found['int8'].ns) / 1e6:8.3f} ms")
        for against in list(runs)[1:]:
            print(row(case.name, found, against, args.threads), flush=True)


if __name__ == "__main__":
    main()
