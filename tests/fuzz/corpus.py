"""Makes ``corpus/``: small valid files of every format that Sparrow reads.

``PYTHONPATH=tests python -m fuzz.corpus`` writes it again, after a change of a file format or of
the operators. An ONNX file per operator is the smallest node test of the onnx package that imports;
the operands that decide shapes are initializers. The rest is one bundle of a network with state.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image

from conformance import test_tflite_control as control
from conformance import test_tflite_mediapipe as mediapipe
from conformance.onnx_cases import Case, load_cases
from conformance.test_tflite_ops import CASES, file_of
from small_models import accumulator, classifier, embedding, model, strange, value
from sparrow.api import build
from sparrow.compiler import Source, compile_sources
from sparrow.errors import SparrowError
from sparrow.importers.onnx import import_onnx
from sparrow.passes import optimize
from sparrow.quant.recipe import Recipe, to_json
from sparrow.targets import target
from sparrow.tensor import F32, I8, Array
from sparrow.text import print_graph
from sparrow.tuning import Tuning
from sparrow.tuning import to_json as tuning_to_json
from tflite_files import O, T, constant, write

FOLDER = Path(__file__).resolve().parent / "corpus"
# Larger files than these teach a mutator nothing more.
LARGEST = 3000
EVIDENCE = ("graph.txt", "plan.json", "receipt.json", "golden.npz", "measurements.json")


def bound(case: Case) -> onnx.ModelProto:
    """The model of a node test with its shape-deciding inputs as initializers."""
    made = onnx.ModelProto()
    made.CopyFrom(case.model)
    for name in sorted(case.constants & set(case.inputs)):
        made.graph.initializer.append(numpy_helper.from_array(case.inputs[name], name))
    # the importer takes what is initialized as a constant, declared as input or not
    kept = [i for i in made.graph.input if i.name not in case.constants]
    del made.graph.input[:]
    made.graph.input.extend(kept)
    return made


def operators() -> dict[str, bytes]:
    """The smallest importable node test of each operator, by file name."""
    found: dict[str, bytes] = {}
    for case in load_cases():
        if case.foreign or not case.model.graph.node:
            continue
        data = bound(case).SerializeToString(deterministic=True)
        op = re.sub(r"\W", "_", case.model.graph.node[-1].op_type.lower())
        name = f"op_{op}.onnx"
        if len(data) > LARGEST or len(data) >= len(found.get(name, b"x" * (LARGEST + 1))):
            continue
        try:
            import_onnx(onnx.load_from_string(data))
        except SparrowError:
            continue
        found[name] = data
    return found


def _external() -> onnx.ModelProto:
    made = model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", (4,))],
        [value("y", (4,))],
        {"w": np.zeros(4, np.float32)},
    )
    t = made.graph.initializer[0]
    t.ClearField("raw_data")
    t.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", "weights.bin"), ("offset", "0"), ("length", "16")):
        t.external_data.add(key=key, value=text)
    return made


def _functions() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    inner = helper.make_function(
        "local", "Inner", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets
    )
    calls = [
        helper.make_node("Inner", ["a"], ["t"], domain="local"),
        helper.make_node("Inner", ["t"], ["b"], domain="local"),
    ]
    outer = helper.make_function("local", "Outer", ["a"], ["b"], calls, opsets)
    graph = helper.make_graph(
        [helper.make_node("Outer", ["x"], ["y"], domain="local")],
        "functions",
        [value("x", (2, 3))],
        [value("y", (2, 3))],
    )
    return helper.make_model(graph, functions=[inner, outer], opset_imports=opsets, ir_version=9)


def _control() -> onnx.ModelProto:
    """If in Loop in Scan, over captured values."""
    then = helper.make_graph(
        [helper.make_node("Relu", ["s"], ["p"])], "then", [], [value("p", (2,))]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["s"], ["q"])], "else", [], [value("q", (2,))]
    )
    body = helper.make_graph(
        [
            helper.make_node("Add", ["c", "w"], ["s"]),
            helper.make_node("If", ["go"], ["d"], then_branch=then, else_branch=other),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [value("i", (), onnx.TensorProto.INT64), value("go", (), onnx.TensorProto.BOOL),
         value("c", (2,))],
        [value("on", (), onnx.TensorProto.BOOL), value("d", (2,)), value("s", (2,))],
    )  # fmt: skip
    return model(
        [helper.make_node("Loop", ["n", "t", "x"], ["y", "z"], body=body)],
        [value("x", (2,))],
        [value("y", (2,)), value("z", (3, 2))],
        {
            "w": np.ones(2, np.float32),
            "n": np.array(3, np.int64),
            "t": np.array(True),
        },
    )


def _folding() -> onnx.ModelProto:
    """Shape arithmetic, and constants made of nothing."""
    ints: dict[str, Array] = {
        "zero": np.zeros(1, np.int64),
        "shape": np.array([2, 8], np.int64),
        "reps": np.array([2, 2], np.int64),
        "one": np.array(1, np.int64),
        "eight": np.array(8, np.int64),
    }
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
        helper.make_node("Tile", ["filled", "reps"], ["tiled"]),
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("Range", ["zero0", "eight", "one"], ["range"]),
        helper.make_node("Cast", ["range"], ["floats"], to=1),
        helper.make_node("Squeeze", ["zero"], ["zero0"]),
        helper.make_node("Add", ["wide", "floats"], ["a"]),
        helper.make_node("Shape", ["tiled"], ["extents"]),
        helper.make_node("Concat", ["zero", "extents"], ["both"], axis=0),
        helper.make_node("Slice", ["both", "one1", "three"], ["part"]),
        helper.make_node("ConstantOfShape", ["part"], ["again"]),
        helper.make_node("ReduceSum", ["again"], ["sum"], keepdims=0),
        helper.make_node("Add", ["a", "sum"], ["y"]),
    ]
    nodes.insert(0, nodes.pop(5))
    ints |= {"one1": np.ones(1, np.int64), "three": np.full(1, 3, np.int64)}
    return model(nodes, [value("x", (1, 8))], [value("y", (2, 8))], ints)


def _quantized() -> onnx.ModelProto:
    scale, zero = np.array(0.1, np.float32), np.array(3, np.uint8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
        helper.make_node("MatMul", ["d", "v"], ["y"]),
    ]
    w = np.arange(12, dtype=np.uint8).reshape(4, 3)
    return model(nodes, [value("x", (2, 4))], [value("y", (2, 3))], {"s": scale, "z": zero, "w": w})


def _models() -> dict[str, onnx.ModelProto]:
    dynamic = classifier(shape=("N", 3, 12, 12))
    small = classifier()
    return {
        "accumulator.onnx": accumulator(),
        "classifier.onnx": small,
        "control.onnx": _control(),
        "dynamic.onnx": dynamic,
        "embedding.onnx": embedding(),
        "external.onnx": _external(),
        "folding.onnx": _folding(),
        "functions.onnx": _functions(),
        "quantized.onnx": _quantized(),
        "strange.onnx": strange(),
    }


def _bundle(folder: Path) -> None:
    """The evidence of a bundle of two entry points, one with state."""
    with tempfile.TemporaryDirectory() as work:
        source = accumulator()
        out = Path(work) / "out"
        build({"step": source, "look": embedding()}, "x86_64", out, states={"total": "total_out"})
        folder.mkdir(parents=True)
        for name in (*EVIDENCE, "step.onnx", "look.onnx"):
            shutil.copyfile(out / name, folder / name)


def _graphs(folder: Path, models: Mapping[str, bytes]) -> None:
    """The shortest text of a graph, imported or optimised, that has an op of each kind."""
    found: dict[str, str] = {}
    for data in models.values():
        try:
            imported = import_onnx(onnx.load_from_string(data)).graph
        except SparrowError:
            continue
        for g in (imported, optimize(imported)):
            text, arrays = print_graph(g)
            for n in g.nodes if not arrays else ():
                op = type(n.op).__name__.lower()
                found[op] = min(found.get(op, text), text, key=len)
    folder.mkdir()
    for op, text in sorted(found.items()):
        (folder / f"{op}.txt").write_text(text, encoding="utf-8")


# feeds, shapes of the outputs, options, version, constants
_Custom = tuple[Mapping[str, Array], Sequence[tuple[int, ...]], bytes, int, Mapping[str, Array]]


def _rare() -> dict[str, bytes]:
    """Branches, variables, sparse constants, and custom operators."""
    dense = np.zeros((3, 8), np.float32)
    dense[::2, 2:5] = 1.5
    data, sparsity = control.blocks(dense)
    sparse = write(
        [
            T("x", (2, 8), F32),
            T("sparse", (3, 8), F32, data, sparsity=sparsity),
            T("w", (3, 8), F32),
            T("y", (2, 3), F32),
        ],
        [
            O("DENSIFY", ["sparse"], ["w"]),
            O("FULLY_CONNECTED", ["x", "w", ""], ["y"], {"activation": 0}),
        ],
        ["x"],
        ["y"],
    )
    x, matrix = np.ones((1, 4, 4, 2), np.float32), np.ones((1, 4, 4), np.float32)
    points, half = np.ones((1, 5, 3), np.float32), np.ones((1, 2, 2, 2), np.float32)
    weights = {"w": np.ones((2, 2, 2, 2), np.float32), "b": np.ones(2, np.float32)}
    turn = mediapipe.flex(
        left_rotation_idx=0,
        right_rotation_idx=1,
        output_width=8,
        output_height=8,
        scale_x=1.5,
        scale_y=1.5,
        subset_idxs=[0, 2, 3],
        target_rotation_radians=0.5,
    )
    size = mediapipe.flex(output_height=3, output_width=5)
    one, two = struct.pack("<3i", 1, 2, 2), struct.pack("<6i", 1, 2, 2, 2, 2, 0)
    customs: dict[str, _Custom] = {
        "Convolution2DTransposeBias": ({"x": x}, [(1, 8, 8, 2)], one, 1, weights),
        "Landmarks2TransformMatrix": ({"x": points}, [(1, 4, 4)], turn, 2, {}),
        "MaxPoolingWithArgmax2D": ({"x": x}, [half.shape] * 2, two, 1, {}),
        "MaxUnpooling2D": ({"x": half, "at": half}, [x.shape], two, 1, {}),
        "TransformLandmarks": ({"x": points, "m": matrix}, [points.shape], b"", 2, {}),
        "TransformTensorBilinear": ({"x": x, "m": matrix}, [(1, 3, 5, 2)], size, 2, {}),
    }
    return {
        "if.tflite": control.branching(False),
        "variable.tflite": control.window(np.ones((1, 3, 1, 4), np.int8)),
        "sparse.tflite": sparse,
        **{f"{k.lower()}.tflite": mediapipe.custom(k, *v) for k, v in customs.items()},
    }


def _tflite() -> dict[str, bytes]:
    """Tables of every kind: codes with scales per channel, shape operands, a state."""
    weights = np.arange(24, dtype=np.int8).reshape(3, 2, 2, 2)
    conv = {"padding": 0, "stride_w": 1, "stride_h": 1, "dilation_w": 1, "dilation_h": 1}
    network = write(
        [
            T("x", (1, 4, 4, 2), I8, scale=[0.05], zero=[3], signature=(-1, 4, 4, 2)),
            constant("w", weights, scale=[0.01, 0.02, 0.03], zero=[0, 0, 0], axis=0),
            constant("b", np.array([1, 2, 3], np.int32), scale=[0.0005, 0.001, 0.0015]),
            T("c", (1, 4, 4, 3), I8, scale=[0.1], zero=[-5]),
            T("y", (1, 4, 4, 3), I8, scale=[1 / 256], zero=[-128]),
        ],
        [O("CONV_2D", ["x", "w", "b"], ["c"], conv), O("SOFTMAX", ["c"], ["y"], {"beta": 1.0})],
        ["x"],
        ["y"],
    )
    shapes = write(
        [
            T("x", (2, 4), F32),
            constant("s", np.array([1, 8], np.int32)),
            constant("v", np.array(0.5, np.float32)),
            T("f", (1, 8), F32),
            T("r", (1, 8), F32),
            T("y", (1, 8), F32),
        ],
        [
            O("FILL", ["s", "v"], ["f"]),
            O("RESHAPE", ["x", "s"], ["r"]),
            O("ADD", ["r", "f"], ["y"], {"activation": 0}),
        ],
        ["x"],
        ["y"],
    )
    found = {"network.tflite": network, "shapes.tflite": shapes, **_rare()}
    # the smallest file of each operator, as numbers and as codes
    for case in CASES:
        for kind, steps in (("f32", None), ("i8", case.steps)):
            if kind == "i8" and steps is None:
                continue
            data, _ = file_of(case, steps)
            name = f"op_{case.op.lower()}_{kind}.tflite"
            if len(data) <= min(LARGEST, len(found.get(name, b"x" * LARGEST))):
                found[name] = data
    return found


def _samples(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3, 4, 4), np.float32)
    folder.mkdir(parents=True)
    np.save(folder / "plain.npy", x)
    np.save(folder / "fortran.npy", np.asfortranarray(x[0, 0]))
    np.save(folder / "text.npy", np.array(["a", "b"]))
    np.savez(folder / "two.npz", x=x, y=np.arange(4))
    np.savez_compressed(folder / "packed.npz", x=x)
    pixels = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8))
    for suffix in ("png", "bmp", "gif", "jpg", "ppm", "webp"):
        pixels.save(folder / f"pixels.{suffix}")


def _recipes(folder: Path) -> None:
    """The defaults, and every field at another value."""
    other = Recipe(
        ranges="minmax", weights="per_tensor", rounding="adaround", symmetric=True,
        bias_correction=False, equalize=True, smooth=0.5, scheme="fixed31", precision="float32",
        pins=(("head*", "float32"), ("Conv", "int8")),
    )  # fmt: skip
    folder.mkdir()
    for name, recipe in (("defaults", Recipe()), ("other", other)):
        (folder / f"{name}.json").write_bytes(to_json(recipe))


def _tunings(folder: Path) -> None:
    """Times of every tile of a small network's layers, and none."""
    done = compile_sources(
        {"main": Source(FOLDER / "onnx" / "classifier.onnx")}, target("x86_64_v3")
    )
    options = [o for s in done.plan.entries[0].steps for o in s.options]
    times = {o.work: {t: 100.0 + i for i, t in enumerate(o.tiles[:6])} for o in options}
    none = Tuning("a processor", "avx2", "0" * 16, figures={"fork_ns": 700.0})
    folder.mkdir()
    (folder / "none.json").write_bytes(tuning_to_json(none))
    (folder / "some.json").write_bytes(tuning_to_json(replace(none, times=times)))


# One of each kind that compiles, and one with rules only.
ROWS = ("cpu/x86_64_v3", "phone/sd855", "microcontroller/nano33ble", "browser/wasm32",
        "accelerator/edge_tpu")  # fmt: skip


def _rows(folder: Path) -> None:
    """Target rows, under the names of their kinds."""
    folder.mkdir()
    for name in ROWS:
        text = (resources.files("sparrow") / "targets" / f"{name}.toml").read_text("utf-8")
        (folder / f"{name.split('/')[0]}.toml").write_text(text, "utf-8")


_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("check", "none.onnx"),
    ("check", "x.onnx", "--shape", "input=1x3x240x320", "--json"),
    ("build", "a.onnx", "-o", "out", "--target", "host", "--threads", "2"),
    ("build", "a.onnx", "-o", "out", "--drop", "1%", "--latency", "20ms", "--size", "15MB"),
    ("build", "p=a.onnx", "s=b.onnx", "-o", "out", "--state", "in=out", "--ram", "64kB"),
    ("build", "a.onnx", "-o", "out", "--calib", "c.npz", "--evaluate", "f.py:g"),
    ("bench", "a.onnx", "--against", "onnxruntime", "--rounds", "5", "--source", "a.onnx"),
    ("run", "bundle", "x=a.npy", "--entry", "main", "-o", "y.npz"),
    ("verify", "bundle", "--json"),
    ("profile", "bundle", "--runs", "3", "--entry", "e"),
    ("report", "bundle", "-o", "r.html"),
    ("targets", "show", "x86_64"),
    ("targets", "--json"),
    ("--help",),
    ("build", "--help"),
    (
        "plan",
        "a.onnx",
        "--calib",
        "c.npz",
        "--drop",
        "1%",
        "--pin",
        "conv*=int16x8",
        "-o",
        "p.json",
    ),
    ("fits", "a.onnx", "--target", "nano33ble", "--flash", "512kB", "--ram", "64kB"),
    ("quantize", "a.onnx", "-o", "q.onnx", "--calib", "c.npz", "--recipe", "recipe.json"),
    ("blame", "bundle", "--calib", "c.npz"),
    ("diff", "a.onnx", "b.onnx", "--json"),
    ("package", "bundle", "--as", "cmake", "-o", "tree"),
    ("check", "a.onnx", "--target", "row.toml"),
    ("tuning", "tuning.json", "--json"),
)


def main() -> None:
    """Write the corpus anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    onnx_files = operators() | {
        k: m.SerializeToString(deterministic=True) for k, m in _models().items()
    }
    (FOLDER / "onnx").mkdir(parents=True)
    for name, data in sorted(onnx_files.items()):
        (FOLDER / "onnx" / name).write_bytes(data)
    (FOLDER / "tflite").mkdir()
    for name, data in sorted(_tflite().items()):
        (FOLDER / "tflite" / name).write_bytes(data)
    _bundle(FOLDER / "bundle")
    _samples(FOLDER / "samples")
    _recipes(FOLDER / "recipes")
    _rows(FOLDER / "rows")
    _tunings(FOLDER / "tunings")
    (FOLDER / "commands").mkdir()
    for i, words in enumerate(_COMMANDS):
        (FOLDER / "commands" / f"{i:02}.json").write_text(json.dumps(words) + "\n")
    _graphs(FOLDER / "graphs", onnx_files)
    sizes = [p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()]
    print(f"{len(sizes)} files, {sum(sizes)} bytes")


if __name__ == "__main__":
    main()
