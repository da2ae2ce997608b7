"""How much stack compiled code takes: frames and calls read from its ELF objects.

The compiler notes the frame of every function (``-fstack-size-section``) and gives each a section
of its own (``-ffunction-sections``), so that whatever a function calls or passes on as a callback
is a relocation of its section. Emitted code does not recurse and has no frame of variable size: the
deepest path through this graph is the bound, and a run that takes the path reaches it exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparrow.device.elf import MAGIC, SECTION_SYMBOL, UNDEFINED, Elf
from sparrow.device.firmware import link_alone
from sparrow.device.thumb import depths
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

# sub sp, sp, register: a frame of vectors, as long as the processor has them.
_RISCV, _SCALED, _SCALED_MASK = 243, 0x40010133, 0xFE0FFFFF

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
        calls: Functions that each calls or hands on.
        tails: Functions that each jumps to when its own frame is gone.
        names: Functions that other objects see.
        outside: Functions that are in none of the objects; their sizes are not known.
        red_zone: Bytes below the last frame that may be used.
    """

    sizes: Mapping[Place, int]
    calls: Mapping[Place, frozenset[Place]]
    tails: Mapping[Place, frozenset[Place]]
    names: Mapping[str, Place]
    outside: Mapping[str, Place]
    red_zone: int

    def deepest(self, name: str) -> int:
        """Bytes of stack that a call of a function takes at most, red zone excluded.

        Raises:
            ValueError: It recurses, or a frame is not known.
        """
        depth: dict[Place, int] = {}
        open_: set[Place] = set()

        def visit(at: Place) -> int:
            if at in open_:
                raise ValueError(f"function {at} calls itself")
            if at not in depth:
                if at not in self.sizes:
                    raise ValueError(f"function {at} has a frame of unknown size")
                open_.add(at)
                inner = max((visit(c) for c in self.calls.get(at, ())), default=0)
                after = max((visit(c) for c in self.tails.get(at, ())), default=0)
                open_.remove(at)
                depth[at] = max(self.sizes[at] + inner, after)
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


def _scaled(code: bytes) -> bool:
    """Whether a RISC-V function has a frame whose size depends on the length of vectors."""
    words = (code[i : i + 4] for i in range(0, len(code) - 3, 2))
    return any(int.from_bytes(w, "little") & _SCALED_MASK == _SCALED for w in words)


def read_frames(objects: Sequence[Path]) -> Frames | None:
    """Functions of objects that are linked together.

    None if not ELF, without noted frames, or where the length of vectors decides about one.
    """
    sizes: dict[Place, int] = {}
    names: dict[str, Place] = {}
    pending: list[tuple[Place, Place | str, bool]] = []
    machine = 0
    for o, path in enumerate(objects):
        data = path.read_bytes()
        if data[:4] != MAGIC:
            return None
        found = _Object(data)
        machine = found.machine
        code = found.code
        for section, size in found.frames():
            if machine == _RISCV and _scaled(found.sections[section].data):
                return None
            loss = max(
                (n for p, n in _ALIGNS.items() if p in found.sections[section].data), default=0
            )
            loss = loss if machine == _X86_64 else 0
            sizes[o, section] = size + loss + _RETURN_ADDRESS.get(machine, 0)
        for symbol in found.symbols:
            if symbol.section in code and symbol.kind != SECTION_SYMBOL and symbol.name:
                names[symbol.name] = (o, symbol.section)
        for section, offset, number in found.relocated():
            if section not in code:
                continue
            target = found.symbols[number]
            before = found.sections[section].data[offset - 1] if offset else 0
            jumps = machine == _X86_64 and before == _JUMP
            if target.section == UNDEFINED:
                pending.append(((o, section), target.name, jumps))
            elif target.section in code and target.section != section:
                pending.append(((o, section), (o, target.section), jumps))
    if not sizes:
        return None
    calls: dict[Place, set[Place]] = {}
    tails: dict[Place, set[Place]] = {}
    outside: dict[str, Place] = {}
    for caller, callee, jumps in pending:
        to = names.get(callee) if isinstance(callee, str) else callee
        if to is None:
            to = outside.setdefault(str(callee), (_OUTSIDE, len(outside)))
        (tails if jumps else calls).setdefault(caller, set()).add(to)
    return Frames(
        sizes,
        {k: frozenset(v) for k, v in calls.items()},
        {k: frozenset(v) for k, v in tails.items()},
        names,
        outside,
        _RED_ZONE.get(machine, 0),
    )


def stack_bytes(objects: Sequence[Path], machine: Machine, name: str = "model_run") -> int | None:
    """Bytes of stack that a call of an emitted function takes at most, its return address included.

    What the program's own memcpy, memset and ``parallel_for`` take comes on top. The compiler's
    library, which computes floats for CPUs without an FPU, notes no frames: those of Thumb code are
    read from it. None if the compiler does not note frames (`Toolchain` asks zig for it), the
    objects are not ELF, they keep vectors of a length that the processor decides, or they call what
    has no bound.
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
    return replace(frames, sizes={**frames.sizes, **sizes}).deepest(name) + frames.red_zone


def _library_depths(
    objects: Sequence[Path], machine: Machine, names: Collection[str]
) -> Mapping[str, int] | None:
    if machine.arch != "thumb":
        return None
    return depths(Elf(link_alone(objects, machine).read_bytes()), names, MEMORY)
