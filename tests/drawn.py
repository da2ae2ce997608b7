"""A graph that is drawn from a seed, with its feeds: what cases of kernels are made with."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.tensor import Array

Made: TypeAlias = tuple[Graph, dict[str, Array]]
"""A graph whose result is ``y``, and what is fed to it."""


class Drawn:
    """A graph in the making; what it is made of follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(f"case{seed}")
        self.feeds: dict[str, Array] = {}

    def n(self, low: int, high: int) -> int:
        """An integer, the ends among them."""
        return int(self.rng.integers(low, high + 1))

    def flag(self) -> bool:
        """True or false."""
        return bool(self.n(0, 1))

    def finish(self, y: str) -> Made:
        """The graph that gives ``y``."""
        return self.b.finish({"y": y}, {}), self.feeds
