"""Ops over tensors without axes, of which NumPy makes exceptions."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow.graph import Op
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose


@pytest.mark.parametrize(
    "op",
    [
        *(Pad((), "constant"), Pad((), "edge"), Pad((), "wrap"), Pad((), "reflect")),
        *(Expand(()), Reshape(()), Slice((), (), ()), Transpose(())),
    ],
    ids=repr,
)
def test_a_scalar_stays_what_it_is(op: Op) -> None:
    (y,) = op.eval(np.asarray(3, np.float32))
    assert y.shape == () and y.dtype == np.dtype("float32") and y == 3
