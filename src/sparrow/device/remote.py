"""A model library in another process or machine, spoken to over a byte stream.

The client of runtime/serve.h and web/runner.mjs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparrow.device.abi import ABI_VERSION, DTYPES, FLAG_HOOKS, EntryInfo, ModelInfo, TensorInfo
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
from sparrow.device.wire import Pipes, Wire, ended
from sparrow.errors import BadBundle, BadInput, SparrowError
from sparrow.tensor import Array

INFO, WEIGHTS, RESET, STATE, RUN, TIME, CALLS = range(1, 8)
TAPS, REVERSED, MARKS, STACK = 1, 2, 4, 8
# Events of a run.
END, TAP, DEPTH = range(3)


class RemoteLibrary:
    """A model library that a runner loads, in a process per session.

    Args:
        path: The library file.
        command: What starts a runner with it.
        timed: The runner tells the time, which means something where it runs.
        mark: Address of the function that a counter of instructions watches; 0 where marks are
            system calls.
        failure: What to raise when the runner ends too early; see `Pipes`.

    Attributes:
        path: The library file.
        timed: See above.
        mark: See above.
        info: What `model_info` said.

    Raises:
        BadBundle: The runner cannot load the file, or it is of another ABI version.
    """

    split = "tasks in reverse order"

    def __init__(
        self,
        path: Path,
        command: Sequence[str],
        timed: bool = False,
        mark: int = 0,
        failure: Callable[[int, str], SparrowError] | None = None,
    ) -> None:
        self.path = path
        self.timed = timed
        self.mark = mark
        self.command = tuple(command)
        self.failure = failure or ended(str(path))
        wire = self.connect()
        self.info = _read_info(wire, path)
        wire.close()

    def connect(self, before: Sequence[str] = ()) -> Wire:
        """Start a runner with this library; ``before`` goes in front of its command's program."""
        return Pipes([self.command[0], *before, *self.command[1:]], self.failure)

    def untimed(self) -> BadInput:
        """The error for asking the time where `timed` is false."""
        return BadInput(
            f"{self.path}: time in an emulator says nothing of the device",
            hint="count its instructions instead: sparrow profile --device qemu",
        )

    def open(self, weights: Array | None, threads: int = 1) -> RemoteSession:
        """Start an instance; more than one thread stands for another order of tasks."""
        return RemoteSession(self, weights, reverse=threads > 1)


@dataclass(frozen=True, slots=True)
class _Done:
    """What one call answered."""

    outputs: list[Array]
    taps: list[Tap]
    stack_bytes: int


class RemoteSession:
    """One instance of a model in a runner process. Calls from several threads take turns.

    Args:
        library: The model.
        weights: The blob, uint8, at least ``info.weights_bytes`` long.
        reverse: Run the tasks of each step last to first.
        wire: A runner that has been started already.

    Raises:
        BadInput: Weights are missing or too short.
    """

    def __init__(
        self,
        library: RemoteLibrary,
        weights: Array | None,
        reverse: bool = False,
        wire: Wire | None = None,
    ) -> None:
        linked = library.info.linked_weights
        need = 0 if linked else library.info.weights_bytes
        if need and (weights is None or weights.nbytes < need):
            got = "none" if weights is None else f"{weights.nbytes}"
            raise BadInput(f"model {library.info.name!r} needs {need} bytes of weights, got {got}")
        self.library = library
        self._flags = REVERSED if reverse else 0
        self._lock = threading.RLock()
        self._wire = wire or library.connect()
        if not linked:
            blob = weights[:need] if weights is not None else np.zeros(0, np.uint8)
            self._wire.send(WEIGHTS, data=[np.ascontiguousarray(blob).data])
        self.reset()

    def run(
        self, entry: int, inputs: Sequence[Array], out: Sequence[Array] | None = None
    ) -> list[Array]:
        """See `ModelSession.run`."""
        return self._call(entry, inputs, out, 0).outputs

    def tap(self, entry: int, inputs: Sequence[Array]) -> tuple[list[Array], list[Tap]]:
        """See `ModelSession.tap`."""
        check_hooks(self.library.info, str(self.library.path))
        done = self._call(entry, inputs, None, TAPS)
        return done.outputs, done.taps

    def mark(self, entry: int, inputs: Sequence[Array]) -> None:
        """Run one inference with a mark before and after every step."""
        check_hooks(self.library.info, str(self.library.path))
        self._call(entry, inputs, None, MARKS)

    def stack_bytes(self, entry: int, inputs: Sequence[Array]) -> int:
        """Bytes of stack that one inference overwrote; 0 where the runner does not look."""
        return self._call(entry, inputs, None, STACK).stack_bytes

    def time_calls(self, entry: int, inputs: Sequence[Array], runs: int) -> NDArray[np.int64]:
        """Time ``runs`` whole inferences where they run; returns ns of shape (runs,).

        Raises:
            BadInput: Time where it runs says nothing of the device.
        """
        self._check_timed()
        info = self._checked(entry, inputs)
        found = np.zeros(runs, np.int64)
        with self._lock:
            data = [np.ascontiguousarray(x).tobytes() for x in inputs]
            self._wire.send(CALLS, entry, runs, data=data)
            for i in range(runs):
                check_status(self._wire.number(), info.name)
                found[i] = self._wire.number()
        return found

    def profile(self, entry: int, inputs: Sequence[Array], runs: int = 1) -> NDArray[np.int64]:
        """Time every step of ``runs`` inferences; returns ns of shape (runs, n_steps).

        Raises:
            BadInput: The library has no hooks, or time where it runs says nothing of the device.
        """
        check_hooks(self.library.info, str(self.library.path))
        self._check_timed()
        info = self._checked(entry, inputs)
        stamps = np.zeros((runs, info.n_steps, 2), np.int64)
        with self._lock:
            data = [np.ascontiguousarray(x).tobytes() for x in inputs]
            self._wire.send(TIME, entry, runs, data=data)
            for row in stamps:
                check_status(self._wire.number(), info.name)
                row[...] = np.frombuffer(self._wire.read(row.nbytes), np.int64).reshape(row.shape)
        return stamps[:, :, 1] - stamps[:, :, 0]

    def reset(self) -> None:
        """Put the state back to its initial values."""
        with self._lock:
            self._wire.send(RESET)
            status = self._wire.number()
        check_status(status, "reset")

    def state(self) -> dict[str, Array]:
        """Return a copy of every state tensor by name."""
        with self._lock:
            self._wire.send(STATE)
            block = self._wire.read(self.library.info.state_bytes)
        return split_state(self.library.info, np.frombuffer(block, np.uint8))

    def close(self) -> None:
        """End the process."""
        self._wire.close()

    def _call(
        self, entry: int, inputs: Sequence[Array], out: Sequence[Array] | None, flags: int
    ) -> _Done:
        info = self._checked(entry, inputs)
        if out is not None:
            check_outputs(info, out)
        outputs = (
            list(out) if out is not None else [np.empty(t.shape, t.numpy) for t in info.outputs]
        )
        taps: list[Tap] = []
        depth = 0
        wire = self._wire
        with self._lock:
            data = [np.ascontiguousarray(x).tobytes() for x in inputs]
            wire.send(RUN, entry, self._flags | flags, data=data)
            while (event := wire.number()) != END:
                if event == DEPTH:
                    depth = wire.number()
                    continue
                step, output, size = wire.number(), wire.number(), wire.number()
                taps.append(Tap(step, output, wire.read(size)))
            status = wire.number()
            check_status(status, info.name)
            for y in outputs:
                y[...] = np.frombuffer(wire.read(y.nbytes), y.dtype).reshape(y.shape)
        return _Done(trim(info, outputs), taps, depth)

    def _check_timed(self) -> None:
        if not self.library.timed:
            raise self.library.untimed()

    def _checked(self, entry: int, inputs: Sequence[Array]) -> EntryInfo:
        info = entry_of(self.library.info, entry, inputs)
        for tensor, x in zip(info.inputs, inputs, strict=True):
            if x.dtype != tensor.numpy or x.shape != tensor.shape:
                raise mismatch("input", tensor, x)
        return info


def _read_info(wire: Wire, path: Path) -> ModelInfo:
    wire.send(INFO)
    version = wire.number()
    if version != ABI_VERSION:
        raise BadBundle(
            f"{path} has ABI version {version}, this Sparrow has {ABI_VERSION}",
            hint="build the model again",
        )
    name, isa = wire.text(), wire.text()
    flags, linked, weights, workspace, state = (wire.number() for _ in range(5))
    weights_align, workspace_align, state_align = (wire.number() for _ in range(3))
    return ModelInfo(
        name=name,
        isa=isa,
        hooks=bool(flags & FLAG_HOOKS),
        entries=tuple(_read_entry(wire) for _ in range(wire.number())),
        states=tuple(_read_tensor(wire) for _ in range(wire.number())),
        weights_bytes=weights,
        workspace_bytes=workspace,
        state_bytes=state,
        weights_align=weights_align,
        workspace_align=workspace_align,
        state_align=state_align,
        linked_weights=linked,
    )


def _read_entry(wire: Wire) -> EntryInfo:
    name = wire.text()
    inputs = tuple(_read_tensor(wire) for _ in range(wire.number()))
    outputs = tuple(_read_tensor(wire) for _ in range(wire.number()))
    n_steps, named = wire.number(), wire.number()
    steps = tuple(wire.text() for _ in range(n_steps if named else 0))
    return EntryInfo(name, inputs, outputs, n_steps, steps)


def _read_tensor(wire: Wire) -> TensorInfo:
    name = wire.text()
    dtype = DTYPES[wire.number() - 1]
    shape = tuple(wire.number() for _ in range(wire.number()))
    size, offset, axis, block, count_of, count_axis = (wire.number() for _ in range(6))
    n = wire.number()
    scales = tuple(np.frombuffer(wire.read(4 * n), np.float32).tolist())
    zeros = tuple(wire.number() for _ in range(n))
    return TensorInfo(
        *(name, dtype, shape, size, offset, scales, zeros, axis, block, count_of, count_axis)
    )
