"""Determinants and reinterpreted bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.importers.onnx.call import Call, Decoder, elem_type
from sparrow.ops.bitcast import BitCast
from sparrow.ops.det import Det
from sparrow.tensor import BF16, BOOL, F16, F32


def _det(n: Call) -> Sequence[str]:
    dtype = n.type().dtype
    if dtype in (F16, BF16):
        return [n.b.cast(n.b.add(Det(), n.b.cast(n.x(), F32)), dtype)]
    return [n.b.add(Det(), n.x())]


def _bitcast(n: Call) -> Sequence[str]:
    dtype, x = elem_type(int(n.attr("to", 0)), n.where), n.type().dtype
    if dtype == x:
        return [n.x()]
    if dtype.bits != x.bits:
        raise n.bad(f"{x} has {x.bits} bits, {dtype} has {dtype.bits}")
    if dtype.bits < 8 or BF16 in (dtype, x) or dtype == BOOL:
        raise n.unsupported(f"bits of {x} as {dtype}")
    return [n.b.add(BitCast(dtype), n.x())]


DECODERS: Mapping[str, Decoder] = {
    "Det": _det,
    "BitCast": _bitcast,
}
