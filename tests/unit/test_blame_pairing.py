"""Values of two graphs are the same by what they are, where names say something else."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import sparrow
from small_models import classifier, model, renamed, value
from sparrow.blame import blame_model, explain
from sparrow.blame.models import float_graph
from sparrow.importers.model import import_model
from sparrow.quant import Recipe

STEPS, UNITS = 5, 8


def unrolled() -> onnx.ModelProto:
    """A recurrent layer with one gate, step by step; ``h_2`` is the state after step 2."""
    rng = np.random.default_rng(5)
    weights = {
        f"{kind}{gate}": rng.standard_normal((n, UNITS), np.float32) / 2
        for kind, n in (("w", 6), ("u", UNITS))
        for gate in "zc"
    }
    constants = weights | {"h": np.full((1, UNITS), 0.1, np.float32)}
    nodes = [helper.make_node("Split", ["x"], [f"x_{t}" for t in range(STEPS)], axis=0)]
    for t, h in enumerate(["h", *(f"h_{t}" for t in range(STEPS - 1))]):
        for made, op, *operands in (
            ("a", "MatMul", f"x_{t}", "wz"),
            ("b", "MatMul", h, "uz"),
            ("s", "Add", f"a_{t}", f"b_{t}"),
            ("z", "Sigmoid", f"s_{t}"),
            ("r", "Mul", h, f"z_{t}"),
            ("d", "MatMul", f"x_{t}", "wc"),
            ("e", "MatMul", f"r_{t}", "uc"),
            ("k", "Add", f"d_{t}", f"e_{t}"),
            ("c", "Tanh", f"k_{t}"),
            ("o", "Sub", h, f"c_{t}"),
            ("p", "Mul", f"z_{t}", f"o_{t}"),
            ("h", "Add", f"c_{t}", f"p_{t}"),
        ):
            nodes.append(helper.make_node(op, operands, [f"{made}_{t}"]))
    nodes.append(helper.make_node("MatMul", [f"h_{STEPS - 1}", "uz"], ["y"]))
    shapes = [value("x", (STEPS, 6))], [value("y", (1, UNITS))]
    return model(nodes, *shapes, constants)


def numbered_anew(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, its steps 0 1 2 3 4 called 3 4 1 0 2."""
    done = onnx.ModelProto()
    done.CopyFrom(proto)

    def name(x: str) -> str:
        return re.sub(r"^([a-z])_(\d)", lambda m: f"{m[1]}_{'34102'[int(m[2])]}", x)

    for n in done.graph.node:
        n.input[:], n.output[:] = map(name, n.input), map(name, n.output)
    for t in done.graph.initializer:
        t.name = name(t.name)
    return done


def shrink(q: onnx.ModelProto, name: str, by: float) -> None:
    """Plant a fault: the steps of a value's codes, where there is one, are too small."""
    for n in q.graph.node:
        if f"{name}.q" in (*n.input, *n.output):
            (scale,) = (t for t in q.graph.initializer if t.name == n.input[1])
            small = numpy_helper.from_array(numpy_helper.to_array(scale) * by, f"small.{n.name}")
            q.graph.initializer.append(small)
            n.input[1] = small.name


@pytest.mark.parametrize("fault", ["", "h_1", "c_3", "z_0", "o_4"])
def test_steps_that_a_converter_numbers_anew_are_found_by_their_values(fault: str) -> None:
    """The graph cut open by those names would have been a circle."""
    proto, rng = unrolled(), np.random.default_rng(7)
    feeds = [{"x": rng.standard_normal((STEPS, 6), np.float32)} for _ in range(24)]
    q = sparrow.quantize(proto, feeds, Recipe(widen=False))
    shrink(q, fault, 0.4)
    f, graphs = float_graph(proto), (import_model(x).graph for x in (q, numbered_anew(q)))
    plain, anew = (explain(g, f, feeds, cure=False) for g in graphs)
    if fault:
        assert (plain.layers[0].name, anew.layers[0].name) == (fault, fault)
    own = {r.name: r.own_db for r in plain.layers}
    # step 0 of a constant state has fewer values: those of another that has its name are no layers
    assert all(r.own_db == pytest.approx(own[r.name], abs=4) for r in anew.layers)


@pytest.mark.parametrize("fault", ["", "b", "e", "f"])
def test_a_quantized_model_whose_names_are_all_new_is_blamed_alike(fault: str) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (12, 3, 12, 12)).astype(np.float32)
    q = sparrow.quantize(classifier(), x)
    shrink(q, fault, 0.5)
    plain, anew = (blame_model(m, classifier(), x) for m in (q, renamed(q)))
    if fault:
        # what lies too far behind it has no counterpart
        first = plain.layers[0], anew.layers[0]
        assert {(r.value, r.cause) for r in first} == {(fault, "saturation")}
    else:
        assert plain.layers == anew.layers and len(plain.layers) == 8
