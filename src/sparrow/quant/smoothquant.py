"""Move outliers of a transformer's activations into its weights.

    before   y = Normalize(x, g, b) @ W
    after    y = Normalize(x, g / s, b / s) @ (s W)       s = max|x_k|^a / max|W_k|^(1 - a)

SmoothQuant, Xiao et al. 2023 (arXiv:2211.10438, equation 4): per input channel k, over all products
that read the normalised value. A few channels of a transformer are a hundred times the others, and
one scale for all leaves the others few codes; weights are even and have room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparrow.graph import Graph, Node, retyped
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.tensor import Array

# Channels that never vary would be divided by nothing.
_FLOOR = 1e-5


@dataclass(frozen=True, slots=True)
class _Site:
    """A normalisation and the products that read it, and nothing else does."""

    norm: Node
    products: tuple[Node, ...]


def _sites(g: Graph) -> list[_Site]:
    users, out = g.users(), g.live_out()
    found = []
    for n in g.nodes:
        y = n.outputs[0] if n.outputs else ""
        if not isinstance(n.op, Normalize) or len(n.inputs) < 2 or y in out:
            continue
        channels = g.types[y].shape[-1]
        scales = [x for x in n.inputs[1:] if x]
        if any(x not in g.consts or g.consts[x].size != channels for x in scales):
            continue
        readers = users.get(y, [])
        if readers and all(_is_product(g, m, y) for m in readers):
            found.append(_Site(n, tuple({id(m): m for m in readers}.values())))
    return found


def _is_product(g: Graph, m: Node, x: str) -> bool:
    reads = isinstance(m.op, MatMul) and m.inputs[0] == x and not m.op.trans_a
    return reads and m.inputs[1] in g.consts and g.consts[m.inputs[1]].ndim == 2


def _rows_first(op: MatMul, w: Array) -> Array:
    return w.T if op.trans_b else w


def smooth(g: Graph, peaks: Mapping[str, NDArray[np.float32]], alpha: float) -> Graph:
    """``g`` with evened channels behind its normalisations: the same function up to rounding.

    Args:
        g: Float graph.
        peaks: Largest magnitude per channel of each normalised value.
        alpha: Share of the range that moves, 0 (none) to 1 (all).
    """
    consts = dict(g.consts)
    nodes = {id(n): n for n in g.nodes}

    def put(name: str, array: Array) -> str:
        fresh = f"{name}.smooth"
        while fresh in consts or fresh in g.types:
            fresh += "_"
        consts[fresh] = array.astype(np.float32)
        return fresh

    for site in _sites(g):
        y = site.norm.outputs[0]
        if y not in peaks:
            continue
        weights = [
            _rows_first(m.op, g.consts[m.inputs[1]])
            for m in site.products
            if isinstance(m.op, MatMul)
        ]
        w_peak = np.max([np.abs(w).max(1) for w in weights], axis=0).astype(np.float64)
        x_peak = np.maximum(peaks[y].astype(np.float64), _FLOOR)
        s = np.maximum(x_peak**alpha / np.maximum(w_peak, _FLOOR) ** (1 - alpha), _FLOOR)
        inputs = [
            put(x, g.consts[x] / s.reshape(g.consts[x].shape)) if i and x else x
            for i, x in enumerate(site.norm.inputs)
        ]
        n = site.norm
        nodes[id(n)] = Node(n.op, tuple(inputs), n.outputs, n.origin)
        for m in site.products:
            assert isinstance(m.op, MatMul)
            w = g.consts[m.inputs[1]]
            wider = put(m.inputs[1], w * (s[None, :] if m.op.trans_b else s[:, None]))
            operands = (m.inputs[0], wider, *m.inputs[2:])
            nodes[id(m)] = Node(m.op, operands, m.outputs, m.origin)
    return retyped(g, [nodes[id(n)] for n in g.nodes], consts=consts)


def normalised(g: Graph) -> tuple[str, ...]:
    """The values whose channels `smooth` evens, if it knows their peaks."""
    return tuple(site.norm.outputs[0] for site in _sites(g))
