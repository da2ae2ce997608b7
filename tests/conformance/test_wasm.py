"""Models for WebAssembly, built here and run in Node.js: the same proof as on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import native_harness as harness
import sparrow
from axpy import MODEL, axpy_library, axpy_weights, random_inputs
from data import missing
from emitted import STRICT, assert_equals_reference, linked
from small_graphs import GRAPHS
from small_models import accumulator, classifier
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.chromium import chromium_library, find_chromium
from sparrow.device.node import find_node, node_library
from sparrow.device.remote import RemoteLibrary
from sparrow.device.runners import find_runner
from sparrow.errors import BadBundle, BadInput
from sparrow.graph import Module
from sparrow.planner import plan
from sparrow.targets import Machine, target

TARGETS = (
    *("wasm32", "wasm32_simd", "wasm32_relaxed"),
    *(f"wasm32_{kind}" for kind in harness.DOTS),
)


@pytest.fixture(params=TARGETS)
def name(request: pytest.FixtureRequest) -> str:
    """A target whose modules Node.js runs."""
    harness.engine(str(request.param))
    return str(request.param)


def axpy(machine: Machine, *flags: str) -> RemoteLibrary:
    tools = find_toolchain()
    unit = Unit(MODEL.name, MODEL.read_text(encoding="utf-8"), (NATIVE,))
    objects = tools.compile_objects([unit], machine, ("-std=c99", *STRICT, *flags))
    return node_library(tools.link_shared(objects, machine))


def test_a_module_says_the_same_of_itself_and_keeps_state(name: str) -> None:
    x, b = random_inputs()
    library, here = axpy(target(name).machine, "-DSPARROW_HOOKS"), axpy_library("-DSPARROW_HOOKS")
    assert library.info == here.info
    session, host = library.open(axpy_weights(3.0)), here.open(axpy_weights(3.0))
    for _ in range(2):
        (y,), taps = session.tap(0, [x, b])
        (want,), host_taps = host.tap(0, [x, b])
        np.testing.assert_array_equal(y, want)
        assert taps == host_taps
    assert session.state()["calls"] == 2
    session.reset()
    assert session.state()["calls"] == 0
    times = session.profile(0, [x, b], 3)
    assert times.shape == (3, library.info.entries[0].n_steps) and (times >= 0).all()
    with pytest.raises(BadInput, match="1 inputs"):
        session.profile(0, [x])


@pytest.mark.parametrize("graph", GRAPHS)
def test_emitted_code_computes_what_the_reference_does(
    name: str, graph: str, tmp_path: Path
) -> None:
    g = GRAPHS[graph]()
    p = plan(Module("m", (g,)), target(name), threads=2)
    library = node_library(linked(p, tmp_path))
    assert_equals_reference(library, p, g)


def test_a_bundle_is_proved_runs_and_is_profiled(name: str, tmp_path: Path) -> None:
    bundle = sparrow.build(classifier(), name, tmp_path / "out")
    assert bundle.receipt.ok and "in Node.js" in bundle.receipt.verdict
    assert len(bundle.receipt.layers) == len(bundle.plan.entries[0].steps)
    again = sparrow.load_bundle(tmp_path / "out", device="node")
    assert again.device == "node" and again.verify("node").ok
    x = np.random.default_rng(0).standard_normal((1, 3, 12, 12), np.float32)
    there = again.run(x)["y"]
    np.testing.assert_allclose(there, sparrow.build(classifier()).run(x)["y"], atol=1e-5)
    assert len(again.profile(runs=3).steps) == len(bundle.plan.entries[0].steps)


def test_chromium_proves_and_times_the_same(tmp_path: Path) -> None:
    harness.node()
    try:
        find_chromium()
    except BadInput as e:
        missing(str(e))
    sparrow.build(classifier(), "wasm32_relaxed", tmp_path / "out")
    bundle = sparrow.load_bundle(tmp_path / "out", device="chromium")
    assert bundle.device == "chromium" and bundle.verify("chromium").ok
    assert len(bundle.profile(runs=3).steps) == len(bundle.plan.entries[0].steps)
    broken = tmp_path / "model.wasm"
    broken.write_bytes(b"no module")
    with pytest.raises(BadBundle, match=r"page that runs it ended: .*WebAssembly"):
        chromium_library(broken)


def test_integers_are_those_of_every_other_machine(name: str) -> None:
    samples = np.random.default_rng(1).standard_normal((8, 1, 3, 12, 12), np.float32)
    codes = sparrow.quantize(classifier(), list(samples))
    here, there = (sparrow.build(codes, t) for t in ("host", name))
    assert there.receipt.ok and there.receipt.precision == "int8"
    for x in samples:
        assert here.run(x)["y"].tobytes() == there.run(x)["y"].tobytes()


def test_states_persist(name: str) -> None:
    model = sparrow.build(accumulator(), name, states={"total": "total_out"})
    for k in (1, 2, 3):
        np.testing.assert_array_equal(model.run(np.ones(4, np.float32))["y"], np.full(4, 2 * k))


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    harness.node()
    path = tmp_path / "model.wasm"
    path.write_bytes(b"no module")
    with pytest.raises(BadBundle, match=r"ended: .*WebAssembly") as e:
        node_library(path)
    assert "\n" not in str(e.value)


def test_an_old_node_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v20.20.2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BadInput, match=r"v20\.20\.2, expected 24"):
        find_node()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="not installed"):
        find_node()


def test_devices_fit_their_targets() -> None:
    with pytest.raises(BadInput, match="runs no code for wasm32"):
        find_runner(target("wasm32_simd").machine, "qemu")
    with pytest.raises(BadInput, match="runs no code for aarch64"):
        find_runner(target("aarch64").machine, "node")


def test_scripts_are_modern_javascript() -> None:
    for path in (NATIVE / "web").glob("*.mjs"):
        command = [harness.node(), "--check", str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
