"""Cases made by hand: one per trick that is known from the CVE lists of model formats."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from fuzz.words import HOSTILE, INTEGERS, LOCATIONS

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
CORPUS = Path(__file__).resolve().parent / "corpus"
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def _model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    shape: Sequence[int | str] = (2,),
    **more: Any,
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", FLOAT, list(shape))
    y = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(constants))
    return helper.make_model(graph, opset_imports=_OPSETS, ir_version=9, **more)


def _ints(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, INT64, [len(values)], values)


def _node(op: str, *inputs: str, out: Any = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [str(out)], **attributes)


def shape_bombs() -> Iterator[onnx.ModelProto]:
    """Extents that are negative, overflow, or cost much to make real."""
    for d in INTEGERS:
        yield _model([_node("Relu", "x")], shape=(d,))
        yield _model([_node("Relu", "x")], shape=(d, d, d, d))
        yield _model([_node("ConstantOfShape", "s")], [_ints("s", d)])
        yield _model([_node("ConstantOfShape", "s")], [_ints("s", d, d)])
        yield _model([_node("Reshape", "x", "s")], [_ints("s", d, -1)])
        yield _model([_node("Expand", "x", "s")], [_ints("s", d, 2)])
        yield _model([_node("Tile", "x", "s")], [_ints("s", d)])
        pads = [_ints("s", d, 0), _ints("t", 0, d)]
        yield _model([_node("Pad", "x", "s")], pads)
        yield _model([_node("Pad", "x", "t")], pads)
        ends = [_ints("a", d), _ints("b", -d if d > -(1 << 63) else 0)]
        yield _model([_node("Slice", "x", "a", "b")], ends)
        steps = [_ints("a", 0), _ints("b", 2), _ints("c", 0), _ints("d", d)]
        yield _model([_node("Slice", "x", "a", "b", "c", "d")], steps)
        scalars = [helper.make_tensor(n, INT64, [], [v]) for n, v in (("a", 0), ("b", d), ("c", 1))]
        yield _model([_node("Range", "a", "b", "c"), _node("Relu", "x", out="z")], scalars)
        yield _model(
            [_node("OneHot", "i", "n", "v")],
            [_ints("i", 0), _ints("n", d), helper.make_tensor("v", FLOAT, [2], [0, 1])],
        )
        yield _model([_node("TopK", "x", "n")], [_ints("n", d)])
        yield _model([_node("Split", "x", axis=0, num_outputs=1)])
        yield _model([_node("Unsqueeze", "x", "a")], [_ints("a", d)])
        yield _model(
            [_node("Gather", "w", "a")],
            [_ints("a", d), helper.make_tensor("w", FLOAT, [2], [0, 1])],
        )
        image = (1, 1, 4, 4)
        w = helper.make_tensor("w", FLOAT, [1, 1, 1, 1], [1])
        small = max(-(1 << 63), min(d, (1 << 63) - 1))
        for op in ("Conv", "ConvTranspose"):
            for name in ("pads", "strides", "dilations", "kernel_shape"):
                value = [small] * (4 if name == "pads" else 2)
                yield _model([_node(op, "x", "w", **{name: value})], [w], image)
            yield _model([_node(op, "x", "w", group=small)], [w], image)
        yield _model([_node("ConvTranspose", "x", "w", output_shape=[small, small])], [w], image)
        yield _model([_node("MaxPool", "x", kernel_shape=[small, 1])], shape=image)
        yield _model(
            [_node("AveragePool", "x", kernel_shape=[1, 1], strides=[small, 1])], shape=image
        )
        yield _model([_node("Resize", "x", "", "", "n")], [_ints("n", 1, 1, d, d)], image)
        yield _model([_node("DepthToSpace", "x", blocksize=small)], shape=image)
        yield _model([_node("LpPool", "x", kernel_shape=[1, 1], p=small)], shape=image)
        yield _model([_node("Flatten", "x", axis=small)], shape=image)
        yield _model([_node("Softmax", "x", axis=small)], shape=image)
        yield _model([_node("Transpose", "x", perm=[small, 0, 1, 2])], shape=image)
    for factor in (1e9, float("inf"), float("nan"), -1.0, 0.0, 1e-30):
        scales = helper.make_tensor("f", FLOAT, [4], [1, 1, factor, factor])
        yield _model([_node("Resize", "x", "", "f")], [scales], (1, 1, 4, 4))
    t = helper.make_tensor("w", FLOAT, [2], [1, 2])
    for dims in ([1 << 40], [1 << 62, 4], [-1], [0, 1 << 62], [2] * 64, [1] * 5000, [0] * 5000):
        bomb = onnx.TensorProto()
        bomb.CopyFrom(t)
        del bomb.dims[:]
        bomb.dims.extend(dims)
        yield _model([_node("Add", "x", "w")], [bomb])
        bomb.ClearField("float_data")
        yield _model([_node("Add", "x", "w")], [bomb])
        yield _model([_node("Relu", "x")], shape=dims)


def folding_bombs() -> Iterator[onnx.ModelProto]:
    """A few bytes that make much work when what is constant is computed."""
    for extent in (1 << 12, 1 << 20, 1 << 24, 1 << 26):
        made = _node("ConstantOfShape", "s", out="a")
        for op in ("Exp", "Relu", "Neg", "Erf"):
            yield _model([made, _node(op, "a")], [_ints("s", extent)])
        nodes = [made, *(_node("Add", "a", f"a{i}" if i else "a", out=f"a{i + 1}")
                         for i in range(40)), _node("Relu", "a40")]  # fmt: skip
        yield _model(nodes, [_ints("s", extent)])
        yield _model([made, _node("NonZero", "a")], [_ints("s", extent)])
        yield _model(
            [made, _node("CumSum", "a", "z")],
            [_ints("s", extent), helper.make_tensor("z", INT64, [], [0])],
        )
        yield _model(
            [made, helper.make_node("TopK", ["a", "k"], ["y", "i"])],
            [_ints("s", extent), _ints("k", 1)],
        )
        yield _model([made, helper.make_node("Unique", ["a"], ["y"])], [_ints("s", extent)])
    for side in (64, 512, 2048, 4096, 8192):
        square = _node("ConstantOfShape", "s", out="a")
        yield _model([square, _node("MatMul", "a", "a")], [_ints("s", side, side)])
        chain = [square, *(_node("MatMul", "a", f"a{i}" if i else "a", out=f"a{i + 1}")
                           for i in range(60)), _node("Relu", "a60")]  # fmt: skip
        yield _model(chain, [_ints("s", side, side)])
        yield _model([square, _node("Transpose", "a")], [_ints("s", side, side)])
        image = [_node("ConstantOfShape", "s", out="a"), _node("ConstantOfShape", "k", out="w")]
        yield _model(
            [*image, _node("Conv", "a", "w")],
            [_ints("s", 1, 1, side, side), _ints("k", 1, 1, 31, 31)],
        )
        yield _model(
            [*image[:1], _node("MaxPool", "a", kernel_shape=[64, 64])],
            [_ints("s", 1, 1, side, side)],
        )
        yield _model([*image[:1], _node("LRN", "a", size=side)], [_ints("s", 1, side, 32, 32)])
        yield _model([square, _node("Det", "a")], [_ints("s", side, side)])
        yield _model(
            [square, _node("Einsum", "a", "a", equation="ij,kl->ijkl")], [_ints("s", side, side)]
        )
    # 2^k by adding a value to itself, joined end to end
    doubles = [_node("Concat", f"c{i}", f"c{i}", out=f"c{i + 1}", axis=0) for i in range(40)]
    yield _model([*doubles, _node("Relu", "c40")], [helper.make_tensor("c0", FLOAT, [2], [0, 1])])
    doubles[0] = _node("Concat", "x", "x", out="c1", axis=0)
    yield _model([*doubles, _node("Relu", "c40")])
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        for n in (1 << 16, 1 << 24, 1 << 28):
            yield _model([_node(op, "n")], [helper.make_tensor("n", INT64, [], [n])])
    for n in (1 << 8, 1 << 12, 1 << 16):
        axes = {"axis": 1, "onesided": 0}
        yield _model([_node("DFT", "x", **axes)], shape=(1, n, 1))
        step = helper.make_tensor("h", INT64, [], [1])
        width = helper.make_tensor("l", INT64, [], [n])
        yield _model([_node("STFT", "x", "h", "", "l")], [step, width], (1, 2 * n, 1))
        mel = [helper.make_tensor(a, INT64, [], [n]) for a in ("a", "b", "c")]
        ends = [helper.make_tensor(a, FLOAT, [], [v]) for a, v in (("d", 0.0), ("e", 8e3))]
        yield _model([_node("MelWeightMatrix", "a", "b", "c", "d", "e")], [*mel, *ends])
        recurrent = [_ints("s", n, 1, 64), _ints("w", 1, 256, 64)]
        fill = [_node("ConstantOfShape", "s", out="a"), _node("ConstantOfShape", "w", out="b")]
        yield _model(
            [*fill, helper.make_node("LSTM", ["a", "b", "b"], ["y"], hidden_size=64)], recurrent
        )


def _body(node: onnx.NodeProto, depth: int = 0) -> onnx.GraphProto:
    carried = helper.make_tensor_value_info("c", FLOAT, [2])
    result = helper.make_tensor_value_info("d", FLOAT, [2])
    go = helper.make_tensor_value_info("go", BOOL, [])
    i = helper.make_tensor_value_info("i", INT64, [])
    on = _node("Identity", "go", out="on")
    after = helper.make_tensor_value_info("on", BOOL, [])
    return helper.make_graph([node, on], f"body{depth}", [i, go, carried], [after, result])


def _float(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def evaluation_bombs() -> Iterator[onnx.ModelProto]:
    """Operators whose cost is not in what they write, over constants, alone and in a loop."""
    image, rois = _float("a", 1, 1, 8, 8), _float("r", 1000, 5)
    batch = _ints("b", *[0] * 1000)
    gates = [_float("s", 4000, 1, 1), _float("w", 1, 4, 1), _float("h", 1, 4, 1)]
    sizes = _ints("n", 1, 1, 8, 1)
    pads = _ints("p", 0, 0, 0, 0, 0, 0, 0, 1 << 16)
    boxes, scores = _float("o", 1, 200, 4), _float("c", 1, 10, 200)
    most = _ints("m", 1 << 40)
    rows: list[tuple[onnx.NodeProto, list[onnx.TensorProto]]] = [
        (_node("Resize", "a", "", "", "n", out="k", mode=mode, antialias=antialias), [image, sizes])
        for mode in ("nearest", "linear", "cubic")
        for antialias in (0, 1)
    ]
    rows += [
        (_node("LSTM", "s", "w", "h", out="k", hidden_size=1), gates),
        (_node("MaxRoiPool", "a", "r", out="k", pooled_shape=[8, 8]), [image, rois]),
        (_node("RoiAlign", "a", "q", "b", out="k"), [image, _float("q", 1000, 4), batch]),
        (_node("Pad", "a", "p", out="k", mode="reflect"), [image, pads]),
        (_node("Pad", "a", "p", out="k", mode="wrap"), [_float("a", 1, 1, 8, 1), pads]),
        (_node("NonMaxSuppression", "o", "c", "m", out="k"), [boxes, scores, most]),
        (_node("Conv", "a", "v", out="k", pads=[31] * 4), [image, _float("v", 1, 1, 64, 64)]),
        (_node("Unique", "a", out="k"), [image]),
        (_node("GridSample", "a", "g", out="k", mode="cubic"), [image, _float("g", 1, 8, 8, 2)]),
        (_node("MaxPool", "a", out="k", kernel_shape=[8, 8]), [image]),
        (_node("Resize", "e", "", "f", out="k"), [_float("f", 4), _float("e", 1 << 30, 2, 0, 1)]),
    ]
    for node, constants in rows:
        yield _model([node, _node("Relu", "x")], constants)
        for trips in (100, 4096):
            body = _body(_node("Identity", "c", out="d"))
            body.node.insert(0, node)
            loop = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
            yield _model([loop], [*constants, helper.make_tensor("trips", INT64, [], [trips])])
    for extent in (1 << 20, 1 << 31, 1 << 32):
        empty = helper.make_tensor("e", FLOAT, [extent, 1, 2, 0], [])
        scales = helper.make_tensor("f", FLOAT, [4], [1, 1, 2, 3])
        for op in ("Upsample", "Relu", "Softmax", "CumSum"):
            m = _model([_node(op, "e", "f", out="k"), _node("Relu", "x")], [empty, scales])
            m.opset_import[0].version = 9
            yield m


def nesting() -> Iterator[onnx.ModelProto]:
    """Graphs in graphs, loops in loops, functions in functions, and what calls itself."""
    for trips in (0, 1, 100, 4096, 4097, -1, (1 << 63) - 1):
        for depth in (1, 2, 3, 12, 20):
            inner = _node("Add", "c", "c", out="d")
            for level in range(depth):
                inner = helper.make_node(
                    "Loop", ["n", "", "c" if level < depth - 1 else "x"],
                    ["d" if level < depth - 1 else "y"], body=_body(inner, level)
                )  # fmt: skip
            yield _model([inner], [helper.make_tensor("n", INT64, [], [trips])])
    for depth in (5, 10, 15, 16, 17, 20):
        inner = _node("Relu", "x", out="d")
        for level in range(depth):
            out = helper.make_tensor_value_info("d", FLOAT, [2])
            branch = helper.make_graph([inner], f"b{level}", [], [out])
            last = level == depth - 1
            inner = (
                helper.make_node(
                    "If", ["go"], ["y" if last else "d"], then_branch=branch, else_branch=branch
                )
                if depth < 18
                else helper.make_node(
                    "If",
                    ["go"],
                    ["y" if last else "d"],
                    then_branch=branch,
                    else_branch=helper.make_graph([_node("Relu", "x", out="d")], "e", [], [out]),
                )
            )
            if inner.ByteSize() > 4_000_000:
                break
        yield _model([inner], [helper.make_tensor("go", BOOL, [], [True])])
    for calls in (["F"], ["G"], ["F", "F"]):
        functions = [_function("F", calls), _function("G", ["F"])]
        yield _model([helper.make_node("F", ["x"], ["y"], domain="local")], functions=functions)
    for count in (10, 41, 300):
        functions = [_function("F0", ["Relu"])]
        functions += [_function(f"F{k}", [f"F{k - 1}"] * 2) for k in range(1, count)]
        call = helper.make_node(f"F{count - 1}", ["x"], ["y"], domain="local")
        yield _model([call], functions=functions)
        functions = [_function("F0", ["Relu"])]
        functions += [_function(f"F{k}", [f"F{k - 1}"]) for k in range(1, count)]
        yield _model([call], functions=functions)
    # a function that stands for itself inside the branch of another
    branch = helper.make_graph(
        [helper.make_node("F", ["a"], ["b"], domain="local")], "b", [],
        [helper.make_tensor_value_info("b", FLOAT, [2])],
    )  # fmt: skip
    odd = helper.make_function(
        "local", "F", ["a"], ["b"],
        [helper.make_node("If", ["a"], ["b"], then_branch=branch, else_branch=branch)], _OPSETS,
    )  # fmt: skip
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    yield _model([call], functions=[odd])
    yield _model([call], functions=[odd, odd])
    hidden = AttributeProto(name="then_branch", type=AttributeProto.GRAPHS)
    hidden.graphs.add().CopyFrom(branch)
    lone = helper.make_node("If", ["x"], ["y"])
    lone.attribute.append(hidden)
    yield _model([lone])


def _function(name: str, calls: Sequence[str]) -> onnx.FunctionProto:
    nodes, last = [], "a"
    for k, op in enumerate(calls):
        out = "b" if k == len(calls) - 1 else f"t{k}"
        nodes.append(helper.make_node(op, [last], [out], domain="" if op == "Relu" else "local"))
        last = out
    return helper.make_function("local", name, ["a"], ["b"], nodes, _OPSETS)


def names_and_order() -> Iterator[onnx.ModelProto]:
    """Cycles, repeats, and names that mean something elsewhere."""
    yield _model([_node("Add", "x", "b", out="a"), _node("Relu", "a", out="b"), _node("Relu", "b")])
    yield _model([_node("Add", "x", "y")])
    yield _model([_node("Relu", "x"), _node("Neg", "x")])
    yield _model([_node("Relu", "x", out="x")])
    yield _model([_node("Split", "x")])
    for op in (
        "Max",
        "Concat",
        "Mean",
        "Einsum",
        "Loop",
        "Scan",
        "Where",
        "Clip",
        "Gemm",
        "Resize",
    ):
        for inputs in (("x", "", "x"), ("", "x"), ("x", ""), ("", "", "")):
            yield _model([_node(op, *inputs)])
    twice = helper.make_node("Split", ["x"], ["y", "y"], axis=0)
    yield _model([twice])
    yield _model([_node("Relu", "x")], [helper.make_tensor("y", FLOAT, [2], [0, 1])])
    yield _model([_node("Relu", "x")], [helper.make_tensor("x", FLOAT, [2], [0, 1])] * 2)
    yield _model([])
    yield _model([helper.make_node("Relu", [], [])])
    yield _model([helper.make_node("Relu", ["x"] * 5000, ["y"])])
    yield _model([helper.make_node("Concat", ["x"] * 20000, ["y"], axis=0)])
    yield _model([helper.make_node("Max", ["x"] * 8000, ["y"])])
    yield _model([helper.make_node("Relu", ["x"], [f"y{i}" for i in range(5000)])])
    many = [_node("Relu", f"v{i}" if i else "x", out=f"v{i + 1}") for i in range(3000)]
    yield _model([*many, _node("Relu", "v3000")])
    for hostile in HOSTILE:
        if not hostile:
            continue
        m = _model([_node("Relu", "x")])
        m.graph.name = m.graph.node[0].name = m.producer_name = m.doc_string = hostile
        yield m
        m = _model([helper.make_node("Relu", ["x"], [hostile]), _node("Neg", hostile)])
        yield m
        m = _model([_node(hostile, "x")])
        yield m
        m = _model([helper.make_node("Relu", ["x"], ["y"], domain=hostile)])
        yield m
        m = _model([_node("Relu", "x", **{hostile: 1})])
        yield m
        m = _model([helper.make_node("Relu", [hostile], ["y"], name=hostile)])
        m.graph.input[0].name = hostile
        m.graph.output[0].name = "y"
        yield m
        m = _model([_node("Relu", "x")], shape=(hostile, 2))
        yield m
        m = _model([_node("Einsum", "x", "x", equation=hostile)])
        yield m
        m = _model([_node("Pad", "x", "p", mode=hostile)], [_ints("p", 0, 0)])
        yield m


def external() -> Iterator[onnx.ModelProto]:
    """Data that are elsewhere."""
    for location in LOCATIONS:
        for offset, length in (("", ""), ("0", "16"), ("-8", "16"), ("1e3", "x"), ("9" * 30, "")):
            m = _model(
                [_node("Add", "x", "w")], [helper.make_tensor("w", FLOAT, [4], [0] * 4)], (4,)
            )
            t = m.graph.initializer[0]
            t.ClearField("float_data")
            t.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", offset), ("length", length)):
                if value or key == "location":
                    t.external_data.add(key=key, value=value)
            yield m
    constant = onnx.TensorProto()
    constant.CopyFrom(t)
    constant.external_data[0].value = "/etc/passwd"
    yield _model([_node("Constant", out="w", value=constant), _node("Add", "x", "w")])
    yield _model([_node("ConstantOfShape", "s", value=constant)], [_ints("s", 2)])


def tensors() -> Iterator[onnx.ModelProto]:
    """Constants whose data and type do not fit."""
    for code in (*range(-1, 30), 1 << 20, -(1 << 31)):
        for raw in (b"", b"\0" * 3, b"\0" * 8, b"\0" * 16):
            t = onnx.TensorProto(name="w", data_type=code, dims=[2], raw_data=raw)
            yield _model([_node("Add", "x", "w")], [t])
        t = onnx.TensorProto(name="w", data_type=code, dims=[2])
        t.float_data.extend([1, 2])
        t.int64_data.extend([1, 2, 3])
        t.string_data.extend([b"\xff", b"a"])
        yield _model([_node("Add", "x", "w")], [t])
    segment = onnx.TensorProto(name="w", data_type=1, dims=[2], raw_data=bytes(8))
    segment.segment.begin, segment.segment.end = 5, 1
    yield _model([_node("Add", "x", "w")], [segment])
    sparse = onnx.SparseTensorProto(dims=[1 << 40])
    sparse.values.name = "w"
    m = _model([_node("Add", "x", "w")])
    m.graph.sparse_initializer.append(sparse)
    yield m


def operator_bombs() -> Iterator[onnx.ModelProto]:
    """Operators beyond those of `shape_bombs` whose numbers say how much there is to do."""
    image = (1, 1, 4, 4)
    for n in (-(1 << 62), -1, 0, 1 << 16, 1 << 31, 1 << 40, 1 << 62):
        scalar = helper.make_tensor("n", INT64, [], [n])
        pair, four = _ints("s", n, n), _ints("s", 1, 1, n, n)
        one = helper.make_tensor("w", FLOAT, [1, 1, 1, 1], [1])
        yield _model([_node("Col2Im", "x", "s", "k")], [pair, _ints("k", 1, 1)], (1, 1, 4))
        yield _model([_node("Col2Im", "x", "k", "s")], [pair, _ints("k", 4, 4)], (1, 1, 4))
        yield _model([_node("CenterCropPad", "x", "s")], [four], image)
        yield _model([_node("AffineGrid", "x", "s")], [four], (1, 2, 3))
        yield _model(
            [_node("MaxUnpool", "x", "i", "s", kernel_shape=[2, 2])],
            [four, helper.make_tensor("i", INT64, [1, 1, 4, 4], range(16))],
            image,
        )
        yield _model(
            [_node("RoiAlign", "x", "r", "b", output_height=n, output_width=n)],
            [helper.make_tensor("r", FLOAT, [1, 4], [0, 0, 1, 1]), _ints("b", 0)],
            image,
        )
        yield _model(
            [_node("NonMaxSuppression", "x", "c", "n")],
            [scalar, helper.make_tensor("c", FLOAT, [1, 1, 2], [1, 2])],
            (1, 2, 4),
        )
        yield _model([helper.make_node("Split", ["x"], ["y"], num_outputs=n)])
        yield _model([_node("Split", "x", "s")], [_ints("s", n)])
        yield _model([_node("SpaceToDepth", "x", blocksize=n)], shape=image)
        yield _model([_node("DFT", "x", "n")], [scalar], (1, 4, 1))
        yield _model([_node("Trilu", "x", "n")], [scalar], image)
        yield _model([_node("EyeLike", "x", k=n)], shape=(2, 2))
        yield _model(
            [_node("Upsample", "x", "f")],
            [helper.make_tensor("f", FLOAT, [4], [1, 1, n, n])],
            image,
        )
        yield _model([_node("LRN", "x", size=n)], shape=image)
        yield _model([_node("GatherND", "x", "s", batch_dims=n)], [pair], image)
        yield _model([_node("ScatterND", "x", "s", "x")], [pair])
        yield _model([_node("ScatterElements", "x", "s", "x", axis=n)], [pair])
        yield _model(
            [_node("GroupNormalization", "x", "a", "a", num_groups=n)],
            [helper.make_tensor("a", FLOAT, [1], [1])],
            image,
        )
        yield _model(
            [_node("LayerNormalization", "x", "a", axis=n)],
            [helper.make_tensor("a", FLOAT, [1], [1])],
            image,
        )
        for op in ("LSTM", "GRU", "RNN"):
            yield _model([_node(op, "x", "w", "w", hidden_size=n)], [one], (1, 1, 1))
        yield _model(
            [_node("QLinearConv", "x", "f", "z", "w", "f", "z", "f", "z", group=n)],
            [
                one,
                helper.make_tensor("f", FLOAT, [], [1]),
                helper.make_tensor("z", TensorProto.UINT8, [], [0]),
            ],
            image,
        )
        yield _model(
            [
                _node("DequantizeLinear", "q", "f", block_size=n, axis=n),
                _node("Relu", "x", out="z"),
            ],
            [
                helper.make_tensor("q", TensorProto.INT8, [2], [1, 2]),
                helper.make_tensor("f", FLOAT, [2], [1, 2]),
            ],
        )
        yield _model([_node("RandomNormal", shape=[n, n]), _node("Relu", "x", out="z")])
        yield _model([_node("Cast", "x", to=max(-(1 << 31), min(n, (1 << 31) - 1)))])
        yield _model(
            [_node("Attention", "x", "x", "x", q_num_heads=n, kv_num_heads=n)], shape=(1, 2, 4)
        )
    pads = [1 << 40] * 4
    yield _model([_node("Pad", "x", mode="reflect", pads=pads)], shape=(2, 2))
    for delta in (1e-30, 1e-7, 0.0, float("nan"), float("inf"), -1e-45, 5e-324):
        ends = [helper.make_tensor(a, FLOAT, [], [v])
                for a, v in (("a", 0.0), ("b", 3e38), ("c", delta))]  # fmt: skip
        yield _model([_node("Range", "a", "b", "c"), _node("Relu", "x", out="z")], ends)
    for scale in (float("nan"), float("inf"), -1.0, 0.0, 1e-45, 3e38):
        q = [helper.make_tensor("f", FLOAT, [], [scale]),
             helper.make_tensor("z", TensorProto.INT8, [], [-128])]  # fmt: skip
        pair_of = [_node("QuantizeLinear", "x", "f", "z", out="q"),
                   _node("DequantizeLinear", "q", "f", "z")]  # fmt: skip
        yield _model(pair_of, q)
        q[1] = helper.make_tensor("z", TensorProto.INT8, [3], [0, 1, 2])
        yield _model(pair_of, q)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for equation in (
        "", "->", ",", "...", "...->...", "i,...->", "ij,jk->ik", "i->" + "i" * 900, letters,
        f"{letters}->", "i" * 5000, "i," * 5000 + "i", "ij->i->j", "i...i->i", "....->i", "i->j",
        "1->1", "i,j,k,l,m,n,o,p->ijklmnop", " i -> i ", "\u0131->\u0131", "i,-", "i>-", "i\0->i",
    ):  # fmt: skip
        for count in (1, 2, equation.count(",") + 1):
            yield _model([_node("Einsum", *["x"] * count, equation=equation)], shape=(1 << 12,))


def empty_extents() -> Iterator[onnx.ModelProto]:
    """Operators over tensors without elements, which have no largest and no mean."""
    nothing = helper.make_tensor("w", FLOAT, [0, 0, 0, 0], [])
    one = _ints("n", 1)
    for shape in ((0,), (0, 0), (2, 0), (0, 2), (1, 0, 4, 4), (0, 1, 4, 4), (1, 1, 0, 0), (0,) * 8):
        for op in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceLogSumExp"):
            yield _model([_node(op, "x")], shape=shape)
        for op in (
            "Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin", "LpNormalization", "Det",
            "GlobalAveragePool", "GlobalMaxPool", "NonZero", "Unique", "Flatten", "Transpose",
            "Shape", "MeanVarianceNormalization", "DepthToSpace",
        ):  # fmt: skip
            yield _model([_node(op, "x")], shape=shape)
        for op in ("MaxPool", "AveragePool", "LpPool"):
            yield _model([_node(op, "x", kernel_shape=[1, 1])], shape=shape)
        for op in ("Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Concat", "LSTM", "Gather"):
            yield _model([_node(op, "x", "w", axis=0)], [nothing], shape)
            yield _model([_node(op, "x", "x")], [nothing], shape)
        yield _model([_node("TopK", "x", "n")], [one], shape)
        yield _model([_node("Resize", "x", "", "", "s")], [_ints("s", *[2] * len(shape))], shape)
        yield _model([_node("Reshape", "x", "s")], [_ints("s", -1, 0)], shape)
        yield _model([_node("Split", "x", num_outputs=1)], shape=shape)
        yield _model(
            [_node("OneHot", "i", "n", "v"), _node("Relu", "x", out="z")],
            [one, _ints("i"), helper.make_tensor("v", FLOAT, [2], [0, 1])],
            shape,
        )
        yield _model([_node("Pad", "x", "s", mode="edge")], [_ints("s", *[1] * 2 * len(shape))],
                     shape)  # fmt: skip


def unfolding() -> Iterator[onnx.ModelProto]:
    """What is stored once and read many times."""
    large = numpy_helper.from_array(np.zeros(1 << 14, np.float32), "k")
    for trips in (100, 4096):
        body = _body(_node("Add", "c", "k", out="d"))
        body.initializer.append(large)
        carried = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
        yield _model([carried], [helper.make_tensor("n", INT64, [], [trips])], (1 << 14,))
        body = _body(_node("Add", "c", "k", out="d"))
        body.node.insert(0, _node("Constant", out="k", value=large))
        carried = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
        yield _model([carried], [helper.make_tensor("n", INT64, [], [trips])], (1 << 14,))
    constant = _node("Constant", out="k", value=large)
    nodes = [constant, _node("Add", "a", "k", out="b")]
    heavy = helper.make_function("local", "F", ["a"], ["b"], nodes, _OPSETS)
    for count in (30, 3000):
        calls = [helper.make_node("F", [f"v{i}" if i else "x"], [f"v{i + 1}"], domain="local")
                 for i in range(count)]  # fmt: skip
        yield _model([*calls, _node("Relu", f"v{count}")], shape=(1 << 14,), functions=[heavy])
    # two functions of one name, told apart by a field that came later, in a circle
    first, again = _function("F", ["G"]), _function("F", ["Relu"])
    first.overload, again.overload = "a", "b"
    back = _function("G", ["F"])
    back.node[0].overload = "a"
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    call.overload = "a"
    yield _model([call], functions=[first, again, back])
    yield _model([call], functions=[again, first, back])
    own = _function("F", ["F"])
    own.domain = "ai.onnx"
    for domain in ("", "ai.onnx"):
        own.node[0].domain = domain
        yield _model([helper.make_node("F", ["x"], ["y"], domain=domain)], functions=[own])
    for op in ("Relu", "Gelu", "Softmax"):
        yield _model([helper.make_node(op, ["x"] * 9, ["y"])])
        yield _model([helper.make_node(op, ["x"], [f"y{i}" if i else "y" for i in range(9)])])
    # a local function in the place of an operator
    mine = helper.make_function("", "Relu", ["a"], ["b"], [_node("Relu", "a", out="b")], _OPSETS)
    yield _model([_node("Relu", "x")], functions=[mine])
    for steps in (1 << 10, 1 << 20):
        element = helper.make_tensor_value_info("e", FLOAT, [])
        total = helper.make_tensor_value_info("t", FLOAT, [])
        body = helper.make_graph([_node("Exp", "e", out="t")], "scan", [element], [total])
        yield _model([_node("Scan", "x", body=body, num_scan_inputs=1)], shape=(steps,))


def envelopes() -> Iterator[onnx.ModelProto]:
    """Models whose graph is in order, and what stands around it is not."""
    for versions in (
        (9999,), (-1,), (0,), (1,), (6,), (1 << 62,), (17, 9999), (17, 17), (9999, 17), (-1, 17),
    ):  # fmt: skip
        m = _model([_node("Relu", "x")])
        del m.opset_import[:]
        m.opset_import.extend(helper.make_opsetid("", v) for v in versions)
        yield m
    for version in (-1, 0, 1 << 62):
        m = _model([_node("Relu", "x")])
        m.ir_version = version
        yield m
    for kind in ("sequence_type", "optional_type", "map_type", "sparse_tensor_type", "opaque_type"):
        m = _model([_node("Relu", "x")])
        m.graph.input[0].type.Clear()
        field = getattr(m.graph.input[0].type, kind, None)
        if field is not None:
            field.SetInParent()
        yield m
    m = _model([_node("Relu", "x")])
    for i in range(50_000):
        m.metadata_props.add(key=f"k{i}", value="v")
    yield m
    m = _model([_node("Relu", "x")])
    m.training_info.add().algorithm.CopyFrom(m.graph)
    yield m
    m = _model([_node("Relu", "x")])
    m.graph.quantization_annotation.add(tensor_name="none")
    yield m
    m = _model([_node("Relu", "x")])
    m.graph.output.extend([m.graph.output[0]] * 5000)
    yield m
    m = _model([_node("Relu", "x")])
    m.graph.input.extend([m.graph.input[0]] * 2)
    yield m
    for name in ("x\r\n\0", "\x1b]0;title\x07", "x" * 1_000_000, "\u200b", "\x7f"):
        m = _model([helper.make_node("Relu", [name], ["y"]), _node("Abs", name, out="z")])
        m.graph.input[0].name = name
        yield m
        m.graph.node[0].op_type = "None"
        m.graph.node[0].name = name
        yield m
    strings = onnx.TensorProto(data_type=TensorProto.STRING, dims=[2], string_data=[b"a", b"\xff"])
    yield _model([_node("Constant", out="w", value=strings), _node("Relu", "x")])
    yield _model([_node("Constant", out="w", value_strings=["a", "b"]), _node("Add", "x", "w")])
    sparse = onnx.SparseTensorProto(dims=[1 << 40, 1 << 20])
    sparse.values.CopyFrom(helper.make_tensor("v", FLOAT, [1], [1]))
    sparse.indices.CopyFrom(helper.make_tensor("i", INT64, [1, 2], [(1 << 40) - 1, 0]))
    yield _model([_node("Constant", out="w", sparse_value=sparse), _node("Add", "x", "w")])


@cache
def models() -> tuple[bytes, ...]:
    """ONNX models."""
    found: list[bytes] = [b"", b"\0", b"\x08", b"\xff" * 64, b"\x3a" + b"\xff" * 9 + b"\x01"]
    # a message in a message in a message: protobuf stops at 100
    deep = b""
    for _ in range(3000):
        deep = b"\x0a" + _varint(len(deep)) + deep
    found.append(b"\x3a" + _varint(len(deep)) + deep)
    parts: tuple[Callable[[], Iterator[onnx.ModelProto]], ...] = (
        shape_bombs, folding_bombs, evaluation_bombs, nesting, names_and_order, external, tensors,
        operator_bombs, empty_extents, unfolding, envelopes,
    )  # fmt: skip
    for part in parts:
        for m in part():
            found.append(m.SerializeToString())
    return tuple(found)


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


@cache
def graphs() -> tuple[bytes, ...]:
    """Graph texts."""
    lines = ["graph g", "input x: float32[2]", "y: float32[2] = Lane(x) {expr=%s}", "output y"]
    text = "\n".join(lines)
    found = [text % ("relu(" * n + "%0" + ")" * n) for n in (1, 100, 199, 200, 201, 5000, 100000)]
    found += [text % v for v in ("%1", "%999999", "add(%0)", "(" * 900, "1e999", "cast(%0, f32)")]
    found += [f"graph g\ninput x: float32[{d}]\noutput x" for d in
              ("9" * 18, "x".join(["9"] * 64), "-1", "0", "1x" * 70 + "1", "9" * 400)]  # fmt: skip
    found += [f"graph {json.dumps(h)}\ninput {json.dumps(h)}: float32[2]" for h in HOSTILE]
    found += ["graph g\n" * 2, "", "\n" * 100000, "graph g\noutput x", "graph g\nx: f"]
    found += ["graph g\nconst c: float32[3] = #0123456789abcdef", "input x: float32[2]\ngraph g"]
    found += ["graph g\nconst c: int8[1] = [999]", "graph g\nconst c: int64[1] = [" + "9" * 5000]
    found.append("graph g\nconst c: float32[100000] = [" + "0," * 100000 + "]")
    chain = ["graph g", "input x0: float32[2]"]
    chain += [f"x{i + 1}: float32[2] = Reshape(x{i}) {{shape=(2,)}}" for i in range(2000)]
    found.append("\n".join([*chain, "output x2000"]))
    return tuple(t.encode("utf-8", "surrogatepass") for t in found)


@cache
def records() -> tuple[bytes, ...]:
    """JSON files."""
    found = ["", "null", "[]", "{}", "1", '"x"', "\ufeff{}", "nan", '{"a": NaN}', "{'a': 1}"]
    found += ["[" * n + "]" * n for n in (90, 900, 100_000)]
    found += ['{"a":' * n + "1" + "}" * n for n in (90, 900, 100_000)]
    found += ["9" * n for n in (20, 400, 5_000, 1_000_000)]
    found += [f'{{"schema_version": {v}}}' for v in ("1e999", "-1", "9" * 30, "9" * 5000, '"1"')]
    found += ['{"a": 1, "a": 2}', '{"__proto__": {}}', '"\\ud800"', "[" + "0," * 300_000 + "0]"]
    # many values: what one costs in memory, and in errors, is not in its bytes
    found += ['{"a":[' + "{},".join([""] * n) + "{}]}" for n in (100_000, 1_000_000)]
    found += ["{" + ",".join(f'"{i}":0' for i in range(n)) + "}" for n in (100_000, 1_000_000)]
    found += [f'{{"entries":[{{"steps":[{",".join(["{}"] * 150_000)}]}}]}}']
    found += ['{"samples":{"ids":[' + ",".join(["0"] * 190_000) + "]}}"]
    found += ['{"' + "x" * 1_000_000 + '": 1}', " " * 1_000_000, "\0" * 1000, '{"a": "\0"}']
    return tuple(t.encode("utf-8", "surrogatepass") for t in found)


@cache
def rows() -> tuple[bytes, ...]:
    """Target rows: figures of every size, names in the words of commands, nesting."""
    whole = (CORPUS / "rows" / "cpu.toml").read_text()
    found = ["", "\0", "x", "[" * 100_000, "a = " + "[" * 9000, "a = " + "9" * 9000, "#" * 100_000]
    found += [".".join(["a"] * n) + " = 1" for n in (100, 2_900, 10_000)]
    figures = ("nan", "inf", "-inf", "1e400", "-1", "0", "0.1", "1e-300", "1e18", "9" * 400, "true",
               '"x"', "[]", "{}")  # fmt: skip
    for old in sorted(set(re.findall(r"(?<=\[)[\d._]+(?=,)|(?<== )\d+$", whole, re.MULTILINE))):
        found += [whole.replace(old, new, 1) for new in figures]
    for old in sorted(set(re.findall(r'"[^"]*"', whole))):
        found += [whole.replace(old, json.dumps(h), 1) for h in HOSTILE]
    return tuple(t.encode("utf-8", "surrogatepass") for t in found)


@cache
def archives() -> tuple[bytes, ...]:
    """``.npz`` and ``.npy`` files."""
    found: list[bytes] = [b"", b"PK", b"PK\x05\x06" + bytes(18), b"\x93NUMPY", b"\x80\x04N."]
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", how) as z:
            header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (300000000,), }\n"
            body = bytes(300_000_000) if how == zipfile.ZIP_DEFLATED else b""
            z.writestr("cap.npy", b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header
                       + body)  # fmt: skip
        found.append(out.getvalue())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name in ("../../x.npy", "/etc/passwd", "cap.npy", "array_x.npy"):
            member = io.BytesIO()
            np.save(member, np.array([{}], dtype=object), allow_pickle=True)
            z.writestr(name, member.getvalue())
    found.append(out.getvalue())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for i in range(3000):
            z.writestr(f"array_{i}.npy", b"")
    found.append(out.getvalue())
    # every entry of the directory is the same member: the file is small, what it holds is not
    array = io.BytesIO()
    np.save(array, np.zeros(1 << 20, np.uint8))
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", how) as z:
            z.writestr("array_0.npy", array.getvalue())
            (stored,) = z.filelist
            for i in range(1, 500):
                again = copy(stored)
                again.filename = again.orig_filename = f"array_{i}.npy"
                z.filelist.append(again)
        found.append(out.getvalue())
    for version in (b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"):
        for size in (0, 1, 0xFFFF, 0xFFFFFFFF):
            width = 2 if version == b"\x01\0" else 4
            told = (size & (1 << 8 * width) - 1).to_bytes(width, "little")
            found.append(b"\x93NUMPY" + version + told + b"{'descr': '<f4'")
    for header in (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(2," * 20 + b")" * 20 + b"}",
        b"{'descr': ('<f4', (1000, 1000, 1000)), 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '<c16', 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '<f16', 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '>i8', 'fortran_order': True, 'shape': (1, 2)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, -1)}",
        b"__import__('os').system('id')",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
    ):
        length = len(header).to_bytes(2, "little")
        found.append(b"\x93NUMPY\x01\0" + length + header + bytes(16))
    return tuple(found)


@cache
def commands() -> tuple[bytes, ...]:
    """Words on the command line."""
    rows: list[list[str]] = []
    for h in (*HOSTILE, *LOCATIONS):
        if "\0" in h:
            continue
        rows += [["check", h], ["build", h, "-o", "out"], ["build", "m.onnx", "-o", h], ["run", h]]
        rows += [["check", "m.onnx", "--shape", h], ["check", "m.onnx", "--state", h], [h]]
        rows += [["verify", h], ["report", h], ["profile", h], ["targets", "show", h]]
        rows += [["check", "m.onnx", "--target", h], ["check", f"{h}=m.onnx", f"{h}=m.onnx"]]
        rows += [["build", "m.onnx", "-o", "out", "--drop", h], ["run", "bundle", h, "-o", h]]
        rows += [["build", "m.onnx", "-o", "out", "--evaluate", h], ["report", "bundle", "-o", h]]
    rows += [["check", f] for f in ("fifo", "/dev/zero", "/dev/stdin", "/proc/self/mem", "sub")]
    rows += [["run", "bundle", f] for f in ("fifo", "/dev/zero", "/dev/stdin", "sub", "link.bin")]
    rows += [["build", "m.onnx", "-o", "out", "--threads", str(i)] for i in INTEGERS]
    rows += [["check", "m.onnx", "--shape", f"x={i}"] for i in INTEGERS]
    rows += [["check", "m.onnx", "--shape", "x=" + "x".join(["9"] * n)] for n in (64, 5000)]
    rows += [["check", *["a=m.onnx"] * 3000], ["targets", *["x"] * 3000], []]
    return tuple(json.dumps(r).encode() for r in rows)
