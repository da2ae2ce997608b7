"""Faults planted into quantized graphs: each changes one layer, drawn from a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node, retyped
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reshape import Reshape
from sparrow.ops.transpose import Transpose
from sparrow.tensor import F32, I32, Affine, Array


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """A faulty graph.

    Attributes:
        graph: It.
        kind: Of the fault, a row of `FAULTS`.
        codes: The codes that the faulty layer writes, or what its product makes.
    """

    graph: Graph
    kind: str
    codes: str


@dataclass(frozen=True, slots=True)
class _Product:
    """A convolution or product with constant codes, up to its result and, if it is one, the
    Quantize of that: before a softmax or in a residual stream it stays float.
    """

    node: Node
    weights: Node
    bias: Node | None
    result: str
    quantize: Node | None


def _activations(g: Graph) -> list[tuple[Node, list[Node]]]:
    users = g.users()
    found = []
    for n in g.nodes:
        if isinstance(n.op, Quantize) and n.op.quant.per_tensor:
            readers = [u for u in users.get(n.outputs[0], []) if isinstance(u.op, Dequantize)]
            if readers and len(readers) == len(users[n.outputs[0]]):
                found.append((n, readers))
    return found


def _products(g: Graph) -> list[_Product]:
    made, users = g.producers(), g.users()
    found: list[_Product] = []
    floats: list[_Product] = []
    for n in g.nodes:
        if not isinstance(n.op, (Conv, MatMul)):
            continue
        w = made.get(n.inputs[1])
        b = made.get(n.inputs[2]) if len(n.inputs) > 2 else None
        if w is None or not isinstance(w.op, Dequantize) or w.inputs[0] not in g.consts:
            continue
        if b is not None and not (isinstance(b.op, Dequantize) and b.inputs[0] in g.consts):
            b = None
        if len(users[w.outputs[0]]) > 1 or len(users[w.inputs[0]]) > 1:
            continue
        y = n
        while len(users.get(y.outputs[0], ())) == 1 and passes_on(g, users[y.outputs[0]][0]):
            y = users[y.outputs[0]][0]
        readers = users.get(y.outputs[0], [])
        if len(readers) == 1 and isinstance(readers[0].op, Quantize):
            found.append(_Product(n, w, b, readers[0].outputs[0], readers[0]))
        else:
            floats.append(_Product(n, w, b, y.outputs[0], None))
    # a transformer has no others
    return found or floats


def passes_on(g: Graph, n: Node) -> bool:
    """Whether a node belongs to the layer of its only operand that varies."""
    live = [x for x in dict.fromkeys(n.inputs) if x and x not in g.consts]
    return isinstance(n.op, (Lane, Transpose, Reshape)) and len(live) == 1


def _pick(rng: np.random.Generator, count: int) -> int:
    if not count:
        raise LookupError("no layer can have this fault")
    return int(rng.integers(count))


def _with_nodes(g: Graph, changed: Mapping[int, Node], consts: Mapping[str, Array] = {}) -> Graph:
    types = dict(g.types)
    for n in changed.values():
        if isinstance(n.op, Dequantize) and n.inputs[0] in g.consts:
            types[n.inputs[0]] = replace(types[n.inputs[0]], quant=n.op.quant)
    nodes = [changed.get(id(n), n) for n in g.nodes]
    return retyped(g, nodes, consts={**g.consts, **consts}, types=types)


def _requantized(g: Graph, q: Node, readers: list[Node], quant: Affine) -> Graph:
    changed = {id(n): replace(n, op=replace(n.op, quant=quant)) for n in (q, *readers)}  # type: ignore[type-var]
    return _with_nodes(g, changed)


def _scaled_activation(g: Graph, rng: np.random.Generator, factor: float) -> tuple[Graph, str]:
    found = _activations(g)
    q, readers = found[_pick(rng, len(found))]
    assert isinstance(q.op, Quantize)
    old = q.op.quant
    scale = (old.scale * np.float32(factor)).astype(np.float32)
    return _requantized(g, q, readers, replace(old, scale=scale)), q.outputs[0]


def wide_scale(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """A scale 8 to 16 times too large."""
    return _scaled_activation(g, rng, float(rng.uniform(8, 16)))


def clipped_range(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """A range of a quarter to an eighth of what it should be."""
    return _scaled_activation(g, rng, 1 / float(rng.uniform(4, 8)))


def wrong_zero_point(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """A zero point off by 150: one side of the values is cut off."""
    found = _activations(g)
    q, readers = found[_pick(rng, len(found))]
    assert isinstance(q.op, Quantize)
    old = q.op.quant
    off = np.int32(150 if old.zero_point.reshape(-1)[0] < 0 else -150)
    quant = replace(
        old, zero_point=np.clip(old.zero_point + off, *q.op.dtype.limits).astype(np.int32)
    )
    return _requantized(g, q, readers, quant), q.outputs[0]


def _weights(g: Graph, p: _Product) -> Array:
    """Codes with output channels first."""
    w = g.consts[p.weights.inputs[0]]
    first = isinstance(p.node.op, Conv) or (isinstance(p.node.op, MatMul) and p.node.op.trans_b)
    return np.array(w) if first else np.array(np.moveaxis(w, -1, 0))


def _put(g: Graph, p: _Product, w: Array) -> Graph:
    first = isinstance(p.node.op, Conv) or (isinstance(p.node.op, MatMul) and p.node.op.trans_b)
    back = np.ascontiguousarray(w if first else np.moveaxis(w, 0, -1))
    return _with_nodes(g, {}, {p.weights.inputs[0]: back})


def swapped_channels(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """Output channels of the weights in reverse order."""
    found = [p for p in _products(g) if len(_weights(g, p)) > 3]
    p = found[_pick(rng, len(found))]
    return _put(g, p, _weights(g, p)[::-1]), p.result


def perturbed_codes(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """A tenth of the weights with one bit of weight 64 turned."""
    found = _products(g)
    p = found[_pick(rng, len(found))]
    w = _weights(g, p)
    hit = rng.random(w.shape) < 0.1
    hit.reshape(-1)[_pick(rng, hit.size)] = True
    return _put(g, p, np.where(hit, w ^ 64, w).astype(w.dtype)), p.result


def wrong_weight_scale(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """Scales of the weights 1.5 times too large."""
    found = _products(g)
    p = found[_pick(rng, len(found))]
    assert isinstance(p.weights.op, Dequantize)
    quant = p.weights.op.quant
    quant = replace(quant, scale=(quant.scale * np.float32(1.5)).astype(np.float32))
    n = replace(p.weights, op=replace(p.weights.op, quant=quant))
    return _with_nodes(g, {id(p.weights): n}), p.result


def bias_off(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """Biases moved by a quarter of the range of the result."""
    found = [p for p in _products(g) if p.bias is not None and p.quantize is not None]
    p = found[_pick(rng, len(found))]
    assert p.quantize is not None and p.bias is not None and isinstance(p.bias.op, Dequantize)
    assert isinstance(p.quantize.op, Quantize)
    name = p.bias.inputs[0]
    step = p.bias.op.quant.scale.reshape(-1).astype(np.float64)
    reach = 64 * float(p.quantize.op.quant.scale.max())
    sign = rng.choice((-1.0, 1.0), g.consts[name].shape)
    # channels of zeros have a step of next to nothing
    codes = np.clip(np.rint(g.consts[name] + sign * reach / step), -(2**31) + 1, 2**31 - 1)
    assert g.types[name].dtype == I32
    return _with_nodes(g, {}, {name: codes.astype(np.int32)}), p.result


def wrong_multiplier(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """A requantization whose multiplier is a quarter too large or too small."""
    found = [p for p in _products(g) if p.quantize is not None]
    p = found[_pick(rng, len(found))]
    q = p.quantize
    assert q is not None
    factor = float(rng.choice((0.75, 1.25)))
    value = "%wrong"
    e = lane.call("mul", lane.Arg(0, F32), lane.Imm(factor, F32))
    wrong = Node(Lane(e), (q.inputs[0],), (value,), q.origin)
    nodes: list[Node] = []
    for n in g.nodes:
        nodes += [wrong, replace(n, inputs=(value,))] if n is q else [n]
    return retyped(g, nodes), q.outputs[0]


def mirrored_kernel(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """A convolution that reads its kernel backwards."""
    found = [p for p in _products(g) if _weights(g, p).ndim > 2 and _weights(g, p).shape[-1] > 1]
    p = found[_pick(rng, len(found))]
    return _put(g, p, _weights(g, p)[..., ::-1, ::-1]), p.result


def coarse_weights(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """One scale for all weights, so wide that they take the codes -4 to 4."""
    found = _products(g)
    p = found[_pick(rng, len(found))]
    assert isinstance(p.weights.op, Dequantize)
    quant = p.weights.op.quant
    w = g.consts[p.weights.inputs[0]].astype(np.float32) * quant.scale
    scale = np.float32(np.abs(w).max() / 4)
    ones = (1,) * w.ndim
    one = Affine(np.full(ones, scale), np.zeros(ones, np.int32), (-1,) * w.ndim)
    n = replace(p.weights, op=replace(p.weights.op, quant=one))
    codes = np.rint(w / scale).astype(np.int8)
    return _with_nodes(g, {id(p.weights): n}, {p.weights.inputs[0]: codes}), p.result


def dead_channels(g: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """Half of the output channels with weights of zero."""
    found = _products(g)
    p = found[_pick(rng, len(found))]
    w = _weights(g, p)
    w[::2] = 0
    return _put(g, p, w), p.result


Fault = Callable[[Graph, np.random.Generator], tuple[Graph, str]]
FAULTS: Mapping[str, Fault] = {
    f.__name__: f
    for f in (
        wide_scale,
        clipped_range,
        wrong_zero_point,
        swapped_channels,
        perturbed_codes,
        wrong_weight_scale,
        bias_off,
        wrong_multiplier,
        mirrored_kernel,
        coarse_weights,
        dead_channels,
    )
}


def plant(g: Graph, kind: str, seed: int | Sequence[int]) -> Planted:
    """A fault of that kind in a layer of ``g``.

    Raises:
        LookupError: No layer of ``g`` can have it.
    """
    graph, codes = FAULTS[kind](g, np.random.default_rng(seed))
    return Planted(graph, kind, codes)
