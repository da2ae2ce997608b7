"""Models of every format: which one a model is, and what each format says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from sparrow.export import to_onnx
from sparrow.importers.file import read_file
from sparrow.importers.fixed import fixed, with_own_shapes
from sparrow.importers.imported import Imported, Shapes
from sparrow.importers.onnx.decode import SUPPORTED
from sparrow.importers.onnx.inputs import declared, freeze
from sparrow.importers.onnx.read import import_onnx, load_proto
from sparrow.importers.onnx.survey import survey_onnx
from sparrow.importers.tflite.control import OWN
from sparrow.importers.tflite.decode import DECODERS as TFLITE
from sparrow.importers.tflite.read import import_tflite, load_model, survey_tflite
from sparrow.importers.tflite.schema import MAGIC
from sparrow.importers.torch import TorchModule
from sparrow.tensor import Array

Model = str | Path | onnx.ModelProto
# What users give, too: a module becomes a ModelProto before anything else.
AnyModel = Model | TorchModule


def is_tflite(model: Model) -> bool:
    """Whether a model is a .tflite file, by its content or, unreadable, by its name.

    Raises:
        BadInput: The file cannot be read.
    """
    if isinstance(model, onnx.ModelProto):
        return False
    head = read_file(Path(model), 8)
    return head[4:] == MAGIC or Path(model).suffix == ".tflite"


def import_model(
    model: Model,
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
    name: str = "main",
) -> Imported:
    """Decode a model of any format, see `import_onnx` and `import_tflite`."""
    if isinstance(model, onnx.ModelProto) or not is_tflite(model):
        return import_onnx(model, shapes, constants=constants, states=states, name=name)
    return import_tflite(model, shapes, constants=constants, states=states, name=name)


def survey_model(
    model: Model,
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
    name: str = "main",
) -> Imported:
    """`import_model` that goes on behind operators it cannot decode, whose verdict is missing."""
    if isinstance(model, onnx.ModelProto) or not is_tflite(model):
        return survey_onnx(model, shapes, constants=constants, states=states, name=name)
    return survey_tflite(model, shapes, constants=constants, states=states, name=name)


def input_names(model: Model) -> set[str]:
    """Names of the inputs of a model."""
    if isinstance(model, onnx.ModelProto) or not is_tflite(model):
        return {i.name for i in load_proto(model)[0].graph.input}
    found = load_model(model)
    return {found.tensors[i].name for i in found.inputs}


@dataclass(frozen=True, slots=True)
class Declared:
    """What a model says of the shape of an input.

    Attributes:
        dims: Extents; a name or None where dynamic. None where not even the rank is said.
        stored: The shape of a file that has one beside its dynamic extents.
    """

    dims: tuple[int | str | None, ...] | None
    stored: tuple[int, ...] | None = None


def declared_inputs(model: Model) -> dict[str, Declared]:
    """The shape of every input that is no constant, in order, as the model says it."""
    if not isinstance(model, onnx.ModelProto) and is_tflite(model):
        found = load_model(model)
        tensors = [found.tensors[i] for i in found.inputs]
        signatures = [(t.name, t.signature or t.shape, t.shape) for t in tensors]
        return {
            name: Declared(
                tuple(None if i < len(s) and s[i] == -1 else n for i, n in enumerate(shape)),
                tuple(shape),
            )
            for name, s, shape in signatures
        }
    graph = load_proto(model)[0].graph
    constant = {t.name for t in graph.initializer}
    return {i.name: _declared(i) for i in graph.input if i.name not in constant}


def _declared(i: onnx.ValueInfoProto) -> Declared:
    if not i.type.tensor_type.HasField("shape"):
        return Declared(None)
    return Declared(tuple(declared(d) for d in i.type.tensor_type.shape.dim))


def supported(model: Model) -> tuple[str, ...]:
    """Operators of the format of a model that can be decoded."""
    return (*TFLITE, *OWN) if is_tflite(model) else SUPPORTED


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model file says of itself.

    Attributes:
        name: Of its graph.
        opset: ONNX opset, 0 for another format.
        sha256: Over the file and its external data.
        bytes: Of the file.
    """

    name: str
    opset: int
    sha256: str
    bytes: int


def facts(model: Model) -> Facts:
    """Name, opset, digest and size of a model.

    Raises:
        BadInput: The file cannot be read.
        BadModel: It is malformed.
    """
    if not isinstance(model, onnx.ModelProto) and is_tflite(model):
        data = Path(model).read_bytes()
        return Facts(load_model(model).name, 0, hashlib.sha256(data).hexdigest(), len(data))
    proto, folder = load_proto(model)
    if isinstance(model, onnx.ModelProto):
        data = model.SerializeToString(deterministic=True)
    else:
        data = Path(model).read_bytes()
    digest = hashlib.sha256(data)
    places = {
        i.value for t in proto.graph.initializer for i in t.external_data if i.key == "location"
    }
    for location in sorted(places):
        assert folder is not None, location  # import refuses external data without a folder
        digest.update((folder / location).read_bytes())
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    return Facts(proto.graph.name, opset, digest.hexdigest(), len(data))


def operators(model: Model) -> frozenset[str]:
    """The kinds of operators of an ONNX model, not those of subgraphs; of other files none."""
    if not isinstance(model, onnx.ModelProto) and is_tflite(model):
        return frozenset()
    return frozenset(n.op_type for n in load_proto(model)[0].graph.node)


def as_onnx(
    model: Model, shapes: Shapes, constants: Mapping[str, Any], states: Mapping[str, str]
) -> tuple[Model, dict[str, str], dict[str, Array]]:
    """The model for an ONNX runtime, which output is the next value of which input, and what
    fixed inputs are to be fed.

    What is no ONNX file is exported from its Graph as imported, before any pass.
    """
    if isinstance(model, onnx.ModelProto) or not is_tflite(model):
        types = freeze(load_proto(model)[0], with_own_shapes(shapes, constants))[0]
        given = {n: fixed(constants[n], n, t) for n, t in types if n in constants}
        return model, dict(states), given
    graph = import_tflite(model, shapes, constants=constants, states=states).graph
    return to_onnx(graph), {s.input: s.output for s in graph.states}, {}
