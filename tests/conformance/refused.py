"""ONNX node tests that the importer refuses, by reason; every one must raise a SparrowError."""

from __future__ import annotations

REFUSED: dict[str, tuple[str, ...]] = {}
