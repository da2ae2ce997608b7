"""The C ABI of native/sparrow.h in Python: struct layouts, and what a library says of itself."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparrow.tensor import BY_NAME, DType

ABI_VERSION = 1
FLAG_HOOKS = 1

# sparrow_dtype, in the order of its values from 1.
DTYPES: tuple[DType, ...] = tuple(
    BY_NAME[name]
    for name in (
        *("float32", "float16", "bfloat16", "float64", "int2", "int4", "uint4", "int8", "uint8"),
        *("int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"),
    )
)

# sparrow_status, in the order of its values from 0.
STATUSES = (
    "ok",
    "there is no such entry point",
    "a needed buffer is missing",
    "a buffer is not aligned",
    "an index in an input is out of range",
    "an input value is outside what the model defines",
    "the processor, or its system, lacks what the code needs; build for another target",
)


class CTensorInfo(ctypes.Structure):
    """sparrow_tensor_info."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("scales", ctypes.POINTER(ctypes.c_float)),
        ("zero_points", ctypes.POINTER(ctypes.c_int32)),
        ("bytes", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("dtype", ctypes.c_uint32),
        ("rank", ctypes.c_int32),
        ("n_scales", ctypes.c_int32),
        ("axis", ctypes.c_int32),
        ("block", ctypes.c_int32),
        ("count_of", ctypes.c_int32),
        ("count_axis", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    )


class CEntryInfo(ctypes.Structure):
    """sparrow_entry_info."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("inputs", ctypes.POINTER(CTensorInfo)),
        ("outputs", ctypes.POINTER(CTensorInfo)),
        ("step_names", ctypes.POINTER(ctypes.c_char_p)),
        ("n_inputs", ctypes.c_int32),
        ("n_outputs", ctypes.c_int32),
        ("n_steps", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class CModelInfo(ctypes.Structure):
    """sparrow_model_info."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("isa", ctypes.c_char_p),
        ("weights", ctypes.c_void_p),
        ("entries", ctypes.POINTER(CEntryInfo)),
        ("states", ctypes.POINTER(CTensorInfo)),
        ("weights_bytes", ctypes.c_uint64),
        ("workspace_bytes", ctypes.c_uint64),
        ("state_bytes", ctypes.c_uint64),
        ("weights_align", ctypes.c_uint32),
        ("workspace_align", ctypes.c_uint32),
        ("state_align", ctypes.c_uint32),
        ("n_entries", ctypes.c_int32),
        ("n_states", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class CCall(ctypes.Structure):
    """sparrow_call."""

    _fields_ = (
        ("entry", ctypes.c_uint32),
        ("inputs", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("state", ctypes.c_void_p),
        ("parallel_for", ctypes.c_void_p),
        ("parallel_ctx", ctypes.c_void_p),
        ("tap", ctypes.c_void_p),
        ("profile", ctypes.c_void_p),
        ("hook_ctx", ctypes.c_void_p),
    )


class CProfile(ctypes.Structure):
    """sparrow_profile."""

    _fields_ = (("stamps", ctypes.c_void_p), ("n_steps", ctypes.c_int32))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input, output or state tensor of a library.

    Attributes:
        name: The model's own name.
        dtype: Element type.
        shape: Extents; the largest possible where the length is data-dependent.
        bytes: Size of the dense tensor.
        offset: Where in the state block; 0 for inputs and outputs.
        scales: Quantization scales, float32, empty when not quantized.
        zero_points: int32, as many as scales.
        axis: Axis that scales run along, -1 when there is at most one.
        block: Elements of that axis that share a scale.
        count_of: Output that holds the valid extent of axis `count_axis`; -1 when fixed.
        count_axis: See `count_of`.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    bytes: int
    offset: int
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    block: int
    count_of: int
    count_axis: int

    @property
    def numpy(self) -> np.dtype[Any]:
        """NumPy dtype of the array in `Session.run`; bfloat16 is its bits as uint16."""
        return np.dtype("uint16") if self.dtype.name == "bfloat16" else self.dtype.numpy


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """One entry point. ``steps`` is empty in a library built without hooks."""

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    n_steps: int
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a library says of itself. ``linked_weights`` is the address of a linked blob, or 0."""

    name: str
    isa: str
    hooks: bool
    entries: tuple[EntryInfo, ...]
    states: tuple[TensorInfo, ...]
    weights_bytes: int
    workspace_bytes: int
    state_bytes: int
    weights_align: int
    workspace_align: int
    state_align: int
    linked_weights: int


def parse_model_info(found: CModelInfo) -> ModelInfo:
    """Copy what `model_info` of a library returned."""
    return ModelInfo(
        name=_text(found.name),
        isa=_text(found.isa),
        hooks=bool(found.flags & FLAG_HOOKS),
        entries=tuple(_entry_info(found.entries[i]) for i in range(found.n_entries)),
        states=tuple(_tensor_info(found.states[i]) for i in range(found.n_states)),
        weights_bytes=found.weights_bytes,
        workspace_bytes=found.workspace_bytes,
        state_bytes=found.state_bytes,
        weights_align=found.weights_align,
        workspace_align=found.workspace_align,
        state_align=found.state_align,
        linked_weights=found.weights or 0,
    )


def _entry_info(found: CEntryInfo) -> EntryInfo:
    names = range(found.n_steps) if found.step_names else range(0)
    return EntryInfo(
        name=_text(found.name),
        inputs=tuple(_tensor_info(found.inputs[i]) for i in range(found.n_inputs)),
        outputs=tuple(_tensor_info(found.outputs[i]) for i in range(found.n_outputs)),
        n_steps=found.n_steps,
        steps=tuple(_text(found.step_names[i]) for i in names),
    )


def _tensor_info(found: CTensorInfo) -> TensorInfo:
    n = found.n_scales
    return TensorInfo(
        name=_text(found.name),
        dtype=DTYPES[found.dtype - 1],
        shape=tuple(found.shape[i] for i in range(found.rank)),
        bytes=found.bytes,
        offset=found.offset,
        scales=tuple(found.scales[i] for i in range(n)),
        zero_points=tuple(found.zero_points[i] if found.zero_points else 0 for i in range(n)),
        axis=found.axis,
        block=found.block,
        count_of=found.count_of,
        count_axis=found.count_axis,
    )


def _text(found: bytes | None) -> str:
    return (found or b"").decode("utf-8", "replace")
