"""A model as the file an accelerator's own compiler takes, and where its operators will run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from sparrow.compiler import Source, import_source
from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.importers.imported import Shapes
from sparrow.importers.model import Model
from sparrow.offload.compression import masked_bytes
from sparrow.offload.conforming import conforming, rules_of
from sparrow.offload.residency import Residency, residency
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.passes import FRONT, optimize
from sparrow.passes.layout import standard_layout
from sparrow.portable import to_portable_onnx
from sparrow.quant import LayerReport, Quantized, Recipe
from sparrow.quant.engine import literally
from sparrow.quantizing import NOTHING, Given, quantize_model
from sparrow.reference import one_thread
from sparrow.samples import Feeds, Pixels, samples
from sparrow.sources import sources_and_samples, sources_of
from sparrow.targets import Device

# Samples whose feature maps are compressed to see what is left of them.
MEASURED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Offload:
    """A file for an accelerator.

    Attributes:
        model: QDQ where the device has integers, of its float type where it has none.
        residency: Where the operators run.
        quantized: The quantization; None of a float file.
        layers: How far every layer is from the float one; empty of a float file.
    """

    model: onnx.ModelProto
    residency: Residency
    quantized: Quantized | None
    layers: tuple[LayerReport, ...]


def offload(
    model: Model,
    device: Device,
    calib: Iterable[Any] | str | Path | None = None,
    recipe: Recipe | None = None,
    given: Given = NOTHING,
    *,
    precision: str | None = None,
) -> Offload:
    """Write a model under the numeric rules of an accelerator.

    Args:
        model: Path or ModelProto.
        device: A row with rules.
        calib: Samples, as for `sparrow.quantize`; not used by devices without integers.
        recipe: How, where the rules leave a choice.
        given: The rest of what `sparrow.quantize` takes.
        precision: ``int8`` or ``int16x8``, or one of the row's modes, such as ``FP16.32``.

    Raises:
        SparrowError: The model, the samples or the recipe are no good, or the device lacks what is
            asked for.
    """
    rules = rules_of(device)
    sources, calib = sources_and_samples(model, given.shapes, given.states, calib, given.constants)
    ((_, source),) = sources.items()
    g = _graph(sources)
    if not rules.weight_bits:
        if calib is not None:
            raise BadInput(
                f"{device.title} computes with {', '.join(rules.float_dtypes)} only",
                hint="leave --calib out: nothing is quantized for it",
            )
        mode = _float_mode(device, precision)
        proto = to_portable_onnx(g)
        if _operand(mode) == "float16":
            proto = _halved(proto)
        return Offload(proto, residency(proto, device, mode), None, ())
    if calib is None:
        raise BadInput(f"{device.title} takes integers, which needs samples", hint="give --calib")
    kept: list[Feeds] = []
    types = {x: g.types[x] for x in g.inputs}

    def feeds() -> Iterator[Feeds]:
        for f in samples(calib, types, given.pixels or Pixels()):
            if len(kept) < MEASURED:
                kept.append(f)
            yield f

    done, layers = quantize_model(
        model,
        feeds(),
        conforming(recipe or Recipe(), device, precision),
        replace(given, shapes=source.shapes),
    )
    proto = to_portable_onnx(done.graph)
    shares = _feature_shares(done.graph, kept) if "features" in rules.compressed else None
    return Offload(proto, residency(proto, device, "", shares), done, tuple(layers))


def inspect(
    model: Model,
    device: Device,
    shapes: Shapes | None = None,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
) -> Residency:
    """Where the operators of a model would run, before anything is quantized.

    Args:
        model: Path or ModelProto, float or QDQ; of a float one, operators alone are judged.
        device: A row with rules.
        shapes: Static shapes of inputs with dynamic dimensions.
        states: Model input -> output pairs.
        constants: Inputs fixed to a value.
    """
    rules = rules_of(device)
    g = _graph(sources_of(model, shapes, states, constants))
    mode = "" if rules.weight_bits else _float_mode(device, None)
    return residency(to_portable_onnx(g), device, mode)


def _graph(sources: Mapping[str, Source]) -> Graph:
    ((name, source),) = sources.items()
    with one_thread():
        g = import_source(source, name).graph
        coded = any(isinstance(n.op, (Quantize, Dequantize)) for n in g.nodes)
        return standard_layout(g if coded else optimize(g, FRONT))


def _float_mode(device: Device, wanted: str | None) -> str:
    rules = rules_of(device)
    known = rules.modes or rules.float_dtypes
    if wanted is not None and wanted not in known:
        raise BadInput(f"{device.title} has no {wanted}", hint=f"use one of {', '.join(known)}")
    return wanted or known[0]


def _operand(mode: str) -> str:
    """Float type of a mode: FP16.32 reads float16."""
    short = {"FP16": "float16", "FP32": "float32"}
    return short.get(mode.split(".")[0], mode)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 model in float16, inputs and outputs too."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=False)
    return half


def _feature_shares(g: Graph, feeds: list[Feeds]) -> dict[str, float]:
    """Value -> share of its bytes that a bit mask of zeros leaves, over some samples."""
    codes = {n.outputs[0]: n for n in g.nodes if isinstance(n.op, Quantize)}
    readers = {n.inputs[0]: n.outputs[0] for n in g.nodes if isinstance(n.op, Dequantize)}
    packed, plain = dict.fromkeys(codes, 0), dict.fromkeys(codes, 0)
    run = literally(g, list(codes))
    for f in feeds:
        found = run(f)
        for q, n in codes.items():
            assert isinstance(n.op, Quantize)
            zero = int(n.op.quant.zero_point.reshape(-1)[0])
            packed[q] += min(masked_bytes(found[q], zero), found[q].nbytes)
            plain[q] += found[q].nbytes
    shares: dict[str, float] = {}
    for q, n in codes.items():
        share = packed[q] / plain[q] if plain[q] else 1.0
        shares[n.inputs[0]] = share
        if q in readers:
            shares[readers[q]] = share
    return shares


__all__ = ["Offload", "inspect", "offload"]
