"""What to suggest for an operator that has no decoder."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(op: str, known: Iterable[str]) -> str:
    """The ``known`` operators whose names are like ``op``, as a hint."""
    bare = op.rsplit(".", 1)[-1]
    folded = {k.lower(): k for k in known}
    like = difflib.get_close_matches(bare.lower(), list(folded), n=3, cutoff=0.75)
    if like:
        return f"nearest supported: {', '.join(folded[k] for k in like)}"
    return "compute it outside the model, or write it with supported operators"
