"""Kernel rows called with sizes known at run time, thousands of configurations to one library.

Emitted code has every size as a literal, so each configuration would cost a compilation. Here a
row's own lowering says the parameters, packs the weights and cuts the tasks, and the same kernel
headers are compiled once per instruction set. What is emitted for each layer, epilogues and loops,
is emitted for each configuration, by the same functions, compiled once where configurations have
the same text, and handed to the kernels as a pointer.
Code with its sizes as literals is what `test_kernels_i8.py` compares.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emitted import BYTES_TARGETS
from native_harness import EMULATED, NATIVE, Library, build, call, needs_isa
from random_i8.draw import Made
from sparrow.emit.loop_c import loop_function
from sparrow.emit.steps import epilogue_function
from sparrow.kernels.case import (
    Argument,
    Case,
    Epilogue,
    In,
    Invoke,
    Kernel,
    Literal,
    Loop,
    Lowered,
    Out,
    Packed,
    Reject,
    Scratch,
    Tensor,
)
from sparrow.targets import Target, target
from sparrow.tensor import BOOL, F32, I8, I16, I32, I64, U8, Array, TensorType, row_major

_FIELDS = {
    "int": np.int32,
    "float": np.float32,
    "ptrdiff_t": np.int64,
    **{f"{t.name}_t": t.numpy for t in (I8, I16, I32, U8)},
    "uint16_t": np.uint16,
}
# What memory holds before it is written, and how much of it follows a result.
_FILL, _BEYOND = 0xA5, 64
_DTYPES = {np.dtype(t.numpy): t for t in (I8, U8, I16, I32, I64, F32, BOOL)}
# sizes are no literals here: nothing unrolls
_QUIET = '#ifdef __clang__\n#pragma clang diagnostic ignored "-Wpass-failed"\n#endif\n'
_EMITTED = "".join(
    f'#include "kernels/{h}.h"\n' for h in ("epilogue", "lane", "scalar_math", "transpose")
)


_KINDS = {Epilogue: "e", Literal: "n"}
# How a C function takes an argument of each kind, and hands it on.
_WAYS = {
    "p": ("void *a{}", "a{}"),
    "n": ("ptrdiff_t a{}", "(int)a{}"),
    "e": ("sp_ep_i32 a{}, const void *const *e", "a{}, e"),
    "0": ("", "NULL"),
}


class Function(NamedTuple):
    """A kernel as a C function that takes its sizes and all of its tasks at once.

    Attributes:
        header: Native header.
        name: The kernel's.
        struct: Its parameters.
        pointer: Whether it takes them as a pointer.
        kinds: Of each argument: a pointer, none, a number, or an epilogue and its table.
    """

    header: str
    name: str
    struct: str
    pointer: bool
    kinds: str

    @classmethod
    def of(cls, c: Invoke) -> Function:
        """That of a call."""
        kinds = ""
        for before, a in zip((None, *c.arguments), c.arguments, strict=False):
            # what follows a result is scratch memory: here there is none
            absent = isinstance(a, Literal) and isinstance(before, Out)
            kinds += "0" if absent else _KINDS.get(type(a), "p")
        return cls(c.header, c.function, c.struct, c.shared, kinds)

    @property
    def symbol(self) -> str:
        """Its name in a library."""
        return f"all_{self.name}_{self.kinds}"

    def definition(self) -> str:
        """C text."""
        taken, handed = [f"const {self.struct} *p"], ["p" if self.pointer else "*p"]
        for i, kind in enumerate(self.kinds):
            types, values = _WAYS[kind]
            taken += [types.format(i)] if types else []
            handed.append(values.format(i))
        signature = f"void {self.symbol}({', '.join(taken)}, ptrdiff_t tasks)"
        run = f"{self.name}({', '.join(handed)}, (int)i);"
        return f"{signature};\n{signature} {{ for (ptrdiff_t i = 0; i < tasks; ++i) {run} }}\n"


@cache
def _layout(struct: str, header: str) -> np.dtype[np.void]:
    """A parameter struct of the headers as a NumPy type."""
    text = (NATIVE / "kernels" / header).read_text(encoding="utf-8")
    found = re.search(rf"typedef struct {struct} {{(.*?)}}", text, re.DOTALL)
    if found is None:  # of a header that this one includes
        names = re.findall(r'#include "(\w+\.h)"', text)
        return next(
            _layout(struct, n)
            for n in names
            if f"typedef struct {struct} " in (NATIVE / "kernels" / n).read_text(encoding="utf-8")
        )
    fields: list[tuple[object, ...]] = []
    for kind, names_ in re.findall(rf"\b({'|'.join(_FIELDS)}) ([^;]+);", found[1]):
        for name in names_.split(","):
            word, size = re.fullmatch(r"\s*(\w+)(?:\[(\d+)\])?\s*", name).groups()  # type: ignore[union-attr]
            fields.append((word, _FIELDS[kind], *([(int(size),)] if size else [])))
    return np.dtype(fields, align=True)


def _tensor(a: Array, const: bool = False) -> Tensor:
    # NumPy leaves open what strides are along axes of one element
    dense = a.flags.c_contiguous
    strides = row_major(a.shape) if dense else tuple(s // a.itemsize for s in a.strides)
    return Tensor(TensorType(a.shape, _DTYPES[a.dtype]), strides, a if const else None)


def _memory(a: Array) -> Array:
    """The bytes from the first element of an array to its last, and 3 more.

    Four bytes at a time are read of the last channels of a pixel.
    """
    span = a.itemsize + sum((n - 1) * s for n, s in zip(a.shape, a.strides, strict=True))
    to = np.zeros(span + 3, np.uint8)
    to[:span] = np.frombuffer(ctypes.string_at(a.ctypes.data, span), np.uint8)
    return to


def _overlapped(x: Array, y: Array, lead: int) -> tuple[Array, Array]:
    """Memory of an input and of a result, which begins ``lead`` bytes before it."""
    given, result = max(lead, 0), max(-lead, 0)
    size = max(given + x.nbytes + 3, result + y.nbytes + _BEYOND)
    memory = np.full(-(-size // 64) * 64, _FILL, np.uint8)
    memory[given : given + x.nbytes] = x.reshape(-1).view(np.uint8)
    return memory[given:], memory[result:]


# Rows that refuse machines where RAM is short.
ROOMY = ("conv2d_twos_i8", "gemm_twos_i8", "depthwise_pairs_i8", "depthwise_i16")


class _Configuration:
    """An operator over random operands, as a row computes it for an instruction set."""

    def __init__(self, name: str, seed: int, row: Kernel, made: Made, t: Target) -> None:
        self.name = f"{name} seed {seed} on {t.isa.name}"
        self.made, self.seed = made, seed
        self.want = tuple(np.asarray(y, order="C") for y in made.op.eval(*made.operands))
        operands = tuple(
            None if a is None else _tensor(a, i in made.constant)
            for i, a in enumerate(made.operands)
        )
        case = Case(made.op, operands, tuple(map(_tensor, self.want)), t, 1 + seed % 2)
        lowered = row.lower(case)
        assert not isinstance(lowered, Reject), (self.name, made.op, lowered)
        self.lowered: Lowered = lowered
        self.numbers: Array | None = None
        self.texts = [self._emitted(c, t.isa.lanes) for c in lowered.calls]

    def _emitted(self, c: Invoke | Loop, lanes: int) -> str:
        """C text of a loop, or of a kernel's epilogue (empty for none); ``@`` is its name."""
        if isinstance(c, Loop):
            tasks = self.lowered.tasks if len(self.lowered.calls) == 1 else 1
            before, parameters, body = loop_function(c, tasks, lanes)
            head = f"void @({', '.join(parameters)})"
            return "\n".join([*before, f"{head};", f"{head} {{", *body, "}"])
        text, pointer = "", "sp_ep_none_i32"
        for a in c.arguments:
            if isinstance(a, Epilogue) and a.expr is not None:
                text, numbers = epilogue_function(a, shared=c.shared)
                self.numbers = np.array(numbers, np.int32)
                pointer = "@_ep"
        if not any(isinstance(a, Epilogue) for a in c.arguments):
            return ""
        return f"{text}\nextern const sp_ep_i32 @;\nconst sp_ep_i32 @ = {pointer};"

    def wrong(
        self, functions: Mapping[Function, Library], emitted: Mapping[str, tuple[Library, str]]
    ) -> str:
        """Compute it; what is wrong, empty when nothing is.

        Where the result may run over the first input, it is computed in that place.
        """
        made, lowered, want = self.made, self.lowered, self.want
        # neither results nor scratch memory start out as zeros, and nothing follows a result
        results = [np.full(y.nbytes + _BEYOND, _FILL, np.uint8) for y in want]
        scratch = np.full(lowered.scratch_bytes + 64, _FILL, np.uint8)
        x = made.operands[0]
        over = lowered.lead is not None and x is not None and x.flags.c_contiguous
        given = {i: _memory(a) for i, a in enumerate(made.operands) if a is not None}
        if over:
            assert lowered.lead is not None and x is not None
            lead = lowered.lead + -lowered.lead % want[0].itemsize
            given[0], results[0] = _overlapped(x, want[0], lead)
        packed = [np.ascontiguousarray(p) for p in lowered.packed]

        def place(o: Argument) -> Array:
            if isinstance(o, In):
                a = made.operands[o.index]
                assert a is not None
                return given[o.index][o.offset * a.itemsize :]
            if isinstance(o, Out):
                return results[o.index][o.offset * want[o.index].itemsize :]
            if isinstance(o, Packed):
                return packed[o.index]
            assert isinstance(o, Scratch)
            return scratch

        for text, c in zip(self.texts, lowered.calls, strict=True):
            tasks = lowered.tasks if len(lowered.calls) == 1 else 1
            if isinstance(c, Loop):
                pointers = [place(s.operand) for s in (*c.x, c.y)]
                for task in range(tasks):
                    call(*emitted[text], *pointers, *([task] if tasks > 1 else []))
                continue
            params = np.zeros(1, _layout(c.struct, c.header))
            for field, value in c.params.items():
                if isinstance(value, tuple):
                    params[field][0, : len(value)] = value
                else:
                    params[field] = value
            arguments: list[Array | int] = []
            for before, a in zip((None, *c.arguments), c.arguments, strict=False):
                if isinstance(a, Literal):
                    arguments += [] if isinstance(before, Out) else [a.value]
                elif isinstance(a, Epilogue):
                    library, symbol = emitted[text]
                    assert isinstance(library, ctypes.CDLL)
                    places = [place(e.source) for e in a.extras]
                    places += [] if self.numbers is None else [self.numbers]
                    table = np.array([p.ctypes.data for p in places], np.uintp)
                    pointer = ctypes.c_void_p.in_dll(library, symbol).value
                    assert pointer is not None
                    arguments += [pointer, table]
                else:
                    arguments.append(place(a))
            f = Function.of(c)
            call(functions[f], f.symbol, params, *arguments, max(tasks, c.repeat))
        off = sum(
            int((got[: y.nbytes].view(y.dtype) != y.reshape(-1)).sum())
            + (0 if over else int((got[y.nbytes :] != _FILL).sum()))
            for got, y in zip(results, want, strict=True)
        )
        if off == 0:
            return ""
        shapes = [None if a is None else a.shape for a in made.operands]
        return f"{self.name}: {off} numbers differ: {made.op} {shapes}"


class Native:
    """The kernels of one instruction set, compiled as they are asked for.

    Skips a machine without the instruction set, or its emulator.
    """

    def __init__(self, isa: str, folder: Path) -> None:
        if isa in BYTES_TARGETS:
            needs_isa(isa)  # before minutes of drawing and compiling what would not run
        self.isa, self.folder = isa, folder
        t = target({**BYTES_TARGETS, **EMULATED}[isa])
        # where RAM is short
        bare = replace(t, triple="x86_64-freestanding-none") if isa in BYTES_TARGETS else t
        self.targets = t, bare
        self.functions: dict[Function, Library] = {}
        # C text -> where it was compiled, and under which name
        self.emitted: dict[str, tuple[Library, str]] = {}
        self.built = 0

    def _build(self, text: str, level: str) -> Library:
        folder = self.folder / str(self.built)
        folder.mkdir()
        self.built += 1
        return build(_QUIET + text, self.isa, folder, level=level)

    def wrong(self, cases: Sequence[tuple[str, int, Kernel, Made]]) -> list[str]:
        """Compute configurations: (name, seed, row, operator) each; what is wrong."""
        found = [
            _Configuration(*case, self.targets[case[1] % 4 == 0 and case[2].name not in ROOMY])
            for case in cases
        ]
        calls = [c for f in found for c in f.lowered.calls if isinstance(c, Invoke)]
        new = [f for f in dict.fromkeys(map(Function.of, calls)) if f not in self.functions]
        if new:
            headers = dict.fromkeys(f'#include "kernels/{f.header}"\n' for f in new)
            bodies = (f.definition() for f in new)
            library = self._build("".join((*headers, *bodies)), "-O2")
            self.functions |= dict.fromkeys(new, library)
        texts = dict.fromkeys(t for f in found for t in f.texts if t and t not in self.emitted)
        if texts:
            names = {t: f"f{i}" for i, t in enumerate(texts)}
            bodies = (t.replace("@", name) for t, name in names.items())
            library = self._build(_EMITTED + "\n".join(bodies) + "\n", "-O1")
            self.emitted |= {t: (library, name) for t, name in names.items()}
        return [text for f in found if (text := f.wrong(self.functions, self.emitted))]
