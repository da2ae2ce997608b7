"""How much of the outputs' error each layer makes when it alone is quantized, measured.

The network stays float but for one layer; the power of the error of the outputs over their own
power is that layer's noise (as in Lin, Talathi, Annapureddy 2016, arXiv:1511.06393, where powers of
layers add; measured at the outputs instead of modelled).

A layer whose codes change nothing of any sample is one that no sample reached (the other branch of
a condition, a gate that stayed shut): what it would do is not known, and is taken for the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sparrow.blame.align import cuts, dequantized_weights
from sparrow.blame.measure import Judge
from sparrow.quant.few import spread
from sparrow.quant.recipe import Precision, literal
from sparrow.quant.run import Quantized, requantized
from sparrow.samples import Feeds

# Samples that layers are compared on: as many as take so many operations, within bounds; where
# there are states, the last of them in a row.
LOOK = 2.5e9
COMPARED = 4, 16


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
    low, high = COMPARED
    wanted = max(low, min(high, int(LOOK / max(f.flops(), 1))))
    few = samples[:high] if f.states else spread(samples, wanted)
    judge = Judge(f, cuts(f, dequantized_weights(whole.graph).graph), few)
    found: dict[tuple[str, Precision], float] = {}
    silent: list[tuple[str, Precision]] = []
    for i, name in enumerate(layers):
        progress(f"sensitivity of layer {i + 1} of {len(layers)}")
        found[name, "float32"] = 0.0
        for p in precisions:
            if p == "float32":
                continue
            alone = replace(whole.recipe, precision="float32", pins=((literal(name), p),))
            q = requantized(f, whole.statistics, alone).graph
            found[name, p] = judge.noise(q, judge.names)
            # where a layer cannot have the precision, the graph is the float one
            if found[name, p] == 0 and len(q.nodes) > len(f.nodes):
                silent.append((name, p))
    worst = {p: max((v for (_, q), v in found.items() if q == p), default=0.0) for p in precisions}
    return found | {(name, p): worst[p] for name, p in silent}
