"""Two tiny models as C, to be read: what emitted code looks like, and what a change does to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emitted import planned
from sparrow import lane
from sparrow.builder import Builder
from sparrow.emit.c import emit
from sparrow.graph import Graph
from sparrow.ops.conv import Conv
from sparrow.ops.softmax import Softmax
from sparrow.tensor import F32, I8, TensorType

HERE = Path(__file__).resolve().parent


def quantize() -> Graph:
    """One loop: round, clip, cast, with a scale per channel."""
    b = Builder("quantize")
    x = b.input("x", TensorType((1, 20, 3), F32))
    scaled: lane.Expr = lane.call("mul", lane.Arg(0, F32), lane.Arg(1, F32))
    rounded = lane.call("round", scaled)
    clipped = lane.clip(rounded, lane.Imm(-127.0, F32), lane.Imm(127.0, F32))
    scale = b.const(np.array([1.0, 2.0, 0.5], np.float32))
    return b.finish({"q": b.lane(lane.cast(clipped, I8), x, scale)}, {})


def network() -> Graph:
    """Two equal convolutions that share a body, a transposed input, softmax."""
    b = Builder("network")
    y = b.transpose(b.input("image", TensorType((1, 3, 8, 8), F32)), (0, 2, 3, 1))
    relu = lane.call("relu", lane.Arg(0, F32))
    for c in (3, 8, 8):
        w = np.random.default_rng(c).standard_normal((8, c, 1, 1)).astype(np.float32)
        op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, relu)
        y = b.add(op, y, b.const(w), b.const(np.arange(8, dtype=np.float32)))
    return b.finish({"y": b.add(Softmax(3), y)}, {})


@pytest.mark.parametrize("make", [quantize, network], ids=lambda m: m.__name__)
def test_golden(make: Callable[[], Graph], request: pytest.FixtureRequest) -> None:
    p = planned(make(), isa="avx2")
    source = emit(p).files["model.c"].decode()
    # the native headers before it have their own tests
    text = source[source.index("/* Where a call's memory is") :]
    # which tiles a kernel takes is the kernel's matter
    text = re.sub(r"(\(sp_\w+\)\{)[^}]*\}", r"\1..}", text)
    file = HERE / f"{make.__name__}.c"
    if request.config.getoption("--update-golden"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), "run pytest --update-golden and read the diff"
