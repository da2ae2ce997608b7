"""ONNX files -> Graph."""

from __future__ import annotations

from sparrow.importers.imported import Imported
from sparrow.importers.onnx.decode import DECODERS
from sparrow.importers.onnx.read import import_onnx, load_proto

__all__ = ["DECODERS", "Imported", "import_onnx", "load_proto"]
