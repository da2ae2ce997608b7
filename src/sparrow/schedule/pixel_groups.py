"""Which convolutions with few output channels compute several pixels of a row as channels.

What fills vectors costs columns of zeros (`passes.pixel_groups`). Both forms are planned, each by
the row that its kernel family has for it, and the faster is taken: for one thread, so that the
number of threads does not change how sums are rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.graph import Graph, Module, Node, retyped
from sparrow.passes.pixel_groups import Whole, group_of, grouped
from sparrow.rewrite import Remark, namer, prune
from sparrow.schedule.row import Planned
from sparrow.schedule.trial import alone
from sparrow.targets import Target
from sparrow.tensor import Array

# Least speed-up that is predicted: rows of other kinds are compared, and predictions err.
GAIN = 1.2


def in_pixel_groups(g: Graph, target: Target, planned: Planned, remarks: list[Remark]) -> Graph:
    """The graph with the convolutions in groups of pixels that are predicted to gain by it.

    Not for firmware, whose vectors are short and whose weights are flash; nor is compact code
    (`sparrow.kernels.COMPACT`) given to it, since groups multiply weights.

    Args:
        g: As it is planned.
        target: Of the plan.
        planned: Plans a module for one thread.
        remarks: Told which layers were chosen.
    """
    if target.machine.bare:
        return g
    fresh = namer(g)
    consts = dict(g.consts)
    nodes: list[Node] = []
    wholes: dict[str, Whole] = {}
    for i, n in enumerate(g.nodes):
        pixels = group_of(g, n, target.isa.lanes, wholes)
        if pixels > 1:
            made, added, whole = grouped(g, n, pixels, fresh, wholes)
            one = alone(g, i, i)
            if GAIN * _cycles(planned, _trial(one, made, added, wholes)) < _cycles(planned, one):
                nodes += made
                consts |= added
                wholes[n.outputs[0]] = whole
                why = f"{pixels} pixels of a row at once"
                remarks.append(Remark("pixels", n.origin, why, True))
                continue
        nodes.append(n)
    # a result that is read in groups alone is not cut
    return prune(retyped(g, nodes, consts=consts)) if wholes else g


def _trial(
    one: Graph, made: Sequence[Node], added: Mapping[str, Array], wholes: Mapping[str, Whole]
) -> Graph:
    """A graph of one convolution with these nodes in its place."""
    read = {x for n in made for x in n.inputs}
    names = {w.name: w.type for w in wholes.values() if w.name in read}
    return retyped(
        one,
        made,
        inputs=(*(x for x in one.inputs if x in read), *sorted(names)),
        types={**one.types, **names},
        consts={**one.consts, **added},
    )


def _cycles(planned: Planned, g: Graph) -> float:
    return sum(s.lowered.cycles for s in planned(Module("pixels", (g,))).entries[0].steps)
