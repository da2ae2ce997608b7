"""Nodes behind those whose values they read.

ONNX asks files for that; converters that append nodes (casts around a float16 model) forget it, and
ONNX Runtime sorts them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from heapq import heapify, heappop, heappush

import onnx


def in_order(nodes: Sequence[onnx.NodeProto], known: Container[str]) -> Sequence[onnx.NodeProto]:
    """``nodes`` as they are where each finds its inputs, else the nearest order in which it does.

    Args:
        nodes: Of one graph.
        known: Values from outside: inputs, constants, what encloses the graph.

    Nodes on a cycle come last, for the reader to name.
    """
    maker = {y: i for i, n in enumerate(nodes) for y in n.output if y and y not in known}
    # subgraphs of the last node are not looked at: where they nest, every level would be
    last = max(maker.values(), default=-1)
    reads = (_reads(n) if i < last else n.input for i, n in enumerate(nodes))
    if all(maker.get(x, -1) < i for i, names in enumerate(reads) for x in names):
        return nodes
    before = [{maker[x] for x in _reads(n) if x in maker} for n in nodes]
    after: list[list[int]] = [[] for _ in nodes]
    for i, needed in enumerate(before):
        for j in needed:
            after[j].append(i)
    waits = [len(needed) for needed in before]
    ready = [i for i, count in enumerate(waits) if not count]
    heapify(ready)
    found: list[int] = []
    while ready:
        i = heappop(ready)
        found.append(i)
        for k in after[i]:
            waits[k] -= 1
            if not waits[k]:
                heappush(ready, k)
    placed = set(found)
    return [nodes[i] for i in (*found, *(i for i in range(len(nodes)) if i not in placed))]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Inputs of a node and of all nodes inside its subgraphs."""
    rest = [node]
    while rest:
        n = rest.pop()
        yield from n.input
        for a in n.attribute:
            for g in (a.g, *a.graphs):
                rest.extend(g.node)
                yield from (o.name for o in g.output)
