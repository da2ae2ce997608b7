"""Losses, composed of gathers, reductions and lane expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.ops.gather import Gather
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.reduce import Reduce
from sparrow.ops.softmax import Softmax
from sparrow.tensor import BF16, F16, F32, I64


def _total(n: Call, x: str) -> str:
    y = n.b.add(Reduce("sum", tuple(range(len(n.b.shape(x))))), x)
    return n.b.reshape(y, ())


def _nll(n: Call, log_p: str) -> str:
    """Loss of log probabilities [N, C, d..] against classes [N, d..]."""
    shape = n.b.shape(log_p)
    if len(shape) < 2 or n.type(1).shape != (shape[0], *shape[2:]):
        raise n.bad(f"labels {n.type(1)} do not fit scores {shape}")
    if n.has(2) and n.type(2).shape != (shape[1],):
        raise n.bad(f"weights {n.type(2)} for {shape[1]} classes")
    kind = n.attr("reduction", "mean")
    if kind not in ("none", "sum", "mean"):
        raise n.bad(f"reduction is {kind!r}, expected 'none', 'sum' or 'mean'")
    dtype = n.b.type(log_p).dtype
    labels = n.b.cast(n.x(1), I64)
    ignored = n.attr("ignore_index")
    kept = ""
    if ignored is not None:
        # an ignored label may lie outside the classes: read class 0 there, then weigh it by 0
        a = n.b.arg(0, labels)
        is_ignored = lane.call("eq", a, lane.Imm(int(ignored), I64))
        kept = n.b.lane(lane.call("not", is_ignored), labels)
        labels = n.b.lane(lane.call("where", is_ignored, lane.Imm(0, I64), a), labels)
    at = n.b.reshape(labels, (shape[0], 1, *shape[2:]))
    picked = n.b.reshape(n.b.add(GatherElements(1), log_p, at), n.b.shape(labels))
    weight = n.b.add(Gather(0), n.b.cast(n.x(2), dtype), labels) if n.has(2) else ""
    if kept:
        on = n.b.cast(kept, dtype)
        weight = n.b.call("mul", weight, on) if weight else on
    loss = n.b.call("neg", picked)
    if weight:
        loss = n.b.call("mul", loss, weight)
    if kept:
        # 0 * inf is no 0
        e = lane.call("where", n.b.arg(0, kept), n.b.arg(1, loss), lane.Imm(0.0, dtype))
        loss = n.b.lane(e, kept, loss)
    if kind == "none":
        return loss
    if kind == "sum":
        return _total(n, loss)
    count = _total(n, weight) if weight else n.b.scalar(float(n.b.type(loss).size), dtype)
    return n.b.call("div", _total(n, loss), count)


def _wide(n: Call) -> str:
    return n.b.cast(n.x(), F32) if n.type().dtype in (F16, BF16) else n.x()


def _nll_loss(n: Call) -> Sequence[str]:
    return [n.b.cast(_nll(n, _wide(n)), n.type().dtype)]


def _softmax_loss(n: Call) -> Sequence[str]:
    if n.type().rank < 2:
        raise n.bad(f"scores are {n.type()}, expected [batch, classes, ..]")
    dtype = n.type().dtype
    log_p = n.b.add(Softmax(1, log=True), _wide(n))
    return [n.b.cast(_nll(n, log_p), dtype), n.b.cast(log_p, dtype)][: n.n_outputs]


DECODERS: Mapping[str, Decoder] = {
    "NegativeLogLikelihoodLoss": _nll_loss,
    "SoftmaxCrossEntropyLoss": _softmax_loss,
}
