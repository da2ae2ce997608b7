"""Reads a .tflite file: its main subgraph, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparrow.errors import UnsupportedOp
from sparrow.importers.file import read_file
from sparrow.importers.imported import Imported, Shapes, Verdict
from sparrow.importers.tflite.control import Controlled
from sparrow.importers.tflite.model import Model, Operator, read_model
from sparrow.importers.tflite.reader import quantization
from sparrow.tensor import TensorType


def load_model(path: str | Path) -> Model:
    """Parse a .tflite file.

    Raises:
        BadInput: It cannot be read.
        BadModel: It is malformed or larger than MAX_BYTES.
    """
    path = Path(path)
    return read_model(read_file(path), str(path))


class _Surveyor(Controlled):
    """Gives the outputs of a missing operator the types of the file, and goes on."""

    def __init__(self, model: Model, path: str, name: str, states: Mapping[str, str]) -> None:
        super().__init__(model, path, name, states)
        self.kept: list[str] = []

    def operator(self, k: int, op: Operator) -> None:
        try:
            super().operator(k, op)
        except UnsupportedOp as e:
            self.verdicts.append(Verdict(self.where(k, op), op.name, "missing", (), str(e)))
            self.kept += [v for i in op.inputs if (v := self.env.get(i, ""))]
            tensors = [self.model.tensors[i] for i in op.outputs]
            types = [TensorType(t.shape, t.dtype, quant=quantization(t, t.shape)) for t in tensors]
            self.define(op, [self.b.input(self.b.fresh(), t) for t in types])

    def extra_outputs(self) -> dict[str, str]:
        values = [v for v in dict.fromkeys(self.kept) if v not in self.b.consts]
        return {self.b.fresh(): v for v in values}


def _decode(
    make: type[Controlled],
    path: str | Path,
    shapes: Shapes | None,
    constants: Mapping[str, Any] | None,
    states: Mapping[str, str] | None,
    name: str,
) -> Imported:
    reader = make(load_model(path), str(path), name, states or {})
    reader.inputs(shapes or {}, constants or {})
    for k, op in enumerate(reader.model.operators):
        reader.operator(k, op)
    return reader.close()


def import_tflite(
    path: str | Path,
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
    name: str = "main",
) -> Imported:
    """Decode the main subgraph of a .tflite file into a Graph.

    Quantized tensors keep their codes: `Dequantize`, an operator over real numbers, `Quantize`. The
    variable tensors of recurrent operators become States. Extents that the file leaves open are
    those of ``shapes``, or the ones the file suggests.

    Args:
        path: The file.
        shapes: Shapes of inputs that have dynamic dimensions.
        constants: Inputs to bind to fixed values (they vanish from the Graph).
        states: Model input -> model output pairs carried from call to call.
        name: Name of the entry point.

    Raises:
        BadInput: The file or the given shapes are wrong.
        BadModel: The model is malformed.
        UnsupportedOp: An operator cannot be decoded; says which and why.
    """
    return _decode(Controlled, path, shapes, constants, states, name)


def survey_tflite(
    path: str | Path,
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
    name: str = "main",
) -> Imported:
    """`import_tflite` that does not stop at operators it cannot decode: they are ``missing``.

    Raises:
        BadInput: The file or the given shapes are wrong.
        BadModel: The model is malformed.
    """
    return _decode(_Surveyor, path, shapes, constants, states, name)
