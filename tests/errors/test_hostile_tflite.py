"""Malformed .tflite files end in one line, at once: no traceback, no read past the end."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sparrow
from sparrow.errors import BadInput, BadModel, SparrowError, UnsupportedOp
from sparrow.importers.tflite import import_tflite
from sparrow.importers.tflite.flatbuffer import MAX_ITEMS
from sparrow.importers.tflite.model import Sparsity
from sparrow.tensor import BOOL, F32, I8, I32
from tflite_files import G, O, T, constant, write


def good() -> bytes:
    """A convolution and a softmax over codes, with every kind of table in it."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 127, (3, 2, 2, 2)).astype(np.int8)
    tensors = [
        T("x", (1, 4, 4, 2), I8, scale=[0.05], zero=[3], signature=(-1, 4, 4, 2)),
        constant("w", weights, scale=[0.01, 0.02, 0.03], zero=[0, 0, 0], axis=0),
        constant("b", np.array([1, 2, 3], np.int32), scale=[0.0005, 0.001, 0.0015]),
        T("c", (1, 4, 4, 3), I8, scale=[0.1], zero=[-5]),
        T("y", (1, 4, 4, 3), I8, scale=[1 / 256], zero=[-128]),
    ]
    conv = {"padding": 0, "stride_w": 1, "stride_h": 1, "dilation_w": 1, "dilation_h": 1}
    ops = [O("CONV_2D", ["x", "w", "b"], ["c"], conv), O("SOFTMAX", ["c"], ["y"], {"beta": 1.0})]
    return write(tensors, ops, ["x"], ["y"])


def load(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    import_tflite(path)


def test_the_file_itself_is_read(tmp_path: Path) -> None:
    load(tmp_path, good())


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = good()
    refused = 0
    for n in range(0, len(data), 13):
        try:
            load(tmp_path, data[:n])
        except SparrowError as e:
            refused += 1
            assert "\n" not in str(e)
    assert refused > 0.9 * len(range(0, len(data), 13))


@pytest.mark.parametrize("value", [0, 1, 0x7F, 0x80, 0xFF])
def test_every_byte_may_be_wrong(tmp_path: Path, value: int) -> None:
    """Whatever is not refused is a graph that verifies: import checks that itself."""
    data = good()
    for i in range(value % 7, len(data), 7):
        broken = bytearray(data)
        broken[i] = value
        try:
            load(tmp_path, bytes(broken))
        except SparrowError as e:
            assert "\n" not in str(e)


def test_words_may_be_extreme(tmp_path: Path) -> None:
    data = good()
    for word in (-1, 1 << 31, 1 << 24):
        for i in range(0, len(data) - 4, 8 if word < 0 else 4):
            broken = bytearray(data)
            struct.pack_into("<I", broken, i, word & 0xFFFFFFFF)
            try:
                load(tmp_path, bytes(broken))
            except SparrowError as e:
                assert "\n" not in str(e)


def test_a_vector_named_many_times_is_refused(tmp_path: Path) -> None:
    """Shared offsets make few bytes stand for many objects."""
    names = [f"t{i}" for i in range(70_000)]
    inputs = ["x"] * 60_000
    tensors = [T("x", (1,), F32), *(T(n, (1,), F32) for n in names[:100])]
    ops = [O("ADD_N", inputs, [n]) for n in names[:100]]
    assert MAX_ITEMS < 100 * 60_000
    with pytest.raises(BadModel, match="items"):
        load(tmp_path, write(tensors, ops, ["x"], [names[0]]))


def test_a_constant_with_too_few_bytes_is_refused(tmp_path: Path) -> None:
    w = T("w", (1000, 1000), F32, data=np.zeros(3, np.float32))
    data = write([T("x", (1000, 1000), F32), w, T("y", (1000, 1000), F32)],
                 [O("ADD", ["x", "w"], ["y"], {"activation": 0})], ["x"], ["y"])  # fmt: skip
    with pytest.raises(BadModel, match="12 bytes for"):
        load(tmp_path, data)


def test_huge_shapes_are_refused(tmp_path: Path) -> None:
    n = (1 << 31) - 1
    data = write([T("x", (n, n, n), F32), T("y", (n, n, n), F32)],
                 [O("RELU", ["x"], ["y"])], ["x"], ["y"])  # fmt: skip
    with pytest.raises(BadModel, match="out of range"):
        load(tmp_path, data)


def test_use_before_definition_and_loops_are_refused(tmp_path: Path) -> None:
    tensors = [T(n, (2,), F32) for n in "xyz"]
    with pytest.raises(BadModel, match="before it is computed"):
        load(tmp_path, write(tensors, [O("RELU", ["z"], ["y"])], ["x"], ["y"]))
    with pytest.raises(BadModel, match="defined twice"):
        twice = [O("RELU", ["x"], ["y"]), O("RELU", ["x"], ["y"])]
        load(tmp_path, write(tensors, twice, ["x"], ["y"]))


def test_unknown_operators_are_named_with_a_hint(tmp_path: Path) -> None:
    tensors = [T(n, (2,), F32) for n in "xy"]
    path = tmp_path / "m.tflite"
    path.write_bytes(write(tensors, [O("WHILE", ["x"], ["y"])], ["x"], ["y"]))
    with pytest.raises(UnsupportedOp, match=r"y \(tflite WHILE-1\): no decoder.*unroll=True"):
        import_tflite(path)
    found = sparrow.check(path)
    assert not found.ok and found.counts == {"missing": 1}
    # what follows a missing operator is surveyed, too
    tensors = [T(n, (2,), F32) for n in "xyz"]
    path.write_bytes(
        write(tensors, [O("WHILE", ["x"], ["y"]), O("RELU", ["y"], ["z"])], ["x"], ["z"])
    )
    assert sparrow.check(path).counts == {"missing": 1, "ok": 1}


def test_variables_are_read_by_their_own_operators_only(tmp_path: Path) -> None:
    handle, x, y = T("h", (), I32, resource=True), T("x", (2,), F32), T("y", (2,), F32)
    name = O("VAR_HANDLE", [], ["h"], {"name": "v"})
    read, end = O("READ_VARIABLE", ["h"], ["y"]), (["x"], ["y"])
    with pytest.raises(UnsupportedOp, match="variable 'v' is read, and nothing gives it a value"):
        load(tmp_path, write([handle, x, y], [name, read], *end))
    with pytest.raises(UnsupportedOp, match="variable 'v' is passed on; only READ_VARIABLE"):
        load(tmp_path, write([handle, x, y], [name, O("RELU", ["h"], ["y"])], *end))
    with pytest.raises(UnsupportedOp, match="no variable that VAR_HANDLE"):
        load(tmp_path, write([handle, x, y], [read], *end))
    three = T("z", (3,), F32)
    with pytest.raises(UnsupportedOp, match=r"'v' holds .*\[2\].* and is assigned .*\[3\]"):
        assign = O("ASSIGN_VARIABLE", ["h", "z"], [])
        load(tmp_path, write([handle, three, y], [name, read, assign], ["z"], ["y"]))
    with pytest.raises(BadModel, match="subgraph 7 of 1"):
        load(tmp_path, write([x, y], [O("CALL_ONCE", [], [], {"subgraph": 7})], *end))


def variable(t: T, begin: T | None = None, at: int = 0) -> bytes:
    """Adds its input to a variable, which operator ``at`` gives its beginning."""
    x, p, y = (replace(t, name=name) for name in "xpy")
    handle, h = O("VAR_HANDLE", [], ["h"], {"name": "v", "container": ""}), T("h", (), I32)
    h = replace(h, resource=True)
    ops = [
        handle,
        O("READ_VARIABLE", ["h"], ["p"]),
        O("ADD", ["p", "x"], ["y"], {"activation": 0}),
        O("ASSIGN_VARIABLE", ["h", "y"], []),
    ]
    others = []
    if begin is not None:
        ops.insert(at, O("CALL_ONCE", [], [], {"subgraph": 1}))
        others = [G([h, begin], [handle, O("ASSIGN_VARIABLE", ["h", begin.name], [])])]
    return write([h, x, p, y], ops, ["x"], ["y"], others)


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_variable_begins_before_it_is_read(tmp_path: Path, at: int) -> None:
    t, begin = T("t", (1, 4), F32), constant("c", np.zeros((2, 7), np.float32))
    with pytest.raises(UnsupportedOp, match="'v' begins after it was read"):
        load(tmp_path, variable(t, begin, at))


def test_states_of_a_few_bytes_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(variable(T("t", (1, 1 << 30), I8, scale=[0.1], zero=[3])))
    (state,) = import_tflite(path).graph.states
    assert state.initial.shape == (1, 1 << 30) and state.initial[0, 5] == 3
    assert not any(state.initial.strides)


def test_sparse_tensors_are_checked(tmp_path: Path) -> None:
    first, at = np.array([0, 2, 3], np.int32), np.array([0, 3, 1], np.uint8)
    good = Sparsity((0, 1), (), (2, (first, at)))
    data = np.array([1, 2, 3], np.float32)
    for s, message in (
        (replace(good, order=(0, 0)), "order"),
        (replace(good, levels=(2,)), "1 levels"),
        (replace(good, blocked=(5,), order=(0, 1, 2)), "levels"),
        (replace(good, levels=(3, (first, at))), "a level of 3"),
        (replace(good, levels=(2, (first[:2], at))), "row ends"),
        (replace(good, levels=(2, (first[::-1].copy(), at))), "row ends"),
        (replace(good, levels=(2, (first, at + 1))), "outside"),
        (replace(good, order=(0, 1, 2), blocked=(1,), levels=(2, (first, at), 3)), "a block of 3"),
    ):
        c, y = T("c", (2, 4), F32, data, sparsity=s), T("y", (2, 4), F32)
        with pytest.raises(BadModel, match=message):
            load(tmp_path, write([c, y], [O("DENSIFY", ["c"], ["y"])], [], ["y"]))
    empty = Sparsity((0, 1), (), (1 << 15, (np.zeros((1 << 15) + 1, np.int32), at[:0])))
    c, y = T("c", (1 << 15, 1 << 15), F32, data, sparsity=empty), T("y", (1 << 15, 1 << 15), F32)
    with pytest.raises(UnsupportedOp, match="'c' is stored sparse: float32"):
        load(tmp_path, write([c, y], [O("DENSIFY", ["c"], ["y"])], [], ["y"]))


def test_branches_of_branches_are_refused(tmp_path: Path) -> None:
    p, x, y = T("p", (), BOOL), T("x", (2,), F32), T("y", (2,), F32)
    again = O("IF", ["p", "p", "x"], ["y"], {"then": 1, "otherwise": 1})
    inner = G([p, x, y], [again], ["p", "x"], ["y"])
    with pytest.raises(UnsupportedOp, match=r"IF-1.*no decoder"):
        load(tmp_path, write([p, x, y], [again], ["p", "x"], ["y"], [inner]))
    kept = G([p, x, replace(y, variable=True)], [], ["p", "x"], ["y"])
    with pytest.raises(BadModel, match="a branch gives a variable tensor"):
        load(tmp_path, write([p, x, y], [again], ["p", "x"], ["y"], [kept]))
    plain, twice = (G([p, x, y], [O("RELU", ["x"], ["y"])], ["p", "x"], ["y"] * k) for k in (1, 2))
    with pytest.raises(BadModel, match="its branches give 1 and 2 outputs"):
        chosen = O("IF", ["p", "p", "x"], ["y"], {"then": 1, "otherwise": 2})
        load(tmp_path, write([p, x, y], [chosen], ["p", "x"], ["y"], [plain, twice]))
    wrong = G([x, y], [O("RELU", ["x"], ["y"])], ["x"], ["y"])
    with pytest.raises(BadModel, match="2 values for 1 inputs"):
        load(tmp_path, write([p, x, y], [again], ["p", "x"], ["y"], [wrong]))


def test_shapes_are_checked_against_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(good())
    found = import_tflite(path, {"x": (2, 4, 4, 2)})
    assert found.graph.types["y"].shape == (2, 4, 4, 3)
    with pytest.raises(BadInput, match="axis 1 is 4"):
        import_tflite(path, {"x": (2, 5, 4, 2)})
    with pytest.raises(BadInput, match="no input"):
        import_tflite(path, {"z": (1,)})


def test_a_window_is_not_larger_than_its_image(tmp_path: Path) -> None:
    tensors = [
        T("x", (1, 1, 1, 1), F32, signature=(1, 1, -1, 1)),
        constant("w", np.ones((2, 1, 5, 1), np.float32)),
        T("y", (1, 1, 1, 2), F32),
    ]
    conv = {"padding": 1, "stride_w": 1, "stride_h": 1, "dilation_w": 2, "dilation_h": 1}
    data = write(tensors, [O("CONV_2D", ["x", "w", ""], ["y"], conv)], ["x"], ["y"])
    with pytest.raises(BadModel, match=r"window of \[1, 5\] .* image of \[1, 1\]; give the shapes"):
        load(tmp_path, data)
    found = import_tflite(tmp_path / "m.tflite", {"x": (1, 1, 9, 1)})
    assert found.graph.types["y"].shape == (1, 1, 1, 2)
    with pytest.raises(BadModel, match="larger than its image"):
        import_tflite(tmp_path / "m.tflite", {"x": (1, 1, 8, 1)})


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"hello, this is not a model")
    with pytest.raises(BadModel, match="expected b'TFL3'"):
        sparrow.build(path)
    with pytest.raises(BadInput, match="cannot be read"):
        sparrow.build(tmp_path / "missing.tflite")
