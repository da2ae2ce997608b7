"""What quantizations of a network lose of its accuracy; the float network answers once for all."""

from __future__ import annotations

from collections.abc import Mapping

from sparrow.errors import BadInput
from sparrow.evidence.disagreement import Disagreement
from sparrow.evidence.held_out import Lossy
from sparrow.graph import Graph
from sparrow.quant.engine import literally
from sparrow.quant.run import Quantized
from sparrow.request import Evaluate, Predict
from sparrow.tensor import Array


def _predictor(g: Graph, name: str, outputs: tuple[str, ...]) -> Predict:
    """A graph as `sparrow.bundle.Bundle.run` calls a bundle, under the names of the float one."""
    run = literally(g, g.outputs)

    def predict(feeds: Mapping[str, Array], entry: str | None = None) -> dict[str, Array]:
        if entry not in (None, name):
            raise BadInput(f"entry {entry!r} is unknown", hint=f"entries: {name}")
        found = run(feeds)
        return {y: found[y] for y in outputs}

    return predict


class Drops:
    """Losses of accuracy, on samples that calibrated or by the user's function.

    Args:
        lossy: The network, and the samples.
        evaluate: Accuracy of a predictor; None: disagreement with the float network.
    """

    def __init__(self, lossy: Lossy, evaluate: Evaluate | None) -> None:
        self._float, self._samples = lossy.quantized.source, lossy.kept
        self._evaluate = evaluate
        self._accuracy: float | None = None
        self._answers: list[dict[str, Array]] = []

    def of(self, q: Quantized | None) -> float:
        """What a quantization loses; None stands for the float network.

        The integers of the build are those of its QDQ graph but for ties.
        """
        if q is None:
            return 0.0
        f = self._float
        names = f.name, f.outputs
        predict = _predictor(q.graph, *names)
        if self._evaluate is not None:
            if self._accuracy is None:
                self._accuracy = float(self._evaluate(_predictor(f, *names)))
            return self._accuracy - float(self._evaluate(predict))
        if not self._answers:
            plain = _predictor(f, *names)
            self._answers = [plain(x) for x in self._samples]
        loss = Disagreement(f.types[x].shape for x in f.inputs)
        for x, answer in zip(self._samples, self._answers, strict=True):
            loss.add(predict(x), answer)
        return loss.share
