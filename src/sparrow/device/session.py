"""What every place that runs a model offers, and the checks they share.

A `ModelLibrary` is a built model somewhere: in this process, in an emulator. It opens sessions; a
`ModelSession` is one instance with a workspace and state of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sparrow.device.abi import STATUSES, EntryInfo, ModelInfo, TensorInfo
from sparrow.errors import BadInput
from sparrow.tensor import BF16, Array, DType


@dataclass(frozen=True, slots=True)
class Tap:
    """What one step wrote: output number ``output`` of step ``step``, as raw bytes."""

    step: int
    output: int
    data: bytes


class ModelLibrary(Protocol):
    """A model library on some device.

    Attributes:
        split: How a session of more than one thread runs the tasks of a step, in words.
    """

    split: str

    @property
    def info(self) -> ModelInfo:
        """What the library says of itself."""

    def open(self, weights: Array | None, threads: int = 1) -> ModelSession:
        """A new instance over a weight blob (uint8)."""


class ModelSession(Protocol):
    """One instance of a model."""

    @property
    def library(self) -> ModelLibrary:
        """Whose instance it is."""

    def run(
        self, entry: int, inputs: Sequence[Array], out: Sequence[Array] | None = None
    ) -> list[Array]:
        """Run one inference.

        Args:
            entry: Index into ``library.info.entries``.
            inputs: One array per input, of its exact shape and dtype (`TensorInfo.numpy`).
            out: C-contiguous arrays to write to, one per output; None allocates new ones.

        Returns:
            The outputs; one of data-dependent length is a view of its valid part.

        Raises:
            BadInput: Wrong entry, count, shape or dtype, or an input value that the model rejects.
        """

    def reset(self) -> None:
        """Put the state back to its initial values."""

    def state(self) -> dict[str, Array]:
        """Return a copy of every state tensor by name."""

    def tap(self, entry: int, inputs: Sequence[Array]) -> tuple[list[Array], list[Tap]]:
        """Run one inference and return its outputs and what every step wrote, in order.

        Raises:
            BadInput: The library was built without ``-DSPARROW_HOOKS``.
        """


def entry_of(info: ModelInfo, entry: int, inputs: Sequence[Array]) -> EntryInfo:
    """The entry point of an index, after checking the number of inputs.

    Raises:
        BadInput: There is no such entry point, or it has another number of inputs.
    """
    if not 0 <= entry < len(info.entries):
        raise BadInput(f"entry point {entry}, the model has {len(info.entries)}")
    found = info.entries[entry]
    if len(inputs) != len(found.inputs):
        raise BadInput(f"{len(inputs)} inputs, entry {found.name!r} has {len(found.inputs)}")
    return found


def mismatch(kind: str, tensor: TensorInfo, array: Array) -> BadInput:
    """The error for an array that is not what a tensor takes."""
    return BadInput(
        f"{kind} {tensor.name!r}: expected {tensor.numpy} of shape {tensor.shape}, "
        f"got {array.dtype} of shape {array.shape}"
    )


def check_outputs(info: EntryInfo, outputs: Sequence[Array]) -> None:
    """Check arrays that outputs are to be written to.

    Raises:
        BadInput: Another number, shape or dtype, or not C-contiguous and writeable.
    """
    if len(outputs) != len(info.outputs):
        raise BadInput(f"{len(outputs)} output arrays, entry {info.name!r} has {len(info.outputs)}")
    for tensor, y in zip(info.outputs, outputs, strict=True):
        if y.dtype != tensor.numpy or y.shape != tensor.shape:
            raise mismatch("output", tensor, y)
        if not y.flags.carray:
            raise BadInput(f"output {tensor.name!r}: the array is not C-contiguous and writeable")


def check_status(status: int, where: str) -> None:
    """Raise what a sparrow_status other than SPARROW_OK says.

    Raises:
        BadInput: The status is not SPARROW_OK.
    """
    if status:
        known = 0 < status < len(STATUSES)
        raise BadInput(f"{where}: {STATUSES[status] if known else f'status {status}'}")


def check_hooks(info: ModelInfo, where: str) -> None:
    """Check that a library calls tap and profile.

    Raises:
        BadInput: It was built without ``-DSPARROW_HOOKS``.
    """
    if not info.hooks:
        raise BadInput(
            f"{where} has no tap and profile hooks", hint="build it with -DSPARROW_HOOKS"
        )


def trim(info: EntryInfo, outputs: Sequence[Array]) -> list[Array]:
    """Outputs with those of data-dependent length cut to their valid part."""
    trimmed = []
    for tensor, y in zip(info.outputs, outputs, strict=True):
        if tensor.count_of >= 0:
            count = int(outputs[tensor.count_of][()])
            assert 0 <= count <= tensor.shape[tensor.count_axis], (tensor.name, count)
            axis = tensor.count_axis
            shape = (*tensor.shape[:axis], count, *tensor.shape[axis + 1 :])
            y = y.reshape(-1)[: math.prod(shape)].reshape(shape)
        trimmed.append(y)
    return trimmed


def split_state(info: ModelInfo, block: Array) -> dict[str, Array]:
    """The state tensors in a copy of the state block, by name."""
    return {
        t.name: np.array(block[t.offset : t.offset + t.bytes]).view(t.numpy).reshape(t.shape)
        for t in info.states
    }


def to_native(x: Array, dtype: DType) -> Array:
    """A value as the library takes it: bfloat16 as its upper half."""
    if dtype == BF16:
        return (np.asarray(x, np.float32, order="C").view(np.uint32) >> 16).astype(np.uint16)
    return x


def from_native(x: Array, dtype: DType) -> Array:
    """A value as the library gives it, in its storage type."""
    if dtype == BF16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x
