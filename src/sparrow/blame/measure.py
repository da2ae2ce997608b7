"""Where the error of a quantized graph is made and where it is only handed on.

Every layer answers for what it does with the inputs it really gets. With x the float values, x' the
quantized ones, F a layer of the float graph and F' the same layer quantized:

    total       F'(x') - F(x)
    own         F'(x') - F(x')     = weights + implementation + inside + codes
    inherited   F(x') - F(x)

      weights         F(x') with the weights and bias of the quantized graph, minus F(x')
      implementation  what F' makes without codes inside, minus what F makes of the same weights
      inside          the value that F' quantizes, minus what F' makes without codes inside
      codes           F'(x') minus the value it quantizes: clipped, or rounded

Of a value that functions of it alone read, behind a pool or a reshape, too, errors and powers are
those of what the functions make: below -3 a hard-swish is 0, whatever the codes tell apart there.

One run each of the float graph, the quantized graph, and of the graphs cut open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sparrow.blame.align import (
    EXACT,
    OWN,
    Cut,
    codes_between,
    exact_readers,
    opened,
    opened_in_floats,
    segment,
)
from sparrow.errors import BadInput
from sparrow.graph import Graph, Node, retyped
from sparrow.ops.concat import Concat
from sparrow.ops.quantize import spread
from sparrow.ops.softmax import Softmax
from sparrow.quant.engine import Engine, literally
from sparrow.quant.functions import of_one
from sparrow.quant.judged import judged
from sparrow.quant.kinds import moves
from sparrow.quant.noise import apart, power
from sparrow.tensor import F32, Array

# Elements of each value and sample that percentiles are taken of.
KEPT = 4096


@dataclass(slots=True, eq=False)
class Error:
    """Powers of a layer's error and statistics of its result, summed over samples.

    Attributes:
        signal: Power of the float result.
        total: Power of the whole error.
        own: Power of what the layer adds.
        inherited: Power of what it is handed.
        weights: Power of what its weights and bias add.
        implementation: Power of what its arithmetic adds.
        inside: Power of what adds that values inside it are codes.
        inner: Those values: name -> share of its own power that it loses, and that it loses by
            clipping.
        codes: Power of what quantizing its result adds.
        clipped: Share of ``codes`` that falls on clipped elements.
        outside: Elements beyond the range of the codes.
        count: Elements.
        shift: Sum of the error of weights per channel.
        peaks: Largest magnitude per channel of the float result.
        low: Smallest float result.
        high: Largest float result.
        sample: Some of the magnitudes of the float result.
    """

    signal: float = 0.0
    total: float = 0.0
    own: float = 0.0
    inherited: float = 0.0
    weights: float = 0.0
    implementation: float = 0.0
    inside: float = 0.0
    inner: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    codes: float = 0.0
    clipped: float = 0.0
    outside: int = 0
    count: int = 0
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    peaks: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    low: float = 0.0
    high: float = 0.0
    sample: list[NDArray[np.float32]] = field(default_factory=list)


def _channels(x: Array, axis: int) -> Array:
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) if x.ndim else x.reshape(1, 1)


def _affine(cut: Cut, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Scale and zero point of the codes; they broadcast to ``shape``."""
    assert cut.quant is not None
    scale = spread(cut.quant.scale, cut.quant.block, shape).astype(np.float64)
    return scale, spread(cut.quant.zero_point, cut.quant.block, shape)


def _beyond(x: Array, cut: Cut) -> Array:
    assert cut.dtype is not None
    scale, zero = _affine(cut, x.shape)
    low, high = cut.dtype.limits
    codes = np.rint(x / scale) + zero
    found: Array = (codes < low) | (codes > high)
    return found


def _clamped(x: Array, made: Array, cut: Cut) -> Array:
    """``x`` kept to the range of the codes where that is nearer to what the layer makes.

    Quantizers remove a Relu or a clip where the codes end where it does: clamping is the layer's.
    """
    if cut.dtype is None:
        return x
    scale, zero = _affine(cut, x.shape)
    low, high = (scale * (code - zero) for code in cut.dtype.limits)
    kept = np.clip(x, low, high)
    return np.where(np.abs(kept - made) < np.abs(x - made), kept, x)


def _inside(q: Graph, at: Sequence[Cut], c: Cut, between: Mapping[str, Cut]) -> list[Cut]:
    """The values of a layer that are codes and no cut."""
    ends = frozenset(x for y in at for x in (y.before, y.after)) - {c.before}
    return [between[n.outputs[0]] for n in segment(q, c.before, ends) if n.outputs[0] in between]


def _as_read(f: Graph, at: Sequence[Cut]) -> dict[str, Callable[[Array], Array]]:
    """What functions of one value make of a value that they alone read, moved or pooled or not."""
    users, seen = f.users(), set(f.live_out())

    def functions(x: str) -> list[Node] | None:
        """The functions, or None where something else reads it, too."""
        found = []
        for n in users.get(x, ()):
            y = f.types[n.outputs[0]]
            if of_one(n) and y.dtype == F32 and y.shape == f.types[x].shape:
                found.append(n)
                continue
            moved = moves(f, n) and not isinstance(n.op, Concat)
            further = functions(n.outputs[0]) if moved else None
            if further is None:
                return None
            found += further
        return found if found and x not in seen else None

    def of(read: Sequence[Node]) -> Callable[[Array], Array]:
        def made(x: Array) -> Array:
            x = x.astype(np.float32)
            return np.stack([n.op.eval(*(x for _ in n.inputs))[0] for n in read])

        return made

    return {c.name: of(read) for c in at if (read := functions(c.name))}


def measure(
    f: Graph,
    recoded: Graph,
    q: Graph,
    at: Sequence[Cut],
    axes: Mapping[str, int],
    samples: Iterable[Mapping[str, Array]],
    engine: Engine = literally,
) -> dict[str, Error]:
    """Errors of every layer, by the name of its cut.

    Args:
        f: Float graph.
        recoded: ``f`` with the weights and biases that the quantized graph has.
        q: Quantized graph.
        at: Cuts between them.
        axes: Channel axis of every value of ``f``.
        samples: Feeds for the inputs of the graphs.
        engine: What runs them.

    Raises:
        BadInput: The graphs carry states, or there is no sample.
    """
    if f.states or q.states:
        raise BadInput(f"{f.name}: layers of a model with states cannot be blamed yet")
    names = [c.name for c in at]
    inside = [x for x in names if x not in f.inputs]
    own = [x + OWN for x in inside]
    real = engine(f, names)
    between = codes_between(q, at)
    values = (*at, *between.values())
    quantized = engine(q, list(dict.fromkeys(x for c in values for x in (c.before, c.after))))
    inner = {c.name: _inside(q, at, c, between) for c in at}
    floats = opened_in_floats(q, at, between)
    uncoded = engine(floats, floats.outputs) if between else None
    exact = exact_readers(f, q, at)
    alone, same_weights = (engine(opened(g, names, exact), own) for g in (f, recoded))
    found = {x: Error() for x in names}
    functions = _as_read(f, at)
    any_sample = False
    for feeds in samples:
        any_sample = True
        x, xq = real(feeds), quantized(feeds)
        given = {**feeds, **{c.name: xq[c.after] for c in at}}
        given |= {c.name + EXACT: xq[c.before] for c in at}
        made, recast = alone(given), same_weights(given)
        handed = {**feeds, **xq}
        uncut = uncoded({x: handed[x] for x in floats.inputs}) if uncoded else {}
        for c in at:
            e, y = found[c.name], x[c.name]
            ideal = made.get(c.name + OWN, y)
            coded = recast.get(c.name + OWN, y)
            read = functions.get(c.name, _itself)
            after, seen_ideal = xq[c.after].astype(np.float64), read(ideal)
            before = _clamped(xq[c.before].astype(np.float64), coded, c)
            plain = before
            if inner[c.name] and c.before + OWN in uncut:
                plain = _clamped(uncut[c.before + OWN], coded, c)
            seen, seen_after, seen_before = read(y), read(after), read(before)
            seen_coded, seen_plain = read(coded), read(plain)
            e.signal += power(seen)
            e.total += power(apart(seen_after, seen))
            e.own += power(apart(seen_after, seen_ideal))
            e.inherited += power(apart(seen_ideal, seen))
            e.weights += power(apart(seen_coded, seen_ideal))
            e.implementation += power(apart(seen_plain, seen_coded))
            e.inside += power(apart(seen_before, seen_plain))
            for i in inner[c.name]:
                off = apart(xq[i.after], xq[i.before])
                clipped = power(off[_beyond(xq[i.before], i)])
                lost = np.array([power(off), clipped]) / max(power(xq[i.before]), 1e-300)
                e.inner[i.name] = e.inner.get(i.name, np.zeros(2)) + lost
            e.codes += power(apart(seen_after, seen_before))
            if c.quant is not None:
                beyond = _beyond(before, c)
                e.clipped += power(apart(seen_after, seen_before)[..., beyond])
                e.outside += int(beyond.sum())
            rows = _channels(y, axes.get(c.name, max(y.ndim - 1, 0)))
            shifts = apart(seen_coded, seen_ideal).reshape(-1, *y.shape).sum(0)
            drift = _channels(shifts, axes.get(c.name, y.ndim - 1))
            peaks = np.abs(rows).max(1, initial=0).astype(np.float64)
            first = not e.count
            e.shift = drift.sum(1) if first else e.shift + drift.sum(1)
            e.peaks = peaks if first else np.maximum(e.peaks, peaks)
            e.low = min(e.low, float(y.min(initial=0)))
            e.high = max(e.high, float(y.max(initial=0)))
            e.count += y.size
            flat = np.abs(y.reshape(-1))
            e.sample.append(flat[:: max(1, flat.size // KEPT)])
    if not any_sample:
        raise BadInput("no sample to compare on", hint="give --calib, an .npz or an image folder")
    return found


def _itself(x: Array) -> Array:
    return x


class Judge:
    """How far the outputs of a quantized graph (`judged`) are from those of the float one.

    Of an output that a softmax makes, what goes into it is judged: a softmax that is sure of itself
    hides what happens before it.

    Args:
        f: Float graph.
        at: Cuts between it and the quantized graphs to come.
        samples: Feeds; the float graph runs once.
        engine: What runs the graphs.
    """

    def __init__(
        self,
        f: Graph,
        at: Sequence[Cut],
        samples: Sequence[Mapping[str, Array]],
        engine: Engine = literally,
    ) -> None:
        made, after = f.producers(), {c.name: c.after for c in at}
        pairs = []
        for y in judged(f):
            n = made[y]
            x = n.inputs[0] if isinstance(n.op, Softmax) else ""
            pairs.append((x, after[x]) if x in after else (y, after.get(y, y)))
        self.names = tuple(x for x, _ in pairs)
        self.values = tuple(v for _, v in pairs)
        self.samples, self.engine = samples, engine
        run = engine(f, self.names)
        self.real = [run(feeds) for feeds in samples]
        self.signal = [sum(power(r[x]) for r in self.real) for x in self.names]

    def noise(self, q: Graph, values: Sequence[str] | None = None) -> float:
        """Power of the error of each output as a share of its own, summed.

        Args:
            q: Quantized graph.
            values: What the outputs are called there, in order; None: as in the one of the cuts.
        """
        return float(self.noises(q, values).sum())

    def noises(self, q: Graph, values: Sequence[str] | None = None) -> NDArray[np.float64]:
        """What each sample adds to `noise`, whose arguments it takes; [samples]."""
        values = self.values if values is None else values
        run = self.engine(q, values)
        shares = []
        for feeds, real in zip(self.samples, self.real, strict=True):
            found = run(feeds)
            errors = (
                power(apart(found[v], real[x])) for x, v in zip(self.names, values, strict=True)
            )
            shares.append(sum(e / max(s, 1e-300) for e, s in zip(errors, self.signal, strict=True)))
        return np.array(shares, np.float64)


def with_constants(g: Graph, constants: Mapping[tuple[str, int], Array]) -> Graph:
    """``g`` with other constants: (node by its first result, operand) -> array, added if absent."""
    consts = dict(g.consts)
    nodes = []
    for n in g.nodes:
        inputs = list(n.inputs)
        for (y, i), a in constants.items():
            if y == n.outputs[0]:
                inputs += [""] * (i + 1 - len(inputs))
                inputs[i] = f"{y}%const{i}"
                consts[inputs[i]] = a
        nodes.append(replace(n, inputs=tuple(inputs)))
    return retyped(g, nodes, consts=consts)
