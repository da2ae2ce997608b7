"""Run a built model library in this process: load, allocate, call, profile, tap."""

from __future__ import annotations

import _ctypes
import ctypes
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparrow.device.abi import (
    ABI_VERSION,
    CCall,
    CModelInfo,
    CProfile,
    EntryInfo,
    ModelInfo,
    TensorInfo,
    parse_model_info,
)
from sparrow.device.pool import Pool, function_address, runtime_library, shared_pool
from sparrow.device.session import (
    Tap,
    check_hooks,
    check_outputs,
    check_status,
    entry_of,
    mismatch,
    split_state,
    trim,
)
from sparrow.errors import BadBundle, BadInput
from sparrow.tensor import Array

ALIGNMENT = 64

# Inputs and outputs of an entry up to which to copy them is faster than to find their addresses.
STAGED_BYTES = 16_384

_TAP = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64
)

_VIEW: Callable[[Array], Any] = (ctypes.c_char * 0).from_buffer  # type: ignore[assignment]


class HostLibrary:
    """A model library in this process. Loading runs its code: load only what you would execute.

    It is unloaded when neither it nor a session of it is left.

    Attributes:
        path: The library file.
        info: Parsed `model_info`.

    Raises:
        BadBundle: The file is no library for this machine, or of another ABI version.
    """

    split = "two threads"

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            library = ctypes.CDLL(str(path.resolve()))
            model_run, model_info, model_reset = (
                library.model_run,
                library.model_info,
                library.model_reset,
            )
        except (OSError, AttributeError) as e:
            raise BadBundle(f"{path} is not a model library for this machine: {e}") from e
        model_info.restype = ctypes.POINTER(CModelInfo)
        model_run.restype = model_reset.restype = ctypes.c_int
        # No argtypes: converting a prebuilt byref through them costs more than the call.
        self._run: Callable[[object], int] = model_run
        self._reset: Callable[[object, object], int] = model_reset
        found = model_info().contents
        if found.abi_version != ABI_VERSION:
            raise BadBundle(
                f"{path} has ABI version {found.abi_version}, this Sparrow has {ABI_VERSION}",
                hint="build the model again",
            )
        self.info = parse_model_info(found)
        # Sessions hold the library. Not at exit: a thread may still be inside the model then.
        weakref.finalize(self, _unload, library._handle).atexit = False

    def open(self, weights: NDArray[np.uint8] | None, threads: int = 1) -> Session:
        """A new instance; see `Session`."""
        return Session(self, weights, threads)


class Session:
    """One instance of a model: its workspace and state, and calls prepared once.

    Calls from several Python threads take turns; sessions of one library run side by side.

    Args:
        library: The model.
        weights: The blob, uint8, at least ``info.weights_bytes`` long; used in place when aligned,
            as a memory map is, else copied once. None where the blob is linked in.
        threads: Threads per call; more than one take the process's `shared_pool`.
        pool: A pool of one's own instead.

    Raises:
        BadInput: Weights are missing or too short.
    """

    def __init__(
        self,
        library: HostLibrary,
        weights: NDArray[np.uint8] | None = None,
        threads: int = 1,
        pool: Pool | None = None,
    ) -> None:
        info = library.info
        if pool is None and threads != 1:
            pool = shared_pool(threads)
        self.library = library
        self.pool = pool
        self._lock = threading.RLock()
        self._weights, weights_at = _weights(info, weights)
        self._workspace = aligned(info.workspace_bytes, max(ALIGNMENT, info.workspace_align))
        self._state = aligned(info.state_bytes, max(ALIGNMENT, info.state_align))
        self._calls = [
            _Prepared(
                entry,
                CCall(
                    entry=i,
                    weights=weights_at,
                    workspace=self._workspace.ctypes.data,
                    state=self._state.ctypes.data,
                    parallel_for=pool.parallel_for if pool else None,
                    parallel_ctx=pool.handle if pool else None,
                ),
            )
            for i, entry in enumerate(info.entries)
        ]
        self._run = library._run
        self._weights_at = weights_at
        self.reset()

    def run(
        self, entry: int, inputs: Sequence[Array], out: Sequence[Array] | None = None
    ) -> list[Array]:
        """Run one inference.

        Args:
            entry: Index into ``library.info.entries``.
            inputs: One array per input, of its exact shape and dtype (`TensorInfo.numpy`);
                C-contiguous aligned arrays are read in place, others copied.
            out: C-contiguous arrays to write to, one per output, none overlapping another buffer;
                None allocates new ones.

        Returns:
            The outputs; one of data-dependent length is a view of its valid part.

        Raises:
            BadInput: Wrong entry, count, shape or dtype, or an input value that the model rejects.
        """
        if not 0 <= entry < len(self._calls) or len(inputs) != len(self._calls[entry].inputs):
            entry_of(self.library.info, entry, inputs)
        call = self._calls[entry]
        if out is not None:
            check_outputs(call.info, out)
        staged = call.staged and out is None
        with self._lock:
            for i, (dtype, shape) in enumerate(call.inputs):
                x = inputs[i]
                # types of one kind are mostly one object
                if (x.dtype is not dtype and x.dtype != dtype) or x.shape != shape:
                    raise mismatch("input", call.info.inputs[i], x)
                if staged:
                    call.input_stages[i][...] = x
            if staged:
                status = self._run(call.reference)
                outputs = []
                for y in call.output_stages:  # a comprehension is a call until Python 3.12
                    outputs.append(y.copy())
            else:
                outputs = call.allocate() if out is None else list(out)
                status = self._run_in_place(call, inputs, outputs)
        if status:
            check_status(status, call.info.name)
        return trim(call.info, outputs) if call.trims else outputs

    def _run_in_place(
        self, call: _Prepared, inputs: Sequence[Array], outputs: Sequence[Array]
    ) -> int:
        """A call that reads and writes the arrays themselves, where their layout lets it."""
        copies = []  # alive until the call returns
        # A quarter of the time of ndarray.ctypes or __array_interface__.
        view, address_of = _VIEW, ctypes.addressof
        try:
            slots = call.input_slots
            for i, x in enumerate(inputs):
                flags = x.flags
                if not flags.carray:
                    if flags.c_contiguous and flags.aligned:  # read-only: from_buffer refuses it
                        slots[i] = x.__array_interface__["data"][0]
                        continue
                    x = np.array(x, order="C")
                    copies.append(x)
                slots[i] = address_of(view(x))
            slots = call.output_slots
            for i, y in enumerate(outputs):
                slots[i] = address_of(view(y))
            return self._run(call.reference)
        finally:
            call.point_to_stages()

    def reset(self) -> None:
        """Put the state back to its initial values."""
        with self._lock:
            status = self.library._reset(
                ctypes.c_void_p(self._state.ctypes.data), ctypes.c_void_p(self._weights_at)
            )
        check_status(status, "reset")

    def state(self) -> dict[str, Array]:
        """Return a copy of every state tensor by name."""
        with self._lock:
            block = self._state.copy()
        return split_state(self.library.info, block)

    def profile(self, entry: int, inputs: Sequence[Array], runs: int = 1) -> NDArray[np.int64]:
        """Time every step of ``runs`` inferences; returns ns of shape (runs, n_steps).

        Raises:
            BadInput: The library was built without ``-DSPARROW_HOOKS``.
        """
        check_hooks(self.library.info, str(self.library.path))
        n_steps = self.library.info.entries[entry].n_steps
        stamps = np.zeros((runs, n_steps, 2), np.uint64)
        record = CProfile(None, n_steps)
        hook = function_address(runtime_library(None).sparrow_profile_hook)
        call = self._calls[entry].call
        with self._lock:
            call.profile, call.hook_ctx = hook, ctypes.addressof(record)
            try:
                for row in stamps:
                    record.stamps = row.ctypes.data
                    self.run(entry, inputs)
            finally:
                call.profile = call.hook_ctx = None
        return (stamps[:, :, 1] - stamps[:, :, 0]).astype(np.int64)

    def tap(self, entry: int, inputs: Sequence[Array]) -> tuple[list[Array], list[Tap]]:
        """Run one inference and return its outputs and what every step wrote, in order.

        Raises:
            BadInput: The library was built without ``-DSPARROW_HOOKS``.
        """
        check_hooks(self.library.info, str(self.library.path))
        taps: list[Tap] = []

        def hook(_ctx: object, step: int, output: int, data: int, size: int) -> None:
            taps.append(Tap(step, output, ctypes.string_at(data, size)))

        native = _TAP(hook)
        call = self._calls[entry].call
        with self._lock:
            call.tap = function_address(native)
            try:
                outputs = self.run(entry, inputs)
            finally:
                call.tap = None
        return outputs, taps


class _Prepared:
    """One entry's call, made once; a run only rewrites its pointers.

    Where all inputs and outputs are small, not even these: to copy them to and from buffers of a
    known address takes less time than to find theirs.
    """

    def __init__(self, info: EntryInfo, call: CCall) -> None:
        self.info = info
        self.call = call
        self.reference = ctypes.byref(call)
        self.input_slots = (ctypes.c_void_p * len(info.inputs))()
        self.output_slots = (ctypes.c_void_p * len(info.outputs))()
        call.inputs = ctypes.addressof(self.input_slots)
        call.outputs = ctypes.addressof(self.output_slots)
        self.inputs = [(t.numpy, t.shape) for t in info.inputs]
        self.trims = any(t.count_of >= 0 for t in info.outputs)
        self.staged = sum(t.bytes for t in (*info.inputs, *info.outputs)) <= STAGED_BYTES
        self.input_stages = [_stage(t) for t in info.inputs] if self.staged else []
        self.output_stages = [_stage(t) for t in info.outputs] if self.staged else []
        self.point_to_stages()

    def point_to_stages(self) -> None:
        """Let inputs and outputs be the buffers, where there are any."""
        for i, x in enumerate(self.input_stages):
            self.input_slots[i] = x.ctypes.data
        for i, y in enumerate(self.output_stages):
            self.output_slots[i] = y.ctypes.data

    def allocate(self) -> list[Array]:
        """New arrays for the outputs."""
        return [np.empty(t.shape, t.numpy) for t in self.info.outputs]


def _stage(tensor: TensorInfo) -> Array:
    """A buffer for a tensor, aligned as a workspace is."""
    return aligned(tensor.bytes).view(tensor.numpy).reshape(tensor.shape)


def aligned(size: int, alignment: int = ALIGNMENT) -> NDArray[np.uint8]:
    """Return an uninitialised uint8 array whose data starts at a multiple of ``alignment``."""
    block = np.empty(size + alignment, np.uint8)
    start = -block.ctypes.data % alignment
    return block[start : start + size]


def _weights(info: ModelInfo, given: NDArray[np.uint8] | None) -> tuple[Array | None, int | None]:
    """Return the array to keep alive and the address of the blob."""
    if info.weights_bytes == 0:
        return None, None
    if given is None:
        if info.linked_weights:
            return None, info.linked_weights
        raise BadInput(f"model {info.name!r} needs {info.weights_bytes} bytes of weights, got none")
    if given.dtype != np.uint8 or given.ndim != 1 or given.nbytes < info.weights_bytes:
        raise BadInput(
            f"weights of model {info.name!r}: expected uint8 of shape ({info.weights_bytes},), "
            f"got {given.dtype} of shape {given.shape}"
        )
    if given.ctypes.data % max(info.weights_align, 1) or not given.flags.c_contiguous:
        copy = aligned(given.size, max(ALIGNMENT, info.weights_align))
        copy[:] = given
        given = copy
    return given, given.ctypes.data


def _unload(handle: int) -> None:
    """What ctypes never does: a load would leave mappings, of which a process has 65,530."""
    if sys.platform == "win32":
        _ctypes.FreeLibrary(handle)
    else:
        _ctypes.dlclose(handle)
