"""The expression of a value over whatever is not a private chain of elementwise ops above it."""

from __future__ import annotations

from sparrow import lane
from sparrow.ops.lane import Lane
from sparrow.rewrite import Match

MAX_DEPTH = 12


class Unfolded:
    """Expressions over one table of leaves, so that equal values are equal expressions.

    A leaf is a value that is no Lane's result or is read more than once; chains above it stay
    closed. Shapes are forgotten: who matches compares the types of the leaves.
    """

    def __init__(self, m: Match) -> None:
        self.m = m
        self.leaves: list[str] = []

    def leaf(self, value: str) -> lane.Arg:
        """A value as an argument."""
        if value not in self.leaves:
            self.leaves.append(value)
        return lane.Arg(self.leaves.index(value), self.m.type(value).dtype)

    def of(self, value: str, depth: int = MAX_DEPTH) -> lane.Expr:
        """The expression of a value, opened at least once if a Lane defines it."""
        p = self.m.producer(value, Lane)
        if p is None:
            return self.leaf(value)
        assert isinstance(p.op, Lane)
        args: list[lane.Expr] = []
        for x in p.inputs:
            private = depth and self.m.only_user(x) is not None
            args.append(self.of(x, depth - 1) if private else self.leaf(x))
        return lane.substitute(p.op.expr, args)

    def name(self, e: lane.Expr) -> str | None:
        """The value of an argument, None for any other expression."""
        return self.leaves[e.index] if isinstance(e, lane.Arg) else None
