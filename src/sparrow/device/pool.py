"""The native runtime in this process: thread pools, and what times the steps of a model."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref

from sparrow.device.build import NATIVE, Toolchain, Unit
from sparrow.device.here import host_machine, host_toolchain
from sparrow.errors import BadInput


class Pool:
    """A native thread pool; any number of sessions may share it.

    Attributes:
        threads: Participants, the calling thread included; at most what was asked for.

    Raises:
        BadInput: ``threads`` is less than 1.
        CompileError: The runtime could not be compiled.
    """

    def __init__(self, threads: int, toolchain: Toolchain | None = None) -> None:
        if threads < 1:
            raise BadInput(f"threads must be at least 1, got {threads}")
        runtime = runtime_library(toolchain)
        runtime.sparrow_pool_create.restype = ctypes.c_void_p
        handle: int | None = runtime.sparrow_pool_create(ctypes.c_int(threads))
        if handle is None:
            raise MemoryError("sparrow_pool_create")
        self.handle = handle
        self.threads: int = runtime.sparrow_pool_threads(ctypes.c_void_p(handle))
        self.parallel_for = function_address(runtime.sparrow_pool_parallel_for)
        # Not at exit: a thread may still be inside a model then, and the system ends the workers.
        weakref.finalize(self, _destroy_pool, runtime, handle, os.getpid()).atexit = False


@functools.cache
def shared_pool(threads: int) -> Pool:
    """Return the process's pool of this many threads."""
    return Pool(threads)


@functools.cache
def runtime_library(toolchain: Toolchain | None) -> ctypes.CDLL:
    """Return native/runtime as a library, compiled for the baseline CPU of this machine."""
    toolchain = toolchain or host_toolchain()
    target = host_machine("scalar")
    files = [NATIVE / "runtime" / name for name in ("pool.c", "profile.c")]
    sources = [Unit.from_file(path) for path in files]
    objects = toolchain.compile_objects(sources, target, ("-std=c99",))
    system = {"windows": ("-lkernel32",), "macos": ("-lSystem",)}.get(target.os, ())
    return ctypes.CDLL(str(toolchain.link_shared(objects, target, flags=system)))


def function_address(function: object) -> int:
    """Where a function of a library, or one made for native code to call, lies."""
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address


def _destroy_pool(runtime: ctypes.CDLL, handle: int, owner: int) -> None:
    # A forked child has the pool's memory but none of its threads: there is nothing to join.
    if os.getpid() == owner:
        runtime.sparrow_pool_destroy(ctypes.c_void_p(handle))
