"""Which values of two graphs are the same value, where names say nothing or other than the values.

Converters number the steps of an unrolled loop anew in every file: what is ``add_3`` in the float
one may be ``add_5`` in the quantized one; some name every value anew. Values of the same network
are near one another, quantized ones too, and near no other value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from sparrow.blame.align import Cut
from sparrow.graph import Graph, retyped
from sparrow.quant.engine import Engine, Run
from sparrow.tensor import Array

T = TypeVar("T")

# Names are wrong where other values are nearer by this factor in power, both ways, and values
# without a name are the same where their difference is less by it than they are: 10 dB.
NEARER = 10.0
# Elements of each value and sample that are looked at.
KEPT = 1024


def by_values(
    f: Graph, q: Graph, at: Sequence[Cut], samples: Sequence[Mapping[str, Array]], engine: Engine
) -> list[Cut]:
    """``at`` with the names that the values have.

    Args:
        f: Float graph.
        q: Quantized graph.
        at: Cuts between them, by name.
        samples: Feeds for the inputs of both.
        engine: What runs them.

    Returns:
        Cuts in the same order.
    """
    doubted = [i for i, c in enumerate(at) if c.name not in f.inputs and c.name not in f.outputs]
    groups = [
        g for g in _alike(doubted, (f.types[at[i].name].shape for i in doubted)) if len(g) > 1
    ]
    wanted = [at[i] for g in groups for i in g]
    if not wanted or not samples:
        return list(at)
    names, after = [c.name for c in wanted], [c.after for c in wanted]
    real, coded = _seen(engine(f, names), names, samples), _seen(engine(q, after), after, samples)
    found = list(at)
    for g in groups:
        error, _ = _errors([real[at[i].name] for i in g], [coded[at[i].after] for i in g])
        for i, j in enumerate(_mixed_up(error)):
            found[g[i]] = replace(at[g[j]], name=at[g[i]].name)
    return found


def counterparts(
    f: Graph, g: Graph, samples: Sequence[Mapping[str, Array]], engine: Engine
) -> dict[str, str]:
    """Which values of ``g`` are those of ``f``.

    Values of one name and type are the same, and so are outputs without one at the same place,
    unless they are mixed up, see `by_values`. Other floats are where each is nearest to the other
    of all of their shape, and near.

    Args:
        f: A graph.
        g: Another one, with the same inputs.
        samples: Feeds for the inputs of both.
        engine: What runs them.

    Returns:
        Name in ``f`` -> name in ``g``, in the order of ``f``; names of ours (%) are those of
        outputs alone.
    """
    own, theirs = ([y for n in h.nodes for y in n.outputs] for h in (f, g))
    found = {y: y for y in own if _named_alike(f, g, y)}
    for x, y in zip(f.outputs, g.outputs, strict=False):
        t, u = f.types[x], g.types[y]
        if x not in found and y not in found and (t.shape, t.dtype) == (u.shape, u.dtype):
            found[x] = y
    rows = _alike(*_floats(f, [y for y in own if y[0] != "%" or y in f.outputs]))
    columns = {g.types[c[0]].shape: c for c in _alike(*_floats(g, theirs))}
    groups = [(r, columns[s]) for r in rows if (s := f.types[r[0]].shape) in columns]
    a = [x for r, _ in groups for x in r]
    b = [y for _, c in groups for y in c]
    left, right = _seen(engine(f, a), a, samples), _seen(engine(g, b), b, samples)
    for r, c in groups:
        error, power = _errors([left[x] for x in r], [right[y] for y in c])
        at = {y: j for j, y in enumerate(c)}
        paired = [i for i, x in enumerate(r) if found.get(x) in at]
        placed = [i for i in paired if r[i] in f.outputs and found[r[i]] != r[i]]
        for doubted in (placed, [i for i in paired if r[i] not in f.outputs]):
            theirs = [found[r[i]] for i in doubted]
            for i, j in enumerate(_mixed_up(error[np.ix_(doubted, [at[y] for y in theirs])])):
                found[r[doubted[i]]] = theirs[j]
        taken = set(found.values())
        for i, x in enumerate(r):
            j = int(error[i].argmin())
            near = error[i, j] * NEARER <= power[i] and int(error[:, j].argmin()) == i
            if near and x not in found and c[j] not in taken:
                found[x] = c[j]
    return {x: found[x] for x in own if x in found}


def strangers(f: Graph, q: Graph) -> bool:
    """Whether the graphs call nothing that they compute by the same name."""
    return not any(y in q.types for n in f.nodes for y in n.outputs)


def acquainted(f: Graph, q: Graph, samples: Sequence[Mapping[str, Array]], engine: Engine) -> Graph:
    """``q`` with the names that its values have in ``f``; as it is unless they are `strangers`."""
    if not strangers(f, q):
        return q
    of = {y: x for x, y in counterparts(f, q, samples, engine).items()}

    def named(values: Iterable[str]) -> tuple[str, ...]:
        return tuple(of.get(v, v) for v in values)

    nodes = [replace(n, inputs=named(n.inputs), outputs=named(n.outputs)) for n in q.nodes]
    types = {of.get(v, v): t for v, t in q.types.items()}
    states = tuple(replace(s, output=of.get(s.output, s.output)) for s in q.states)
    return retyped(q, nodes, outputs=named(q.outputs), states=states, types=types)


def _named_alike(f: Graph, g: Graph, y: str) -> bool:
    """Whether both graphs have a value of this name, which means the same in both."""
    if (y[0] == "%" and y not in f.outputs) or y not in g.types or y in g.consts:
        return False
    a, b = f.types[y], g.types[y]
    # codes of other scales or widths are other numbers for the same value
    return a.shape == b.shape and (y in f.outputs or a.quant == b.quant)


def _floats(g: Graph, values: Iterable[str]) -> tuple[list[str], list[tuple[int, ...]]]:
    """Those of the values that are floats, and their shapes."""
    found = [y for y in values if g.types[y].dtype.kind == "float"]
    return found, [g.types[y].shape for y in found]


def _alike(items: Iterable[T], keys: Iterable[Hashable]) -> list[list[T]]:
    """Items in groups of one key."""
    found = defaultdict(list)
    for item, key in zip(items, keys, strict=True):
        found[key].append(item)
    return list(found.values())


def _seen(
    run: Run, values: Sequence[str], samples: Sequence[Mapping[str, Array]]
) -> dict[str, Array]:
    """Some elements of each value over samples, float64; what is not finite as 0."""
    found: dict[str, list[Array]] = {v: [] for v in values}
    for s in samples:
        got = run(s)
        for v, parts in found.items():
            flat = got[v].reshape(-1)
            some = np.linspace(0, flat.size - 1, min(flat.size, KEPT)).astype(np.int64)
            finite = np.nan_to_num(flat[some].astype(np.float64), posinf=0, neginf=0)
            parts.append(finite)
    return {v: np.concatenate(parts) for v, parts in found.items()}


def _errors(rows: Sequence[Array], columns: Sequence[Array]) -> tuple[Array, Array]:
    """Power of the difference of every row to every column, and of the rows."""
    a, b = np.array(rows), np.array(columns)
    own = np.square(a).sum(1)
    powers = own[:, None] + np.square(b).sum(1)
    # what float64 leaves of nothing is no error
    return np.maximum(powers - 2 * a @ b.T, 1e-12 * powers + 1e-300), own


def _mixed_up(error: Array) -> Sequence[int]:
    """The column of each row: its own, unless names are mixed up.

    Names are doubted only where a value is nearest to one of another name, and both are far from
    what their own names say: no wrong layer looks like that, since nothing of the other graph is
    near what it makes. All then pair as they are nearest in all.
    """
    if len(error) < 2:
        return range(len(error))
    own, least = error.diagonal(), NEARER * error
    wrong = (least < own[:, None]) & (least < own) & (error <= error.min(0))
    if not wrong.any():
        return range(len(error))
    return [int(j) for j in linear_sum_assignment(np.log(error))[1]]
