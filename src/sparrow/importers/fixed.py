"""Inputs that a user fixes to a value when a model is compiled, such as a sample rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparrow.errors import BadInput
from sparrow.importers.imported import Shapes
from sparrow.tensor import Array, TensorType, round_bfloat16

SHOWN = 4


def with_own_shapes(shapes: Shapes, constants: Mapping[str, Any]) -> Shapes:
    """``shapes`` and those of fixed inputs that are given as arrays; a number has none."""
    return {**{k: np.shape(v) for k, v in constants.items() if np.ndim(v)}, **shapes}


def fixed(value: Any, name: str, t: TensorType) -> Array:
    """A value as what input ``name`` always holds; one number fills the whole shape.

    Args:
        value: A number or truth value, or an array of the shape of the input.
        name: Of the input, for messages.
        t: Its type.

    Raises:
        BadInput: The value is no number, of another shape or kind, or too large for the type.
    """
    a = np.asarray(value)
    kinds = {"float": "fiu", "bool": "b"}.get(t.dtype.kind, "iu")
    truth = t.dtype.kind == "bool" and a.dtype.kind in "iu" and bool(np.isin(a, (0, 1)).all())
    if (a.dtype.kind not in kinds and not truth) or (a.ndim and a.shape != t.shape):
        raise BadInput(
            f"constant {name!r}: expected {t}, got {a.dtype}{list(a.shape)}",
            hint=f"give one number, or an array of shape {list(t.shape)}",
        )
    if t.dtype.kind in ("int", "uint") and a.size:
        low, high = t.dtype.limits
        if int(a.min()) < low or int(a.max()) > high:
            raise BadInput(f"constant {name!r}: {a.min()}..{a.max()} does not fit {t.dtype}")
    with np.errstate(over="ignore"):
        b = np.array(np.broadcast_to(a, t.shape), dtype=t.dtype.numpy, order="C")
    if b.dtype.kind == "f" and not np.array_equal(np.isfinite(b), np.isfinite(a) & (b == b)):
        raise BadInput(f"constant {name!r}: {a.min()}..{a.max()} does not fit {t.dtype}")
    return round_bfloat16(b) if t.dtype.name == "bfloat16" else b


def said(name: str, a: Array) -> str:
    """A fixed input as a line of the receipt: ``sr = 16000``, at most SHOWN values."""
    values = ", ".join(str(v) for v in a.ravel()[:SHOWN].tolist())
    more = f", .. {a.size} values" if a.size > SHOWN else ""
    return f"{name} = {values}{more} as a constant"
