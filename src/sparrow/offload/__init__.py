"""What of a model an accelerator runs, why the rest not, and the file that its compiler takes."""

from __future__ import annotations

from sparrow.offload.model import Offload, inspect, offload

__all__ = ["Offload", "inspect", "offload"]
