"""Model and samples -> the same model in QDQ form, and how far each layer is from the float one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from sparrow.compiler import import_source
from sparrow.errors import BadInput
from sparrow.graph import Graph, retyped
from sparrow.importers.imported import Shapes
from sparrow.importers.model import AnyModel
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.sums import over_codes
from sparrow.ops.transpose import Transpose
from sparrow.passes import FRONT, optimize
from sparrow.passes.code_signs import unsigned
from sparrow.passes.layout import standard_layout
from sparrow.portable import to_portable_onnx
from sparrow.quant import LayerReport, Quantized, Recipe, digest, report, run
from sparrow.quant.kinds import LAYERS
from sparrow.reference import one_thread
from sparrow.request import Progress
from sparrow.samples import Feeds, Pixels, samples
from sparrow.sources import sources_and_samples

# What stands between stored weights and the layer that multiplies by them.
_OF_WEIGHTS = (Dequantize, Reshape, Slice, Transpose)
# Samples over which layers are compared.
REPORTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a user says of a model to quantize and of its samples; see `sparrow.quantize`."""

    shapes: Shapes | None = None
    states: Mapping[str, str] | None = None
    constants: Mapping[str, Any] | None = None
    pixels: Pixels | None = None
    evaluation: Iterable[Any] | str | Path | None = None
    progress: Progress | None = None


NOTHING = Given()


def with_float_weights(g: Graph) -> Graph:
    """A graph after `FRONT` whose weights alone are codes, with the floats that these stand for.

    Any other as it is: where activations are codes, too, the file says all that is to be said.
    """
    coded = (
        isinstance(n.op, Quantize)
        or (isinstance(n.op, LAYERS) and over_codes(*(g.types[x].dtype for x in n.inputs[:2])))
        for n in g.nodes
    )
    if any(coded):
        return g
    consts, nodes = dict(g.consts), []
    for n in g.nodes:
        if not isinstance(n.op, _OF_WEIGHTS) or n.inputs[0] not in consts:
            nodes.append(n)
            continue
        consts.update(zip(n.outputs, n.op.eval(consts[n.inputs[0]]), strict=True))
    if len(nodes) == len(g.nodes):
        return g
    return optimize(retyped(g, nodes, consts=consts), FRONT)


def quantize_model(
    model: AnyModel,
    calib: Iterable[Any] | str | Path,
    recipe: Recipe | None = None,
    given: Given = NOTHING,
) -> tuple[Quantized, list[LayerReport]]:
    """`quantize`, with the statistics behind it and how far every layer is from the float one.

    Layers are compared on the first samples of ``evaluation``; without one of those that calibrate.
    """
    if calib is None:
        raise BadInput("quantization needs samples", hint="give calib=, an .npz or an image folder")
    say = given.progress or (lambda _: None)
    say("reading the model")
    # what loading code says of images is for every source of them
    how = given.pixels or Pixels()
    sources, calib = sources_and_samples(model, given.shapes, given.states, calib, given.constants)
    ((name, source),) = sources.items()
    with one_thread():
        g = import_source(source, name).graph
        g = with_float_weights(optimize(g, FRONT))
        # DequantizeLinear, an operator, QuantizeLinear, with no Transpose of floats between them
        laid_out = standard_layout(g)
        asked = recipe or Recipe()
        # values that a recipe names (that of a bundle does) may exist in one layout alone
        if all(x in laid_out.types for x in (*asked.wide, *asked.exact)):
            g = laid_out
    types = {x: g.types[x] for x in g.inputs}
    first: list[Feeds] = []

    def noted(source: Iterable[Any] | str | Path) -> Iterator[Feeds]:
        for f in samples(source, types, how):
            if len(first) < REPORTED:
                first.append(f)
            yield f

    judged, calibrating = frozenset[str](), noted(calib)
    if given.evaluation is not None:
        # what calibrated is no judge where there is another
        judged, calibrating = (
            frozenset(map(digest, noted(given.evaluation))),
            samples(calib, types, how),
        )
        if not judged:
            raise BadInput("the evaluation set is empty", hint="give at least one sample, or none")
    done = run(g, calibrating, recipe, evaluation=judged, progress=say)
    say("comparing layer by layer")
    return done, report(done, first)


def qdq_file(done: Quantized) -> onnx.ModelProto:
    """A quantization as a file for other runtimes, as `quantize` gives it."""
    r = done.recipe
    ruled = r.symmetric or r.complete or r.scales != "float" or r.scheme == "tflite"
    return to_portable_onnx(done.graph if ruled else unsigned(done.graph))
