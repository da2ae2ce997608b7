"""From what was measured of a layer to the name of what went wrong.

The part of the error that is largest says where to look; statistics there say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparrow.blame.align import Cut
from sparrow.blame.measure import Error
from sparrow.graph import Node
from sparrow.ops.concat import Concat
from sparrow.ops.lane import Lane
from sparrow.ops.softmax import Softmax
from sparrow.tensor import Array

# What no rounding explains.
DEFECTS = ("foreign weights", "foreign bias", "coarse weights", "wrong implementation")
# Channels of one scale are uneven when the widest is this many times the median one.
UNEVEN = 8.0
# Largest value over the 99.9th percentile.
OUTLIER = 3.0
# Share of the codes' range that values reach.
DEAD = 0.4
# Weights whose largest code is below this use a quarter of the codes.
FEW = 32
# Scales of operands under one result.
MISMATCH = 6.0
# Rounding moves a weight by half a step; twice that is no rounding.
ROUNDED = 1.01
# Float weights of two files differ by how what was folded into them rounds: share of the largest.
FOLDED = 1e-5
# Share of the error of weights that is a constant per channel.
BIASED = 0.6
# AdaRound and bias correction move a bias by a little; a layer's result moves no more than this.
DRIFT = 0.05
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Cause:
    """What went wrong in a layer: a name of the field, and the figures that say so."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class Constants:
    """The constants of a layer in both graphs, output channels along the first axis.

    Attributes:
        real: Weights of the float graph.
        coded: What the codes of the quantized graph mean.
        step: Scale of the codes: one, one per output channel, or one per weight.
        bias: Largest |bias of the quantized graph - bias of the float graph|.
    """

    real: NDArray[np.float32]
    coded: NDArray[np.float32]
    step: Array
    bias: float

    @property
    def foreign(self) -> float:
        """Share of the weights that are farther from the float ones than rounding puts them."""
        step = self.step
        if step.size in (1, len(self.real)):
            step = step.reshape(-1, *(1,) * (self.real.ndim - 1))
        elif step.shape != self.real.shape:
            step = step.max()
        steps = np.broadcast_to(step, self.real.shape)
        most = ROUNDED * steps + FOLDED * np.abs(self.real).max(initial=0)
        return float((np.abs(self.coded - self.real) > most).mean())

    @property
    def off(self) -> float:
        """Power of the error of the weights as a share of theirs."""
        real = self.real.astype(np.float64)
        return float(np.square(self.coded - real).sum() / max(np.square(real).sum(), 1e-300))

    @property
    def levels(self) -> int:
        """The largest code of the weights; not few where they are floats."""
        step = float(self.step.max(initial=0))
        return int(np.abs(self.real).max(initial=0) / step + 0.5) if step else FEW

    @property
    def uneven(self) -> float:
        """Largest magnitude of the widest output channel over that of the median one."""
        return _ratio(np.abs(self.real.reshape(len(self.real), -1)).max(1, initial=0))

    @property
    def uneven_inputs(self) -> float:
        """Likewise of input channels, which share a scale in every output channel."""
        if self.real.ndim < 2:
            return 1.0
        inputs = np.moveaxis(self.real, 1, 0).reshape(self.real.shape[1], -1)
        return _ratio(np.abs(inputs).max(1, initial=0))


def _ratio(peaks: Array) -> float:
    alive = peaks[peaks > 0]
    return float(alive.max() / np.median(alive)) if alive.size else 1.0


def _lowest(peaks: Array) -> float:
    alive = peaks[peaks > 0]
    return float(alive.max() / np.quantile(alive, 0.25)) if alive.size else 1.0


def cause(
    e: Error,
    cut: Cut,
    made: Node | None,
    constants: Constants | None,
    operands: Sequence[float],
) -> Cause:
    """The cause of a layer's own error.

    Args:
        e: What was measured.
        cut: The layer's result.
        made: The node of the float graph that makes it.
        constants: Of the layer's product, if it has one.
        operands: Largest magnitude of each operand of ``made``.
    """
    if e.own <= SAME * e.signal or e.signal == 0:
        return Cause("none", "as good as the float layer")
    parts = {
        "weights": e.weights,
        "implementation": e.implementation,
        "inside": e.inside,
        "codes": e.codes,
    }
    worst = max(parts, key=lambda k: parts[k])
    if worst == "implementation":
        share = 10 * np.log10(e.signal / e.implementation)
        return Cause(
            "wrong implementation",
            f"the same weights and inputs give another result ({share:.0f} dB)",
        )
    if worst == "weights":
        return _weights(e, constants)
    if worst == "inside":
        return _inner(e)
    if cut.quant is None or cut.dtype is None:
        return Cause("rounding", "of float arithmetic")
    return _codes(e, cut, made, operands)


def _weights(e: Error, c: Constants | None) -> Cause:
    drift = float(np.square(e.shift).sum() * len(e.shift) / max(e.count, 1))
    biased = drift > BIASED * e.weights
    if c is None:
        return Cause("weight error", "weights or bias of the layer")
    if c.foreign > 0:
        return Cause(
            "foreign weights",
            f"{c.foreign:.1%} of the weights are farther from the model's than rounding puts them",
        )
    if c.levels < FEW:
        return Cause("coarse weights", f"weights reach only the codes -{c.levels} to {c.levels}")
    if c.step.size == 1 and c.uneven > UNEVEN:
        return Cause(
            "uneven channels",
            f"one scale for weights whose widest channel is {c.uneven:.0f} times the median one",
        )
    # what a function makes of a bias may be far less than the bias
    shift = float(np.abs(e.shift).max(initial=0)) * len(e.shift) / max(e.count, 1)
    moved = min(c.bias, shift) / max(-e.low, e.high, 1e-300)
    if moved > DRIFT and biased:
        return Cause("foreign bias", f"a bias is off by {moved:.2g} of the result's largest value")
    if biased:
        return Cause("accumulated bias", "rounded weights shift the mean of the channels")
    if c.step.size == 1 and _lowest(np.abs(c.real.reshape(len(c.real), -1)).max(1)) > UNEVEN:
        return Cause("uneven channels", "one scale for channels of very different weights")
    if c.step.shape != c.real.shape and c.uneven_inputs > UNEVEN:
        return Cause(
            "uneven channels",
            "one scale for weights of input channels of which the widest is "
            f"{c.uneven_inputs:.0f} times the median one",
        )
    return Cause("weight rounding", "of 8-bit weights")


def _inner(e: Error) -> Cause:
    name = max(e.inner, key=lambda x: float(e.inner[x][0]))
    lost, clipped = (float(x) for x in e.inner[name])
    if clipped > 0.5 * lost:
        return Cause("saturation", f"inside the layer: values of {name} lie beyond their codes")
    return Cause("rounding", f"of {len(e.inner)} values inside the layer, most at {name}")


def _codes(e: Error, cut: Cut, made: Node | None, operands: Sequence[float]) -> Cause:
    assert cut.quant is not None and cut.dtype is not None
    scale = float(cut.quant.scale.max())
    zero = int(cut.quant.zero_point.reshape(-1)[0])
    low, high = ((limit - zero) * scale for limit in cut.dtype.limits)
    sample = np.concatenate(e.sample) if e.sample else np.zeros(1)
    peak, most = max(-e.low, e.high), float(np.quantile(sample, 0.999))
    if e.clipped > 0.5 * e.codes:
        return Cause(
            "saturation",
            f"{e.outside / max(e.count, 1):.1%} of the values lie beyond [{low:.4g}, {high:.4g}], "
            f"they reach [{e.low:.4g}, {e.high:.4g}]",
        )
    if isinstance(made.op if made else None, Softmax):
        return Cause("softmax tail", f"probabilities below {scale / 2:.2g} become 0")
    used = (e.high - e.low) / max(high - low, 1e-300)
    if used < DEAD:
        return Cause("dead range", f"values use {used:.0%} of the range [{low:.4g}, {high:.4g}]")
    if made is not None and isinstance(made.op, (Concat, Lane)) and len(operands) > 1:
        ratio = max(operands) / max(min(operands), 1e-300)
        if ratio > MISMATCH:
            return Cause(
                "scale mismatch",
                f"one scale for operands of which one reaches {ratio:.3g} times the other",
            )
    if most > 0 and peak > OUTLIER * most:
        return Cause(
            "outlier range", f"values reach {peak:.4g}, 99.9 % of them stay below {most:.4g}"
        )
    if _lowest(e.peaks) > UNEVEN:
        return Cause(
            "uneven channels",
            f"one scale for channels of which a quarter stay {_lowest(e.peaks):.0f} times below "
            "the widest",
        )
    return Cause("rounding", f"to {cut.dtype.bits}-bit codes of step {scale:.3g}")
