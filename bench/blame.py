"""Does blame find the layer that is at fault?

    python bench/blame.py [--models RFB-320,DS-CNN] [--seeds 2] [--first 0] [--kinds bias_off]

A real model is quantized, one layer of it is made faulty (bench/planted.py, drawn from a seed), and
blame is given the faulty model, the float one and samples. A row per model and kind says in how
many draws the faulty layer is named first. Exits with 1 below 95 %.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import islice

from accuracy_tasks import Feeds, Task, tasks
from planted import FAULTS, Planted, passes_on, plant
from sparrow.blame import explain
from sparrow.blame.align import cuts, dequantized_weights
from sparrow.blame.measure import Judge
from sparrow.graph import Graph, Node
from sparrow.importers.model import import_model
from sparrow.ops.quantize import Quantize
from sparrow.passes import FRONT, optimize
from sparrow.portable import to_portable_onnx
from sparrow.quant import decibels, quantize

MODELS = ("digits", "RFB-320", "slim-320", "DS-CNN", "ResNet-8", "mnist-8", "VWW MobileNet")
CALIBRATED = 32
# Decibels that a fault must cost the outputs, and draws until one does.
VISIBLE = 3.0
DRAWS = 20
COMPARED = 4


def quantized(task: Task) -> tuple[Graph, Graph, Sequence[Feeds]]:
    """Float graph, quantized graph as read back from its file, and samples."""
    f = optimize(import_model(str(task.model)).graph, FRONT)
    samples = list(islice(task.folds()[0].calib, CALIBRATED))
    return f, import_model(to_portable_onnx(quantize(f, samples))).graph, samples


def visible(f: Graph, q: Graph, samples: Sequence[Feeds], kind: str, seed: int) -> Planted | None:
    """The first draw of that seed that costs the outputs `VISIBLE` decibels, if one does."""
    judge = Judge(f, cuts(f, dequantized_weights(q).graph), samples)

    def error(g: Graph) -> float:
        return judge.noise(dequantized_weights(g).graph)

    before = error(q)
    for draw in range(DRAWS):
        try:
            planted = plant(q, kind, (seed, draw))
        except LookupError:
            return None
        if decibels(error(planted.graph), before) > VISIBLE:
            return planted
    return None


def _operand(g: Graph, n: Node) -> str:
    """The only operand that varies."""
    return next(x for x in n.inputs if x and x not in g.consts)


def faulty_layer(f: Graph, planted: Planted) -> str:
    """The float value that ends the faulty layer: the first one, behind the fault, of both."""
    g = planted.graph
    at = cuts(f, dequantized_weights(g).graph)
    known = {x: c.name for c in at for x in (c.before, c.after)}
    made, users = g.producers(), g.users()
    start = made[planted.codes]
    todo = [planted.codes]
    if isinstance(start.op, Quantize):
        todo = [start.inputs[0], planted.codes]
    else:
        # a product that stays float: what it makes may be of both before it is moved
        while passes_on(g, start) and (made.get(x := _operand(g, start)) is not None):
            todo.insert(0, x)
            start = made[x]
    for x in todo:
        if x in known:
            return known[x]
        todo += [y for n in users.get(x, ()) for y in n.outputs if y not in todo]
    return planted.codes


def trial(
    f: Graph, q: Graph, samples: Sequence[Feeds], kind: str, seed: int
) -> tuple[int, str] | None:
    """Rank of the faulty layer (0 is first), and what blame said; None if no draw shows."""
    planted = visible(f, q, samples[:COMPARED], kind, seed)
    if planted is None:
        return None
    found = explain(planted.graph, f, samples[:COMPARED], cure=False)
    guilty = faulty_layer(f, planted)
    rank = next((i for i, x in enumerate(found.layers) if x.value == guilty), len(found.layers))
    first = found.culprit
    said = f"{first.value[-40:]}: {first.cause} ({first.detail})"
    if rank:
        said += f"; it is {guilty[-40:]}"
    return rank, said


def main() -> None:
    """Print a row per fault and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--kinds", default=",".join(FAULTS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="first seed: others are other faults")
    given = parser.parse_args()
    hits = total = 0
    for task in [t for t in tasks() if t.name in given.models.split(",")]:
        f, q, samples = quantized(task)
        for kind in given.kinds.split(","):
            for seed in range(given.first, given.first + given.seeds):
                start = time.perf_counter()
                done = trial(f, q, samples, kind, seed)
                if done is None:
                    print(f"{task.name:14} {kind:18} {seed} no draw shows in the outputs")
                    continue
                rank, said = done
                hits, total = hits + (rank == 0), total + 1
                took = time.perf_counter() - start
                print(f"{task.name:14} {kind:18} {seed} rank {rank:3} {took:5.1f} s  {said}")
                sys.stdout.flush()
    print(f"named first: {hits} of {total} ({hits / max(total, 1):.1%})")
    sys.exit(hits < 0.95 * total)


if __name__ == "__main__":
    main()
