"""Compute a run of layers in parts of rows, one for each thread, that share nothing on the way.

before   y = c(b(a(x)))                                    a, b, c: windows over rows, elementwise
after    v[t] = a(rows of x)        for every thread t: the rows that its part of y depends on
         w[t] = b(v[t])
         y[t] = c(w[t])
         y = concat(y[0], y[1], ..)

This is overlapped tiling: rows of v and w that two parts of y depend on are computed twice. Threads
that divide each layer by itself would take them from one another instead: a line that one core
writes and both read changes cores three times, where the other reads it, where its owner reads it
again, and where it is written next. Where x is thin and w is wide, as in an inverted bottleneck
around a depthwise layer, computing costs less. All rows are sums of the same elements by the same
ops, so that nothing depends on the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sparrow.graph import Graph, Node, retyped
from sparrow.ops.concat import Concat
from sparrow.passes.patches import ROWS, Part, windows_of
from sparrow.rewrite import namer


@dataclass(frozen=True, slots=True)
class Overlap:
    """Nodes ``first`` to ``last`` of a graph, the result in ``parts`` of nearly equal height."""

    first: int
    last: int
    parts: int


# Rows [first, end) of values.
Spans = Mapping[str, tuple[int, int]]


def spans_of(g: Graph, o: Overlap) -> tuple[Spans, ...] | None:
    """The rows of each value that each part needs; None when a node is not computed row by row.

    Parts of the result are those of tasks of a step that threads share.
    """
    nodes = g.nodes[o.first : o.last + 1]
    y = nodes[-1].outputs[0]
    if windows_of(g, nodes[-1]) is None:
        return None
    height = g.types[y].shape[ROWS]
    each = -(-height // o.parts)
    if each * (o.parts - 1) >= height:
        return None
    found = []
    for t in range(o.parts):
        rows = {y: (t * each, min(height, (t + 1) * each))}
        for n in reversed(nodes):
            windows = windows_of(g, n)
            if windows is None or n.outputs[0] not in rows:
                return None
            low, end = rows[n.outputs[0]]
            for i, w in windows.items():
                x = n.inputs[i]
                first = max(0, low * w.stride - w.pad)
                last = min(g.types[x].shape[ROWS], (end - 1) * w.stride - w.pad + w.reach)
                a, b = rows.get(x, (first, last))
                rows[x] = min(a, first), max(b, last)
        found.append(rows)
    return tuple(found)


def overlapped(g: Graph, runs: Sequence[Overlap]) -> Graph:
    """The graph with some runs of nodes, which do not meet, in parts; gives the same answers."""
    fresh = namer(g)
    nodes: list[Node] = []
    at = 0
    for o in sorted(runs, key=lambda o: o.first):
        spans = spans_of(g, o)
        assert o.first >= at and spans is not None
        nodes += g.nodes[at : o.first]
        parts = [Part(g, fresh) for _ in spans]
        for n in g.nodes[o.first : o.last + 1]:
            for t, (part, rows) in enumerate(zip(parts, spans, strict=True)):
                low, end = rows[n.outputs[0]]
                name = part.compute(n, low, end)
                part.held[n.outputs[0]] = name, low, end
                # what it cuts out of its inputs is a view
                nodes += (replace(made, column=t) for made in part.out)
                part.out.clear()
        last = g.nodes[o.last]
        y = last.outputs[0]
        nodes.append(Node(Concat(ROWS), tuple(p.held[y][0] for p in parts), (y,), last.origin))
        at = o.last + 1
    return retyped(g, [*nodes, *g.nodes[at:]])
