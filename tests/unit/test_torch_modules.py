"""Models given as PyTorch modules."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparrow
from sparrow.errors import BadInput, BadModel
from sparrow.importers.model import import_model
from sparrow.importers.torch import export_module
from sparrow.reference import evaluate
from sparrow.sources import sources_and_samples
from sparrow.tensor import Array

torch: Any = import_module("torch")
nn: Any = torch.nn
Module: Any = nn.Module


def classifier() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 5)
    ).eval()


class Tagger(Module):  # type: ignore[misc]
    """Token ids and floats in, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6)
        self.scores = nn.Linear(6, 3)

    def forward(self, ids: Any, weights: Any) -> dict[str, Any]:
        x = self.table(ids) * weights
        return {"scores": self.scores(x), "mean": x.mean(1)}


class Choosing(Module):  # type: ignore[misc]
    """Which way it goes depends on the data."""

    def forward(self, x: Any) -> Any:
        return x + 1 if x.sum() > 0 else x.nonzero()


X = np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype(np.float32)


def same(module: Any, *given: Array) -> None:
    names = ["ids", "weights"] if len(given) > 1 else ["input"]
    examples = dict(zip(names, given, strict=True))
    g = import_model(export_module(module, examples)).graph
    want = module(*(torch.from_numpy(x) for x in given))
    got = evaluate(g, examples)
    each = want if isinstance(want, dict) else {"output": want}
    assert got.keys() == each.keys()
    for name, w in each.items():
        np.testing.assert_allclose(got[name], w.detach().numpy(), atol=1e-5)


def test_a_module_computes_what_it_did() -> None:
    same(classifier(), X[:1])
    rng = np.random.default_rng(0)
    ids, weights = rng.integers(0, 20, (2, 7)), rng.random((2, 7, 1)).astype(np.float32)
    same(Tagger(), ids, weights)


def test_a_module_becomes_a_bundle() -> None:
    module = classifier()
    bundle = sparrow.build(module, shapes={"input": (1, 3, 16, 16)})
    want = module(torch.from_numpy(X[:1])).detach().numpy()
    np.testing.assert_allclose(bundle.run(X[:1])["output"], want, atol=1e-5)
    assert bundle.verify().ok


def test_shapes_alone_mean_floats() -> None:
    assert sparrow.check(classifier(), shapes={"input": (1, 3, 16, 16)}).ok
    with pytest.raises(BadInput, match="forward takes input, got no shape"):
        sparrow.check(classifier())
    with pytest.raises(BadInput, match="does not take inputs of 2x7, 2x7x1"):
        sparrow.check(Tagger(), shapes={"ids": (2, 7), "weights": (2, 7, 1)})


def test_a_module_is_exported_for_inference_and_left_as_it_was() -> None:
    module = classifier()
    module.train()
    module[1].eval()
    before = module[1].running_mean.clone()
    proto = export_module(module, {"input": X[:1].astype(np.float64)})
    assert [m.training for m in module.modules()] == [True, True, False, True, True, True]
    assert torch.equal(module[1].running_mean, before)
    module.eval()
    (y,) = evaluate(import_model(proto).graph, {"input": X[:1]}).values()
    np.testing.assert_allclose(y, module(torch.from_numpy(X[:1])).detach().numpy(), atol=1e-5)


def one_by_one() -> Iterator[Array]:
    yield from X[:, None]


@pytest.mark.parametrize("form", ["stacked", "list", "iterator", "file", "dicts", "tuples"])
def test_samples_say_the_shape_and_are_not_consumed(form: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input=X)
    calib = {
        "stacked": X,
        "list": list(X[:, None]),
        "iterator": one_by_one(),
        "file": tmp_path / "x.npz",
        "dicts": [{"input": x} for x in X[:, None]],
        "tuples": [(x,) for x in X[:, None]],
    }[form]
    found, rest = sources_and_samples(classifier(), None, None, calib)
    g = import_model(found["main"].model).graph
    assert g.types["input"].shape == (1, 3, 16, 16)
    if form == "iterator":
        np.testing.assert_array_equal(np.concatenate(list(rest)), X)
    elif form != "file":
        assert sparrow.quantize(classifier(), calib).graph.node  # type: ignore[arg-type]


def test_entry_points_may_be_modules() -> None:
    ids, weights = np.zeros((1, 7), np.int64), np.ones((1, 7, 1), np.float32)
    calib = {"a": X, "b": [(ids, weights)]}
    found, rest = sources_and_samples({"a": classifier(), "b": Tagger()}, None, None, calib)
    graphs = {name: import_model(s.model).graph for name, s in found.items()}
    assert graphs["a"].inputs == ("input",) and graphs["b"].inputs == ("ids", "weights")
    assert set(rest) == {"a", "b"}


def test_what_torch_cannot_export_is_one_line() -> None:
    with pytest.raises(BadModel, match="torch cannot export Choosing") as e:
        sparrow.check(Choosing(), shapes={"x": (2, 3)})
    assert "\n" not in str(e.value)
