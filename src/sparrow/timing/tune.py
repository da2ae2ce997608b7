"""Measures the register tiles and algorithms that a network's layers could take, for so long.

A trial is a whole build in which every layer takes its next candidate: layers are measured where
they run, with the caches that their neighbours leave them. Candidates are the rows whose
predictions are near the best one, then the next tiles by prediction. All trials run in turn.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.cache import FileCache, cache_folder
from sparrow.device.runners import find_runner
from sparrow.errors import BadInput
from sparrow.kernels.case import Tile
from sparrow.plan import Step
from sparrow.request import Progress
from sparrow.samples import draw
from sparrow.targets import Target
from sparrow.timing.measure import cpu_model
from sparrow.timing.sharing import sharing_figures
from sparrow.timing.stepped import Stepped, interleaved
from sparrow.tuning import Tuning, Work, kernels_hash, read_tuning, to_json

Compile: TypeAlias = Callable[[Tuning], Compiled]

# Rows predicted to take up to so many times the best one's cycles are candidates.
NEAR = 1.5
# Candidates of a layer, the predicted one among them.
MOST = 8
# Layers that take the rest of the predicted time are left as predicted.
COVERED = 0.95
# Of each trial: seconds of a block, and blocks taken in turn with the other trials'.
PROFILE_S = 0.06
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row and a tile that could compute a layer."""

    work: Work
    tile: Tile


def candidates(s: Step) -> tuple[Candidate, ...]:
    """What a step could take, the one predicted best first."""
    ranked = sorted(s.options, key=lambda o: o.cycles)
    if not ranked:
        return ()
    best = ranked[0]
    near = [o for o in ranked if o.cycles <= NEAR * best.cycles]
    found = [Candidate(o.work, o.tiles[0]) for o in near]
    found += [Candidate(best.work, t) for t in best.tiles[1:]]
    return tuple(found[:MOST])


def tune(
    compile_with: Compile,
    known: Tuning,
    threads: int,
    seconds: float,
    progress: Progress = lambda _: None,
) -> Tuning:
    """Measure what is not known yet of a network's layers.

    Args:
        compile_with: Compiles the network with times that decide.
        known: Times so far.
        threads: Threads per call.
        seconds: For how long; what was begun is finished.
        progress: Told what happens.

    Returns:
        ``known`` and what was measured, which is given relative to the time of the predicted
        candidate, so that times of several days can be compared.

    Raises:
        CompileError: The compiler is missing.
    """
    end = time.monotonic() + seconds
    plain = compile_with(replace(known, times={}))
    layers = _unknown(plain, known)
    if not layers:
        return known
    feeds = [draw(g, (0, e)) for e, g in enumerate(plain.module.entries)]
    trials: dict[int, Stepped] = {}
    builds: dict[int, Compiled] = {}
    for r in range(max(map(len, layers))):
        began = time.monotonic()
        progress(f"compiling candidate {r + 1}")
        builds[r] = plain if r == 0 else compile_with(_forced(known, layers, r))
        trials[r] = Stepped(builds[r], feeds, threads)
        now = time.monotonic()
        # the next trial, and the blocks of all
        blocks = (len(trials) + 1) * ROUNDS * PROFILE_S * 1.2 * len(feeds)
        if now + (now - began) + blocks > end:
            break
    if len(trials) == 1:
        progress(f"{seconds:g} s are too few to measure a second candidate")
        return known
    progress(f"measuring {len(trials)} candidates")
    ns = interleaved(trials, ROUNDS, PROFILE_S)
    found: dict[Candidate, list[float]] = {}
    for r, b in builds.items():
        for e, of_entry in zip(b.plan.entries, ns[r], strict=True):
            for s, t in zip(e.steps, of_entry, strict=True):
                taken = _taken(s)
                if taken is not None and (r == 0 or taken not in _firsts(layers)):
                    found.setdefault(taken, []).append(t)
    means = {c: float(np.mean(t)) for c, t in found.items()}
    times: dict[Work, dict[Tile, float]] = {}
    for layer in layers:
        first = layer[0]
        before = known.times.get(first.work, {}).get(first.tile)
        scale = 1.0 if before is None else before / means[first]
        for c in layer:
            if c in means:
                times.setdefault(c.work, {})[c.tile] = round(scale * means[c], 1)
    return known.joined(replace(known, times=times))


def _firsts(layers: Sequence[Sequence[Candidate]]) -> set[Candidate]:
    return {layer[0] for layer in layers}


def _taken(s: Step) -> Candidate | None:
    """The candidate that a step is."""
    work = next((o.work for o in s.options if o.work.kernel == s.kernel), None)
    tile = s.lowered.tile
    return None if work is None or tile is None else Candidate(work, tile)


def _unknown(plain: Compiled, known: Tuning) -> list[tuple[Candidate, ...]]:
    """Layers that take most of the predicted time and have a candidate without a time.

    Of each the predicted candidate, then those without a time.
    """
    weight: dict[tuple[Candidate, ...], float] = {}
    for s in (s for e in plain.plan.entries for s in e.steps):
        layer = candidates(s)
        weight[layer] = weight.get(layer, 0.0) + s.lowered.cycles
    total, done = sum(weight.values()), 0.0
    found: list[tuple[Candidate, ...]] = []
    for layer in sorted(weight, key=lambda x: -weight[x]):
        if done > COVERED * total:
            break
        done += weight[layer]
        new = [c for c in layer[1:] if c.tile not in known.times.get(c.work, {})]
        if new:
            found.append((layer[0], *new))
    return found


def _forced(known: Tuning, layers: Sequence[Sequence[Candidate]], r: int) -> Tuning:
    """Times that make every layer take its candidate ``r``, or its first where it has none."""
    times: dict[Work, dict[Tile, float]] = {}
    for layer in layers:
        c = layer[r] if r < len(layer) else layer[0]
        times.setdefault(c.work, {c.tile: 1.0})
    return replace(known, times=times)


def tuning_path(isa: str) -> Path:
    """Where the times of this machine are kept."""
    name = re.sub(r"[^a-z0-9]+", "_", cpu_model().lower()).strip("_")[:80]
    return cache_folder() / "tuning" / f"{name}-{isa}.json"


def cached_tuning(isa: str) -> Tuning:
    """The times of this machine so far; none where they are of other kernels.

    Raises:
        BadInput: The file is damaged.
    """
    path = tuning_path(isa)
    fresh = Tuning(cpu_model(), isa, kernels_hash())
    found = read_tuning(path) if path.is_file() else fresh
    return found if found.kernels == fresh.kernels else fresh


def store_tuning(t: Tuning) -> Path:
    """Add times to those of this machine, all at once, and return where they are.

    Raises:
        BadInput: The cache folder cannot be written.
    """
    path = tuning_path(t.isa)
    whole = cached_tuning(t.isa).joined(t)
    with FileCache(cache_folder()).scratch() as work:
        made = work / path.name
        made.write_bytes(to_json(whole))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made, path)
        except OSError as e:
            raise BadInput(f"{path} cannot be written: {e.strerror}") from None
    return path


class Tuner:
    """Compiles with the times that are known, and measures more while its seconds last.

    Attributes:
        known: Times so far; None: predictions alone.
    """

    def __init__(
        self, target: Target, known: Tuning | None, seconds: float, threads: int, say: Progress
    ) -> None:
        """``known`` None and seconds to measure in: begin with those of this machine.

        Raises:
            BadInput: Times are of another instruction set, or the target is not this machine.
        """
        self.known, self._threads, self._say = known, threads, say
        self._left = seconds
        if known is not None and known.isa != target.isa.name:
            raise BadInput(
                f"the tuning is of {known.isa}, the target is {target.isa.name}",
                hint="give the file that was measured for it",
            )
        if seconds > 0:
            if find_runner(target.machine).name != "host":
                raise BadInput(
                    f"{target.name} cannot be measured on this machine",
                    hint="give --tuning FILE of a machine that it is",
                )
            here = cached_tuning(target.isa.name)
            self.known = here if known is None else here.joined(known)
            if threads > 1 and not self.known.figures:
                found = replace(self.known, figures=sharing_figures(threads))
                if not found.figures:
                    say("the threads never ran side by side: what splitting costs is estimated")
                self.known = found

    def compiled(
        self, compile_with: Callable[[Tuning | None], Compiled], share: float = 1.0
    ) -> Compiled:
        """A build, after measuring for ``share`` of the seconds that are left."""
        if self.known is not None and share * self._left > 0:
            began = time.monotonic()
            found = tune(compile_with, self.known, self._threads, share * self._left, self._say)
            self._left -= min(self._left, time.monotonic() - began)
            if found is not self.known:
                store_tuning(found)
            self.known = found
        return compile_with(self.known)


__all__ = ["Tuner", "cached_tuning", "candidates", "store_tuning", "tune", "tuning_path"]
