"""Native gathers, scatters, selections and quantization against the reference, ties and hostile
indices included; one library per instruction set holds all cases as entry points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emitted import compiled, planned, session, stored
from sparrow.builder import Builder
from sparrow.graph import Graph, Op, filled
from sparrow.ops.compress import Compress
from sparrow.ops.det import Det
from sparrow.ops.gather import Gather
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.quantize import Dequantize, Quantize, affine
from sparrow.ops.scatter import REDUCTIONS, ScatterElements, ScatterND
from sparrow.ops.topk import TopK
from sparrow.ops.unique import Unique
from sparrow.passes import optimize
from sparrow.reference import evaluate
from sparrow.tensor import (
    BOOL,
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U64,
    Array,
    DType,
    TensorType,
    type_of,
)

RNG = np.random.default_rng(11)
NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """An op over run-time operands; ``cut`` maps outputs of data-dependent extent to their axis."""

    name: str
    op: Op
    x: tuple[Array, ...]
    cut: tuple[tuple[int, int], ...] = ()


def graph(c: Case) -> Graph:
    b = Builder(c.name)
    names = [b.input(f"x{i}", type_of(x)) for i, x in enumerate(c.x)]
    outputs = b.add_n(c.op, *names)
    for i, axis in c.cut:
        b.lengths[outputs[i]] = (axis, outputs[-1])
    last = len(outputs) - bool(c.cut)
    return b.finish({f"y{i}": y for i, y in enumerate(outputs[:last])}, {})


def values(dtype: DType, *shape: int) -> Array:
    """Few distinct values, so that there are ties and zeros."""
    low = 0 if dtype.kind in ("uint", "bool") else -3
    return RNG.integers(low, 4, shape).astype(dtype.numpy)


def index(dtype: DType, extent: int, *shape: int) -> Array:
    """Indices of which some lie outside [-extent, extent)."""
    return RNG.integers(-extent - 2, extent + 2, shape).astype(dtype.numpy)


def gathers() -> list[Case]:
    found = []
    for dtype, at in ((F32, I64), (I8, I32), (F16, I64), (F64, I32), (BOOL, I64), (U16, I32)):
        x = values(dtype, 3, 5, 4)
        for axis in range(3):
            n = x.shape[axis]
            k = f"{dtype}_{at}_{axis}"
            found.append(Case(f"gather_{k}", Gather(axis), (x, index(at, n, 2, 3))))
            inside = tuple(n + 2 if i == axis else d - 1 for i, d in enumerate(x.shape))
            op = GatherElements(axis)
            found.append(Case(f"elements_{k}", op, (x, index(at, n, *inside))))
        found.append(Case(f"nd_{dtype}", GatherND(), (x, index(at, 3, 7, 2))))
        found.append(Case(f"nd_batch_{dtype}", GatherND(1), (x, index(at, 4, 3, 2, 2))))
    big = np.arange(3000 * 16, dtype=np.float32).reshape(3000, 16)
    found.append(Case("embedding", Gather(0), (big, index(I64, 3000, 4000))))
    found.append(Case("axis of one", Gather(1), (values(F32, 4, 1, 3), index(I64, 1, 5))))
    found.append(Case("empty", Gather(1), (values(F32, 2, 3), index(I64, 3, 0))))
    return found


def scatters() -> list[Case]:
    found: list[Case] = []
    for dtype, at in ((F32, I64), (I8, I32), (U64, I64), (F64, I32)):
        x = values(dtype, 3, 5, 4)
        for r in REDUCTIONS:
            axis = len(found) % 3
            inside = tuple(6 if i == axis else d - 1 for i, d in enumerate(x.shape))
            u = values(dtype, *inside)
            op = ScatterElements(axis, r)
            found.append(Case(f"elements_{dtype}_{r}", op, (x, index(at, 5, *inside), u)))
            u = values(dtype, 6, 4)
            found.append(Case(f"nd_{dtype}_{r}", ScatterND(r), (x, index(at, 5, 6, 2), u)))
    flags = values(BOOL, 4, 3)
    found.append(Case("bool", ScatterElements(0), (flags, index(I64, 4, 2, 3), flags[:2])))
    return found


def topk() -> list[Case]:
    found: list[Case] = []
    for dtype in (F32, F16, I64, U8):
        x = values(dtype, 2, 19, 3)
        for k in (0, 1, 7, 19):
            for largest in (False, True):
                name = f"topk_{dtype}_{k}_{largest}"
                found.append(Case(name, TopK(1, k, largest), (x,)))
    x = RNG.standard_normal((3, 33)).astype(np.float32)
    x[0, 3] = x[0, 20] = x[2, 0] = NAN
    x[1, 5], x[1, 6] = np.inf, -np.inf
    found += [Case(f"topk_nan_{big}", TopK(1, 6, big), (x,)) for big in (False, True)]
    # vectors that pass by whole: of equal elements, the best last, few of many, or all NaN
    n = np.arange(77)
    rows = [0 * n, n, -n, RNG.integers(0, 5, 77), np.full(77, NAN), np.where(n % 9, n % 7, NAN)]
    long = np.stack(rows).astype(np.float32)
    long[0, 76], long[2, 75], long[3, 72], long[4, 70] = 1, -100, NAN, 3
    for k in (1, 5, 64, 77):
        for big in (False, True):
            found.append(Case(f"topk_long_{k}_{big}", TopK(1, k, big), (long,)))
    # bounds that groups of elements give: as many as they say, the best in one group, groups that
    # are NaN or have one element that is not, infinities
    n = np.arange(203)
    rows = [RNG.permutation(203), n % 8, (n % 16 == 3) * n, np.where(n < 8, n, NAN)]
    rows += [np.where(n % 8, np.where(n < 50, NAN, 5), n), np.where(n % 3, np.inf, -np.inf)]
    rows += [np.where(n < 100, np.inf, RNG.permutation(203)), np.where(n == 77, 0, -np.inf)]
    grouped = np.stack(rows).astype(np.float32)
    for k in (1, 7, 8, 9, 24, 25):
        for big in (False, True):
            found.append(Case(f"topk_grouped_{k}_{big}", TopK(1, k, big), (grouped,)))
    return found


def selections() -> list[Case]:
    found = []
    for dtype in (F32, BOOL, I16, F16):
        x = values(dtype, 4, 5)
        found.append(Case(f"nonzero_{dtype}", NonZero(), (x,), ((0, 1),)))
        found.append(Case(f"nonzero_zero_{dtype}", NonZero(), (np.zeros_like(x),), ((0, 1),)))
        for axis in (0, 1):
            keep = values(BOOL, x.shape[axis] - 1)
            op = Compress(axis)
            found.append(Case(f"compress_{dtype}_{axis}", op, (x, keep), ((0, axis),)))
    for dtype in (F32, I8, BOOL, U16):
        for ordered in (False, True):
            k = f"{dtype}_{ordered}"
            x = values(dtype, 6, 3)
            cut = ((0, 0), (1, 0), (3, 0))
            found.append(Case(f"unique_{k}", Unique(None, ordered), (x,), cut))
            for axis in (0, 1):
                cut = ((0, axis), (1, 0), (3, 0))
                pair = np.concatenate([x, x[::-1]], axis) % 2
                slices = (pair.astype(x.dtype),)
                found.append(Case(f"unique_{k}_{axis}", Unique(axis, ordered), slices, cut))
    x = np.array([2, NAN, 1, NAN, 2, -0.0, 0.0], np.float32)
    found.append(Case("unique_nan", Unique(None), (x,), ((0, 0), (1, 0), (3, 0))))
    return found


def boxes() -> list[Case]:
    found = []
    for center in (False, True):
        for limit in (0, 3, 100):
            b = RNG.uniform(0, 4, (2, 40, 4)).astype(np.float32)
            s = RNG.uniform(0, 1, (2, 3, 40)).astype(np.float32)
            s[0, 1, 5:9] = 0.5
            s[1, 2, 7] = NAN
            scalars = (np.array([0.3], np.float32), np.array([0.2], np.float32))
            for k in range(3):
                op = NonMaxSuppression(limit, center)
                name = f"nms_{center}_{limit}_{k}"
                found.append(Case(name, op, (b, s, *scalars[:k]), ((0, 0),)))
    return found


def numbers() -> list[Case]:
    found = []
    for dtype in (F32, F64):
        for n in (1, 2, 5):
            x = RNG.standard_normal((3, n, n)).astype(dtype.numpy)
            found.append(Case(f"det_{dtype}_{n}", Det(), (x,)))
    found.append(Case("det_singular", Det(), (np.zeros((2, 2), np.float32),)))
    x = (20 * RNG.standard_normal((3, 4, 5))).astype(np.float32)
    x[0, 0, :4] = [NAN, np.inf, -np.inf, 1e9]
    for dtype in (I8, U8, I16, U16):
        for name, shape, axis, block in (
            ("tensor", (1,), 0, 0),
            ("axis", (4,), 1, 0),
            ("block", (3, 4, 2), 2, 3),
        ):
            zero = RNG.integers(0, 9, shape)
            q = affine(RNG.uniform(0.1, 0.2, shape), zero, x.shape, axis, block)
            codes = RNG.integers(*dtype.limits, x.shape).astype(dtype.numpy)
            found.append(Case(f"quantize_{dtype}_{name}", Quantize(q, dtype), (x,)))
            found.append(Case(f"dequantize_{dtype}_{name}", Dequantize(q), (codes,)))
    wide = affine(np.array([0.01]), np.array([0]), (5,), 0, 0)
    codes = np.array([-(2**31), 2**31 - 1, 0, 7, -7], np.int32)
    found.append(Case("dequantize_int32", Dequantize(wide), (codes,)))
    found.append(Case("dequantize_float16", Dequantize(wide, F16), (codes // 2**16,)))
    half = affine(np.array([0.1]), np.array([3]), (4,), 0, 0)
    x = np.array([1, -2, 99, 0.05], np.float16)
    found.append(Case("quantize_float16", Quantize(half, I8), (x,)))
    return found


FAMILIES: dict[str, Callable[[], list[Case]]] = {
    f.__name__: f for f in (gathers, scatters, topk, selections, boxes, numbers)
}
TOLERANCE: dict[type[Op], float] = {Det: 1e-5}


def same(got: Array, want: Array, case: Case) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype, case.name
    rtol = TOLERANCE.get(type(case.op), 0.0)
    np.testing.assert_allclose(got, want, rtol, rtol, err_msg=case.name)


@pytest.mark.parametrize("optimized", [False, True], ids=["plain", "optimized"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_matches_reference(family: str, isa: str, optimized: bool, tmp_path: Path) -> None:
    cases = FAMILIES[family]()
    graphs = [graph(c) for c in cases]
    ready = [optimize(g) for g in graphs] if optimized else graphs
    threads = 2 if isa == "avx2" else 1
    p = planned(*ready, isa=isa, threads=threads)
    library = compiled(p, tmp_path, flags=("-O1",))
    s = session(p, library, threads)
    for i, (case, g) in enumerate(zip(cases, graphs, strict=True)):
        feeds: dict[str, Any] = dict(zip(g.inputs, case.x, strict=True))
        want = evaluate(g, feeds)
        s._workspace[:] = 0xFF
        found = s.run(i, [stored(x, g.types[k]) for k, x in feeds.items()])
        for name, y in zip(g.outputs, found, strict=True):
            expected = want[name]
            for n in g.lengths:
                if n.output == name:
                    expected = filled(expected, n.axis, int(want[n.count]))
            same(y, expected, case)


def test_codes_that_leave_keep_their_scale() -> None:
    b = Builder("g")
    x = b.input("x", TensorType((2, 3), F32))
    q = affine(np.array([0.5]), np.array([1]), (2, 3), 0, 0)
    codes = b.add(Quantize(q, I8), x)
    inner = b.add(Dequantize(q), b.add(Quantize(q, U8), x))
    outputs = {"codes": b.transpose(codes, (1, 0)), "y": b.call("exp", inner)}
    g = optimize(b.finish(outputs, {}))
    kinds = [type(n.op).__name__ for n in g.nodes]
    assert kinds.count("Quantize") == 1 and "Dequantize" not in kinds
    assert g.types["codes"].quant is not None
