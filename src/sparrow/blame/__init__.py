"""Which layer of a quantized network lost the accuracy, why, and what cures it."""

from __future__ import annotations

from sparrow.blame.bundles import blame_bundle, states_of_bundle
from sparrow.blame.explain import explain
from sparrow.blame.models import apply_cure, blame_model
from sparrow.blame.result import Blame, Cure, LayerBlame

__all__ = [
    "Blame",
    "Cure",
    "LayerBlame",
    "apply_cure",
    "blame_bundle",
    "blame_model",
    "explain",
    "states_of_bundle",
]
