"""What a header and the rows that call it both name is the same: nothing else compares them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

import sparrow
from sparrow.kernels import (
    depthwise_pairs_i8,
    recurrent,
    recurrent_i8,
    reduce,
    resize,
    tiles_matrix,
    tiling_i8,
)
from sparrow.ops import roi
from sparrow.ops.recurrent import ACTIVATIONS
from sparrow.ops.scatter import REDUCTIONS

NATIVE = Path(sparrow.__file__).parent / "native"


@pytest.mark.parametrize(
    ("header", "name", "value"),
    [
        ("kernels/depthwise_pairs_i8.h", "SP_DEPTHWISE_VECTORS", depthwise_pairs_i8.VECTORS),
        ("kernels/recurrent_f32.h", "SP_RECUR_ROWS", recurrent.MAX_ROWS),
        ("kernels/recurrent_f32.h", "SP_RECUR_SUMS", recurrent.MAX_SUMS),
        ("kernels/recurrent_i8.h", "SP_GATES_I8", recurrent_i8.MAX_SUMS),
        ("kernels/reduce.h", "SP_REDUCED", reduce.REDUCED),
        ("kernels/resize.h", "SP_MAX_ROWS", resize.MAX_ROWS),
        ("kernels/sample.h", "SP_ROI_GRID", roi.MAX_GRID),
        ("kernels/tile_i8.h", "SP_I16", tiling_i8.HALVES),
        ("kernels/tile_i8.h", "SP_PAIRED", tiling_i8.PAIRED),
        ("kernels/tile_i8.h", "SP_SINGLE", tiling_i8.SINGLE),
        ("kernels/tile_i8.h", "SP_TWOS", tiling_i8.TWOS),
        ("isa/amx.h", "SP_MATRIX_U8", tiles_matrix.UNSIGNED),
        ("isa/amx.h", "SP_MATRIX_I8", tiles_matrix.SIGNED),
        ("isa/amx.h", "SP_MATRIX_BF16", tiles_matrix.PAIRS),
    ],
)
def test_numbers_are_those_of_the_header(header: str, name: str, value: int) -> None:
    text = (NATIVE / header).read_text(encoding="utf-8")
    assert re.findall(rf"(?:#define|enum \{{) {name} (?:= )?(\d+)", text) == [str(value)]


@pytest.mark.parametrize(
    ("header", "prefix", "kinds"),
    [
        ("recurrent_f32.h", "SP_ACT_", ACTIVATIONS),
        ("reduce.h", "SP_", reduce.KINDS),
        ("scatter.h", "SP_SCATTER_", ("set", *REDUCTIONS[1:])),
    ],
)
def test_kinds_are_numbered_as_in_the_header(
    header: str, prefix: str, kinds: Iterable[str]
) -> None:
    text = (NATIVE / "kernels" / header).read_text(encoding="utf-8")
    (names,) = re.findall(rf"enum \{{\s+({prefix}\w+(?:,\s+{prefix}\w+)+)\s+\}};", text)
    found = [n.strip().removeprefix(prefix).replace("_", "") for n in names.split(",")]
    assert found == [k.upper() for k in kinds]
