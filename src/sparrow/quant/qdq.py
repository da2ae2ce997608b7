"""Write a quantization into the graph: Quantize and Dequantize around float ops.

    before   y = Conv(x, w, b)
    after    y.f = Conv(x, Dequantize(w.q), Dequantize(b.q));  y.q = Quantize(y.f)
             y = Dequantize(y.q)

Values keep their names, so readers and graph outputs need not know.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sparrow.graph import Graph, Node, retyped, verify
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.quant.weights import Coded
from sparrow.tensor import Affine, Array, DType, TensorType


def insert(
    g: Graph,
    codes: Mapping[str, tuple[DType, Affine]],
    constants: Mapping[str, Mapping[int, Coded]],
    coded: Collection[str],
) -> Graph:
    """``g`` in QDQ form.

    Args:
        g: A float graph.
        codes: Values that become codes, with their types.
        constants: Node (by its first result) -> operand -> its codes; an operand past the last one
            or absent is added.
        coded: First results of nodes that read codes, and make them. The others read what was
            rounded only where there is nothing else.
    """
    taken = set(g.types)
    consts: dict[str, Array] = dict(g.consts)
    types: dict[str, TensorType] = dict(g.types)
    nodes: list[Node] = []
    read: dict[str, str] = {}
    known: dict[tuple[str, bytes, TensorType], str] = {}

    def fresh(name: str, suffix: str) -> str:
        name += suffix
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    def constant(base: str, c: Coded, origin: str) -> str:
        t = TensorType(c.codes.shape, c.dtype, quant=c.quant)
        key = (base, c.codes.tobytes(), t)
        if key not in known:
            q = fresh(base, ".q")
            consts[q], types[q] = c.codes, t
            known[key] = fresh(base, ".dq")
            nodes.append(Node(Dequantize(c.quant), (q,), (known[key],), origin))
        return known[key]

    for x in (*g.inputs, *(s.input for s in g.states)):
        if x in codes:
            dtype, quant = codes[x]
            q, read[x] = fresh(x, ".q"), fresh(x, ".dq")
            nodes.append(Node(Quantize(quant, dtype), (x,), (q,), x))
            nodes.append(Node(Dequantize(quant), (q,), (read[x],), x))
    exact = {x: x for x in read}
    for n in g.nodes:
        own = n.outputs[0] in coded
        inputs = [(read if own else exact).get(x, x) for x in n.inputs]
        for i, c in constants.get(n.outputs[0], {}).items():
            inputs += [""] * (i + 1 - len(inputs))
            base = inputs[i] or f"{n.outputs[0]}.bias"
            inputs[i] = constant(base, c, n.origin)
        outputs = tuple(fresh(y, ".f") if y in codes else y for y in n.outputs)
        nodes.append(replace(n, inputs=tuple(inputs), outputs=outputs))
        for y, made in zip(n.outputs, outputs, strict=True):
            if y in codes:
                dtype, quant = codes[y]
                q = fresh(y, ".q")
                nodes.append(Node(Quantize(quant, dtype), (made,), (q,), n.origin))
                nodes.append(Node(Dequantize(quant), (q,), (y,), n.origin))
                if not own:
                    exact[y] = made
    done = retyped(g, nodes, consts=consts, types=types)
    verify(done)
    return done
