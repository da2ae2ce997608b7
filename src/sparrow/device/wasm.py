"""How much of its memory's stack WebAssembly code takes, read from the instructions of an object.

What has an address lies on a stack in memory whose pointer is a global; locals and returns are the
engine's own. A function takes from that global what it subtracts, and rounds it down where it
aligns; a function that calls none may leave it as it is. The pointer is followed through locals
that hold it. Relocations say what a function calls or hands on. Formats: the WebAssembly
specification and the linking conventions of tool-conventions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAGIC = b"\0asm"
# Calls keep the pointer a multiple of it.
_ALIGN = 16
_CUSTOM, _IMPORT, _CODE = 0, 2, 10
_FUNCTION, _TABLE, _MEMORY, _GLOBAL = range(4)
_UNDEFINED, _EXPLICIT = 0x10, 0x40
_SYMBOLS = 8
# Relocations that are calls or addresses of functions, and those that have an addend.
_CALL = 0
_CALLS = frozenset({_CALL, 1, 12})
_ADDENDS = frozenset({*(3, 4, 5, 8, 9, 11, 14, 15, 16, 17), *(21, 22, 23, 25)})


@dataclass(slots=True)
class Function:
    """A function that an object defines.

    Attributes:
        name: Its symbol's.
        frame: Bytes that it takes of the stack in memory; None: it is not understood.
        calls: Functions that it calls or hands on: numbers of those of this object, else names.
        handed: Those of them that it hands on.
    """

    name: str
    frame: int | None
    calls: set[int | str] = field(default_factory=set)
    handed: set[int | str] = field(default_factory=set)


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self, signed: bool = False) -> int:
        value = shift = 0
        while True:
            b = self.byte()
            value |= (b & 127) << shift
            shift += 7
            if b < 128:
                return value - (1 << shift) if signed and b & 64 else value

    def text(self) -> str:
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at].decode()


def functions(data: bytes) -> dict[int, Function]:
    """Functions that an object defines, by their numbers."""
    r = _Reader(data, 8)
    sections: list[tuple[int, int, int]] = []
    while r.at < len(data):
        kind, size = r.byte(), r.number()
        sections.append((kind, r.at, r.at + size))
        r.at += size
    imported: list[str] = []
    globals_: list[str] = []
    begin: dict[int, int] = {}
    found: dict[int, Function] = {}
    for kind, at, _ in sections:
        if kind == _IMPORT:
            imported, globals_ = _imports(_Reader(data, at))
        elif kind == _CODE:
            pointer = globals_.index("__stack_pointer") if "__stack_pointer" in globals_ else -1
            code = _Reader(data, at)
            for number in range(len(imported), len(imported) + code.number()):
                end = code.number() + code.at
                begin[code.at - at] = number
                found[number] = Function("", _frame(code, end, pointer))
                code.at = end
    symbols: list[int | str | None] = []
    for kind, at, end in sections:
        section = _Reader(data, at)
        if kind != _CUSTOM or (name := section.text()) not in ("linking", "reloc.CODE"):
            continue
        if name == "linking":
            symbols = _symbols(section, end, imported, found)
            continue
        section.number()
        starts = sorted(begin, reverse=True)
        for _ in range(section.number()):
            kind, offset, index = section.byte(), section.number(), section.number()
            if kind in _ADDENDS:
                section.number()
            callee = symbols[index] if kind in _CALLS else None
            if callee is not None:
                caller = begin[next(s for s in starts if s <= offset)]
                found[caller].calls.add(callee)
                if kind != _CALL:
                    found[caller].handed.add(callee)
    return found


def _imports(r: _Reader) -> tuple[list[str], list[str]]:
    """Names of imported functions and globals."""
    names: list[str] = []
    globals_: list[str] = []
    for _ in range(r.number()):
        r.text()
        name, kind = r.text(), r.byte()
        if kind == _FUNCTION:
            names.append(name)
            r.number()
        elif kind == _GLOBAL:
            globals_.append(name)
            r.at += 2
        elif kind in (_TABLE, _MEMORY):
            r.at += kind == _TABLE
            limits = r.byte()
            for _ in range(1 + (limits & 1)):
                r.number()
        else:  # a tag
            r.at += 1
            r.number()
    return names, globals_


def _symbols(
    r: _Reader, end: int, imported: list[str], found: dict[int, Function]
) -> list[int | str | None]:
    """What symbols of functions stand for, None for others; names what is defined here."""
    symbols: list[int | str | None] = []
    r.number()
    while r.at < end:
        kind, size = r.byte(), r.number()
        behind = r.at + size
        for _ in range(r.number() if kind == _SYMBOLS else 0):
            what, flags = r.byte(), r.number()
            to: int | str | None = None
            if what == 1:  # data
                r.text()
                for _ in range(0 if flags & _UNDEFINED else 3):
                    r.number()
            else:
                index = r.number()
                # sections have no names
                named = what != 3 and (not flags & _UNDEFINED or flags & _EXPLICIT)
                name = r.text() if named else ""
                if what == 0 and flags & _UNDEFINED:
                    to = name or imported[index]
                elif what == 0:
                    to = index
                    found[index].name = name
            symbols.append(to)
        r.at = behind
    return symbols


def _frame(r: _Reader, end: int, pointer: int) -> int | None:
    """Bytes that a function takes; None where it sets the pointer to what is not known."""
    for _ in range(r.number()):
        r.number()
        r.byte()
    taken = 0
    holders: set[int] = set()  # locals that hold the pointer as it was
    # what is on top: the pointer as it was, lowered, or raised again; numbers behind it
    top, numbers = "", list[int]()
    while r.at < end:
        op, value = _instruction(r)
        if op == "global.get" and value == pointer:
            top, numbers = "pointer", []
        elif op == "local.get":
            top, numbers = "pointer" if value in holders else "other", []
        elif op == "i32.const" and top:
            numbers.append(value)
        elif op == "i32.sub" and top == "pointer" and len(numbers) == 1:
            taken += numbers[0]
            top, numbers = "lowered", []
        elif op == "i32.and" and top == "lowered" and len(numbers) == 1:
            taken += max(0, -numbers[0] - _ALIGN)
            numbers = []
        elif op == "i32.add" and top == "other" and len(numbers) == 1:
            top, numbers = "raised", []
        elif op in ("local.set", "local.tee"):
            (holders.add if top == "pointer" and not numbers else holders.discard)(value)
            if op == "local.set":
                top, numbers = "", []
        elif op == "global.set" and value == pointer:
            if numbers or top not in ("pointer", "lowered", "raised"):
                return None
            top = ""
        else:
            top, numbers = "", []
    return taken


_NAMED = {
    **{0x20: "local.get", 0x21: "local.set", 0x22: "local.tee"},
    **{0x23: "global.get", 0x24: "global.set"},
    **{0x6A: "i32.add", 0x6B: "i32.sub", 0x71: "i32.and"},
}
# How many numbers follow an instruction of these families.
_MISC = {8: 2, 9: 1, 10: 2, 11: 1, 12: 2, 13: 1, 14: 2, 15: 1, 16: 1, 17: 1}


def _instruction(r: _Reader) -> tuple[str, int]:
    """The next instruction's name, where it matters, and its operand."""
    op = r.byte()
    if op in _NAMED:
        return _NAMED[op], r.number() if op < 0x30 else 0
    if op == 0x41:
        return "i32.const", r.number(signed=True)
    if op in (0x02, 0x03, 0x04, 0x42, 0xD0):  # types of blocks, int64
        r.number(signed=True)
    elif op in (0x0C, 0x0D, 0x10, 0x12, 0x25, 0x26, 0x3F, 0x40, 0xD2):
        r.number()
    elif op in (0x11, 0x13):
        r.number(), r.number()
    elif op in (0x0E, 0x1C):
        for _ in range(r.number() + (op == 0x0E)):
            r.number()
    elif op in (0x43, 0x44):
        r.at += 4 if op == 0x43 else 8
    elif 0x28 <= op <= 0x3E:
        _place(r)
    elif op == 0xFC:
        for _ in range(_MISC.get(r.number(), 0)):
            r.number()
    elif op == 0xFD:
        sub = r.number()
        if sub < 12 or 84 <= sub <= 93:
            _place(r)
        r.at += 16 if sub in (12, 13) else int(21 <= sub <= 34 or 84 <= sub <= 91)
    elif op == 0xFE:
        if r.number() == 3:
            r.byte()
        else:
            _place(r)
    return "", 0


def _place(r: _Reader) -> None:
    """Alignment and offset of a load or store."""
    if r.number() & 64:
        r.number()
    r.number()
