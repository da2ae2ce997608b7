"""How much stack compiled code takes: frames and calls read from its ELF objects.

The compiler notes the frame of every function (``-fstack-size-section``) and gives each a section
of its own (``-ffunction-sections``), so that whatever a function calls or passes on as a callback
is a relocation of its section. Emitted code does not recurse, and no frame varies in size but for
RISC-V's vectors, whose length the processor decides: the deepest path through this graph is the
bound, and a run that takes the path reaches it exactly. Of WebAssembly objects the instructions are
read (`device.wasm`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparrow.device import a32, riscv, thumb, wasm
from sparrow.device.elf import MAGIC, SECTION_SYMBOL, UNDEFINED, Elf
from sparrow.device.firmware import link_alone
from sparrow.device.frames import depths
from sparrow.targets import Machine

_X86_64, _I386 = 62, 3
# What a call pushes; elsewhere the return address goes to a register, and from there to the frame.
_RETURN_ADDRESS = {_X86_64: 8, _I386: 4}
# Below its frame a function that calls nothing may use this much (System V x86-64).
_RED_ZONE = {_X86_64: 128}
# and $-align, %rsp: a frame that aligns itself loses up to align - 16 bytes that it does not count.
# jmp to another function: a call in place of a return, whose caller's frame is gone.
_JUMP = 0xE9
_ALIGNS = {b"\x48\x83\xe4\xc0": 48, b"\x48\x83\xe4\xe0": 16}

# auipc t1: a jump to another function; a call sets ra.
_RISCV, _TO_T1, _TO_T1_MASK = 243, 0x00000317, 0xFFF
# Kinds of relocations that are calls and jumps; by others a function's address is taken.
_CALLS = {
    _I386: {2, 4},
    40: {1, 10, 27, 28, 29, 30},
    _X86_64: {4},
    183: {282, 283},
    _RISCV: {17, 18, 19},
}
# What calls the functions that are handed to it (`emit.c`).
_SPLIT = "sp_split"
# What reads the compiler's library, by architecture.
_READERS = {"thumb": thumb.read, "riscv32": riscv.read, "arm": a32.read}

# What every program has; Arm's own names of the same functions.
MEMORY = frozenset(
    f"{prefix}{name}{suffix}"
    for prefix, suffixes in (("", ("",)), ("__aeabi_", ("", "4", "8")))
    for name in ("memcpy", "memmove", "memset", "memclr", "memcmp")
    for suffix in suffixes
)

# (object, section) of a function defined there, (_OUTSIDE, number) of one that is not
Place = tuple[int, int]
_OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class Frames:
    """Functions of some objects.

    Attributes:
        sizes: Bytes of stack per function, the return address included.
        scaled: Vector registers' worth per function that has such a frame besides.
        calls: Functions that each calls or hands on.
        handed: Those of them that are handed on.
        tails: Functions that each jumps to when its own frame is gone.
        names: Functions that other objects see.
        outside: Functions that are in none of the objects; their sizes are not known.
        red_zone: Bytes below the last frame that may be used.
    """

    sizes: Mapping[Place, int]
    scaled: Mapping[Place, int]
    calls: Mapping[Place, frozenset[Place]]
    handed: Mapping[Place, frozenset[Place]]
    tails: Mapping[Place, frozenset[Place]]
    names: Mapping[str, Place]
    outside: Mapping[str, Place]
    red_zone: int

    def deepest(self, name: str, vector_bytes: int = 0, free: Collection[str] = ()) -> int:
        """Bytes of stack that a call of a function takes at most, red zone excluded.

        Args:
            name: The function.
            vector_bytes: Of a register, where the processor decides that.
            free: Functions that count nothing.

        Raises:
            ValueError: It recurses, or a frame is not known.
        """
        depth = {self.names[n]: 0 for n in free}
        split = self.names.get(_SPLIT)
        open_: set[Place] = set()

        def visit(at: Place) -> int:
            if at in open_:
                raise ValueError(f"function {at} calls itself")
            if at not in depth:
                if at not in self.sizes:
                    raise ValueError(f"function {at} has a frame of unknown size")
                open_.add(at)
                calls = self.calls.get(at, frozenset())
                inner = max((visit(c) for c in calls), default=0)
                if split in calls:
                    tasks = (visit(c) for c in self.handed.get(at, ()))
                    inner = max(inner, self.sizes[split] + max(tasks, default=0))
                after = max((visit(c) for c in self.tails.get(at, ())), default=0)
                open_.remove(at)
                own = self.sizes[at] + self.scaled.get(at, 0) * vector_bytes
                depth[at] = max(own + inner, after)
            return depth[at]

        return visit(self.names[name])


class _Object(Elf):
    """An object, with the frames that the compiler noted."""

    def frames(self) -> Iterator[tuple[int, int]]:
        """(function's section, bytes) as the compiler noted them."""
        width = 8 if self.wide else 4
        for s in self.sections:
            # only these notes are neither code nor read at run time and point to one function
            if s.flags == _LINK_ORDER and len(s.data) > width and s.kind == _PROGBITS:
                yield s.link, _uleb128(s.data[width:])


_LINK_ORDER, _PROGBITS = 0x80, 1


def _uleb128(data: bytes) -> int:
    value = shift = 0
    for b in data:
        value |= (b & 127) << shift
        shift += 7
        if b < 128:
            break
    return value


def read_frames(objects: Sequence[Path]) -> Frames | None:
    """Functions of objects that are linked together.

    None if neither ELF nor WebAssembly, without noted frames, or where one is not understood.
    """
    modules = [path.read_bytes() for path in objects]
    if modules and all(data[:4] == wasm.MAGIC for data in modules):
        return _frames_of_modules(modules)
    sizes: dict[Place, int] = {}
    scaled: dict[Place, int] = {}
    names: dict[str, Place] = {}
    pending: list[tuple[Place, Place | str, bool, bool]] = []
    machine = 0
    for o, data in enumerate(modules):
        if data[:4] != MAGIC:
            return None
        found = _Object(data)
        machine = found.machine
        code = found.code
        for section, size in found.frames():
            text = found.sections[section].data
            loss = 0
            if machine == _RISCV:
                frame = riscv.frame(text, found.wide)
                if frame is None:
                    return None
                # what vectors are aligned by is not noted
                size = max(size, frame.fixed)
                scaled[o, section], loss = frame.scaled, frame.lost
            if machine == _X86_64:
                loss = max((n for p, n in _ALIGNS.items() if p in text), default=0)
            sizes[o, section] = size + loss + _RETURN_ADDRESS.get(machine, 0)
        for symbol in found.symbols:
            if symbol.section in code and symbol.kind != SECTION_SYMBOL and symbol.name:
                names[symbol.name] = (o, symbol.section)
        for section, offset, number, kind in found.relocated():
            if section not in code:
                continue
            target = found.symbols[number]
            jumps = _jumps(machine, found.sections[section].data, offset)
            hands = kind not in _CALLS[machine]
            if target.section == UNDEFINED:
                pending.append(((o, section), target.name, jumps, hands))
            elif target.section in code and target.section != section:
                pending.append(((o, section), (o, target.section), jumps, hands))
    if not sizes:
        return None
    calls: dict[Place, set[Place]] = {}
    handed: dict[Place, set[Place]] = {}
    tails: dict[Place, set[Place]] = {}
    outside: dict[str, Place] = {}
    for caller, callee, jumps, hands in pending:
        to = names.get(callee) if isinstance(callee, str) else callee
        if to is None:
            to = outside.setdefault(str(callee), (_OUTSIDE, len(outside)))
        (tails if jumps else calls).setdefault(caller, set()).add(to)
        if hands:
            handed.setdefault(caller, set()).add(to)
    return Frames(
        sizes,
        scaled,
        {k: frozenset(v) for k, v in calls.items()},
        {k: frozenset(v) for k, v in handed.items()},
        {k: frozenset(v) for k, v in tails.items()},
        names,
        outside,
        _RED_ZONE.get(machine, 0),
    )


def _frames_of_modules(modules: Sequence[bytes]) -> Frames | None:
    """The same of WebAssembly objects, which take it from a stack in their memory."""
    sizes: dict[Place, int] = {}
    names: dict[str, Place] = {}
    outside: dict[str, Place] = {}
    found = [wasm.functions(data) for data in modules]
    for o, functions in enumerate(found):
        for i, f in functions.items():
            if f.frame is None:
                return None
            sizes[o, i] = f.frame
            names[f.name] = (o, i)
    calls: dict[Place, frozenset[Place]] = {}
    handed: dict[Place, frozenset[Place]] = {}

    def places(o: int, functions: Collection[int | str]) -> frozenset[Place]:
        return frozenset(
            (o, c)
            if isinstance(c, int)
            else names.get(c) or outside.setdefault(c, (_OUTSIDE, len(outside)))
            for c in functions
        )

    for o, functions in enumerate(found):
        for i, f in functions.items():
            calls[o, i], handed[o, i] = places(o, f.calls), places(o, f.handed)
    return Frames(sizes, {}, calls, handed, {}, names, outside, 0)


def _jumps(machine: int, code: bytes, offset: int) -> bool:
    """Whether a relocated place is a jump to another function, not a call."""
    if machine == _RISCV:
        return int.from_bytes(code[offset : offset + 4], "little") & _TO_T1_MASK == _TO_T1
    return machine == _X86_64 and offset > 0 and code[offset - 1] == _JUMP


def stack_bytes(
    objects: Sequence[Path], machine: Machine, name: str = "model_run", vector_bits: int = 0
) -> int | None:
    """Bytes of stack that a call of an emitted function takes at most, its return address included.

    What the program's own memcpy, memset and ``parallel_for`` take comes on top. The compiler's
    library, which computes floats for CPUs without an FPU, notes no frames: those of Arm and RV32
    code are read from it. None if the compiler does not note frames (`Toolchain` asks zig for it),
    the objects are neither ELF nor WebAssembly, or they call what has no bound. In WebAssembly it
    is the stack in the module's memory; what an engine takes for calls is its own.

    Args:
        objects: Of one library.
        machine: What they are compiled for.
        name: The function.
        vector_bits: Length of the processor's vectors, where the code is for several
            (`Machine.lengths`); 0 is the most that any of these takes.
    """
    frames = read_frames(objects)
    if frames is None:
        return None
    sizes = {p: 0 for n, p in frames.outside.items() if n in MEMORY}
    called = frames.outside.keys() - MEMORY
    if called:
        found = _library_depths(objects, machine, called)
        if found is None:
            return None
        sizes |= {frames.outside[n]: depth for n, depth in found.items()}
    frames = replace(frames, sizes={**frames.sizes, **sizes})
    asked = (vector_bits,) if vector_bits else machine.lengths or (0,)
    return frames.red_zone + max(
        frames.deepest(name, bits // 8, _of_other_lengths(frames, machine, bits)) for bits in asked
    )


def _of_other_lengths(frames: Frames, machine: Machine, bits: int) -> list[str]:
    """Functions of steps that a processor with vectors of a length leaves to others."""
    own = max((n for n in machine.lengths if n <= bits), default=0)
    others = tuple(f"_v{n}" for n in machine.lengths if n != own)
    return [n for n in frames.names if others and n.endswith(others)]


def _library_depths(
    objects: Sequence[Path], machine: Machine, names: Collection[str]
) -> Mapping[str, int] | None:
    reader = _READERS.get(machine.arch)
    if reader is None:
        return None
    return depths(Elf(link_alone(objects, machine).read_bytes()), names, MEMORY, reader)
