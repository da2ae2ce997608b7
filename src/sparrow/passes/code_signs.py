"""8-bit codes of either sign: the same codes, 128 apart.

    signed     y.q = Quantize(y.f, scale, z: int8);          y = Dequantize(y.q)
    unsigned   y.q = Quantize(y.f, scale, z + 128: uint8);   y = Dequantize(y.q)

What multiplies bytes on x86 (`vpdpbusd`, or `vpmaddubsw` with AVX2) takes unsigned activations and
signed weights. There our kernels read unsigned codes as they lie, where signed ones are copied and
turned first, a sixteenth of a cycle a byte (RFB-320 1.07x, MobileNetV2 1.04x as fast without, Zen
5); elsewhere, and in recurrent layers, they are of int8. ONNX Runtime (1.32) and OpenVINO fuse
files with uint8 activations into integer operators, and of files with int8 ones only half, the rest
runs in float between conversions.
"""

from __future__ import annotations

from dataclasses import replace

from sparrow.graph import Graph, Node, retyped
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.rewrite import Remark
from sparrow.tensor import I8, U8, Affine, DType


def signed(g: Graph, remarks: list[Remark] | None = None) -> Graph:
    """``g`` with int8 for uint8; LiteRT's kernels of the two differ, and stay apart."""
    return g if g.scheme == "tflite" else _moved(g, U8, I8, -128)


def unsigned(g: Graph) -> Graph:
    """``g`` with uint8 for int8; weights stay int8."""
    return _moved(g, I8, U8, 128)


def multiplied_unsigned(g: Graph, remarks: list[Remark] | None = None) -> Graph:
    """`unsigned`, but `signed` where recurrent layers, which are of int8, take or give codes."""
    if g.scheme == "tflite":
        return g
    return signed(g) if any(isinstance(n.op, LSTM | GRU) for n in g.nodes) else unsigned(g)


def _moved(g: Graph, old: DType, new: DType, by: int) -> Graph:
    """Codes of one type that a Quantize writes for Dequantize alone as those of another."""
    users, leaving = g.users(), set(g.live_out())
    codes = {
        n.outputs[0]
        for n in g.nodes
        if isinstance(n.op, Quantize)
        and n.op.dtype == old
        and n.outputs[0] not in leaving
        and all(isinstance(u.op, Dequantize) for u in users.get(n.outputs[0], ()))
    }
    if not codes:
        return g

    def shifted(q: Affine) -> Affine:
        return replace(q, zero_point=q.zero_point + by)

    def other(n: Node) -> Node:
        if isinstance(n.op, Quantize) and n.outputs[0] in codes:
            return replace(n, op=Quantize(shifted(n.op.quant), new))
        if isinstance(n.op, Dequantize) and n.inputs[0] in codes:
            return replace(n, op=replace(n.op, quant=shifted(n.op.quant)))
        return n

    return retyped(g, [other(n) for n in g.nodes])
