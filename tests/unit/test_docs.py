"""Code that the docs show does what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import sparrow
from data import REPO
from sparrow.cli import app
from sparrow.packaging import package
from sparrow.quant.recipe import SCHEMA, Recipe, to_json

BUNDLE, FIRMWARE, QUANTIZATION = (
    (REPO / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("bundle", "microcontrollers", "quantization")
)
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
CC = (sys.executable, "-m", "ziglang", "cc", *STRICT)
DIGITS = REPO / "examples" / "digits" / "digits.onnx"


@pytest.mark.skipif(sys.platform == "win32", reason="links a library of Unix")
def test_the_program_of_the_bundle_page_classifies_a_digit(tmp_path: Path) -> None:
    bundle = sparrow.build(DIGITS, out=tmp_path / "out")
    package(tmp_path / "out", "library", tmp_path / "lib")
    (program,) = re.findall(r"```c\n(.*?)```", BUNDLE, re.S)
    (tmp_path / "main.c").write_text(program)
    (command,) = re.findall(r"^cc (.*)$", BUNDLE, re.M)
    subprocess.run((*CC, *command.split()), cwd=tmp_path, check=True)
    run = ("./digits", "lib/weights.bin")
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    want = bundle.run({"image": np.zeros((1, 1, 8, 8), np.float32)})["probabilities"]
    found = [float(line.split(": ")[1]) for line in done.stdout.splitlines()]
    np.testing.assert_allclose(found, want[0], atol=1e-6)
    assert subprocess.run(("./digits", "main.c"), cwd=tmp_path, check=False).returncode == 1


# What runs where there are no files: its weights are linked in.
CALLER = r"""
#include <stdio.h>
int classify(const float *image, float *probabilities);
int main(void) {
  float image[64] = {0}, y[10];
  const int status = classify(image, y);
  for (int i = 0; i < 10; ++i) printf("%.6f\n", (double)y[i]);
  return status;
}
"""


@pytest.mark.skipif(shutil.which("qemu-arm") is None, reason="runs Arm code")
def test_the_function_of_the_microcontrollers_page_classifies_a_digit(tmp_path: Path) -> None:
    bundle = sparrow.build(DIGITS, "cortex_m4f", tmp_path / "out")
    package(tmp_path / "out", "cmake", tmp_path / "lib")
    (function,) = re.findall(r"```c\n(.*?)```", FIRMWARE, re.S)
    (tmp_path / "lib" / "classify.c").write_text(function)
    (tmp_path / "lib" / "main.c").write_text(CALLER)
    files = ("main.c", "classify.c", "model.c", "weights.c")
    target = ("-target", "arm-linux-musleabihf", "-mcpu=cortex_a7", "-O1", "-static")
    flags = ("-ffp-contract=off", "-fno-strict-aliasing", "-o", "digits")
    subprocess.run((*CC, *target, *flags, *files), cwd=tmp_path / "lib", check=True)
    run = ("qemu-arm", "./digits")
    done = subprocess.run(run, cwd=tmp_path / "lib", capture_output=True, text=True, check=True)
    want = bundle.run({"image": np.zeros((1, 1, 8, 8), np.float32)})["probabilities"]
    np.testing.assert_allclose([float(x) for x in done.stdout.split()], want[0], atol=1e-6)


def test_the_quantization_page_has_every_field_of_a_recipe_with_its_default() -> None:
    table = QUANTIZATION[QUANTIZATION.index("| field | default | says |") :]
    shown = {"schema": SCHEMA}
    for row in table[: table.index("\n\n")].splitlines()[2:]:
        names, defaults = (re.findall("`(.*?)`", cell) for cell in row.split("|")[1:3])
        shown |= dict(zip(names, map(json.loads, defaults), strict=True))
    assert shown == json.loads(to_json(Recipe()))


PAGES = (REPO / "README.md", *sorted((REPO / "docs").glob("*.md")))


def test_commands_that_are_shown_have_the_options_that_are_shown() -> None:
    command = typer.main.get_command(app)
    known = {
        name: {o for p in c.params for o in (*p.opts, *p.secondary_opts)}
        for name, c in command.commands.items()  # type: ignore[attr-defined]
    }
    shown = [
        (page.name, *line.groups())
        for page in PAGES
        for kind, block in re.findall(
            r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M
        )
        for line in re.finditer(r"^sparrow +(\w+)([^#\n]*)", block, re.M)
        if kind in ("", "sh")
    ]
    assert {name for _, name, _ in shown} >= known.keys() - {"report", "tuning"}
    for page, name, words in shown:
        options = set(re.findall(r"(?<!\S)-{1,2}[a-z][a-z-]*", words))
        assert name in known and options <= known[name], (page, name, words)
    assert len(shown) > 50


def test_links_between_the_docs_lead_somewhere() -> None:
    def anchors(text: str) -> set[str]:
        titles = re.findall(r"^#+ (.*)$", text, re.M)
        return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}

    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            path, _, anchor = link.partition("#")
            if not link.startswith("http"):
                to = (page.parent / path) if path else page
                assert to.exists(), (page.name, link)
                assert not anchor or anchor in anchors(to.read_text("utf-8")), (page.name, link)
