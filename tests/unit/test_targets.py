"""Target rows: all of them read, say where their figures come from, and need no code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import sparrow
from small_models import classifier
from sparrow.cli import run_command
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.here import resolve_target
from sparrow.errors import BadInput
from sparrow.targets import KINDS, Machine, device, devices, target, targets
from sparrow.targets.read import read_device

ROW = """
title = "A board"

[[clusters]]
core = "Cortex-A72"
count = 4
ghz = [1.5, "public"]

[compile]
triple = "aarch64-linux-musl"
cpu = "cortex_a72"
isa = "neon"

[figures]
l1_bytes = [32768, "public"]
l1_ways = [2, "public"]
l2_bytes = [262144, "estimated", "a share"]
bandwidth_gbs = [5, "estimated"]
"""


def test_every_row_is_read_and_names_are_unique() -> None:
    by_kind = {kind: devices(kind) for kind in KINDS}
    assert sum(len(rows) for rows in by_kind.values()) == len(devices()) > 80
    for kind, rows in by_kind.items():
        assert rows and all(d.kind == kind and device(d.name) == d for d in rows.values())


def test_every_row_has_figures_and_compiles_or_has_rules() -> None:
    modems = {"x50", "x55"}
    for d in devices().values():
        assert d.target is not None or d.rules is not None or d.name in modems, d.name
        assert d.figures or d.peak_gops, d.name


@pytest.mark.slow
def test_the_compiler_knows_every_cpu() -> None:
    # its vocabulary header: a CPU without the instructions is an error of the file
    tools = find_toolchain()
    for m in {t.machine for t in targets().values()}:
        text = f'#include "isa/{m.isa}.h"\nint lanes = SP_LANES;\n'
        (found,) = tools.compile_objects([Unit("one.c", text, (NATIVE,))], m)
        assert found.is_file()


def test_the_host_is_a_row() -> None:
    here = resolve_target("host")
    assert here.name in devices("cpu") and here.isa.lanes >= 1


def test_the_host_is_a_row_of_its_own_system(monkeypatch: pytest.MonkeyPatch) -> None:
    # macOS and Windows have rows of the same processor
    monkeypatch.setattr("sparrow.device.here.host_isa", lambda: "avx2")
    machine = Machine("x86_64-linux-musl", "x86_64_v3", "avx2")
    monkeypatch.setattr("sparrow.device.here.host_machine", lambda isa: machine)
    assert resolve_target("host").name == "x86_64_v3"


@pytest.mark.parametrize("name", ["rpi4", "sd855", "cortex_m4f", "nano33ble", "wasm32", "armv7"])
def test_check_works_for_every_kind_of_cpu(name: str) -> None:
    assert sparrow.check(classifier(), name).ok


@pytest.mark.parametrize(
    ("name", "text"),
    [("edge_tpu", "no CPU"), ("mlu270", "no CPU")],
)
def test_what_cannot_be_built_says_so_in_one_line(name: str, text: str) -> None:
    with pytest.raises(BadInput, match=text) as e:
        sparrow.build(classifier(), name)
    assert "\n" not in str(e.value)


def test_a_row_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "my_board.toml"
    path.write_text(ROW)
    t = target(str(path))
    assert (t.name, t.cores, t.ghz, t.l2_bytes) == ("my_board", 4, 1.5, 262144)
    assert t.source == "estimated, public" and t.isa.flops_per_cycle == 16
    assert sparrow.check(classifier(), str(path)).ok


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "A board"', "", "title is missing"),
        ('title = "A board"', "title = 3", "expected str, found int"),
        ('isa = "neon"', 'isa = "sse9"', "'sse9' is unknown"),
        ('isa = "neon"', 'isa = "neon"\nspeed = 3', "compile.speed is no field"),
        ("[5, ", "[5, 5, ", "write .number, source, note."),
        ('[5, "estimated"]', '[5, "heard"]', "sources are briefing, public"),
        ("bandwidth_gbs", "band", "figures.band is unknown"),
        ('bandwidth_gbs = [5, "estimated"]', "", "bandwidth_gbs is missing"),
        ("[compile]", "[compile", "no TOML"),
        ("[figures]", "colour = 1\n[figures]", "compile.colour is no field"),
        ("[[clusters]]", "[clusters]", "clusters: expected list"),
        ('triple = "aarch64-linux-musl"', 'triple = "; id"', "triple: '; id' is none"),
        ('cpu = "cortex_a72"', 'cpu = "generic -fplugin=x"', "is none"),
        ('cpu = "cortex_a72"', 'cpu = "-x"', "is none"),
        ("[5, ", "[nan, ", "write .number, source, note."),
        ("[5, ", "[-5, ", "write .number, source, note."),
        ("[5, ", "[0, ", "bandwidth_gbs is 0.0, expected more than 0"),
        ("[5, ", f"[1{'0' * 400}, ", "write .number, source, note."),
        ("[5, ", f"[1{'0' * 5000}, ", "no TOML"),
        ("[figures]", f"x = {'[' * 9000}\n[figures]", "no TOML"),
    ],
)
def test_a_wrong_row_is_named(old: str, new: str, message: str) -> None:
    assert old in ROW
    with pytest.raises(BadInput, match=message):
        read_device("x", "own", ROW.replace(old, new, 1))


def test_rules_of_accelerators() -> None:
    edge, dpu = device("edge_tpu").rules, device("vitis_dpu").rules
    mlu, ipu = device("mlu270").rules, device("ipu_gc2").rules
    assert edge and dpu and mlu and ipu
    assert edge.activations == "per-tensor" and edge.parameter_bytes == 8_000_000
    assert dpu.scales == "power-of-two" and dpu.scheme == "pow2" and not dpu.zero_points
    assert mlu.weight_bits == (4, 8, 16)
    assert ipu.modes == ("FP16.16", "FP16.32", "FP32.32") and not ipu.weight_bits


def test_the_command_shows_and_lists(capsys: pytest.CaptureFixture[str]) -> None:
    from sparrow.cli import app

    def run(*words: str) -> str:
        code = run_command(lambda: app(list(words), prog_name="sparrow", standalone_mode=False))
        assert code == 0
        return capsys.readouterr().out

    listed = run("targets")
    assert "rpi4" in listed and "edge_tpu" in listed and "on this machine" in listed
    assert re.search("figures only +Qualcomm Snapdragon X55", listed)
    assert "48 (briefing: 4 cores x 8 x 1.5)" in run("targets", "show", "rpi4")
    facts = json.loads(run("targets", "show", "mlu270", "--json"))
    assert facts["peak_gops"]["int4"] == {"value": 256000, "source": "briefing", "note": ""}
    assert len(json.loads(run("targets", "--json"))["targets"]) == len(devices())


def test_accelerators_are_quantized_for() -> None:
    with pytest.raises(BadInput, match="no CPU") as caught:
        target("edge_tpu")
    assert "sparrow quantize --target edge_tpu" in (caught.value.hint or "")
