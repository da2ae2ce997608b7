"""What to suggest for an operator that has no decoder."""

from __future__ import annotations

import difflib

from sparrow.importers.onnx.decode import DECODERS
from sparrow.importers.onnx.decode.refused import DECODERS as REFUSED


def nearest(op: str) -> str:
    """The supported operators whose names are like ``op``, as a hint."""
    known = [k for k in DECODERS if k not in REFUSED]
    bare = op.rsplit(".", 1)[-1]
    folded = {k.lower(): k for k in known}
    like = difflib.get_close_matches(bare.lower(), list(folded), n=3, cutoff=0.75)
    if like:
        return f"nearest supported: {', '.join(folded[k] for k in like)}"
    return "compute it outside the model, or write it with supported operators"
