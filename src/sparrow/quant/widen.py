"""16 bits for values that want them, found by trying.

One scale serves all elements of a value, and where a few are a hundred times the others, as in a
spectrum or a state that passes through every layer, 8 bits leave nothing of the small ones. Each
value is rounded alone in the float network (as in Lin, Talathi, Annapureddy 2016,
arXiv:1511.06393), and what that does to the outputs (`sparrow.quant.judged`) is compared with their
power and with the error of the whole quantized network. Two kinds take 16 bits, a third none:

    exact      16 bits of the value alone make an error of a hundredth of the outputs' power, as of
               a spectrum whose logarithm is taken: what reads it stays float; so does a recurrent
               layer whose codes saturate the state that it begins with (`cut_states`)
    spoilt     the value alone makes an error of a hundredth of the outputs' power; what its maker
               and its readers read and make besides takes 16 bits with it
    dominant   it makes a twentieth of the whole error, and costs little: what makes the most error
               for its cost comes first, until a tenth of the network's multiplications and elements
               have two bytes; none may become larger than the largest value was. What a cheap
               function alone reads of a sum is no code instead (`sparrow.quant.functions`), at less
               than half of that cost, from a hundredth of the error on and in another tenth

The last kind is looked for until the outputs are as near to the float ones as the recipe asks.
Powers of errors add, so that halving what is rounded finds them, and a network that is near enough,
or whose error is spread evenly or lies in its weights, is done after a few looks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparrow.graph import Graph
from sparrow.ops.lane import Lane
from sparrow.quant.calibrate import Calibration
from sparrow.quant.engine import Engine, Run, literally
from sparrow.quant.few import Few
from sparrow.quant.functions import fusable
from sparrow.quant.judged import judged
from sparrow.quant.kinds import hidden_results, initial_hidden
from sparrow.quant.layers import Codes, shaped
from sparrow.quant.noise import apart, power
from sparrow.quant.place import Placement
from sparrow.quant.qdq import insert
from sparrow.tensor import F32, Array

# Power of the error of an output over its own, from which on it counts as spoilt: 20 dB.
SPOILT = 0.01
# Share of the whole error from which on a value dominates: a quarter of a decibel.
DOMINANT = 0.05
# The same of a value that a cheap function may read as a float.
FUSED = 0.01
# Share of a network's multiplications, and of its elements, that may have two bytes for it: added,
# because depthwise layers are as slow as they are large. Measured, 2 to 6 % of the time.
WORK = 0.1
# What a function over the floats of a sum costs of what 16 bits of as many elements do: hard-swish
# on AVX-512, measured.
FUSING = 0.4
# Of the mean power of an output, what fainter samples count as: whatever is rounded is much of what
# is next to nothing, a silence or an empty mask.
FAINT = 0.01
# Samples that are looked at: of all, or in a row where states go from one to the next. Where few
# hold the error, four said a third of it.
COMPARED = 16


@dataclass(frozen=True, slots=True)
class Wide:
    """A value that takes 16 bits.

    Attributes:
        value: The one that stands for its group.
        all: Those that take 16 bits with it, itself included.
        power: Error that its rounding alone makes, as a share of the outputs' power.
        part: The same as a share of the network's error, of a value that dominates it; None of one
            that spoils.
        fused: Whether it is a float that a function reads instead.
    """

    value: str
    all: tuple[str, ...]
    power: float
    part: float | None
    fused: bool = False


def too_fine(
    g: Graph,
    p: Placement,
    codes: Codes,
    samples: Sequence[Mapping[str, Array]],
    fixed: Collection[str] = (),
    engine: Engine = literally,
) -> dict[str, float]:
    """Groups that 16 bits spoil -> error that those alone make, as a share of the outputs' power.

    Args:
        g: Float graph.
        p: Where codes are, of 16 bits.
        codes: Types and scales of all values that are.
        samples: Feeds, see `few_of`.
        fixed: Values whose precision was asked for.
        engine: What runs the graphs.
    """
    outputs, roots = judged(g), _roots(p, codes, 16, fixed)
    if not outputs or not samples or not roots:
        return {}
    alone = _alone(g, p, codes, _error_of(g, outputs, samples, engine), engine)
    return _found_in(roots, SPOILT, alone)


def cut_states(
    g: Graph, p: Placement, codes: Codes, c: Calibration, fixed: Collection[str] = ()
) -> dict[str, tuple[float, float]]:
    """Recurrent layers whose codes saturate what they begin with -> how far either reaches.

    One grid of hidden codes serves all steps, and what a layer makes from zeros lies within [-1,
    1]. Where a hundredth of the power of its initial state lies beyond both, the first steps are
    spoilt; codes that reach further, as those of a GRU do whose states fade from there, spoil all.

    Args:
        g: Float graph.
        p: Where codes are.
        codes: Types and scales of all values that are.
        c: Of the values of ``p``.
        fixed: Values whose precision was asked for.
    """
    found = {}
    for n in p.cells:
        h = initial_hidden(n)
        made = [codes[x] for x in hidden_results(n) if x in codes]
        if not h or not made or n.outputs[0] in fixed:
            continue
        if h in g.consts:
            x = g.consts[h].astype(np.float64)
            count = np.ones(x.shape, np.int64)
        else:
            x, count = c.values[h].histogram.centers(), c.values[h].histogram.counts
        dtype, grid = made[0]
        step, zero = float(grid.scale.max()), int(grid.zero_point.max())
        low, high = (float(np.clip(step * (q - zero), -1, 1)) for q in dtype.limits)
        beyond = x - np.clip(x, low, high)
        if (count * beyond**2).sum() > SPOILT * (count * x**2).sum():
            found[n.outputs[0]] = float(np.abs(x[count > 0]).max()), max(-low, high)
    return found


def readers(g: Graph, p: Placement, root: str) -> tuple[str, ...]:
    """First results of what computes on a group of codes."""
    found = []
    for n in g.nodes:
        y = n.outputs[0]
        read = any(p.group.get(x) == root for x in n.inputs)
        moves = y in p.group and p.group[y] == root and root not in p.sources.get(y, ())
        if read and y in p.coded and not moves:
            found.append(y)
    return tuple(found)


def few_of(g: Graph) -> Few[Mapping[str, Array]]:
    """What takes from the samples of a graph those that values are compared on."""
    return Few(COMPARED, in_a_row=bool(g.states))


def too_wide(
    g: Graph,
    p: Placement,
    codes: Codes,
    quantized: Callable[[Collection[str]], Graph],
    samples: Sequence[Mapping[str, Array]],
    enough: float,
    fixed: Collection[str] = (),
    fuse: bool = True,
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
        fuse: Whether cheap functions may read the floats of a sum.
        engine: What runs the graphs.
    """
    outputs, roots = judged(g), _roots(p, codes, 8, fixed)
    if not outputs or not samples or not roots:
        return []
    error = _error_of(g, outputs, samples, engine)
    alone = _alone(g, p, codes, error, engine)
    spoilt = _found_in(roots, SPOILT, alone)
    taken = [
        Wide(root, tuple(x for x in _beside(g, p, root) if x in roots), power, None)
        for root, power in spoilt.items()
    ]
    already = {x for w in taken for x in w.all}
    whole = error(engine(quantized(already), outputs))
    rest = [root for root in roots if root not in already]
    if not rest or whole <= enough:
        return taken
    found = _found_in(rest, DOMINANT * whole, alone)
    sums = {n.outputs[0] for n in p.sums}
    inputs = {n.inputs[0] for n in fusable(g, sums, p.coded)} if fuse else set()
    floats = [root for root in rest if root in inputs and root not in found]
    if floats:
        found |= _found_in(floats, FUSED * whole, alone)
    cost = {r: c * FUSING if r in inputs else c for r, c in _costs(g, p).items()}
    largest, members = _largest(g, p), _members(p)

    def fits(root: str) -> bool:
        return 2 * max(g.types[x].size for x in members[root]) <= largest

    left, error_left = {True: WORK, False: WORK}, whole
    for root in sorted(found, key=lambda r: found[r] / max(cost[r], 1e-12), reverse=True):
        fused = root in inputs
        if error_left > enough and cost[root] <= left[fused] and (fused or fits(root)):
            taken.append(Wide(root, (root,), found[root], found[root] / whole, fused))
            left[fused] -= cost[root]
            error_left -= found[root]
    return taken


def _roots(p: Placement, codes: Codes, bits: int, fixed: Collection[str]) -> list[str]:
    """The groups of codes of so many bits whose precision was not asked for."""
    return [
        root
        for root, xs in _members(p).items()
        if codes[root][0].bits == bits and set(fixed).isdisjoint(xs)
    ]


def _members(p: Placement) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {root: [] for root in p.sources}
    for x, root in p.group.items():
        found[root].append(x)
    return found


def _alone(
    g: Graph, p: Placement, codes: Codes, error: Callable[[Run], float], engine: Engine
) -> Callable[[Sequence[str]], float]:
    """What the rounding of some groups alone does to the outputs."""
    outputs, members = judged(g), _members(p)

    def power(some: Sequence[str]) -> float:
        rounded = shaped(g, {x: codes[x] for root in some for x in members[root]})
        return error(engine(insert(g, rounded, {}, p.coded), outputs))

    return power


def _found_in(
    some: Sequence[str], least: float, alone: Callable[[Sequence[str]], float]
) -> dict[str, float]:
    """The groups that make more than some error: halves of those that do together."""
    power = alone(some)
    if power <= least or len(some) == 1:
        return {some[0]: power} if power > least else {}
    half = len(some) // 2
    return _found_in(some[:half], least, alone) | _found_in(some[half:], least, alone)


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
    """How far the outputs of a run are from those of the float graph.

    The power of the error over the output's, summed over outputs, in the mean of the samples: each
    counts alike, unless it is `FAINT`, and for no more than an output of zeros would.
    """
    real = list(map(engine(g, outputs), few))
    signals = {y: [power(want[y]) for want in real] for y in outputs}
    least = {y: max(FAINT * sum(p) / len(p), 1e-300) for y, p in signals.items()}

    def error(other: Run) -> float:
        shares = 0.0
        for i, feeds in enumerate(few):
            found = other(feeds)
            for y in outputs:
                noise = power(apart(found[y], real[i][y]))
                shares += min(1.0, noise / max(signals[y][i], least[y]))
        return shares / len(few)

    return error


def _largest(g: Graph, p: Placement) -> int:
    """Bytes of the largest value that memory has to hold: codes of 8 bits, or floats.

    Floats count where a node in float reads them that is no elementwise work, which is computed
    where its input is made. Inputs of the network are the caller's.
    """
    made = g.producers()
    floats = (
        g.types[x].size * 4
        for n in g.nodes
        if n.outputs[0] not in p.coded and not isinstance(n.op, Lane)
        for x in n.inputs
        if x in made and x not in p.group and g.types[x].dtype == F32
    )
    return max(*(g.types[x].size for x in p.group), 0, *floats)


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
