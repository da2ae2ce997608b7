"""16 bits for values that 8 do not hold, found by trying.

One scale serves all elements of a value, and where a few are a hundred times the others, as in a
spectrum or a state that passes through every layer, 8 bits leave nothing of the small ones. A value
is rounded alone in the float network (as in Lin, Talathi, Annapureddy 2016, arXiv:1511.06393); if
that alone spoils an output, what makes and reads it takes 16 bits. Halving what is rounded finds
them; nearly all networks are done after one look at all values together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sparrow.graph import Graph
from sparrow.quant.engine import Engine, literally
from sparrow.quant.layers import Codes, shaped
from sparrow.quant.place import Placement
from sparrow.quant.qdq import insert
from sparrow.quant.recipe import literal
from sparrow.tensor import Array

# Power of the error of an output over its own, from which on it counts as spoilt: 20 dB.
SPOILT = 0.01
# Samples that are looked at.
COMPARED = 4


def too_wide(
    g: Graph,
    p: Placement,
    codes: Codes,
    samples: Sequence[Mapping[str, Array]],
    engine: Engine = literally,
) -> dict[str, float]:
    """Values that 8 bits do not hold: name of the one that stands for its group -> share of the
    power of an output that its rounding alone spoils.

    Args:
        g: Float graph.
        p: Where codes are.
        codes: Types and scales of all values that are.
        samples: Feeds; the first few are used.
        engine: What runs the graphs.
    """
    few = samples[:COMPARED]
    outputs = [y for y in g.outputs if g.types[y].dtype.kind == "float"]
    if not outputs or not few:
        return {}
    run = engine(g, outputs)
    real = [{y: run(feeds)[y] for y in outputs} for feeds in few]

    def spoilt(values: Iterable[str]) -> float:
        rounded = shaped(g, {x: codes[x] for x in values})
        other = engine(insert(g, rounded, {}, p.coded), outputs)
        signal, noise = dict.fromkeys(outputs, 0.0), dict.fromkeys(outputs, 0.0)
        for feeds, want in zip(few, real, strict=True):
            found = other(feeds)
            for y in outputs:
                signal[y] += float(np.square(want[y], dtype=np.float64).sum())
                noise[y] += float(np.square(found[y].astype(np.float64) - want[y]).sum())
        return max(noise[y] / max(signal[y], 1e-300) for y in outputs)

    members = {root: [x for x in p.group if p.group[x] == root] for root in p.sources}

    def found_in(roots: Sequence[str]) -> dict[str, float]:
        # powers of errors add: where all together spoil nothing, none does
        share = spoilt(x for root in roots for x in members[root]) if roots else 0.0
        if share <= SPOILT or len(roots) == 1:
            return {roots[0]: share} if share > SPOILT else {}
        half = len(roots) // 2
        return found_in(roots[:half]) | found_in(roots[half:])

    return found_in([x for x in p.sources if codes[x][0].bits == 8])


def pinned(g: Graph, p: Placement, roots: Iterable[str]) -> tuple[str, ...]:
    """Patterns for pins that fit what makes or reads the groups of some values."""
    wanted = frozenset(roots)
    found = []
    for n in g.nodes:
        y = n.outputs[0]
        groups = {p.group[x] for x in (*n.inputs, *n.outputs) if x in p.group}
        moves = bool(n.inputs) and y in p.group and p.group[y] == p.group.get(n.inputs[0])
        if y in p.coded and not moves and not wanted.isdisjoint(groups):
            found.append(literal(y))
    return tuple(found)
