"""Mixtures of experts of ONNX Runtime's domain, with real weights and with codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.importers.onnx.decode.quantized import dequantize, nibbles
from sparrow.lane import imm_like
from sparrow.ops.gather import Gather
from sparrow.ops.matmul import MatMul
from sparrow.ops.reduce import Reduce
from sparrow.ops.softmax import Softmax
from sparrow.ops.topk import TopK
from sparrow.tensor import F32, U4, U8, Affine

# What ONNX Runtime's processor kernels call by these names; its "gelu" is the one with tanh.
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu_tanh", "silu": "silu", "identity": ""}


def _routing(n: Call, tokens: int, experts: int, among: bool) -> tuple[str, str, int]:
    """Weights [tokens, k] and experts [tokens, k] of the ``k`` best, and ``k``.

    ``among``: the softmax is of the chosen ones' logits, not of all.
    """
    b, k = n.b, int(n.attr("k", 1))
    if n.type(1).shape != (tokens, experts) or not 1 <= k <= experts:
        raise n.bad(f"{k} experts by {n.type(1)}, expected {(tokens, experts)}")
    if n.attr("use_sparse_mixer", 0):
        raise n.unsupported("use_sparse_mixer")
    logits = b.cast(n.x(1), F32)
    values, chosen = b.add_n(TopK(1, k), logits)
    if among:
        return b.add(Softmax(1), values), chosen, k
    values, chosen = b.add_n(TopK(1, k), b.add(Softmax(1), logits))
    return values, chosen, k


def _activated(n: Call, h: str, third: str) -> str:
    """The activation of what the first product gives; gated ones take its halves, or a third's."""
    name = str(n.attr("activation_type", "relu"))
    if name in _ACTIVATIONS and not third:
        fn = _ACTIVATIONS[name]
        return n.b.lane(lane.call(fn, n.b.arg(0, h)), h) if fn else h
    if name != "swiglu":
        raise n.unsupported(
            f"activation {name}{' beside a third product' if third else ''}",
            f"known are {', '.join(_ACTIVATIONS)} and swiglu",
        )
    if n.attr("swiglu_limit_after_activation", 0):
        raise n.unsupported("swiglu_limit_after_activation")
    fusion, b = int(n.attr("swiglu_fusion", 0)), n.b
    if third:
        gate, up = h, third
    else:
        *outer, width = b.shape(h)
        if width % 2 or fusion not in (1, 2):
            raise n.bad(f"swiglu_fusion {fusion} of {b.type(h)}")
        split = (*outer, width // 2, 2) if fusion == 1 else (*outer, 2, width // 2)
        axis = len(outer) + (fusion == 1)
        pairs = b.reshape(h, split)
        gate, up = (
            b.reshape(slice_axis(n, pairs, axis, i, 1), (*outer, width // 2)) for i in (0, 1)
        )
    g, u = b.arg(0, gate), b.arg(1, up)
    limit = n.attr("swiglu_limit")
    ge: lane.Expr = g
    ue: lane.Expr = u
    if limit is not None and np.isfinite(limit):
        ge = lane.clip(g, None, imm_like(float(limit), g))
        ue = lane.clip(u, imm_like(-float(limit), u), imm_like(float(limit), u))
    alpha, beta = float(n.attr("activation_alpha", 1.0)), float(n.attr("activation_beta", 0.0))
    turned = lane.call("sigmoid", lane.call("mul", imm_like(alpha, g), ge))
    ue = lane.call("add", ue, imm_like(beta, u)) if beta else ue
    return b.lane(lane.call("mul", lane.call("mul", ge, turned), ue), gate, up)


def _mixed(n: Call, products: Sequence[tuple[str, str]], among: bool) -> Sequence[str]:
    """Sum of the chosen experts' results, weighted as `_routing` says.

    ``products`` holds weights [experts, outputs, inputs] and biases [experts, outputs] or "" of
    the first product, the second and, where there is one, the third, beside the first.
    """
    b, given = n.b, n.type(0)
    if given.rank not in (2, 3) or any(len(b.shape(w)) != 3 for w, _ in products):
        raise n.bad(f"tokens {given} for weights {[b.shape(w) for w, _ in products]}")
    width = given.shape[-1]
    tokens, experts = given.size // max(width, 1), b.shape(products[0][0])[0]
    weights, chosen, k = _routing(n, tokens, experts, among)
    # [experts or rows, tokens or 1, width]: each expert over all tokens, or over its own alone
    alone = tokens * k <= experts
    x = b.reshape(b.cast(n.x(0), F32), (tokens, width))
    rows = tokens * k
    if alone:
        which = b.reshape(chosen, (rows,))
        repeated = b.const(np.repeat(b.places(tokens), k))
        x = b.reshape(b.add(Gather(0), x, repeated) if k > 1 else x, (rows, 1, width))
    else:
        x = b.reshape(x, (1, tokens, width))

    def product(x: str, i: int) -> str:
        w, bias = products[i]
        w = b.add(Gather(0), w, which) if alone else w
        y = b.add(MatMul(trans_b=True), x, w)
        if not bias:
            return y
        bias = b.add(Gather(0), bias, which) if alone else bias
        outer, last = b.shape(bias)
        return b.call("add", y, b.reshape(bias, (outer, 1, last)))

    h = _activated(n, product(x, 0), product(x, 2) if len(products) > 2 else "")
    y = product(h, 1)
    if alone:
        y = b.call("mul", b.reshape(y, (tokens, k, width)), b.reshape(weights, (tokens, k, 1)))
        y = b.add(Reduce("sum", (1,)), y)
    else:
        # [tokens, k, experts]: the weight where the expert was chosen
        named = b.call("eq", b.reshape(chosen, (tokens, k, 1)), b.const(b.places(experts)))
        c, v = b.arg(0, named), b.arg(1, weights)
        each = b.lane(
            lane.call("where", c, v, imm_like(0, v)), named, b.reshape(weights, (tokens, k, 1))
        )
        share = b.reshape(b.add(Reduce("sum", (1,)), each), (tokens, experts))
        share = b.reshape(b.transpose(share, (1, 0)), (experts, tokens, 1))
        y = b.add(Reduce("sum", (0,)), b.call("mul", y, share))
    return [b.cast(b.reshape(y, given.shape), given.dtype)]


def _moe(n: Call) -> Sequence[str]:
    """com.microsoft.MoE: tokens, logits, then weights and biases of two products or three."""
    pairs = [
        (n.b.cast(n.x(i), F32), n.b.cast(n.x(i + 1), F32) if n.has(i + 1) else "")
        for i in (2, 4, 6)
        if n.has(i)
    ]
    return _mixed(n, pairs, bool(n.attr("normalize_routing_weights", 0)))


def _weights(n: Call, i: int, zero: int, name: str) -> str:
    """Real weights [experts, outputs, inputs] of packed codes, scales and zero points."""
    bits = int(n.attr(f"{name}_expert_weight_bits") or n.attr("expert_weight_bits", 4))
    if bits not in (4, 8):
        raise n.unsupported(f"weights of {bits} bits")
    packed, scale = n.const(i, "the weights"), n.const(i + 1, "the scales").astype(np.float32)
    if packed.dtype != np.uint8 or packed.ndim != 3 or scale.shape[:2] != packed.shape[:2]:
        raise n.bad(f"weights {n.type(i)} with scales {n.type(i + 1)}")
    experts, outputs, size = packed.shape
    depth, block = size * 8 // bits, int(n.attr("block_size", 0) or 0)
    blocks = scale.size // max(1, experts * outputs)
    if block < 0 or blocks != (-(-depth // block) if block else 1):
        raise n.bad(f"scales {n.type(i + 1)} for {depth} inputs in blocks of {block}")
    codes = nibbles(packed, bits, depth)
    shape = (experts, outputs, blocks)
    points = np.full(shape, 1 << (bits - 1), np.int32)
    if n.has(zero):
        stored = n.const(zero, "the zero points")
        row = stored.reshape(experts, outputs, -1) if blocks > 1 else stored.reshape(experts, -1)
        points = nibbles(row, bits, shape[-1] if blocks > 1 else outputs).astype(np.int32)
    quant = Affine(scale.reshape(shape), points.reshape(shape), (1, 1, block or -1))
    return dequantize(n, n.b.const(np.asarray(codes, order="C"), U4 if bits == 4 else U8), quant)


def _qmoe(n: Call) -> Sequence[str]:
    """com.microsoft.QMoE: as MoE, of each product codes, scales, bias; then their zero points."""
    kind = str(n.attr("quant_type", "int"))
    if kind != "int" or any(n.has(i) for i in range(14, 21)):
        raise n.unsupported(f"weights of type {kind}, or router weights", "use integer weights")
    if int(n.attr("weights_prepacked", -1)) == 1:
        raise n.unsupported(
            "weights packed for one processor", "save them with weights_prepacked=0"
        )
    pairs = [
        (_weights(n, i, 11 + j, f"fc{j + 1}"), n.b.cast(n.x(i + 2), F32) if n.has(i + 2) else "")
        for j, i in enumerate((2, 5, 8))
        if n.has(i)
    ]
    # ONNX Runtime's kernel for processors does not read normalize_routing_weights
    return _mixed(n, pairs, True)


DECODERS: Mapping[str, Decoder] = {
    "com.microsoft.MoE": _moe,
    "com.microsoft.QMoE": _qmoe,
}
