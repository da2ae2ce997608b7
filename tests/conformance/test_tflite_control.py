"""Variables, branches and sparse constants of .tflite files against LiteRT, call by call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparrow
from sparrow.importers.tflite import import_tflite
from sparrow.importers.tflite.model import Sparsity
from sparrow.reference import evaluate
from sparrow.tensor import BOOL, F16, F32, I8, I32, Array
from tflite_files import G, O, T, constant, interpreter, litert, write

RNG = np.random.default_rng(11)
SCALE, ZERO = 0.05, -7


def window(begin: Array | None) -> bytes:
    """A streaming layer: the last rows of a window of codes are what it begins with next time."""
    more: dict[str, Any] = {"scale": [SCALE], "zero": [ZERO]}
    weights = RNG.integers(-90, 90, (3, 5, 1, 4)).astype(np.int8)
    tensors = [
        T("h", (), I32, resource=True),
        T("x", (1, 2, 1, 4), I8, **more),
        T("past", (1, 3, 1, 4), I8, **more),
        T("all", (1, 5, 1, 4), I8, **more),
        T("next", (1, 3, 1, 4), I8, **more),
        T("y", (1, 1, 1, 3), I8, scale=[0.3], zero=[4]),
        constant("w", weights, scale=[0.02, 0.01, 0.03], zero=[0, 0, 0]),
        constant("b", np.array([40, -90, 3], np.int32), scale=[1e-3, 5e-4, 15e-4]),
        *(constant(k, np.array(v, np.int32)) for k, v in
          (("start", [0, 2, 0, 0]), ("end", [0, 5, 0, 0]), ("step", [1, 1, 1, 1]))),
    ]  # fmt: skip
    masks = {"begin_mask": 13, "end_mask": 13, "ellipsis_mask": 0, "new_axis_mask": 0,
             "shrink_axis_mask": 0}  # fmt: skip
    handle = O("VAR_HANDLE", [], ["h"], {"name": "layer/states", "container": ""})
    ops = [
        handle,
        O("READ_VARIABLE", ["h"], ["past"]),
        O("CONCATENATION", ["past", "x"], ["all"], {"axis": 1, "activation": 0}),
        O("STRIDED_SLICE", ["all", "start", "end", "step"], ["next"], masks),
        O("ASSIGN_VARIABLE", ["h", "next"], []),
        O("CONV_2D", ["all", "w", "b"], ["y"],
          {"padding": 1, "stride_w": 1, "stride_h": 1, "dilation_w": 1, "dilation_h": 1}),
    ]  # fmt: skip
    others = []
    if begin is not None:
        others = [G([tensors[0], constant("c", begin, **more)],
                    [handle, O("ASSIGN_VARIABLE", ["h", "c"], [])])]  # fmt: skip
        ops.insert(0, O("CALL_ONCE", [], [], {"subgraph": 1}))
    return write(tensors, ops, ["x"], ["y"], others)


def test_a_variable_is_a_state(tmp_path: Path) -> None:
    begin = RNG.integers(-128, 128, (1, 3, 1, 4)).astype(np.int8)
    path = tmp_path / "m.tflite"
    path.write_bytes(window(begin))
    peer = interpreter(path.read_bytes())
    bundle = sparrow.build(path, target="x86_64")
    assert bundle.verify().ok
    graph = import_tflite(path).graph
    (state,) = graph.states
    assert (state.name, state.initial.tolist()) == ("layer/states", begin.tolist())
    held = {state.name: state.initial}
    steps = []
    for _ in range(5):
        x = RNG.integers(-128, 128, (1, 2, 1, 4)).astype(np.int8)
        peer.set_tensor(peer.get_input_details()[0]["index"], x)
        peer.invoke()
        wanted = peer.get_tensor(peer.get_output_details()[0]["index"])
        inner = evaluate(graph, {"x": x}, states=held)
        np.testing.assert_array_equal(inner["y"], wanted)
        held = {state.name: inner[state.output]}
        np.testing.assert_array_equal(bundle.run({"x": x})["y"], wanted)
        steps.append(wanted.tobytes())
    assert len(set(steps)) == 5


def test_a_variable_without_a_beginning_is_zero(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(window(None))
    (state,) = import_tflite(path).graph.states
    assert (state.initial == ZERO).all()


def test_a_variable_that_keeps_its_value_is_a_constant(tmp_path: Path) -> None:
    value = RNG.standard_normal((2, 3)).astype(np.float32)
    h, x, v, y = (T("h", (), I32, resource=True), *(T(n, (2, 3), F32) for n in "xvy"))
    handle = O("VAR_HANDLE", [], ["h"], {"name": "w", "container": "c"})
    begin = G([h, constant("c", value)], [handle, O("ASSIGN_VARIABLE", ["h", "c"], [])])
    ops = [
        O("CALL_ONCE", [], [], {"subgraph": 1}),
        handle,
        O("READ_VARIABLE", ["h"], ["v"]),
        O("MUL", ["x", "v"], ["y"], {"activation": 0}),
    ]
    model = write([h, x, v, y], ops, ["x"], ["y"], [begin])
    path = tmp_path / "m.tflite"
    path.write_bytes(model)
    graph = import_tflite(path).graph
    assert not graph.states
    feeds = {"x": RNG.standard_normal((2, 3)).astype(np.float32)}
    np.testing.assert_array_equal(evaluate(graph, feeds)["y"], litert(model, feeds)[0])


def branching(known: bool) -> bytes:
    """Y = relu(x * w) or x - 1."""
    p = constant("p", np.array(False)) if known else T("p", (1,), BOOL)
    x, w, y = T("x", (2, 3), F32), T("w", (3,), F32), T("y", (2, 3), F32)
    then = G([x, w, T("m", (2, 3), F32), y],
             [O("MUL", ["x", "w"], ["m"], {"activation": 0}), O("RELU", ["m"], ["y"])],
             ["x", "w"], ["y"])  # fmt: skip
    other = G([x, w, constant("one", np.array([1, 2, 3], np.float32)), y],
              [O("SUB", ["x", "one"], ["y"], {"activation": 0})], ["x", "w"], ["y"])  # fmt: skip
    scale = constant("scale", np.array([0.5, -2, 3], np.float32))
    op = O("IF", ["p", "x", "scale"], ["y"], {"then": 1, "otherwise": 2})
    inputs = ["x"] if known else ["p", "x"]
    return write([p, x, scale, y], [op], inputs, ["y"], [then, other])


@pytest.mark.parametrize("taken", [True, False, None])
def test_the_branch_that_a_condition_takes(tmp_path: Path, taken: bool | None) -> None:
    model = branching(taken is None)
    path = tmp_path / "m.tflite"
    path.write_bytes(model)
    feeds: dict[str, Array] = {"x": RNG.standard_normal((2, 3)).astype(np.float32)}
    if taken is not None:
        feeds["p"] = np.array([taken])
    (wanted,) = litert(model, feeds)
    graph = import_tflite(path).graph
    np.testing.assert_array_equal(evaluate(graph, feeds)["y"], wanted)
    assert any(type(n.op).__name__ == "Lane" for n in graph.nodes)
    np.testing.assert_array_equal(sparrow.build(path, target="x86_64").run(feeds)["y"], wanted)


def rows(dense: Array, dtype: type) -> tuple[Array, Sparsity]:
    """Compressed rows of a matrix."""
    at = [np.flatnonzero(row) for row in dense]
    first: Array = np.cumsum([0, *map(len, at)]).astype(dtype)
    return dense[dense != 0], Sparsity(
        (0, 1), (), (len(dense), (first, np.concatenate(at).astype(dtype)))
    )


def blocks(dense: Array) -> tuple[Array, Sparsity]:
    """Compressed rows of blocks of four columns."""
    cut = dense.reshape(len(dense), -1, 4)
    at = [np.flatnonzero(row.any(-1)) for row in cut]
    first = np.cumsum([0, *map(len, at)]).astype(np.int32)
    levels = (len(dense), (first, np.concatenate(at).astype(np.int32)), 4)
    return cut[cut.any(-1)].reshape(-1), Sparsity((0, 1, 2), (1,), levels)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "blocks"])
@pytest.mark.parametrize("half", [False, True])
def test_sparse_weights(tmp_path: Path, kind: str, half: bool) -> None:
    dense = RNG.standard_normal((5, 12)).astype(np.float16 if half else np.float32)
    dense[RNG.random((5, 12)) < 0.6] = 0
    dense[2] = 0
    data, sparsity = blocks(dense) if kind == "blocks" else rows(dense, np.dtype(kind).type)
    dtype = F16 if half else F32
    tensors = [
        T("x", (3, 12), F32),
        T("sparse", (5, 12), dtype, data, sparsity=sparsity),
        T("dense", (5, 12), dtype),
        T("w", (5, 12), F32),
        T("y", (3, 5), F32),
    ]
    ops = [O("DENSIFY", ["sparse"], ["dense"]), O("DEQUANTIZE", ["dense"], ["w"])]
    ops = ops if half else ops[:1]
    ops.append(O("FULLY_CONNECTED", ["x", "w" if half else "dense", ""], ["y"], {"activation": 0}))
    model = write(tensors, ops, ["x"], ["y"])
    path = tmp_path / "m.tflite"
    path.write_bytes(model)
    graph = import_tflite(path).graph
    assert [v.shape for v in graph.consts.values()] == [(5, 12)]
    feeds = {"x": RNG.standard_normal((3, 12)).astype(np.float32)}
    found = evaluate(graph, feeds)["y"]
    np.testing.assert_allclose(found, feeds["x"] @ dense.astype(np.float32).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found, litert(model, feeds)[0], rtol=1e-5, atol=1e-5)
