"""What the rules share: values that are codes, where codes go, and the edit under construction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Op, Scheme
from sparrow.ops.lane import Lane
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.sums import CODES
from sparrow.passes import litert
from sparrow.passes.requantize import Constants, Grid, blended
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I16, I32, Affine, Array, DType, TensorType

# 16-bit codes are symmetric where they are multiplied.
ACTIVATIONS = (*CODES, I16)


@dataclass(frozen=True, slots=True)
class Codes:
    """A value that is read through Dequantize: codes with one scale and zero point."""

    name: str
    type: TensorType
    scale: float
    zero: int

    @property
    def reach(self) -> int:
        """Greatest magnitude of a code minus the zero point."""
        low, high = self.type.dtype.limits
        return max(high - self.zero, self.zero - low)

    def real(self, arg: int) -> lane.Expr:
        """The code minus the zero point, in int32."""
        code = lane.cast(lane.Arg(arg, self.type.dtype), I32)
        return lane.call("sub", code, lane.Imm(self.zero, I32)) if self.zero else code


@dataclass(frozen=True, slots=True)
class Target:
    """Where codes go: the Quantize, the value it rounds, and the range clips leave."""

    node: Node
    source: str
    scale: float
    grid: Grid
    clipped: bool


def codes_of(m: Match, value: str) -> Codes | None:
    """The codes behind a float32 value that one Dequantize per tensor makes."""
    d = m.producer(value, Dequantize)
    if d is None:
        return None
    assert isinstance(d.op, Dequantize)
    t = m.type(d.inputs[0])
    if not d.op.quant.per_tensor or t.dtype not in ACTIVATIONS or d.op.dtype != F32:
        return None
    scale, zero = float(d.op.quant.scale.reshape(())), int(d.op.quant.zero_point.reshape(()))
    low, high = t.dtype.limits
    return Codes(d.inputs[0], t, scale, zero) if low <= zero <= high else None


def unclipped(e: lane.Expr) -> tuple[lane.Expr, float, float]:
    """(e', low, high) of an expression that is e' clipped to [low, high]."""
    if not isinstance(e, lane.Call) or e.fn not in ("relu", "max", "min"):
        return e, -np.inf, np.inf
    picked = [a for a in e.args if not isinstance(a, lane.Imm)]
    if len(picked) != 1:
        return e, -np.inf, np.inf
    # bounds of an inner clip apply first
    inner, low, high = unclipped(picked[0])
    bound = next((float(a.value) for a in e.args if isinstance(a, lane.Imm)), 0.0)
    if e.fn == "min":
        return inner, min(low, bound), min(high, bound)
    return inner, max(low, bound), max(high, bound)


def clip_of(e: lane.Expr) -> tuple[float, float] | None:
    """Bounds of an expression that only clips operand 0."""
    inner, low, high = unclipped(e)
    return (low, high) if isinstance(inner, lane.Arg) else None


def target_at(m: Match, n: Node) -> Target | Reject:
    """The quantization at ``n`` with the clips before it."""
    op = n.op
    assert isinstance(op, Quantize)
    if not op.quant.per_tensor or op.dtype not in ACTIVATIONS:
        return Reject(f"codes of {op.dtype} with more than one scale")
    zero = int(op.quant.zero_point.reshape(()))
    grid = Grid(zero, *op.dtype.limits, op.dtype)
    source, clipped = n.inputs[0], False
    one = _of_rank(op, 0)
    while (c := m.producer(source, Lane)) is not None and len(c.inputs) == 1:
        assert isinstance(c.op, Lane)
        bounds = clip_of(c.op.expr)
        if bounds is None or m.only_user(source) is None:
            break
        low, high = (int(one.eval(np.asarray(b, np.float32))[0]) for b in bounds)
        # bounds of an inner clip apply first
        grid = replace(grid, low=max(grid.low, low), high=min(grid.high, high))
        source, clipped = c.inputs[0], True
    if grid.low > grid.high:
        return Reject("clips that leave no code")
    return Target(n, source, float(op.quant.scale.reshape(())), grid, clipped)


def _of_rank(q: Quantize, rank: int) -> Quantize:
    """A Quantize per tensor, of operands of another rank."""
    ones = (1,) * rank
    quant = Affine(q.quant.scale.reshape(ones), q.quant.zero_point.reshape(ones), (-1,) * rank)
    return replace(q, quant=quant)


def constant_codes(values: Array, t: Target) -> Array:
    """Codes of constants on the grid of the target."""
    assert isinstance(t.node.op, Quantize)
    (codes,) = _of_rank(t.node.op, values.ndim).eval(values)
    clipped: Array = np.clip(codes, t.grid.low, t.grid.high)
    return clipped


class Edit:
    """Nodes and constants of a rewrite under construction."""

    def __init__(self, m: Match, origin: str) -> None:
        self.m, self.origin = m, origin
        self.nodes: list[Node] = []
        self.consts: dict[str, Array] = {}
        self.types: dict[str, TensorType] = {}

    def const(self, array: Array, dtype: DType | None = None) -> str:
        name = self.m.fresh()
        self.consts[name] = np.ascontiguousarray(array)
        if dtype is not None:
            self.types[name] = TensorType(array.shape, dtype)
        return name

    def add(self, op: Op, *inputs: str, y: str = "") -> str:
        y = y or self.m.fresh()
        self.nodes.append(Node(op, inputs, (y,), self.origin))
        return y

    def done(self, *remove: Node) -> Rewrite:
        return Rewrite(tuple(self.nodes), remove, consts=self.consts, types=self.types)


def rescaled(e: Edit, x: Codes, t: Target, scheme: Scheme, y: str = "") -> str | Reject:
    """Codes of ``x`` on the grid of the target."""
    same = (x.zero, x.type.dtype) == (t.grid.zero, t.grid.dtype) and x.scale == t.scale
    whole = (t.grid.low, t.grid.high) == t.grid.dtype.limits
    if same and whole and not y:
        return x.name
    if same:
        arg = lane.Arg(0, x.type.dtype)
        low, high = (lane.Imm(v, x.type.dtype) for v in (t.grid.low, t.grid.high))
        return e.add(Lane(arg if whole else lane.clip(arg, low, high)), x.name, y=y)
    constants, ratio = Constants(1), np.asarray(x.scale / t.scale)
    if scheme == "tflite":
        reach, wide = np.asarray(x.reach), I16 in (x.type.dtype, t.grid.dtype)
        if t.clipped:
            ratio = litert.scale_ratio(x.scale, t.scale)
        # vectors of bytes round halves up, and what is left of them away from zero; clips do always
        away = wide or t.clipped
        expr = litert.requantized(x.real(0), reach, ratio, t.grid, constants, away=away)
    else:
        expr = blended([(x.real(0), x.reach, ratio)], t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    return e.add(Lane(expr), x.name, y=y)
