"""A bundle as a library of other people's build systems: one file tree per kind.

Each tree is self-contained: sources, header, weights and a self-test that runs the first golden
call on the device and compares its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sparrow.bundle import load_evidence
from sparrow.errors import BadBundle, BadInput
from sparrow.packaging.arduino import arduino
from sparrow.packaging.cmake import cmake, esp_idf, zephyr
from sparrow.packaging.platformio import platformio
from sparrow.packaging.selftest import selftest
from sparrow.packaging.sources import Sources
from sparrow.packaging.stm32cube import stm32cube
from sparrow.publish import publish
from sparrow.receipt import PlanRecord, ReceiptRecord, load

KINDS: Mapping[str, Callable[[Sources], dict[str, str]]] = {
    "arduino": arduino,
    "cmake": cmake,
    "esp-idf": esp_idf,
    "platformio": platformio,
    "stm32cube": stm32cube,
    "zephyr": zephyr,
}


def package_tree(folder: Path, kind: str) -> dict[str, str]:
    """Text of every file of a package, by its path.

    Args:
        folder: A bundle for a microcontroller.
        kind: One of `KINDS`.

    Raises:
        BadInput: There is no such kind, or the bundle is not for a microcontroller.
        BadBundle: It is no bundle.
    """
    if kind not in KINDS:
        raise BadInput(f"package kind {kind!r}", hint=f"use one of {', '.join(KINDS)}")
    receipt = load(ReceiptRecord, folder / "receipt.json")
    plan = load(PlanRecord, folder / "plan.json")
    if "freestanding" not in plan.target.triple or "model.a" not in receipt.files:
        raise BadInput(
            f"{folder} is built for {receipt.target}, which is no microcontroller",
            hint="build with a target such as cortex_m4f; `sparrow targets` lists them",
        )
    try:
        files = {
            name: (folder / name).read_text(encoding="utf-8")
            for name in ("model.c", "model.h", "sparrow.h", "weights.c")
            if (folder / name).exists()
        }
    except (OSError, UnicodeDecodeError) as e:
        raise BadBundle(f"{folder}: sources cannot be read: {e}") from None
    graphs, golden = load_evidence(folder, plan)
    files["selftest.c"] = selftest(graphs[0], golden.calls[0])
    return KINDS[kind](Sources(files, receipt.name, plan.target.cpu))


def package(folder: Path, kind: str, out: Path) -> None:
    """Write a package of a bundle; arguments as for `package_tree`.

    Raises:
        BadInput: ``out`` exists and is not empty, or cannot be written.
    """
    publish({k: v.encode() for k, v in package_tree(folder, kind).items()}, out)


__all__ = ["KINDS", "package", "package_tree"]
