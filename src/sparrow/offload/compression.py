"""Bytes that a device moves when weights and feature maps are compressed on their way.

The mechanism of such devices is not public; these are lossless codes that a decoder in a bus can
undo. Weights, in blocks of 4 KiB: the smallest of raw bytes, a bit mask of what is not zero, a
canonical Huffman code (Huffman 1952) and a palette of 16; feature maps, in groups of 16 bytes: a
bit mask.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from sparrow.tensor import Array

BLOCK = 4096
# Where a block begins and how it is written: what random access costs.
_ENTRY = 4
_GROUP = 16
_PALETTE = 16


def packed_bytes(codes: Array) -> int:
    """Bytes of 8-bit weights as blocks, table included."""
    data = np.ascontiguousarray(codes).view(np.uint8).reshape(-1)
    starts = range(0, data.size, BLOCK)
    return sum(_ENTRY + _block_bytes(data[i : i + BLOCK]) for i in starts)


def _block_bytes(block: NDArray[np.uint8]) -> int:
    counts = np.bincount(block, minlength=256)
    used = counts[counts > 0]
    sizes = [block.size, -(-block.size // 8) + int(block.size - counts[0]), huffman_bytes(counts)]
    if used.size <= _PALETTE:
        sizes.append(_PALETTE + -(-block.size // 2))
    return min(sizes)


def huffman_bytes(counts: NDArray[np.int64]) -> int:
    """Bytes of a block in its own canonical Huffman code, 4 bits for each of 256 code lengths.

    Args:
        counts: Of each byte, [256].
    """
    heap = [int(c) for c in counts if c]
    if len(heap) == 1:
        return 128 + -(-heap[0] // 8)
    heapq.heapify(heap)
    # a symbol is as many bits long as joins lie above it: their counts sum up to the length
    bits = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        bits += joined
        heapq.heappush(heap, joined)
    return 128 + -(-bits // 8)


def masked_bytes(codes: Array, zero: int) -> int:
    """Bytes of a feature map of 8-bit codes: 2 for each group of 16, and what is not zero.

    Args:
        codes: Any shape, int8 or uint8.
        zero: The code of zero.
    """
    groups = -(-codes.size // _GROUP)
    return groups * (_GROUP // 8) + int(np.count_nonzero(codes != zero))
