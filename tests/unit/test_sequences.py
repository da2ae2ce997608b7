"""Sequences against ONNX's reference and ONNX Runtime; what has no static answer is refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from sparrow.errors import BadModel, SparrowError, UnsupportedOp
from sparrow.importers.onnx import import_onnx
from sparrow.importers.onnx.survey import survey_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
X = np.arange(15, dtype=np.float32).reshape(5, 3)


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


def check(text: str, feeds: Mapping[str, Array]) -> None:
    model = parse(text)
    g = import_onnx(model).graph
    got = evaluate(g, dict(feeds))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for name, want in zip(g.outputs, session.run(None, dict(feeds)), strict=True):
        assert got[name].shape == want.shape and got[name].dtype == want.dtype
        np.testing.assert_array_equal(got[name], want)


@pytest.mark.parametrize(
    ("split", "keepdims"),
    # ONNX Runtime does not ignore keepdims where sizes are given, as the standard does
    [("", 0), ("", 1), ("int64 s = {2}", 1), ("int64[3] s = {1, 0, 4}", 1)],
)
def test_split_and_pick(split: str, keepdims: int) -> None:
    operands = "x, s" if split else "x"
    head = f"<{split}>" if split else ""
    check(
        f"""g (float[5,3] x) => (float[N,M] y, int64 n) {head} {{
          q = SplitToSequence <axis = 0, keepdims = {keepdims}> ({operands})
          i = Constant <value = int64 {{-1}}> ()
          y0 = SequenceAt (q, i)
          shape = Constant <value = int64[2] {{-1, 3}}> ()
          y = Reshape (y0, shape)
          n = SequenceLength (q)
        }}""",
        {"x": X},
    )


@pytest.mark.parametrize("new_axis", [0, 1])
@pytest.mark.parametrize("at", [-1, 0, 2])
def test_insert_erase_and_join(new_axis: int, at: int) -> None:
    check(
        f"""g (float[5,3] x, float[5,3] z) => (float[A,B,C] y) {{
          p = Constant <value = int64 {{{at}}}> ()
          first = Constant <value = int64 {{0}}> ()
          a = SequenceConstruct (x, z)
          w = Neg (x)
          b = SequenceInsert (a, w, p)
          c = SequenceErase (b, first)
          d = SequenceInsert (c, z)
          e = SequenceErase (d)
          y0 = ConcatFromSequence <axis = -1, new_axis = {new_axis}> (e)
          shape = Constant <value = int64[3] {{5, -1, 3}}> ()
          y = Reshape (y0, shape)
        }}""",
        {"x": X, "z": X * 2},
    )


def test_a_loop_that_appends() -> None:
    """What scripted modules with a list become."""
    check(
        """g (float[5,3] x) => (float[4,5,3] y) {
          n = Constant <value = int64 {4}> ()
          go = Constant <value = bool {1}> ()
          empty = SequenceEmpty ()
          h, list = Loop (n, go, x, empty) <body = b
            (int64 i, bool c, float[5,3] v, seq(float[5,3]) l)
            => (bool c2, float[5,3] v2, seq(float[5,3]) l2) {
              two = Constant <value = float {2}> ()
              v2 = Mul (v, two)
              l2 = SequenceInsert (l, v2)
              c2 = Identity (c)
            }>
          y = ConcatFromSequence <axis = 0, new_axis = 1> (list)
        }""",
        {"x": X},
    )


def test_map() -> None:
    model = parse(
        """g (float[5,3] x, float[3] k) => (float[10,3] y) {
          a = SequenceConstruct (x, x)
          b = SequenceMap (a, k) <body = f (float[5,3] u, float[3] w) => (float[5,3] v) {
              v = Add (u, w)
            }>
          y = ConcatFromSequence <axis = 0> (b)
        }"""
    )
    k = np.array([1, 2, 3], np.float32)
    got = evaluate(import_onnx(model).graph, {"x": X, "k": k})
    np.testing.assert_array_equal(got["y"], np.concatenate([X + k, X + k]))


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("q = SequenceConstruct (x) y = Relu (q)", BadModel, "reads a sequence"),
        ("y = SequenceAt (x, i)", BadModel, "expected a sequence"),
        ("q = SequenceConstruct (x) y = SequenceAt (q, i)", BadModel, "position 7 of a sequence"),
        ("q = SequenceConstruct (x) y = SequenceAt (q, k)", UnsupportedOp, "must be constant"),
        ("y = SplitToSequence (x)", UnsupportedOp, "output 'y' is a sequence"),
        ("q = SequenceEmpty () y = ConcatFromSequence <axis = 0> (q)", BadModel, "no elements"),
        ("q = SplitToSequence (x, z) y = SequenceAt (q, i)", BadModel, "in pieces of 0"),
        (
            "q = SequenceConstruct (x) r = SequenceConstruct (q) y = SequenceAt (r, i)",
            BadModel,
            "is a sequence",
        ),
    ],
)
def test_refusals(body: str, error: type[SparrowError], words: str) -> None:
    head = "<int64 i = {7}, int64 z = {0}>"
    model = parse(f"g (float[5,3] x, int64 k) => (float[N,M] y) {head} {{ {body} }}")
    with pytest.raises(error, match=words):
        import_onnx(model)


def test_a_survey_goes_past_what_reads_a_sequence() -> None:
    model = parse(
        """g (float[5,3] x, int64 k) => (float[N,M] y) {
          q = SequenceConstruct (x, x)
          y = SequenceAt (q, k)
        }"""
    )
    kinds = {v.op: v.verdict for v in survey_onnx(model).verdicts}
    assert kinds == {"SequenceConstruct": "ok", "SequenceAt": "missing"}
