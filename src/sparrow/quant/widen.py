"""16 bits for values that want them, found by trying.

One scale serves all elements of a value, and where a few are a hundred times the others, as in a
spectrum or a state that passes through every layer, 8 bits leave nothing of the small ones. Each
value is rounded alone in the float network (as in Lin, Talathi, Annapureddy 2016,
arXiv:1511.06393), and what that does to the outputs (`sparrow.quant.judged`) is compared with their
power and with the error of the whole quantized network. Two kinds take 16 bits:

    spoilt     the value alone makes an error of a hundredth of the outputs' power; what its maker
               and its readers read and make besides takes 16 bits with it
    dominant   it makes a twentieth of the whole error, and costs little: what makes the most error
               for its cost comes first, until a tenth of the network's multiplications and elements
               have two bytes; none may become larger than the largest value was

The second kind is looked for until the outputs are as near to the float ones as the recipe asks.
Powers of errors add, so that halving what is rounded finds them, and a network that is near enough,
or whose error is spread evenly or lies in its weights, is done after a few looks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sparrow.graph import Graph
from sparrow.quant.engine import Engine, Run, literally
from sparrow.quant.few import Few
from sparrow.quant.judged import judged
from sparrow.quant.layers import Codes, shaped
from sparrow.quant.noise import apart, power
from sparrow.quant.place import Placement
from sparrow.quant.qdq import insert
from sparrow.tensor import Array

# Power of the error of an output over its own, from which on it counts as spoilt: 20 dB.
SPOILT = 0.01
# Share of the whole error from which on a value dominates: a quarter of a decibel.
DOMINANT = 0.05
# Share of a network's multiplications, and of its elements, that may have two bytes for it: added,
# because depthwise layers are as slow as they are large. Measured, a twentieth of the time.
WORK = 0.1
# Samples that are looked at: of all, or in a row where states go from one to the next.
COMPARED = 4
IN_A_ROW = 16


@dataclass(frozen=True, slots=True)
class Wide:
    """A value that takes 16 bits.

    Attributes:
        value: The one that stands for its group.
        all: Those that take 16 bits with it, itself included.
        power: Error that its rounding alone makes, as a share of the outputs' power.
        part: The same as a share of the network's error, of a value that dominates it; None of one
            that spoils.
    """

    value: str
    all: tuple[str, ...]
    power: float
    part: float | None


def few_of(g: Graph) -> Few[Mapping[str, Array]]:
    """What takes from the samples of a graph those that values are compared on."""
    return Few(IN_A_ROW if g.states else COMPARED, in_a_row=bool(g.states))


def too_wide(
    g: Graph,
    p: Placement,
    codes: Codes,
    quantized: Callable[[Collection[str]], Graph],
    samples: Sequence[Mapping[str, Array]],
    enough: float,
    fixed: Collection[str] = (),
    engine: Engine = literally,
) -> list[Wide]:
    """The values that want 16 bits.

    Args:
        g: Float graph.
        p: Where codes are.
        codes: Types and scales of all values that are.
        quantized: The QDQ graph of these codes, but for some values that have 16 bits.
        samples: Feeds, see `few_of`.
        enough: Error of the quantized network, as a share of the outputs' power, that is no cause
            to spend anything.
        fixed: Values whose precision was asked for.
        engine: What runs the graphs.
    """
    outputs = judged(g)
    members = {root: [x for x in p.group if p.group[x] == root] for root in p.sources}
    roots = [
        root
        for root, xs in members.items()
        if codes[root][0].bits == 8 and set(fixed).isdisjoint(xs)
    ]
    if not outputs or not samples or not roots:
        return []
    error = _error_of(g, outputs, samples, engine)

    def alone(some: Sequence[str]) -> float:
        rounded = shaped(g, {x: codes[x] for root in some for x in members[root]})
        return error(engine(insert(g, rounded, {}, p.coded), outputs))

    def found_in(some: Sequence[str], least: float) -> dict[str, float]:
        power = alone(some)
        if power <= least or len(some) == 1:
            return {some[0]: power} if power > least else {}
        half = len(some) // 2
        return found_in(some[:half], least) | found_in(some[half:], least)

    spoilt = found_in(roots, SPOILT)
    taken = [
        Wide(root, tuple(x for x in _beside(g, p, root) if x in roots), power, None)
        for root, power in spoilt.items()
    ]
    already = {x for w in taken for x in w.all}
    whole = error(engine(quantized(already), outputs))
    rest = [root for root in roots if root not in already]
    found = found_in(rest, DOMINANT * whole) if rest and whole > enough else {}
    cost = _costs(g, p)
    largest = max(g.types[x].size for x in p.group)

    def fits(root: str) -> bool:
        return 2 * max(g.types[x].size for x in members[root]) <= largest

    left, error_left = WORK, whole
    for root in sorted(found, key=lambda r: found[r] / max(cost[r], 1e-12), reverse=True):
        if error_left > enough and cost[root] <= left and fits(root):
            taken.append(Wide(root, (root,), found[root], found[root] / whole))
            left -= cost[root]
            error_left -= found[root]
    return taken


def _beside(g: Graph, p: Placement, root: str) -> tuple[str, ...]:
    """The groups that a layer of 16 bits which makes or reads a group holds."""
    found = {root: None}
    for n in g.nodes:
        y = n.outputs[0]
        groups = [p.group[x] for x in (*n.inputs, *n.outputs) if x in p.group]
        moves = bool(n.inputs) and y in p.group and p.group[y] == p.group.get(n.inputs[0])
        if y in p.coded and not moves and root in groups:
            found |= dict.fromkeys(groups)
    return tuple(found)


def _error_of(
    g: Graph, outputs: Sequence[str], few: Sequence[Mapping[str, Array]], engine: Engine
) -> Callable[[Run], float]:
    """How far the outputs of a run are from those of the float graph: shares of power, summed."""
    run = engine(g, outputs)
    real = [{y: run(feeds)[y] for y in outputs} for feeds in few]

    def error(other: Run) -> float:
        signal, noise = dict.fromkeys(outputs, 0.0), dict.fromkeys(outputs, 0.0)
        for feeds, want in zip(few, real, strict=True):
            found = other(feeds)
            for y in outputs:
                signal[y] += power(want[y])
                noise[y] += power(apart(found[y], want[y]))
        return sum(noise[y] / max(signal[y], 1e-300) for y in outputs)

    return error


def _costs(g: Graph, p: Placement) -> dict[str, float]:
    """Of each group, its share of the products' multiplications and of the elements of codes."""
    work, elements = dict.fromkeys(p.sources, 0.0), dict.fromkeys(p.sources, 0.0)
    total = 0.0
    for n in p.sums:
        flops = float(n.op.flops(g.in_types(n), g.out_types(n)))
        total += flops
        for root in {p.group[x] for x in n.inputs[:2] if x in p.group}:
            work[root] += flops
    for x, root in p.group.items():
        elements[root] += g.types[x].size
    every = sum(elements.values())
    return {r: work[r] / max(total, 1.0) + elements[r] / max(every, 1.0) for r in p.sources}
