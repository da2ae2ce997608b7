"""Static types of a model's inputs."""

from __future__ import annotations

import operator
from collections.abc import Container, Mapping, Sequence

import onnx

from sparrow.errors import BadInput, BadModel, UnsupportedOp
from sparrow.importers.imported import Shapes
from sparrow.importers.onnx.call import elem_type
from sparrow.tensor import TensorType

# What exporters write where they know nothing of an axis: no symbol, so two axes may differ.
UNNAMED = ("", "?", "-1", "None")


def declared(d: onnx.TensorShapeProto.Dimension) -> int | str | None:
    """An axis as its model declares it: an extent, a symbol, or None where it says nothing.

    Paddle's exporter writes the extent -1 or the symbol "?" for the latter; so do others.
    """
    if d.HasField("dim_value") and d.dim_value != -1:
        return int(d.dim_value)
    return None if d.dim_param in UNNAMED else str(d.dim_param)


def _missing(
    inputs: Sequence[onnx.ValueInfoProto], given: Container[str], symbols: Container[str]
) -> str:
    """The options that would bind every dimension that is not, in order: a name binds it once."""
    options: list[str] = []
    named: set[str] = set()
    for i in inputs:
        if i.name in given or not i.type.tensor_type.HasField("shape"):
            continue
        dims = [declared(d) for d in i.type.tensor_type.shape.dim]
        symbolic = {d for d in dims if isinstance(d, str) and d not in symbols}
        if None in dims or symbolic - named:
            extents = (str(d) if isinstance(d, int) else "N" for d in dims)
            options.append(f"--shape {i.name}={'x'.join(extents)}")
            named |= symbolic
    return " ".join(options)


def _symbols(
    inputs: Sequence[onnx.ValueInfoProto], given: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, str]]:
    """Symbol -> its extent by the given shapes, and the input that says so."""
    symbols: dict[str, tuple[int, str]] = {}
    for i in inputs:
        if i.name not in given or not i.type.tensor_type.HasField("shape"):
            continue
        dims = [declared(d) for d in i.type.tensor_type.shape.dim]
        if len(dims) != len(given[i.name]):
            raise BadInput(f"input {i.name!r} has rank {len(dims)}, shape given {given[i.name]}")
        for name, n in zip(dims, given[i.name], strict=True):
            if isinstance(name, str) and symbols.setdefault(name, (n, i.name))[0] != n:
                other = symbols[name]
                raise BadInput(
                    f"dimension {name!r} is {n} in {i.name!r} and {other[0]} in {other[1]!r}"
                )
    return symbols


def freeze(
    model: onnx.ModelProto, shapes: Shapes
) -> tuple[list[tuple[str, TensorType]], tuple[str, ...]]:
    """Static types of the model inputs; symbolic dims bound by ``shapes`` stay bound elsewhere.

    Args:
        model: The model.
        shapes: Extents of inputs that have dynamic dimensions.

    Returns:
        Name and type of every input, and a line for each dimension that was dynamic.

    Raises:
        BadInput: A shape is of no input, does not fit it, or is missing.
        BadModel: An input's own shape is out of range.
        UnsupportedOp: An input is no tensor.
    """
    try:
        given = {k: tuple(operator.index(d) for d in v) for k, v in shapes.items()}
    except TypeError:
        raise BadInput(
            f"shapes are {dict(shapes)!r}, expected integers for every input",
            hint="shapes={'input': (1, 3, 240, 320)}",
        ) from None
    initialized = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initialized]
    unknown = set(given) - {i.name for i in inputs}
    if unknown:
        raise BadInput(
            f"shape given for {sorted(unknown)[0]!r}, which is no input of the model",
            hint=f"inputs: {', '.join(repr(i.name) for i in inputs)}",
        )
    symbols = _symbols(inputs, given)
    frozen: list[str] = []
    result: list[tuple[str, TensorType]] = []
    for i in inputs:
        if i.type.WhichOneof("value") != "tensor_type":
            raise UnsupportedOp(
                f"input {i.name!r}: only tensors are supported, not sequences or optionals"
            )
        tt = i.type.tensor_type
        dtype = elem_type(tt.elem_type, f"input {i.name!r}")
        if not tt.HasField("shape"):
            if i.name not in given:
                raise BadInput(f"input {i.name!r} has no shape", hint=f"give --shape {i.name}=...")
            result.append((i.name, TensorType(given[i.name], dtype)))
            continue
        shape: list[int] = []
        dims = [declared(d) for d in tt.shape.dim]
        bad = [d for d in dims if isinstance(d, int) and not 0 <= d < 1 << 40]
        if bad:
            raise BadModel(
                f"input {i.name!r} has an axis of extent {bad[0]}",
                hint="export the model with a named dynamic dimension there",
            )
        for axis, d in enumerate(dims):
            if isinstance(d, int):
                n = d
                if i.name in given and given[i.name][axis] != n:
                    raise BadInput(
                        f"input {i.name!r} axis {axis} is {n}, shape given {given[i.name]}"
                    )
            elif i.name in given:
                n = given[i.name][axis]
                frozen.append(f"{i.name}[{axis}] ({d or '?'}) = {n} from shape {i.name}")
            elif isinstance(d, str) and d in symbols:
                n, source = symbols[d]
                frozen.append(f"{i.name}[{axis}] ({d}) = {n} from shape {source}")
            else:
                text = "x".join("?" if q is None else str(q) for q in dims)
                raise BadInput(
                    f"input {i.name!r} is {text}: axis {axis} is dynamic",
                    hint=f"give {_missing(inputs, given, symbols)}",
                )
            if n < 0:
                raise BadInput(f"input {i.name!r}: extent {n} given for axis {axis}")
            shape.append(n)
        result.append((i.name, TensorType(tuple(shape), dtype)))
    return result, tuple(frozen)
