"""Mutations of ONNX models as trees of messages, so that what comes out still parses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fuzz.words import FLOATS, HOSTILE, INTEGERS, LOCATIONS

Random = random.Random
OPERATORS: tuple[str, ...] = tuple(
    sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})
)
_WIDTH = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


def _messages(m: Message, limit: int = 150) -> Iterator[Message]:
    """``m`` and what is in it, breadth first."""
    waiting = [m]
    for found in waiting:
        yield found
        if len(waiting) > limit:
            continue
        for field, value in found.ListFields():
            if field.message_type is not None:
                waiting.extend(value if field.is_repeated else [value])


def _copy(rng: Random, messages: Sequence[Message]) -> Message:
    """A copy of one of them: a message must not be copied into itself."""
    chosen = rng.choice(messages)
    copy = type(chosen)()
    copy.CopyFrom(chosen)
    return copy


def _scalar(rng: Random, field: Any, old: Any, names: Sequence[str]) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            data = bytes(old or b"")
            cut = rng.randrange(len(data) + 1)
            return rng.choice(
                (data[:cut], data + rng.randbytes(8), rng.randbytes(len(data)), data * 2, b"")
            )
        pool = rng.choice((names, names, HOSTILE, OPERATORS, LOCATIONS))
        return rng.choice(pool or HOSTILE)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        # a closed enumeration takes no other number; mutated bytes have those
        return rng.choice(field.enum_type.values).number
    low, high = _WIDTH[kind]
    if rng.random() < 0.4:
        value = rng.randrange(-1, 28)
    elif rng.random() < 0.5:
        value = int(old or 0) + rng.choice((-1, 1, 2, 100))
    else:
        value = rng.choice(INTEGERS)
    return max(low, min(high, value))


def _change(rng: Random, m: Any, others: Sequence[Message], names: Sequence[str]) -> None:
    """Change one field of one message."""
    present = [f for f, _ in m.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.8 else m.DESCRIPTOR.fields)
    if field.is_repeated:
        items = getattr(m, field.name)
        at = rng.randrange(len(items)) if len(items) else -1
        choice = rng.randrange(6)
        if at < 0 or choice == 0:
            if field.message_type is not None:
                same = [o for o in others if o.DESCRIPTOR is field.message_type]
                copy = _copy(rng, same) if same else None
                added = items.add()
                if copy is not None:
                    added.CopyFrom(copy)
            else:
                items.append(_scalar(rng, field, None, names))
        elif choice == 1:
            del items[at]
        elif choice == 2:
            items.extend([items[at]] * rng.choice((1, 1, 2, 70)))
        elif choice == 3:
            moved = list(items)
            rng.shuffle(moved)
            del items[:]
            items.extend(moved)
        elif field.message_type is not None:
            same = [o for o in others if o.DESCRIPTOR is field.message_type]
            items[at].CopyFrom(_copy(rng, same)) if same else items[at].Clear()
        else:
            items[at] = _scalar(rng, field, items[at], names)
    elif field.message_type is not None:
        same = [o for o in others if o.DESCRIPTOR is field.message_type]
        if rng.random() < 0.4 or not same:
            m.ClearField(field.name)
        else:
            getattr(m, field.name).CopyFrom(_copy(rng, same))
    else:
        setattr(m, field.name, _scalar(rng, field, getattr(m, field.name), names))


def _graphs(m: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [g for g in _messages(m) if isinstance(g, onnx.GraphProto)]


def _names(m: onnx.ModelProto) -> list[str]:
    found: dict[str, None] = {}
    for g in _graphs(m):
        for v in (*g.input, *g.output, *g.initializer):
            found[v.name] = None
        for n in g.node:
            found.update(dict.fromkeys((*n.input, *n.output)))
    return list(found)


def _another_operator(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    if g.node:
        rng.choice(g.node).op_type = rng.choice(OPERATORS)


def _another_operand(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    """Any value as operand, those computed later and those of other graphs included."""
    names = _names(m)
    nodes = [n for n in g.node if n.input]
    if nodes and names:
        n = rng.choice(nodes)
        n.input[rng.randrange(len(n.input))] = rng.choice(names)


def _bind(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    """Make an input a constant, so that what is computed from it is folded."""
    if not g.input:
        return
    at = rng.randrange(len(g.input))
    tensor = g.input[at].type.tensor_type
    dims = [d.dim_value for d in tensor.shape.dim]
    size = 1
    for d in dims:
        size *= d
    if not 0 <= size <= 4096:
        return
    t = g.initializer.add()
    t.name, t.data_type = g.input[at].name, tensor.elem_type
    t.dims.extend(dims)
    width = {1: 4, 6: 4, 7: 8, 11: 8, 10: 2, 16: 2, 5: 2, 4: 2, 12: 4, 13: 8}.get(t.data_type, 1)
    t.raw_data = rng.choice((bytes(size * width), rng.randbytes(size * width)))
    del g.input[at]


def _free(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    """Make a constant an input."""
    if g.initializer:
        at = rng.randrange(len(g.initializer))
        t = g.initializer[at]
        v = g.input.add()
        v.name = t.name
        v.type.tensor_type.elem_type = t.data_type
        v.type.tensor_type.shape.SetInParent()
        for d in t.dims:
            v.type.tensor_type.shape.dim.add().dim_value = d
        del g.initializer[at]


def _integers(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    """Other numbers in an int64 constant, which often says what a shape is."""
    constants = [t for t in g.initializer if t.data_type == onnx.TensorProto.INT64 and t.raw_data]
    if constants:
        t = rng.choice(constants)
        values = [rng.choice(INTEGERS) for _ in range(len(t.raw_data) // 8)]
        kept = [int.from_bytes(t.raw_data[i : i + 8], "little", signed=True)
                for i in range(0, len(t.raw_data) // 8 * 8, 8)]  # fmt: skip
        picked = [v if rng.random() < 0.6 else k for v, k in zip(values, kept, strict=True)]
        t.raw_data = b"".join(v.to_bytes(8, "little", signed=True) for v in picked)


def _extents(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    """Other extents of an input."""
    if g.input:
        dim = rng.choice(g.input).type.tensor_type.shape.dim
        for d in dim:
            if rng.random() < 0.5:
                d.dim_value = rng.choice(INTEGERS)


def _external(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    if g.initializer:
        t = rng.choice(g.initializer)
        t.data_location = onnx.TensorProto.EXTERNAL
        if rng.random() < 0.7:
            t.ClearField("raw_data")
        del t.external_data[:]
        for key, pool in (("location", LOCATIONS), ("offset", INTEGERS), ("length", INTEGERS)):
            if rng.random() < 0.7:
                t.external_data.add(key=key, value=str(rng.choice(pool)))


def _nest(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    """Move a node into the branches of an If, several times over."""
    if not g.node:
        return
    at = rng.randrange(len(g.node))
    for _ in range(rng.choice((1, 2, 20, 60))):
        inner = onnx.GraphProto(name="branch")
        inner.node.add().CopyFrom(g.node[at])
        for name in g.node[at].output:
            inner.output.add().name = name
        outer = onnx.NodeProto(op_type="If", output=list(g.node[at].output))
        outer.input.append(rng.choice(_names(m) or [""]))
        for branch in ("then_branch", "else_branch"):
            a = outer.attribute.add()
            a.name, a.type = branch, onnx.AttributeProto.GRAPH
            a.g.CopyFrom(inner)
        g.node[at].CopyFrom(outer)
        if outer.ByteSize() > 200_000:
            return


def _repeat(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    """Make a node the body of a Loop."""
    if not g.node:
        return
    at = rng.randrange(len(g.node))
    body = onnx.GraphProto(name="body")
    body.node.add().CopyFrom(g.node[at])
    for name in ("i", "c"):
        body.input.add().name = name
    body.output.add().name = "c"
    for name in g.node[at].output:
        body.output.add().name = name
    trips = g.initializer.add()
    trips.name, trips.data_type = "trips", onnx.TensorProto.INT64
    trips.int64_data.append(rng.choice(INTEGERS))
    loop = onnx.NodeProto(op_type="Loop", input=["trips", ""], output=list(g.node[at].output))
    a = loop.attribute.add()
    a.name, a.type = "body", onnx.AttributeProto.GRAPH
    a.g.CopyFrom(body)
    g.node[at].CopyFrom(loop)


def _rename(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    """Call a value by a hostile name everywhere."""
    names = [n for n in _names(m) if n]
    if not names:
        return
    old, new = rng.choice(names), rng.choice(HOSTILE)
    for graph in _graphs(m):
        for v in (*graph.input, *graph.output, *graph.initializer):
            if v.name == old:
                v.name = new
        for n in graph.node:
            for values in (n.input, n.output):
                for i, name in enumerate(values):
                    if name == old:
                        values[i] = new


def _opset(rng: Random, m: onnx.ModelProto, g: onnx.GraphProto) -> None:
    if m.opset_import:
        rng.choice(m.opset_import).version = rng.choice((7, 8, 9, 10, 11, 12, 13, 18, 21, 24, 26))


MOVES: tuple[Callable[[Random, onnx.ModelProto, onnx.GraphProto], None], ...] = (
    *(_another_operator, _another_operand, _bind, _free, _integers, _extents, _external, _nest),
    *(_repeat, _rename, _opset),
)


def mutate_model(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A model with one to four changes, some of a field, some of the meaning."""
    m = onnx.ModelProto()
    m.ParseFromString(data)
    for _ in range(rng.choice((1, 1, 2, 2, 4))):
        if rng.random() < 0.5:
            found = list(_messages(m))
            pool = list(found)
            if rng.random() < 0.3:
                other = onnx.ModelProto()
                other.ParseFromString(rng.choice(others))
                pool = list(_messages(other))
            _change(rng, rng.choice(found), pool, _names(m))
        else:
            graphs = _graphs(m)
            if graphs:
                rng.choice(MOVES)(rng, m, rng.choice(graphs))
    return bytes(m.SerializeToString())
