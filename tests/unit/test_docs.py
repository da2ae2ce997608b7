"""Code that the docs show does what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparrow
from data import REPO
from sparrow.packaging import package

BUNDLE = (REPO / "docs" / "bundle.md").read_text(encoding="utf-8")
DIGITS = REPO / "examples" / "digits" / "digits.onnx"


@pytest.mark.skipif(sys.platform == "win32", reason="links a library of Unix")
def test_the_program_of_the_bundle_page_classifies_a_digit(tmp_path: Path) -> None:
    bundle = sparrow.build(DIGITS, out=tmp_path / "out")
    package(tmp_path / "out", "library", tmp_path / "lib")
    (program,) = re.findall(r"```c\n(.*?)```", BUNDLE, re.S)
    (tmp_path / "main.c").write_text(program)
    (command,) = re.findall(r"^cc (.*)$", BUNDLE, re.M)
    strict = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
    cc = (sys.executable, "-m", "ziglang", "cc", *strict, *command.split())
    subprocess.run(cc, cwd=tmp_path, check=True)
    run = ("./digits", "lib/weights.bin")
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    want = bundle.run({"image": np.zeros((1, 1, 8, 8), np.float32)})["probabilities"]
    found = [float(line.split(": ")[1]) for line in done.stdout.splitlines()]
    np.testing.assert_allclose(found, want[0], atol=1e-6)
    assert subprocess.run(("./digits", "main.c"), cwd=tmp_path, check=False).returncode == 1
