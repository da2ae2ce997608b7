"""How the range of an activation is set: a histogram to the real numbers its codes cover."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from sparrow.quant.aciq import aciq
from sparrow.quant.affine import Range
from sparrow.quant.entropy import entropy
from sparrow.quant.histogram import Histogram
from sparrow.quant.minmax import minmax
from sparrow.quant.mse import mse
from sparrow.quant.octav import octav
from sparrow.quant.percentile import percentile
from sparrow.quant.recipe import Ranges
from sparrow.tensor import DType

RangeSetter: TypeAlias = Callable[[Histogram, DType, bool], Range]
RANGES: Mapping[Ranges, RangeSetter] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
    "aciq": aciq,
    "octav": octav,
}
