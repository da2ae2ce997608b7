"""How much of the outputs' error each layer makes when it alone is quantized, measured.

The network stays float but for one layer; the power of the error of the outputs over their own
power is that layer's noise (as in Lin, Talathi, Annapureddy 2016, arXiv:1511.06393, where powers of
layers add; measured at the outputs instead of modelled).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sparrow.blame.align import cuts, dequantized_weights
from sparrow.blame.measure import Judge
from sparrow.quant.few import spread
from sparrow.quant.recipe import Precision, literal
from sparrow.quant.run import Quantized, requantized
from sparrow.quant.widen import COMPARED, IN_A_ROW
from sparrow.samples import Feeds


def sensitivities(
    whole: Quantized,
    layers: Sequence[str],
    precisions: Sequence[Precision],
    samples: Sequence[Feeds],
    progress: Callable[[str], None],
) -> dict[tuple[str, Precision], float]:
    """Noise of each layer at each precision.

    Args:
        whole: The network with every layer quantized.
        layers: Names of products.
        precisions: Those to try; float32 has no noise.
        samples: Feeds, some of which are used.
        progress: Told what happens.
    """
    f = whole.source
    few = samples[:IN_A_ROW] if f.states else spread(samples, COMPARED)
    judge = Judge(f, cuts(f, dequantized_weights(whole.graph).graph), few)
    found: dict[tuple[str, Precision], float] = {}
    for i, name in enumerate(layers):
        progress(f"sensitivity of layer {i + 1} of {len(layers)}")
        found[name, "float32"] = 0.0
        for p in precisions:
            if p == "float32":
                continue
            alone = replace(whole.recipe, precision="float32", pins=((literal(name), p),))
            q = requantized(f, whole.statistics, alone).graph
            found[name, p] = judge.noise(q, judge.names)
    return found
