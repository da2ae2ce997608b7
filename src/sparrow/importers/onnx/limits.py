"""What is refused of a file before any node is read: names that are no text, calls without end."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from sparrow.errors import BadModel
from sparrow.importers.onnx.functions import function_key

MAX_NODES = 200_000
# Nodes and values that loops and functions may unfold to, however small the model: a quarter of a
# second of reading.
UNFOLDED = 12_000
UNFOLDED_PER_NODE = 16
MAX_UNFOLDED = 5 * MAX_NODES
# Bytes that copies of functions may add to a model.
COPIED_BYTES = 8 << 20
MAX_DEPTH = 16


def check_names(g: onnx.GraphProto) -> None:
    """Refuse names that are not UTF-8; protobuf hands those out as bytes.

    Raises:
        BadModel: One is not.
    """
    texts = [(v.name, "value") for v in (*g.input, *g.output, *g.initializer)]
    for n in g.node:
        texts += [(n.op_type, "operator"), (n.domain, "domain"), (n.name, "node")]
        texts += [(v, "value") for v in (*n.input, *n.output)]
        texts += [(a.name, "attribute") for a in n.attribute]
    _check_utf8(f"graph {g.name!r}", texts)


def _check_utf8(where: str, texts: Sequence[tuple[str | bytes, str]]) -> None:
    for text, what in texts:
        if not isinstance(text, str):
            raise BadModel(f"{where}: {what} name {text!r} is not UTF-8")


def check_envelope(model: onnx.ModelProto) -> None:
    """Refuse names that are not UTF-8 around the graph: of domains, and in what functions say.

    Raises:
        BadModel: One is not.
    """
    texts = [(o.domain, "domain") for o in model.opset_import]
    texts += [(model.graph.name, "graph")]
    for v in (*model.graph.input, *model.graph.output):
        texts += [(v.name, "value")]
        texts += [(d.dim_param, "dimension") for d in v.type.tensor_type.shape.dim]
    for f in model.functions:
        texts += [(f.name, "function"), (f.domain, "domain"), (f.overload, "overload")]
        texts += [(x, "value") for x in (*f.input, *f.output)]
        texts += [(a, "attribute") for a in f.attribute]
        texts += [(o.domain, "domain") for o in f.opset_import]
    _check_utf8("model", texts)


def unfolded_limit(stored: int) -> int:
    """Nodes and values that a model of so many stored nodes may unfold to."""
    return min(MAX_UNFOLDED, UNFOLDED + UNFOLDED_PER_NODE * stored)


def check_functions(model: onnx.ModelProto) -> None:
    """Refuse local functions that call themselves or expand to too many nodes, before they do.

    Raises:
        BadModel: One does.
    """
    bodies = {function_key(f, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str, str], tuple[int, int]] = {}
    open_calls: list[tuple[str, str, str]] = []

    def size(nodes: Sequence[onnx.NodeProto]) -> tuple[int, int]:
        """How many nodes these become, and the bytes of the functions copied for that."""
        total = copied = 0
        for n in nodes:
            key = function_key(n, n.op_type)
            inner = [size(a.g.node) for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
            if key in open_calls:
                raise BadModel(f"local function {n.op_type!r} calls itself")
            if key in bodies and key not in sizes:
                if len(open_calls) >= MAX_DEPTH * 4:
                    raise BadModel(f"local functions nest deeper than {MAX_DEPTH * 4}")
                open_calls.append(key)
                count, more = size(bodies[key].node)
                sizes[key] = (count, more + bodies[key].ByteSize())
                open_calls.pop()
            for count, more in (*inner, (1, 0), sizes.get(key, (0, 0))):
                total, copied = total + count, copied + more
        return total, copied

    found, copied = size(model.graph.node)
    stored = len(model.graph.node) + sum(len(f.node) for f in model.functions)
    limit = unfolded_limit(stored)
    if found > limit:
        raise BadModel(f"local functions expand to {found} nodes; at most {limit} are read")
    most = COPIED_BYTES + sum(f.ByteSize() for f in model.functions)
    if copied > most:
        raise BadModel(f"local functions expand to {copied} bytes; at most {most} are read")
