"""The fixed names of the Python interface."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time

import onnx.parser
import pytest

import sparrow
from small_models import classifier, embedding
from sparrow.errors import BadInput, SparrowError
from sparrow.sources import sources_of


def test_names_and_parameters_are_fixed() -> None:
    names = list(inspect.signature(sparrow.build).parameters)[:9]
    assert names == [
        *("model", "target", "out", "shapes", "calib", "evaluate", "precision", "threads"),
        "budget",
    ]
    assert list(inspect.signature(sparrow.check).parameters)[:2] == ["model", "target"]
    assert {"run", "verify", "profile", "receipt"} <= set(dir(sparrow.Bundle))
    assert set(sparrow.__all__) <= set(dir(sparrow)) | set(sparrow._LAZY)


def test_functions_are_not_hidden_by_modules() -> None:
    import sparrow.checker

    assert callable(sparrow.check) and callable(sparrow.build)
    assert sparrow.checker.Check is sparrow.Check


def test_import_is_light() -> None:
    code = (
        "import sys, sparrow; heavy = {'onnx', 'scipy', 'torch', 'numpy', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    # the interpreter's own start is in it
    assert time.perf_counter() - start < 2


def test_build_never_imports_torch() -> None:
    code = "import sys, sparrow.api, sparrow.assemble, sparrow.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_shapes_go_to_the_entry_points_that_have_the_input() -> None:
    found = sources_of({"a": classifier(), "b": embedding()}, {"x": (1, 3, 12, 12), "ids": (5,)})
    assert found["a"].shapes == {"x": (1, 3, 12, 12)} and found["b"].shapes == {"ids": (5,)}
    with pytest.raises(BadInput, match="no input of any entry point"):
        sources_of({"a": classifier()}, {"z": (1,)})
    with pytest.raises(BadInput, match="no model"):
        sources_of({})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "toaster"}, "target 'toaster' is unknown"),
        ({"precision": "int3"}, "precision 'int3'"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"model": 3}, "got int"),
        ({"calib": 3}, "samples are an iterable"),
        ({"calib": [(1, 2)]}, "a sample has 2 arrays"),
        ({"calib": [], "precision": "float32"}, "hold no sample"),
        ({"budget": 5}, "budget is a sparrow.Budget, got int"),
        ({"evaluate": lambda _: "good"}, "evaluate returned 'good', expected a number"),
        ({"states": {"x": "nope"}}, "'nope' is no output"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message) as e:
        sparrow.build(**{"model": classifier(), **arguments})  # type: ignore[arg-type]
    assert "\n" not in str(e.value)


def test_a_cache_that_grows_is_no_state() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 4] x, float[3, 4] past) => (float[4, 4] y) {
            y = Concat <axis = 0> (past, x)
        }"""
    with pytest.raises(SparrowError, match=r"past: read as .*3x4.*, stored as .*4x4.*drop what is"):
        sparrow.check(onnx.parser.parse_model(text), states={"past": "y"})
