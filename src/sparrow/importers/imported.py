"""What importing a model of any format gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sparrow.graph import Graph

# Extents by input name.
Shapes: TypeAlias = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a source node: ok, decomposed (into ``parts`` ops), folded or missing."""

    name: str
    op: str
    verdict: str
    parts: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """A Graph, where its dynamic dimensions were frozen from, and what became of every node."""

    graph: Graph
    frozen: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
