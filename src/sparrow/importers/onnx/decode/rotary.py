"""Rotary embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.heads import split_heads
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.concat import Concat
from sparrow.ops.gather import Gather


def rotate(n: Call, heads: int, positions: str, cos: str, sin: str) -> Sequence[str]:
    """Rotate pairs of features by the angle of their position."""
    b, x, t = n.b, n.x(0), n.type(0)
    if t.rank == 3:
        x = split_heads(n, x, heads, "the input")
    elif t.rank != 4:
        raise n.bad(f"input {t}, expected rank 3 or 4")
    shape = b.shape(x)
    batch, rows = shape[0], shape[1 if t.rank == 3 else 2]
    width = int(n.attr("rotary_embedding_dim", 0)) or shape[3]
    half = width // 2
    if width % 2 or not 0 < width <= shape[3]:
        raise n.bad(f"rotary_embedding_dim {width} of {shape[3]} features")
    angles = []
    for cache in (cos, sin):
        a = b.add(Gather(0), cache, positions) if positions else cache
        if b.shape(a) != (batch, rows, half):
            raise n.bad(f"angles {b.type(a)}, expected {batch}x{rows}x{half}")
        one = (batch, rows, 1, half) if t.rank == 3 else (batch, 1, rows, half)
        angles.append(b.reshape(a, one))
    crossed = bool(n.attr("interleaved", 0))
    step = 2 if crossed else 1
    first = slice_axis(n, x, 3, 0, half, step)
    second = slice_axis(n, x, 3, 1 if crossed else half, half, step)
    p, q, c, s = (b.arg(i, v) for i, v in enumerate((first, second, *angles)))
    real = lane.call("sub", lane.call("mul", c, p), lane.call("mul", s, q))
    imag = lane.call("add", lane.call("mul", s, p), lane.call("mul", c, q))
    parts = [b.lane(e, first, second, *angles) for e in (real, imag)]
    if crossed:
        pairs = [b.reshape(v, (*shape[:3], half, 1)) for v in parts]
        parts = [b.reshape(b.add(Concat(4), *pairs), (*shape[:3], width))]
    if width < shape[3]:
        parts.append(slice_axis(n, x, 3, width, shape[3] - width))
    y = b.add(Concat(3), *parts) if len(parts) > 1 else parts[0]
    return [b.reshape(y, t.shape)]


def _rotary(n: Call) -> Sequence[str]:
    """ONNX RotaryEmbedding: [x, cos, sin, positions]."""
    return rotate(n, int(n.attr("num_heads", 0)), n.opt(3), n.x(1), n.x(2))


def _runtime_rotary(n: Call) -> Sequence[str]:
    """com.microsoft.RotaryEmbedding: [x, positions, cos, sin]."""
    if n.attr("is_packed_batching", 0) or float(n.attr("scale", 1.0)) != 1.0:
        raise n.unsupported("packed batching or scale")
    t = n.type(0)
    rows = t.shape[1 if t.rank == 3 else 2] if t.rank in (3, 4) else 0
    positions = n.x(1)
    if n.type(1).size == 1 and (t.shape[0], rows) != (1, 1):
        # one number is where the sequence starts
        n.b.made(t.shape[0] * rows, "the positions")
        offset = n.b.const(np.tile(n.b.places(rows), (t.shape[0], 1)))
        positions = n.b.call("add", n.b.reshape(positions, (1, 1)), offset)
    elif n.type(1).size == 1:
        positions = n.b.reshape(positions, (1, 1))
    heads = int(n.attr("num_heads", 0))
    if not heads and t.rank == 3:
        heads = t.shape[2] // max(1, 2 * n.type(2).shape[-1])
    return rotate(n, heads, positions, n.x(2), n.x(3))


DECODERS: Mapping[str, Decoder] = {
    "RotaryEmbedding": _rotary,
    "com.microsoft.RotaryEmbedding": _runtime_rotary,
}
