"""LSTM, GRU and RNN: each direction becomes one op over [time, batch, features]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.concat import Concat
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.recurrent import ACTIVATIONS, DEFAULTS, SIGMOID, TANH, Activation
from sparrow.ops.rnn import RNN
from sparrow.tensor import F32, F64, I32

# (n, direction, reverse, activations) -> the outputs of one direction
Cell = Callable[["Layer", int, bool, Sequence[Activation]], Sequence[str]]
_BY_LOWER = {name.lower(): name for name in ACTIVATIONS}


class Layer:
    """What the three operators share: operands by direction, in the dtype computed in."""

    def __init__(self, n: Call, gates: int) -> None:
        self.n, self.gates = n, gates
        x, w, r = n.type(0), n.type(1), n.type(2)
        if x.rank != 3 or w.rank != 3 or r.rank != 3:
            raise n.bad(f"x {x}, weights {w} and recurrent weights {r} must have rank 3")
        self.hidden = r.shape[2]
        if int(n.attr("hidden_size", self.hidden)) != self.hidden:
            raise n.bad(f"hidden_size {n.attr('hidden_size')} does not fit {r}")
        kind = n.attr("direction", "forward")
        reversed_ = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
        if kind not in reversed_:
            raise n.bad(f"direction is {kind!r}")
        self.reverse = reversed_[kind]
        self.batch_first = bool(n.attr("layout", 0))
        # half types are computed in float32, as every runtime does
        self.dtype = x.dtype if x.dtype == F64 else F32
        self.clip = float(n.attr("clip", 0.0))
        if self.clip < 0:
            raise n.bad(f"clip is {self.clip}")
        self.sequence = bool(n.wanted and n.wanted[0])
        self.x = n.b.cast(n.x(0), self.dtype)
        if self.batch_first:
            self.x = n.b.transpose(self.x, (1, 0, 2))
        self.lens = n.b.cast(n.x(4), I32) if n.has(4) else ""

    def part(self, i: int, direction: int, axis: int = 0) -> str:
        """One direction of input ``i``, without the direction axis; ``""`` when absent."""
        n = self.n
        if not n.has(i):
            return ""
        shape = n.type(i).shape
        if len(shape) <= axis or shape[axis] != len(self.reverse):
            raise n.bad(f"input {i} is {n.type(i)}, expected {len(self.reverse)} directions")
        v = slice_axis(n, n.b.cast(n.x(i), self.dtype), axis, direction, 1)
        return n.b.reshape(v, (*shape[:axis], *shape[axis + 1 :]))

    def state(self, i: int, direction: int) -> str:
        """Initial state [B, H] of one direction."""
        return self.part(i, direction, 1 if self.batch_first else 0)

    def biases(self, direction: int) -> tuple[str, str]:
        """Input and recurrent bias [gates * H]; ``""`` when absent."""
        both = self.part(3, direction)
        if not both:
            return "", ""
        size = self.gates * self.hidden
        if self.n.b.shape(both) != (2 * size,):
            raise self.n.bad(
                f"bias {self.n.type(3)} does not fit {self.gates} gates of {self.hidden}"
            )
        return slice_axis(self.n, both, 0, 0, size), slice_axis(self.n, both, 0, size, size)

    def bias(self, direction: int) -> str:
        """Sum of both biases."""
        wb, rb = self.biases(direction)
        return self.n.b.call("add", wb, rb) if wb else ""

    def join(self, parts: Sequence[str], axis: int) -> str:
        """The directions of an output side by side on a new axis, in the dtype of the model."""
        b = self.n.b
        shape = list(b.shape(parts[0]))
        shape.insert(axis, 1)
        each = [b.reshape(p, shape) for p in parts]
        y = b.add(Concat(axis), *each) if len(each) > 1 else each[0]
        return b.cast(y, self.n.type(0).dtype)


def _activations(n: Call, count: int, defaults: Sequence[Activation]) -> list[Activation]:
    """Activations of the node, direction by direction; alpha and beta are dealt out in order."""
    names = n.attr("activations")
    if names is None:
        return list(defaults) * (count // len(defaults))
    if len(names) != count:
        raise n.bad(f"{len(names)} activations, expected {count}")
    alphas = iter(n.attr("activation_alpha") or ())
    betas = iter(n.attr("activation_beta") or ())
    found = []
    for given in names:
        name = _BY_LOWER.get(given.lower())
        if name is None:
            raise n.unsupported(f"activation {given!r}", f"known: {', '.join(ACTIVATIONS)}")
        values = []
        for takes, rest, default in zip(
            ACTIVATIONS[name], (alphas, betas), DEFAULTS.get(name, (None, None)), strict=True
        ):
            v = next(rest, default) if takes else 0.0
            if v is None:
                raise n.bad(f"activation {name} needs activation_alpha and activation_beta")
            values.append(float(v))
        found.append(Activation(name, *values))
    return found


def _decoder(gates: int, defaults: Sequence[Activation], cell: Cell) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        layer = Layer(n, gates)
        per = len(defaults)
        chosen = _activations(n, per * len(layer.reverse), defaults)
        found = [
            cell(layer, d, back, chosen[d * per : (d + 1) * per])
            for d, back in enumerate(layer.reverse)
        ]
        columns = list(zip(*found, strict=True))
        results = [""] if not layer.sequence else []
        for i, parts in enumerate(columns):
            if i == 0 and layer.sequence:
                y = layer.join(parts, 1)
                results.append(n.b.transpose(y, (2, 0, 1, 3)) if layer.batch_first else y)
            else:
                results.append(layer.join(parts, 1 if layer.batch_first else 0))
        return results

    return decode


def _lstm(layer: Layer, d: int, reverse: bool, a: Sequence[Activation]) -> Sequence[str]:
    couple = bool(layer.n.attr("input_forget", 0))
    op = LSTM(reverse, layer.sequence, layer.clip, couple, *a)
    w, r = layer.part(1, d), layer.part(2, d)
    h0, c0, p = layer.state(5, d), layer.state(6, d), layer.part(7, d)
    return layer.n.b.add_n(op, layer.x, w, r, layer.bias(d), layer.lens, h0, c0, p)


def _gru(layer: Layer, d: int, reverse: bool, a: Sequence[Activation]) -> Sequence[str]:
    n = layer.n
    after = bool(n.attr("linear_before_reset", 0))
    op = GRU(reverse, layer.sequence, layer.clip, after, *a)
    bias, rb = layer.bias(d), ""
    if bias and after:
        wb, back = layer.biases(d)
        h = layer.hidden
        gates = n.b.call("add", *(slice_axis(n, v, 0, 0, 2 * h) for v in (wb, back)))
        bias = n.b.add(Concat(0), gates, slice_axis(n, wb, 0, 2 * h, h))
        rb = slice_axis(n, back, 0, 2 * h, h)
    w, r = layer.part(1, d), layer.part(2, d)
    return n.b.add_n(op, layer.x, w, r, bias, layer.lens, layer.state(5, d), rb)


def _rnn(layer: Layer, d: int, reverse: bool, a: Sequence[Activation]) -> Sequence[str]:
    op = RNN(reverse, layer.sequence, layer.clip, *a)
    w, r = layer.part(1, d), layer.part(2, d)
    return layer.n.b.add_n(op, layer.x, w, r, layer.bias(d), layer.lens, layer.state(5, d))


DECODERS: Mapping[str, Decoder] = {
    "LSTM": _decoder(4, (SIGMOID, TANH, TANH), _lstm),
    "GRU": _decoder(3, (SIGMOID, TANH), _gru),
    "RNN": _decoder(1, (TANH,), _rnn),
}
