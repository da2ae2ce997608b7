"""What more threads gain: builds of each network for one thread and for several, interleaved.

    python bench/threads.py [--threads 2] [--precision float32,int8] [--realtime] [names ...]

Printed are the medians, how many times as fast several threads are, with a bootstrap interval, and
what a fork and a byte of another core cost just then: a virtual machine's cores may be moved.
"""

import argparse
from contextlib import nullcontext
from functools import partial

from cases import named
from engines import load_sparrow
from network import Network
from run import core_to_itself
from sparrow.importers.model import import_model
from sparrow.timing.measure import compare
from sparrow.timing.sharing import sharing_figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="float32,int8")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--block-ms", type=float, default=20)
    parser.add_argument("--realtime", action="store_true", help="see run.py")
    parser.add_argument("names", nargs="*", help="default: all")
    args = parser.parse_args()
    for case in named(args.names, parser):
        network = Network(case.model(), list(case.inputs()), case.tflite)
        flops = import_model(network.model).graph.flops()
        for precision in args.precision.split(","):
            built = {n: load_sparrow(network, n, precision) for n in (1, args.threads)}
            calls = {str(n): partial(run, network.inputs[0]) for n, run in built.items()}
            with core_to_itself(args.threads) if args.realtime else nullcontext():
                done = compare(calls, args.rounds, args.block_ms)
                cost = sharing_figures(args.threads)
            alone, shared = (done.median_ns[k] / 1e3 for k in calls)
            r = done.ratio(*calls)
            print(
                f"{case.name:42s} {precision:9s} {flops / 1e9:7.3f} GFLOP "
                f"{alone:10.1f} us {shared:10.1f} us "
                f"{r.median:5.2f}x [{r.low:.2f}, {r.high:.2f}]  "
                f"{', '.join(f'{key} {value:g}' for key, value in cost.items())}",
                flush=True,
            )


if __name__ == "__main__":
    main()
