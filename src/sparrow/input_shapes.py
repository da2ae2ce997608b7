"""Shapes of dynamic inputs that follow from samples, or from a model that is compared with.

One rule for every command. A shape that is given wins. Of an iterable each item is a sample; of
stacked arrays (``.npy``, ``.npz``, a mapping, one array) each element along axis 0 is one. A sample
has the shape of its input, or lacks the batch axis, which is 1 then. Images say nothing but that:
they are resized to their input.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.importers.imported import Shapes
from sparrow.importers.model import Declared, Model, declared_inputs
from sparrow.npz import read_arrays, read_shapes
from sparrow.samples import IMAGES
from sparrow.tensor import Array

T = TypeVar("T")
_HINT = "give its shape: --shape {}={}"
ONE_NETWORK = "compare models of one network, with inputs of the same names, shapes and types"


class ShapeTaken(UserWarning):
    """Says which shapes of dynamic inputs were taken, and from where."""


def open_inputs(model: Model) -> frozenset[str]:
    """Names of the inputs with extents that the model does not say."""
    return frozenset(_left_open(declared_inputs(model), {}))


def _left_open(declared: Mapping[str, Declared], shapes: Shapes) -> dict[str, Declared]:
    """The inputs with extents that neither the model nor ``shapes`` says."""
    bound = _symbols(declared, shapes)
    return {
        name: d
        for name, d in declared.items()
        if name not in shapes
        and d.dims is not None
        and any(not isinstance(n, int) and (n is None or n not in bound) for n in d.dims)
    }


def shapes_from_samples(
    model: Model, shapes: Shapes, calib: Any, unsampled: Collection[str] = ()
) -> tuple[dict[str, tuple[int, ...]], Any]:
    """``shapes`` and those that follow from samples, and the samples with none of them consumed.

    Args:
        model: Path or ModelProto.
        shapes: What was given, which wins.
        calib: Samples, see `sparrow.build`; None says nothing.
        unsampled: Inputs that samples do not have: states, and what is fixed.

    Raises:
        BadInput: A sample does not fit its input, or two say different extents of one dimension.
    """
    known = {k: tuple(v) for k, v in shapes.items()}
    declared = {} if calib is None else declared_inputs(model)
    wanted = _left_open(declared, shapes)
    if not wanted:
        return known, calib
    names = [n for n in declared if n not in unsampled]
    found, calib = _first_shapes(calib, names)
    if found is None:  # images
        alone = {}
        for name, d in wanted.items():
            rest = [n for n in (d.dims or ())[1:] if isinstance(n, int)]
            if d.dims and not isinstance(d.dims[0], int) and len(rest) == len(d.dims) - 1:
                alone[name] = (1, *rest)
        return _with(declared, known, alone, "the samples"), calib
    items, stacked = found
    missing = next((n for n in wanted if items and n not in items and n not in unsampled), None)
    if missing is not None:
        where = calib if isinstance(calib, (str, Path)) else "the samples"
        raise BadInput(
            f"{where}: no array for input {missing!r}", hint=f"it holds {', '.join(items)}"
        )
    taken = {
        name: _of_sample(name, d, items[name], stacked, _symbols(declared, known))
        for name, d in wanted.items()
        if name in items and name not in unsampled
    }
    return _with(declared, known, taken, "the samples"), calib


def shapes_from_graph(
    model: Model, shapes: Shapes, other: Graph, what: str, fixed: Collection[str] = ()
) -> dict[str, tuple[int, ...]]:
    """``shapes`` and those that another graph has for inputs of the same names; what it is called.

    Args:
        model: Path or ModelProto.
        shapes: What was given, which wins.
        other: The graph.
        what: What it is called.
        fixed: Inputs of the model that it need not have.

    Raises:
        BadInput: The other graph has no such input, or one of another rank or extent.
    """
    known = {k: tuple(v) for k, v in shapes.items()}
    taken: dict[str, tuple[int, ...]] = {}
    declared = declared_inputs(model)
    for name, d in _left_open(declared, shapes).items():
        assert d.dims is not None
        if name in other.inputs:
            taken[name] = other.types[name].shape
            if not _fits(taken[name], d.dims):
                raise BadInput(
                    f"inputs differ: {name!r} is {_text(d.dims)}, in {what} {_text(taken[name])}",
                    hint=ONE_NETWORK,
                )
        elif name not in fixed:
            theirs = ", ".join(f"{x!r}: {other.types[x]}" for x in other.inputs)
            raise BadInput(
                f"inputs differ: {name!r} ({_text(d.dims)}) is none of {what}, "
                f"which takes {theirs or 'none'}",
                hint=ONE_NETWORK,
            )
    return _with(declared, known, taken, what)


def check_inputs(first: Model, second: Model, fixed: Collection[str] = ()) -> None:
    """Refuse two models of which one leaves the shape of an input open that the other lacks.

    A shape given for it would not make them comparable.

    Args:
        first: Path or ModelProto.
        second: The same.
        fixed: Inputs that they need not have both.

    Raises:
        BadInput: There is such an input; says the names and shapes that both have.
    """
    pair = [declared_inputs(m) for m in (first, second)]
    for mine, theirs in (pair, pair[::-1]):
        for name in _left_open(mine, {}):
            if name not in theirs and name not in fixed:
                each = (
                    ", ".join(f"{x!r}: {_text(d.dims or ())}" for x, d in p.items()) or "none"
                    for p in pair
                )
                raise BadInput(
                    f"inputs differ: the first model takes {next(each)}, the second {next(each)}",
                    hint=ONE_NETWORK,
                )


def by_order(first: Model, second: Model, fixed: Collection[str] = ()) -> dict[str, str]:
    """Inputs of a model that another lacks -> those that stand in their places there.

    Args:
        first: Path or ModelProto.
        second: The same.
        fixed: Inputs that they need not have both.

    Returns:
        Name in ``second`` -> name in ``first``; nothing where they are not as many, or where
        extents that both say differ.
    """
    mine, theirs = (declared_inputs(m) for m in (first, second))
    ours = [x for x in mine if x not in theirs and x not in fixed]
    others = [x for x in theirs if x not in mine and x not in fixed]
    pairs = [(mine[x].dims, theirs[y].dims) for x, y in zip(ours, others, strict=False)]
    if len(ours) != len(others) or not all(_alike(*p) for p in pairs):
        return {}
    return dict(zip(others, ours, strict=True))


def _alike(a: tuple[int | str | None, ...] | None, b: tuple[int | str | None, ...] | None) -> bool:
    if a is None or b is None:
        return True
    known = (
        isinstance(m, int) and isinstance(n, int) and m != n for m, n in zip(a, b, strict=False)
    )
    return len(a) == len(b) and not any(known)


def check_types(found: Graph, real: Graph, what: str, other: str) -> None:
    """Refuse two graphs whose inputs of one name have other shapes or types.

    Args:
        found: A graph.
        real: The other.
        what: What the first is called.
        other: What the second is called.

    Raises:
        BadInput: There are such; says the name, and what was found and expected.
    """
    for x in found.inputs:
        if x in real.inputs:
            mine, theirs = (g.types[x] for g in (found, real))
            if (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
                raise BadInput(
                    f"inputs differ: {x!r} is {mine} in {what}, {theirs} in {other}",
                    hint=ONE_NETWORK,
                )


def _first_shapes(
    calib: Any, names: list[str]
) -> tuple[tuple[dict[str, tuple[int, ...]], bool] | None, Any]:
    """Shape of the first sample by input and whether it is of stacked arrays, and the samples.

    None instead of shapes for images.
    """
    if isinstance(calib, (str, Path)):
        path = Path(calib)
        if path.is_dir() or path.suffix.lower() in IMAGES:
            return None, calib
        return (_named(read_shapes(path), names), True), calib
    if isinstance(calib, np.ndarray):
        return (_named({"": calib.shape}, names), True), calib
    if isinstance(calib, Mapping):
        return ({str(k): np.shape(v) for k, v in calib.items()}, True), calib
    first, calib = _first_item(calib, names)
    return ({k: np.shape(v) for k, v in first.items()}, False), calib


def first_sample(calib: Any, names: list[str]) -> tuple[dict[str, Array], Any]:
    """The first sample by input as far as samples hold it, and the samples with none consumed.

    Of stacked arrays it has a batch axis of 1. Nothing is known of images.
    """
    if calib is None:
        return {}, None
    if isinstance(calib, (str, Path)):
        path = Path(calib)
        if path.is_dir() or path.suffix.lower() in IMAGES:
            return {}, calib
        stacked: Mapping[str, Any] = read_arrays(path)
    elif isinstance(calib, np.ndarray):
        stacked = {"": calib}
    elif isinstance(calib, Mapping):
        stacked = calib
    else:
        first, calib = _first_item(calib, names)
        return {k: np.asarray(v) for k, v in first.items()}, calib
    return {str(k): np.asarray(v)[:1] for k, v in _named(dict(stacked), names).items()}, calib


def _first_item(calib: Any, names: list[str]) -> tuple[dict[str, Any], Any]:
    """The first of separate samples by input, and the samples with none consumed."""
    if isinstance(calib, Iterator):
        held = next(calib, None)
        if held is None:
            return {}, iter(())
        first, calib = held, chain([held], calib)
    else:
        first = next(iter(calib), None) if np.iterable(calib) else None
    if first is None:
        return {}, calib
    if isinstance(first, Mapping):
        return {str(k): v for k, v in first.items()}, calib
    each = first if isinstance(first, tuple) else (first,)
    return dict(zip(names, each, strict=False)), calib


def _named(by_name: dict[str, T], names: list[str]) -> dict[str, T]:
    return {names[0]: by_name[""]} if set(by_name) == {""} and len(names) == 1 else by_name


def _of_sample(
    name: str,
    d: Declared,
    shape: tuple[int, ...],
    stacked: bool,
    bound: Mapping[str, tuple[int, str]],
) -> tuple[int, ...]:
    assert d.dims is not None
    dims = tuple(bound.get(n, (n, ""))[0] if isinstance(n, str) else n for n in d.dims)
    if stacked:
        # one number is no stack of samples
        tries = [shape[1:], (1, *shape[1:]), shape] if shape else []
    else:
        tries = [shape, (1, *shape)]
    for x in tries:
        # an extent of axis 0 that is another's batch makes the whole array one sample
        whole = x == shape and stacked and shape[0] != 1
        if _fits(x, dims) and (not whole or isinstance(dims[0], int)):
            return x
    kind = "stacked samples" if stacked else "the first sample"
    raise BadInput(
        f"{kind} of {name!r} are {_text(shape)}, the model takes {_text(dims)}"
        + (" each" if stacked else ""),
        hint=f"{_HINT.format(name, _text(dims, 'N'))}, and samples of it",
    )


def _with(
    declared: Mapping[str, Declared],
    known: dict[str, tuple[int, ...]],
    taken: dict[str, tuple[int, ...]],
    where: str,
) -> dict[str, tuple[int, ...]]:
    whole = {**known, **taken}
    bound = _symbols(declared, known)
    for name, shape in taken.items():
        for d, n in zip(declared[name].dims or (), shape, strict=True):
            if isinstance(d, str) and bound.setdefault(d, (n, name))[0] != n:
                other, by = bound[d]
                raise BadInput(
                    f"dimension {d!r} is {n} in {where} of {name!r} and {other} by {by!r}",
                    hint=_HINT.format(name, "x".join(map(str, shape))),
                )
    news = {k: v for k, v in taken.items() if v != declared[k].stored}
    if news:
        text = ", ".join(f"{k}={_text(v)}" for k, v in news.items())
        warnings.warn(
            f"shape {text} taken from {where}; --shape sets another", ShapeTaken, stacklevel=4
        )
    return whole


def _symbols(declared: Mapping[str, Declared], shapes: Shapes) -> dict[str, tuple[int, str]]:
    """Extent of every named dimension that ``shapes`` say, and by which input."""
    return {
        d: (int(n), name)
        for name, shape in shapes.items()
        if name in declared and len(declared[name].dims or ()) == len(shape)
        for d, n in zip(declared[name].dims or (), shape, strict=True)
        if isinstance(d, str)
    }


def _fits(shape: tuple[int, ...], dims: tuple[int | str | None, ...]) -> bool:
    return len(shape) == len(dims) and all(
        n == d for n, d in zip(shape, dims, strict=True) if isinstance(d, int)
    )


def _text(dims: tuple[int | str | None, ...], free: str = "") -> str:
    return "x".join(str(n) if isinstance(n, int) else free or n or "?" for n in dims) or "scalar"
