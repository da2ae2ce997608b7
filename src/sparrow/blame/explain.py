"""From a quantized network, its float network and samples to a culprit and cures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparrow.blame.align import (
    Cut,
    Quantization,
    cuts,
    dequantized_weights,
    segment,
    with_float_layer,
    without_quantization,
)
from sparrow.blame.causes import DEFECTS, Cause, Constants, cause
from sparrow.blame.cures import cures_of
from sparrow.blame.measure import Error, Judge, measure, with_constants
from sparrow.blame.pairing import acquainted, by_values
from sparrow.blame.result import Blame, Cure, LayerBlame
from sparrow.blame.spelling import spelled_alike, unfolded
from sparrow.errors import InvalidGraph
from sparrow.graph import Graph, Node, Op
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gather import Gather
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.matmul import MatMul
from sparrow.quant.calibrate import peaks
from sparrow.quant.engine import Engine, fastest, literally
from sparrow.quant.equalize import equalize
from sparrow.quant.noise import decibels
from sparrow.quant.place import channel_axes
from sparrow.quant.recipe import Recipe
from sparrow.quant.smoothquant import normalised, smooth
from sparrow.tensor import Array

# Layers of which it is tried what the outputs gain when they alone are float.
TRIED = 12
# Samples on which layers are compared; outputs are on all that judge.
COMPARED = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    cut: Cut
    made: Node | None
    product: Node | None
    constants: Constants | None
    pairs: tuple[tuple[Node, Node], ...]


def explain(
    q: Graph,
    f: Graph | None,
    samples: Sequence[Mapping[str, Array]],
    *,
    judges: Sequence[Mapping[str, Array]] | None = None,
    which: str = "",
    recipe: Recipe | None = None,
    milliseconds: Mapping[str, float] | None = None,
    cure: bool = True,
    engine: Engine = literally,
    progress: Callable[[str], None] = lambda _: None,
) -> Blame:
    """Blame the layers of a quantized graph.

    Args:
        q: Quantized graph in QDQ form, as imported.
        f: Its float graph after `sparrow.passes.FRONT`; None takes the one inside ``q``, whose
            weights are the rounded ones.
        samples: Feeds for the inputs, on which cures calibrate.
        judges: Feeds on which networks are compared, layers on the first few; None takes the first
            few of ``samples``.
        which: In words, which samples those are.
        recipe: The one ``q`` was made by, which cures start from.
        milliseconds: Measured time of layers by name.
        cure: Whether to look for cures; they need ``f``.
        engine: What runs the graphs.
        progress: Told what happens.

    Raises:
        BadInput: Nothing is quantized in ``q``, it is no quantization of ``f``, or there is no
            sample.
    """
    judges = samples[:COMPARED] if judges is None else judges
    few = judges[:COMPARED]
    coded = dequantized_weights(q)
    if f is None:
        real = without_quantization(coded.graph)
    else:
        real = prepared(f, recipe, samples)
        coded = replace(coded, graph=acquainted(real, coded.graph, few, engine))
        real = spelled_alike(real, {c.name for c in cuts(real, coded.graph)})
        real = unfolded(real, coded.graph)
    at = cuts(real, coded.graph)
    if f is not None and not (f.states or q.states):
        at = by_values(real, coded.graph, at, few, engine)
    layers = {c.name: _layer(real, coded, at, c) for c in at}
    recoded = with_constants(real, _replaced(coded, layers.values()))
    progress("comparing layer by layer")
    errors = measure(real, recoded, coded.graph, at, channel_axes(real), few, engine)
    judge = Judge(real, at, judges, engine)
    now = judge.noises(coded.graph)
    whole = float(now.sum())
    effects: dict[str, float] = {}
    for c in sorted(at, key=lambda c: _share(errors[c.name]), reverse=True)[:TRIED]:
        progress(f"trying {c.name} in float")
        try:
            island = with_float_layer(coded.graph, real, at, c)
        except InvalidGraph:
            continue
        left = judge.noise(island)
        effects[c.name] = decibels(whole, left) if whole else 0.0
    # what a QDQ file calls its nodes says little
    found = _guiltiest(at, layers, errors, effects, origins=f is not None)
    cures: tuple[Cure, ...] = ()
    if cure and f is not None:
        cures = cures_of(f, judge, samples, now, found, recipe, milliseconds, progress)
    reference = (
        "the float network inside it (weights as rounded)" if f is None else "the float model"
    )
    return Blame(reference, len(judges), which, decibels(1.0, whole), tuple(found), cures)


def _guiltiest(
    at: Sequence[Cut],
    layers: Mapping[str, _Layer],
    errors: Mapping[str, Error],
    effects: Mapping[str, float],
    *,
    origins: bool,
) -> list[LayerBlame]:
    """Every layer and its cause, the one that lost most first.

    Args:
        at: The layers.
        layers: Of each.
        errors: Of each.
        effects: What the outputs gain where it alone is float, of those that were tried.
        origins: Call layers as their nodes are.
    """
    causes = {c.name: _cause(c, layers[c.name], errors) for c in at}
    # where a sum of floats carries a result on, all layers behind it hold the product that made it
    holders: dict[str, str] = {}
    for c in at:
        product = layers[c.name].product
        if product is not None and causes[c.name].name in DEFECTS:
            holders.setdefault(product.outputs[0], c.name)

    def guilt(c: Cut) -> tuple[bool, int, float]:
        # first defects: no choice of scales makes other weights or another op of a layer; then the
        # effect, infinite where it takes all of the error away; below half a decibel it says
        # nothing, and the layer's own error decides
        effect = round(2 * min(max(effects.get(c.name, 0.0), 0.0), 999.0))
        product = layers[c.name].product
        nearest = product is None or holders.get(product.outputs[0], c.name) == c.name
        return nearest and causes[c.name].name in DEFECTS, effect, _share(errors[c.name])

    found = []
    for c in sorted(at, key=guilt, reverse=True):
        e, why = errors[c.name], causes[c.name]
        node = layers[c.name].product or layers[c.name].made
        origin = node.origin if node and origins else ""
        found.append(
            LayerBlame(
                origin or c.name.removesuffix(".f"),
                type(node.op).__name__ if node else "input",
                c.name,
                decibels(e.signal, e.own),
                decibels(e.signal, e.inherited),
                effects.get(c.name),
                why.name,
                why.detail,
            )
        )
    return found


def prepared(f: Graph, recipe: Recipe | None, samples: Sequence[Mapping[str, Array]]) -> Graph:
    """The float graph as its quantization saw it: after equalization and smoothing."""
    if recipe is not None and recipe.equalize:
        f = equalize(f)
    if recipe is not None and recipe.smooth is not None:
        f = smooth(f, peaks(f, samples, normalised(f), fastest), recipe.smooth)
    return f


def _share(e: Error) -> float:
    return e.own / max(e.signal, 1e-300)


def _cause(c: Cut, x: _Layer, errors: Mapping[str, Error]) -> Cause:
    operands = [
        max(-errors[i].low, errors[i].high)
        for i in (x.made.inputs if x.made else ())
        if i in errors
    ]
    return cause(errors[c.name], c, x.made, x.constants, operands)


# Operands of constants: weights, of recurrent layers recurrent ones and the biases too; tables.
CONSTANTS: Mapping[type[Op], tuple[int, ...]] = {
    Gather: (0,),
    Conv: (1, 2),
    ConvTranspose: (1, 2),
    MatMul: (1, 2),
    LSTM: (1, 2, 3),
    GRU: (1, 2, 3, 6),
}


def _products(g: Graph, nodes: Sequence[Node]) -> list[Node]:
    """Those with constant weights, and lookups in constant tables."""
    return [
        n
        for n in nodes
        if type(n.op) in CONSTANTS and _operand(g, n, CONSTANTS[type(n.op)][0]) is not None
    ]


def _layer(f: Graph, coded: Quantization, at: Sequence[Cut], c: Cut) -> _Layer:
    inner = segment(f, c.name, frozenset(x.name for x in at) - {c.name})
    made = next((n for n in inner if c.name in n.outputs), None)
    mine = _products(f, inner)
    others = _products(coded.graph, _quantized_segment(coded.graph, at, c))
    pairs: list[tuple[Node, Node]] = []
    if [type(n.op) for n in mine] == [type(n.op) for n in others]:
        pairs = list(zip(mine, others, strict=True))
    known = [(p, k) for p in pairs if (k := _constants(f, p[0], coded, p[1])) is not None]
    worst = max(known, key=lambda x: (x[1].foreign, x[1].off), default=None)
    # a table is not what a layer is called by, and of several products it is the one at fault
    product = mine[0] if len(mine) == 1 else None
    if len(mine) > 1 and worst is not None and worst[1].off:
        product = worst[0][0]
    if product is not None and isinstance(product.op, Gather):
        product = None
    constants = None if worst is None else worst[1]
    return _Layer(c, made, product, constants, tuple(p for p, _ in known))


def _quantized_segment(q: Graph, at: Sequence[Cut], c: Cut) -> list[Node]:
    ends = frozenset(x.after for x in at) - {c.before}
    return segment(q, c.before, ends)


def _operand(g: Graph, n: Node, i: int) -> Array | None:
    """A constant operand; codes that are looked up before they are numbers are none."""
    found = g.consts.get(n.inputs[i] if len(n.inputs) > i else "")
    return found if found is not None and found.dtype.kind == "f" else None


def _turned(n: Node) -> bool:
    return isinstance(n.op, MatMul) and n.op.trans_b


def _rows(n: Node, w: Array) -> Array:
    """Weights, output channels along the first axis."""
    if isinstance(n.op, LSTM | GRU):
        return w.reshape(-1, w.shape[-1])
    if isinstance(n.op, ConvTranspose):
        return np.moveaxis(w, 1, 0)
    if isinstance(n.op, MatMul):
        return w if _turned(n) else np.moveaxis(w, -1, 0)
    return w


def _constants(f: Graph, n: Node, coded: Quantization, m: Node) -> Constants | None:
    recurrent = isinstance(n.op, LSTM | GRU)
    pairs = []
    for i in (1, 2) if recurrent else CONSTANTS[type(n.op)][:1]:
        w, v = _operand(f, n, i), _operand(coded.graph, m, i)
        if w is None or v is None:
            return None
        w, v = _rows(n, w), _rows(m, v)
        if w.shape != v.shape:
            return None
        step = coded.steps.get(m.inputs[i], np.zeros(1, np.float32))
        pairs.append((w, v, step))
    at = 3 if recurrent else 2
    # a bias that only one of them has is compared with none
    a, b = (
        np.zeros(1, np.float32) if x is None else x.reshape(-1)
        for x in (_operand(f, n, at), _operand(coded.graph, m, at))
    )
    comparable = a.size == b.size or 1 in (a.size, b.size)
    bias = float(np.abs(a - b).max(initial=0)) if comparable else 0.0
    if not recurrent:
        return Constants(*pairs[0], bias)
    # the two products of a recurrent layer have scales of their own in every row
    steps = [np.broadcast_to(s.reshape(-1, 1), w.shape) for w, _, s in pairs]
    real, codes = (np.concatenate([p[k] for p in pairs], 1) for k in (0, 1))
    return Constants(real, codes, np.concatenate(steps, 1), bias)


def _replaced(coded: Quantization, layers: Iterable[_Layer]) -> dict[tuple[str, int], Array]:
    """The constants of the quantized products, for the products of the float graph."""
    found: dict[tuple[str, int], Array] = {}
    for n, m in (pair for x in layers for pair in x.pairs):
        for i in CONSTANTS[type(n.op)]:
            x = _operand(coded.graph, m, i)
            if x is None:
                continue
            if i == 1 and _turned(n) != _turned(m):
                x = np.swapaxes(x, -1, -2)
            found[n.outputs[0], i] = x
    return found
