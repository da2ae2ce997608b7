"""Chosen values of a float graph over calls: by the reference, or by ONNX Runtime, which is faster.

Where ONNX Runtime does not take a graph, the reference runs it, and a warning says so and why.
Both run on one thread: how a library splits a sum shows in its last bits, and statistics must not
depend on the number of cores. State goes from one call to the next.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from sparrow.errors import BadInput
from sparrow.graph import Graph, Node
from sparrow.ort import first_line, open_session, refusals
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array

Run: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]
Engine: TypeAlias = Callable[[Graph, Sequence[str]], Run]


def reference(g: Graph, values: Sequence[str]) -> Run:
    """Evaluate in NumPy; ``values`` are names of ``g``."""
    wanted = frozenset(values)
    states: dict[str, Array] = {}

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {**feeds, **{s.input: states.get(s.name, s.initial) for s in g.states}}
        found = {x: np.asarray(given[x]) for x in wanted if x in given}

        def keep(n: Node, out: tuple[Array, ...]) -> None:
            found.update((y, a) for y, a in zip(n.outputs, out, strict=True) if y in wanted)

        after = evaluate(g, feeds, states, keep)
        states.update((s.name, after[s.output]) for s in g.states)
        return found

    return run


def onnxruntime(g: Graph, values: Sequence[str]) -> Run:
    """Evaluate in ONNX Runtime; on convolutional networks about twenty times as fast."""
    return _session(g, values, optimized=True)


def literally(g: Graph, values: Sequence[str]) -> Run:
    """Evaluate node by node as written; in ONNX Runtime where it takes the graph.

    Between Quantize and Dequantize, ONNX Runtime's optimizer makes integer kernels of float ops and
    rounds float weights of its own accord.
    """
    return _or_reference(g, values, optimized=False)


def _session(g: Graph, values: Sequence[str], *, optimized: bool) -> Run:
    inputs = (*g.inputs, *(s.input for s in g.states))
    inside = [x for x in dict.fromkeys(values) if x not in inputs]
    after = [s.output for s in g.states if s.output not in inside]
    watched = replace(g, outputs=tuple(dict.fromkeys([*inside, *g.outputs])), lengths=())
    model = to_portable_onnx(watched).SerializeToString()
    session = open_session(model, optimized=optimized)
    # outputs that are inputs, constants or named twice leave under other names: by position
    names = [o.name for o in session.get_outputs()]
    order = [*watched.outputs, *(o for o in after if o not in watched.outputs)]
    name_of = dict(zip(order, names, strict=True))
    states = {s.input: s.initial for s in g.states}

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {**{x: feeds[x] for x in g.inputs}, **states}
        wanted = [*inside, *after]
        # asked for no output, a session gives all of them
        try:
            got = session.run([name_of[x] for x in wanted], given) if wanted else []
        except refusals() as e:
            raise BadInput(
                f"{g.name}: onnxruntime cannot run a sample: {first_line(e)}",
                hint="are the indices in it within their tables?",
            ) from None
        out = dict(zip(wanted, got, strict=True))
        found = {x: given[x] for x in values if x in given} | {x: out[x] for x in inside}
        states.update((s.input, out[s.output]) for s in g.states)
        return found

    return run


def fastest(g: Graph, values: Sequence[str]) -> Run:
    """ONNX Runtime where it takes the graph, the reference where it does not."""
    return _or_reference(g, values, optimized=True)


def _or_reference(g: Graph, values: Sequence[str], *, optimized: bool) -> Run:
    try:
        return _session(g, values, optimized=optimized)
    except refusals() as e:
        # Python shows a text once
        warnings.warn(
            f"{g.name}: onnxruntime refuses the graph ({first_line(e)}); NumPy runs it, slower",
            RuntimeWarning,
            stacklevel=3,
        )
        return reference(g, values)


ENGINES: Mapping[str, Engine] = {
    "fastest": fastest,
    "literally": literally,
    "onnxruntime": onnxruntime,
    "reference": reference,
}


def engine(name: str) -> Engine:
    """A row of `ENGINES`.

    Raises:
        BadInput: There is none of that name.
    """
    if name not in ENGINES:
        raise BadInput(f"engine {name!r}", hint=f"use one of {', '.join(ENGINES)}")
    return ENGINES[name]


def with_states(g: Graph, samples: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    """Samples with what the states of ``g`` hold when their turn comes, from the initial values on.

    For what has the same states as inputs and outputs, as the ONNX twin of a bundle has.
    """
    if not g.states:
        yield from map(dict, samples)
        return
    run = literally(g, [s.input for s in g.states])
    for feeds in samples:
        yield {**feeds, **run(feeds)}
