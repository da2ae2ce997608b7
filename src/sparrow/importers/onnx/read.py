"""Reads an ONNX model, node by node, into a Graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from sparrow.builder import Builder
from sparrow.errors import BadInput, BadModel, InvalidGraph, UnsupportedOp
from sparrow.export import SCHEME
from sparrow.graph import SCHEMES, Scheme, State
from sparrow.importers.file import check_operands, read_file
from sparrow.importers.fixed import fixed, said, with_own_shapes
from sparrow.importers.imported import Imported, Shapes, Verdict
from sparrow.importers.nearest import nearest
from sparrow.importers.onnx.call import Call, attribute, elem_type, to_array
from sparrow.importers.onnx.decode import DECODERS, SUPPORTED
from sparrow.importers.onnx.external import load_external
from sparrow.importers.onnx.functions import inlined, local_body, standard_body
from sparrow.importers.onnx.inputs import freeze
from sparrow.importers.onnx.limits import (
    MAX_DEPTH,
    MAX_NODES,
    check_envelope,
    check_functions,
    check_names,
    unfolded_limit,
)
from sparrow.importers.onnx.order import in_order
from sparrow.importers.onnx.schema import attribute_types

MIN_OPSET = 6
# Elements of an input that a user may be asked to fix: a rate, a length, a flag.
MAX_FIXED = 16
# What is often found in the place of a model, by its first bytes: what it is, and what to do.
OTHER_FILES = {
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    b"<": ("text of a web page", "download the file itself, not the page that shows it"),
    b"PK\3\4": ("an archive, as PyTorch writes", "export it: torch.onnx.export"),
    b"\x1f\x8b": ("compressed", "unpack it first: gunzip"),
    b"\x89HDF": ("a Keras file", "convert it to TFLite, or with tf2onnx"),
}


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
        what, hint = next(
            (found for start, found in OTHER_FILES.items() if data.startswith(start)),
            ("protobuf does not parse", ""),
        )
        raise BadModel(f"{path}: not an ONNX model ({what})", hint=hint) from None
    if not model.HasField("graph") or not model.opset_import:
        raise BadModel(f"{path}: not an ONNX model (no graph or no opset)")
    return model, path.parent


class Reader:
    """Decodes the nodes of one model into a Builder."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None, name: str) -> None:
        self.b = Builder(name)
        self.folder = folder
        self.opsets = {o.domain: int(o.version) for o in model.opset_import}
        self.functions = model.functions
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
        check_names(g)
        for node in in_order(g.node, env):
            self.decoded += 1
            if self.room < 0:
                raise BadModel(
                    f"graph {g.name!r}: its loops unfold to more than {self.limit} nodes and "
                    "values",
                    hint="freeze fewer steps with --shape, or compile a loop's body alone and call "
                    "it in a loop",
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
        expected = attribute_types(node.op_type, version, domain)
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
        """Outputs of a node without a decoder, by the definition the model or ONNX gives of it."""
        types = [self.b.type(env[x]) if x else None for x in node.input]
        body = local_body(node, self.functions, self.opsets, types)
        body = body or standard_body(node, self.opsets, types)
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
        check_operands(f"{where} ({node.op_type})", len(node.input))
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


def import_onnx(
    source: str | Path | onnx.ModelProto,
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _check_opset(model: onnx.ModelProto) -> None:
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


def _check_bound(
    model: onnx.ModelProto, constants: Mapping[str, Any], states: Mapping[str, str]
) -> None:
    """Constants and states are inputs, none of them both."""
    known = {i.name for i in model.graph.input} - {t.name for t in model.graph.initializer}
    for what, names in (("constant", constants), ("state", states)):
        for n in names:
            if n not in known:
                raise BadInput(
                    f"{what} {n!r} is no input of the model", hint=f"inputs: {_listed(known)}"
                )
    if both := set(constants) & set(states):
        raise BadInput(f"input {min(both)!r} is given as a constant and as a state")


def decode(
    source: str | Path | onnx.ModelProto,
    shapes: Shapes,
    constants: Mapping[str, Any],
    states: Mapping[str, str],
    name: str,
    make: Callable[[onnx.ModelProto, Path | None, str], Reader],
) -> Imported:
    """`import_onnx` with a Reader of one's own: one that maps an output to ``""`` leaves it out."""
    model, folder = load_proto(source)
    check_envelope(model)
    if model.functions:
        check_functions(model)
        model = inlined(model)
    _check_opset(model)
    if not model.graph.output:
        raise BadModel("the model has no output", hint="declare what it computes as outputs")
    reader = make(model, folder, name)
    reader.b.scheme = _scheme(model)
    env: dict[str, str] = {}
    bound = dict(states)
    _check_bound(model, constants, states)
    types, frozen = freeze(model, with_own_shapes(shapes, constants))
    outputs = {o.name for o in model.graph.output}
    for n, out in bound.items():
        if out not in outputs:
            raise BadInput(
                f"state {n!r}: {out!r} is no output of the model",
                hint=f"outputs: {_listed(outputs)}",
            )
    reader.b.fixable = frozenset(
        n for n, t in types if t.size <= MAX_FIXED and n not in (*bound, *constants)
    )
    for n, t in types:
        if n in bound:
            reader.b.types[n] = t
            env[n] = n
        elif n not in constants:
            env[n] = reader.b.input(n, t)
    for n, t in types:
        if n in constants:
            array = fixed(constants[n], n, t)
            env[n] = reader.b.stored(array, t.dtype)
            frozen = (*frozen, said(n, array))
    results = reader.graph(model.graph, env)
    result = dict(zip((o.name for o in model.graph.output), results, strict=True))
    for out, value in result.items():
        if value in reader.b.sequences:
            raise UnsupportedOp(
                f"output {out!r} is a sequence",
                hint="export the model with its elements as outputs, or joined in one tensor",
            )
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
