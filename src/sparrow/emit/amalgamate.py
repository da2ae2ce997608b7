"""Native headers with their includes in place, so that an artifact needs no other file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*\n', re.MULTILINE)


def amalgamate(headers: Iterable[str]) -> str:
    """The text of native headers with their quoted includes inlined, each once."""
    root = resources.files("sparrow") / "native"
    done: set[str] = set()
    out: list[str] = []

    def add(path: str) -> None:
        if path in done:
            return
        done.add(path)
        text = (root / path).read_text(encoding="utf-8")
        folder = path.rsplit("/", 1)[0] if "/" in path else ""
        for inner in _INCLUDE.findall(text):
            parts: list[str] = [p for p in folder.split("/") if p]
            for piece in inner.split("/"):
                if piece == "..":
                    parts.pop()
                elif piece != ".":
                    parts.append(piece)
            add("/".join(parts))
        out.append(_INCLUDE.sub("", text))

    for h in headers:
        add(h)
    return "\n".join(out)
