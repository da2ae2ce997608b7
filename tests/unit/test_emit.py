"""Text of emitted C: names, headers, shared bodies, parts; random graphs compiled and run."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import sparrow
import strategies
from emitted import compiled, planned, run
from sparrow import lane
from sparrow.builder import Builder
from sparrow.emit.amalgamate import amalgamate
from sparrow.emit.c import emit
from sparrow.emit.interface import c_string
from sparrow.emit.loop_c import loop_function
from sparrow.errors import UnsupportedOp
from sparrow.export import to_onnx
from sparrow.graph import Graph
from sparrow.kernels.case import In, Loop, Out, Stream
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.reference import evaluate
from sparrow.tensor import F32, TensorType


def convolutions(count: int) -> Graph:
    """Equal 1x1 convolutions one after the other, each with weights of its own."""
    b = Builder('evil "name" */ \\ \n#include <x>')
    y = b.input("x", TensorType((1, 4, 4, 8), F32))
    for i in range(count):
        w = np.random.default_rng(i).standard_normal((8, 8, 1, 1)).astype(np.float32) / 8
        op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True)
        y = b.add(op, y, b.const(w), b.const(np.full(8, i, np.float32)))
    return b.finish({"y": y}, {})


def source(g: Graph) -> str:
    return emit(planned(g)).files["model.c"].decode()


@given(st.text())
def test_a_string_literal_cannot_be_left(text: str) -> None:
    literal = c_string(text)
    assert literal.isascii() and literal[0] == literal[-1] == '"'
    body = literal[1:-1]
    assert not set(body) & set('"\n\r?*')
    assert body.encode().decode("unicode_escape").encode("latin-1") == text.encode(errors="replace")


def test_no_two_kernel_headers_define_one_name() -> None:
    """A network may need any two of them in one file."""
    defined = (
        r"^SP_INLINE[^;{}()]*?\b(\w+)\(",
        r"^(?:static|typedef|struct)\b[^;{}()]*?\b(\w+)\s*[({;]",
        r"^\} (\w+);",
        r"^#define (\w+)",
    )
    found: Counter[str] = Counter()
    for header in (resources.files("sparrow") / "native" / "kernels").iterdir():
        text = header.read_text(encoding="utf-8")
        found.update({n for pattern in defined for n in re.findall(pattern, text, re.MULTILINE)})
    assert len(found) > 500
    assert [name for name, headers in found.items() if headers > 1] == []


def test_equal_calls_share_one_body() -> None:
    text = source(convolutions(5))
    assert text.count("void model_f0(") == 1
    assert text.count("  model_f0(") == 5
    assert "void model_f1(" not in text


def test_layers_of_a_page_share_code_whatever_their_channels_are() -> None:
    """Residual layers of 24 and of 32 channels: one body where code is short."""
    rng = np.random.default_rng(0)
    b = Builder("residual")
    y = b.input("x", TensorType((1, 24, 8, 8), F32))
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)))
    add = Lane(lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32)))
    for channels, wide in ((24, 32), (32, 32)):
        w = rng.standard_normal((channels, channels, 1, 1)).astype(np.float32) / 5
        y = b.add(add, b.add(op, y, b.const(w)), y)
        w = rng.standard_normal((wide, channels, 1, 1)).astype(np.float32) / 5
        y = b.add(op, y, b.const(w))
    model = to_onnx(b.finish({"y": y}, {}))
    samples = [rng.standard_normal((1, 24, 8, 8)).astype(np.float32) for _ in range(8)]
    text = sparrow.emit_sources(sparrow.quantize(model, samples), "wasm32_relaxed")["model.c"]
    bodies = [part.split("\n}")[0] for part in text.decode().split("SP_INLINE sp_i32 model_f")[1:]]
    assert sum("row *" in body for body in bodies) == 1, bodies


def test_names_of_the_model_stay_inside_literals(tmp_path: Path) -> None:
    g = convolutions(1)
    info = compiled(planned(g), tmp_path).info
    assert info.entries[0].name == g.name


def test_headers_are_inlined_once() -> None:
    text = amalgamate(["kernels/conv2d_f32.h", "kernels/gemm_f32.h", "base.h"])
    assert text.count("#define SP_BASE_H") == 1
    assert '#include "' not in text


def test_only_headers_that_are_used_are_inlined() -> None:
    text = source(convolutions(1))
    assert "sp_softmax_f32" not in text and "sp_transpose_32" not in text
    assert "sp_pow_f64" not in text


def test_steps_with_a_common_body_stay_in_one_part() -> None:
    b = Builder("g")
    y = b.input("x", TensorType((1, 8, 8, 8), F32))
    for k in (1, 3, 5, 1, 3, 5, 1):
        w = np.ones((8, 8, k, k), np.float32)
        op = Conv((1, 1), (1, 1), ((k // 2, k // 2),) * 2, 1, True)
        y = b.add(op, y, b.const(w), b.const(np.full(8, k, np.float32)))
    artifact = emit(planned(b.finish({"y": y}, {})))
    text = artifact.files["model.c"].decode()
    parts = text.split("\n#if SP_IN(")[1:-1]
    assert len(parts) == artifact.parts - 1
    for name in {f"model_f{i}(" for i in range(20)}:
        assert sum(f"void {name}" in part for part in parts) <= 1
        used = [part for part in parts if f"  {name}" in part]
        assert all(f"void {name}" in part for part in used)


def test_operands_that_are_not_read(tmp_path: Path) -> None:
    """A constant result, and an epilogue that forgets its sum, compile without a warning."""
    b = Builder("g")
    x = b.input("x", TensorType((1, 3, 3, 2), F32))
    five = lane.Imm(5.0, F32)
    w = np.ones((2, 2, 1, 1), np.float32)
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, lane.call("exp", five))
    y = b.add(op, x, b.const(w), b.const(np.ones(2, np.float32)), x)
    other = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, lane.Arg(1, F32))
    z = b.add(other, x, b.const(w), "", b.const(np.array([3, 4], np.float32)))
    g = b.finish({"y": y, "five": b.lane(five, x), "z": z}, {})
    p = planned(g)
    got = run(p, compiled(p, tmp_path), {"x": np.zeros((1, 3, 3, 2), np.float32)})
    np.testing.assert_allclose(got[0], np.exp(5.0), 1e-6)
    np.testing.assert_array_equal(got[1], np.float32(5))
    np.testing.assert_array_equal(got[2], np.full((1, 3, 3, 2), np.array([3, 4], np.float32)))


@pytest.mark.slow
@given(strategies.graphs(max_nodes=8), st.sampled_from(["scalar", "avx2", "avx512"]))
@settings(
    max_examples=40,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_random_graphs_compute_what_the_reference_does(g: Graph, isa: str) -> None:
    try:
        p = planned(g, isa=isa)
    except UnsupportedOp:
        assume(False)
    feeds = strategies.feeds(g)
    with tempfile.TemporaryDirectory() as folder:
        got = run(p, compiled(p, Path(folder), flags=("-O1",)), feeds)
    want = evaluate(g, feeds)
    for name, y in zip(g.outputs, got, strict=True):
        finite = np.abs(want[name][np.isfinite(want[name])])
        np.testing.assert_allclose(y, want[name], 2e-4, 2e-4 * (1 + finite.max(initial=0)))


def test_what_a_loop_does_not_change_is_computed_before_it() -> None:
    """The compiler needs minutes to vectorize a loop with such a chain in it."""
    b = Builder("g")
    x, s = b.input("x", TensorType((85,), F32)), b.input("s", TensorType((), F32))
    twice = lane.call("sigmoid", lane.call("sigmoid", lane.Arg(1, F32)))
    y = b.lane(lane.call("mul", lane.Arg(0, F32), twice), x, s)
    text = emit(planned(b.finish({"y": y}, {}))).files["model.c"].decode()
    loop = text[text.index("for (ptrdiff_t j = 0; j < 85") :]
    assert "sigmoid" in text[text.index("sp_frame;") :]
    assert "sigmoid" not in loop[: loop.index("}")]


def test_copies_lie_apart_from_what_they_read_but_in_place() -> None:
    """Compilers make vectors of a strided copy where they know that."""
    of = TensorType((1936, 24), F32)

    def parameters(expr: lane.Expr, strides: tuple[int, int]) -> str:
        nest = Loop((1936, 24), expr, (Stream(In(0), of, strides),), Stream(Out(0), of, (48, 1)))
        return " ".join(loop_function(nest, 1, 16)[1])

    x = lane.Arg(0, F32)
    assert parameters(x, (48, 2)).count("SP_RESTRICT") == 2
    assert "SP_RESTRICT" not in parameters(x, (48, 1))
    assert "SP_RESTRICT" not in parameters(lane.Call("neg", (x,), F32), (48, 2))
