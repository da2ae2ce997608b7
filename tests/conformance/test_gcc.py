"""Networks of every kind by gcc, every warning an error: built, run, proved layer by layer.

One row of each architecture; `bench/gcc.py` is the same for all networks on all rows.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

import gcc
import sparrow
from data import data, missing
from nets.build import Net, Value
from nets.sequence import merge_heads, split_heads
from small_models import accumulator, classifier
from sparrow.compiler import Source, compile_sources, front
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.elf import Elf
from sparrow.errors import CompileError
from sparrow.importers.model import Model
from sparrow.targets import target

ROWS = ("x86_64_v3", "x86", "aarch64", "armv7", "riscv64", "cortex_m4f", "rv32imc")


# gcc 12 computes the addresses from 0 on, and takes a function for one that writes nothing.
COPY = """
#include "base.h"
typedef struct frame { const void *call; unsigned char *ws; } frame;
static void slice(const int8_t *x, int8_t *y) {
  for (ptrdiff_t i = 0; i < 2; ++i) {
    const int8_t *p = x + i;
    int8_t *q = y + i * 64;
    for (ptrdiff_t j = 0; j < 64; ++j) q[j] = p[j * 2];
  }
}
SP_OUTLINE void copy(const frame *f, int task) {
  (void)task;
  slice((const int8_t *)(f->ws + 38336) + 130, (int8_t *)(f->ws + 55552));
}
void run(const frame *f);
void tap(unsigned char *p);
void run(const frame *f) {
  copy(f, 0);
  tap(f->ws + 55552);
}
"""


def gru() -> onnx.ModelProto:
    """Nine steps of 12 features, hidden 16."""
    net = Net("gru")
    x = net.input("frames", [9, 1, 12])
    w, r = net.weight((1, 48, 12), 12), net.weight((1, 48, 16), 16)
    _, last = net.nodes("GRU", 2, x, w, r, hidden_size=16, linear_before_reset=1)
    state = Value(net.node("Squeeze", last, net.ints(0)), 16)
    return net.finish(logits=net.gemm(state, 5).name)


def transformer() -> onnx.ModelProto:
    """One layer over 10 tokens of 24 features, two heads."""
    net = Net("transformer")
    x = Value(net.input("tokens", [1, 10, 24]), 24)
    q, k, v = (split_heads(net, net.matmul(x, 24), 2) for _ in range(3))
    q, v = (net.node("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
    k = net.node("Transpose", k, perm=[0, 2, 3, 1])
    merged = Value(merge_heads(net, net.attention(q, k, v, 12), 24), 24)
    y = net.layer_norm(net.add(net.matmul(merged, 24), x))
    inner = net.act(net.matmul(y, 48), "Gelu")
    return net.finish(y=net.layer_norm(net.add(net.matmul(inner, 24), y)).name)


def coded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same of integers."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    return sparrow.quantize(model, [rng.standard_normal(shape, np.float32) for _ in range(4)])


@pytest.fixture(scope="module")
def every_kind() -> gcc.Network:
    """Entry points of one module: int8 and float32."""
    floats = {"gru": gru(), "transformer": transformer(), "classifier": classifier()}
    face = coded(onnx.load(data("face/models/version-slim-320_simplified.onnx")))
    keywords = data("models/mlperf_tiny/kws_dscnn_int8.tflite")
    codes = {f"{name}_int8": coded(model) for name, model in floats.items()}
    models: dict[str, Model] = {**floats, **codes, "face": face, "keywords": keywords}
    sources = {name: Source(model) for name, model in models.items()}
    return gcc.Network("every kind", "int8", front(sources))


@pytest.mark.parametrize("row", ROWS)
def test_every_layer_is_right_without_a_warning(row: str, every_kind: gcc.Network) -> None:
    machine = target(row).machine
    compiler = gcc.COMPILERS[machine.arch]
    if shutil.which(compiler) is None:
        missing(f"{compiler} is not installed")
    place = gcc.place(machine)
    if isinstance(place, str):
        missing(place)
    cell = gcc.prove_on(every_kind, row, 1 if machine.bare else 2, gcc.Reference())
    assert not cell.failure, cell
    assert cell.ran and cell.layers > 60 and cell.compiler.startswith(compiler)


def test_a_warning_is_a_failure() -> None:
    if shutil.which("gcc") is None:
        missing("gcc is not installed")
    c = compile_sources({"net": Source(accumulator())}, target("x86_64"))
    narrow = b"\nchar sparrow_narrow(int x);\nchar sparrow_narrow(int x) { return x; }\n"
    files = {**c.artifact.files, "model.c": c.artifact.files["model.c"] + narrow}
    spoiled = replace(c, artifact=replace(c.artifact, files=files))
    with gcc.compiled_by("gcc"):
        assert gcc.library(c, target("x86_64").machine).exists()
        with pytest.raises(CompileError, match="conversion"):
            gcc.library(spoiled, target("x86_64").machine)


@pytest.mark.parametrize("row", [*ROWS, "cortex_m0", "cortex_m55"])
def test_the_runtime_compiles_without_a_warning(row: str) -> None:
    machine = target(row).machine
    compiler = gcc.COMPILERS[machine.arch]
    if shutil.which(compiler) is None:
        missing(f"{compiler} is not installed")
    processes = ("benchmark.c", "pool.c", "profile.c", "runner.c", "sharing.c")
    own = {"thumb": ("firmware.c",), "riscv32": ("linked.c",)}.get(machine.arch, processes)
    units = [Unit.from_file(NATIVE / "runtime" / name) for name in (*own, "serve_uart.c")]
    with gcc.compiled_by(compiler):
        objects = find_toolchain().compile_objects(units, machine, ("-fno-builtin",))
    assert len(objects) == len(units)


@pytest.mark.parametrize("row", ["aarch64", "armv7", "cortex_m0", "cortex_m4f"])
@pytest.mark.parametrize("level", ["-O1", "-Os", "-O2"])
def test_no_call_is_dropped(row: str, level: str) -> None:
    machine = target(row).machine
    compiler = gcc.COMPILERS[machine.arch]
    if shutil.which(compiler) is None:
        missing(f"{compiler} is not installed")
    with gcc.compiled_by(compiler):
        unit = Unit("copy.c", COPY, (NATIVE,))
        (path,) = find_toolchain().compile_objects([unit], machine, (*gcc.PACKAGED, level))
    code = Elf(path.read_bytes())
    (run,) = (s.section for s in code.symbols if s.name == "run")
    # of copy and of tap
    assert sum(section == run for section, *_ in code.relocated()) == 2
