"""Blame judges on samples that calibrated neither the network nor its cures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import sparrow
from data import REPO
from sparrow.blame import blame_model
from sparrow.blame.judging import split
from sparrow.quant import digest

DIGITS = REPO / "examples" / "digits" / "digits.onnx"


def images() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [{"image": rng.random((1, 1, 8, 8), np.float32)} for _ in range(16)]


def test_samples_that_calibrate_a_cure_do_not_judge_it(tmp_path: Path) -> None:
    onnx.save(sparrow.quantize(str(DIGITS), images()), tmp_path / "q.onnx")
    found = blame_model(str(tmp_path / "q.onnx"), str(DIGITS), images())
    assert found.samples == 3 and "held out of 16 (every fifth" in found.lines()[0]
    assert "not known" in found.judged


@pytest.mark.parametrize("count", [1, 4, 5, 23, 400])
def test_judges_and_calibration_share_no_sample(count: int) -> None:
    feeds = [{"x": np.full(2, i, np.float32)} for i in range(count)]
    parts = split(feeds, None)
    if count < 5:
        assert parts.judges == parts.calibrates == tuple(feeds) and "too few" in parts.kind
        return
    assert len(parts.judges) == min(count // 5, 64)
    assert len(parts.judges) + len(parts.calibrates) == count
    assert not {digest(f) for f in parts.judges} & {digest(f) for f in parts.calibrates}


def test_what_a_receipt_names_calibrates() -> None:
    feeds = [{"x": np.full(2, i, np.float32)} for i in range(10)]
    known = {digest(f) for f in feeds[:7]}
    parts = split(feeds, known)
    assert parts.judges == tuple(feeds[7:]) and parts.calibrates == tuple(feeds[:7])
    # none of them calibrated: all are new, and a cure still needs some
    others = split(feeds[7:], known)
    assert others.judges == tuple(feeds[7:]) == others.calibrates
    again = split(feeds[:7], known)
    assert again.judges == (feeds[4],) and "all of them calibrated" in again.kind


def test_equal_samples_do_not_judge_what_they_calibrate() -> None:
    same = [{"x": np.zeros(2, np.float32)}] * 10
    parts = split(same, None)
    assert "too few" in parts.kind and len(parts.judges) == 10
