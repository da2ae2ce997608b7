"""Reads an ONNX model: limits, external data, dynamic dimensions, then node by node."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from sparrow.builder import Builder
from sparrow.errors import BadInput, BadModel, InvalidGraph, UnsupportedOp
from sparrow.export import SCHEME
from sparrow.graph import SCHEMES, Scheme, State
from sparrow.importers.file import read_file
from sparrow.importers.imported import Imported, Verdict
from sparrow.importers.nearest import nearest
from sparrow.importers.onnx.call import Call, attribute, elem_type, to_array
from sparrow.importers.onnx.decode import DECODERS, SUPPORTED
from sparrow.importers.onnx.external import load_external
from sparrow.importers.onnx.functions import inlined, standard_body
from sparrow.tensor import Array, TensorType

MAX_NODES = 200_000
# Nodes and values that loops and functions may unfold to, however small the model: a quarter of a
# second of reading.
UNFOLDED = 12_000
UNFOLDED_PER_NODE = 16
MAX_UNFOLDED = 5 * MAX_NODES
# Bytes that copies of functions may add to a model.
COPIED_BYTES = 8 << 20
MAX_DEPTH = 16
MIN_OPSET = 6
MAX_OPSET = (1 << 31) - 1
Shapes = Mapping[str, Sequence[int]]


def load_proto(source: str | Path | onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None]:
    """The model and the folder its external data lie in.

    Raises:
        BadInput: The file cannot be read.
        BadModel: It is no ONNX model or larger than MAX_BYTES.
    """
    if isinstance(source, onnx.ModelProto):
        return source, None
    path = Path(source)
    data = read_file(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise BadModel(f"{path}: not an ONNX model (protobuf does not parse)") from None
    if not model.HasField("graph") or not model.opset_import:
        raise BadModel(f"{path}: not an ONNX model (no graph or no opset)")
    return model, path.parent


class Reader:
    """Decodes the nodes of one model into a Builder."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None, name: str) -> None:
        self.b = Builder(name)
        self.folder = folder
        self.opsets = {o.domain: int(o.version) for o in model.opset_import}
        self.verdicts: list[Verdict] = []
        self.names: dict[str, str] = {}
        self.depth = 0
        self.decoded = 0
        own = len(model.graph.node)
        if own > MAX_NODES:
            raise BadModel(f"graph {model.graph.name!r}: {own} nodes; at most {MAX_NODES} are read")
        self.limit = unfolded_limit(own)

    def initializer(self, t: onnx.TensorProto) -> str:
        """A constant value."""
        where = f"initializer {t.name!r}"
        if t.data_location == onnx.TensorProto.EXTERNAL or t.external_data:
            dtype = elem_type(t.data_type, where)
            array = load_external(t, dtype, self.folder)
        else:
            array, dtype = to_array(t, where)
        return self.b.stored(array, dtype)

    @property
    def room(self) -> int:
        """Nodes and values that may still come of what is read."""
        return self.limit - self.decoded - self.b.effort

    def graph(self, g: onnx.GraphProto, env: dict[str, str]) -> list[str]:
        """Decode a (sub)graph whose inputs are already in ``env``; returns its output values."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise BadModel(f"graph {g.name!r}: subgraphs nest deeper than {MAX_DEPTH}")
        for t in g.initializer:
            env.setdefault(t.name, self.initializer(t))
        if self.depth == 1:
            self.limit += self.b.effort
        if g.sparse_initializer:
            raise UnsupportedOp(f"graph {g.name!r}: sparse initializers are not supported")
        _check_names(g)
        for node in g.node:
            self.decoded += 1
            if self.room < 0:
                raise BadModel(
                    f"graph {g.name!r}: its loops unfold to more than {self.limit} nodes and "
                    "values",
                    hint="compile a loop's body as a model of its own and call it in a loop",
                )
            self.node(node, env)
        self.depth -= 1
        missing = [o.name for o in g.output if o.name not in env]
        if missing:
            raise BadModel(f"graph {g.name!r}: output {missing[0]!r} is computed by no node")
        return [env[o.name] for o in g.output]

    def extra_outputs(self) -> dict[str, str]:
        """Values to keep beside the model's outputs, by a name of their own."""
        return {}

    def attributes(
        self, node: onnx.NodeProto, domain: str, version: int, where: str
    ) -> dict[str, Any]:
        """Values of a node's attributes, each of the type that the operator's schema states."""
        expected = _attribute_types(node.op_type, version, domain)
        for a in node.attribute:
            if expected.get(a.name, a.type) != a.type:
                kinds = onnx.AttributeProto.AttributeType
                found = kinds.Name(a.type) if a.type in kinds.values() else str(a.type)
                wanted = kinds.Name(expected[a.name])
                raise BadModel(
                    f"{where} ({node.op_type}): attribute {a.name!r} is {found}, expected {wanted}"
                )
        return {a.name: attribute(a, where) for a in node.attribute}

    def defined(self, call: Call, node: onnx.NodeProto, env: dict[str, str]) -> list[str]:
        """Outputs of a node without a decoder, by the definition ONNX gives of its operator."""
        types = [self.b.type(env[x]) if x else None for x in node.input]
        body = standard_body(node, self.opsets, types)
        if body is None:
            raise call.unsupported("no decoder for this operator", nearest(call.op_type, SUPPORTED))
        outer, self.opsets = self.opsets, {o.domain: int(o.version) for o in body.opset_import}
        found = self.graph(body.graph, {x: env[x] for x in node.input if x})
        self.opsets = outer
        values = iter(found)
        return [next(values) if y else "" for y in node.output]

    def node(self, node: onnx.NodeProto, env: dict[str, str]) -> None:
        """Decode one node; its outputs join ``env``."""
        where = node.name or (node.output[0] if node.output else node.op_type)
        for x in node.input:
            if x and x not in env:
                raise BadModel(f"{where} ({node.op_type}): input {x!r} is not defined before it")
        domain = "" if node.domain == "ai.onnx" else node.domain
        version = self.opsets.get(domain, self.opsets.get("ai.onnx", 0) if not domain else 0)
        outputs = list(node.output)
        while outputs and not outputs[-1]:
            outputs.pop()

        def run(sub: onnx.GraphProto, actual: Sequence[str]) -> list[str]:
            inner = dict(env)
            if len(sub.input) != len(actual):
                raise BadModel(
                    f"{where}: subgraph takes {len(sub.input)} inputs, got {len(actual)}"
                )
            inner.update(zip((i.name for i in sub.input), actual, strict=True))
            return self.graph(sub, inner)

        call = Call(
            self.b,
            node.op_type if not domain else f"{domain}.{node.op_type}",
            version,
            where,
            tuple(env[x] if x else "" for x in node.input),
            len(outputs),
            self.attributes(node, domain, version, where),
            run,
            tuple(bool(o) for o in outputs),
            self.room,
        )
        before, folded = len(self.b.nodes), self.b.folded
        self.b.origin = where
        try:
            if call.op_type != "Identity" and not self.b.lengths.keys().isdisjoint(call.inputs):
                raise call.unsupported(
                    "reads a tensor whose shape depends on the data",
                    "make that tensor a model output and compute the rest outside",
                )
            decoder = DECODERS.get(call.op_type)
            results = decoder(call) if decoder else self.defined(call, node, env)
        except InvalidGraph as e:
            said = e.message.startswith(where)
            raise (BadModel(e.message) if said else call.bad(e.message)) from None
        except UnsupportedOp as e:
            self.verdicts.append(Verdict(where, call.op_type, "missing", (), str(e)))
            raise
        if len(results) < len(outputs):
            raise call.unsupported(f"output {len(results)} is not supported")
        parts = tuple(type(n.op).__name__ for n in self.b.nodes[before:])
        kind = "ok" if len(parts) == 1 else "decomposed" if parts else "folded"
        if not parts and self.b.folded == folded:
            kind = "ok"
        self.verdicts.append(Verdict(where, call.op_type, kind, parts))
        for name, v in zip(outputs, results, strict=False):
            if name:
                if name in env:
                    raise BadModel(f"{where} ({node.op_type}): defines {name!r} a second time")
                env[name] = v
                self.names.setdefault(v, name)


def _check_names(g: onnx.GraphProto) -> None:
    """Refuse names that are not UTF-8; protobuf hands those out as bytes."""
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


def _check_envelope(model: onnx.ModelProto) -> None:
    """Refuse names that are not UTF-8 around the graph: of domains, and in what functions say."""
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


@lru_cache(maxsize=4096)
def _attribute_types(op_type: str, version: int, domain: str) -> dict[str, int]:
    """Attribute types by name as the operator's schema has them; none without a schema.

    What another version has is of its type there: a decoder serves several versions.
    """
    found: dict[str, int] = {}
    for v in (*_versions(op_type, domain), version):
        try:
            kinds: Mapping[str, Any] = onnx.defs.get_schema(op_type, v, domain).attributes
        except onnx.defs.SchemaError:
            continue
        found |= {name: int(a.type.value) for name, a in kinds.items()}
    return found


def _versions(op_type: str, domain: str) -> Iterator[int]:
    """In which an operator changed, newest first."""
    v = MAX_OPSET
    while v > 0:
        try:
            schema = onnx.defs.get_schema(op_type, v, domain)
        except onnx.defs.SchemaError:
            return
        yield schema.since_version
        v = schema.since_version - 1


def unfolded_limit(stored: int) -> int:
    """Nodes and values that a model of so many stored nodes may unfold to."""
    return min(MAX_UNFOLDED, UNFOLDED + UNFOLDED_PER_NODE * stored)


def _function_key(domain: str, name: str, overload: str) -> tuple[str, str, str]:
    return "" if domain == "ai.onnx" else domain, name, overload


def _check_functions(model: onnx.ModelProto) -> None:
    """Refuse local functions that call themselves or expand to too many nodes, before they do."""
    bodies = {_function_key(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[tuple[str, str, str], tuple[int, int]] = {}
    open_calls: list[tuple[str, str, str]] = []

    def size(nodes: Sequence[onnx.NodeProto]) -> tuple[int, int]:
        """How many nodes these become, and the bytes of the functions copied for that."""
        total = copied = 0
        for n in nodes:
            key = _function_key(n.domain, n.op_type, n.overload)
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


def freeze(
    model: onnx.ModelProto, shapes: Shapes
) -> tuple[list[tuple[str, TensorType]], tuple[str, ...]]:
    """Static types of the model inputs; symbolic dims bound by ``shapes`` stay bound elsewhere."""
    try:
        given = {k: tuple(operator.index(d) for d in v) for k, v in shapes.items()}
    except TypeError:
        raise BadInput(
            f"shapes are {dict(shapes)!r}, expected integers for every input",
            hint="shapes={'input': (1, 3, 240, 320)}",
        ) from None
    initialized = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initialized]
    unknown = set(given) - {i.name for i in inputs}
    if unknown:
        raise BadInput(
            f"shape given for {sorted(unknown)[0]!r}, which is no input of the model",
            hint=f"inputs: {', '.join(repr(i.name) for i in inputs)}",
        )
    symbols: dict[str, tuple[int, str]] = {}
    frozen: list[str] = []
    for i in inputs:
        if i.name not in given or not i.type.tensor_type.HasField("shape"):
            continue
        dims = i.type.tensor_type.shape.dim
        if len(dims) != len(given[i.name]):
            raise BadInput(f"input {i.name!r} has rank {len(dims)}, shape given {given[i.name]}")
        for d, n in zip(dims, given[i.name], strict=True):
            if d.dim_param and symbols.setdefault(d.dim_param, (n, i.name))[0] != n:
                other = symbols[d.dim_param]
                raise BadInput(
                    f"dimension {d.dim_param!r} is {n} in {i.name!r} and {other[0]} in {other[1]!r}"
                )
    result: list[tuple[str, TensorType]] = []
    for i in inputs:
        if i.type.WhichOneof("value") != "tensor_type":
            raise UnsupportedOp(
                f"input {i.name!r}: only tensors are supported, not sequences or optionals"
            )
        tt = i.type.tensor_type
        dtype = elem_type(tt.elem_type, f"input {i.name!r}")
        if not tt.HasField("shape"):
            if i.name not in given:
                raise BadInput(f"input {i.name!r} has no shape", hint=f"give --shape {i.name}=...")
            result.append((i.name, TensorType(given[i.name], dtype)))
            continue
        shape: list[int] = []
        bad = [d.dim_value for d in tt.shape.dim if not 0 <= d.dim_value < 1 << 40]
        if bad:
            raise BadModel(
                f"input {i.name!r} has an axis of extent {bad[0]}",
                hint="export the model with a named dynamic dimension there",
            )
        for axis, d in enumerate(tt.shape.dim):
            if d.HasField("dim_value"):
                n = int(d.dim_value)
                if i.name in given and given[i.name][axis] != n:
                    raise BadInput(
                        f"input {i.name!r} axis {axis} is {n}, shape given {given[i.name]}"
                    )
            elif i.name in given:
                n = given[i.name][axis]
                frozen.append(f"{i.name}[{axis}] ({d.dim_param or '?'}) = {n} from shape {i.name}")
            elif d.dim_param in symbols:
                n, source = symbols[d.dim_param]
                frozen.append(f"{i.name}[{axis}] ({d.dim_param}) = {n} from shape {source}")
            else:
                dims_text = "x".join(
                    str(q.dim_value) if q.HasField("dim_value") else q.dim_param or "?"
                    for q in tt.shape.dim
                )
                raise BadInput(
                    f"input {i.name!r} is {dims_text}: axis {axis} is dynamic",
                    hint=f"give --shape {i.name}="
                    + "x".join(
                        str(q.dim_value) if q.HasField("dim_value") else "N" for q in tt.shape.dim
                    ),
                )
            if n < 0:
                raise BadInput(f"input {i.name!r}: extent {n} given for axis {axis}")
            shape.append(n)
        result.append((i.name, TensorType(tuple(shape), dtype)))
    return result, tuple(frozen)


def import_onnx(
    source: str | Path | onnx.ModelProto,
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Array] | None = None,
    states: Mapping[str, str] | None = None,
    name: str = "main",
) -> Imported:
    """Decode an ONNX model into a Graph.

    Args:
        source: Path or model.
        shapes: Static shapes of inputs that have dynamic dimensions.
        constants: Inputs to bind to fixed values (they vanish from the Graph).
        states: Model input -> model output pairs carried from call to call, starting at zero.
        name: Name of the entry point.

    Raises:
        BadInput: The file or the given shapes are wrong.
        BadModel: The model is malformed.
        UnsupportedOp: A node cannot be decoded; says which and why.
    """
    return decode(source, shapes or {}, constants or {}, states or {}, name, Reader)


def _scheme(model: onnx.ModelProto) -> Scheme:
    """The rounding scheme that the metadata name."""
    text = next((p.value for p in model.metadata_props if p.key == SCHEME), "f32")
    found = next((s for s in SCHEMES if s == text), None)
    if found is None:
        raise BadModel(f"metadata {SCHEME} is {text[:40]!r}, expected one of {', '.join(SCHEMES)}")
    return found


def decode(
    source: str | Path | onnx.ModelProto,
    shapes: Shapes,
    constants: Mapping[str, Array],
    states: Mapping[str, str],
    name: str,
    make: Callable[[onnx.ModelProto, Path | None, str], Reader],
) -> Imported:
    """`import_onnx` with a Reader of one's own: one that maps an output to ``""`` leaves it out."""
    model, folder = load_proto(source)
    _check_envelope(model)
    if model.functions:
        _check_functions(model)
        model = inlined(model)
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version and version < MIN_OPSET:
        raise UnsupportedOp(
            f"opset {version} is older than {MIN_OPSET}",
            hint="convert it with onnx.version_converter.convert_version(model, 13)",
        )
    if version > onnx.defs.onnx_opset_version():
        raise UnsupportedOp(
            f"opset {version} is newer than {onnx.defs.onnx_opset_version()}",
            hint="install a newer onnx package, or export the model with an older opset",
        )
    if any(not 0 <= o.version < 1 << 31 for o in model.opset_import):
        raise BadModel("an opset version is out of range")
    reader = make(model, folder, name)
    reader.b.scheme = _scheme(model)
    env: dict[str, str] = {}
    fixed, bound = dict(constants), dict(states)
    types, frozen = freeze(model, shapes)
    declared = {n for n, _ in types}
    for what, names in (("constant", fixed), ("state", bound)):
        for n in names:
            if n not in declared:
                raise BadInput(
                    f"{what} {n!r} is no input of the model", hint=f"inputs: {sorted(declared)}"
                )
    outputs = {o.name for o in model.graph.output}
    for n, out in bound.items():
        if out not in outputs:
            raise BadInput(
                f"state {n!r}: {out!r} is no output of the model",
                hint=f"outputs: {sorted(outputs)}",
            )
    for n, t in types:
        if n in bound:
            reader.b.types[n] = t
            env[n] = n
        elif n not in fixed:
            env[n] = reader.b.input(n, t)
    for n, t in types:
        if n in fixed:
            array = np.asarray(fixed[n]).astype(t.dtype.numpy)
            env[n] = reader.b.stored(array, t.dtype)
    results = reader.graph(model.graph, env)
    result = dict(zip((o.name for o in model.graph.output), results, strict=True))
    carried = set(bound.values())
    for n, out in bound.items():
        value = result[out]
        if not value:
            reader.b.inputs.append(n)
            continue
        if value in reader.b.inputs or value in reader.b.consts or value in bound:
            value = reader.b.lane(reader.b.arg(0, value), value)
        zero = np.zeros(reader.b.shape(n), reader.b.type(n).dtype.numpy)
        reader.b.states.append(State(n, n, value, zero))
    final = {k: v for k, v in result.items() if k not in carried and v}
    final |= reader.extra_outputs()
    return Imported(reader.b.finish(final, reader.names), frozen, tuple(reader.verdicts))
