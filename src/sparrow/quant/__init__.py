"""Float Graph and samples in, the same Graph in QDQ form out.

    g' = quantize(g, samples, Recipe())

``RANGES`` says how the range of an activation is set; what becomes codes is in `place`, how weights
do in `weights`, and docs/accuracy.md has the numbers behind the defaults of `Recipe`.
"""

from __future__ import annotations

from sparrow.quant.calibrate import Calibration, calibrate, digest, from_npz, to_npz
from sparrow.quant.health import Health
from sparrow.quant.noise import decibels
from sparrow.quant.ranges import RANGES
from sparrow.quant.recipe import Precision, Recipe
from sparrow.quant.report import LayerReport, report
from sparrow.quant.run import Layer, Quantized, quantize, run

__all__ = [
    "RANGES",
    "Calibration",
    "Health",
    "Layer",
    "LayerReport",
    "Precision",
    "Quantized",
    "Recipe",
    "calibrate",
    "decibels",
    "digest",
    "from_npz",
    "quantize",
    "report",
    "run",
    "to_npz",
]
