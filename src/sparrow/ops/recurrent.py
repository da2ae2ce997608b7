"""What LSTM, GRU and RNN share: activations, types, the scan over time, their form in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.lane import Expr, imm_like
from sparrow.tensor import F32, F64, I32, Array, DType, TensorType, dtype_of

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

Step = Callable[..., tuple[Array, ...]]
_Item = TypeVar("_Item")

# name -> (takes alpha, takes beta); defaults stand in `DEFAULTS`, the others have none
ACTIVATIONS = {
    "Relu": (False, False),
    "Tanh": (False, False),
    "Sigmoid": (False, False),
    "Softsign": (False, False),
    "Softplus": (False, False),
    "Affine": (True, True),
    "LeakyRelu": (True, False),
    "ThresholdedRelu": (True, False),
    "ScaledTanh": (True, True),
    "HardSigmoid": (True, True),
    "Elu": (True, False),
}
DEFAULTS = {
    "LeakyRelu": (0.01, 0.0),
    "ThresholdedRelu": (1.0, 0.0),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, 0.0),
}


@dataclass(frozen=True, slots=True)
class Activation:
    """A name of `ACTIVATIONS`, and alpha and beta where it takes them."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def expr(self, dtype: DType) -> Expr:
        """The activation of operand 0."""
        x = lane.Arg(0, dtype)
        a, b, zero = imm_like(self.alpha, x), imm_like(self.beta, x), imm_like(0, x)
        match self.name:
            case "Relu" | "Tanh" | "Sigmoid" | "Softplus":
                return lane.call(self.name.lower(), x)
            case "Softsign":
                return lane.call("div", x, lane.call("add", imm_like(1, x), lane.call("abs", x)))
            case "Affine":
                return lane.call("add", lane.call("mul", a, x), b)
            case "LeakyRelu":
                low = lane.call("lt", x, zero)
                return lane.call("where", low, lane.call("mul", a, x), x)
            case "ThresholdedRelu":
                return lane.call("where", lane.call("ge", x, a), x, zero)
            case "ScaledTanh":
                return lane.call("mul", a, lane.call("tanh", lane.call("mul", b, x)))
            case "HardSigmoid":
                line = lane.call("add", lane.call("mul", a, x), b)
                return lane.clip(line, zero, imm_like(1, x))
            case "Elu":
                curve = lane.call("mul", a, lane.call("expm1", x))
                return lane.call("where", lane.call("lt", x, zero), curve, x)
            case _:
                raise InvalidGraph(f"activation {self.name!r}; have {', '.join(ACTIVATIONS)}")

    def __call__(self, x: Array) -> Array:
        return lane.evaluate(self.expr(dtype_of(x)), (x,))


SIGMOID, TANH = Activation("Sigmoid"), Activation("Tanh")


class Layer(Protocol):
    """What recurrent layers over numbers and over codes have in common."""

    @property
    def reverse(self) -> bool: ...
    @property
    def sequence(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Recurrent(Op):
    """A layer over x [T, B, ..], w (or None), r, ..: what LSTM, GRU and RNN have in common.

    Attributes:
        reverse: Walk each sequence backwards.
        sequence: Give every step's output, not only the last.
        clip: Limit of what the activations see, 0 for none; not of a cell state (LSTM's h).
    """

    reverse: bool = False
    sequence: bool = True
    clip: float = 0.0

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        first, w, r = x[:3]
        assert first is not None and r is not None
        return 2 * first.shape[0] * first.shape[1] * (r.size + (w.size if w else 0))

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        # every step of `scan` and its cell make some
        assert x[0] is not None
        return 48 * x[0].shape[0]


def clipped(x: Array, clip: float) -> Array:
    """Values limited to [-clip, clip]; 0 is no limit."""
    return np.clip(x, -clip, clip) if clip else x


def sequence_types(
    gates: int,
    x: TensorType,
    w: TensorType | None,
    r: TensorType,
    b: TensorType | None,
    lens: TensorType | None,
    states: Sequence[TensorType | None],
) -> tuple[TensorType, TensorType]:
    """Types of the whole output sequence [T, B, H] and of one step of it [B, H].

    Args:
        gates: Gates of the cell; the first axis of w, r and b counts gates * H.
        x: [T, B, I], or [T, B, gates * H] already projected when there is no ``w``.
        w: [gates * H, I] or None.
        r: [gates * H, H].
        b: [gates * H] or None; None without ``w``.
        lens: int32 [B] or None.
        states: Initial states, [B, H] each, or None.
    """
    if x.rank != 3 or r.rank != 2 or r.shape[0] != gates * r.shape[1]:
        raise InvalidGraph(f"x {x} and recurrent weights {r} are no sequence of {gates} gates")
    time, batch, width = x.shape
    hidden = r.shape[1]
    if (gates * hidden, width) != (w.shape if w is not None else (r.shape[0], r.shape[0])):
        raise InvalidGraph(f"x {x} does not fit weights {w or r}")
    if b is not None and (w is None or b.shape != (gates * hidden,)):
        raise InvalidGraph(f"bias {b} does not fit {gates} gates of {hidden}")
    if lens is not None and (lens.shape != (batch,) or lens.dtype != I32):
        raise InvalidGraph(f"sequence lengths {lens}, expected int32[{batch}]")
    for s in states:
        if s is not None and s.shape != (batch, hidden):
            raise InvalidGraph(f"initial state {s}, expected {batch}x{hidden}")
    if x.dtype not in (F32, F64):
        raise InvalidGraph(f"recurrent op over {x.dtype}, expected float32 or float64")
    if any(t is not None and t.dtype != x.dtype for t in (w, r, b, *states)):
        raise InvalidGraph(f"weights or states are not {x.dtype}")
    return TensorType((time, batch, hidden), x.dtype), TensorType((batch, hidden), x.dtype)


def project(x: Array, w: Array | None, b: Array | None) -> Array:
    """Gate inputs of every time step: x @ w' + b, or x when it holds them already."""
    if w is None:
        return x
    y = x @ w.T
    return y if b is None else y + b


def scan(
    step: Step, gates: Array, lens: Array | None, reverse: bool, states: Sequence[Array]
) -> tuple[Array, tuple[Array, ...]]:
    """Run a cell over time.

    Args:
        step: (gate inputs [B, .], *states) -> new states; the first state is the output.
        gates: Gate inputs [T, B, .].
        lens: Steps of each sequence, clamped to [0, T]; None for T. The rest of the output is
            zero, the final states are those after the last step; without any step they are zero
            (ONNX is silent, ONNX Runtime does so).
        reverse: Walk each sequence from its last step to its first.
        states: Initial states [B, H].

    Returns:
        The output of every step [T, B, H] at the place of its input, and the final states.
    """
    time, batch = gates.shape[:2]
    length = np.full(batch, time) if lens is None else np.clip(lens, 0, time)
    y = np.zeros((time, *states[0].shape), gates.dtype)
    row = np.arange(batch)
    now = tuple(states)
    for t in range(time):
        runs = t < length
        at = np.maximum(length - 1 - t, 0) if reverse else np.full(batch, t)
        new = step(gates[at, row], *now)
        now = tuple(np.where(runs[:, None], n, s) for n, s in zip(new, now, strict=True))
        y[at[runs], row[runs]] = now[0][runs]
    ran = (length > 0)[:, None]
    return y, tuple(np.where(ran, s, np.zeros_like(s)) for s in now)


def results(op: Layer, y: _Item, ends: tuple[_Item, ...]) -> tuple[_Item, ...]:
    """What a layer gives: the whole sequence, where it is wanted, and the final states."""
    return (y, *ends) if op.sequence else ends


def walk(
    op: Layer,
    step: Step,
    gates: Array,
    r: Array,
    lens: Array | None,
    states: Sequence[Array | None],
) -> tuple[Array, ...]:
    """The `results` of a layer whose cell is ``step``, see `scan`; absent states are zero."""
    zeros = np.zeros((gates.shape[1], r.shape[1]), gates.dtype)
    start = [zeros if s is None else s for s in states]
    return results(op, *scan(step, gates, lens, op.reverse, start))


def export_recurrent(
    op: Recurrent,
    w: Writer,
    site: Site,
    *,
    bias: Sequence[str | Array],
    activations: Sequence[Activation],
    states: Sequence[str],
    **attrs: int,
) -> None:
    """Write one direction as the ONNX operator of the same name: LSTM, GRU or RNN.

    Args:
        op: The layer.
        w: Where nodes go.
        site: Operands x, w, r, b, lens, ...; outputs y (with ``sequence``) and the final states.
        bias: Parts of ONNX B [2 * gates * H]; arrays become constants; empty for no bias.
        activations: In ONNX order.
        states: ONNX inputs 5.. (initial states, peepholes) of this direction, ``""`` where absent.
        attrs: Further attributes.
    """
    kind = type(op).__name__
    r_type, x_type = site.in_types[2], site.in_types[0]
    assert r_type is not None and x_type is not None
    front = w.const(np.array([0], np.int64))

    def direction(name: str) -> str:
        return w.node("Unsqueeze", [name, front]) if name else ""

    if site.inputs[1]:
        weights = direction(site.inputs[1])
    else:
        # x holds projected gates: the projection that ONNX demands is the identity
        weights = w.const(np.eye(r_type.shape[0], dtype=x_type.dtype.numpy)[None])
    b = ""
    if bias:
        parts = [p if isinstance(p, str) else w.const(p) for p in bias]
        b = direction(w.node("Concat", parts, axis=0))
    takes = [ACTIVATIONS[a.name] for a in activations]
    more: dict[str, object] = dict(attrs)
    if any(t[0] for t in takes):
        more["activation_alpha"] = [
            a.alpha for a, t in zip(activations, takes, strict=True) if t[0]
        ]
    if any(t[1] for t in takes):
        more["activation_beta"] = [a.beta for a, t in zip(activations, takes, strict=True) if t[1]]
    if op.clip:
        more["clip"] = op.clip
    ends = site.outputs[1:] if op.sequence else site.outputs
    found = [w.fresh(kind) if op.sequence else "", *(w.fresh(kind) for _ in ends)]
    lens = site.inputs[4] if len(site.inputs) > 4 else ""
    w.node(
        kind,
        [site.inputs[0], weights, direction(site.inputs[2]), b, lens, *map(direction, states)],
        found,
        hidden_size=r_type.shape[1],
        direction="reverse" if op.reverse else "forward",
        activations=[a.name for a in activations],
        **more,
    )
    if op.sequence:
        axis = w.const(np.array([1], np.int64))
        w.node("Squeeze", [found[0], axis], [site.outputs[0]])
    for name, end in zip(found[1:], ends, strict=True):
        w.node("Squeeze", [name, front], [end])
