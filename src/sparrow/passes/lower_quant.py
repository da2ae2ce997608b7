"""Write quantization that no integer kernel took as float arithmetic.

before   y = Dequantize(c)    c constant codes
after    y = c'               c' = (c - zero_point) * scale

before   y = Dequantize(x)                         y = Quantize(x)
after    y = (x - zero_point) * scale              y = saturate(rne(x / scale) + zero_point)

A Quantize whose codes leave the graph stays: their type carries the scale the caller needs.
"""

from __future__ import annotations

from sparrow.graph import Graph, Node, retyped
from sparrow.ops.lane import Lane
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.passes.integer.movement import looked_up
from sparrow.rewrite import Remark, apply_rules
from sparrow.tensor import Array, TensorType, dtype_of

LANE_BITS = 16


def _leaving(g: Graph) -> set[str]:
    """Quantized values that outputs are made of by data movement."""
    made = g.producers()
    found: set[str] = set()
    todo = list(g.live_out())
    while todo:
        name = todo.pop()
        if name in found or g.types[name].quant is None:
            continue
        found.add(name)
        if name in made:
            todo.extend(x for x in made[name].inputs if x)
    return found


def lower_weights(g: Graph, remarks: list[Remark] | None = None) -> Graph:
    """`lower_quant` where nothing but constants is quantized: no integer kernel wants these. Tables
    that are looked up in stay codes.
    """
    made = g.producers()
    run_time = any(
        isinstance(n.op, Quantize) or (isinstance(n.op, Dequantize) and n.inputs[0] not in g.consts)
        for n in made.values()
    )
    if run_time:
        return g
    return lower_quant(apply_rules(g, (("looked_up", looked_up),), remarks), remarks)


def lower_quant(g: Graph, remarks: list[Remark] | None = None) -> Graph:
    """Replace Quantize and Dequantize; see the module."""
    if not any(isinstance(n.op, Quantize | Dequantize) for n in g.nodes):
        return g
    stays = _leaving(g)
    nodes: list[Node] = []
    consts: dict[str, Array] = dict(g.consts)
    types: dict[str, TensorType] = dict(g.types)

    def constant(array: Array) -> str:
        name = f"%q{len(consts)}"
        while name in types:
            name += "_"
        consts[name], types[name] = array, TensorType(array.shape, dtype_of(array))
        return name

    for n in g.nodes:
        op, y = n.op, n.outputs[0]
        if isinstance(op, Dequantize) and n.inputs[0] in g.consts:
            (consts[y],) = op.eval(g.consts[n.inputs[0]])
            text = f"constant codes become {op.dtype}"
        elif isinstance(op, Dequantize) or (
            isinstance(op, Quantize) and y not in stays and op.dtype.bits <= LANE_BITS
        ):
            expr, arrays = op.expression(g.types[n.inputs[0]])
            operands = (n.inputs[0], *(constant(a) for a in arrays))
            nodes.append(Node(Lane(expr), operands, n.outputs, n.origin))
            text = "written as arithmetic"
        else:
            nodes.append(n)
            continue
        if remarks is not None:
            remarks.append(Remark("lower_quant", n.origin or y, text, True))
    return retyped(g, nodes, consts=consts, types=types)
