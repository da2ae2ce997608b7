"""What `sparrow fits` says is what the linked image and a run in the emulator show, to the byte."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import sparrow
from data import REPO, data, missing
from small_models import classifier, model, value
from sparrow import api
from sparrow.cli import main
from sparrow.compiler import Compiled, Front, compile_front
from sparrow.device.elf import ALLOCATED, NO_BITS, Elf
from sparrow.device.firmware import link_alone
from sparrow.device.remote import RemoteSession
from sparrow.errors import BadInput, GateFailed
from sparrow.samples import Pixels
from sparrow.targets import Target, target

CORE = "cortex_m4f"
DIGITS = REPO / "examples" / "digits" / "digits.onnx"


@pytest.fixture(scope="module", autouse=True)
def _emulator() -> None:
    if shutil.which("qemu-system-arm") is None:
        missing("qemu-system-arm is not installed")


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((1, 3, 12, 12)).astype(np.float32) for _ in range(8)]


def test_it_is_what_the_image_and_the_emulator_show(samples: list[object], tmp_path: Path) -> None:
    found = sparrow.fits(classifier(), CORE, calib=samples, precision="int8")
    bundle = sparrow.build(classifier(), CORE, tmp_path / "out", calib=samples, precision="int8")
    sections = Elf(
        link_alone([tmp_path / "out" / "model.a"], target(CORE).machine).read_bytes()
    ).sections
    loaded = [s for s in sections if s.flags & ALLOCATED and s.kind != NO_BITS]
    assert found.flash_bytes == sum(s.size for s in loaded)
    info = bundle.session.library.info
    assert (found.arena_bytes, found.state_bytes) == (info.workspace_bytes, info.state_bytes)
    (entry,) = info.entries
    assert found.io_bytes == sum(t.bytes for t in (*entry.inputs, *entry.outputs))
    assert found.stack_seen == found.stack_bytes
    assert "(a run in the emulator took as much)" in str(found)
    # paint shows what was written, not the padding that a frame may end in
    assert isinstance(bundle.session, RemoteSession)
    painted = bundle.session.stack_bytes(0, [np.asarray(samples[0])])
    assert found.stack_bytes is not None and 0 <= found.stack_bytes - painted < 8
    assert [x.op for x in found.layers] == [s.op for s in bundle.plan.entries[0].steps]
    assert max(x.live_bytes for x in found.layers) == found.layers[found.peaks[0]].live_bytes
    assert sum(x.code_bytes for x in found.layers) <= found.code_bytes
    assert found.arena_bytes <= 1.05 * found.live_bytes
    assert "instructions counted in the emulator" in found.time_source and found.time_ns > 0


def test_the_stack_is_that_of_a_task_that_calls_what_layers_share() -> None:
    """Layers that share a function, called in a task below what splits the work (144 bytes)."""
    found = sparrow.fits(DIGITS, "cortex_m4f")
    assert found.stack_seen == found.stack_bytes and found.stack_seen


def test_too_little_ram_is_met_in_strips_of_rows(samples: list[object]) -> None:
    whole = sparrow.fits(classifier(), CORE, calib=samples, precision="int8")
    less = sparrow.fits(
        classifier(), CORE, calib=samples, precision="int8", ram=whole.ram_bytes - 100
    )
    assert less.ok and not whole.strips
    assert f"arena {whole.arena_bytes:,} -> {less.arena_bytes:,} bytes; 7 -> " in less.strips
    assert "instructions" in less.strips and f"strips: {less.strips}" in str(less)
    budget = sparrow.Budget(ram=whole.arena_bytes - 100)
    memory = sparrow.build(
        classifier(), CORE, calib=samples, precision="int8", budget=budget
    ).receipt.memory
    assert (memory.arena_bytes, memory.stack_bytes) == (less.arena_bytes, less.stack_bytes)
    assert (memory.code_bytes, memory.weights_bytes) == (less.code_bytes, less.weights_bytes)
    assert less.weights_bytes == whole.weights_bytes


def test_the_least_ram_and_what_needs_it_is_one_line(samples: list[object]) -> None:
    less = sparrow.fits(classifier(), CORE, calib=samples, precision="int8", ram=2500)
    assert not less.ok and "which is the least" in less.strips
    with pytest.raises(GateFailed, match=r"budget ram: expected at most 300 bytes, found \d+") as e:
        budget = sparrow.Budget(ram=300)
        sparrow.build(classifier(), CORE, calib=samples, precision="int8", budget=budget)
    assert "bytes of arena are not enough for step" in e.value.hint


def test_no_strips_are_searched_where_flash_is_short(
    samples: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[int | None] = []
    compiled = compile_front

    def counted(found: Front, row: Target, *, ram: int | None = None) -> Compiled:
        plans.append(ram)
        return compiled(found, row, ram=ram)

    monkeypatch.setattr(api, "compile_front", counted)
    found = sparrow.fits(classifier(), CORE, calib=samples, precision="int8", ram=2500, flash=1000)
    assert plans == [None] and found.strips.startswith("not searched")
    assert [r.split(":")[0] for r in found.reasons] == ["flash", "RAM"]


@pytest.mark.parametrize(
    ("shape", "weights", "section", "needed", "there"),
    [
        ((1, 4), (4, 220_000), "weights", 3_520_000, 3_145_728),
        ((1, 4_200_000), None, "RAM", 16_800_000, 16_700_000),
    ],
)
def test_what_no_emulated_board_holds_has_its_sizes_and_one_line(
    shape: tuple[int, ...],
    weights: tuple[int, ...] | None,
    section: str,
    needed: int,
    there: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    w = {} if weights is None else {"w": np.ones(weights, np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    nodes = nodes if w else [helper.make_node("Tanh", ["x"], ["y"])]
    shapes = [value("x", shape)], [value("y", (1, weights[1]) if weights else shape)]
    path = tmp_path / "large.onnx"
    onnx.save(model(nodes, *shapes, w), path)
    found = sparrow.fits(path, CORE)
    assert not found.ok and found.flash_bytes > 0 and found.stack_bytes is not None
    assert found.stack_seen is None
    line = re.search(
        r"emulated board mps2-an386: (\w+): ([\d,]+) .*, ([\d,]+) there; int8", str(found)
    )
    assert line and line[1] == section and "roofline" in found.time_source
    sizes = [int(n.replace(",", "")) for n in (line[2], line[3])]
    assert needed <= sizes[0] < 1.1 * needed and there <= sizes[1] < 1.1 * there
    for words in (["fits"], ["build", "-o", str(tmp_path / "out")]):
        with pytest.raises(SystemExit) as e:
            main([words[0], str(path), "--target", CORE, *words[1:]])
        said = capsys.readouterr()
        assert e.value.code == (1 if words[0] == "fits" else 2)
        assert line[0] in said.out + said.err and str(Path.home()) not in said.out + said.err


def test_float_sizes_are_those_of_the_bundle(tmp_path: Path) -> None:
    found = sparrow.fits(classifier(), CORE)
    memory = sparrow.build(classifier(), CORE).receipt.memory
    assert (found.code_bytes, found.weights_bytes) == (memory.code_bytes, memory.weights_bytes)
    assert (found.arena_bytes, found.stack_bytes) == (memory.arena_bytes, memory.stack_bytes)
    assert any("int8 would take a quarter" in a for a in found.advice)
    assert any("half the input side" in a for a in found.advice) == (found.peaks[0] <= 1)


def test_what_is_int8_already_is_not_told_to_become_it(samples: list[object]) -> None:
    recipe = sparrow.Recipe(pins=(("conv*", "float32"),), widen=False)
    q = sparrow.quantize(classifier(), samples, recipe)
    found = sparrow.fits(q, CORE)
    assert found.precision == "int8" and any("of float32" in a for a in found.advice)
    assert not any("int8 would take a quarter" in a for a in found.advice)


def test_vectors_are_told_nothing_of_images() -> None:
    weights = {f"w{i}": np.eye(64, dtype=np.float32) for i in range(6)}
    nodes = [
        op
        for i in range(6)
        for op in (
            helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"y{i}"]),
            helper.make_node("Erf", [f"y{i}"], [f"x{i + 1}"]),
        )
    ]
    m = model(nodes, [value("x0", (1, 64))], [value("x6", (1, 64))], weights)
    found = sparrow.fits(m, CORE)
    assert found.advice and found.peaks[0] * 4 <= len(found.layers)
    assert not any("half the input side" in a for a in found.advice)


def test_the_verdict_and_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(classifier(), path)

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as e:
            main(["fits", str(path), "--target", "cortex-m4f", *words])
        return int(e.value.code or 0), capsys.readouterr().out

    code, text = run()
    assert code == 0 and "verdict: fits" in text and "peak: " in text
    code, text = run("--ram", "1kB")
    assert code == 1 and "does NOT fit: RAM" in text and "too many" in text
    code, text = run("--flash", "1kB", "--json")
    (facts,) = json.loads(text)
    assert code == 1 and not facts["ok"] and "flash" in facts["reasons"][0]
    assert facts["flash_bytes"] == facts["code_bytes"] + facts["weights_bytes"]
    with pytest.raises(SystemExit):
        main(["fits", str(tmp_path), "--target", "cortex_m4f", "--target", "x86_64"])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3 and all("net.onnx" in row and "fits" in row for row in table[1:])


def test_images_that_calibrate_become_what_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(classifier(), tmp_path / "net.onnx")
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(2).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(photos / "0.png")
    seen: list[Pixels] = []

    def stop(*args: object) -> None:
        seen.append(next(x for x in args if isinstance(x, Pixels)))
        raise BadInput("enough")

    monkeypatch.setattr(api, "quantized_entries", stop)
    words = ["fits", str(tmp_path / "net.onnx"), "--target", CORE, "--calib", str(photos)]
    for more in ([], ["--mean", "10,20,30", "--std", "50", "--bgr"]):
        with pytest.raises(SystemExit):
            main([*words, *more])
    assert seen == [Pixels(), Pixels((10.0, 20.0, 30.0), (50.0,), True)]


def test_what_does_not_compile_is_a_line_among_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.onnx").write_text("no model")
    onnx.save(classifier(), tmp_path / "net.onnx")
    with pytest.raises(SystemExit) as e:
        main(["fits", str(tmp_path), "--target", "x86_64"])
    _, broken, net = capsys.readouterr().out.splitlines()
    assert e.value.code == 1 and net.endswith("fits")
    assert broken.startswith("broken.onnx") and "not compiled: not an ONNX model" in broken
    with pytest.raises(SystemExit):
        main(["fits", str(tmp_path), "--target", "x86_64", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert [f["ok"] for f in facts] == [False, True] and "ONNX" in facts[0]["error"]
    with pytest.raises(SystemExit) as e:
        main(["fits", str(tmp_path), "--target", "x86_64", "--target", "moon"])
    said = capsys.readouterr()
    assert e.value.code == 2 and "'moon' is unknown" in said.err and not said.out


def test_drawn_inputs_say_so_and_roofline_where_nothing_counts() -> None:
    found = sparrow.fits(classifier(), CORE, precision="int8")
    assert "drawn inputs" in found.note and found.precision == "int8"
    there = sparrow.fits(classifier(), "aarch64_ios")
    assert "roofline" in there.time_source and there.layers[0].code_bytes == -1
    assert there.stack_seen is None and there.stack_bytes is None
    here = sparrow.fits(classifier(), "host")
    assert "measured" in here.time_source and 0 < here.time_ns < 1e9


def test_a_file_of_codes_is_int8_as_it_is() -> None:
    path = data("models/tflm/hello_world_int8.tflite")
    found = sparrow.fits(path, CORE, precision="int8")
    assert found.note == "" and found.precision == "int8"
    assert found.as_json() == sparrow.fits(path, CORE).as_json()


def test_wrong_use_is_one_line() -> None:
    with pytest.raises(BadInput, match="no convolution"):
        relu = helper.make_node("Relu", ["x"], ["y"])
        sparrow.fits(
            model([relu], [value("x", (1, 8))], [value("y", (1, 8))]), CORE, None, None, "int8"
        )
    with pytest.raises(BadInput, match="precision"):
        sparrow.fits(classifier(), CORE, precision="int3")
