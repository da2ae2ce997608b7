"""Every operator at its extremes: the node tests of the onnx package, with what a file may say of
extents, attributes and constant operands replaced by numbers no network has.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fuzz.mutate import Random
from fuzz.words import FLOATS, INTEGERS

# 2^26 numbers are more than a file may ask for, and fewer than a machine would refuse.
EXTENTS = (0, 0, 0, 1, 1 << 26, 1 << 26, 1 << 31, (1 << 40) - 1)
NUMBERS = (0, 1, -1, 1 << 26, (1 << 31) - 1, -(1 << 31), 1 << 40, *INTEGERS)
_INT64 = -(1 << 63), (1 << 63) - 1


@cache
def seeds() -> list[bytes]:
    """The node tests in the operators of networks, operands that determine shapes stored."""
    from conformance.onnx_cases import load_cases

    found = []
    for case in load_cases():
        if case.foreign:
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        bound = case.constants | case.attributes
        for name in sorted(bound & case.inputs.keys()):
            model.graph.initializer.append(numpy_helper.from_array(case.inputs[name], name))
        # outputs are inferred anew: what they were would contradict every other extent
        for v in model.graph.output:
            if v.type.HasField("tensor_type"):
                v.type.tensor_type.ClearField("shape")
        found.append(model.SerializeToString())
    return found


def _number(rng: Random) -> int:
    low, high = _INT64
    return max(low, min(high, rng.choice(NUMBERS)))


def _extents(rng: Random, model: onnx.ModelProto) -> None:
    dims = [d for v in model.graph.input for d in v.type.tensor_type.shape.dim]
    for d in rng.sample(dims, min(len(dims), rng.choice((1, 1, 2, 3)))):
        d.dim_value = rng.choice(EXTENTS)


def _attribute(rng: Random, model: onnx.ModelProto) -> None:
    found = [a for n in model.graph.node for a in n.attribute if a.type in (1, 2, 6, 7)]
    if not found:
        return _extents(rng, model)
    a = rng.choice(found)
    match a.type:
        case onnx.AttributeProto.FLOAT:
            a.f = rng.choice(FLOATS)
        case onnx.AttributeProto.INT:
            a.i = _number(rng)
        case onnx.AttributeProto.FLOATS if a.floats:
            a.floats[rng.randrange(len(a.floats))] = rng.choice(FLOATS)
        case onnx.AttributeProto.INTS if a.ints:
            a.ints[rng.randrange(len(a.ints))] = _number(rng)


def _operand(rng: Random, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return _attribute(rng, model)
    t = rng.choice(model.graph.initializer)
    dtype = helper.tensor_dtype_to_np_dtype(t.data_type)
    values = np.array(numpy_helper.to_array(t))
    if not values.size or dtype.kind not in "iuf":
        return _extents(rng, model)
    with np.errstate(all="ignore"):
        new = rng.choice(FLOATS) if dtype.kind == "f" else _number(rng)
        values.reshape(-1)[rng.randrange(values.size)] = np.asarray(new).astype(dtype)
    t.CopyFrom(numpy_helper.from_array(values, t.name))
    return None


def mutate(rng: Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    """One to three numbers of a node test at an extreme."""
    model = onnx.load_from_string(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice((_extents, _attribute, _operand))(rng, model)
    out: bytes = model.SerializeToString()
    return out
