"""The public functions; ``sparrow`` loads this module on first use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from sparrow.assemble import Budget, Evaluate, Progress, Request, write_bundle
from sparrow.bundle import Bundle, load_bundle
from sparrow.compiler import Model, Shapes, Source, compile_sources
from sparrow.device.cpu import host_isa
from sparrow.errors import BadInput
from sparrow.kernels import KERNELS
from sparrow.kernels.case import Kernel
from sparrow.targets import Target
from sparrow.targets import target as target_row

PRECISIONS = ("float32", "auto")


def resolve_target(name: str) -> Target:
    """The row of a target; ``host`` is the best row this machine can run."""
    best = {"avx512": "x86_64_v4", "avx2": "x86_64_v3"}.get(host_isa(), "x86_64")
    return target_row(best if name == "host" else name)


def sources_of(
    model: Model | Mapping[str, Model],
    shapes: Shapes | None = None,
    states: Mapping[str, str] | None = None,
) -> dict[str, Source]:
    """Entry points of what a user calls a model: one file or proto, or several by name."""
    if isinstance(model, Mapping):
        return {
            str(name): Source(m, shapes or {}, states=states or {}) for name, m in model.items()
        }
    if not isinstance(model, (str, Path, onnx.ModelProto)):
        raise BadInput(
            f"a model is a path or an onnx.ModelProto, got {type(model).__name__}",
            hint="export a torch module with torch.onnx.export(module, args, 'model.onnx')",
        )
    return {"main": Source(model, shapes or {}, states=states or {})}


def build(
    model: Model | Mapping[str, Model],
    target: str = "host",
    out: str | Path | None = None,
    shapes: Shapes | None = None,
    calib: Iterable[Any] | None = None,
    evaluate: Evaluate | None = None,
    precision: str = "auto",
    threads: int = 1,
    budget: Budget | None = None,
    *,
    states: Mapping[str, str] | None = None,
    kernels: Sequence[Kernel] = (),
    progress: Progress | None = None,
) -> Bundle:
    """Compile a model into a verified bundle.

    Args:
        model: Path, ModelProto, or entry name -> model for several entry points that share weights.
        target: Name of a target row, or ``host``.
        out: Bundle folder; a temporary one that lives as long as the Bundle when None.
        shapes: Static shapes of inputs with dynamic dimensions.
        calib: Samples for the golden vectors (arrays, dicts or tuples); random ones when None.
        evaluate: Accuracy of a predictor, for budgets.
        precision: ``float32``, or ``auto``, which is float32 without calibration data.
        threads: Threads the bundle will run with.
        budget: Gates; GateFailed when one does not hold.
        states: Model input -> output pairs carried from call to call.
        kernels: Rows preferred to the built-in table where they cost no more.
        progress: Told what happens, a few words each.

    Raises:
        SparrowError: One line that says where, what was expected and found, and what to do.
    """
    if precision not in PRECISIONS:
        raise BadInput(
            f"precision {precision!r} is not available", hint=f"use one of {', '.join(PRECISIONS)}"
        )
    if threads < 1:
        raise BadInput(f"threads must be at least 1, got {threads}")
    sources = sources_of(model, shapes, states)
    compiled = compile_sources(
        sources, resolve_target(target), threads=threads, kernels=(*kernels, *KERNELS)
    )
    request = Request(
        threads, precision, calib, evaluate, budget or Budget(), progress or (lambda _: None)
    )
    return write_bundle(compiled, sources, None if out is None else Path(out), request)


def emit_sources(
    model: Model | Mapping[str, Model],
    target: str = "x86_64_v3",
    shapes: Shapes | None = None,
    threads: int = 1,
) -> dict[str, bytes]:
    """The emitted files of a model by name, without compiling them."""
    compiled = compile_sources(sources_of(model, shapes), resolve_target(target), threads=threads)
    return dict(compiled.artifact.files)


__all__ = ["Budget", "Bundle", "build", "emit_sources", "load_bundle"]
