"""Lane expressions as C statements: each distinct subexpression once."""

from __future__ import annotations

from collections.abc import Mapping

from sparrow import lane

ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}


class Text:
    """Collects statements; what one call becomes is `make` of a subclass.

    Args:
        args: C expressions of the operands.
    """

    def __init__(self, args: Mapping[int, str]) -> None:
        self.lines: list[str] = []
        self.args = args
        self.done: dict[lane.Expr, str] = {}

    def of(self, e: lane.Expr) -> str:
        """A name or literal that holds the value of a subexpression."""
        if e not in self.done:
            self.done[e] = self.make(e)
        return self.done[e]

    def make(self, e: lane.Expr) -> str:
        """`of` for what has not been computed yet."""
        raise NotImplementedError

    def let(self, ctype: str, text: str) -> str:
        """The name of a new constant."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"const {ctype} {name} = {text};")
        return name

    def statements(self, result: str) -> list[str]:
        """Those that ``result`` needs: products may have gone into a fused multiply-add."""
        kept: list[str] = []
        needed = result
        for line in reversed(self.lines):
            name = line.split(" = ")[0].split()[-1]
            if any(part == name for part in _words(needed)):
                kept.append(line)
                needed += " " + line.split(" = ", 1)[1]
        return kept[::-1]


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
