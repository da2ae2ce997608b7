"""Every pass keeps the answers of random graphs and real models, and is done afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import data
from sparrow.graph import Graph, verify
from sparrow.importers.onnx import import_onnx
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gather import Gather
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.pad import Pad
from sparrow.ops.pool import Pool, PoolKind
from sparrow.ops.reduce import Reduce, ReduceKind
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.passes import PIPELINE, Pass, optimize
from sparrow.passes.report import traffic
from sparrow.reference import evaluate
from unit.passes.check import Net, assert_same, feeds

UNARY = ("relu", "sigmoid", "tanh", "neg", "abs", "exp", "silu", "gelu", "hardswish")
BINARY = ("add", "sub", "mul", "max", "min")
SIZES = (1, 2, 3, 4)
REAL = (
    "face/models/version-RFB-320_simplified.onnx",
    "face/models/version-slim-320.onnx",
    "models/onnx/FastestDet.onnx",
    "models/onnx/gtcrn_stream_simple.onnx",
    "models/onnx/mnist-8.onnx",
    "models/onnx/mnist_lstm.onnx",
    "models/onnx/stories260K_prefill64.onnx",
    "models/onnx/stories260K_step_kv128.onnx",
)


class Grower:
    """Grows a graph: every step applies a random op to random earlier values."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.n = Net()
        self.values = [self.n.x(*self._shape(), name=f"x{i}") for i in range(2)]

    def _shape(self) -> tuple[int, ...]:
        size = st.sampled_from(SIZES)
        return tuple(self.draw(size) for _ in range(self.draw(st.sampled_from((2, 3, 4, 4, 4)))))

    def pick(self) -> str:
        """An earlier value, late ones more often."""
        back = self.draw(st.integers(1, min(4, len(self.values))))
        return self.values[-back]

    def step(self) -> None:
        """Add a value."""
        kind = self.draw(st.sampled_from(STEPS))
        y = kind(self)
        if self.n.value(y) is None and 0 < math.prod(self.n.shape(y)) <= 4096:
            self.values.append(y)

    def unary(self) -> str:
        """An activation."""
        return self.n.call(self.draw(st.sampled_from(UNARY)), self.pick())

    def scalar(self) -> str:
        """Arithmetic with a number."""
        v = self.draw(st.sampled_from((0.0, 1.0, -1.0, 0.5, 3.0, 6.0)))
        return self.n.call(self.draw(st.sampled_from(BINARY)), self.pick(), self.n.f(v))

    def channel(self) -> str:
        """Arithmetic with one constant per channel."""
        x = self.pick()
        shape = self.n.shape(x)
        c = (shape[1], *(1,) * (len(shape) - 2))
        return self.n.call(self.draw(st.sampled_from(BINARY)), x, self.n.w(*c))

    def binary(self) -> str:
        """Arithmetic of two values that fit, else of a value with itself."""
        a, b = self.pick(), self.pick()
        fn = self.draw(st.sampled_from(BINARY))
        try:
            np.broadcast_shapes(self.n.shape(a), self.n.shape(b))
        except ValueError:
            b = a
        return self.n.call(fn, a, b)

    def transpose(self) -> str:
        """A random permutation."""
        x = self.pick()
        return self.n.transpose(x, self.draw(st.permutations(range(len(self.n.shape(x))))))

    def reshape(self) -> str:
        """Two neighbouring axes joined, or one split in two."""
        x = self.pick()
        shape = list(self.n.shape(x))
        i = self.draw(st.integers(0, len(shape) - 1))
        if i + 1 < len(shape) and len(shape) > 2:
            shape[i : i + 2] = [shape[i] * shape[i + 1]]
        elif shape[i] % 2 == 0 and len(shape) < 6:
            shape[i : i + 1] = [2, shape[i] // 2]
        return self.n.reshape(x, shape)

    def slice(self) -> str:
        """Part of an axis, maybe backwards."""
        x = self.pick()
        shape = list(self.n.shape(x))
        i = self.draw(st.integers(0, len(shape) - 1))
        starts, steps = [0] * len(shape), [1] * len(shape)
        if self.draw(st.booleans()):
            starts[i], steps[i] = shape[i] - 1, -1
        else:
            shape[i] = max(1, shape[i] // 2)
        return self.n.add(Slice(tuple(starts), tuple(shape), tuple(steps)), x)

    def gather(self) -> str:
        """A few indices of an axis."""
        x = self.pick()
        axis = self.draw(st.integers(0, len(self.n.shape(x)) - 1))
        index = st.integers(0, self.n.shape(x)[axis] - 1)
        return self.n.add(Gather(axis), x, self.n.ints(*(self.draw(index) for _ in range(2))))

    def concat(self) -> str:
        """A value beside another of its shape, or beside itself."""
        x = self.pick()
        same = [v for v in self.values if self.n.shape(v) == self.n.shape(x)]
        other = self.draw(st.sampled_from(same))
        return self.n.add(Concat(self.draw(st.integers(0, len(self.n.shape(x)) - 1))), x, other)

    def pad(self) -> str:
        """A border of zeros."""
        x = self.pick()
        size = st.integers(0, 1)
        return self.n.add(Pad(tuple((self.draw(size), 1) for _ in self.n.shape(x))), x)

    def reduce(self) -> str:
        """Mean, sum or maximum over an axis."""
        x = self.pick()
        kinds: tuple[ReduceKind, ...] = ("mean", "sum", "max")
        kind = self.draw(st.sampled_from(kinds))
        return self.n.add(Reduce(kind, (self.draw(self._axis(x)),)), x)

    def _axis(self, x: str) -> st.SearchStrategy[int]:
        return st.integers(0, len(self.n.shape(x)) - 1)

    def normal(self) -> str:
        """Softmax or normalization along an axis."""
        x = self.pick()
        axis = self.draw(self._axis(x))
        return self.n.add(Softmax(axis) if axis else Normalize((axis,), 1e-2), x)

    def image(self) -> str:
        """A value of rank 4, made so if need be."""
        x = self.pick()
        shape = self.n.shape(x)
        if len(shape) == 4:
            return x
        short = (1, 1, 1, *shape)[-4:]
        return self.n.reshape(x, short if len(shape) < 4 else (1, 1, 1, math.prod(shape)))

    def conv(self) -> str:
        """A small convolution, maybe depthwise."""
        x = self.image()
        c = self.n.shape(x)[1]
        group = c if self.draw(st.booleans()) else 1
        w = self.n.w(c if group > 1 else 3, c // group, 3, 3)
        return self.n.add(Conv((1, 1), (1, 1), ((1, 1), (1, 1)), group), x, w)

    def upconv(self) -> str:
        """A small transposed convolution."""
        x = self.image()
        w = self.n.w(self.n.shape(x)[1], 2, 2, 2)
        return self.n.add(ConvTranspose((2, 2), (1, 1), ((0, 0), (0, 0))), x, w)

    def pool(self) -> str:
        """A window of 2."""
        kinds: tuple[PoolKind, ...] = ("max", "average")
        kind = self.draw(st.sampled_from(kinds))
        return self.n.add(Pool(kind, (2, 2), (1, 1), (1, 1), ((1, 0), (0, 1))), self.image())

    def product(self) -> str:
        """A matrix product with constant or own weights."""
        x = self.pick()
        k = self.n.shape(x)[-1]
        if self.draw(st.booleans()):
            return self.n.add(MatMul(), x, self.n.w(k, 3))
        return self.n.add(MatMul(trans_b=True), x, x)


STEPS = (
    Grower.unary, Grower.scalar, Grower.channel, Grower.binary, Grower.binary, Grower.transpose,
    Grower.transpose, Grower.reshape, Grower.slice, Grower.gather, Grower.concat, Grower.pad,
    Grower.reduce, Grower.normal, Grower.conv, Grower.conv, Grower.upconv, Grower.pool,
    Grower.product,
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A random graph of a dozen steps; outputs may repeat, or be inputs."""
    grow = Grower(draw)
    for _ in range(draw(st.integers(3, 14))):
        grow.step()
    outputs = draw(st.lists(st.sampled_from(grow.values), max_size=2))
    return grow.n.done(grow.values[-1], *outputs)


def bounded(g: Graph) -> bool:
    """Whether the answers are tame enough to compare within rounding."""
    with np.errstate(all="ignore"):
        return all(np.abs(v).max(initial=0) < 1e4 for v in evaluate(g, feeds(g)).values())


QUICK = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@given(graphs())
@QUICK
def test_each_pass_keeps_the_answers_and_is_done(g: Graph) -> None:
    """One pass after the other: same answers, same interface, nothing left for a second time."""
    tame = bounded(g)
    for p in PIPELINE:
        after = p(g)
        verify(after)
        if tame:
            assert_same(g, after, tol=2e-4)
        again = p(after)
        assert again is after or again.nodes == after.nodes, p.name
        if p.name == "layout":
            assert all(getattr(k.op, "channels_last", True) for k in after.nodes)
        g = after


@given(graphs())
@QUICK
def test_the_whole_pipeline_moves_no_more_than_before(g: Graph) -> None:
    """No more kernels run, apart from transposes for windowed ops and copies to outputs."""
    after = optimize(g)
    before = traffic(g)
    windowed = sum(hasattr(k.op, "channels_last") for k in g.nodes)
    # an output that only renames an input is a copy, which a reshape does not count as
    extra = 2 * windowed + _rows(g) + len(g.outputs)
    assert traffic(after).kernels <= before.kernels + extra


def _rows(g: Graph) -> int:
    """Gathers may become slices side by side."""
    return 3 * sum(isinstance(k.op, Gather) for k in g.nodes)


def _load(name: str) -> Graph:
    return import_onnx(data(name)).graph


@pytest.mark.parametrize("name", REAL)
def test_every_single_pass_on_a_real_model(name: str) -> None:
    """Each pass alone on what the one before left: within 1e-5 of the largest magnitude."""
    g = _load(name)
    given_ = feeds(g)
    want = evaluate(g, given_)
    for p in PIPELINE:
        after = p(g)
        if after is not g:
            _assert_close(p, want, evaluate(after, given_))
        g = after


def _assert_close(p: Pass, want: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> None:
    for k, w in want.items():
        scale = float(np.abs(w).max()) if w.size else 0.0
        np.testing.assert_allclose(got[k], w, rtol=0, atol=1e-5 * scale, err_msg=f"{p.name}: {k}")


LEFT = {
    "face/models/version-RFB-320_simplified.onnx": 1,
    "models/onnx/FastestDet.onnx": 3,
    "models/onnx/mnist_lstm.onnx": 0,
    "models/onnx/stories260K_prefill64.onnx": 0,
    "models/onnx/stories260K_step_kv128.onnx": 0,
    "models/onnx/super_resolution_224.onnx": 1,
}


@pytest.mark.parametrize("name", LEFT)
def test_transposes_left_in_real_models(name: str) -> None:
    """Only those between the interface's layout and the kernels', and one depth-to-space."""
    assert traffic(optimize(_load(name))).transposes == LEFT[name]
