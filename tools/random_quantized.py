"""Quantizes random networks in random ways, and judges what comes of it: a nightly campaign.

PYTHONPATH=tests python tools/random_quantized.py --minutes 60 [--first 0] [--isa avx512]

The file for other runtimes gives in ONNX Runtime what the integers say; native code of the float
and of the quantized network is right layer by layer, and the same on two threads. A graph that
fails is written to a folder that `tools/random_graphs.py --replay` takes. The exit code is 1 if
any failed.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from random_graphs import levels
from random_native import check
from random_networks import Floats, answers, network, recipe, samples
from sparrow.errors import SparrowError
from sparrow.quantizing import qdq_file, quantize_model
from sparrow.reference import evaluate

# Power of the outputs over that of the difference between the file and the integers: a code that
# ONNX Runtime's floats round to the other side of a tie is rare, and what follows carries it on.
LEAST_DB = 40.0
# What may be refused: nothing could become codes, pins fit none or all layers.
REFUSED = ("to quantize", "fits no layer", "keeps every layer in float32")


def decibels(x: Floats, y: Floats) -> float:
    """Power of x over that of x - y."""
    noise = float(np.square(x.astype(np.float64) - y).sum())
    return 10 * np.log10(float(np.square(x.astype(np.float64)).sum()) / noise) if noise else np.inf


def judge(seed: int, isa: str) -> str:
    """What is right of a network, in a few words.

    Raises:
        AssertionError: What is wrong.
        SparrowError: What was refused.
    """
    model = network(seed)
    feeds = samples(model, seed)
    wanted = answers(model, feeds[-1:])[0]
    try:
        done, _ = quantize_model(model, feeds[:-1], recipe(seed))
    except SparrowError as e:
        if any(text in str(e) for text in REFUSED):
            return f"refused: {e}"
        raise
    (found,) = answers(qdq_file(done), feeds[-1:])
    (given,) = done.graph.inputs
    integers = evaluate(done.graph, {given: feeds[-1]["x"]})
    same = min(decibels(integers[y], z) for y, z in zip(done.graph.outputs, found, strict=True))
    assert same >= LEAST_DB, f"the file is {same:.1f} dB from the integers"
    check([done.graph], isa)
    check([done.source], isa)
    near = min(map(decibels, wanted, found))
    return f"{len(model.graph.node)} nodes, {near:.1f} dB from the float network"


def main() -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--isa", choices=levels())
    options = parser.parse_args()
    chosen = (options.isa,) if options.isa else levels()
    end = time.monotonic() + 60 * options.minutes
    seed, failed = options.first, 0
    while time.monotonic() < end:
        isa = chosen[seed % len(chosen)]
        try:
            print(f"{seed} {isa}: {judge(seed, isa)}", flush=True)
        except Exception as e:
            # whatever goes wrong with one network is a finding, not the end of the campaign
            failed += 1
            print(f"{seed} {isa}: WRONG {type(e).__name__}: {e}", flush=True)
        seed += 1
    print(f"{seed - options.first} networks on {', '.join(chosen)}, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
