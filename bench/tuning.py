"""What measuring tiles gains over predicting them: each network tuned and untuned, interleaved.

    python bench/tuning.py [--seconds 60] [--precision int8] [--threads 2] [--realtime] [names ...]

Times are measured into the cache, as by `sparrow build --tune`. Printed are both builds, their
ratio with a bootstrap interval, how many kinds of layers changed, and those whose prediction loses
most.
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from models import MODELS
from run import core_to_itself
from sparrow.compiler import Compiled, Front, compile_front, front
from sparrow.device.here import resolve_target
from sparrow.device.host import HostLibrary, Session
from sparrow.device.library import compile_library
from sparrow.device.session import to_native
from sparrow.quant import Recipe
from sparrow.quant import run as quantize
from sparrow.sources import sources_of
from sparrow.timing import tune as measuring
from sparrow.timing.measure import compare
from sparrow.timing.stepped import interleaved
from sparrow.timing.tune import Tuner
from sparrow.tuning import Tuning


def coded(found: Front, feeds: list[dict[str, np.ndarray]]) -> Front:
    done = quantize(found.graphs[0], feeds, Recipe(rounding="nearest"))
    return replace(found, graphs=(done.graph,))


def call(b: Compiled, feeds: dict[str, np.ndarray], threads: int) -> Callable[[], object]:
    library = HostLibrary(
        compile_library(b.artifact.files, b.plan.target.machine, b.artifact.parts)
    )
    blob = np.frombuffer(b.plan.weights, np.uint8) if b.plan.weights else None
    g = b.module.entries[0]
    inputs = [to_native(feeds[x], g.types[x].dtype) for x in g.inputs]
    return partial(Session(library, blob, threads=threads).run, 0, inputs)


def losses(plain: Compiled, tuned: Compiled, times: Tuning) -> list[tuple[float, str]]:
    """Time of the predicted candidate over that of the taken one, by layer that changed."""
    found = {}
    for s, t in zip(plain.plan.entries[0].steps, tuned.plan.entries[0].steps, strict=True):
        if (s.kernel, s.lowered.tile) == (t.kernel, t.lowered.tile):
            continue
        before, after = (
            times.times[next(o.work for o in x.options if o.work.kernel == x.kernel)][
                x.lowered.tile
            ]
            for x in (s, t)
            if x.lowered.tile is not None
        )
        what = f"{s.kernel} {s.lowered.tile} -> {t.kernel} {t.lowered.tile}: {s.lowered.shape}"
        found[what] = before / after
    return sorted(((r, what) for what, r in found.items()), reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--precision", choices=("float32", "bfloat16", "int8"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--top", type=int, default=5, help="layers to show")
    parser.add_argument("--realtime", action="store_true", help="see run.py")
    parser.add_argument("names", nargs="*", help="default: all")
    args = parser.parse_args()
    target = resolve_target("host")
    alone = partial(core_to_itself, args.threads) if args.realtime else nullcontext

    def measured_alone(*given: Any) -> Any:
        with alone():
            return interleaved(*given)

    vars(measuring)["interleaved"] = measured_alone
    for row in MODELS:
        if args.names and row.name not in args.names:
            continue
        found = front(sources_of(row.build()))
        feeds = [dict(row.feeds(np.random.default_rng(i))) for i in range(2)]
        if args.precision == "int8":
            found = coded(found, feeds)

        def build(t: Tuning | None, found: Front = found) -> Compiled:
            half = args.precision == "bfloat16"
            return compile_front(found, target, threads=args.threads, tuning=t, bfloat16=half)

        tuner = Tuner(target, None, args.seconds, args.threads, lambda _: None)
        plain, tuned = build(None), tuner.compiled(build)
        assert tuner.known is not None
        runs = {k: call(b, feeds[0], args.threads) for k, b in (("plain", plain), ("tuned", tuned))}
        with alone():
            done = compare(runs, args.rounds, 20)
        r, changed = done.ratio("plain", "tuned"), losses(plain, tuned, tuner.known)
        print(
            f"{row.name:20s} {done.median_ns['plain'] / 1e3:10.1f} us untuned "
            f"{done.median_ns['tuned'] / 1e3:10.1f} us tuned {r.median:6.3f} "
            f"[{r.low:.3f}, {r.high:.3f}] {len(changed)} kinds of layers changed",
            flush=True,
        )
        for loss, what in changed[: args.top]:
            print(f"    {loss:5.2f} {what}", flush=True)


if __name__ == "__main__":
    main()
