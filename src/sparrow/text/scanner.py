"""One line of a graph's text: its tokens, types, literals and expressions."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np

from sparrow import lane
from sparrow.errors import BadInput, InvalidGraph
from sparrow.tensor import (
    BY_NAME,
    F32,
    Affine,
    Array,
    BinaryCode,
    Codebook,
    Quantization,
    TensorType,
)
from sparrow.text.printer import NAME, NUMBER, PARTS, SHORT, elements

MAX_NESTING = 200
_BY_SHORT = {s: t for t, s in SHORT.items()}
_WORD = re.compile(r"-?[A-Za-z_]\w*")
_TYPE = re.compile(r"([a-z]+\d*)\[((?:\d{1,18}x){0,63}\d{1,18})?\]([A-Za-z]*)")
_HASH = re.compile(r"#([0-9a-f]{16})")
_WORDS = {"none": None, "true": True, "false": False}
_SPECIAL = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}
_Item = TypeVar("_Item")


def _fits(v: object, hint: Any) -> bool:
    """Whether a value has the type of a field."""
    args = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Union | types.UnionType:
            return any(_fits(v, a) for a in args)
        case typing.Literal:
            return v in args
        case origin if origin is tuple:
            if not isinstance(v, tuple):
                return False
            each = args[:1] * len(v) if args[1:] == (...,) else args
            return len(each) == len(v) and all(map(_fits, v, each))
    # a bool is no int here
    return type(v) is (types.NoneType if hint is None else hint)


class Line:
    """A cursor in one statement."""

    def __init__(self, text: str, number: int, arrays: Mapping[str, Array]) -> None:
        self.text, self.number, self.arrays, self.at = text, number, arrays, 0
        self.depth = 0

    def fail(self, expected: str) -> NoReturn:
        self.space()
        rest = self.text[self.at : self.at + 24]
        found = json.dumps(rest) if rest else "the end of the line"
        raise BadInput(f"line {self.number}: expected {expected}, found {found}")

    def peek(self, token: str) -> bool:
        self.space()
        return self.text.startswith(token, self.at)

    def take(self, token: str) -> bool:
        found = self.peek(token)
        if found:
            self.at += len(token)
        return found

    def need(self, token: str) -> None:
        if not self.take(token):
            self.fail(repr(token))

    def space(self) -> None:
        while self.text[self.at : self.at + 1] == " ":
            self.at += 1

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self.space()
        m = pattern.match(self.text, self.at)
        if m:
            self.at = m.end()
        return m

    def string(self) -> str:
        try:
            value, self.at = json.JSONDecoder().raw_decode(self.text, self.at)
        except ValueError:
            self.fail("a string")
        return str(value)

    def name(self) -> str:
        """A value name; ``""`` for ``_``."""
        if self.peek('"'):
            return self.string()
        m = self.match(NAME)
        if not m:
            self.fail("a name")
        return "" if m[0] == "_" else m[0]

    def rows(self, read: Callable[[], _Item], end: str) -> list[_Item]:
        """Items between commas up to ``end``; a comma may follow the last."""
        items: list[_Item] = []
        while not self.take(end):
            items.append(read())
            if not self.take(","):
                self.need(end)
                break
        return items

    def integer(self) -> int:
        m = self.match(re.compile(r"-?\d{1,18}(?![\w.])"))
        if not m:
            self.fail("an integer")
        return int(m[0])

    def word(self, table: Mapping[str, _Item], what: str) -> _Item:
        start = self.at
        m = self.match(_WORD)
        if not m or m[0] not in table:
            self.at = start
            self.fail(what)
        return table[m[0]]

    def tensor_type(self) -> TensorType:
        m = self.match(_TYPE)
        if not m or m[1] not in BY_NAME:
            self.fail("a tensor type")
        shape = tuple(int(d) for d in m[2].split("x")) if m[2] else ()
        return self.checked(lambda: TensorType(shape, BY_NAME[m[1]], m[3], self.quant()))

    def quant(self) -> Quantization | None:
        if self.take("affine("):
            scale = self.array()
            self.need(",")
            zero_point = self.array()
            return Affine(scale, zero_point, self.block())
        if self.take("binary("):
            return BinaryCode(self.array(), self.block())
        if self.take("codebook("):
            values = self.array()
            self.need(")")
            return Codebook(values)
        return None

    def block(self) -> tuple[int, ...]:
        self.need(",")
        self.need("(")
        block = tuple(self.rows(self.integer, ")"))
        self.need(")")
        return block

    def array(self) -> Array:
        return self.data(self.tensor_type())

    def data(self, t: TensorType) -> Array:
        """Elements of a constant of type ``t``."""
        m = self.match(_HASH)
        if m:
            a = self.arrays.get(m[1])
            if a is None or a.shape != t.shape or a.dtype != t.dtype.numpy:
                found = "none" if a is None else f"{a.dtype}{list(a.shape)}"
                raise BadInput(f"line {self.number}: array {m[0]} should be {t}, have {found}")
            return a
        self.need("[")
        start = self.at
        words = self.rows(lambda: self.match(re.compile(r"[^\s,\]]+")) or self.fail("a value"), "]")
        try:
            flat = elements([w[0] for w in words], t.dtype.numpy)
        except (ValueError, OverflowError, KeyError):
            self.at = start
            self.fail(f"values of {t.dtype}")
        if flat.size != t.size:
            self.at = start
            self.fail(f"{t.size} values")
        return flat.reshape(t.shape)

    def value(self) -> Any:
        self.depth += 1
        if self.depth > MAX_NESTING:
            self.fail(f"at most {MAX_NESTING} levels of nesting")
        v = self.literal()
        self.depth -= 1
        return v

    def literal(self) -> Any:
        if self.peek('"'):
            return self.string()
        if self.take("("):
            return tuple(self.rows(self.value, ")"))
        quant = self.quant()
        if quant is not None:
            return quant
        if self.take("%"):
            index = self.operand_index()
            dtype = self.word(_BY_SHORT, "a dtype") if self.take(":") else F32
            return lane.Arg(index, dtype)
        number = self.match(NUMBER)
        if number:
            value: int | float = float(number[0]) if number[1] or number[2] else int(number[0])
            if _WORD.match(self.text, self.at):
                return lane.Imm(value, self.word(_BY_SHORT, "a dtype"))
            return value
        start = self.at
        m = self.match(_WORD)
        if not m:
            self.fail("a value")
        if m[0] in _WORDS or m[0] in _SPECIAL:
            special = _WORDS[m[0]] if m[0] in _WORDS else float(_SPECIAL[m[0]])
            if special is not None and self.take(":"):
                return lane.Imm(special, self.word(_BY_SHORT, "a dtype"))
            return special
        if not self.take("("):
            self.at = start
            return self.word(BY_NAME, "a value")
        if m[0] == "cast":
            x = self.expr()
            self.need(",")
            dtype = self.word(_BY_SHORT, "a dtype")
            self.need(")")
            return lane.Call("cast", (x,), dtype)
        if m[0] in lane.BY_NAME:
            args = self.rows(self.expr, ")")
            return self.checked(lambda: lane.call(m[0], *args))
        if m[0] in PARTS:
            # a level more: it takes more of Python's own stack
            self.depth += 1
            part: Any = self.build(PARTS[m[0]], ")")
            self.depth -= 1
            return part
        self.at = start
        self.fail("a lane function or value")

    def operand_index(self) -> int:
        m = self.match(re.compile(r"\d{1,6}"))
        if not m:
            self.fail("an operand index")
        return int(m[0])

    def expr(self) -> lane.Expr:
        start = self.at
        v = self.value()
        if not isinstance(v, (lane.Arg, lane.Imm, lane.Call)):
            self.at = start
            self.fail("a lane expression")
        return v

    def build(self, kind: type[_Item], end: str) -> _Item:
        """A dataclass from ``name=value`` items."""
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(typing.cast(Any, kind))
        known = {f.name: f.name for f in fields}

        def field() -> tuple[str, Any]:
            name = self.word(known, f"an attribute of {kind.__name__}")
            self.need("=")
            start = self.at
            value = self.value()
            if not _fits(value, hints[name]):
                self.at = start
                self.fail(f"a value of {name}")
            return name, value

        given = dict(self.rows(field, end))
        for f in fields:
            if f.default is dataclasses.MISSING and f.name not in given:
                self.fail(f"attribute {f.name} of {kind.__name__}")
        return kind(**given)

    def checked(self, make: Callable[[], _Item]) -> _Item:
        try:
            return make()
        except InvalidGraph as e:
            raise BadInput(f"line {self.number}: {e.message}") from None

    def end(self) -> None:
        self.space()
        if self.at < len(self.text):
            self.fail("the end of the line")
