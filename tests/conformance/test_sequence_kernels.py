"""LSTM, GRU, RNN and Attention kernels against the interpreter, on every instruction set.

All cases of an instruction set are entry points of one library, built the way any model is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from native_harness import needs_isa
from sparrow.builder import Builder
from sparrow.device.build import find_toolchain
from sparrow.device.host import HostLibrary, Session
from sparrow.device.library import library_sources
from sparrow.emit.c import emit
from sparrow.graph import Graph, Module
from sparrow.kernels.recurrent import tile
from sparrow.ops.attention import Attention
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.recurrent import ACTIVATIONS, Activation
from sparrow.ops.rnn import RNN
from sparrow.passes import optimize
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.targets import target as target_row
from sparrow.tensor import F32, I32, Array, TensorType
from strategies import feeds

TARGETS = {"scalar": "x86_64", "avx2": "x86_64_v3", "avx512": "x86_64_v4"}
HIDDEN = (1, 3, 16, 20, 33)
# time steps feed rounding back: a few steps of 1 ulp per activation
TOLERANCE = 5e-6


class _Case:
    """A graph of one op over random operands; constants where the kernels need them."""

    def __init__(self, name: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(name)

    def flag(self) -> bool:
        return bool(self.rng.integers(2))

    def values(self, *shape: int) -> Array:
        normal: Array = self.rng.standard_normal(shape)
        scaled: Array = normal / shape[-1] ** 0.5
        return scaled.astype(np.float32)

    def input(self, *shape: int) -> str:
        return self.b.input(f"in{len(self.b.inputs)}", TensorType(shape, F32))

    def maybe(self, *shape: int) -> str:
        return self.input(*shape) if self.flag() else ""

    def activation(self) -> Activation:
        name = str(self.rng.choice(list(ACTIVATIONS)))
        alpha, beta = ACTIVATIONS[name]
        return Activation(name, 0.4 * alpha, 0.3 * beta)

    def finish(self, outputs: tuple[str, ...]) -> Graph:
        return self.b.finish({f"out{i}": y for i, y in enumerate(outputs)}, {})


def recurrent(kind: type[LSTM | GRU | RNN], hidden: int, seed: int) -> Graph:
    """A recurrent layer with random attributes and optional operands."""
    c = _Case(f"{kind.__name__}_{hidden}_{seed}", seed)
    gates = {LSTM: 4, GRU: 3, RNN: 1}[kind]
    time, batch, width = (int(c.rng.integers(1, n)) for n in (6, 12, 6))
    x = c.input(time, batch, width)
    w = c.b.const(c.values(gates * hidden, width))
    # weights that are only known at run time are packed there
    late = c.rng.integers(3) == 0
    shape = (gates * hidden, hidden)
    r = c.input(*shape) if late else c.b.const(c.values(*shape))
    bias = c.b.const(c.values(gates * hidden)) if c.flag() else ""
    lens = c.b.input("lens", TensorType((batch,), I32)) if c.flag() else ""
    h0, common = c.maybe(batch, hidden), (c.flag(), c.flag(), 0.5 * c.flag())
    operands = [x, w, r, bias, lens, h0]
    odd = seed % 2 == 1
    if kind is LSTM:
        extra = [c.activation() for _ in range(3)] if odd else []
        op: LSTM | GRU | RNN = LSTM(*common, c.flag(), *extra)
        operands += [c.maybe(batch, hidden), c.maybe(3 * hidden)]
    elif kind is GRU:
        after = c.flag()
        op = GRU(*common, after, *([c.activation() for _ in range(2)] if odd else []))
        operands += [c.maybe(hidden)] if after else []
    else:
        op = RNN(*common, *([c.activation()] if odd else []))
    return c.finish(c.b.add_n(op, *operands))


def attention(seed: int) -> Graph:
    """Attention with random sizes, layouts, mask, cap, causality and rows that see nothing."""
    c = _Case(f"attention_{seed}", seed)
    batch, groups, repeat = (int(c.rng.integers(1, 4)) for _ in range(3))
    rows, keys = (int(c.rng.choice([1, 2, 5, 7, 17, 40, 150])) for _ in range(2))
    d, e = (int(c.rng.choice([1, 3, 8, 16, 20, 33])) for _ in range(2))
    inside = (c.flag(), c.flag(), c.flag(), c.flag())
    sizes = ((groups * repeat, rows, d), (groups, keys, d), (groups, keys, e))
    q, k, v = (
        c.input(batch, *((n, h, f) if swap else (h, n, f)))
        for (h, n, f), swap in zip(sizes, inside, strict=False)
    )
    mask = ""
    if c.flag():
        full = (batch, groups * repeat, rows, keys)
        shape = tuple(n if c.flag() else 1 for n in full[c.rng.integers(0, 4) :])
        hidden = np.where(c.rng.random(shape) < 0.4, -np.inf, 0.3).astype(np.float32)
        mask = c.b.const(hidden)
    offset = int(c.rng.integers(-2, 5))
    op = Attention(0.7, 2.0 * c.flag(), c.flag(), offset, inside, blind_nan=c.flag())
    return c.finish((c.b.add(op, q, k, v, mask),))


def graphs() -> Iterator[Graph]:
    """All cases."""
    for kind in (LSTM, GRU, RNN):
        for i, hidden in enumerate(HIDDEN):
            yield from (recurrent(kind, hidden, 10 * i + k) for k in range(2))
    yield from (attention(seed) for seed in range(24))


def compiled(
    entries: tuple[Graph, ...],
    isa: str,
    folder: Path,
    caches: tuple[int, int] | None = None,
    threads: int = 1,
) -> Session:
    """The library of these entry points, for a target with (L1, L2) of so many bytes.

    It is laid out for ``threads``; one runs all their tasks.
    """
    target = target_row(TARGETS[isa])
    if caches is not None:
        target = replace(target, l1_bytes=caches[0], l2_bytes=caches[1])
    planned = plan(Module("cases", entries), target, threads=threads)
    artifact = emit(planned)
    (folder / "model.c").write_bytes(artifact.files["model.c"])
    header = artifact.files["sparrow.h"].decode()
    text = artifact.files["model.c"].decode().replace('#include "sparrow.h"\n', f"{header}\n", 1)
    device = target.machine
    tools = find_toolchain()
    objects = tools.compile_objects(library_sources(text, artifact.parts), device, ("-O1",), jobs=1)
    library = tools.link_shared(objects, device, folder / f"cases{device.library_suffix}")
    return Session(HostLibrary(library), np.frombuffer(planned.weights, np.uint8))


@pytest.mark.parametrize("gates", [1, 2, 3, 4])
def test_sums_of_a_recurrent_tile_are_held(gates: int) -> None:
    for hidden, registers, batch in product(
        (1, 8, 20, 64, 200, 700), (8, 13, 16, 32), range(1, 20)
    ):
        for lanes, threads in product((1, 4, 16), (1, 3)):
            rows, nv, ku = tile(hidden, gates, lanes, registers, batch, threads)
            _, alone, parts = tile(hidden, gates, lanes, registers)
            assert 1 <= rows <= min(8, batch) and ku * rows * nv * gates <= 32
            assert 1 <= nv <= alone and ku == parts
            # no task without a sequence, and none larger than an equal share
            assert (-(-batch // rows) - 1) * rows < batch
            assert rows <= -(-batch // threads)


@pytest.mark.parametrize("isa", TARGETS)
@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_sequences_that_share_weights_keep_their_bits(
    kind: type[LSTM | GRU | RNN], isa: str, tmp_path: Path
) -> None:
    needs_isa(isa)
    gates, hidden, batch = {LSTM: 4, GRU: 3, RNN: 1}[kind], 37, 7
    c = _Case("shared", 5)
    r, x = c.values(gates * hidden, hidden), c.values(5, batch, gates * hidden)

    def layer(sequences: int) -> Graph:
        b = Builder(f"of_{sequences}")
        given = b.input("x", TensorType((5, sequences, gates * hidden), F32))
        outputs = b.add_n(kind(), given, "", b.const(r))
        return b.finish({f"out{i}": y for i, y in enumerate(outputs)}, {})

    session = compiled((layer(batch), layer(1)), isa, tmp_path)
    together = session.run(0, [x])
    for at in range(batch):
        alone = session.run(1, [np.ascontiguousarray(x[:, at : at + 1])])
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, all_of_them[..., at : at + 1, :])


@pytest.mark.parametrize("isa", TARGETS)
def test_kernels_give_the_answers_of_the_interpreter(isa: str, tmp_path: Path) -> None:
    needs_isa(isa)
    sources = tuple(graphs())
    entries = tuple(optimize(g) for g in sources)
    assert_interpreted(compiled(entries, isa, tmp_path), sources)


@pytest.mark.parametrize("isa", TARGETS)
def test_keys_that_come_in_chunks(isa: str, tmp_path: Path) -> None:
    """Scores of a block never fit a cache as small as these; results of a few rows are held.

    Rows of a head are split where three threads cannot share the heads.
    """
    needs_isa(isa)
    sources = tuple(attention(seed) for seed in range(100, 120))
    entries = tuple(optimize(g) for g in sources)
    session = compiled(entries, isa, tmp_path, (1024, 1 << 15), threads=3)
    source = (tmp_path / "model.c").read_text()
    for field, alone in (("chunk", "0"), ("parts", "1")):
        assert set(re.findall(rf"[.]{field} = (\d+)", source)) - {alone}
    assert_interpreted(session, sources)


def assert_interpreted(session: Session, sources: Sequence[Graph]) -> None:
    """Entry points of a library give what the interpreter gives."""
    for i, g in enumerate(sources):
        given = feeds(g, i)
        if "lens" in given:
            # beyond both ends: clamped
            time = g.types["in0"].shape[0]
            given["lens"] = np.arange(-1, g.types["lens"].shape[0] - 1, dtype=np.int32) * time
        for weights in (n.inputs[2] for n in g.nodes if isinstance(n.op, (LSTM, GRU, RNN))):
            if weights in given:
                # as constants are: larger ones make more of every rounding, step by step
                given[weights] = given[weights] / given[weights].shape[1] ** np.float32(0.5)
        wanted = evaluate(g, given)
        # NaN everywhere: a kernel that reads what nobody wrote shows
        session._workspace[:] = 0xFF
        for name, y in zip(g.outputs, session.run(i, [given[x] for x in g.inputs]), strict=True):
            atol = TOLERANCE * max(1.0, float(np.abs(wanted[name]).max(initial=0)))
            np.testing.assert_allclose(y, wanted[name], 0, atol, err_msg=f"{g.name} {name}")
