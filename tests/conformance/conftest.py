"""Counts of the ONNX node tests, printed after the run (also with xdist)."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many node tests passed, interpreted and compiled, and why others were refused."""
    for kind, title in (("node", "interpreted"), ("native", "compiled")):
        counts = Counter(
            value
            for report in terminalreporter.stats.get("passed", [])
            for key, value in report.user_properties
            if key == kind
        )
        if not counts:
            continue
        terminalreporter.section(f"ONNX node tests, {title}")
        for outcome, n in sorted(
            counts.items(), key=lambda kv: (not kv[0].startswith("passed"), -kv[1])
        ):
            terminalreporter.line(f"{n:5d}  {outcome}")
