"""TFLite files -> Graph."""

from __future__ import annotations

from sparrow.importers.tflite.decode import DECODERS
from sparrow.importers.tflite.read import import_tflite, survey_tflite

__all__ = ["DECODERS", "import_tflite", "survey_tflite"]
