"""Random networks as exporters write them, and random ways to quantize each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sparrow.quant.recipe import Precision, Recipe

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
T = TypeVar("T")

SAMPLES = 33
# Elements of an image that make the next layers pool.
MOST = 40_000
# Positions of a sequence that an image may become.
LONGEST = 70

RECIPES = (
    Recipe(),
    Recipe(symmetric=True),
    Recipe(weights="per_tensor", equalize=True),
    Recipe(rounding="nearest", ranges="minmax", bias_correction=False),
    Recipe(scheme="tflite"),
    Recipe(scales="power_of_two"),
    Recipe(scheme="fixed31"),
    Recipe(precision="int16x8"),
    Recipe(residual="int8"),
    Recipe(smooth=0.5),
    Recipe(weights="per_group", group=8),
    Recipe(complete=True, residual="int8"),
    Recipe(precision="bfloat16"),
)
PINNED = ("Conv", "MatMul", "Gemm", "Attention", "Mul", "Add")


class Net:
    """An ONNX graph under construction, drawn from one generator."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape: Shape = ()

    def one(self, *options: T) -> T:
        """One of several."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, of: int) -> bool:
        """True once in ``of`` times."""
        return not self.rng.integers(of)

    def const(self, a: Any, dtype: type = np.float32) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(a, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        """A constant of int64."""
        return self.const(values, np.int64)

    def weights(self, *shape: int, fan: int) -> str:
        """Weights that keep the variance; now and then of uneven rows."""
        a = self.rng.standard_normal(shape) * self.one(0.7, 1.0, 1.4) / fan**0.5
        if self.chance(6):
            a *= np.exp(self.rng.standard_normal((shape[0],) + (1,) * (len(shape) - 1)))
        return self.const(a)

    def factors(self, *shape: int) -> str:
        """Positive factors around one."""
        return self.const(self.rng.random(shape) + 0.5)

    def shifts(self, *shape: int) -> str:
        """Small terms."""
        return self.const(self.rng.standard_normal(shape) * 0.2)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The result of a node."""
        return self.split(op, 1, *inputs, **attributes)[0]

    def split(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """The results of a node."""
        n = len(self.nodes)
        names = [f"v{n}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, names, f"{op.lower()}_{n}", **attributes))
        return names


def activated(net: Net, x: str, channels: Shape) -> str:
    """A function of each element; mostly what networks have behind a sum, sometimes none."""
    ways: tuple[Callable[[], str], ...] = (
        *(lambda: net.add("Relu", x),) * 4,
        lambda: net.add("Clip", x, net.const(0), net.const(6)),
        lambda: net.add("HardSwish", x),
        lambda: net.add("Mul", x, net.add("Sigmoid", x)),
        lambda: net.add("LeakyRelu", x, alpha=0.1),
        lambda: net.add("PRelu", x, net.factors(*channels)),
        lambda: net.add("Tanh", x),
        lambda: net.add("Elu", x),
        lambda: net.add("Gelu", x),
        lambda: net.add("HardSigmoid", x, alpha=1 / 6, beta=0.5),
        lambda: x,
        lambda: x,
    )
    return net.one(*ways)()


def convolved(net: Net, x: str, m: int = 0, k: int = 0, stride: int = 0) -> str:
    """A convolution, its normalization and its activation; any kernel, groups, dilation, pads."""
    _, c, h, w = net.shape
    k = k or net.one(1, 1, 3, 3, 3, 5)
    kw = net.one(1, 3) if net.chance(9) else k
    group = 1 if m else net.one(1, 1, 1, c, c, 2 - c % 2)
    m = m or (c * net.one(1, 1, 1, 2) if group == c else 2 * net.one(2, 4, 8, 10, 12, 16) + 1)
    m = max(1, m // group) * group
    stride = stride or (net.one(1, 1, 1, 2) if min(h, w) > 4 else 1)
    d = net.one(1, 1, 1, 2) if k == 3 and stride == 1 else 1
    pads = (0, 0) if net.chance(7) and min(h, w) > d * max(k, kw) else (d * (k // 2), d * (kw // 2))
    out = [
        (n + 2 * p - d * (q - 1) - 1) // stride + 1
        for n, p, q in zip((h, w), pads, (k, kw), strict=True)
    ]
    weights = net.weights(m, c // group, k, kw, fan=c // group * k * kw)
    bias = () if net.chance(4) else (net.shifts(m),)
    y = net.add(
        "Conv", x, weights, *bias, strides=[stride] * 2, pads=[*pads, *pads], group=group,
        dilations=[d, d],
    )  # fmt: skip
    net.shape = (1, m, *out)
    if net.chance(5):
        moments = (net.factors(m), net.shifts(m), net.shifts(m), net.factors(m))
        y = net.add("BatchNormalization", y, *moments)
    return activated(net, y, (m, 1, 1))


def _residual(net: Net, x: str) -> str:
    s = net.shape
    y = convolved(net, convolved(net, x, net.one(4, 12), 1, 1), net.one(8, 15), 3, 1)
    if net.shape[2:] != s[2:]:
        return y
    y = net.add("Conv", y, net.weights(s[1], net.shape[1], 1, 1, fan=net.shape[1]))
    net.shape = s
    y = net.add("Add", *net.one((x, y), (y, x)))
    return net.add("Relu", y) if net.chance(2) else y


def _scaled(net: Net, x: str) -> str:
    c = net.shape[1]
    op, axes = net.one(("GlobalAveragePool", ()), ("ReduceMean", (net.ints(2, 3),)))
    mean = net.add(op, x, *axes)
    few = max(1, c // 4)
    y = net.add("Relu", net.add("Conv", mean, net.weights(few, c, 1, 1, fan=c)))
    y = net.add("Conv", y, net.weights(c, few, 1, 1, fan=few))
    y = net.add(net.one("Sigmoid", "HardSigmoid"), y)
    return net.add("Mul", *net.one((x, y), (y, x)))


def _shuffled(net: Net, x: str) -> str:
    n, c, h, w = net.shape
    if c % 2:
        return x
    y = net.add("Reshape", x, net.ints(n, 2, c // 2, h, w))
    y = net.add("Transpose", y, perm=[0, 2, 1, 3, 4])
    return net.add("Reshape", y, net.ints(*net.shape))


def _halved(net: Net, x: str) -> str:
    n, c, h, w = net.shape
    if c % 2:
        return x
    a, b = net.split("Split", 2, x, axis=1, num_outputs=2)
    net.shape = (n, c // 2, h, w)
    b = convolved(net, b, net.one(4, 9), stride=1)
    if net.shape[2:] != (h, w):
        return b
    net.shape = (n, c // 2 + net.shape[1], h, w)
    return net.add("Concat", a, b, axis=1)


def _pooled(net: Net, x: str) -> str:
    n, c, h, w = net.shape
    k, stride = net.one(2, 3), net.one(1, 2)
    p = k // 2 if k == 3 else 0
    if min(h, w) < 3:
        return x
    net.shape = (n, c, (h + 2 * p - k) // stride + 1, (w + 2 * p - k) // stride + 1)
    sizes = {"kernel_shape": [k, k], "strides": [stride] * 2, "pads": [p] * 4}
    if net.chance(2):
        return net.add("MaxPool", x, **sizes)
    return net.add("AveragePool", x, count_include_pad=net.one(0, 1), **sizes)


def _resized(net: Net, x: str) -> str:
    n, c, h, w = net.shape
    net.shape = (n, c, 2 * h, 2 * w)
    how: dict[str, str] = net.one(
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        {"mode": "linear"},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    )
    return net.add("Resize", x, "", net.const([1, 1, 2, 2]), **how)


def _transposed(net: Net, x: str) -> str:
    _, c, h, w = net.shape
    m, k = net.one(4, 8, 16), net.one(2, 3, 4)
    p = 0 if k == 2 else 1
    weights = net.weights(c, m, k, k, fan=2 * c)
    y = net.add("ConvTranspose", x, weights, strides=[2, 2], pads=[p] * 4)
    net.shape = (1, m, 2 * (h - 1) + k - 2 * p, 2 * (w - 1) + k - 2 * p)
    return activated(net, y, (m, 1, 1))


def _padded(net: Net, x: str) -> str:
    n, c, h, w = net.shape
    if min(h, w) < 2:
        return x
    net.shape = (n, c, h + 2, w + 2)
    pads = net.ints(0, 0, 1, 1, 0, 0, 1, 1)
    return net.add("Pad", x, pads, mode=net.one("reflect", "edge", "constant"))


def _sliced(net: Net, x: str) -> str:
    n, c, h, w = net.shape
    if h < 5:
        return x
    start = net.one(0, 1, 2)
    net.shape = (n, c, (h - start) // 2, w)
    return net.add("Slice", x, net.ints(start), net.ints(h - 1), net.ints(2), net.ints(2))


def _spread(net: Net, x: str) -> str:
    n, c, h, w = net.shape
    if c % 4:
        return x
    net.shape = (n, c // 4, 2 * h, 2 * w)
    return net.add("DepthToSpace", x, blocksize=2)


def _affine(net: Net, x: str) -> str:
    return net.add(net.one("Mul", "Add", "Sub"), x, net.factors(1, net.shape[1], 1, 1))


BLOCKS = (
    *(convolved,) * 7, *(_residual,) * 2, _scaled, _shuffled, _halved, _pooled, _resized,
    _transposed, _padded, _sliced, _spread, _affine,
)  # fmt: skip


def image(net: Net, x: str, blocks: int) -> str:
    """Blocks over an image, each of which may meet what came before."""
    seen = [(x, net.shape)]
    for _ in range(blocks):
        x = net.one(*BLOCKS)(net, x)
        met = [(y, s) for y, s in seen if s[2:] == net.shape[2:] and y != x]
        if met and net.chance(4):
            y, s = net.one(*met)
            if s == net.shape and net.chance(2):
                x = net.add(net.one("Add", "Mul", "Sub", "Max"), x, y)
            else:
                x = net.add("Concat", x, y, axis=1)
                net.shape = (1, net.shape[1] + s[1], *s[2:])
        if np.prod(net.shape) > MOST:
            x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            net.shape = (1, net.shape[1], net.shape[2] // 2, net.shape[3] // 2)
        seen.append((x, net.shape))
    return x


def product(net: Net, x: str, m: int) -> str:
    """A matrix product over the last axis, mostly with a bias."""
    c = net.shape[-1]
    net.shape = (*net.shape[:-1], m)
    y = net.add("MatMul", x, net.weights(c, m, fan=c))
    return y if net.chance(4) else net.add("Add", y, net.shifts(m))


def _normalized(net: Net, x: str) -> str:
    if net.chance(4):
        return x
    c = net.shape[-1]
    return net.add("LayerNormalization", x, net.factors(c), net.shifts(c), axis=-1)


def _attention(net: Net, x: str) -> str:
    _, length, c = net.shape
    heads = net.one(*(h for h in (1, 2, 3, 4) if c % h == 0))
    y, parts = _normalized(net, x), []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        part = net.add("Reshape", product(net, y, c), net.ints(1, length, heads, c // heads))
        parts.append(net.add("Transpose", part, perm=perm))
    q, k, v = parts
    root = (c / heads) ** 0.5
    op, by = net.one(("Div", root), ("Mul", 1 / root))
    scores = net.add(op, net.add("MatMul", q, k), net.const(by))
    if net.chance(4):
        mask = np.triu(np.full((length, length), -1e4), 1)
        scores = net.add("Add", scores, net.const(mask))
    y = net.add("MatMul", net.add("Softmax", scores, axis=-1), v)
    y = net.add("Reshape", net.add("Transpose", y, perm=[0, 2, 1, 3]), net.ints(1, length, c))
    return net.add("Add", x, product(net, y, c))


def _mlp(net: Net, x: str) -> str:
    c = net.shape[-1]
    y = product(net, _normalized(net, x), 2 * c)
    return net.add("Add", x, product(net, activated(net, y, (2 * c,)), c))


def _layer(net: Net, x: str) -> str:
    m = net.one(8, 16, 23)
    return activated(net, product(net, x, m), (m,))


def _recurrent(net: Net, x: str) -> str:
    _, length, c = net.shape
    kind, h = net.one("LSTM", "GRU"), net.one(8, 16)
    gates = 4 * h if kind == "LSTM" else 3 * h
    how = {"hidden_size": h} | ({} if kind == "LSTM" else {"linear_before_reset": net.one(0, 1)})
    weights = net.weights(1, gates, c, fan=c), net.weights(1, gates, h, fan=h)
    y = net.add(kind, net.add("Transpose", x, perm=[1, 0, 2]), *weights, **how)
    net.shape = (1, length, h)
    return net.add("Transpose", net.add("Squeeze", y, net.ints(1)), perm=[1, 0, 2])


def sequence(net: Net, x: str, layers: int) -> str:
    """Layers of a transformer, dense and recurrent ones, over (1, length, features)."""
    for _ in range(layers):
        x = net.one(_attention, _attention, _mlp, _layer, _recurrent)(net, x)
    return x


def _classes(net: Net, x: str) -> list[str]:
    c, m = net.shape[1], net.one(5, 10)
    y = net.add("Flatten", net.add("GlobalAveragePool", x))
    y = net.add("Gemm", y, net.weights(m, c, fan=c), net.shifts(m), transB=1)
    return [net.add("Softmax", y, axis=-1) if net.chance(2) else y]


def _dense(net: Net, x: str) -> list[str]:
    size = int(np.prod(net.shape))
    if size > 4000:
        return [x]
    return [net.add("Gemm", net.add("Flatten", x), net.weights(size, 10, fan=size))]


def _heads(net: Net, x: str) -> list[str]:
    s, found, sizes = net.shape, [], []
    for m, each in ((6, 2), (12, 4)):
        net.shape = s
        y = net.add("Transpose", convolved(net, x, m, net.one(1, 3), 1), perm=[0, 2, 3, 1])
        sizes.append(net.shape[2:])
        found.append(net.add("Reshape", y, net.ints(1, -1, each)))
    op, how = net.one(("Sigmoid", {}), ("Softmax", {"axis": -1}))
    found[0] = net.add(op, found[0], **how)
    if sizes[0] == sizes[1] and net.chance(2):
        return [net.add("Concat", *found, axis=-1)]
    return found


def _tokens(net: Net, x: str) -> list[str]:
    while np.prod(net.shape[2:]) > LONGEST:
        n, c, h, w = net.shape
        x = net.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        net.shape = (n, c, (h + 1) // 2, (w + 1) // 2)
    _, c, h, w = net.shape
    y = net.add("Transpose", net.add("Reshape", x, net.ints(1, c, h * w)), perm=[0, 2, 1])
    net.shape = (1, h * w, c)
    y = sequence(net, y, net.one(1, 2, 3))
    y = net.add("ReduceMean", y, net.ints(1), keepdims=0)
    net.shape = (1, net.shape[-1])
    return [product(net, y, 7)]


def network(seed: int) -> onnx.ModelProto:
    """A network of random weights with an input ``x`` whose elements are standard normal."""
    net = Net(seed)
    given: Shape
    if net.chance(6):
        net.shape = given = (1, net.one(7, 16, 33), net.one(8, 12, 32))
        outputs = [product(net, sequence(net, "x", net.one(2, 3, 4, 5)), 5)]
    else:
        net.shape = given = (1, net.one(1, 3, 3, 4), net.one(12, 16, 21, 32), net.one(12, 17, 24))
        x = image(net, "x", net.one(3, 4, 6, 8, 10))
        outputs = net.one(lambda *_: [x], _classes, _dense, _heads, _tokens)(net, x)
    shown = [helper.make_tensor_value_info(y, TensorProto.FLOAT, None) for y in outputs]
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, given)
    graph = helper.make_graph(net.nodes, f"network{seed}", [read], shown, net.constants)
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


def answers(model: onnx.ModelProto, feeds: Sequence[dict[str, Floats]]) -> list[list[Floats]]:
    """What ONNX Runtime computes of a file as it stands."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [session.run(None, f) for f in feeds]


def samples(model: onnx.ModelProto, seed: int) -> list[dict[str, Floats]]:
    """Inputs of a network."""
    rng = np.random.default_rng(seed)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(SAMPLES)]


def recipe(seed: int) -> Recipe:
    """A way to quantize; now and then with a kind of layer pinned to another precision."""
    r = RECIPES[seed % len(RECIPES)]
    rng = np.random.default_rng(seed)
    if r.scheme == "tflite" or r.complete or rng.integers(3):
        return r
    to: tuple[Precision, ...] = get_args(Precision)
    return replace(r, pins=((PINNED[rng.integers(len(PINNED))], to[rng.integers(len(to))]),))
