"""If, Loop and Scan against ONNX Runtime; what cannot be unrolled is refused in one line."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from sparrow.errors import SparrowError
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


def check(text: str, feeds: Mapping[str, Array], constants: Sequence[str] = ()) -> None:
    model = parse(text)
    fixed = {k: v for k, v in feeds.items() if k in constants}
    g = import_onnx(model, constants=fixed).graph
    session = onnxruntime.InferenceSession(model.SerializeToString())
    got = evaluate(g, {k: v for k, v in feeds.items() if k in g.inputs})
    for name, want in zip(g.outputs, session.run(None, dict(feeds)), strict=True):
        assert got[name].shape == want.shape and got[name].dtype == want.dtype
        np.testing.assert_allclose(got[name], want, 1e-6, 1e-6)


BRANCHES = """
g (bool c, float[3] x) => (float[3] y, float[3] z) {
  two = Constant<value = float {2}>()
  y, z = If (c) <
    then_branch = a () => (float[3] p, float[3] q) { p = Mul(x, two)  q = Neg(p) },
    else_branch = b () => (float[3] r, float[3] s) { r = Exp(x)  s = Identity(x) }>
}"""


@pytest.mark.parametrize("c", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_if(c: bool, known: bool) -> None:
    feeds = {"c": np.array(c), "x": np.array([1, -2, 3], np.float32)}
    check(BRANCHES, feeds, ["c"] if known else [])


def test_if_keeps_only_the_branch_taken() -> None:
    g = import_onnx(parse(BRANCHES), constants={"c": np.array(True)}).graph
    assert len(g.nodes) == 2


def test_if_of_two_shapes_is_refused() -> None:
    text = """g (bool c, float[3] x) => (float[N] y) {
      y = If (c) <
        then_branch = a () => (float[3] p) { p = Neg(x) },
        else_branch = b () => (float[6] q) { q = Concat<axis = 0>(x, x) }>
    }"""
    with pytest.raises(SparrowError, match="computed at run time and the branches give"):
        import_onnx(parse(text))


def chains(steps: int) -> str:
    """A choice between two chains of elementwise operators."""

    def chain(op: str, last: str) -> str:
        names = ["x", *(f"{last}{i}" for i in range(steps - 1)), last]
        return "  ".join(f"{b} = {op}({a})" for a, b in itertools.pairwise(names))

    return f"""g (bool c, float[3] x) => (float[3] y) {{
      y = If (c) <
        then_branch = a () => (float[3] p) {{ {chain("Sin", "p")} }},
        else_branch = b () => (float[3] q) {{ {chain("Neg", "q")} }}>
    }}"""


def test_if_of_long_branches() -> None:
    for c in (False, True):
        check(chains(101), {"c": np.array(c), "x": np.array([1, -2, 3], np.float32)})
    with pytest.raises(SparrowError, match="branches have 1200 operators, more than 1024"):
        import_onnx(parse(chains(600)))


LOOP = """
g (float[2] x) => (float[2] y, float[N,2] all) {
  n = Constant<value = int64 {4}>()
  go = Constant<value = bool {1}>()
  y, all = Loop (n, go, x) <
    body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w, float[2] s) {
      f = Cast<to = 1>(i)
      w = Add(v, f)
      s = Mul(w, x)
      d = Identity(c)
    }>
}"""


def test_loop_with_carried_and_scanned_values() -> None:
    check(LOOP, {"x": np.array([1, 2], np.float32)})


def test_loop_runs_while_a_known_condition_holds() -> None:
    text = """g (float[2] x) => (float[2] y, int64 k) {
      zero = Constant<value = int64 {0}>()
      go = Constant<value = bool {1}>()
      y, k = Loop ("", go, x, zero) <
        body = b (int64 i, bool c, float[2] v, int64 j) => (bool d, float[2] w, int64 m) {
          five = Constant<value = int64 {5}>()
          two = Constant<value = int64 {2}>()
          m = Add(j, two)
          w = Add(v, x)
          d = Less(m, five)
        }>
    }"""
    model = parse(text)
    model.graph.node[2].input[0] = ""
    g = import_onnx(model).graph
    got = evaluate(g, {"x": np.array([1, 2], np.float32)})
    assert got["k"] == 6 and got["y"].tolist() == [4, 8]


def test_loop_may_grow_its_carried_value() -> None:
    text = """g (float[1,2] x) => (float[M,2] y) {
      n = Constant<value = int64 {3}>()
      go = Constant<value = bool {1}>()
      y = Loop (n, go, x) <
        body = b (int64 i, bool c, float[K,2] v) => (bool d, float[L,2] w) {
          w = Concat<axis = 0>(v, x)
          d = Identity(c)
        }>
    }"""
    check(text, {"x": np.array([[1, 2]], np.float32)})


def test_loop_of_no_iteration() -> None:
    text = LOOP.replace("int64 {4}", "int64 {0}")
    check(text, {"x": np.array([1, 2], np.float32)})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("int64 {4}", "int64 {100000}", "100000 iterations would be unrolled"),
        ("d = Identity(c)", "a = ReduceSum<keepdims = 0>(w) d = Cast<to = 9>(a)", "at run time"),
    ],
)
def test_loop_refuses(old: str, new: str, says: str) -> None:
    with pytest.raises(SparrowError, match=says):
        import_onnx(parse(LOOP.replace(old, new)))


def test_endless_loop_is_refused() -> None:
    model = parse(LOOP)
    model.graph.node[2].input[0] = ""
    with pytest.raises(
        SparrowError, match=r"its loops unfold to more than .*; freeze fewer steps with --shape"
    ):
        import_onnx(model)


def test_trip_count_at_run_time_is_refused() -> None:
    text = LOOP.replace("(float[2] x)", "(float[2] x, int64 n)", 1)
    text = text.replace("n = Constant<value = int64 {4}>()", "")
    with pytest.raises(SparrowError, match="trip count must be constant"):
        import_onnx(parse(text))


@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_scan(axis: int, back: int) -> None:
    text = f"""g (float[2] h, float[2,2] x) => (float[2] y, float[2,2] all) {{
      y, all = Scan <num_scan_inputs = 1, scan_input_axes = [{axis}],
        scan_input_directions = [{back}], scan_output_axes = [{axis}],
        scan_output_directions = [{back}],
        body = b (float[2] s, float[2] e) => (float[2] t, float[2] o) {{
          t = Add(s, e)
          o = Mul(t, h)
        }}> (h, x)
    }}"""
    rng = np.random.default_rng(0)
    feeds = {
        "h": rng.standard_normal(2).astype(np.float32),
        "x": rng.standard_normal((2, 2)).astype(np.float32),
    }
    check(text, feeds)
