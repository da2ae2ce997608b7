"""Models on microcontrollers: linked, run and proved on boards that qemu emulates."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import sparrow
from data import data, missing
from emitted import STRICT, blob, write
from small_graphs import GRAPHS
from small_models import accumulator, classifier
from sparrow.compiler import Source, compile_sources
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.depth import deepest_stack
from sparrow.device.elf import ALLOCATED, EXECUTABLE, NO_BITS, WRITABLE, Elf
from sparrow.device.firmware import board_of, firmware_library, flash_bytes, link_alone
from sparrow.device.library import compile_library, compile_objects
from sparrow.device.qemu import emulated_cpu
from sparrow.device.remote import RemoteLibrary, RemoteSession
from sparrow.device.runners import find_runner
from sparrow.device.stack import read_frames, stack_bytes
from sparrow.emit.c import emit
from sparrow.errors import BadBundle, BadInput
from sparrow.graph import Module
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.targets import devices, target

CORES = ("cortex_m0", "cortex_m3", "cortex_m4f", "cortex_m7", "cortex_m33", "cortex_m55", "rv32imc")
# Linking the compiler's library takes seconds per core; the others run in the full suite.
FAST = ("cortex_m4f", "cortex_m55", "rv32imc")
INTEGERS = ("cortex_m0", "cortex_m3", "rv32imc")


@pytest.fixture(params=[c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CORES])
def core(request: pytest.FixtureRequest) -> str:
    """A microcontroller that can be emulated here."""
    need_emulator(str(request.param))
    return str(request.param)


def need_emulator(core: str = "cortex_m4f") -> None:
    name = "qemu-riscv32" if core == "rv32imc" else "qemu-system-arm"
    if shutil.which(name) is None:
        missing(f"{name} is not installed")


def feeds(name: str) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(5)
    g = GRAPHS[name]()
    return {n: rng.standard_normal(g.types[n].shape, np.float32) for n in g.inputs}


def test_emitted_code_computes_what_the_reference_does(core: str) -> None:
    g = GRAPHS["network"]()
    machine = target(core).machine
    p = plan(Module("m", (g,)), target(core))
    artifact = emit(p)
    archive = compile_library(artifact.files, machine, artifact.parts)
    library = find_runner(machine, "qemu").load(archive)
    assert isinstance(library, RemoteLibrary)
    given = feeds("network")
    session = library.open(blob(p))
    found = session.run(0, list(given.values()))
    want = evaluate(g, given)
    for n, y in zip(g.outputs, found, strict=True):
        np.testing.assert_allclose(y, want[n], rtol=2e-5, atol=2e-5, err_msg=n)
    bound = stack_bytes(compile_objects(artifact.files, machine, artifact.parts), machine)
    assert isinstance(session, RemoteSession) and bound is not None
    assert deepest_stack(library, machine, blob(p), 0, list(given.values())) == bound
    # what nothing writes at the end of a frame is no more than it is aligned by
    assert 0 <= bound - session.stack_bytes(0, list(given.values())) < 16


def entry_address(program: Elf, objects: Sequence[Path]) -> int:
    """Where `model_run` lies in a program, stripped or not: what precedes its first call is there.

    Args:
        program: A linked runner.
        objects: The model in it.
    """
    for code in (Elf(path.read_bytes()) for path in objects):
        for own in (s.section for s in code.symbols if s.name == "model_run" and s.section):
            length = min(at for section, at, *_ in code.relocated() if section == own)
            start = re.escape(code.sections[own].data[:length])
            (found,) = (
                s.address + m.start()
                for s in program.sections
                if s.flags & EXECUTABLE
                for m in re.finditer(start, s.data, re.DOTALL)
            )
            return found
    raise AssertionError("no object defines model_run")


# How qemu logs registers before an instruction: where that is, where to return to, and the stack.
TRACED = {
    "thumb": r"R13=(?P<sp>\w+) R14=(?P<ra>\w+) R15=(?P<pc>\w+)",
    "riscv32": r" pc +(?P<pc>\w+)\n.* x1/ra +(?P<ra>\w+) x2/sp +(?P<sp>\w+) ",
}


def test_the_stack_pointer_goes_to_the_proved_bound(core: str, tmp_path: Path) -> None:
    """Traced instruction by instruction; the canary, which sees accesses, shows the same."""
    c = compile_sources({"main": Source(data("models/tflm/hello_world_int8.tflite"))}, target(core))
    artifact, machine = emit(c.plan), target(core).machine
    objects = compile_objects(artifact.files, machine, artifact.parts)
    library = find_runner(machine, "qemu").load(
        compile_library(artifact.files, machine, artifact.parts)
    )
    assert isinstance(library, RemoteLibrary)
    log = tmp_path / "log"
    session = RemoteSession(
        *(library, blob(c.plan)),
        wire=library.connect(("-singlestep", "-d", "cpu,nochain", "-D", str(log))),
    )
    session.run(0, [np.full((1, 1), 3, np.int8)])
    session.close()
    start = entry_address(Elf(Path(library.command[-1]).read_bytes()), objects)
    steps = [
        tuple(int(m[register], 16) for register in ("pc", "ra", "sp"))
        for m in re.finditer(TRACED[machine.arch], log.read_text())
    ]
    begin = next(i for i, (pc, *_) in enumerate(steps) if pc == start)
    _, back, entered = steps[begin]
    call = list(itertools.takewhile(lambda step: step[0] != back & ~1, steps[begin:]))
    assert 300 < len(call) < len(steps) - begin
    bound = stack_bytes(objects, machine)
    assert entered - min(sp for *_, sp in call) == bound
    inputs = [np.full((1, 1), 3, np.int8)]
    assert deepest_stack(library, machine, blob(c.plan), 0, inputs) == bound


def test_inputs_that_lead_there_take_the_deepest_way_through_the_library(core: str) -> None:
    """The division of 64-bit integers needs more where quotients are large."""
    p = plan(Module("m", (GRAPHS["arithmetic"](),)), target(core))
    artifact, machine = emit(p), target(core).machine
    archive = compile_library(artifact.files, machine, artifact.parts)
    library = find_runner(machine, "qemu").load(archive)
    assert isinstance(library, RemoteLibrary)
    rng = np.random.default_rng(1)
    types = [p.module.entries[0].types[n] for n in p.module.entries[0].inputs]
    inputs = [
        rng.integers(-(2**62), 2**62, t.shape)
        if t.dtype.name == "int64"
        else rng.standard_normal(t.shape, np.float32)
        for t in types
    ]
    bound = stack_bytes(compile_objects(artifact.files, machine, artifact.parts), machine)
    assert deepest_stack(library, machine, blob(p), 0, inputs) == bound


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    (
        "mlperf_tiny/kws_dscnn_int8",
        "mlperf_tiny/ad01_int8",
        "tflm/mnist_lstm_int8",
        "tflm/person_detect_patched",
    ),
)
def test_fits_says_the_stack_that_a_run_takes(name: str, core: str) -> None:
    found = sparrow.fits(data(f"models/{name}.tflite"), core)
    assert found.stack_seen == found.stack_bytes and found.stack_seen


def test_a_bundle_is_proved_counted_and_runs(core: str, tmp_path: Path) -> None:
    bundle = sparrow.build(classifier(), core, tmp_path / "out")
    assert bundle.receipt.verdict.startswith("proved in the emulator")
    assert {p.name for p in (tmp_path / "out").iterdir()} > {"model.a", "weights.c", "model.h"}
    again = sparrow.load_bundle(tmp_path / "out")
    assert again.verify().ok
    x = np.random.default_rng(0).standard_normal((1, 3, 12, 12), np.float32)
    np.testing.assert_allclose(
        again.run(x)["y"], sparrow.build(classifier()).run(x)["y"], atol=1e-5
    )
    counted = again.instructions()
    assert [s.step for s in counted.steps] == [s.index for s in again.plan.entries[0].steps]
    assert counted.total == again.instructions().total > 10_000


def test_int8_is_exact_and_without_floats_where_there_is_no_fpu(core: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    samples = rng.standard_normal((16, 3, 12, 12)).astype(np.float32)
    bundle = sparrow.build(classifier(), core, tmp_path / "out", calib=samples, precision="int8")
    assert bundle.receipt.ok and bundle.receipt.precision == "int8"
    assert {s.kernel for s in bundle.plan.entries[0].steps} >= {"conv2d_i8"}
    integers_only = core in INTEGERS
    text = (tmp_path / "out" / "graph.txt").read_text()
    assert ("scheme tflite" in text) == integers_only
    codes = [c for c in bundle.receipt.layers if c.op in ("Conv", "MatMul")]
    assert codes and all(c.own == c.bound == 0 for c in codes[:-1])


def test_states_persist() -> None:
    need_emulator()
    model = sparrow.build(accumulator(), "cortex_m4f", states={"total": "total_out"})
    for k in (1, 2, 3):
        np.testing.assert_array_equal(model.run(np.ones(4, np.float32))["y"], np.full(4, 2 * k))


def test_flash_is_what_the_linked_image_holds(tmp_path: Path) -> None:
    bundle = sparrow.build(classifier(), "cortex_m4f", tmp_path / "out")
    machine = target("cortex_m4f").machine
    image = Elf(link_alone([tmp_path / "out" / "model.a"], machine).read_bytes())
    loaded = [s for s in image.sections if s.flags & ALLOCATED and s.kind != NO_BITS]
    weights = [s for s in loaded if s.name == ".weights"]
    memory = bundle.receipt.memory
    assert sum(s.size for s in weights) == memory.weights_bytes
    assert sum(s.size for s in loaded) == memory.code_bytes + memory.weights_bytes
    # no mutable globals: all memory is what the caller hands over
    assert not any(s.size for s in image.sections if s.flags & WRITABLE and s.flags & ALLOCATED)
    names = {s.name for s in image.symbols}
    assert {"model_run", "model_info", "model_reset", "model_weights"} <= names
    assert memory.code_bytes == flash_bytes(tmp_path / "out" / "model.a", machine)


def test_code_for_an_fpu_calls_nothing() -> None:
    p = plan(Module("m", (GRAPHS["network"](),)), target("cortex_m4f"))
    artifact = emit(p)
    frames = read_frames(compile_objects(artifact.files, p.target.machine, artifact.parts))
    assert frames is not None and not frames.outside


@pytest.mark.parametrize("core", CORES)
def test_the_runtime_compiles_without_warnings(core: str) -> None:
    name = "linked.c" if core == "rv32imc" else "firmware.c"
    unit = Unit.from_file(NATIVE / "runtime" / name)
    flags = ("-std=gnu99", "-fno-builtin", *STRICT[1:])
    assert find_toolchain().compile_objects([unit], target(core).machine, flags)


# gcc's options for cores whose vocabularies differ, and for a 32-bit x86.
GCC = {
    "cortex_m0": ("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m0"),
    "cortex_m4f": (
        *("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m4"),
        *("-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    ),
    "cortex_m55": (
        *("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m55"),
        *("-mfpu=auto", "-mfloat-abi=hard"),
    ),
    "rv32imc": ("gcc", "-m32", "-msse2", "-mfpmath=sse"),
}


@pytest.mark.parametrize(
    "core", [c if c == "cortex_m4f" else pytest.param(c, marks=pytest.mark.slow) for c in GCC]
)
@pytest.mark.parametrize("graph", [pytest.param("network", marks=pytest.mark.slow), "arithmetic"])
def test_gcc_compiles_the_sources_without_warnings(graph: str, core: str, tmp_path: Path) -> None:
    if shutil.which(GCC[core][0]) is None:
        missing(f"{GCC[core][0]} is not installed")
    write(emit(plan(Module("m", (GRAPHS[graph](),)), target(core))), tmp_path)
    strict = ("-std=gnu99", "-Os", "-ffreestanding", *STRICT[1:])
    for name in ("model.c", "weights.c"):
        command = [*GCC[core], *strict, "-c", str(tmp_path / name), "-o", str(tmp_path / "x.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_cortex_m_row_has_a_board() -> None:
    rows = devices("microcontroller").values()
    arms = [d.target for d in rows if d.target and d.target.machine.arch == "thumb"]
    assert len(arms) >= 7
    assert {board_of(t.machine).name for t in arms} == {
        "mps2-an385",
        "mps2-an386",
        "mps2-an500",
        "mps2-an505",
        "mps3-an547",
    }


def test_risc_v_runs_as_a_process_of_a_core_without_floats() -> None:
    """One that traps what RV32IMC lacks."""
    machine = target("rv32imc").machine
    assert emulated_cpu(machine) == "lowrisc-ibex"
    with pytest.raises(BadInput, match="no emulated board runs code for generic_rv32"):
        board_of(machine)


def test_what_cannot_be_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = target("cortex_m4f").machine
    with pytest.raises(BadInput, match="no emulated board moon"):
        find_runner(machine, "qemu:moon")
    need_emulator()
    bundle = sparrow.build(classifier(), "cortex_m4f", tmp_path / "out")
    # udf stands for any instruction beyond the core
    text = (tmp_path / "out" / "model.c").read_text()
    broken = text.replace("  sp_frame frame;\n", '  sp_frame frame;\n  __asm__("udf #0");\n', 1)
    files = {
        "model.c": broken.encode(),
        "sparrow.h": (tmp_path / "out" / "sparrow.h").read_bytes(),
        "weights.c": (tmp_path / "out" / "weights.c").read_bytes(),
    }
    library = firmware_library(compile_library(files, machine, bundle.plan.parts), machine)
    with pytest.raises(BadBundle, match="made a fault"):
        library.open(None).run(0, [np.zeros((1, 3, 12, 12), np.float32)])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="install qemu-system-arm"):
        find_runner(machine)


# Models whose recorded answers are LiteRT's, and how many of them are compared.
RECORDED = {
    "mlperf_tiny/kws_dscnn_int8": 4,
    "mlperf_tiny/vww_mobilenet025_96_int8": 2,
    "mlperf_tiny/resnet8_cifar10_int8": 2,
    "mlperf_tiny/ad01_int8": 4,
    "tflm/hello_world_int8": 16,
    "tflm/person_detect_patched": 2,
    "tflm/mnist_lstm_int8": 4,
    "tflite/mobilenet_v1_0.25_128_quant": 1,
    "mcunet/mcunet-320kb-1mb_imagenet": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("core", ("cortex_m4f", "cortex_m55", "rv32imc"))
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_answers_are_the_same_there(name: str, core: str) -> None:
    need_emulator(core)
    bundle = sparrow.build(data(f"models/{name}.tflite"), core)
    assert bundle.receipt.ok
    refs = np.load(data(f"refs/{name.replace('/', '__')}__tflite.npz"))
    for x, want in list(zip(refs["in0"], refs["out0"], strict=True))[: RECORDED[name]]:
        bundle.reset()
        (y,) = bundle.run(x).values()
        np.testing.assert_array_equal(y, want)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "core", "ram"),
    (
        ("mlperf_tiny/vww_mobilenet025_96_int8", "cortex_m55", 24_000),
        ("mcunet/mcunet-320kb-1mb_imagenet", "cortex_m7", 120_000),
    ),
)
def test_layers_in_strips_give_the_recorded_answers(name: str, core: str, ram: int) -> None:
    """Where whole layers take 38 kB and 204 kB."""
    need_emulator()
    bundle = sparrow.build(data(f"models/{name}.tflite"), core, budget=sparrow.Budget(ram=ram))
    assert bundle.receipt.ok
    assert bundle.session.library.info.workspace_bytes <= ram
    refs = np.load(data(f"refs/{name.replace('/', '__')}__tflite.npz"))
    for x, want in list(zip(refs["in0"], refs["out0"], strict=True))[: RECORDED[name]]:
        bundle.reset()
        (y,) = bundle.run(x).values()
        np.testing.assert_array_equal(y, want)


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
def test_a_keyword_spotter_is_exact_and_small(core: str) -> None:
    need_emulator(core)
    bundle = sparrow.build(data("models/mlperf_tiny/kws_dscnn_int8.tflite"), core)
    assert bundle.receipt.ok
    assert bundle.receipt.memory.code_bytes < (13_000 if core in INTEGERS else 10_000)
    refs = np.load(data("refs/mlperf_tiny__kws_dscnn_int8__tflite.npz"))
    for x, want in zip(refs["in0"][:4], refs["out0"][:4], strict=True):
        (y,) = bundle.run(x).values()
        np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("core", CORES)
def test_no_layer_falls_back_to_code_for_any_type(core: str) -> None:
    """It multiplies element by element: three times the instructions of a pointwise layer."""
    path = data("models/mlperf_tiny/kws_dscnn_int8.tflite")
    found = compile_sources({"main": Source(path)}, target(core))
    (entry,) = found.plan.entries
    kernels = {s.kernel for s in entry.steps}
    assert "conv2d_i8" in kernels
    assert not {k for k in kernels if k.endswith("_any")}
