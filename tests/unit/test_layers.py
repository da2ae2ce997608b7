"""Imports point one way, down the order of the architecture; the core never names torch."""

from __future__ import annotations

import ast
from pathlib import Path

import sparrow

ROOT = Path(sparrow.__file__).parent

# The order of docs/architecture.md. A name is a module, or a package with all it holds; a package
# whose modules stand at different places (memory, evidence, ..) is named module by module.
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
        "portable",
        "ort",
        "npz",
    ),
    *(
        "builder",
        "importers",
        "branches",
        "rewrite",
        "vectors",
        "passes",
        "quant",
        "targets",
        "kernels",
    ),
    *("tuning", "selection", "bfloat16", "memory.strides", "memory.views", "memory.partition"),
    *(
        "memory.arena",
        "memory.settled",
        "memory.blob",
        "plan",
        "planner",
        "memory.audit",
        "memory.stages",
        "schedule",
        "emit",
        "compiler",
        "device",
        "gemm",
        "timing.measure",
        "timing.remembered",
        "samples",
        "input_shapes",
        "request",
        "sources",
        "quantizing",
    ),
    *(
        "evidence.disagreement",
        "evidence.held_out",
        "evidence.golden",
        "evidence.rounding",
        "evidence.bounds",
        "evidence.tolerances",
        "evidence.record",
        "evidence.plan_record",
        "evidence.receipt",
        "evidence.measurements",
        "evidence.describe",
        "evidence.oracle",
        "folder",
        "bundle",
        "evidence.gate",
        "evidence.layers",
        "evidence.outputs",
        "evidence.proof",
        "evidence.claims",
        "evidence.recurrence",
        "evidence.twin",
        "timing.latency",
        "timing.profiling",
        "timing.stepped",
        "timing.sharing",
        "timing.tune",
        "timing.benchmark",
        "timing.instructions",
        "timing.forecast",
        "rendering.page",
        "evidence.verify",
        "fitting",
        "evidence.sameness",
    ),
    *(
        "rendering.pareto",
        "rendering.curve",
        "rendering.report",
        "publish",
        "packaging",
        "blame",
        "evidence.accuracy",
        "precision",
        "timing.race",
        "evidence.certify",
        "assemble",
        "attempts",
        "checker",
        "diff",
        "reduce",
        "doctor",
        "api",
        "offload",
        "arguments",
        "cli",
    ),
]


def part_of(dotted: str) -> str:
    """The name in ORDER that a module below `sparrow` belongs to: its own or its package's."""
    package, _, rest = dotted.partition(".")
    module = f"{package}.{rest.partition('.')[0]}"
    return module if module in ORDER else package


def modules() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__" and path.read_text(encoding="utf-8").count("\n") <= 1:
            continue  # a docstring alone
        part = part_of(".".join(parts))
        if part not in ("__init__", "__main__"):
            found.setdefault(part, []).append(path)
    return found


def imports(path: Path) -> set[str]:
    """Parts of Sparrow that a file imports when loaded; imports inside functions are calls."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for n in tree.body:
        if isinstance(n, ast.ImportFrom) and n.module and n.module.split(".")[0] == "sparrow":
            below = n.module.removeprefix("sparrow").removeprefix(".")
            found |= {part_of(f"{below}.{a.name}" if below else a.name) for a in n.names}
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
