"""Blocks of pixels as channels or as images, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from sparrow.importers.tflite.call import Call, Decoder
from sparrow.importers.tflite.decode.movement import cut, pairs, zero_code
from sparrow.ops.pad import Pad


def _block(n: Call) -> int:
    block = int(n.option("block"))
    if n.type().rank != 4 or not 1 <= block <= 1 << 16:
        raise n.bad(f"blocks of {block} of {n.type()}")
    return block


def _space_to_depth(n: Call) -> Sequence[str]:
    block = _block(n)
    b, h, w, c = n.type().shape
    if h % block or w % block:
        raise n.bad(f"blocks of {block} of {n.type()}")
    y = n.b.reshape(n.x(), (b, h // block, block, w // block, block, c))
    y = n.b.transpose(y, (0, 1, 3, 2, 4, 5))
    return [n.b.reshape(y, (b, h // block, w // block, c * block * block))]


def _depth_to_space(n: Call) -> Sequence[str]:
    block = _block(n)
    b, h, w, c = n.type().shape
    if c % (block * block):
        raise n.bad(f"blocks of {block} of {n.type()}")
    y = n.b.reshape(n.x(), (b, h, w, block, block, c // (block * block)))
    y = n.b.transpose(y, (0, 1, 3, 2, 4, 5))
    return [n.b.reshape(y, (b, h * block, w * block, c // (block * block)))]


def _blocks(n: Call) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """(block per spatial axis, pads or crops per spatial axis)."""
    blocks = n.ints(1, "the block shape")
    if not 1 <= len(blocks) < n.type().rank or min(blocks) < 1:
        raise n.bad(f"blocks {blocks} of {n.type()}")
    return blocks, pairs(n, 2, "pads or crops", len(blocks))


def _space_to_batch(n: Call) -> Sequence[str]:
    blocks, pads = _blocks(n)
    shape, k = n.type().shape, len(blocks)
    rest = shape[1 + k :]
    full = ((0, 0), *pads, *((0, 0),) * len(rest))
    x = n.b.add(Pad(full, "constant", zero_code(n)), n.x()) if any(map(any, full)) else n.x()
    spatial = n.b.shape(x)[1 : 1 + k]
    if any(d % b for d, b in zip(spatial, blocks, strict=True)):
        raise n.bad(f"blocks {blocks} of padded extents {spatial}")
    outer = [d // b for d, b in zip(spatial, blocks, strict=True)]
    split = [e for d, b in zip(outer, blocks, strict=True) for e in (d, b)]
    y = n.b.reshape(x, (shape[0], *split, *rest))
    inner = [2 + 2 * i for i in range(k)]
    order = [*inner, 0, *(i - 1 for i in inner), *range(1 + 2 * k, 1 + 2 * k + len(rest))]
    return [n.b.reshape(n.b.transpose(y, order), (shape[0] * prod(blocks), *outer, *rest))]


def _batch_to_space(n: Call) -> Sequence[str]:
    blocks, crops = _blocks(n)
    shape, k = n.type().shape, len(blocks)
    spatial, rest = shape[1 : 1 + k], shape[1 + k :]
    if shape[0] % prod(blocks):
        raise n.bad(f"blocks {blocks} of {n.type()}")
    batch = shape[0] // prod(blocks)
    y = n.b.reshape(n.x(), (*blocks, batch, *spatial, *rest))
    order = [k, *(e for i in range(k) for e in (k + 1 + i, i))]
    y = n.b.transpose(y, [*order, *range(2 * k + 1, 2 * k + 1 + len(rest))])
    grown = [d * b for d, b in zip(spatial, blocks, strict=True)]
    y = n.b.reshape(y, (batch, *grown, *rest))
    for i, (a, e) in enumerate(crops):
        if a + e > grown[i]:
            raise n.bad(f"crops {crops} of {grown}")
        y = cut(n, y, 1 + i, a, grown[i] - a - e)
    return [y]


DECODERS: Mapping[str, Decoder] = {
    "BATCH_TO_SPACE_ND": _batch_to_space,
    "DEPTH_TO_SPACE": _depth_to_space,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "SPACE_TO_DEPTH": _space_to_depth,
}
