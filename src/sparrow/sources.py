"""What a user calls a model, as the entry points that the compiler takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sparrow.compiler import Source
from sparrow.errors import BadInput
from sparrow.importers.imported import Shapes
from sparrow.importers.model import AnyModel, Model, input_names
from sparrow.importers.torch import TorchModule, export_module, is_module, parameters_of
from sparrow.input_shapes import first_sample, shapes_from_samples
from sparrow.samples import by_entry
from sparrow.tensor import Array


def sources_of(
    model: AnyModel | Mapping[str, AnyModel],
    shapes: Shapes | None = None,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
) -> dict[str, Source]:
    """Entry points of one file, proto or module, or of several by name.

    With several, a shape, state or constant is that of every entry point with an input of that
    name.

    Raises:
        BadInput: It is no model, or one of these names an input that no entry point has.
    """
    shapes, states, constants = shapes or {}, states or {}, constants or {}
    if not isinstance(model, Mapping):
        return {"main": Source(_checked(model, shapes), shapes, constants, states)}
    if not model:
        raise BadInput("no model given")
    found: dict[str, Source] = {}
    known: set[str] = set()
    for name, m in model.items():
        if not str(name) or len(str(name)) > 256:
            raise BadInput(f"entry point name {str(name)[:40]!r} is empty or too long")
        m = _checked(m, shapes)
        inputs = input_names(m)
        known |= inputs
        found[str(name)] = Source(
            m,
            {k: v for k, v in shapes.items() if k in inputs},
            {k: v for k, v in constants.items() if k in inputs},
            {k: v for k, v in states.items() if k in inputs},
        )
    unknown = [k for k in (*shapes, *states, *constants) if k not in known]
    if unknown:
        raise BadInput(
            f"shape, state or constant for {unknown[0]!r}, which is no input of any entry point",
            hint=f"inputs: {', '.join(sorted(known))}",
        )
    return found


def sources_and_samples(
    model: AnyModel | Mapping[str, AnyModel],
    shapes: Shapes | None,
    states: Mapping[str, str] | None,
    calib: Any,
    constants: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Source], Any]:
    """`sources_of`, dynamic inputs having the shape of samples, and the samples to go on with.

    Raises:
        BadInput: As `sources_of` and `shapes_from_samples`.
    """
    model, calib = _exported(model, shapes or {}, calib)
    found = sources_of(model, shapes, states, constants)
    parts = by_entry(calib, list(found))
    rest: dict[str, Any] = {}
    for name, s in found.items():
        given = calib if parts is None else parts.get(name)
        taken, given = shapes_from_samples(s.model, s.shapes, given, {*s.states, *s.constants})
        found[name] = replace(s, shapes=taken)
        if parts is None:
            calib = given
        elif name in parts:
            rest[name] = given
    return found, calib if parts is None else rest


def _exported(
    model: AnyModel | Mapping[str, AnyModel], shapes: Shapes, calib: Any
) -> tuple[AnyModel | Mapping[str, AnyModel], Any]:
    """``model`` with modules exported for what samples hold, and the samples to go on with."""
    if not isinstance(model, Mapping):
        if not is_module(model):
            return model, calib
        first, calib = first_sample(calib, parameters_of(model))
        return _export(model, shapes, first), calib
    parts = by_entry(calib, list(model))
    done: dict[str, AnyModel] = {}
    rest: dict[str, Any] = dict(parts or {})
    for name, m in model.items():
        if parts is None:
            done[name], calib = _exported(m, shapes, calib)  # type: ignore[assignment]
        else:
            done[name], rest[name] = _exported(m, shapes, parts.get(name))  # type: ignore[assignment]
    return done, calib if parts is None else rest


def _export(module: TorchModule, shapes: Shapes, first: Mapping[str, Array]) -> onnx.ModelProto:
    given = {
        name: np.zeros(shape, first[name].dtype if name in first else np.float32)
        for name, shape in shapes.items()
    }
    return export_module(module, {**first, **given})


def _checked(model: object, shapes: Shapes) -> Model:
    if is_module(model):
        return _export(model, shapes, {})
    if not isinstance(model, (str, Path, onnx.ModelProto)):
        raise BadInput(
            "a model is a path, an onnx.ModelProto or a torch.nn.Module, got "
            f"{type(model).__name__}"
        )
    return model
