"""The second IR: kernels, buffers and offsets, all fixed, no text. `planner.plan` makes it.

Entry points share the arena (it is as large as the largest needs), the weights (equal bytes are
stored once) and the states of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparrow.graph import Graph, Module, Node
from sparrow.kernels.case import Lowered
from sparrow.memory.views import Place
from sparrow.selection import Option
from sparrow.targets import Target
from sparrow.tensor import BF16, Array, TensorType


@dataclass(frozen=True, slots=True)
class View:
    """A value: its type and its elements in a place. ``offset`` is in bytes from the place."""

    type: TensorType
    place: Place
    offset: int
    strides: tuple[int, ...]

    @property
    def span(self) -> tuple[int, int]:
        """First byte and byte past the last, relative to the place."""
        if self.type.size == 0:
            return self.offset, self.offset
        reach = [(d - 1) * s for d, s in zip(self.type.shape, self.strides, strict=True)]
        low = self.offset + self.type.dtype.bytes * sum(min(r, 0) for r in reach)
        high = self.offset + self.type.dtype.bytes * (1 + sum(max(r, 0) for r in reach))
        return low, high


@dataclass(frozen=True, slots=True)
class Guard:
    """A single bool, where it lies, and what it has to be for a step to run."""

    value: str
    view: View
    holds: bool


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node to run: its views, its call, where its packed arrays and scratch lie.

    ``inputs[k]`` is None where the input is absent or only its packed form is read. Output 0 may
    lie on the inputs that ``inplace`` names. ``options`` are the rows that could compute it. Tasks
    of a ``whole`` step run one after the other: sharing them among threads does not pay, or other
    threads have such steps of their own. Where one of the ``guards``, looked at in order, does not
    hold, no output depends on the step and it may be left out.
    """

    node: Node
    kernel: str
    lowered: Lowered
    inputs: tuple[View | None, ...]
    outputs: tuple[View, ...]
    packed: tuple[int, ...]
    scratch: Place | None
    rejected: tuple[tuple[str, str], ...]
    inplace: tuple[int, ...] = ()
    options: tuple[Option, ...] = ()
    whole: bool = False
    guards: tuple[Guard, ...] = ()

    @property
    def column(self) -> int | None:
        """Which participant has all of its tasks; None where they are shared."""
        return (self.node.column or 0) if self.whole else None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An entry point: steps in order, the views of its values, and states to be copied at the end.

    ``live`` is the least memory that each step needs; no arena is smaller. ``graph`` is the entry
    of the module, where outputs and states that share a value, or that are an input, got a copy of
    their own; names of outputs are those of the module's graph.
    """

    graph: Graph
    steps: tuple[Step, ...]
    views: Mapping[str, View]
    arena_bytes: int
    live: tuple[int, ...]
    commits: tuple[tuple[View, Place], ...]

    @property
    def live_bytes(self) -> int:
        """The most that one step needs."""
        return max(self.live, default=0)

    @property
    def fullest(self) -> str:
        """The first step that needs the most, for messages."""
        if not self.steps:
            return "no step"
        at = self.live.index(self.live_bytes)
        n = self.steps[at].node
        return f"step {at} ({type(n.op).__name__} {n.origin[:60]})"


@dataclass(frozen=True, slots=True)
class StateSlot:
    """A state's type, its place in the state block and that of its initial value in the weights."""

    name: str
    type: TensorType
    offset: int
    initial: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything an emitter needs. ``threads`` are those that tasks are cut for."""

    module: Module
    target: Target
    entries: tuple[Entry, ...]
    states: tuple[StateSlot, ...]
    arena_bytes: int
    state_bytes: int
    weights: bytes
    threads: int = 1

    @property
    def io_bytes(self) -> int:
        """Inputs and outputs of the entry point that has the most."""
        return max(sum(g.types[x].bytes for x in (*g.inputs, *g.outputs)) for g in self.module)


def stored_bytes(array: Array, t: TensorType) -> bytes:
    """An array in the byte form it has at run time (bfloat16 as its upper half)."""
    if t.dtype == BF16:
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16
        return bits.astype("<u2").tobytes()
    return np.ascontiguousarray(array).tobytes()
