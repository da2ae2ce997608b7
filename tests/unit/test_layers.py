"""Imports point one way, down the order of the architecture; the core never names torch."""

from __future__ import annotations

import ast
from pathlib import Path

import sparrow

ROOT = Path(sparrow.__file__).parent

# The order of docs/architecture.md. A name is a module, or a package with all it holds.
ORDER = [
    *(
        "errors",
        "tensor",
        "lane",
        "graph",
        "folding",
        "export",
        "ops",
        "reference",
        "text",
        "parse",
        "portable",
    ),
    *("builder", "importers", "rewrite", "vectors", "passes", "quant", "targets", "kernels"),
    *("selection", "bfloat16", "views", "partition"),
    *(
        "arena",
        "plan",
        "audit",
        "emit",
        "compiler",
        "device",
        "gemm",
        "measure",
        "remembered",
        "npz",
        "samples",
        "request",
    ),
    *(
        "lossy",
        "golden",
        "tolerances",
        "receipt",
        "describe",
        "oracle",
        "blame",
        "bundle",
        "proof",
        "twin",
        "profiling",
        "instructions",
        "page",
        "fitting",
        "sameness",
    ),
    *(
        "pareto",
        "report",
        "publish",
        "packaging",
        "accuracy",
        "precision",
        "race",
        "certify",
        "assemble",
        "checker",
        "diff",
        "reduce",
        "doctor",
        "api",
        "arguments",
        "cli",
    ),
]


def modules() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in ROOT.rglob("*.py"):
        top = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if top not in ("__init__", "__main__"):
            found.setdefault(top, []).append(path)
    return found


def imports(path: Path) -> set[str]:
    """Parts of Sparrow that a file imports when loaded; imports inside functions are calls."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for n in tree.body:
        if isinstance(n, ast.ImportFrom) and n.module and n.module.split(".")[0] == "sparrow":
            parts = n.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {a.name for a in n.names}
    return found


def test_every_module_has_a_place() -> None:
    assert set(modules()) == set(ORDER)


def test_imports_point_one_way() -> None:
    rank = {name: i for i, name in enumerate(ORDER)}
    upward = [
        f"{path.relative_to(ROOT)} imports {other}"
        for name, paths in modules().items()
        for path in paths
        for other in imports(path)
        if other in rank and rank[other] > rank[name]
    ]
    assert not upward


def test_the_core_never_names_torch() -> None:
    for paths in modules().values():
        for path in paths:
            for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in n.names] if isinstance(n, ast.Import) else []
                names += [n.module or ""] if isinstance(n, ast.ImportFrom) else []
                assert not any(x.split(".")[0] == "torch" for x in names), path
