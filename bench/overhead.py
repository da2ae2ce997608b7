"""What a call of a small network takes beyond its kernels, on this machine.

    python bench/overhead.py [kws hello_world ...]

A call is Python's: names and types of inputs are checked, outputs are new arrays. The kernels' own
time is that of all steps of calls from Python: with caches and branch predictors as Python leaves
them, which a loop in C does not know (``warm``). Means of 64 of both are taken in turn; printed are
medians over them and the rounds and, of what is above, a bootstrap interval.
"""

import argparse
import time

import numpy as np

import sparrow
from cases import data_folder
from mcu import MODELS
from sparrow.device.host import Session
from sparrow.folder import hooked_library, weights_of
from sparrow.timing.measure import interval

SMALL = ("kws", "micro_speech", "hello_world")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of bench/mcu.py; default: {', '.join(SMALL)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--block-ms", type=float, default=40)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    for name in args.names or SMALL:
        bundle = sparrow.build(data_folder() / MODELS[name])
        (entry,) = bundle.session.library.info.entries
        feeds = {v.name: rng.integers(-128, 128, v.shape, np.int8) for v in entry.inputs}
        library = hooked_library(bundle.folder, bundle.plan, bundle.runner)
        hooked = library.open(weights_of(bundle.folder))
        assert isinstance(hooked, Session)
        inputs = list(feeds.values())
        rounds = []
        for _ in range(args.rounds):
            calls, steps = [], []
            start = time.perf_counter()
            while time.perf_counter() - start < args.block_ms / 1e3:
                begin = time.perf_counter_ns()
                for _ in range(64):
                    bundle.run(feeds)
                calls.append((time.perf_counter_ns() - begin) / 64)
                steps.append(np.mean([hooked.profile(0, inputs).sum() for _ in range(64)]))
            rounds.append((np.median(calls), np.median(steps), bundle.profile(runs=1000).total_ns))
        call, kernels, warm = np.array(rounds[1:]).T / 1e3
        low, high = interval(call - kernels)
        print(
            f"{name:14} call {np.median(call):7.2f} us, kernels {np.median(kernels):7.2f} us, "
            f"above {np.median(call - kernels):5.2f} us [{low:.2f}, {high:.2f}]; "
            f"kernels warm {np.median(warm):7.2f} us",
            flush=True,
        )


if __name__ == "__main__":
    main()
