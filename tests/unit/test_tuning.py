"""Measured times decide which tile a layer takes, and a file of them is read with suspicion."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from emitted import TARGETS, compiled, run
from small_graphs import network
from small_models import classifier
from sparrow.api import build
from sparrow.builder import Builder
from sparrow.cli import app, run_command
from sparrow.compiler import Compiled, Front, Source, compile_front, front
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.here import host_machine, resolve_target
from sparrow.errors import BadInput
from sparrow.graph import Module
from sparrow.kernels import KERNELS
from sparrow.kernels.case import Tile
from sparrow.ops.conv import Conv
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.quant import Recipe
from sparrow.quant import run as quantize
from sparrow.samples import draw
from sparrow.targets import Target, target
from sparrow.targets.types import SHARING
from sparrow.tensor import F32, TensorType
from sparrow.timing import sharing
from sparrow.timing import tune as measuring
from sparrow.timing.stepped import Stepped
from sparrow.timing.tune import Tuner, cached_tuning, candidates, store_tuning, tune, tuning_path
from sparrow.tuning import GAIN, Tuning, Work, fastest, from_json, kernels_hash, to_json

ISA = "avx2"
ROW = target(TARGETS[ISA])
NONE = Tuning("a processor", ISA, kernels_hash())
WORK = Work("conv2d_f32", "ih=7 iw=7 ci=16", 1)


def options(p: Plan) -> dict[Work, tuple[Tile, ...]]:
    return {o.work: o.tiles for e in p.entries for s in e.steps for o in s.options}


def any_times(p: Plan, seed: int) -> Tuning:
    """A random tile is said to be the fastest of every layer, and any row of those that apply."""
    rng = np.random.default_rng(seed)
    times = {
        work: {tiles[int(rng.integers(len(tiles)))]: float(rng.integers(1, 1000))}
        for work, tiles in options(p).items()
    }
    return replace(NONE, times=times)


def coded() -> Front:
    """The classifier over codes."""
    found = front({"main": Source(classifier())})
    g = found.graphs[0]
    done = quantize(g, [draw(g, (1, i)) for i in range(4)], Recipe(rounding="nearest"))
    return replace(found, graphs=(done.graph,))


@pytest.mark.parametrize(("seed", "threads"), [(0, 1), (1, 1), (2, 2)])
def test_any_tile_gives_the_same_floats(seed: int, threads: int, tmp_path: Path) -> None:
    g = network()
    plain = plan(Module("m", (g,)), ROW, threads=threads)
    times = any_times(plain, seed)
    tuned = plan(Module("m", (g,)), ROW, threads=threads, tuning=times)
    tiles = {s.lowered.tile for s in tuned.entries[0].steps}
    assert tiles != {s.lowered.tile for s in plain.entries[0].steps}
    feeds = draw(g, (seed,))
    # sums of few rows may be taken in several parts, by the tile
    for a, b in zip(
        *(run(p, compiled(p, tmp_path), feeds, threads=threads) for p in (plain, tuned)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_any_tile_gives_the_same_codes(seed: int, tmp_path: Path) -> None:
    found = coded()
    plain = compile_front(found, ROW)
    times = any_times(plain.plan, seed)
    assert from_json(to_json(times), "here") == times
    tuned = compile_front(found, ROW, tuning=times)
    assert tuned.artifact.files["model.c"] != plain.artifact.files["model.c"]
    feeds = draw(plain.module.entries[0], (seed,))
    got = [run(b.plan, compiled(b.plan, tmp_path), feeds) for b in (plain, tuned)]
    for a, b in zip(*got, strict=True):
        assert a.tobytes() == b.tobytes()


def test_times_decide_between_rows_and_tiles() -> None:
    g = network()
    plain = plan(Module("m", (g,)), target("x86_64_v4"))
    step = next(s for s in plain.entries[0].steps if len(s.options) > 1 and s.kernel != "loop")
    other = next(o for o in step.options if o.work.kernel != step.kernel)
    (mine,) = (o for o in step.options if o.work.kernel == step.kernel)
    times = {mine.work: {mine.tiles[0]: 9.0}, other.work: {other.tiles[-1]: 3.0}}
    tuned = plan(
        Module("m", (g,)), target("x86_64_v4"), tuning=replace(NONE, isa="avx512", times=times)
    )
    at = plain.entries[0].steps.index(step)
    assert tuned.entries[0].steps[at].kernel == other.work.kernel
    assert tuned.entries[0].steps[at].lowered.tile == other.tiles[-1]
    assert (step.kernel, "costs more (9 ns measured)") in tuned.entries[0].steps[at].rejected


def test_a_tile_that_hardly_gains_is_not_taken() -> None:
    wide, tall = Tile(6, 2), Tile(12, 1)
    assert fastest({wide: 100.0, tall: 100.0 / GAIN}, wide) == wide
    assert fastest({wide: 100.0, tall: 99.9 / GAIN}, wide) == tall
    assert fastest({tall: 50.0}, wide) == tall


def test_a_tile_that_the_kernel_has_not_is_refused() -> None:
    plain = plan(Module("m", (network(),)), ROW)
    work = next(iter(options(plain)))
    times = replace(NONE, times={work: {Tile(99, 99): 1.0}})
    with pytest.raises(BadInput, match="has no tile 99x99"):
        plan(Module("m", (network(),)), ROW, tuning=times)


def test_a_file_reads_back_and_equal_times_are_equal_bytes() -> None:
    plain = plan(Module("m", (network(),)), ROW)
    t = any_times(plain, 0).joined(replace(NONE, figures={"fork_ns": 700.0}))
    assert from_json(to_json(t), "here") == t
    backwards = replace(t, times=dict(reversed(list(t.times.items()))))
    assert to_json(backwards) == to_json(t)
    assert t.of(set(), 1) == NONE
    assert t.of({WORK}, 2).figures == {"fork_ns": 700.0}


def text(**changed: Any) -> bytes:
    row = {"kernel": "conv2d_f32", "shape": WORK.shape, "threads": 1, "ns": {"6x2": 10.5}}
    row |= {k: v for k, v in changed.items() if k in row}
    top = json.loads(to_json(NONE)) | {"layers": [row]}
    top |= {k: v for k, v in changed.items() if k in top}
    return json.dumps({k: v for k, v in top.items() if v is not ...}).encode()


def test_the_plain_text_is_read() -> None:
    assert from_json(text(), "here").times == {WORK: {Tile(6, 2): 10.5}}


HOSTILE = {
    "no JSON": (b"{", "is no tuning"),
    "nested": (b"[" * 100_000, "is no tuning"),
    "no table": (b"[]", "is no tuning"),
    "another version": (text(schema=2), "is no tuning of version 1"),
    "no layers": (text(layers=...), "layers is missing"),
    "layers of another type": (text(layers={}), "is no list"),
    "too many layers": (text(layers=[0] * 20_001), "is no list of at most 20000"),
    "a layer twice": (text(layers=json.loads(text())["layers"] * 2), "is there twice"),
    "a layer of another type": (text(layers=[3]), r"layers\[0\] is no table"),
    "a long name": (text(cpu="x" * 300), "cpu is no name"),
    "a control character": (text(cpu="a\x1b[2J"), "cpu is no name"),
    "another hash": (text(kernels="../../etc"), "kernels: .* is none"),
    "a kernel that is none": (text(kernel="a b"), "kernel: .* is none"),
    "a shape that is none": (text(shape="ih=7;"), "shape: .* is none"),
    "a long shape": (text(shape=" ".join(["a=1"] * 100)), "shape: .* is none"),
    "a thread too many": (text(threads=1025), "threads: expected"),
    "threads that are true": (text(threads=True), "threads: expected"),
    "no times": (text(ns={}), "ns: expected times"),
    "a tile that is none": (text(ns={"0x2": 1.0}), "ns: .* is none"),
    "a time of nothing": (text(ns={"6x2": 0}), "expected a number above 0"),
    "a time that is text": (text(ns={"6x2": "1"}), "expected a number above 0"),
    "a time without end": (text(ns={"6x2": 1e300}), "expected a number above 0"),
    "a number that no float holds": (text(ns={"6x2": 10**400}), "expected a number above 0"),
    "no number": (text().replace(b"10.5", b"NaN"), "expected a number above 0"),
    "a figure without a name": (text(figures={"a b": 1.0}), "figures: .* is none"),
    "a figure of nothing": (text(figures={"fork_ns": -1}), "expected a number above 0"),
    "a field too many": (text()[:-1] + b', "x": 1}', "'x' is unknown"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(name: str) -> None:
    data, message = HOSTILE[name]
    with pytest.raises(BadInput, match=message) as e:
        from_json(data, "here")
    assert "\n" not in str(e.value)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARROW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_times_of_this_machine_are_kept(own_cache: Path) -> None:
    first = replace(cached_tuning(ISA), times={WORK: {Tile(6, 2): 10.0}})
    path = store_tuning(first)
    assert path == tuning_path(ISA) and path.is_relative_to(own_cache)
    other = replace(WORK, threads=2)
    store_tuning(replace(first, times={other: {Tile(6, 2): 5.0}}))
    assert set(cached_tuning(ISA).times) == {WORK, other}
    # of other kernels they say nothing
    path.write_bytes(to_json(replace(first, kernels="0" * 16)))
    assert cached_tuning(ISA).times == {}


class Timed(Stepped):
    """Steps whose times are functions of their tiles; every build that ran is noted."""

    seen: ClassVar[list[Compiled]] = []

    def __init__(self, b: Compiled, feeds: object, threads: int) -> None:
        self._b = b
        self.seen.append(b)

    def profile(self, seconds: float) -> list[list[float]]:
        return [
            [100.0 * (s.lowered.tile.mr if s.lowered.tile else 1) for s in e.steps]
            for e in self._b.plan.entries
        ]


def test_measuring_finds_the_fastest_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "Stepped", Timed)
    monkeypatch.setattr(Timed, "seen", [])
    found = front({"main": Source(classifier())})

    def compile_with(t: Tuning | None) -> Compiled:
        return compile_front(found, ROW, tuning=t)

    done = tune(compile_with, NONE, 1, 1e9)
    plain = compile_with(None)
    steps = [s for s in plain.plan.entries[0].steps if len(candidates(s)) > 1]
    heavy = max(steps, key=lambda s: s.lowered.cycles)
    at = plain.plan.entries[0].steps.index(heavy)
    taken = compile_with(done).plan.entries[0].steps[at]
    assert taken.lowered.tile is not None
    assert taken.lowered.tile.mr == min(c.tile.mr for c in candidates(heavy))
    # nothing is left to measure
    before = len(Timed.seen)
    assert tune(compile_with, done, 1, 1e9) is done
    assert len(Timed.seen) == before
    # no time: the predicted candidates alone, which decide nothing
    assert tune(compile_with, NONE, 1, 0.0) is NONE


def test_times_of_another_day_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later times are given relative to that of the predicted candidate."""
    monkeypatch.setattr(measuring, "Stepped", Timed)
    found = front({"main": Source(classifier())})
    done = tune(lambda t: compile_front(found, ROW, tuning=t), NONE, 1, 1e9)
    work, times = max(done.times.items(), key=lambda x: len(x[1]))
    first = next(iter(times))
    last = list(times)[-1]
    half = {w: {t: ns / 2 for t, ns in x.items()} for w, x in done.times.items()}
    half[work] = {t: ns for t, ns in half[work].items() if t != last}
    again = tune(lambda t: compile_front(found, ROW, tuning=t), replace(done, times=half), 1, 1e9)
    assert again.times[work][first] == pytest.approx(half[work][first], abs=0.1)
    assert again.times[work][last] == pytest.approx(times[last] / 2, abs=0.1)


def test_times_of_another_instruction_set_are_refused() -> None:
    with pytest.raises(BadInput, match="is of scalar, the target is avx2"):
        Tuner(ROW, replace(NONE, isa="scalar"), 0, 1, lambda _: None)


def test_a_device_elsewhere_is_not_measured() -> None:
    with pytest.raises(BadInput, match="cannot be measured on this machine"):
        Tuner(target("aarch64"), None, 1.0, 1, lambda _: None)


def test_a_bundle_holds_the_times_that_decided(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same times give the same code, whether measured, from the cache, or from the bundle."""
    monkeypatch.setattr(measuring, "Stepped", Timed)
    first = build(classifier(), out=tmp_path / "a", tune=3000.0)
    record = first.receipt.tuning
    assert record is not None and record.layers
    assert any(x.taken != x.predicted for x in record.layers)
    data = (tmp_path / "a" / "tuning.json").read_bytes()
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    again = build(classifier(), out=tmp_path / "b", tuning=tmp_path / "a" / "tuning.json")
    plain = build(classifier(), out=tmp_path / "c")
    assert again.receipt.files == first.receipt.files
    assert again.receipt.tuning == record
    assert plain.receipt.tuning is None
    assert plain.receipt.files["model.c"] != first.receipt.files["model.c"]
    tiles = {f"{s.kernel} {s.tile}" for s in first.plan.entries[0].steps}
    assert {x.taken for x in record.layers} <= tiles


def test_the_command_shows_times(
    own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.json"
    file.write_bytes(text())
    assert run_command(lambda: app(["tuning", str(file)], standalone_mode=False)) == 0
    shown = capsys.readouterr().out
    assert "a processor, avx2" in shown and f"conv2d_f32 x1 {WORK.shape}" in shown
    assert run_command(lambda: app(["tuning", "--json"], standalone_mode=False)) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tune", "5"], "--tune '5'"),
        (["--tune", "2e9s"], "expected seconds from 0 to 3600"),
        (["--tune", "5s", "--no-tune"], "--no-tune beside"),
        (["--tuning", "none.json"], "none.json"),
    ],
)
def test_bad_words_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(classifier(), tmp_path / "m.onnx")
    line = ["build", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "o"), *words]
    assert run_command(lambda: app(line, standalone_mode=False)) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


def test_what_sharing_costs_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is C without a warning; regions in which a thread ran alone do not count."""
    unit = Unit.from_file(NATIVE / "runtime" / "sharing.c")
    strict = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
    find_toolchain().compile_objects([unit], host_machine("scalar"), strict)
    monkeypatch.setattr(sharing, "REGIONS", 50)
    found = sharing.sharing_figures(2)
    # both or, on a machine with no core to spare, neither
    assert set(found) in (set(), set(SHARING))
    assert all(0 < v < 1e7 for v in found.values())
    assert sharing.sharing_figures(1) == {}


def with_times(found: Front, row: Target, threads: int, t: Tuning | None) -> Compiled:
    return compile_front(found, row, threads=threads, tuning=t)


def test_several_threads_are_planned_by_measured_figures(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"fork_ns": 90.0, "move_ns_per_byte": 0.25}
    monkeypatch.setattr(measuring, "sharing_figures", lambda threads: figures)
    monkeypatch.setattr(measuring, "Stepped", Timed)
    row, found = resolve_target("host"), front({"main": Source(classifier())})
    for threads in (1, 2):
        tuner = Tuner(row, None, 1e9, threads, lambda _: None)
        done = tuner.compiled(partial(with_times, found, row, threads))
        assert done.tuning is not None
        assert done.tuning.figures == (figures if threads > 1 else {})
        assert (done.plan.target.fork_ns == 90.0) == (threads > 1)
    assert cached_tuning(row.isa.name).figures == figures


def test_winograd_is_predicted_where_its_weights_stay_near() -> None:
    """Measured at 8 x 8 x 64 on Zen 4: 12 us against the direct sum's 34. At 7 x 7 x 512
    transformed weights take as long to come as they save; those of the direct sum do not.
    """
    b = Builder("g")
    rng = np.random.default_rng(0)
    for side, c in ((8, 64), (7, 512)):
        x = b.input(f"x{c}", TensorType((1, side, side, c), F32))
        w = b.const(rng.standard_normal((c, c, 3, 3), np.float32))
        b.add(Conv((1, 1), (1, 1), ((1, 1),) * 2, 1, True), x, w)
    g = b.finish({f"y{i}": n.outputs[0] for i, n in enumerate(b.nodes)}, {})
    steps = plan(Module("m", (g,)), target("x86_64_v4")).entries[0].steps
    assert [s.kernel for s in steps] == ["winograd_f32", "winograd_stream_f32"]
    # with half the registers, nothing is left to transform weights in
    narrow = plan(Module("m", (g,)), target("x86_64_v3")).entries[0].steps
    assert "winograd_stream_f32" not in {s.kernel for s in narrow}
    # its next tiles are candidates as well
    ours = [c.tile for c in candidates(steps[0]) if c.work.kernel == "winograd_f32"]
    assert ours[0] == steps[0].lowered.tile and len(set(ours)) > 2
    # a page downloads the weights of the direct sum
    page = plan(Module("m", (g,)), target("web"))
    assert {s.kernel for s in page.entries[0].steps} == {"winograd_raw_f32"}
    direct = tuple(k for k in KERNELS if k.name != "winograd_raw_f32")
    assert page.weights == plan(Module("m", (g,)), target("web"), kernels=direct).weights
