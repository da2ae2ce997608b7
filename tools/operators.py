"""Writes docs/operators.md from the decoder table.

python tools/operators.py > docs/operators.md
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import sparrow.importers.onnx.decode as onnx_families
import sparrow.importers.tflite.decode as tflite_families
from sparrow.importers.tflite import control


def tables(families: ModuleType) -> tuple[dict[str, list[str]], list[str]]:
    """(operators by family, operators refused by name) of the decoders of one format."""
    supported: dict[str, list[str]] = {}
    refused: list[str] = []
    for info in pkgutil.iter_modules(families.__path__):
        module = importlib.import_module(f"{families.__name__}.{info.name}")
        if not module.__doc__ or not hasattr(module, "DECODERS"):
            continue
        if info.name == "refused":
            refused = sorted(module.DECODERS)
        else:
            supported[module.__doc__.splitlines()[0].rstrip(".")] = sorted(module.DECODERS)
    return supported, refused


def rows(supported: dict[str, list[str]]) -> list[str]:
    """A table of families."""
    head = ["| family | operators |", "|---|---|"]
    return head + [
        f"| {title} | {', '.join(names)} |" for title, names in sorted(supported.items())
    ]


def page() -> str:
    """The page as Markdown."""
    supported, refused = tables(onnx_families)
    tflite, _ = tables(tflite_families)
    assert control.__doc__
    tflite[control.__doc__.splitlines()[0].rstrip(".")] = sorted(control.OWN)
    count = sum(len(names) for names in supported.values())
    lines = [
        "# Operators",
        "",
        f"Sparrow decodes {count} ONNX operators, in every version from opset 6 to the newest that",
        "the `onnx` package knows. `sparrow check MODEL` says for each node what becomes of it.",
        "This page is written by `tools/operators.py`.",
        "",
        *rows(supported),
        "",
        "Refused by name, each with a reason and what to do instead:",
        "",
        ", ".join(refused),
        "",
        "## TFLite",
        "",
        f"{sum(map(len, tflite.values()))} operators of `.tflite` files, over float32, and",
        "over int8, uint8 and int16 codes where LiteRT has them so.",
        "",
        *rows(tflite),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
