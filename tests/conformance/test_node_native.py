"""Every ONNX node test through emitted and compiled C, many entry points per library.

A case that is refused must stand in `NO_KERNEL` or `REFUSED`; one that stands there and works
fails, so that the tables stay true.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import native_harness as harness
from conformance.no_kernel import NO_KERNEL
from conformance.old_versions import load_old_cases
from conformance.onnx_cases import Case, load_cases, load_suite, refusal
from conformance.onnx_native import run_cases
from sparrow.device.here import resolve_target
from sparrow.targets import Target
from sparrow.targets import target as target_row

Record = Callable[[str, object], None]
PER_LIBRARY = 60
CASES = tuple(sorted((c for c in load_cases() if not c.foreign), key=lambda c: c.name))
GROUPS = [CASES[i : i + PER_LIBRARY] for i in range(0, len(CASES), PER_LIBRARY)]
OLD_GROUPS = 12
SUITES = ("pytorch-converted", "pytorch-operator", "simple")


def listed(name: str) -> str:
    """The reason for which a case has no native kernel, ``""`` when it must have one."""
    for reason, patterns in NO_KERNEL.items():
        if any(fnmatchcase(name, p) for p in patterns):
            return reason
    return ""


def problems(group: tuple[Case, ...], target: Target, folder: Path, record: Record) -> str:
    """What is wrong with a group of cases, one line each."""
    lines: list[str] = []
    for o in run_cases(group, target, folder):
        reason = refusal(o.case) or listed(o.case.name)
        record("native", f"refused: {reason}" if o.kind == "refused" else o.kind)
        if o.kind == "wrong" or (o.kind == "refused" and not reason):
            lines.append(f"{o.case.name}: {o.kind}: {o.reason}")
        elif o.kind == "passed" and reason:
            lines.append(f"{o.case.name}: works, but the tables say {reason!r}")
    return "\n".join(lines)


@pytest.mark.parametrize("k", range(len(GROUPS)))
def test_group(k: int, tmp_path: Path, record_property: Record) -> None:
    found = problems(GROUPS[k], target_row("x86_64"), tmp_path, record_property)
    assert not found, found


@pytest.mark.slow
@pytest.mark.parametrize("k", range(len(GROUPS)))
def test_group_best_isa(k: int, tmp_path: Path) -> None:
    found = problems(GROUPS[k], resolve_target("host"), tmp_path, lambda key, value: None)
    assert not found, found


@pytest.mark.parametrize(
    "k", [pytest.param(k, marks=pytest.mark.slow) if k else k for k in range(len(GROUPS))]
)
def test_group_on_32_bits(k: int, tmp_path: Path) -> None:
    """Pointers and sizes of 32 bits, and other vector code, in an emulator."""
    row = target_row("armv7")
    harness.emulator(row.machine)
    found = problems(CASES[k :: len(GROUPS)], row, tmp_path, lambda key, value: None)
    assert not found, found


@pytest.mark.parametrize("kind", SUITES)
def test_suite(kind: str, tmp_path: Path, record_property: Record) -> None:
    group = tuple(c for c in load_suite(kind) if not c.foreign)
    found = problems(group, target_row("x86_64"), tmp_path, record_property)
    assert not found, found


@pytest.mark.parametrize("k", range(OLD_GROUPS))
def test_older_versions(k: int, tmp_path: Path) -> None:
    """Every operator as opsets 7 to 13 had it gives ONNX Runtime's answers."""
    group = load_old_cases()[k::OLD_GROUPS]
    assert len(group) > PER_LIBRARY
    found = problems(group, target_row("x86_64"), tmp_path, lambda key, value: None)
    assert not found, found


def test_every_row_of_the_table_is_needed() -> None:
    names = [c.name for c in CASES]
    rows = [p for patterns in NO_KERNEL.values() for p in patterns]
    assert not [p for p in rows if not any(fnmatchcase(n, p) for n in names)]
