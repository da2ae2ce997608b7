"""What a quantization is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from sparrow.errors import BadInput
from sparrow.graph import SCHEMES, Graph, Node, Scheme
from sparrow.importers.file import read_small
from sparrow.ops.attention import Attention
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.reshape import Reshape
from sparrow.ops.transpose import Transpose

Precision: TypeAlias = Literal["float32", "bfloat16", "int8", "int16x8"]
Granularity: TypeAlias = Literal["per_tensor", "per_channel", "per_group"]
Ranges: TypeAlias = Literal["minmax", "percentile", "entropy", "mse", "aciq", "octav"]
Rounding: TypeAlias = Literal["nearest", "adaround", "gptq"]
Scales: TypeAlias = Literal["float", "power_of_two"]
Pins: TypeAlias = tuple[tuple[str, Precision], ...]

SCHEMA = 1
# A pin takes some thirty bytes.
MAX_BYTES = 1 << 20
_EXAMPLE = 'write {"schema": 1, "pins": [["head*", "float32"]]}'
_SWITCHES = ("symmetric", "bias_correction", "equalize", "widen", "complete")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a float Graph becomes a quantized one. Its defaults are those of docs/quantization.md.

    Attributes:
        ranges: How the range of an activation is set, a row of `RANGES`.
        weights: One scale per output channel, or one for all; or, of matrices, one per ``group``
            inputs of an output channel, which is per channel for all other weights.
        group: Inputs that share a scale.
        weight_bits: Of weights that products take, 8 or 7. Where a processor has no VNNI, ONNX
            Runtime and OpenVINO add two products of bytes in 16 bits, which saturate; those of
            weights of 7 bits fit.
        rounding: How weights are rounded to codes.
        symmetric: Activations without zero points.
        bias_correction: Take the mean error of rounded weights back into the biases.
        equalize: Even out channels across layers before anything else.
        smooth: Share of the range of a product's input that moves into its weights (SmoothQuant's
            alpha), or None.
        scheme: How sums over codes are rounded to codes, see docs/integer-spec.md; ``tflite`` needs
            no float.
        precision: Of every layer that no pin names. ``bfloat16`` rounds data and weights of
            products, sums them in float32, and leaves all else float.
        residual: Of those among them that are matrix products, attention, or elementwise beside a
            product, of a network which normalises its residual stream, instead of int8: what a
            transformer carries has outliers, and one scale of 8 bits for them and all else costs
            more than the second byte.
        widen: Look for values that want more than 8 bits (`sparrow.quant.widen`), which ``wide``
            then names. Not under ``tflite``, powers of two, or a complete quantization.
        fidelity: Power of the outputs over that of their error, in dB, up to which ``widen`` spends
            time on values that make much of the error.
        wide: Values whose codes have 16 bits, whatever the precision of what makes and reads them,
            but for layers that are pinned to int8; results of sums that a cheap function alone
            reads are no codes at all (`sparrow.quant.functions`).
        exact: First results of layers that stay float32, because 16 bits of what they read lose too
            much, but for those that are pinned.
        scales: ``power_of_two`` for devices that rescale by shifts alone.
        complete: Every float value becomes codes, for devices that compute with nothing else: the
            inputs and results of all ops, logits included. Pins to float32 still hold.
        pins: (pattern, precision): patterns are globs over the source names of layers and the names
            of their results, or the kind of an op; the first that fits counts.
    """

    ranges: Ranges = "mse"
    weights: Granularity = "per_channel"
    group: int = 32
    weight_bits: int = 8
    rounding: Rounding = "gptq"
    symmetric: bool = False
    bias_correction: bool = True
    equalize: bool = False
    smooth: float | None = None
    scheme: Scheme = "f32"
    precision: Precision = "int8"
    residual: Precision = "int16x8"
    widen: bool = True
    fidelity: float = 20.0
    wide: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    scales: Scales = "float"
    complete: bool = False
    pins: Pins = ()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("ranges", self.ranges, get_args(Ranges)),
            ("weights", self.weights, get_args(Granularity)),
            ("rounding", self.rounding, get_args(Rounding)),
            ("scheme", self.scheme, SCHEMES),
            ("precision", self.precision, get_args(Precision)),
            ("residual", self.residual, get_args(Precision)),
            ("scales", self.scales, get_args(Scales)),
            *((f"pin {p!r}", v, get_args(Precision)) for p, v in self.pins),
        ):
            if value not in known:
                raise BadInput(f"{name} is {value!r}", hint=f"use one of {', '.join(known)}")
        if type(self.group) is not int or self.group < 2:
            raise BadInput(f"group is {self.group!r}, expected a number of inputs, at least 2")
        if self.weight_bits not in (7, 8):
            raise BadInput(f"weight_bits is {self.weight_bits!r}", hint="use 8 or 7")
        if self.weight_bits == 7:
            self._check_seven_bits()
        if self.weights == "per_group":
            self._check_groups()
        if not math.isfinite(self.fidelity):
            raise BadInput(f"fidelity is {self.fidelity}, expected decibels")
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise BadInput(f"smooth is {self.smooth}, expected a share between 0 and 1")

    @property
    def fuses(self) -> bool:
        """Whether cheap functions may read the floats of a sum (`sparrow.quant.functions`)."""
        return self.scheme == "f32" and self.scales == "float" and not self.complete

    @property
    def largest_weight(self) -> int:
        """The largest code of a weight that a product takes."""
        return (1 << (self.weight_bits - 1)) - 1

    def _check_seven_bits(self) -> None:
        for name, value, ruled in (
            ("weights", self.weights, "per_group"),
            ("scales", self.scales, "power_of_two"),
        ):
            if value == ruled:
                raise BadInput(f"weights of 7 bits with {name} {value}", hint="use 8 bits")

    def _check_groups(self) -> None:
        for name, value, others in (
            ("rounding", self.rounding, "gptq or nearest"),
            ("scales", self.scales, "float"),
            ("scheme", self.scheme, "f32, fixed31 or pow2"),
        ):
            if value in ("adaround", "power_of_two", "tflite"):
                raise BadInput(f"{name} {value} takes no weights per group", hint=f"use {others}")


def literal(name: str) -> str:
    """A glob that fits this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def precision_of(recipe: Recipe, *names: str) -> Precision | None:
    """What the first pin that fits one of some names asks for; None if none does."""
    for pattern, precision in recipe.pins:
        if any(fnmatchcase(name, pattern) for name in names):
            return precision
    return None


def to_json(recipe: Recipe) -> bytes:
    """A recipe as text that `from_json` reads."""
    return (json.dumps({"schema": SCHEMA, **asdict(recipe)}, indent=1) + "\n").encode()


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file.

    Raises:
        BadInput: It cannot be read or is no recipe.
    """
    return from_json(read_small(path, "recipe", MAX_BYTES), str(path))


def from_json(data: bytes, where: str) -> Recipe:
    """The recipe of a text.

    Raises:
        BadInput: It holds something else, or a value that is none of its kind.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise BadInput(f"{where} is no recipe: it is no JSON: {e}") from None
    if not isinstance(found, dict):
        raise BadInput(
            f"{where} is no recipe: it holds {type(found).__name__}, expected an object",
            hint=_EXAMPLE,
        )
    if (schema := found.pop("schema", None)) != SCHEMA:
        raise BadInput(f"{where}: schema is {schema!r}, expected {SCHEMA}", hint=_EXAMPLE)
    known = [f.name for f in fields(Recipe)]
    strange = next((k for k in found if k not in known), None)
    if strange is not None:
        near = get_close_matches(strange, known, 1) or [", ".join(known)]
        raise BadInput(f"{where}: a recipe has no {strange!r}", hint=f"it has {near[0]}")
    pins = found.get("pins", ())
    if not _each(pins, lambda p: _each(p, lambda x: isinstance(x, str)) and len(p) == 2):
        raise BadInput(f"{where}: pins are a list of [pattern, precision]", hint=_EXAMPLE)
    for name in ("wide", "exact"):
        if not _each(found.get(name, ()), lambda x: isinstance(x, str)):
            raise BadInput(f"{where}: {name} is a list of names of values")
        found[name] = tuple(found.get(name, ()))
    found["pins"] = tuple((p, v) for p, v in pins)
    if not all(isinstance(found.get(k, False), bool) for k in _SWITCHES):
        raise BadInput(f"{where}: {', '.join(_SWITCHES)} are true or false")
    if type(found.get("fidelity", 0.0)) not in (int, float):
        raise BadInput(f"{where}: fidelity is {found['fidelity']!r}, expected decibels")
    smooth = found.get("smooth")
    if smooth is not None and type(smooth) not in (int, float):
        raise BadInput(f"{where}: smooth is {smooth!r}, expected a share between 0 and 1")
    try:
        return Recipe(**found)
    except BadInput as e:
        raise BadInput(f"{where}: {e.message}", hint=e.hint) from None


def _each(items: object, holds: Callable[[Any], bool]) -> bool:
    return isinstance(items, list | tuple) and all(map(holds, items))


def _names(n: Node) -> tuple[str, ...]:
    return (n.origin, *n.outputs, type(n.op).__name__)


def pin_of(n: Node, recipe: Recipe) -> Precision | None:
    """What a pin asks of a node."""
    return precision_of(recipe, *_names(n))


def pinned(g: Graph, recipe: Recipe, to: Sequence[Precision] = get_args(Precision)) -> set[str]:
    """Values that nodes which are pinned, to one of some precisions, make or read."""
    nodes = (n for n in g.nodes if pin_of(n, recipe) in to)
    return {x for n in nodes for x in (*n.inputs, *n.outputs)}


def precisions(g: Graph, recipe: Recipe) -> dict[str, Precision]:
    """The precision asked for of every node, by its first result.

    Raises:
        BadInput: A pin fits no node.
    """
    for pattern, _ in recipe.pins:
        if not any(fnmatchcase(name, pattern) for n in g.nodes for name in _names(n)):
            raise BadInput(f"pin {pattern!r} fits no layer", hint=_near(g, pattern))

    for x in (*recipe.wide, *recipe.exact):
        if x not in g.types or x in g.consts:
            raise BadInput(f"{x!r} is no value of {g.name} that could take 16 bits")
    exact = set(recipe.exact)

    stream = _stream(g) if recipe.precision == "int8" else set()

    def of(n: Node) -> Precision:
        plain = recipe.residual if n.outputs[0] in stream else recipe.precision
        if plain != recipe.precision and not recipe.complete and _of_activations(g, n):
            plain = "float32"
        return pin_of(n, recipe) or ("float32" if n.outputs[0] in exact else plain)

    return {n.outputs[0]: of(n) for n in g.nodes}


# What may stand between a product and what is elementwise beside it.
_MOVED = (Reshape, Transpose)


def _stream(g: Graph) -> set[str]:
    """First results of products, attention and what is elementwise beside, between norms."""
    if not any(_over_last_axis(g, n) for n in g.nodes):
        return set()
    made, users = g.producers(), g.users()

    def makers(n: Node) -> list[Node]:
        near = (made[x] for x in n.inputs if x in made)
        return [z for k in near for z in (makers(k) if isinstance(k.op, _MOVED) else [k])]

    def readers(n: Node) -> list[Node]:
        near = users.get(n.outputs[0], ())
        return [z for k in near for z in (readers(k) if isinstance(k.op, _MOVED) else [k])]

    def beside(n: Node) -> bool:
        return any(isinstance(k.op, MatMul) for k in (*makers(n), *readers(n)))

    return {
        n.outputs[0]
        for n in g.nodes
        if isinstance(n.op, Attention | MatMul) or (isinstance(n.op, Lane) and beside(n))
    }


def _of_activations(g: Graph, n: Node) -> bool:
    """Whether a node multiplies two activations: four products where both have 16 bits."""
    return isinstance(n.op, MatMul) and not any(x in g.consts for x in n.inputs[:2])


def _over_last_axis(g: Graph, n: Node) -> bool:
    return isinstance(n.op, Normalize) and n.op.axes == (g.types[n.outputs[0]].rank - 1,)


def _near(g: Graph, pattern: str) -> str:
    known: Sequence[str] = sorted({x for n in g.nodes for x in _names(n) if x and x[0] != "%"})
    near = get_close_matches(pattern, known, 3, 0.3) or known[:3]
    return f"there are {', '.join(repr(x) for x in near)}"
