"""How far every layer of a quantized graph is from the float one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sparrow.ops.quantize import Dequantize
from sparrow.quant.engine import Engine, literally
from sparrow.quant.noise import apart, decibels, power
from sparrow.quant.run import Layer, Quantized
from sparrow.tensor import Array


@dataclass(frozen=True, slots=True)
class LayerReport:
    """A product after quantization.

    Attributes:
        layer: What became of it.
        scale: Step of its result; None where that stays float.
        zero_point: Code of zero.
        sqnr_db: Power of its float result over the power of the difference, errors of the layers
            before it included; infinite where both agree.
    """

    layer: Layer
    scale: float | None
    zero_point: int | None
    sqnr_db: float


def report(
    q: Quantized, samples: Iterable[Mapping[str, Array]], engine: Engine = literally
) -> list[LayerReport]:
    """Compare the float graph and its quantization, value by value.

    Args:
        q: A quantization.
        samples: Feeds; a few are enough.
        engine: What runs both graphs; fused integer kernels would add errors of their own.
    """
    values = [layer.value for layer in q.layers]
    a, b = engine(q.source, values), engine(q.graph, values)
    signal, noise = dict.fromkeys(values, 0.0), dict.fromkeys(values, 0.0)
    for feeds in samples:
        left, right = a(feeds), b(feeds)
        for x in values:
            signal[x] += power(left[x])
            noise[x] += power(apart(right[x], left[x]))
    made = q.graph.producers()
    found = []
    for layer in q.layers:
        x = layer.value
        db = decibels(signal[x], noise[x])
        op = made[x].op
        if not isinstance(op, Dequantize):
            found.append(LayerReport(layer, None, None, db))
            continue
        scale, zero = op.quant.scale.reshape(-1)[0], op.quant.zero_point.reshape(-1)[0]
        found.append(LayerReport(layer, float(scale), int(zero), db))
    return found
