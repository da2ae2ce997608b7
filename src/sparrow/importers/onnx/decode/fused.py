"""What ONNX Runtime's optimizer writes for several operators: its files at level "extended"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode import elementwise, linear

# Names of the parameters of an activation, in the order of ``activation_params``.
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "HardSwish": (),
    "Softplus": (),
    "Softsign": (),
    "Elu": ("alpha",),
    "LeakyRelu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
    "Clip": ("min", "max"),
}
# Clip has its bounds as attributes.
_OPSET = 6


def _activation(n: Call) -> str:
    """The name in attribute ``activation``, which may be empty."""
    name = str(n.attr("activation", ""))
    if name and name not in _PARAMETERS:
        raise n.unsupported(f"activation {name}", f"known are {', '.join(_PARAMETERS)}")
    return name


def activated(n: Call, y: str) -> str:
    """The activation that attributes ``activation`` and ``activation_params`` say, of ``y``."""
    name = _activation(n)
    params = [float(v) for v in n.attr("activation_params", ()) or ()]
    return _applied(n, y, name, dict(zip(_PARAMETERS.get(name, ()), params, strict=False)))


def _applied(n: Call, y: str, name: str, attrs: Mapping[str, float]) -> str:
    """Activation ``name`` of ``y``, which is ``y`` without a name."""
    if not name:
        return y
    call = replace(n, op_type=name, version=_OPSET, inputs=(y,), n_outputs=1, attrs=attrs)
    (z,) = elementwise.DECODERS[name](call)
    return z


def _fused_conv(n: Call) -> Sequence[str]:
    """activation(x * w + b + z)."""
    y = n.b.add(linear.convolution(n), n.x(0), n.x(1), n.opt(2))
    if n.has(3):
        y = n.b.call("add", y, n.x(3))
    return [activated(n, y)]


def _fused_gemm(n: Call) -> Sequence[str]:
    """activation(Gemm); its parameters are attributes of their own."""
    (y,) = linear.DECODERS["Gemm"](n)
    name = _activation(n)
    given = {k: n.attr(f"activation_{k}") for k in _PARAMETERS.get(name, ())}
    return [_applied(n, y, name, {k: float(v) for k, v in given.items() if v is not None})]


def _fused_matmul(n: Call) -> Sequence[str]:
    """Alpha * A @ B, of which the last two axes, or the first with the last but one, are turned."""
    operands = []
    for i, side in enumerate("AB"):
        x, rank = n.x(i), n.type(i).rank
        if rank > 1 and n.attr(f"transBatch{side}", 0):
            x = n.b.transpose(x, (*range(1, rank - 1), 0, rank - 1))
        if rank > 1 and n.attr(f"trans{side}", 0):
            x = n.b.transpose(x, (*range(rank - 2), rank - 1, rank - 2))
        operands.append(x)
    y = linear.matmul(n, operands[0], operands[1])
    alpha = float(n.attr("alpha", 1.0))
    return [y if alpha == 1.0 else n.b.call("mul", y, n.b.scalar(alpha, n.b.type(y).dtype))]


def _biased(fn: str) -> Decoder:
    """A function of x plus an optional bias."""

    def decode(n: Call) -> Sequence[str]:
        x = n.b.call("add", n.x(0), n.x(1)) if n.has(1) else n.x(0)
        return [n.b.lane(lane.call(fn, n.b.arg(0, x)), x)]

    return decode


def _quick_gelu(n: Call) -> Sequence[str]:
    alpha = float(n.attr("alpha", 1.702))
    return elementwise.DECODERS["Swish"](replace(n, attrs={"alpha": alpha}))


DECODERS: Mapping[str, Decoder] = {
    "com.microsoft.BiasGelu": _biased("gelu"),
    "com.microsoft.FastGelu": _biased("gelu_tanh"),
    "com.microsoft.FusedConv": _fused_conv,
    "com.microsoft.FusedGemm": _fused_gemm,
    "com.microsoft.FusedMatMul": _fused_matmul,
    "com.microsoft.Gelu": _biased("gelu"),
    "com.microsoft.QuickGelu": _quick_gelu,
    "com.microsoft.TransposeMatMul": _fused_matmul,
}
