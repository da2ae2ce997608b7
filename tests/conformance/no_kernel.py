"""ONNX node tests that import but have no native kernel, by reason; planning refuses them."""

from __future__ import annotations

NO_KERNEL: dict[str, tuple[str, ...]] = {
    "attention is computed in float32": ("test_flexattention_double*",),
}
