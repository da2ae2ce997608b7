"""Times of the steps of builds that are not bundles yet, taken in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.host import HostLibrary, Session
from sparrow.device.library import compile_library
from sparrow.device.session import to_native
from sparrow.evidence.describe import describe
from sparrow.samples import Feeds
from sparrow.timing.profiling import profile_session

K = TypeVar("K")


class Stepped:
    """A build that runs in this process and tells the times of its steps.

    Args:
        b: What to run.
        feeds: A sample for each entry point.
        threads: Threads per call.

    Raises:
        CompileError: The compiler is missing.
    """

    def __init__(self, b: Compiled, feeds: Sequence[Feeds], threads: int) -> None:
        files, machine = b.artifact.files, b.plan.target.machine
        self._library = HostLibrary(compile_library(files, machine, b.artifact.parts, hooks=True))
        self._blob = np.frombuffer(b.plan.weights, np.uint8) if b.plan.weights else None
        self._threads = threads
        self._session = self._loaded()
        models = ["model"] * len(b.plan.entries)
        self._record = describe(b.plan, parts=b.artifact.parts, threads=threads, models=models)
        self._inputs = [
            [to_native(f[x], g.types[x].dtype) for x in g.inputs]
            for f, g in zip(feeds, b.module.entries, strict=True)
        ]

    def _loaded(self) -> Session:
        return Session(self._library, self._blob, threads=self._threads)

    def profile(self, seconds: float) -> list[list[float]]:
        """Median nanoseconds of every step of every entry point, over ``seconds`` for each.

        The memory is another one each time: where it lies makes some steps much slower.
        """
        self._session = self._loaded()
        found = []
        for e, inputs in enumerate(self._inputs):
            done = profile_session(self._session, self._record, e, inputs, 0, seconds)
            found.append([t.ns for t in done.steps])
        return found


def interleaved(
    builds: Mapping[K, Stepped], rounds: int, seconds: float
) -> dict[K, list[list[float]]]:
    """Medians over rounds, in each of which every build runs once.

    Returns:
        Nanoseconds by build, entry point and step.
    """
    each: dict[K, list[list[list[float]]]] = {k: [] for k in builds}
    for _ in range(rounds):
        for k, b in builds.items():
            each[k].append(b.profile(seconds))
    return {
        k: [np.median(of_entry, axis=0).tolist() for of_entry in zip(*found, strict=True)]
        for k, found in each.items()
    }


__all__ = ["Stepped", "interleaved"]
