"""Compiling and running what is emitted, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from native_harness import needs_isa
from sparrow.device.build import Toolchain, Unit, find_toolchain
from sparrow.device.host import HostLibrary, Session, aligned
from sparrow.device.session import ModelLibrary
from sparrow.emit.c import Artifact, emit
from sparrow.graph import Graph, Module
from sparrow.kernels.case import Invoke
from sparrow.ops.conv import Conv
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.targets import target
from sparrow.tensor import BF16, Array, TensorType, round_bfloat16

TARGETS = {
    "scalar": "x86_64",
    "avx2": "x86_64_v3",
    "avx512": "x86_64_v4",
    "avx512vnni": "x86_64_v4_vnni",
    "avx512bf16": "x86_64_v4_bf16",
    "amx": "x86_64_v4_amx",
}
# With AVX-VNNI, in an encoding that CPUs with AVX-512 have.
BYTES_TARGETS = {**TARGETS, "avxvnni": str(Path(__file__).parent / "native/avxvnni_evex.toml")}
STRICT = ("-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")


def standard(isa: str) -> str:
    """The scalar artifact is strict C99; intrinsics headers need GNU C."""
    return "-std=c99" if isa == "scalar" else "-std=gnu99"


def planned(*graphs: Graph, isa: str = "scalar", threads: int = 1) -> Plan:
    """Plan of entry points for an instruction set."""
    return plan(Module("m", graphs), target(TARGETS[isa]), threads=threads)


def compiled(
    p: Plan,
    folder: Path,
    *,
    parts: bool = False,
    flags: Sequence[str] = (),
    toolchain: Toolchain | None = None,
) -> HostLibrary:
    """Emit, compile and load a plan, or skip a CPU that lacks it; arguments as for `linked`."""
    needs_isa(p.target.isa.name)
    return HostLibrary(linked(p, folder, parts=parts, flags=flags, toolchain=toolchain))


def linked(
    p: Plan,
    folder: Path,
    *,
    parts: bool = False,
    flags: Sequence[str] = (),
    toolchain: Toolchain | None = None,
) -> Path:
    """Emit and compile a plan to a library; sources are left in ``folder``.

    Args:
        p: The plan.
        folder: An empty folder.
        parts: Compile ``model.c`` part by part rather than whole.
        flags: Compiler flags after those that make every warning an error.
        toolchain: Compiler; by default the one that users get.
    """
    artifact = emit(p)
    write(artifact, folder)
    t = p.target
    build = t.machine
    toolchain = toolchain or find_toolchain()
    text = (folder / "model.c").read_text(encoding="utf-8")
    heads = [f"#define SPARROW_PART {k}\n" for k in range(artifact.parts)] if parts else [""]
    sources = [Unit(f"model{k}.c", head + text, (folder,)) for k, head in enumerate(heads)]
    warnings = STRICT if t.isa.name == "scalar" else STRICT[1:]
    everything = (standard(t.isa.name), *warnings, *flags)
    objects = toolchain.compile_objects(sources, build, everything)
    return toolchain.link_shared(objects, build)


def write(artifact: Artifact, folder: Path) -> None:
    """Write the files of an artifact."""
    for name, data in artifact.files.items():
        (folder / name).write_bytes(data)


def blob(p: Plan) -> Array:
    """The weights of a plan, aligned."""
    data = aligned(len(p.weights))
    data[:] = np.frombuffer(p.weights, np.uint8)
    return data


def session(p: Plan, library: HostLibrary, threads: int = 1) -> Session:
    """An instance of a compiled plan."""
    return Session(library, blob(p), threads)


def stored(array: Array, t: TensorType) -> Array:
    """A value of the reference as it crosses the interface of a model."""
    if t.dtype == BF16:
        return (round_bfloat16(array).view(np.uint32) >> 16).astype(np.uint16)
    return np.asarray(array, order="C")


def run(
    p: Plan, library: HostLibrary, feeds: Mapping[str, Array], entry: int = 0, threads: int = 1
) -> list[Array]:
    """Outputs of one call of a fresh session."""
    g = p.module.entries[entry]
    inputs = [stored(feeds[name], g.types[name]) for name in g.inputs]
    return session(p, library, threads).run(entry, inputs)


def assert_equals_reference(library: ModelLibrary, p: Plan, g: Graph) -> None:
    """Run a plan of one float32 graph on random inputs: within 2e-5, and threads change no bit."""
    rng = np.random.default_rng(5)
    feeds: dict[str, Array] = {}
    for n in g.inputs:
        t = g.types[n]
        whole = t.dtype.kind != "float"
        x = rng.integers(-50, 50, t.shape) if whole else rng.standard_normal(t.shape)
        feeds[n] = np.asarray(x).astype(t.dtype.numpy)
    found = [library.open(blob(p), threads).run(0, list(feeds.values())) for threads in (1, 2)]
    want = evaluate(g, feeds)
    for n, y, reverse in zip(g.outputs, *found, strict=True):
        assert y.tobytes() == reverse.tobytes()
        np.testing.assert_allclose(y, want[n], rtol=2e-5, atol=2e-5, err_msg=n)


def convolved(p: Plan, library: HostLibrary, entry: int) -> tuple[Conv, Invoke]:
    """The convolution of an entry and its call, after its answers were compared with the reference.

    They are those of one thread, bit for bit those of two.
    """
    g, rng = p.module.entries[entry], np.random.default_rng(entry)
    feeds = {n: rng.standard_normal(g.types[n].shape, np.float32) for n in g.inputs}
    one, two = (run(p, library, feeds, entry, k) for k in (1, 2))
    np.testing.assert_allclose(one[0], evaluate(g, feeds)["y"], 2e-5, 2e-5, err_msg=g.name)
    assert one[0].tobytes() == two[0].tobytes()
    op, step = next((s.node.op, s) for s in p.entries[entry].steps if isinstance(s.node.op, Conv))
    (call,) = step.lowered.calls
    assert isinstance(op, Conv) and isinstance(call, Invoke)
    return op, call
