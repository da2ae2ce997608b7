"""ELF files, 32 or 64 bits wide, little-endian: sections, symbols, and how much of one is code."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

MAGIC = b"\x7fELF"
# Section flags and types.
WRITABLE, ALLOCATED, EXECUTABLE = 1, 2, 4
SYMTAB, RELA, NO_BITS, REL = 2, 4, 8, 9
UNDEFINED, FUNCTION, SECTION_SYMBOL = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Section:
    """A section header, its name, and its bytes (none where the file holds none)."""

    name: str
    kind: int
    flags: int
    address: int
    link: int
    info: int
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol; ``section`` is 0 where it is undefined, ``external`` whether other files see it."""

    name: str
    kind: int
    section: int
    value: int
    size: int
    external: bool


class Elf:
    """An ELF file.

    Attributes:
        wide: Whether it is of 64 bits.
        machine: Its processor, as ELF numbers them.
        sections: All sections, in order.
    """

    def __init__(self, data: bytes) -> None:
        self.wide = data[4] == 2
        (self.machine,) = struct.unpack_from("<H", data, 18)
        (table,) = struct.unpack_from(*(("<Q", data, 0x28) if self.wide else ("<I", data, 0x20)))
        entry, count, names = struct.unpack_from("<HHH", data, 0x3A if self.wide else 0x2E)
        layout = "<IIQQQQII" if self.wide else "<IIIIIIII"
        rows = [struct.unpack_from(layout, data, table + i * entry) for i in range(count)]
        at, length = rows[names][4:6] if rows else (0, 0)
        texts = data[at : at + length]
        self.sections = [
            Section(
                *(_text(texts, name), kind, flags, address, link, info, size),
                b"" if kind == NO_BITS else data[offset : offset + size],
            )
            for name, kind, flags, address, offset, size, link, info in rows
        ]

    @property
    def code(self) -> frozenset[int]:
        """Indices of the sections that hold code."""
        return frozenset(i for i, s in enumerate(self.sections) if s.flags & EXECUTABLE and s.data)

    def relocated(self) -> Iterator[tuple[int, int, int, int]]:
        """(section that refers, offset in it, number of the symbol, kind) of every relocation."""
        for s in self.sections:
            if s.kind not in (RELA, REL):
                continue
            step = (16 if self.wide else 8) + (s.kind == RELA) * (8 if self.wide else 4)
            for at in range(0, len(s.data), step):
                if self.wide:
                    offset, info = struct.unpack_from("<QQ", s.data, at)
                    yield s.info, offset, info >> 32, info & 0xFFFFFFFF
                else:
                    offset, info = struct.unpack_from("<II", s.data, at)
                    yield s.info, offset, info >> 8, info & 0xFF

    @cached_property
    def symbols(self) -> list[Symbol]:
        """The symbol table; empty in a stripped file."""
        tables = [s for s in self.sections if s.kind == SYMTAB]
        return list(self._symbols(tables[0])) if tables else []

    def _symbols(self, table: Section) -> Iterator[Symbol]:
        strings = self.sections[table.link].data
        for at in range(0, len(table.data), 24 if self.wide else 16):
            if self.wide:
                name, info, _, section, value, size = struct.unpack_from("<IBBHQQ", table.data, at)
            else:
                name, value, size, info, _, section = struct.unpack_from("<IIIBBH", table.data, at)
            yield Symbol(_text(strings, name), info & 15, section, value, size, info >> 4 != 0)


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode("utf-8", "replace") if strings else ""


def code_bytes(path: Path) -> int:
    """Bytes of an ELF library's sections that take flash; the file's size for other formats."""
    data = path.read_bytes()
    if data[:4] != MAGIC:
        return len(data)
    loaded = (s for s in Elf(data).sections if s.flags & ALLOCATED and s.kind != NO_BITS)
    return sum(s.size for s in loaded)


def function_bytes(objects: Sequence[Path]) -> Mapping[str, float]:
    """Code of every function that other objects see, with that of its file's own which it calls.

    Of a function with several callers each has its share. Empty where objects are not ELF.
    """
    found: dict[str, float] = {}
    for path in objects:
        data = path.read_bytes()
        if data[:4] != MAGIC:
            return {}
        found |= _functions(Elf(data))
    return found


def _functions(elf: Elf) -> dict[str, float]:
    code = elf.code
    calls: dict[int, set[int]] = {}
    for section, _, number, _ in elf.relocated():
        target = elf.symbols[number].section
        if section in code and target in code and target != section:
            calls.setdefault(section, set()).add(target)
    callers = Counter(t for targets in calls.values() for t in targets)

    def total(at: int) -> float:
        return elf.sections[at].size + sum(total(t) / callers[t] for t in calls.get(at, ()))

    return {
        s.name: total(s.section)
        for s in elf.symbols
        if s.section in code and s.kind != SECTION_SYMBOL and s.name
    }
