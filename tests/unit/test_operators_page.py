"""The list of operators in the docs is the one in the code."""

from __future__ import annotations

from data import REPO
from operators import page


def test_operators_page_is_up_to_date() -> None:
    text = (REPO / "docs" / "operators.md").read_text(encoding="utf-8")
    assert text == page(), "run: python tools/operators.py > docs/operators.md"


def test_at_least_130_standard_operators_are_decoded() -> None:
    count = int(page().split("decodes ")[1].split()[0])
    assert count >= 130
