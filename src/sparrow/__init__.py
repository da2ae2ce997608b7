"""Sparrow: a trained network in, one small, fast, proved artifact out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sparrow.api import (
        Budget,
        Bundle,
        Check,
        Pixels,
        Recipe,
        build,
        check,
        emit_sources,
        fits,
        load_bundle,
        quantize,
    )
    from sparrow.errors import SparrowError
    from sparrow.gemm import GemmS8, gemm_s8, pack_a_s8, pack_b_s8

# The compiler pulls in onnx and scipy; importing it on first use keeps `import sparrow` fast.
_LAZY = {
    "Budget": "sparrow.api",
    "Bundle": "sparrow.api",
    "Check": "sparrow.api",
    "GemmS8": "sparrow.gemm",
    "Pixels": "sparrow.samples",
    "Recipe": "sparrow.quant.recipe",
    "SparrowError": "sparrow.errors",
    "build": "sparrow.api",
    "check": "sparrow.api",
    "emit_sources": "sparrow.api",
    "fits": "sparrow.api",
    "gemm_s8": "sparrow.gemm",
    "load_bundle": "sparrow.api",
    "pack_a_s8": "sparrow.gemm",
    "pack_b_s8": "sparrow.gemm",
    "quantize": "sparrow.api",
}

__all__ = [
    "Budget",
    "Bundle",
    "Check",
    "GemmS8",
    "Pixels",
    "Recipe",
    "SparrowError",
    "__version__",
    "build",
    "check",
    "emit_sources",
    "fits",
    "gemm_s8",
    "load_bundle",
    "pack_a_s8",
    "pack_b_s8",
    "quantize",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sparrow' has no attribute {name!r}")
