"""A small network writer over `onnx.helper` that keeps random networks numerically alive.

Every `Value` carries an estimate of its second moment E[x^2]; a layer with n inputs draws its
weights from N(0, 1 / (n * E[x^2])), so that its output has variance one whatever activation or
residual sum came before (He et al. 2015, generalised). Batch norms get scales and variances near 1,
shifts and means near 0.
"""

from dataclasses import dataclass, replace
from math import prod, sqrt

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.generic]
Attr = int | float | str | list[int] | list[float] | list[str]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor in the graph under construction: its name, channel (or feature) count and E[x^2]."""

    name: str
    channels: int
    power: float = 1.0


# E[f(x)^2] for x ~ N(0, 1), by quadrature.
POWER = {
    "Relu": 0.5,
    "Relu6": 0.5,
    "HardSwish": 0.3316,
    "Silu": 0.3558,
    "Gelu": 0.4252,
    "Sigmoid": 0.2934,
    "HardSigmoid": 0.2776,
    "Tanh": 0.3943,
}


class Net:
    """Collects nodes and seeded random weights; `finish` gives a checked model, shapes static."""

    def __init__(self, name: str, opset: int = 17, seed: int = 0) -> None:
        self.name = name
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._consts: list[onnx.TensorProto] = []
        self._count = 0

    # --- plain graph writing ---

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def input(self, name: str, shape: list[int], dtype: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def const(self, array: Array, stem: str = "const") -> str:
        name = self.fresh(stem)
        self._consts.append(numpy_helper.from_array(array.copy(order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64), "shape")

    def scalar(self, value: float) -> str:
        return self.const(np.array(value, np.float32), "scalar")

    def node(self, op: str, *inputs: str, **attrs: Attr) -> str:
        return self.nodes(op, 1, *inputs, **attrs)[0]

    def nodes(self, op: str, outputs: int, *inputs: str, **attrs: Attr) -> list[str]:
        names = [self.fresh(op.lower()) for _ in range(outputs)]
        node = helper.make_node(op, list(inputs), names, self.fresh(op))
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attrs.items())
        self._nodes.append(node)
        return names

    def finish(self, **outputs: str) -> onnx.ModelProto:
        """Close the graph: keyword = output name, argument = the tensor it shows.

        Raises:
            onnx.checker.ValidationError, onnx.shape_inference.InferenceError: the graph is wrong.
        """
        shows = {inner: outer for outer, inner in outputs.items()}
        for node in self._nodes:
            node.output[:] = [shows.get(name, name) for name in node.output]
            node.input[:] = [shows.get(name, name) for name in node.input]
        untyped = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self._nodes, self.name, self._inputs, untyped, self._consts)
        opsets = [helper.make_opsetid("", self.opset)]
        ir_version = helper.find_min_ir_version_for(opsets)
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=ir_version, producer_name="bench"
        )
        model = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    # --- layers ---

    def weight(self, shape: tuple[int, ...], fan_in: int, power: float = 1.0) -> str:
        std = 1 / sqrt(fan_in * power)
        return self.const(self.rng.standard_normal(shape, np.float32) * np.float32(std), "weight")

    def near(self, centre: float, spread: float, size: int, stem: str) -> str:
        return self.const(
            self.rng.uniform(centre - spread, centre + spread, size).astype(np.float32), stem
        )

    def conv(
        self, x: Value, out: int, kernel: int | tuple[int, int], stride: int = 1, groups: int = 1,
        bias: bool = False, pads: list[int] | None = None,
    ) -> Value:  # fmt: skip
        """Conv of NCHW `x`; `pads` default to the symmetric half kernel."""
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        fan_in = x.channels // groups * kh * kw
        w = self.weight((out, x.channels // groups, kh, kw), fan_in, x.power)
        b = (self.near(0, 0.05, out, "bias"),) if bias else ()
        y = self.node(
            "Conv", x.name, w, *b, kernel_shape=[kh, kw], strides=[stride, stride], group=groups,
            pads=[kh // 2, kw // 2, kh // 2, kw // 2] if pads is None else pads, dilations=[1, 1],
        )  # fmt: skip
        return Value(y, out)

    def upconv(self, x: Value, out: int) -> Value:
        """ConvTranspose 2x2 with stride 2: each output pixel sees one input pixel."""
        w = self.weight((x.channels, out, 2, 2), x.channels, x.power)
        b = self.near(0, 0.05, out, "bias")
        y = self.node("ConvTranspose", x.name, w, b, kernel_shape=[2, 2], strides=[2, 2])
        return Value(y, out)

    def batch_norm(self, x: Value) -> Value:
        c = x.channels
        stats = (
            self.near(1, 0.2, c, "gamma"), self.near(0, 0.1, c, "beta"),
            self.near(0, 0.1, c, "mean"), self.near(1, 0.2, c, "var"),
        )  # fmt: skip
        return replace(x, name=self.node("BatchNormalization", x.name, *stats, epsilon=1e-5))

    def act(self, x: Value, kind: str) -> Value:
        """As PyTorch exports it: ReLU6 is Clip, SiLU is x * Sigmoid(x), GELU goes by Erf."""
        if kind == "Relu6":
            y = self.node("Clip", x.name, self.scalar(0), self.scalar(6))
        elif kind == "Silu":
            y = self.node("Mul", x.name, self.node("Sigmoid", x.name))
        elif kind == "Gelu":
            erf = self.node("Erf", self.node("Div", x.name, self.scalar(sqrt(2))))
            y = self.node("Mul", x.name, self.node("Add", erf, self.scalar(1)))
            y = self.node("Mul", y, self.scalar(0.5))
        else:
            y = self.node(kind, x.name)
        return Value(y, x.channels, POWER[kind] * x.power)

    def conv_bn(
        self, x: Value, out: int, kernel: int, stride: int = 1, groups: int = 1, act: str = "Relu"
    ) -> Value:
        """Conv, batch norm and, unless `act` is empty, an activation."""
        y = self.batch_norm(self.conv(x, out, kernel, stride, groups))
        return self.act(y, act) if act else y

    def add(self, a: Value, b: Value) -> Value:
        return Value(self.node("Add", a.name, b.name), a.channels, a.power + b.power)

    def concat(self, *parts: Value, axis: int = 1) -> Value:
        channels = sum(p.channels for p in parts)
        power = sum(p.power * p.channels for p in parts) / channels
        return Value(self.node("Concat", *(p.name for p in parts), axis=axis), channels, power)

    def max_pool(
        self, x: Value, kernel: int, stride: int, pad: int = 0, ceil: bool = False
    ) -> Value:
        y = self.node(
            "MaxPool", x.name, kernel_shape=[kernel, kernel], strides=[stride, stride],
            pads=[pad] * 4, ceil_mode=int(ceil),
        )  # fmt: skip
        return replace(x, name=y, power=2 * x.power)

    def global_pool(self, x: Value) -> Value:
        """GlobalAveragePool: after a rectifier the squared mean is left, near a third of E[x^2]."""
        return replace(x, name=self.node("GlobalAveragePool", x.name), power=x.power / 3)

    def gemm(self, x: Value, out: int) -> Value:
        """PyTorch's Linear on a 2-D tensor: weights [out, in], transB."""
        w = self.weight((out, x.channels), x.channels, x.power)
        return Value(self.node("Gemm", x.name, w, self.near(0, 0.05, out, "bias"), transB=1), out)

    def matmul(self, x: Value, out: int) -> Value:
        """PyTorch's Linear on rank 3: MatMul with [in, out], then Add with the bias first."""
        w = self.weight((x.channels, out), x.channels, x.power)
        y = self.node("MatMul", x.name, w)
        return Value(self.node("Add", self.near(0, 0.05, out, "bias"), y), out)

    def classify(self, x: Value, classes: int) -> str:
        """GlobalAveragePool, Flatten, Gemm."""
        pooled = self.global_pool(x)
        return self.gemm(
            replace(pooled, name=self.node("Flatten", pooled.name, axis=1)), classes
        ).name

    def layer_norm(self, x: Value) -> Value:
        """Over the last axis: LayerNormalization from opset 17, before it the exporters' chain."""
        gamma, beta = self.near(1, 0.2, x.channels, "gamma"), self.near(0, 0.1, x.channels, "beta")
        if self.opset >= 17:
            y = self.node("LayerNormalization", x.name, gamma, beta, axis=-1, epsilon=1e-12)
            return Value(y, x.channels)
        centred = self.node("Sub", x.name, self.node("ReduceMean", x.name, axes=[-1], keepdims=1))
        square = self.node("Pow", centred, self.scalar(2))
        var = self.node("ReduceMean", square, axes=[-1], keepdims=1)
        std = self.node("Sqrt", self.node("Add", var, self.scalar(1e-12)))
        scaled = self.node("Mul", self.node("Div", centred, std), gamma)
        return Value(self.node("Add", scaled, beta), x.channels)

    def attention(self, q: str, k: str, v: str, head: int, mask: str | None = None) -> str:
        """softmax(q k / sqrt(head) + mask) v; q, v: [N, heads, T, head], k: [N, heads, head, T]."""
        scores = self.node("Div", self.node("MatMul", q, k), self.scalar(sqrt(head)))
        if mask is not None:
            scores = self.node("Add", scores, mask)
        return self.node("MatMul", self.node("Softmax", scores, axis=-1), v)


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Static shape of every tensor of a shape-inferred model."""
    infos = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    known = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in infos}
    return known | {t.name: tuple(t.dims) for t in model.graph.initializer}


def flops(model: onnx.ModelProto) -> int:
    """Two per multiply-accumulate of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU; others 0."""
    size = shapes(model)
    macs = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            pixels = size[node.output[0] if node.op_type == "Conv" else node.input[0]]
            macs += prod(size[node.input[1]]) * pixels[0] * prod(pixels[2:])
        elif node.op_type in ("Gemm", "MatMul"):
            # Gemm here never has transA, so that the inner size is the last of A in both.
            macs += prod(size[node.output[0]]) * size[node.input[0]][-1]
        elif node.op_type in ("LSTM", "GRU"):
            steps, batch, _ = size[node.input[0]]
            macs += steps * batch * (prod(size[node.input[1]]) + prod(size[node.input[2]]))
    return 2 * macs


def parameters(model: onnx.ModelProto) -> int:
    """Elements of the floating-point initializers of rank 1 and above."""
    floats = (t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    return sum(prod(t.dims) for t in floats if t.dims)
