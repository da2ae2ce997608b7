"""Words of the command line as values; what does not read so is a BadInput that shows how."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparrow.errors import BadInput, SparrowError

if TYPE_CHECKING:
    from sparrow.importers.model import Model
    from sparrow.quant import LayerReport, Quantized
    from sparrow.quant.recipe import Recipe
    from sparrow.reduce import Fails
    from sparrow.request import Budget, Evaluate, Predict
    from sparrow.samples import Pixels

UNITS = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20}
TIMES = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}


def models_of(texts: list[str]) -> Model | dict[str, Model]:
    """One path, or entry name -> path.

    Raises:
        BadInput: Names are missing or repeated.
    """
    if len(texts) == 1 and (os.path.exists(texts[0]) or "=" not in texts[0]):
        return texts[0]
    found: dict[str, Model] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise BadInput(
                f"{text!r} does not name its entry point", hint="write prefill=a.onnx step=b.onnx"
            )
        if name in found:
            raise BadInput(f"entry point {name!r} is given twice")
        found[name] = path
    return found


def calib_of(texts: list[str] | None) -> str | dict[str, str] | None:
    """One path of samples, or entry name -> path; None if nothing is given.

    Raises:
        BadInput: Several sources without names, or a name is repeated.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, _, path = text.partition("=")
        if os.path.exists(text) or not name or not path:
            if len(texts or ()) > 1:
                raise BadInput(
                    f"--calib {text!r} does not name its entry point",
                    hint="write --calib prefill=p.npz --calib step=s.npz",
                )
            return text
        if name in found:
            raise BadInput(f"--calib {name!r} is given twice")
        found[name] = path
    return found or None


def shapes_of(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Input name -> extents from ``input=1x3x240x320``.

    Raises:
        BadInput: A text does not read so.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, _, dims = text.rpartition("=")
        if not name or not re.fullmatch(r"\d{1,12}(x\d{1,12})*|scalar", dims):
            raise BadInput(f"--shape {text!r}", hint="write --shape input=1x3x240x320")
        found[name] = () if dims == "scalar" else tuple(int(d) for d in dims.split("x"))
    return found


def states_of(texts: list[str] | None) -> dict[str, str]:
    """Input name -> output name from ``in=out``.

    Raises:
        BadInput: A text does not read so.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, _, output = text.partition("=")
        if not name or not output:
            raise BadInput(f"--state {text!r}", hint="write --state cache_in=cache_out")
        found[name] = output
    return found


def constants_of(texts: list[str] | None) -> dict[str, Any]:
    """Input name -> number, truth value, or list of those, from ``sr=16000`` or ``sizes=3,5``.

    Raises:
        BadInput: A text does not read so.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, _, value = text.rpartition("=")
        try:
            values = [_number(v) for v in value.split(",")]
        except ValueError:
            name = ""
        if not name:
            raise BadInput(f"--constant {text!r}", hint="write --constant sr=16000")
        if name in found:
            raise BadInput(f"--constant {name!r} is given twice")
        found[name] = values if "," in value else values[0]
    return found


def _number(text: str) -> bool | int | float:
    known = {"true": True, "false": False}
    word = text.strip().lower()
    if word in known:
        return known[word]
    return int(word) if re.fullmatch(r"[+-]?\d{1,19}", word) else float(word)


def seconds_of(text: str | None, off: bool, tuning: Path | None) -> float:
    """Seconds to measure tiles in, from what ``--tune``, ``--no-tune`` and ``--tuning`` say.

    Raises:
        BadInput: A text does not read so, or they contradict each other.
    """
    if off and (text is not None or tuning is not None):
        raise BadInput("--no-tune beside --tune or --tuning", hint="give one of them")
    ns = quantity(text, "--tune", TIMES)
    return 0.0 if ns is None else ns / 1e9


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers from ``124,116,104``.

    Raises:
        BadInput: A text does not read so.
    """
    try:
        return tuple(float(v) for v in text.split(","))
    except ValueError:
        raise BadInput(f"{option} {text!r}", hint=f"write {option} 127 or 124,116,104") from None


def pixels_of(mean: str, std: str, bgr: bool) -> Pixels:
    """How images become numbers, from ``124,116,104`` and ``58,57,57``.

    Raises:
        BadInput: A text does not read so.
    """
    from sparrow.samples import Pixels

    return Pixels(numbers(mean, "--mean"), numbers(std, "--std"), bgr)


def recipe_of(pins: list[str] | None, path: Path | None, **fields: object) -> Recipe | None:
    """A recipe from what was given of it, None if nothing was. Pins read ``glob=precision``.

    Args:
        pins: Before those of the file.
        path: A file to start from.
        fields: Over those of the file; None leaves those, or a default.

    Raises:
        BadInput: A pin does not read so, a value is none of its kind, or the file is no recipe.
    """
    from dataclasses import replace

    from sparrow.quant.recipe import Recipe, read_recipe

    base = Recipe()
    if path is not None:
        base = read_recipe(path)
    given: dict[str, Any] = {k: v for k, v in fields.items() if v is not None}
    if path is None and not pins and not given:
        return None
    read: list[Any] = []
    for text in pins or ():
        pattern, _, precision = text.rpartition("=")
        if not pattern:
            raise BadInput(f"--pin {text!r}", hint="write --pin 'head*=float32'")
        read.append((pattern, precision))
    return replace(base, **given, pins=(*read, *base.pins))


def budget_of(drop: str | None, latency: str | None, size: str | None, ram: str | None) -> Budget:
    """A budget from ``1%``, ``20ms``, ``300kB``, ``64kB``.

    Raises:
        BadInput: One does not read so.
    """
    from sparrow.request import Budget

    size_bytes, ram_bytes = quantity(size, "--size", UNITS), quantity(ram, "--ram", UNITS)
    return Budget(
        drop=quantity(drop, "--drop", {"%": 0.01, "": 1.0}),
        latency=quantity(latency, "--latency", TIMES),
        size=None if size_bytes is None else int(size_bytes),
        ram=None if ram_bytes is None else int(ram_bytes),
    )


def quantization_facts(
    done: Quantized, layers: list[LayerReport], size: int, opset: int
) -> dict[str, Any]:
    """A quantization as JSON; what has no noise has no SQNR."""
    from dataclasses import asdict
    from math import isfinite

    return {
        "bytes": size,
        "opset": opset,
        "samples": done.calibration.health.samples,
        "digests": done.calibration.digests,
        "notes": done.calibration.health.notes,
        "recipe": asdict(done.recipe),
        "layers": [
            {
                **asdict(r.layer),
                "scale": r.scale,
                "zero_point": r.zero_point,
                "sqnr_db": r.sqnr_db if isfinite(r.sqnr_db) else None,
            }
            for r in layers
        ],
    }


def quantity(text: str | None, option: str, units: Mapping[str, float]) -> float | None:
    """A number with a unit, such as ``1%``, ``256kB`` or ``20ms``.

    Raises:
        BadInput: It is no such number.
    """
    if text is None:
        return None
    m = re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?) *([A-Za-z%]*)", text.strip())
    if not m or m[2] not in units:
        known = ", ".join(u for u in units if u)
        raise BadInput(f"{option} {text!r}", hint=f"write a number with one of {known}")
    return float(m[1]) * units[m[2]]


def function_of(text: str, option: str) -> Callable[[Any], Any]:
    """The function of ``file.py:name``; what it raises becomes one line.

    Raises:
        BadInput: There is no such file or function, or the file fails.
    """
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not os.path.isfile(path) or not name.isidentifier():
        raise BadInput(f"{option} {text!r}: no such file", hint=f"write {option} file.py:name")
    scope: dict[str, Any] = {"__name__": "evaluate", "__file__": str(path)}
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    except (Exception, SystemExit) as e:  # the user's own code may raise anything
        raise BadInput(f"{path}: {type(e).__name__}: {e}") from e
    f = scope.get(name)
    if not callable(f):
        raise BadInput(f"{path} has no function {name!r}")

    def call(given: Any) -> Any:
        try:
            return f(given)
        except SparrowError:
            raise
        except (Exception, SystemExit) as e:  # see above
            raise BadInput(f"{path}: {name}: {type(e).__name__}: {e}") from e

    return call


def evaluator(text: str | None) -> Evaluate | None:
    """The function of ``file.py:name`` as an accuracy.

    Raises:
        BadInput: There is no such file or function, the file fails, or its result is no number.
    """
    if text is None:
        return None
    call = function_of(text, "--evaluate")

    def accuracy(predict: Predict) -> float:
        found = call(predict)
        try:
            return float(found)
        except (TypeError, ValueError) as e:
            raise BadInput(f"--evaluate {text}: {type(e).__name__}: {e}") from e

    return accuracy


def failure_of(text: str) -> Fails:
    """A failure by name, or the function of ``file.py:name`` over an onnx.ModelProto.

    Raises:
        BadInput: There is none of that name, or as for `function_of`.
    """
    from sparrow.reduce import FAILURES

    if text in FAILURES:
        return FAILURES[text]
    if ":" not in text:
        known = ", ".join(FAILURES)
        raise BadInput(f"--fails {text!r}", hint=f"use {known}, or file.py:name")
    call = function_of(text, "--fails")

    def fails(model: Any) -> bool:
        found = call(model)
        try:
            return bool(found)
        except (TypeError, ValueError) as e:
            raise BadInput(
                f"--fails {text}: its result, a {type(found).__name__}, is neither true nor false",
                hint="return True where the model fails, else False",
            ) from e

    return fails
