"""A bundle as a library of other people's build systems: one file tree per kind.

Each tree for a microcontroller is self-contained: sources, header, weights, a self-test that runs
the first golden call on the device and compares its outputs, and a server for a serial line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sparrow.errors import BadBundle, BadInput
from sparrow.evidence.plan_record import PlanRecord
from sparrow.evidence.receipt import ReceiptRecord
from sparrow.evidence.record import load
from sparrow.folder import load_evidence, machine_of
from sparrow.packaging.android import android
from sparrow.packaging.arduino import arduino
from sparrow.packaging.cmake import cmake, esp_idf, zephyr
from sparrow.packaging.library import library
from sparrow.packaging.naming import MODEL, Name
from sparrow.packaging.platformio import platformio
from sparrow.packaging.selftest import selftest
from sparrow.packaging.serving import serving
from sparrow.packaging.sources import Sources
from sparrow.packaging.stm32cube import stm32cube
from sparrow.publish import publish

# For microcontrollers, from sources. For systems that load libraries there is ``library``;
# ``android`` takes the bundle of any target.
FIRMWARE: Mapping[str, Callable[[Sources], dict[str, str]]] = {
    "arduino": arduino,
    "cmake": cmake,
    "esp-idf": esp_idf,
    "platformio": platformio,
    "stm32cube": stm32cube,
    "zephyr": zephyr,
}
KINDS = (*FIRMWARE, "library", "android")


def firmware_tree(folder: Path, kind: str, name: Name = MODEL) -> dict[str, str]:
    """Text of every file of a package for a microcontroller, by its path.

    Args:
        folder: A bundle for one.
        kind: One of `FIRMWARE`.
        name: The package's.

    Raises:
        BadInput: There is no such kind, or the bundle is not for a microcontroller.
        BadBundle: It is no bundle.
    """
    if kind not in FIRMWARE:
        raise BadInput(f"package kind {kind!r}", hint=f"use one of {', '.join(KINDS)}")
    receipt = load(ReceiptRecord, folder / "receipt.json")
    plan = load(PlanRecord, folder / "plan.json")
    if not machine_of(plan).bare:
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
    files |= serving(plan)
    return FIRMWARE[kind](Sources(name.sources(files), receipt.name, plan.target.cpu, name))


def package(folder: Path, kind: str, out: Path, name: str = "model") -> None:
    """Write a package of a bundle.

    Args:
        folder: The bundle.
        kind: One of `KINDS`.
        out: Folder to write.
        name: What functions, macros, files and libraries are named by, so that one program may
            have several models.

    Raises:
        BadInput: There is no such kind, it is not for the bundle's target, the name is none, or
            ``out`` is not empty or cannot be written.
        BadBundle: It is no bundle.
    """
    named = Name(name)
    plan = load(PlanRecord, folder / "plan.json")
    if kind == "android":
        publish(android(folder, plan, named), out)
        return
    if kind != "library":
        publish({k: v.encode() for k, v in firmware_tree(folder, kind, named).items()}, out)
        return
    machine = machine_of(plan)
    if machine.bare or machine.arch == "wasm32":
        raise BadInput(
            f"{folder} is built for {machine.triple}, which loads no libraries",
            hint=f"use one of {', '.join(FIRMWARE)}" if machine.bare else "",
        )
    publish(library(folder, plan, named), out)
    for program in out.glob("bin/*"):
        program.chmod(0o755)


__all__ = ["FIRMWARE", "KINDS", "firmware_tree", "package"]
