"""Buffers, views and the arena; the auditor that proves them sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import strategies
from emitted import compiled, planned, session
from sparrow import lane
from sparrow.builder import Builder
from sparrow.compiler import Front, compile_front
from sparrow.device.host import aligned
from sparrow.errors import CompileError, UnsupportedOp
from sparrow.graph import Graph, State, retyped, verify
from sparrow.memory.arena import Item, lower_bound, pack
from sparrow.memory.audit import audit
from sparrow.memory.strides import repitch, reshape_strides
from sparrow.memory.views import Place
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Expand
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.plan import Plan, Step, View
from sparrow.reference import evaluate
from sparrow.targets import target
from sparrow.tensor import F32, Array, TensorType

X = lane.Arg(0, F32)
Y = lane.Arg(1, F32)
TANH = lane.call("tanh", X)
SUM = lane.call("add", X, Y)


class Sketch(Builder):
    """A Builder with short names for what these tests need."""

    def state(self, name: str, t: TensorType, initial: Array) -> str:
        """The old value of a state; it keeps that value unless `store` says otherwise."""
        self.types[name] = t
        self.states.append(State(name, name, name, initial))
        return name

    def store(self, name: str, value: str) -> None:
        """The new value of a state."""
        self.states = [replace(s, output=value) if s.name == name else s for s in self.states]

    def graph(self, outputs: list[str]) -> Graph:
        """The Graph with exactly these outputs, whatever they are and however often."""
        g = Graph(
            self.name,
            tuple(self.inputs),
            tuple(outputs),
            (),
            self.types,
            self.consts,
            tuple(self.states),
        )
        done = retyped(g, self.nodes)
        verify(done)
        return done

    def x(self, *shape: int) -> str:
        """A new float32 input."""
        return self.input(f"x{len(self.inputs)}", TensorType(shape, F32))

    def tanh(self, x: str) -> str:
        """An elementwise op."""
        return self.lane(TANH, x)

    def weights(self, *shape: int) -> str:
        """A constant."""
        return self.const(
            np.random.default_rng(len(self.consts)).standard_normal(shape, np.float32)
        )

    def slice(self, x: str, start: int, size: int, axis: int, step: int = 1) -> str:
        """Part of one axis."""
        shape = self.shape(x)
        starts, sizes, steps = [0] * len(shape), list(shape), [1] * len(shape)
        starts[axis], sizes[axis], steps[axis] = start, size, step
        return self.add(Slice(tuple(starts), tuple(sizes), tuple(steps)), x)

    def concat(self, axis: int, *x: str) -> str:
        """Values joined along an axis."""
        return self.add(Concat(axis), *x)

    def conv(self, x: str, m: int, k: int = 1) -> str:
        """A channels-last convolution that keeps the image size."""
        c = self.shape(x)[-1]
        pads = ((k // 2, k // 2),) * 2
        return self.add(Conv((1, 1), (1, 1), pads, 1, True), x, self.weights(m, c, k, k), "")


def kernels(p: Plan, entry: int = 0) -> list[str]:
    return [s.kernel for s in p.entries[entry].steps]


def feeds(g: Graph, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        n: rng.standard_normal(g.types[n].shape).astype(g.types[n].dtype.numpy) for n in g.inputs
    }


def check(p: Plan, folder: Path) -> None:
    """The auditor agrees, and the compiled plan gives the reference's answers."""
    assert audit(p) == []
    library = compiled(p, folder)
    for e, g in enumerate(p.module):
        given_ = feeds(g, e)
        want = evaluate(g, given_)
        got = session(p, library).run(e, [given_[n] for n in g.inputs])
        for name, y in zip(g.outputs, got, strict=True):
            np.testing.assert_allclose(
                y, want[name], 1e-4, 1e-6 * np.abs(want[name]).max(initial=1)
            )


# -- corner cases --------------------------------------------------------------------------------


def outputs_everywhere(b: Sketch) -> list[str]:
    """Outputs that are an input, a constant, one another, and values used later."""
    x = b.x(3, 5)
    y = b.tanh(x)
    return [x, b.weights(4), y, y, b.tanh(y), x]


def twice(b: Sketch) -> list[str]:
    """The same value, and a reshape of it, joined to itself."""
    y = b.tanh(b.x(2, 6))
    flat = b.reshape(y, (2, 6, 1))
    return [b.concat(0, y, y), b.concat(1, b.reshape(y, (2, 6, 1)), flat, b.tanh(flat))]


def slices(b: Sketch) -> list[str]:
    """Slices joined in another order, one backwards, and slices of the result."""
    y = b.tanh(b.x(4, 8))
    z = b.concat(1, b.slice(y, 4, 4, 1), b.slice(y, 3, 4, 1, -1), y)
    return [b.tanh(b.slice(z, 2, 9, 1)), b.slice(z, 0, 2, 0)]


def reshaped_part(b: Sketch) -> list[str]:
    """A convolution written into a concatenation over its reshape."""
    x = b.x(1, 4, 4, 3)
    parts = [b.reshape(b.conv(x, 4), (1, 16, 4)), b.reshape(b.conv(x, 8), (1, 32, 4))]
    return [b.add(Softmax(2), b.concat(1, *parts))]


def dense_block(b: Sketch) -> list[str]:
    """Channels joined again and again, as in DenseNet."""
    x = b.conv(b.x(1, 5, 4, 3), 4)
    for _ in range(3):
        x = b.concat(3, x, b.conv(x, 4, 3))
    return [b.conv(x, 5)]


def split_channels(b: Sketch) -> list[str]:
    """Channels split, processed and joined, as in ShuffleNet."""
    x = b.conv(b.x(1, 4, 4, 3), 8)
    left, right = b.slice(x, 0, 4, 3), b.slice(x, 4, 4, 3)
    y = b.concat(3, left, b.conv(right, 4, 3))
    z = b.transpose(b.reshape(y, (1, 4, 4, 2, 4)), (0, 1, 2, 4, 3))
    return [b.reshape(z, (1, 4, 4, 8))]


def empty(b: Sketch) -> list[str]:
    """Tensors without elements."""
    x = b.x(2, 0, 3)
    y = b.tanh(x)
    z = b.concat(1, y, b.x(2, 2, 3))
    return [b.add(Softmax(2), x), z, b.conv(b.x(0, 4, 4, 3), 2)]


def scalars(b: Sketch) -> list[str]:
    """Tensors without axes."""
    x = b.x()
    return [b.tanh(x), b.reshape(x, (1, 1)), b.lane(SUM, x, b.x(3))]


def broadcast_in_place(b: Sketch) -> list[str]:
    """An operand that dies beside a broadcast slice of itself."""
    y = b.tanh(b.x(4, 4))
    z = b.lane(SUM, y, b.slice(y, 0, 1, 0))
    return [b.lane(SUM, z, b.add(Expand((4, 4)), b.slice(z, 1, 1, 1)))]


def transposed(b: Sketch) -> list[str]:
    """Transposes before and after everything that takes strides, and before softmax."""
    x = b.x(2, 3, 6, 5)
    y = b.conv(b.transpose(x, (0, 2, 3, 1)), 4, 3)
    z = b.transpose(b.tanh(y), (0, 3, 1, 2))
    flat = b.reshape(z, (2, 4, 30))
    m = b.add(MatMul(), b.transpose(flat, (0, 2, 1)), b.weights(4, 7))
    return [z, b.add(Softmax(2), b.transpose(m, (0, 2, 1)))]


def residual(b: Sketch) -> list[str]:
    """An epilogue operand that dies."""
    x = b.conv(b.x(1, 4, 4, 3), 4)
    op = Conv((1, 1), (1, 1), ((0, 0),) * 2, 1, True, SUM)
    return [b.tanh(b.add(op, x, b.weights(4, 4, 1, 1), "", x))]


CASES: tuple[Callable[[Sketch], list[str]], ...] = (
    outputs_everywhere, twice, slices, reshaped_part, dense_block, split_channels, empty, scalars,
    broadcast_in_place, transposed, residual,
)  # fmt: skip


def graph_of(case: Callable[[Sketch], list[str]]) -> Graph:
    b = Sketch(case.__name__)
    return b.graph(case(b))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_corner_case(case: Callable[[Sketch], list[str]], tmp_path: Path) -> None:
    check(planned(graph_of(case)), tmp_path)


def delay_line() -> Graph:
    """s0 <- x, s1 <- s0, s2 <-> s3 swap, s4 counts in place, s5 keeps its value; y sees all."""
    b = Sketch("states")
    x = b.x(3)
    old = [b.state(f"s{i}", TensorType((3,), F32), np.full(3, i, np.float32)) for i in range(6)]
    total = x
    for s in old:
        total = b.lane(SUM, total, s)
    new = [x, old[0], old[3], old[2], b.lane(SUM, old[4], x), old[5]]
    for i, v in enumerate(new):
        b.store(f"s{i}", v)
    return b.graph([total, old[0]])


def test_states_are_read_before_they_are_written(tmp_path: Path) -> None:
    g = delay_line()
    p = planned(g)
    assert audit(p) == []
    run = session(p, compiled(p, tmp_path))
    states: dict[str, Array] = {}
    for k in range(4):
        x = np.full(3, 10.0**k, np.float32)
        want = evaluate(g, {"x0": x}, states)
        got = run.run(0, [x])
        states = {s.name: want[s.output] for s in g.states}
        for name, y in zip(g.outputs, got, strict=True):
            np.testing.assert_allclose(y, want[name])
        assert {n: v.tolist() for n, v in run.state().items()} == {
            n: v.tolist() for n, v in states.items()
        }


def test_entries_share_weights_and_states(tmp_path: Path) -> None:
    w = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)

    def entry(n: int) -> Graph:
        b = Sketch(f"e{n}")
        s = b.state("s", TensorType((8,), F32), np.ones(8, np.float32))
        y = b.add(MatMul(), b.x(n, 8), b.const(w))
        b.store("s", b.lane(lane.call("mul", X, lane.Imm(2.0, F32)), s))
        return b.graph([b.lane(SUM, y, s)])

    p = planned(entry(1), entry(5))
    assert audit(p) == []
    assert len(p.weights) < 2 * w.nbytes
    assert (len(p.states), p.arena_bytes) == (1, max(e.arena_bytes for e in p.entries))
    run = session(p, compiled(p, tmp_path))
    x = np.ones((5, 8), np.float32)
    np.testing.assert_allclose(run.run(0, [x[:1]])[0], x[:1] @ w + 1, 1e-5)
    np.testing.assert_allclose(run.run(1, [x])[0], x @ w + 2, 1e-5)
    assert run.state()["s"].tolist() == [4.0] * 8


# -- movement that vanishes ----------------------------------------------------------------------


def test_the_transpose_of_an_image_vanishes_before_its_convolution() -> None:
    b = Sketch("g")
    y = b.conv(b.transpose(b.x(1, 3, 32, 32), (0, 2, 3, 1)), 16, 3)
    assert kernels(planned(b.graph([y]), isa="avx2")) == ["conv2d_f32"]


def test_a_transpose_after_a_loop_is_written_by_the_loop() -> None:
    b = Sketch("g")
    y = b.transpose(b.tanh(b.x(12, 8)), (1, 0))
    assert kernels(planned(b.graph([y]))) == ["loop"]


def test_concatenated_convolutions_write_where_they_belong() -> None:
    assert kernels(planned(graph_of(reshaped_part)))[:2] == ["conv2d_f32"] * 2
    assert "copy_concat" not in kernels(planned(graph_of(dense_block)))


def decoded(*, late: bool) -> Graph:
    """Two parts of a value replaced by functions of them; ``late``: one is read again behind."""
    b = Sketch("g")
    y = b.tanh(b.x(6, 40, 25))
    first, second, rest = (b.slice(y, start, size, 2) for start, size in ((0, 2), (2, 2), (4, 21)))
    wide = b.lane(SUM, first, first)
    z = b.concat(2, wide, b.tanh(second), rest)
    return b.graph([b.tanh(z), b.lane(SUM, first, wide) if late else b.tanh(wide)])


def test_a_value_becomes_the_concatenation_that_replaces_parts_of_it() -> None:
    g = decoded(late=False)
    p = planned(g)
    assert "copy_concat" not in kernels(p)
    assert audit(p) == []


def test_a_part_that_is_read_again_is_not_overwritten() -> None:
    p = planned(decoded(late=True))
    assert "copy_concat" in kernels(p)
    assert audit(p) == []


@pytest.mark.parametrize("kind", ["loop", "view", "input"])
def test_a_part_that_is_written_first_is_not_overwritten(kind: str) -> None:
    b = Sketch("g")
    early = b.x(6, 40, 2)
    if kind == "view":
        early = b.reshape(b.tanh(b.reshape(early, (240, 2))), (6, 40, 2))
    elif kind == "loop":
        early = b.tanh(early)
    y = b.tanh(b.x(6, 40, 25))
    p = planned(b.graph([b.tanh(b.concat(2, early, b.slice(y, 2, 23, 2)))]))
    assert audit(p) == []


def test_channel_halves_are_views() -> None:
    assert "copy_slice" not in kernels(planned(graph_of(split_channels)))


@given(
    st.lists(st.sampled_from((1, 2, 3, 4)), max_size=4),
    st.lists(st.sampled_from((1, 2, 3, 4, 6, 8, 12)), max_size=4),
    st.permutations(range(4)),
)
def test_reshape_strides_is_numpy_without_a_copy(
    shape: list[int], to: list[int], order: list[int]
) -> None:
    size = int(np.prod(shape))
    if int(np.prod(to)) != size:
        to = [*to[:1], size // to[0]] if to and size % to[0] == 0 else [size]
    perm = [p for p in order if p < len(shape)]
    x = np.arange(size).reshape([shape[p] for p in np.argsort(perm)]).transpose(perm)
    strides = tuple(s // x.itemsize for s in x.strides)
    found = reshape_strides(tuple(x.shape), strides, tuple(to))
    y = x.reshape(to)
    if found is None:
        assert not np.shares_memory(x, y)
    else:
        base = np.arange(size)
        seen = np.lib.stride_tricks.as_strided(base, to, [s * base.itemsize for s in found])
        assert np.array_equal(seen, y)


def test_repitch_refuses_an_axis_that_leaves_its_row() -> None:
    assert repitch(0, (3, 4), (4, 1), 4, 10) == (0, (10, 1))
    assert repitch(5, (2, 2), (4, 1), 4, 10) == (11, (10, 1))
    assert repitch(0, (12,), (1,), 4, 10) is None
    assert repitch(2, (2, 4), (4, 1), 4, 10) is None


# -- the auditor ---------------------------------------------------------------------------------


def altered(p: Plan, index: int, change: Callable[[Step], Step]) -> Plan:
    e = p.entries[0]
    steps = tuple(change(s) if i == index else s for i, s in enumerate(e.steps))
    return replace(p, entries=(replace(e, steps=steps),))


def moved(v: View, by: int) -> View:
    return replace(v, offset=v.offset + by)


def chain() -> Plan:
    """Softmax a -> b -> c with a alive until c: three buffers."""
    b = Sketch("chain")
    x = b.conv(b.x(1, 4, 4, 3), 16)
    y = b.conv(x, 16, 3)
    return planned(b.graph([b.lane(SUM, b.conv(y, 16, 3), x)]))


def faults() -> Iterator[tuple[str, Plan]]:
    p = chain()
    size = 4 * 4 * 16 * 4
    yield (
        "is not there any more",
        altered(p, 1, lambda s: replace(s, outputs=(replace(s.outputs[0], place=_place(s, 0)),))),
    )
    yield (
        "is not there any more",
        altered(p, 1, lambda s: replace(s, inputs=(moved(_view(s), 64), *s.inputs[1:]))),
    )
    yield "leaves its arena", replace(p, arena_bytes=p.arena_bytes - 4)
    first = p.entries[0].steps[0]
    strides = (*first.outputs[0].strides[:2], 8, 1)
    yield (
        "overlaps itself",
        altered(p, 0, lambda s: replace(s, outputs=(replace(s.outputs[0], strides=strides),))),
    )
    yield (
        "not written completely",
        altered(p, -1 % len(p.entries[0].steps), lambda s: replace(s, outputs=(_short(s),))),
    )
    yield "packed weights", altered(p, 0, lambda s: replace(s, packed=(s.packed[0] + 64,)))
    yield "packed weights", replace(p, weights=bytes(len(p.weights)))
    yield (
        "writes",
        altered(
            p,
            0,
            lambda s: replace(
                s,
                outputs=(
                    replace(s.outputs[0], place=replace(_place(s, 0), kind="weights", offset=0)),
                ),
            ),
        ),
    )
    scratch = replace(_place(first, -1), offset=p.entries[0].steps[1].outputs[0].place.offset)
    yield (
        "lies on the scratch",
        altered(
            p,
            1,
            lambda s: replace(s, scratch=scratch, lowered=replace(s.lowered, scratch_bytes=size)),
        ),
    )


def _view(s: Step) -> View:
    v = s.inputs[0]
    assert v is not None
    return v


def _place(s: Step, k: int) -> Place:
    return s.outputs[0].place if k < 0 else _view(s).place


def _short(s: Step) -> View:
    v = s.outputs[0]
    shape = (*v.type.shape[:-1], v.type.shape[-1] - 1)
    return replace(v, type=replace(v.type, shape=shape))


@pytest.mark.parametrize("index", range(9))
def test_auditor_finds_a_planted_fault(index: int) -> None:
    text, p = list(faults())[index]
    try:
        found = audit(p)
    except ValueError as e:
        found = [f"not written completely ({e})"]
    assert any(text in f for f in found), found


# -- the arena -----------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 12), st.integers(0, 5)), max_size=14)
)
def test_packed_items_do_not_overlap(raw: list[tuple[int, int, int]]) -> None:
    items = [Item(size, first, first + more) for size, first, more in raw]
    offsets, total = pack(items)
    assert total >= lower_bound(items)
    for i, a in enumerate(items):
        assert (offsets[i] % 64 == 0 and offsets[i] + a.bytes <= total) or a.bytes == 0
        for j, b in enumerate(items[:i]):
            if a.first <= b.last and b.first <= a.last and a.bytes and b.bytes:
                apart = offsets[i] + a.bytes <= offsets[j] or offsets[j] + b.bytes <= offsets[i]
                assert apart
    assert pack(items) == (offsets, total)


def test_planned_bytes_are_the_high_water_mark(tmp_path: Path) -> None:
    """The highest byte that a run touches is the last one of the arena; guards stay."""
    b = Sketch("g")
    x = b.conv(b.x(1, 9, 7, 3), 16, 3)
    y = b.conv(b.conv(x, 24, 3), 16)
    p = planned(b.graph([b.add(Softmax(3), b.lane(SUM, x, y))]), isa="avx2")
    library = compiled(p, tmp_path)
    run = session(p, library)
    guard = 4096
    memory = aligned(p.arena_bytes + 2 * guard)
    touched = np.zeros(memory.size, bool)
    for canary in (0xA5, 0x5A):
        memory[:] = canary
        run._calls[0].call.workspace = memory.ctypes.data + guard
        run.run(0, [np.ones((1, 9, 7, 3), np.float32) * canary])
        touched |= memory != canary
    at = np.flatnonzero(touched)
    assert at[0] >= guard
    assert at[-1] == guard + p.arena_bytes - 1


def test_in_place_chains_need_one_buffer() -> None:
    b = Sketch("g")
    y = b.conv(b.x(1, 4, 4, 3), 16)
    for _ in range(3):
        y = b.add(Softmax(3), b.tanh(y))
    assert planned(b.graph([b.conv(y, 8)])).arena_bytes == 4 * 4 * 16 * 4


@given(strategies.graphs())
@settings(suppress_health_check=list(HealthCheck))
def test_plans_of_random_graphs_are_sound(g: Graph) -> None:
    try:
        p = planned(g, isa="avx2")
    except UnsupportedOp:
        assume(False)
    assert audit(p) == []


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_the_arena_is_nearly_as_small_as_what_is_alive(
    case: Callable[[Sketch], list[str]],
) -> None:
    e = planned(graph_of(case)).entries[0]
    assert e.live_bytes <= e.arena_bytes <= 1.05 * e.live_bytes


@pytest.mark.parametrize("row", ["armv7", "x86", "cortex_m7", "web"])
def test_memory_beyond_32_bits_of_address_is_refused(row: str) -> None:
    b = Sketch("g")
    front = Front((), (b.graph([b.tanh(b.x(1 << 28))]),), ())  # 1 GiB in, 1 GiB out
    with pytest.raises(CompileError, match=r"take 2,147,483,648 bytes.* addresses 2,147,483,647"):
        compile_front(front, target(row))
    assert compile_front(front, target("x86_64")).plan.io_bytes == 1 << 31
