"""Models for other CPUs, built here and run in an emulator: the same proof as on this machine."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import native_harness as harness
import sparrow
from axpy import MODEL, axpy_library, axpy_weights, random_inputs
from data import data, missing
from emitted import STRICT, assert_equals_reference, blob, linked
from small_graphs import GRAPHS
from small_models import accumulator, classifier
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.elf import code_bytes
from sparrow.device.library import compile_library
from sparrow.device.qemu import emulated_cpu, emulated_library
from sparrow.device.remote import RemoteLibrary
from sparrow.device.runners import find_runner
from sparrow.emit.c import emit
from sparrow.errors import BadBundle, BadInput
from sparrow.graph import Module
from sparrow.planner import plan
from sparrow.targets import Machine, target

TARGETS = ("aarch64", "armv7", "riscv64", "x86")
# The network once more on each vector vocabulary that these do not use.
VECTORS = ("aarch64_dotprod", "aarch64_i8mm", "armv7_vfpv4", "riscv64_v")


@pytest.fixture(params=TARGETS)
def name(request: pytest.FixtureRequest) -> str:
    """A target that can be emulated here."""
    harness.emulator(target(str(request.param)).machine)
    return str(request.param)


def axpy(machine: Machine, *flags: str) -> RemoteLibrary:
    tools = find_toolchain()
    unit = Unit(MODEL.name, MODEL.read_text(encoding="utf-8"), (NATIVE,))
    objects = tools.compile_objects([unit], machine, ("-std=c99", *STRICT, *flags))
    return emulated_library(tools.link_shared(objects, machine), machine)


def test_the_runner_compiles_without_warnings(name: str, tmp_path: Path) -> None:
    tools, machine = find_toolchain(), target(name).machine
    flags = ("-std=gnu99", "-fno-builtin", *STRICT[1:])
    assert tools.compile_objects([Unit.from_file(NATIVE / "runtime" / "runner.c")], machine, flags)


def test_a_library_says_the_same_of_itself_everywhere(name: str) -> None:
    flags = "-DSPARROW_HOOKS"
    assert axpy(target(name).machine, flags).info == axpy_library(flags).info


def test_runs_taps_and_keeps_state_until_reset(name: str) -> None:
    x, b = random_inputs()
    library = axpy(target(name).machine, "-DSPARROW_HOOKS")
    session = library.open(axpy_weights(3.0))
    host = axpy_library("-DSPARROW_HOOKS").open(axpy_weights(3.0))
    for _ in range(3):
        (y,), taps = session.tap(0, [x, b])
        (want,), host_taps = host.tap(0, [x, b])
        np.testing.assert_array_equal(y, want)
        assert taps == host_taps
    assert session.state()["calls"] == 3
    session.reset()
    assert session.state()["calls"] == 0


def test_wrong_arguments_are_refused_as_in_this_process(name: str) -> None:
    x, b = random_inputs()
    session = axpy(target(name).machine).open(axpy_weights(3.0))
    for entry, inputs in ((7, [x, b]), (0, [x]), (0, [x[:3], b]), (0, [x.astype(int), b])):
        with pytest.raises(BadInput) as there:
            session.run(entry, inputs)
        with pytest.raises(BadInput) as here:
            axpy_library().open(axpy_weights(3.0)).run(entry, inputs)
        assert str(there.value) == str(here.value)
    with pytest.raises(BadInput, match="weights"):
        axpy(target(name).machine).open(None)
    with pytest.raises(BadInput, match="hooks"):
        session.tap(0, [x, b])
    session.run(0, [x, b])


@pytest.mark.parametrize(
    ("name", "graph"), [*itertools.product(TARGETS, GRAPHS), *((v, "network") for v in VECTORS)]
)
def test_emitted_code_computes_what_the_reference_does(
    name: str, graph: str, tmp_path: Path
) -> None:
    harness.emulator(target(name).machine)
    g = GRAPHS[graph]()
    p = plan(Module("m", (g,)), target(name), threads=2)
    library = emulated_library(linked(p, tmp_path), target(name).machine)
    assert_equals_reference(library, p, g)


# Debian's cross compilers.
GCC = {
    "aarch64_dotprod": "aarch64-linux-gnu-gcc",
    "aarch64_i8mm": "aarch64-linux-gnu-gcc",
    "armv7": "arm-linux-gnueabihf-gcc",
    "x86": "i686-linux-gnu-gcc",
    "riscv64": "riscv64-linux-gnu-gcc",
    "riscv64_v": "riscv64-linux-gnu-gcc",
}


@pytest.mark.parametrize("name", GCC)
def test_gcc_computes_the_same_without_a_warning(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(GCC[name]) is None:
        missing(f"{GCC[name]} is not installed")
    machine = target(name).machine
    harness.emulator(machine)
    g = GRAPHS["network"]()
    p = plan(Module("m", (g,)), target(name), threads=2)
    monkeypatch.setenv("SPARROW_CC", GCC[name])
    assert_equals_reference(emulated_library(linked(p, tmp_path), machine), p, g)


@pytest.mark.parametrize(("calls", "adds"), [(5, 2.0), (0, None)])
def test_gcc_divides_integers_on_armv7(
    calls: int, adds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # this core does not: libgcc does, and raises a signal for a division by zero
    if shutil.which(GCC["armv7"]) is None:
        missing(f"{GCC['armv7']} is not installed")
    machine = target("armv7").machine
    harness.emulator(machine)
    monkeypatch.setenv("SPARROW_CC", GCC["armv7"])
    text = MODEL.read_text(encoding="utf-8")
    divides = text.replace("(float)*calls", f"(float)(12 / (*calls + {calls}))")
    assert divides != text
    tools, unit = find_toolchain(), Unit(MODEL.name, divides, (NATIVE,))
    objects = tools.compile_objects([unit], machine, ("-std=c99", *STRICT))
    session = emulated_library(tools.link_shared(objects, machine), machine).open(axpy_weights(0.0))
    x, b = random_inputs()
    if adds is None:
        with pytest.raises(BadBundle, match="an integer was divided by zero"):
            session.run(0, [x, b])
    else:
        (y,) = session.run(0, [x, b])
        assert y[0] == b[0] + np.float32(adds)


def test_a_bundle_is_proved_and_runs(name: str, tmp_path: Path) -> None:
    bundle = sparrow.build(classifier(), name, tmp_path / "out")
    assert bundle.receipt.ok and "emulator" in bundle.receipt.verdict
    assert len(bundle.receipt.layers) == len(bundle.plan.entries[0].steps)
    assert json.loads((tmp_path / "out" / "measurements.json").read_bytes()).keys() == {
        "schema_version"
    }
    again = sparrow.load_bundle(tmp_path / "out")
    proof = again.verify()
    assert proof.ok and len(proof.layers) == len(bundle.receipt.layers)
    x = np.random.default_rng(0).standard_normal((1, 3, 12, 12), np.float32)
    there = again.run(x)["y"]
    np.testing.assert_allclose(there, sparrow.build(classifier()).run(x)["y"], atol=1e-5)
    with pytest.raises(BadInput, match="emulator"):
        again.profile()


def test_states_persist(name: str) -> None:
    model = sparrow.build(accumulator(), name, states={"total": "total_out"})
    for k in (1, 2, 3):
        np.testing.assert_array_equal(model.run(np.ones(4, np.float32))["y"], np.full(4, 2 * k))


@pytest.mark.parametrize("cpu", ["rpi4", "sd855", "riscv64_v", "pynq_z1", "aarch64_i8mm"])
def test_boards_and_phones_are_proved_on_their_own_cpu(cpu: str) -> None:
    harness.emulator(target(cpu).machine)
    assert sparrow.build(accumulator(), cpu, states={"total": "total_out"}).receipt.ok


def test_the_emulated_cpu_has_no_more_than_the_target() -> None:
    names = {cpu: emulated_cpu(target(cpu).machine) for cpu in ("aarch64", "rpi4", "riscv64")}
    assert names == {"aarch64": "cortex-a53", "rpi4": "cortex-a72", "riscv64": "rv64"}
    assert emulated_cpu(target("aarch64_dotprod").machine) == "cortex-a76"
    assert "v=true" in emulated_cpu(target("riscv64_v").machine)


def test_risc_v_vectors_give_the_same_bits_at_every_length(tmp_path: Path) -> None:
    machine = target("riscv64_v").machine
    harness.emulator(machine)
    p = plan(Module("m", (GRAPHS["network"](),)), target("riscv64_v"))
    artifact = emit(p)
    # whole, for any length; and for several of which each processor runs what fits it
    paths = linked(p, tmp_path), compile_library(artifact.files, machine, artifact.parts)
    x = np.random.default_rng(6).standard_normal((1, 3, 21, 18), np.float32)
    found = set()
    for path, bits in itertools.product(paths, (128, 256, 512, 1024)):
        runner = find_runner(machine, f"qemu:rv64,v=true,vext_spec=v1.0,vlen={bits}")
        outputs = runner.load(path).open(blob(p)).run(0, [x])
        found.add(b"".join(y.tobytes() for y in outputs))
    assert len(found) == 1
    assert code_bytes(paths[1]) > 2 * code_bytes(paths[0])


def test_a_program_that_dies_is_one_line(tmp_path: Path) -> None:
    machine = target("aarch64").machine
    harness.emulator(machine)
    junk = tmp_path / "model.so"
    junk.write_bytes(b"no library")
    with pytest.raises(BadBundle, match="not an ELF library"):
        emulated_library(junk, machine)
    # udf 0 stands for any instruction beyond the target
    text = MODEL.read_text(encoding="utf-8").replace(
        "model_run(const sparrow_call *call) {",
        'model_run(const sparrow_call *call) {\n  __asm__ volatile("udf #0");',
    )
    tools = find_toolchain()
    objects = tools.compile_objects([Unit("dies.c", text, (NATIVE,))], machine)
    path = tools.link_shared(objects, machine)
    with pytest.raises(BadBundle, match="unable to find CPU model"):
        emulated_library(path, machine, "no-such-cpu")
    session = emulated_library(path, machine).open(axpy_weights(1))
    with pytest.raises(BadBundle, match=r"ended: .*[Ii]llegal instruction|ended: .*signal 4"):
        session.run(0, list(random_inputs()))


def test_another_abi_version_is_refused() -> None:
    machine = target("aarch64").machine
    harness.emulator(machine)
    text = MODEL.read_text(encoding="utf-8").replace("= SPARROW_ABI_VERSION", "= 99")
    tools = find_toolchain()
    objects = tools.compile_objects([Unit("axpy99.c", text, (NATIVE,))], machine)
    with pytest.raises(BadBundle, match="ABI version"):
        emulated_library(tools.link_shared(objects, machine), machine)


def test_devices_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = target("aarch64").machine
    for name in ("moon", "host:max", "qemu:"):
        with pytest.raises(BadInput, match="unknown"):
            find_runner(machine, name)
    with pytest.raises(BadInput, match="target is aarch64"):
        find_runner(machine, "host")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="install qemu-user"):
        find_runner(machine)


def test_without_an_emulator_a_bundle_is_built_and_not_proved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    bundle = sparrow.build(classifier(), "riscv64", tmp_path / "out")
    assert bundle.receipt.verdict.startswith("built, not proved: this machine is")
    with pytest.raises(BadInput, match="install qemu-user"):
        bundle.run(np.zeros((1, 3, 12, 12), np.float32))
    with pytest.raises(BadInput, match="install qemu-user"):
        bundle.verify()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", TARGETS)
def test_a_face_detector_is_proved(cpu: str) -> None:
    harness.emulator(target(cpu).machine)
    path = data("face/models/version-slim-320.onnx")
    bundle = sparrow.build(path, cpu)
    assert bundle.receipt.ok and len(bundle.receipt.layers) > 40
