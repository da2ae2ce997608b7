"""Writes docs/operators.md from the decoder table.

python tools/operators.py > docs/operators.md
"""

from __future__ import annotations

import importlib
import pkgutil

import sparrow.importers.onnx.decode as families


def page() -> str:
    """The page as Markdown."""
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
    count = sum(len(names) for names in supported.values())
    lines = [
        "# Operators",
        "",
        f"Sparrow decodes {count} ONNX operators, in every version from opset 7 to the newest that",
        "the `onnx` package knows. `sparrow check MODEL` says for each node what becomes of it.",
        "This page is written by `tools/operators.py`.",
        "",
        "| family | operators |",
        "|---|---|",
    ]
    for title, names in sorted(supported.items()):
        lines.append(f"| {title} | {', '.join(names)} |")
    lines += [
        "",
        "Refused by name, each with a reason and what to do instead:",
        "",
        ", ".join(refused),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
