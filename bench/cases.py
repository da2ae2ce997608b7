"""What is measured: random networks, the bundled demo, real models with stored inputs, and files
that are brought.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models import MODELS, Feeds, Model
from sparrow.errors import SparrowError
from sparrow.importers.model import as_onnx, import_model, is_tflite
from sparrow.importers.onnx.read import load_proto
from sparrow.samples import draw, samples

REPO = Path(__file__).resolve().parent.parent
INPUT_SETS = 4


@dataclass(frozen=True, slots=True)
class Case:
    """A network, the inputs that the measured calls cycle through, the TFLite file it came from."""

    name: str
    model: Callable[[], onnx.ModelProto]
    inputs: Callable[[], Sequence[Feeds]]
    tflite: Path | None = None


def data_folder() -> Path:
    """Where the real models are: `SPARROW_DATA`, by default `../shared/data` of the repository."""
    return Path(os.environ.get("SPARROW_DATA", REPO.parent / "shared" / "data"))


def drawn(row: Model) -> list[Feeds]:
    rng = np.random.default_rng(0)
    return [row.feeds(rng) for _ in range(INPUT_SETS)]


def digit_images() -> list[Feeds]:
    rng = np.random.default_rng(0)
    return [{"image": rng.random((1, 1, 8, 8), np.float32)} for _ in range(INPUT_SETS)]


def stored(reference: Path, names: Sequence[str]) -> list[Feeds]:
    """The first samples of a `refs/*.npz`: `in0, in1, ..` with the samples on the first axis."""
    with np.load(reference) as arrays:
        columns = [arrays[f"in{i}"][:INPUT_SETS] for i in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def real_cases(data: Path) -> list[Case]:
    """Every ONNX file under `data` that has stored reference inputs; none without the folder."""
    cases = []
    for reference in sorted(data.glob("refs/*__onnx.npz")):
        meta = described(reference)
        path = data / meta["model"]
        cases.append(
            Case(path.stem, partial(onnx.load, path), partial(stored, reference, meta["inputs"]))
        )
    return cases


def described(reference: Path) -> dict[str, Any]:
    """What a `refs/*.npz` says of itself."""
    with np.load(reference) as arrays:
        meta: dict[str, Any] = json.loads(str(arrays["meta"]))
    return meta


def exported(path: Path) -> onnx.ModelProto:
    """A TFLite file as ONNX: its import, before any pass; a call from its first states."""
    model, states, _ = as_onnx(path, {}, {}, {})
    assert isinstance(model, onnx.ModelProto)
    for value in [v for v in model.graph.input if v.name in states]:
        kind = value.type.tensor_type
        shape = [d.dim_value for d in kind.shape.dim]
        zeros = np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))
        model.graph.initializer.append(numpy_helper.from_array(zeros, value.name))
        model.graph.input.remove(value)
    for value in [v for v in model.graph.output if v.name in states.values()]:
        model.graph.output.remove(value)
    return model


def tflite_cases(data: Path, *, coded: bool = False) -> list[Case]:
    """Every TFLite file under `data` that has stored reference inputs: floats, or `coded` ones."""
    cases = []
    for reference in sorted(data.glob("refs/*__tflite.npz")):
        meta = described(reference)
        path = data / meta["model"]
        if any(scale for scale, _ in meta["input_quant"]) == coded:
            inputs = partial(stored, reference, meta["inputs"])
            cases.append(Case(path.name, partial(exported, path), inputs, path))
    return cases


def all_cases() -> list[Case]:
    digits = partial(onnx.load, REPO / "examples" / "digits" / "digits.onnx")
    random = [Case(row.name, row.build, partial(drawn, row)) for row in MODELS]
    real = (*real_cases(data_folder()), *tflite_cases(data_folder()))
    return [Case("digits", digits, digit_images), *real, *random]


def brought(path: Path) -> Case:
    """An ONNX or TFLite file; its inputs are those of the `.npz` beside it, else drawn ones.

    Raises:
        SparrowError: The file is none that Sparrow reads, or its samples do not fit.
    """
    model = exported(path) if is_tflite(path) else load_proto(path)[0]
    graph = import_model(model).graph
    beside = path.with_suffix(".npz")
    if beside.exists():
        types = {name: graph.types[name] for name in graph.inputs}
        inputs = list(islice(samples(beside, types), INPUT_SETS))
    else:
        inputs = [draw(graph, (i,)) for i in range(INPUT_SETS)]
    tflite = path if path.suffix == ".tflite" else None
    return Case(path.stem, lambda: model, lambda: inputs, tflite)


def named(names: Sequence[str], parser: argparse.ArgumentParser) -> list[Case]:
    """The networks of these names or files, all without any; an unknown one ends the program."""
    known = {case.name: case for case in all_cases()}
    files = [n for n in names if n not in known and Path(n).suffix in (".onnx", ".tflite")]
    if unknown := set(names) - known.keys() - set(files):
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    try:
        return [brought(Path(n)) if n in files else known[n] for n in names or known]
    except SparrowError as error:
        parser.error(str(error))
