"""Emitted C: warnings, linkage, memory, builds in parts, and what its entry function refuses."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from code_chains import chain, narrowed
from emitted import STRICT, TARGETS, blob, compiled, planned, run, session, standard, write
from native_harness import ISAS, needs_isa
from small_graphs import GRAPHS, network
from sparrow.builder import Builder
from sparrow.device.abi import STATUSES, CCall
from sparrow.device.build import find_toolchain
from sparrow.device.flags import FLAGS
from sparrow.device.host import HostLibrary, aligned
from sparrow.emit.c import emit
from sparrow.graph import Graph, Module, State
from sparrow.kernels import COMPACT
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.softmax import Softmax
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.targets import target
from sparrow.tensor import F32, I8, Array, TensorType

# More would not fit on the stack of a small microcontroller's thread.
MOST_STACK = 16 << 10
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
needs_binutils = pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")


def feeds(g: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    values = {n: rng.standard_normal(g.types[n].shape) * 3 for n in g.inputs}
    return {n: v.astype(g.types[n].dtype.numpy) for n, v in values.items()}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("isa", TARGETS)
def test_whole_and_part_wise_builds_agree(isa: str, name: str, tmp_path: Path) -> None:
    """Without a warning, with the reference's answers, and bit by bit the same in parts."""
    g = GRAPHS[name]()
    p = planned(g, isa=isa)
    whole = run(p, compiled(p, tmp_path), feeds(g))
    parts = run(p, compiled(p, tmp_path, parts=True), feeds(g))
    hooked = compiled(p, tmp_path, flags=("-DSPARROW_HOOKS",))
    outputs, taps = session(p, hooked).tap(0, [feeds(g)[n] for n in g.inputs])
    want = evaluate(g, feeds(g))
    assert len(taps) == sum(len(s.outputs) for s in p.entries[0].steps)
    for key, a, b, c in zip(g.outputs, whole, parts, outputs, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()
        if want[key].dtype.kind in "iub":
            np.testing.assert_array_equal(a, want[key], key)
        else:
            np.testing.assert_allclose(a, want[key], 2e-3, 2e-5, err_msg=key)


@needs_gcc
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("isa", TARGETS)
def test_gcc_has_no_complaint(isa: str, name: str, tmp_path: Path) -> None:
    p = planned(GRAPHS[name](), isa=isa)
    write(emit(p), tmp_path)
    march = ISAS[isa][1]
    pedantic = STRICT if isa == "scalar" else STRICT[1:]
    stack = (f"-Wstack-usage={MOST_STACK}",)
    flags = (standard(isa), *pedantic, *stack, f"-march={march}", "-ffp-contract=off", "-O2")
    command = ["gcc", *flags, "-ffreestanding", "-c", "model.c", "-o", "model.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr[:3000]


@needs_gcc
@pytest.mark.parametrize("isa", TARGETS)
def test_gcc_has_no_complaint_of_compact_code(isa: str, tmp_path: Path) -> None:
    graphs = tuple(chain(seed) for seed in range(12))
    p = plan(Module("m", graphs), target(TARGETS[isa]), kernels=COMPACT)
    write(emit(p), tmp_path)
    flags = (standard(isa), *STRICT[1:], f"-march={ISAS[isa][1]}", "-ffp-contract=off", "-O3")
    command = ["gcc", *flags, "-fno-strict-aliasing", "-c", "model.c", "-o", "model.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr[:3000]


HARNESS = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"

static void *take(size_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, 64, bytes ? bytes : 1) != 0) abort();
  return p;
}

int main(int argc, char **argv) {
  const sparrow_model_info *info = model_info();
  const sparrow_entry_info *entry = &info->entries[0];
  const void *inputs[16];
  void *outputs[16];
  sparrow_call call;
  memset(&call, 0, sizeof call);
  void *weights = take(info->weights_bytes);
  FILE *file = fopen("weights.bin", "rb");
  if (argc < 1 + entry->n_inputs || file == NULL) return 2;
  if (fread(weights, 1, info->weights_bytes, file) != info->weights_bytes) return 2;
  fclose(file);
  for (int i = 0; i < entry->n_inputs; ++i) {
    /* exactly as large as the tensor and aligned to its elements: an overrun is seen */
    void *x = malloc(entry->inputs[i].bytes);
    file = fopen(argv[1 + i], "rb");
    if (file == NULL) return 2;
    if (fread(x, 1, entry->inputs[i].bytes, file) != entry->inputs[i].bytes) return 2;
    fclose(file);
    inputs[i] = x;
  }
  for (int i = 0; i < entry->n_outputs; ++i) outputs[i] = malloc(entry->outputs[i].bytes);
  call.inputs = inputs;
  call.outputs = outputs;
  call.weights = weights;
  call.workspace = take(info->workspace_bytes);
  call.state = take(info->state_bytes);
  if (model_reset(call.state, weights) != 0 || model_run(&call) != 0) return 3;
  for (int i = 0; i < entry->n_outputs; ++i)
    fwrite(outputs[i], 1, entry->outputs[i].bytes, stdout);
  for (int i = 0; i < entry->n_inputs; ++i) free((void *)inputs[i]);
  for (int i = 0; i < entry->n_outputs; ++i) free(outputs[i]);
  free(weights), free(call.workspace), free(call.state);
  return 0;
}
"""


def product_of_codes() -> Graph:
    """Large enough for registers of matrices."""
    b = Builder("codes")
    x = b.input("x", TensorType((1, 16, 16, 64), I8))
    w = np.random.default_rng(4).integers(-99, 99, (64, 64, 1, 1)).astype(np.int8)
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, narrowed(1 / 480), 3)
    return b.finish({"y": b.add(op, x, b.const(w))}, {})


@needs_gcc
@pytest.mark.parametrize("isa", TARGETS)
def test_gcc_computes_the_same(isa: str, tmp_path: Path) -> None:
    """For this machine and optimised, as users would: what it takes for unread is not written."""
    needs_isa(isa, "gcc")
    g = product_of_codes()
    p = planned(g, isa=isa)
    want = run(p, compiled(p, tmp_path), feeds(g))
    (tmp_path / "main.c").write_text(HARNESS)
    for i, key in enumerate(g.inputs):
        feeds(g)[key].tofile(tmp_path / f"x{i}")
    flags = ("-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-O2")
    built = ["gcc", "-std=gnu99", *flags, "main.c", "model.c", "-o", "model"]
    subprocess.run(built, cwd=tmp_path, check=True)
    command = ["./model", *(f"x{i}" for i in range(len(g.inputs)))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout == b"".join(y.tobytes() for y in want)


@needs_gcc
@pytest.mark.parametrize("name", [pytest.param("network", marks=pytest.mark.slow), "arithmetic"])
def test_sanitizers_have_no_complaint(name: str, tmp_path: Path) -> None:
    """Unoptimised and strict about bounds, overflow, alignment: still the same answers."""
    g = GRAPHS[name]()
    p = planned(g)
    write(emit(p), tmp_path)
    (tmp_path / "main.c").write_text(HARNESS)
    checks = "-fsanitize=address,undefined,float-cast-overflow,bounds-strict"
    command = ["gcc", "-O0", "-g", "-std=gnu99", checks, "-fno-sanitize-recover=all"]
    built = [*command, "-ffp-contract=off", "-fno-strict-aliasing", "main.c", "model.c"]
    (tmp_path / "probe.c").write_text("int main(void) { return 0; }\n")
    probe = [*command, "probe.c", "-o", "probe"]
    if subprocess.run(probe, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("gcc has no sanitizers here")
    subprocess.run([*built, "-o", "model"], cwd=tmp_path, check=True)
    for i, key in enumerate(g.inputs):
        feeds(g)[key].tofile(tmp_path / f"x{i}")
    arguments = [f"x{i}" for i in range(len(g.inputs))]
    done = subprocess.run(["./model", *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:3000]
    got = run(p, compiled(p, tmp_path), feeds(g))
    assert done.stdout == b"".join(y.tobytes() for y in got)


@needs_binutils
@pytest.mark.parametrize("isa", TARGETS)
def test_an_object_needs_nothing_and_writes_nothing(isa: str, tmp_path: Path) -> None:
    """No undefined symbol but memcpy and memset; no writable data; three exported functions."""
    p = planned(network(), isa=isa)
    write(emit(p), tmp_path)
    target = ("-target", p.target.triple, f"-mcpu={p.target.cpu}")
    command = [*find_toolchain().command, *target, *FLAGS, standard(isa), "-c", "model.c"]
    subprocess.run([*command, "-o", "model.o"], cwd=tmp_path, check=True)
    symbols = _listing(tmp_path, "readelf", "-sW", "model.o")
    undefined = {
        line.split()[-1] for line in symbols if " UND " in line and line.split()[-1] != "UND"
    }
    assert undefined <= {"memcpy", "memset"}, undefined
    visible = {line.split()[-1] for line in symbols if " GLOBAL DEFAULT " in line} - undefined
    assert visible == {"model_run", "model_info", "model_reset"}
    for line in _listing(tmp_path, "readelf", "-SW", "model.o"):
        found = re.match(r"\s*\[ *\d+\] (\S+) +\S+ +\S+ +\S+ +(\S+) +\S+ +(\w*W\w*)", line)
        if found and not found[1].startswith(".data.rel.ro"):
            assert int(found[2], 16) == 0, line


def _listing(folder: Path, *command: str) -> list[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class Refusals:
    """A model with weights, workspace and state, and a call of it that works."""

    def __init__(self, folder: Path) -> None:
        self.plan = _stateful()
        self.library: HostLibrary = compiled(self.plan, folder)
        self.keep = [aligned(n + 64) for n in (4096, 4096, 4096)]
        self.keep[0][: len(self.plan.weights)] = blob(self.plan)
        self.x, self.y = np.zeros((6, 8), np.float32), np.zeros((6, 5), np.float32)
        self.inputs = (ctypes.c_void_p * 1)(self.x.ctypes.data)
        self.outputs = (ctypes.c_void_p * 1)(self.y.ctypes.data)
        self.call = CCall(
            inputs=ctypes.addressof(self.inputs),
            outputs=ctypes.addressof(self.outputs),
            weights=self.keep[0].ctypes.data,
            workspace=self.keep[1].ctypes.data,
            state=self.keep[2].ctypes.data,
        )

    def status(self) -> str:
        return STATUSES[self.library._run(ctypes.byref(self.call))]


def _stateful() -> Plan:
    b = Builder("stateful")
    x = b.input("x", TensorType((6, 8), F32))
    w = b.const(np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32))
    y = b.add(Softmax(0), b.call("tanh", b.add(MatMul(), x, w)))
    b.types["old"] = TensorType((6, 5), F32)
    b.states.append(State("s", "old", y, np.ones((6, 5), np.float32)))
    z = b.call(
        "add", b.add(MatMul(), b.call("add", y, "old"), b.const(np.eye(5, dtype=np.float32))), y
    )
    return planned(b.finish({"z": z}, {}))


def test_run_refuses_what_the_interface_says(tmp_path: Path) -> None:
    r = Refusals(tmp_path)
    info = r.library.info
    assert info.weights_bytes and info.workspace_bytes and info.state_bytes
    ok = r.status()
    assert ok == STATUSES[0]
    assert r.library._run(None) == 2
    bad = {"NULL": 0, "MISALIGNED": 4}
    for field in ("weights", "workspace", "state"):
        good = getattr(r.call, field)
        for kind, offset in bad.items():
            setattr(r.call, field, good + offset if offset else None)
            assert r.library._run(ctypes.byref(r.call)) == (2 if kind == "NULL" else 3), field
        setattr(r.call, field, good)
    for array, good in ((r.inputs, r.x), (r.outputs, r.y)):
        array[0] = None
        assert r.library._run(ctypes.byref(r.call)) == 2
        array[0] = good.ctypes.data
    for field in ("inputs", "outputs"):
        good = getattr(r.call, field)
        setattr(r.call, field, None)
        assert r.library._run(ctypes.byref(r.call)) == 2
        setattr(r.call, field, good)
    r.call.entry = 1
    assert r.library._run(ctypes.byref(r.call)) == 1
    r.call.entry = 0
    assert r.status() == ok
