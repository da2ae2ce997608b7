"""A model library written by hand, for tests of what loads and runs one."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.here import host_machine
from sparrow.device.host import HostLibrary, aligned

F32 = NDArray[np.float32]
MODEL = Path(__file__).resolve().parent / "native" / "axpy_model.c"


@functools.cache
def axpy_library(*flags: str) -> HostLibrary:
    toolchain, target = find_toolchain(), host_machine("scalar")
    source = Unit(MODEL.name, MODEL.read_text(encoding="utf-8"), (NATIVE,))
    strict = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
    objects = toolchain.compile_objects([source], target, (*strict, *flags))
    return HostLibrary(toolchain.link_shared(objects, target))


def axpy_weights(a: float) -> NDArray[np.uint8]:
    blob = aligned(64)
    blob[:] = 0
    blob.view(np.float32)[0] = a
    return blob


def random_inputs(seed: int = 0) -> tuple[F32, F32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(1024, np.float32), rng.standard_normal(1024, np.float32)
