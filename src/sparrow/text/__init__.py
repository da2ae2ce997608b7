"""A Graph as text that people read and that reads back: ``parse_graph(*print_graph(g)) == g``."""

from __future__ import annotations

from sparrow.text.parser import parse_graph
from sparrow.text.printer import array_key, print_graph

__all__ = ["array_key", "parse_graph", "print_graph"]
