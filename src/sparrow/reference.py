"""The interpreter that defines "correct": every node evaluated in NumPy, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from sparrow.errors import BadInput
from sparrow.graph import Graph, Node
from sparrow.tensor import BF16, Array, round_bfloat16


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """BLAS on one thread, so that results do not depend on the number of cores.

    How a library splits a sum shows in its last bits: in golden vectors, in folded constants.
    """
    limited: AbstractContextManager[object] = _pools().limit(limits=1, user_api="blas")
    return limited


Observer = Callable[[Node, tuple[Array, ...]], None]


def evaluate(
    g: Graph,
    feeds: Mapping[str, Array],
    states: Mapping[str, Array] | None = None,
    observe: Observer | None = None,
) -> dict[str, Array]:
    """Outputs of ``g`` for one call.

    Args:
        g: A verified graph.
        feeds: One array per graph input, of its type.
        states: Values of states by state name; missing ones start at their initial value.
        observe: Called with every node and its outputs, in order.

    Returns:
        Graph outputs by name, and the new value of every state under its *output* name.

    Raises:
        BadInput: A feed is missing or has another shape or dtype.
    """
    env: dict[str, Array] = dict(g.consts)
    for name in g.inputs:
        t = g.types[name]
        if name not in feeds:
            raise BadInput(f"input {name!r} is missing; the model takes {list(g.inputs)}")
        x = np.asarray(feeds[name])
        if x.shape != t.shape or x.dtype != t.dtype.numpy:
            raise BadInput(f"input {name!r}: expected {t}, got {x.dtype}{list(x.shape)}")
        env[name] = x
    for s in g.states:
        env[s.input] = (states or {}).get(s.name, s.initial)
    last: dict[str, int] = {}
    for i, n in enumerate(g.nodes):
        for x_name in n.inputs:
            last[x_name] = i
    keep = g.live_out()
    for i, n in enumerate(g.nodes):
        with one_thread(), np.errstate(all="ignore"):
            out = n.op.eval(*(env[x] if x else None for x in n.inputs))
        # bfloat16 has no NumPy type: ops compute in float32, what is stored is rounded
        out = tuple(
            round_bfloat16(y) if name and g.types[name].dtype == BF16 else y
            for name, y in zip(n.outputs, out, strict=True)
        )
        if observe is not None:
            observe(n, out)
        for name, y in zip(n.outputs, out, strict=True):
            if name:
                env[name] = y
        for x_name in set(n.inputs):
            if last.get(x_name) == i and x_name not in keep:
                env.pop(x_name, None)
    return {name: env[name] for name in keep}
