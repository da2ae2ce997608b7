"""Whether values of two graphs under one name are the same value.

Converters number the steps of an unrolled loop anew in every file: what is ``add_3`` in the float
one may be ``add_5`` in the quantized one. Quantized values are near their own float value, and only
near it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from sparrow.blame.align import Cut
from sparrow.graph import Graph
from sparrow.quant.engine import Engine
from sparrow.tensor import Array

# Names are wrong where other values are nearer by this factor in power, both ways: 10 dB.
NEARER = 10.0
# Elements of each value and sample that are looked at.
KEPT = 1024


def by_values(
    f: Graph, q: Graph, at: Sequence[Cut], samples: Sequence[Mapping[str, Array]], engine: Engine
) -> list[Cut]:
    """``at`` with the names that the values have.

    Names are doubted only where a quantized value is nearest to a float one of another name, and
    both are far from what their own names say: no wrong layer looks like that, since nothing of the
    float graph is near what it makes. Values of that shape then pair as they are nearest in all.

    Args:
        f: Float graph.
        q: Quantized graph.
        at: Cuts between them, by name.
        samples: Feeds for the inputs of both.
        engine: What runs them.

    Returns:
        Cuts in the same order.
    """
    alike = defaultdict(list)
    for i, c in enumerate(at):
        if c.name not in f.inputs and c.name not in f.outputs:
            alike[f.types[c.name].shape].append(i)
    groups = [g for g in alike.values() if len(g) > 1]
    wanted = [at[i] for g in groups for i in g]
    if not wanted or not samples:
        return list(at)
    real, coded = engine(f, [c.name for c in wanted]), engine(q, [c.after for c in wanted])
    runs = [(real(s), coded(s)) for s in samples]

    def seen(values: Sequence[Array]) -> Array:
        flat = (v.reshape(-1) for v in values)
        return np.concatenate([v[:: max(1, v.size // KEPT)] for v in flat]).astype(np.float64)

    found = list(at)
    for g in groups:
        floats = np.array([seen([x[at[i].name] for x, _ in runs]) for i in g])
        codes = np.array([seen([y[at[i].after] for _, y in runs]) for i in g])
        powers = np.square(floats).sum(1)[:, None] + np.square(codes).sum(1)
        # what float64 leaves of nothing is no error
        error = np.maximum(powers - 2 * floats @ codes.T, 1e-12 * powers + 1e-300)
        own, least = error.diagonal(), NEARER * error
        wrong = (least < own[:, None]) & (least < own) & (error <= error.min(0))
        if wrong.any():
            for i, j in zip(*linear_sum_assignment(np.log(error)), strict=True):
                found[g[i]] = replace(at[g[j]], name=at[g[i]].name)
    return found
