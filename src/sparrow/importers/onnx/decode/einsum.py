"""Einsum: pairwise contraction by MatMul, everything else by Transpose, Reshape, Reduce and Mul."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.elementwise import MAX_OPERANDS
from sparrow.ops.gather import Gather
from sparrow.ops.matmul import MatMul
from sparrow.ops.reduce import Reduce
from sparrow.tensor import BF16, F16, F32, I64

_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


@dataclass(frozen=True, slots=True)
class _Term:
    """A value whose axes have labels; labels are distinct once diagonals are taken."""

    value: str
    labels: tuple[str, ...]


def _labels(n: Call, term: str, rank: int | None, dots: int) -> tuple[str, ...]:
    """Labels of one term; the ellipsis becomes ``.0``, ``.1``, .. aligned to the right."""
    if not _TERM.fullmatch(term):
        raise n.bad(f"term {term!r} of equation {n.attr('equation')!r}")
    before, found, after = term.partition("...")
    if not found:
        return tuple(before)
    width = dots if rank is None else rank - len(before) - len(after)
    if width < 0:
        raise n.bad(f"term {term!r} for an operand of rank {rank}")
    return (*before, *(f".{dots - width + i}" for i in range(width)), *after)


def _diagonal(n: Call, t: _Term) -> _Term:
    """``t`` with repeated labels replaced by one axis over their diagonal."""
    for label in dict.fromkeys(t.labels):
        while t.labels.count(label) > 1:
            i = t.labels.index(label)
            j = t.labels.index(label, i + 1)
            shape = n.b.shape(t.value)
            if shape[i] != shape[j]:
                raise n.bad(f"label {label!r} stands for {shape[i]} and {shape[j]}")
            rest = [k for k in range(len(shape)) if k not in (i, j)]
            y = n.b.transpose(t.value, [i, j, *rest])
            d = shape[i]
            y = n.b.reshape(y, (d * d, *(shape[k] for k in rest)))
            y = n.b.add(Gather(0), y, n.b.const(n.b.places(d) * (d + 1), I64))
            t = _Term(y, (label, *(t.labels[k] for k in rest)))
    return t


def _sum_out(n: Call, t: _Term, keep: set[str]) -> _Term:
    """``t`` summed over the labels that nothing else needs."""
    axes = tuple(i for i, a in enumerate(t.labels) if a not in keep)
    if not axes:
        return t
    y = n.b.add(Reduce("sum", axes), t.value)
    labels = tuple(a for a in t.labels if a in keep)
    shape = n.b.shape(t.value)
    y = n.b.reshape(y, [d for i, d in enumerate(shape) if i not in axes])
    return _Term(y, labels)


def _drop_ones(n: Call, t: _Term, other: Mapping[str, int]) -> _Term:
    """``t`` without axes of extent 1 that broadcast against a longer axis of ``other``."""
    shape = n.b.shape(t.value)
    keep = [i for i, a in enumerate(t.labels) if shape[i] != 1 or other.get(a, 1) == 1]
    y = n.b.reshape(t.value, [shape[i] for i in keep])
    return _Term(y, tuple(t.labels[i] for i in keep))


def _arrange(n: Call, t: _Term, *groups: Sequence[str]) -> str:
    """The value transposed to the labels of ``groups`` in order."""
    return n.b.transpose(t.value, [t.labels.index(a) for g in groups for a in g])


def _contract(n: Call, a: _Term, b: _Term, keep: set[str]) -> _Term:
    """Product of two terms, summed over shared labels that are not in ``keep``."""
    size = {
        s: d for t in (a, b) for s, d in zip(t.labels, n.b.shape(t.value), strict=True) if d != 1
    }
    a, b = _drop_ones(n, a, size), _drop_ones(n, b, size)
    a = _sum_out(n, a, keep | set(b.labels))
    b = _sum_out(n, b, keep | set(a.labels))
    extent: dict[str, int] = {}
    for t in (a, b):
        for s, d in zip(t.labels, n.b.shape(t.value), strict=True):
            if extent.setdefault(s, d) != d:
                raise n.bad(f"label {s.replace('.', '...')!r} stands for {extent[s]} and {d}")
    shared = [s for s in a.labels if s in b.labels]
    batch = [s for s in shared if s in keep]
    inner = [s for s in shared if s not in keep]
    rows = [s for s in a.labels if s not in shared]
    columns = [s for s in b.labels if s not in shared]
    labels = (*batch, *rows, *columns)
    if not inner:
        x = _arrange(n, a, batch, rows)
        x = n.b.reshape(x, (*n.b.shape(x), *(1,) * len(columns)))
        y = _arrange(n, b, batch, columns)
        ones = (1,) * len(rows)
        y = n.b.reshape(y, [extent[s] for s in batch] + [*ones, *(extent[s] for s in columns)])
        return _Term(n.b.call("mul", x, y), labels)
    # an operand that already lies transposed is read so, not moved
    flip_a = a.labels == (*batch, *inner, *rows)
    flip_b = b.labels == (*batch, *columns, *inner)
    x = a.value if flip_a else _arrange(n, a, batch, rows, inner)
    y = b.value if flip_b else _arrange(n, b, batch, inner, columns)
    lead = [extent[s] for s in batch]
    m, k, c = (prod(extent[s] for s in group) for group in (rows, inner, columns))
    x = n.b.reshape(x, [*lead, *((k, m) if flip_a else (m, k))])
    y = n.b.reshape(y, [*lead, *((c, k) if flip_b else (k, c))])
    z = n.b.add(MatMul(flip_a, flip_b), x, y)
    return _Term(n.b.reshape(z, [extent[s] for s in labels]), labels)


def _einsum(n: Call) -> Sequence[str]:
    equation = str(n.attr("equation", "")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(n.inputs):
        raise n.bad(f"equation {equation!r} for {len(n.inputs)} operands")
    if len(terms) > MAX_OPERANDS:
        raise n.unsupported(
            f"{len(terms)} operands, at most {MAX_OPERANDS}", "combine them in groups"
        )
    ranks = [n.type(i).rank for i in range(len(terms))]
    dots = max((r - len(t) + 3 for t, r in zip(terms, ranks, strict=True) if "..." in t), default=0)
    dtype = n.type().dtype
    wide = F32 if dtype in (F16, BF16) else dtype
    found = []
    for i, (text, rank) in enumerate(zip(terms, ranks, strict=True)):
        labels = _labels(n, text, rank, dots)
        if len(labels) != rank:
            raise n.bad(f"term {text!r} for an operand of rank {rank}")
        found.append(_diagonal(n, _Term(n.b.cast(n.x(i), wide), labels)))
    if arrow:
        out = _labels(n, right, None, dots)
    else:
        count = [a for t in terms for a in t if a.isalpha()]
        once = sorted(a for a in set(count) if count.count(a) == 1)
        out = (*(f".{i}" for i in range(dots)), *once)
    known = {a for t in found for a in t.labels}
    if len(set(out)) != len(out) or not set(out) <= known:
        raise n.bad(f"output {right!r} of equation {equation!r}")
    acc = found[0]
    for i, t in enumerate(found[1:], 1):
        later = {a for rest in found[i + 1 :] for a in rest.labels}
        acc = _contract(n, acc, t, later | set(out))
    acc = _sum_out(n, acc, set(out))
    return [n.b.cast(_arrange(n, acc, out), dtype)]


DECODERS: Mapping[str, Decoder] = {
    "Einsum": _einsum,
}
