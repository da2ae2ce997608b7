"""The table of operators is complete and its rows keep the contract of `Op`."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

import sparrow.ops
from sparrow.graph import Op
from sparrow.ops import OPS


def test_every_operator_of_every_file_is_in_the_table() -> None:
    found = set()
    for info in pkgutil.iter_modules(sparrow.ops.__path__):
        module = importlib.import_module(f"sparrow.ops.{info.name}")
        for value in vars(module).values():
            # what infers no types is a base of some
            if isinstance(value, type) and issubclass(value, Op) and hasattr(value, "infer"):
                found.add(value)
    assert found == set(OPS)
    assert len(OPS) == len({op.__name__ for op in OPS})


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_operators_are_frozen_slotted_dataclasses(op: type[Op]) -> None:
    assert dataclasses.is_dataclass(op)
    assert op.__dataclass_params__.frozen
    assert "__dict__" not in dir(op)
    assert op.export is not Op.export, "must be writable as ONNX"
    assert op.__doc__ and not op.__doc__.startswith(f"{op.__name__}("), "says what it computes"
