"""A Graph as a file for other runtimes: the lowest opset that can say it, and no idle nodes.

`sparrow.export` writes for one oracle, the installed ONNX Runtime; what users take elsewhere should
load in runtimes of years ago too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from math import prod

import onnx
from onnx import TensorProto, defs, helper, shape_inference

from sparrow.export import OPSET, to_onnx
from sparrow.graph import Graph, Node, retyped
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize
from sparrow.ops.reshape import Reshape
from sparrow.tensor import F32

# QuantizeLinear per channel is new in 13.
FLOOR = 13
# Versions that mean something else by the same words; others since FLOOR take more types or
# attributes.
CHANGED = {
    ("RoiAlign", 16),
    ("AveragePool", 19),
    ("Resize", 18),
    ("Resize", 19),
    ("GridSample", 20),
}

# From this opset on ONNX Runtime (1.32) forgets the zero point of codes that it carries over
# movement of its own accord, and refuses its own node ("output_dtype INT8 does not match").
CARRIED = 21
MOVEMENT = {"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


def to_portable_onnx(g: Graph) -> onnx.ModelProto:
    """``g`` as standard ONNX of the lowest opset, IR version to match."""
    g, products = _in_matrices(g)
    model = _with_clips(_without_identities(to_onnx(g)))
    for n in model.graph.node:
        if n.op_type == "MatMul" and n.output[0] in products:
            n.op_type = "Gemm"
    opset = lowest_opset(model)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))
    return _with_rows(_with_moved_codes(model)) if opset >= CARRIED else model


def _in_matrices(g: Graph) -> tuple[Graph, set[str]]:
    """``g`` with products of weights that have a scale per group of inputs over two axes.

    before   y = MatMul(x [.., M, K], Dequantize(w))
    after    y = Reshape(MatMul(Reshape(x) [-1, K], Dequantize(w)))

    ONNX Runtime (1.32) makes an operator of MatMul and such weights that refuses their scales, and
    none of Gemm, which has two axes.

    Returns:
        The graph, and what those products make.
    """
    made, nodes, products = g.producers(), list[Node](), set[str]()
    for n in g.nodes:
        if not _in_groups(g, made, n):
            nodes.append(n)
            continue
        x, y = g.types[n.inputs[0]].shape, g.types[n.outputs[0]].shape
        if len(x) == 2:
            products.add(n.outputs[0])
            nodes.append(n)
            continue
        rows, product = (f"{n.outputs[0]}%{end}" for end in ("rows", "product"))
        products.add(product)
        nodes += [
            Node(Reshape((prod(x[:-1]), x[-1])), n.inputs[:1], (rows,), n.origin),
            replace(n, inputs=(rows, *n.inputs[1:]), outputs=(product,)),
            Node(Reshape(y), (product,), n.outputs, n.origin),
        ]
    return retyped(g, nodes) if products else g, products


def _in_groups(g: Graph, made: Mapping[str, Node], n: Node) -> bool:
    """Whether a node multiplies rows by a matrix of such weights."""
    if not isinstance(n.op, MatMul) or n.op.trans_a or n.op.epilogue or n.op.accumulate:
        return False
    w = made.get(n.inputs[1])
    if w is None or not isinstance(w.op, Dequantize) or g.types[n.inputs[0]].dtype != F32:
        return False
    return len(w.op.quant.block) == 2 and max(w.op.quant.block) > 1


def lowest_opset(model: onnx.ModelProto) -> int:
    """Lowest opset, FLOOR or later, whose operators mean what the nodes of ``model`` say."""
    (current,) = (o.version for o in model.opset_import)
    if current > OPSET:
        return int(current)
    types = _types(model)
    return max((_since(n, types, current) for n in model.graph.node), default=FLOOR)


def _since(n: onnx.NodeProto, types: dict[str, int], current: int) -> int:
    schema = defs.get_schema(n.op_type, current)
    while schema.since_version > FLOOR and (n.op_type, schema.since_version) not in CHANGED:
        older = _schema(n.op_type, schema.since_version - 1)
        if older is None or not _takes(older, n, types):
            break
        schema = older
    return max(FLOOR, int(schema.since_version))


def _schema(op: str, opset: int) -> defs.OpSchema | None:
    return defs.get_schema(op, opset) if defs.has(op, opset) else None


def _takes(schema: defs.OpSchema, n: onnx.NodeProto, types: dict[str, int]) -> bool:
    if schema.deprecated or not schema.min_input <= len(n.input) <= schema.max_input:
        return False
    if any(a.name not in schema.attributes for a in n.attribute):
        return False
    for names, formal in ((n.input, schema.inputs), (n.output, schema.outputs)):
        for i, name in enumerate(names):
            row = formal[min(i, len(formal) - 1)]
            if name and name in types and _spelled(types[name]) not in row.types:
                return False
    return True


def _spelled(elem_type: int) -> str:
    return f"tensor({TensorProto.DataType.Name(elem_type).lower()})"


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value; weights are left out of what is inferred over."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    found = {t.name: t.data_type for t in light.graph.initializer}
    small = [t for t in light.graph.initializer if t.ByteSize() < 1024]
    for t in light.graph.initializer:
        if t.ByteSize() >= 1024:
            light.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    del light.graph.initializer[:]
    light.graph.initializer.extend(small)
    g = shape_inference.infer_shapes(light).graph
    for v in (*g.input, *g.output, *g.value_info):
        found[v.name] = v.type.tensor_type.elem_type
    return found


def _with_clips(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with Clip for a Max and a Min of literals, which runtimes join with products."""
    g = model.graph
    uses = Counter(x for n in g.node for x in n.input)
    made = {y: n for n in g.node for y in n.output}
    kept = {o.name for o in g.output}
    scalars = {t.name for t in g.initializer if not t.dims and t.data_type == TensorProto.FLOAT}

    def literal(n: onnx.NodeProto) -> tuple[str, str] | None:
        """(operand, literal) of an operation between one value and one literal."""
        found = [x for x in n.input if x in scalars]
        rest = [x for x in n.input if x not in scalars]
        return (rest[0], found[0]) if len(n.input) == 2 and len(found) == 1 else None

    gone: list[onnx.NodeProto] = []
    for n in g.node:
        top = literal(n) if n.op_type == "Min" else None
        below = made.get(top[0]) if top else None
        if top is None or below is None or uses[top[0]] != 1 or top[0] in kept:
            continue
        if below.op_type == "Max" and (bottom := literal(below)) is not None:
            operands = [bottom[0], bottom[1], top[1]]
        elif below.op_type == "Relu":
            zero = helper.make_tensor(f"{below.output[0]}.low", TensorProto.FLOAT, (), [0.0])
            g.initializer.append(zero)
            operands = [below.input[0], zero.name, top[1]]
        else:
            continue
        clip = helper.make_node("Clip", operands, list(n.output), name=n.name)
        n.CopyFrom(clip)
        gone.append(below)
    for n in gone:
        g.node.remove(n)
    return model


def _without_identities(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with what an Identity copies under the name of the copy, where nobody else reads
    it.
    """
    g = model.graph
    uses = Counter(x for n in g.node for x in n.input)
    made = {y: n for n in g.node for y in n.output}
    kept = {o.name for o in g.output}
    gone: list[onnx.NodeProto] = []
    for n in g.node:
        x = n.input[0] if n.op_type == "Identity" else ""
        if x and x in made and uses[x] == 1 and x not in kept:
            producer, y = made[x], n.output[0]
            producer.output[list(producer.output).index(x)] = y
            made[y] = producer
            gone.append(n)
    for n in gone:
        g.node.remove(n)
    return model


def _with_moved_codes(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the codes of what moves codes behind the movement, too, unless they are there.

    Codes become themselves again: the answers stay.
    """
    g = model.graph
    readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
    for n in g.node:
        for x in n.input:
            readers[x].append(n)
    constant = {t.name for t in g.initializer}
    taken = constant | {v.name for v in g.input} | {y for n in g.node for y in n.output}
    affine: dict[str, list[str]] = {}
    nodes: list[onnx.NodeProto] = []
    for n in g.node:
        nodes.append(n)
        if n.op_type == "DequantizeLinear" and n.input[0] not in constant and not n.attribute:
            affine[n.output[0]] = list(n.input[1:])
        numbers = affine.get(n.input[0]) if n.op_type in MOVEMENT and len(n.output) == 1 else None
        if numbers is None:
            continue
        y = n.output[0]
        if readers[y] and all(r.op_type == "QuantizeLinear" for r in readers[y]):
            continue
        moved, codes = (_fresh(f"{y}.{end}", taken) for end in ("moved", "codes"))
        n.output[0] = moved
        nodes.append(helper.make_node("QuantizeLinear", [moved, *numbers], [codes], codes))
        nodes.append(helper.make_node("DequantizeLinear", [codes, *numbers], [y], y))
        affine[y] = numbers
    del g.node[:]
    g.node.extend(nodes)
    return model


def _with_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` whose products of matrices add biases of two axes.

    With one, ONNX Runtime makes a Gemm of product and sum, and moves its input to two axes.
    """
    g = model.graph
    uses = Counter(x for n in g.node for x in n.input)
    made = {y: n for n in g.node for y in n.output}
    stored = {t.name: t for t in g.initializer}
    for n in g.node:
        if n.op_type != "Add" or not any(_is(made, x, "MatMul") for x in n.input):
            continue
        for x in n.input:
            codes = made[x].input[0] if _is(made, x, "DequantizeLinear") else x
            t = stored.get(codes)
            if t is None or len(t.dims) != 1 or uses[x] != 1 or uses[codes] != 1:
                continue
            t.dims.insert(0, 1)
            for a in made[x].attribute if codes != x else ():
                a.i += a.name == "axis"
    return model


def _is(made: Mapping[str, onnx.NodeProto], x: str, op: str) -> bool:
    return x in made and made[x].op_type == op


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
