"""Cut a model down to the smallest one that still shows a failure.

Delta debugging (Zeller and Hildebrandt 2002, ddmin) over the nodes of the Graph: a part of them
goes; what it made and others still read becomes an input. What is left after no single node can go
is minimal in that sense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx

from sparrow.device.session import from_native, to_native
from sparrow.errors import BadInput, InvalidGraph, SparrowError
from sparrow.graph import Graph, Node, retyped, verify
from sparrow.importers.model import Model, import_model
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ort import refusals
from sparrow.passes import FRONT, optimize
from sparrow.passes.integer import integer
from sparrow.portable import to_portable_onnx
from sparrow.quant.engine import literally, onnxruntime, reference
from sparrow.samples import draw

Fails: TypeAlias = Callable[[onnx.ModelProto], bool]
# Nodes that are named where all are told.
SHOWN = 10
# Share of the largest magnitude beyond which two implementations differ.
APART = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """What is left.

    Attributes:
        model: It, as ONNX; names are new ones.
        left: Its nodes: kind, and name in the whole model.
        before: Nodes of the whole model.
        tried: How often the failure was looked for.
    """

    model: onnx.ModelProto
    left: tuple[str, ...]
    before: int
    tried: int

    @property
    def nodes(self) -> int:
        """How many nodes are left."""
        return len(self.left)

    @property
    def count(self) -> str:
        """How many of how many, in words."""
        return f"{self.nodes} of {self.before} nodes still fail, after {self.tried} trials"

    def __str__(self) -> str:
        lines = [self.count]
        lines += [f"  {x}" for x in self.left[:SHOWN]]
        more = self.nodes - SHOWN
        return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])


def _named(nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(f"{type(n.op).__name__} {n.origin or n.outputs[0]}" for n in nodes)


def part(g: Graph, nodes: Sequence[Node]) -> Graph:
    """The graph of some of the nodes: what they miss is an input, what nobody reads an output.

    Raises:
        InvalidGraph: No value would leave it.
    """
    made = {y for n in nodes for y in n.outputs if y}
    read = {x for n in nodes for x in n.inputs if x}
    missing = dict.fromkeys(x for n in nodes for x in n.inputs if x and x not in made)
    outputs = [
        y
        for n in nodes
        for y in n.outputs
        if y and (y in g.outputs or y not in read) and g.types[y].size
    ]
    if not outputs:
        raise InvalidGraph("nothing leaves the graph")
    done = retyped(
        g,
        nodes,
        inputs=tuple(x for x in missing if x not in g.consts),
        outputs=tuple(outputs),
        states=(),
        lengths=(),
    )
    verify(done)
    return done


def _coded(g: Graph) -> bool:
    return any(isinstance(n.op, Quantize | Dequantize) for n in g.nodes)


def differs_from_onnxruntime(model: onnx.ModelProto) -> bool:
    """Whether the reference and ONNX Runtime give different answers for drawn inputs.

    Quantized models are computed as they say: fused integer kernels round elsewhere, or saturate.
    """
    g = import_model(model).graph
    feeds = draw(g, (0,))
    try:
        theirs = (literally if _coded(g) else onnxruntime)(g, g.outputs)(feeds)
    except refusals():
        return False
    return _apart(reference(g, g.outputs)(feeds), theirs, g.outputs)


def fails_to_build(model: onnx.ModelProto) -> bool:
    """Whether `sparrow.build` refuses the model or fails in any way."""
    from sparrow.api import build

    try:
        build(model)
    except Exception:  # any failure is the one looked for
        return True
    return False


class Native:
    """Whether the compiled code of a model differs from ONNX Runtime, or crashes, on drawn inputs.

    Of quantized models it has to give the very integers of their integer form in NumPy: what their
    float form says may be a step away. Each model is compiled and run once, in a process of its
    own: no proof, no tuning, no timing.

    Args:
        kind: ``differs`` or ``crashes``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, model: onnx.ModelProto) -> bool:
        """Whether it shows; a model that does not build, or whose call is refused, does not."""
        return self.outcome(model) == self.kind

    def outcome(self, model: onnx.ModelProto) -> str:
        """``same``, ``differs``, ``crashes`` or ``refused``."""
        from sparrow.compiler import Source, compile_sources
        from sparrow.device.apart import Crashed, run_apart
        from sparrow.device.here import resolve_target
        from sparrow.device.library import compile_library

        g = import_model(model).graph
        feeds = draw(g, (0,))
        try:
            c = compile_sources({g.name: Source(model)}, resolve_target("host"))
            built = c.module.entries[0]
            inputs = [to_native(feeds[x], built.types[x].dtype) for x in built.inputs]
            path = compile_library(c.artifact.files, c.plan.target.machine, c.artifact.parts)
            outputs = run_apart(path, c.plan.weights, inputs)
        except Crashed:
            return "crashes"
        except SparrowError:
            return "refused"
        ours = {
            y: from_native(v, built.types[y].dtype)
            for y, v in zip(built.outputs, outputs, strict=True)
        }
        form, engine = (integer(optimize(g, FRONT)), reference) if _coded(g) else (g, literally)
        return "differs" if _apart(ours, engine(form, g.outputs)(feeds), g.outputs) else "same"


def _apart(a: Mapping[str, object], b: Mapping[str, object], names: Sequence[str]) -> bool:
    for y in names:
        x, z = (np.asarray(v[y], np.float64) for v in (a, b))
        scale = float(np.abs(np.where(np.isfinite(z), z, 0.0)).max(initial=0))
        if x.shape != z.shape or not np.allclose(x, z, rtol=0, atol=APART * scale, equal_nan=True):
            return True
    return False


NATIVE: Mapping[str, Native] = {f"native-{k}": Native(k) for k in ("differs", "crashes")}
FAILURES: Mapping[str, Fails] = {
    "differs-from-onnxruntime": differs_from_onnxruntime,
    "fails-to-build": fails_to_build,
    **NATIVE,
}


def _other_kind(fails: Fails, model: onnx.ModelProto) -> str:
    """What else a model that does not fail as it was said to does, as a hint."""
    if not isinstance(fails, Native):
        return ""
    found = f"native-{fails.outcome(model)}"
    if found in NATIVE:
        return f"the compiled code {found.removeprefix('native-')}: --fails {found}"
    if found == "native-refused":
        return "the model does not build, or its call is refused: --fails fails-to-build"
    return ""


def reduce(
    model: Model,
    fails: Fails,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, Any] | None = None,
    keep: Callable[[Reduced], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> Reduced:
    """Cut a model down while it fails.

    Args:
        model: Path or ModelProto.
        fails: Whether a model shows the failure; called with models that are valid ONNX.
        shapes: Static shapes of inputs with dynamic dimensions.
        constants: Inputs fixed to a value, such as a sample rate; they vanish from the model.
        keep: Given every smaller model that fails, as soon as it is found, and first the whole one:
            what it stores outlives whatever ends the search.
        progress: Told what happens.

    Raises:
        BadInput: The whole model does not show the failure.
    """
    g = import_model(model, shapes or {}, constants=constants).graph
    tried = 0

    def shows(nodes: Sequence[Node]) -> bool:
        nonlocal tried
        try:
            candidate = to_portable_onnx(part(g, nodes))
        except InvalidGraph:
            return False
        tried += 1
        progress(f"{len(nodes)} nodes, trial {tried}")
        if not fails(candidate):
            return False
        keep(Reduced(candidate, _named(nodes), len(g.nodes), tried))
        return True

    nodes = list(g.nodes)
    if not shows(nodes):
        raise BadInput(
            f"{g.name}: the model as Sparrow reads it does not show the failure",
            hint=_other_kind(fails, to_portable_onnx(part(g, nodes))),
        )
    size = max(1, len(nodes) // 2)
    while True:
        at, smaller = 0, False
        while at < len(nodes):
            rest = nodes[:at] + nodes[at + size :]
            if rest and shows(rest):
                nodes, smaller = rest, True
            else:
                at += size
        if size == 1 and not smaller:
            break
        size = max(1, min(size // 2, len(nodes) // 2))
    return Reduced(to_portable_onnx(part(g, nodes)), _named(nodes), len(g.nodes), tried)
