"""The name that a package gives its model, so that one program may link several."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sparrow.errors import BadInput

# Literals hold the model's own names and stay; file names stand in literals, see `Name.sources`.
_SYMBOL = re.compile(
    r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\b(?:model|MODEL)(?=_)|(?<=SPARROW_DECLARE\()model\b"""
    r"|\bsparrow(?=_serve_uart\b)|\bSPARROW(?=_SERVE_UART_H\b)"
)
_INCLUDED = re.compile(r'(?<=#include ")[\w.]+(?=")')


@dataclass(frozen=True, slots=True)
class Name:
    """What stands in the place of ``model`` in files, functions, macros and libraries.

    Attributes:
        text: Lower-case words joined by underscores.

    Raises:
        BadInput: It is no such name, or one that Sparrow's own symbols begin with.
    """

    text: str = "model"

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", self.text)
        if plain is None or len(self.text) > 40 or self.text.split("_")[0] in ("sp", "sparrow"):
            raise BadInput(
                f"package name {self.text!r}",
                hint="use up to 40 lower-case letters, digits and single underscores, such as "
                "face_detector; sp and sparrow are taken",
            )

    @property
    def upper(self) -> str:
        """For macros."""
        return self.text.upper()

    @property
    def camel(self) -> str:
        """For names of libraries and classes."""
        return "".join(word.capitalize() for word in self.text.split("_"))

    def symbols(self, source: str) -> str:
        """C text whose functions and macros have this name."""
        return source if self.text == "model" else _SYMBOL.sub(self._symbol, source)

    def _symbol(self, found: re.Match[str]) -> str:
        word = found[0]
        if word[0] in "\"'":
            return word
        return self.upper if word.isupper() else self.text

    def file(self, name: str) -> str:
        """Name of a file of the model; the ABI's header is shared by all models."""
        if self.text == "model" or name == "sparrow.h":
            return name
        stem, dot, suffix = name.partition(".")
        return (self.text if stem == "model" else f"{self.text}_{stem}") + dot + suffix

    def sources(self, files: Mapping[str, str]) -> dict[str, str]:
        """C files, which include one another, with this name."""
        return {
            self.file(n): _INCLUDED.sub(lambda m: self.file(m[0]), self.symbols(text))
            for n, text in files.items()
        }


MODEL = Name()
