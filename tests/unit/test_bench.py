"""The benchmark's own promises: sane networks, honest verdicts, outputs really compared."""

import argparse
import csv
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import models
import run
from cases import all_cases, named
from engines import ENGINES, Engine, Run, coded_tolerance
from nets.build import Array
from network import Network
from peak import Peak
from sparrow.importers.model import import_model
from sparrow.timing import measure

ROW = run.Row(
    time="2026-01-01T00:00:00+00:00", commit="0", cpu="cpu", mhz="1", engine="sparrow", version="0",
    model="m", threads=1, median_ns=10, mad_ns=1, runs=3, baseline="onnxruntime",
    ratio=1.5, low=1.4, high=1.6, others=0.0, share=0.5,
)  # fmt: skip


def with_interval(ratio: float, low: float, high: float) -> run.Row:
    return replace(ROW, ratio=ratio, low=low, high=high)


@pytest.mark.parametrize(
    "name", ["ds_cnn", "autoencoder", "lstm", "gru", "resnet8", "shufflenet_v2", "unet"]
)
def test_network_runs_and_its_flops_are_those_of_the_row(name: str) -> None:
    row = next(row for row in models.MODELS if row.name == name)
    models.check(row, row.build())


@pytest.mark.slow
@pytest.mark.parametrize("row", models.MODELS, ids=lambda row: row.name)
def test_every_network_runs(row: models.Model) -> None:
    models.check(row, row.build())


def test_building_twice_gives_the_same_bytes() -> None:
    row = models.MODELS[-1]
    assert row.build().SerializeToString() == row.build().SerializeToString()


def test_names_of_cases_are_unique() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names))


def test_a_file_is_a_case_with_the_inputs_beside_it_or_drawn_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    onnx.save(next(row for row in models.MODELS if row.name == "autoencoder").build(), path)
    (drawn,) = named([str(path)], argparse.ArgumentParser())
    assert drawn.name == "mine"
    assert {feeds["frames"].shape for feeds in drawn.inputs()} == {(1, 640)}
    given = np.arange(3 * 640, dtype=np.float32).reshape(3, 640)
    np.savez(path.with_suffix(".npz"), frames=given)
    (beside,) = named([str(path)], argparse.ArgumentParser())
    assert np.array_equal(np.concatenate([f["frames"] for f in beside.inputs()]), given)


def test_a_file_that_is_no_network_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(SystemExit) as stopped:
        named([str(path)], argparse.ArgumentParser(prog="bench"))
    assert stopped.value.code == 2
    assert "none.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("bounds", [(1.2, 0.99, 1.4), (0.9, 0.8, 1.0), (1.01, 1.0, 1.02)])
def test_no_speed_up_is_named_when_the_interval_contains_one(
    bounds: tuple[float, float, float],
) -> None:
    assert run.verdict(with_interval(*bounds)).startswith("no difference shown")


def test_wins_and_losses_are_named() -> None:
    assert run.verdict(with_interval(1.5, 1.4, 1.6)).startswith("faster")
    assert run.verdict(with_interval(0.5, 0.4, 0.6)).startswith("SLOWER")


def test_no_speed_up_of_threads_is_named_on_a_busy_machine() -> None:
    busy = replace(ROW, others=0.3)
    assert run.verdict(replace(busy, threads=2)).startswith("not comparable")
    assert "other processes took 30%" in run.verdict(busy)


def test_the_best_peer_is_the_fastest_of_the_precision_compared_with() -> None:
    def row(engine: str, median_ns: int) -> run.Row:
        return replace(ROW, engine=engine, median_ns=median_ns)

    rows = [
        *(row("sparrow_int8", 20), row("sparrow_bf16", 25), row("onnxruntime", 50)),
        *(row("openvino", 75), row("openvino_bf16", 10), row("openvino_int8", 30)),
    ]
    int8, bf16 = run.best_of(rows, ENGINES)
    assert (int8.peer.engine, int8.ratio) == ("openvino_int8", 1.5)
    assert (bf16.peer.engine, bf16.ratio) == ("onnxruntime", 2.0)
    (line,) = run.means(
        [replace(int8, mine=row("sparrow", 10)), replace(int8, mine=row("sparrow", 40))]
    )
    assert "1.50x the best peer over 2 networks, 0.75x at worst" in line


def test_interval_covers_the_median_of_noise_without_difference() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        low, high = measure.interval(np.exp(rng.normal(0, 0.05, 40)))
        covered += low <= 1 <= high
    # A 95 % interval: 3 sigma of the binomial below 95 is 88.
    assert covered >= 88


def test_difference_sees_values_shapes_names_and_nan() -> None:
    want: dict[str, Array] = {"y": np.array([1.0, -4.0], np.float32)}
    near = np.array([1.5, -4.0], np.float32)
    assert measure.difference({"y": near}, want) == pytest.approx(0.125)
    assert measure.difference({"y": want["y"][None]}, want) == np.inf
    assert measure.difference({"z": want["y"]}, want) == np.inf
    assert measure.difference({"y": np.array([1.0, np.nan], np.float32)}, want) == np.inf


def test_measure_ranks_calls_by_their_time() -> None:
    def spin(size: int) -> Run:
        return lambda feeds: {"y": np.sort(feeds["x"][:size])}

    inputs: list[models.Feeds] = [{"x": np.random.default_rng(0).random(200_000)}]
    samples = measure.measure({"big": spin(200_000), "small": spin(20_000)}, inputs, 3, 1)
    assert np.median(samples["big"].ns / samples["small"].ns) > 3
    assert samples["small"].runs >= samples["big"].runs


def test_a_share_is_of_the_peak_in_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down between rounds, the engine and the peak alike."""
    engine = next(e for e in ENGINES if e.name == "sparrow")
    case = next(c for c in all_cases() if c.name == "autoencoder")
    network = Network(case.model(), list(case.inputs()))
    monkeypatch.setattr(run, "peaks_of", lambda _: {"peak float32": Peak(1_000, lambda: None)})
    slow = np.array([1.0, 1.0, 2.0, 4.0, 9.0])

    def summary(times: NDArray[np.float64], threads: int) -> run.Row:
        samples = {"sparrow": measure.Samples(times, 5, 0.0)}
        samples["peak float32"] = measure.Samples(50 * slow, 5, 0.0)
        return run.summarise("m", network, [engine], threads, samples)[0]

    flops = import_model(network.model).graph.flops()
    even = flops / 1_000 * 50 / 200
    assert summary(200 * slow, 1).share == pytest.approx(even, rel=1e-3)
    assert summary(200 * slow, 2).share == pytest.approx(even / 2, rel=1e-3)
    assert summary(400 * slow, 1).share == pytest.approx(even / 2, rel=1e-3)


def test_settle_waits_for_a_spinning_worker() -> None:
    stop = time.perf_counter() + 0.06

    def spin() -> None:
        while time.perf_counter() < stop:
            pass

    worker = threading.Thread(target=spin)
    worker.start()
    measure.settle()
    assert time.perf_counter() >= stop
    worker.join()


def test_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "new" / "host.csv"
    run.append(path, [ROW])
    run.append(path, [ROW, ROW])
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert {row["median_ns"] for row in rows} == {"10"}


def test_int8_outputs_are_judged_by_the_noise_of_their_layers() -> None:
    """Noise of as many layers as there are passes, twice its bound does not, nor another shape."""
    rng = np.random.default_rng(0)
    want = [{"y": rng.standard_normal(1000).astype(np.float32)} for _ in range(2)]
    most = coded_tolerance(20)
    assert 0.1 < most < 0.15
    near, far = (
        [{"y": w["y"] + rng.normal(0, share * most, 1000).astype(np.float32)} for w in want]
        for share in (0.5, 2.0)
    )
    assert run.scatter(near, want) == pytest.approx(most / 2, rel=0.1)
    assert run.scatter(near, want) < most < run.scatter(far, want)
    assert run.scatter([{"y": w["y"][:9]} for w in want], want) == np.inf
    broken = [{"y": np.where(w["y"] > 3, np.nan, w["y"])} for w in want]
    assert run.scatter(broken, want) == np.inf


def test_an_int8_engine_that_answers_something_else_is_not_compared() -> None:
    row = next(row for row in models.MODELS if row.name == "ds_cnn")
    network = Network(row.build(), [row.feeds(np.random.default_rng(i)) for i in range(2)])
    float32 = next(e for e in ENGINES if e.name == "onnxruntime")
    shifted = Engine(
        "shifted", "numpy", lambda n, t: _with(float32.load(n, t), 0.5), precision="int8"
    )
    runs, failures = run.admit("ds_cnn", network, [float32, shifted], 1)
    assert set(runs) == {"onnxruntime"}
    assert "shifted differs from the baseline" in failures[0]


def _between(v: NDArray[np.float32], share: float) -> Array:
    return v + np.float32(share) * (np.roll(v, 1, -1) - v)


def _with(call: Run, share: float) -> Run:
    """Answers that are those of neighbours to some share."""

    def changed(feeds: models.Feeds) -> dict[str, Array]:
        found = call(feeds)
        return {k: _between(v.astype(np.float32), share) for k, v in found.items()}

    return changed
