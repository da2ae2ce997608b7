"""Which samples judge a quantization, and which may calibrate its cures.

A cure that calibrated on the samples which judge it looks better than it is. Samples that the
receipt of a bundle does not name calibrated nothing of it; where nothing is known, every fifth is
held out, up to 64, as `build` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sparrow.evidence.held_out import EVERY, HELD
from sparrow.quant.calibrate import digest
from sparrow.tensor import Array

NEW = "that did not calibrate the bundle"
Feeds = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Split:
    """Samples in two.

    Attributes:
        judges: On which networks are compared.
        calibrates: On which cures calibrate.
        kind: In words, which samples ``judges`` are.
    """

    judges: tuple[Feeds, ...]
    calibrates: tuple[Feeds, ...]
    kind: str


def split(samples: Sequence[Feeds], calibrated: Collection[str] | None) -> Split:
    """Those that judge and those that calibrate.

    Args:
        samples: All there are.
        calibrated: SHA-256 of the samples that calibrated what is judged; None where that is not
            known.
    """
    if calibrated is not None:
        new = tuple(f for f in samples if digest(f) not in calibrated)
        old = tuple(f for f in samples if digest(f) in calibrated)
        if new and old:
            return Split(new, old, NEW)
        if new:
            held, rest = _every_fifth(new)
            return Split(held or new, rest or new, NEW)
    origin = (
        "what calibrated the model is not known"
        if calibrated is None
        else "all of them calibrated the bundle"
    )
    held, rest = _every_fifth(samples)
    if held:
        kind = f"held out of {len(samples)} (every fifth; cures calibrate on the others; {origin})"
        return Split(held, rest, kind)
    kind = f"on which cures calibrate as well (too few to hold any out; {origin})"
    return Split(tuple(samples), tuple(samples), kind)


def _every_fifth(samples: Sequence[Feeds]) -> tuple[tuple[Feeds, ...], tuple[Feeds, ...]]:
    """Held out, and the rest; of equal samples none is in both."""
    at = set(range(EVERY - 1, len(samples), EVERY)[:HELD])
    rest = tuple(f for i, f in enumerate(samples) if i not in at)
    seen = {digest(f) for f in rest}
    return tuple(f for i, f in enumerate(samples) if i in at and digest(f) not in seen), rest
