"""One check of a bundle by name, and what it found."""

from __future__ import annotations

from dataclasses import dataclass

# The gate of the build itself: a bundle is not written without it.
AUDITED = "memory plan audited"
SPLIT = "splitting the work changes no bit"


@dataclass(frozen=True, slots=True)
class Gate:
    """A named check: what was expected and what was found."""

    name: str
    expected: str
    found: str
    ok: bool
