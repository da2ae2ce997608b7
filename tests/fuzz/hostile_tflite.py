"""Hostile .tflite files made by hand: what a FlatBuffer may claim, and what its tables may say."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np

from fuzz.words import HOSTILE, INTEGERS
from sparrow.importers.tflite.model import Sparsity
from sparrow.tensor import BOOL, F32, I8, I32
from tflite_files import G, O, T, constant, write

NAN = float("nan")
X, Y = T("x", (1, 4, 4, 2), F32), T("y", (1, 4, 4, 2), F32)
WINDOW = {"padding": 0, "stride_w": 1, "stride_h": 1}


def _small(n: int) -> int:
    return max(-(1 << 31), min(n, (1 << 31) - 1))


def quantizations() -> Iterator[bytes]:
    """Scales and zero points of the wrong number, sign, size and axis."""
    weights = np.arange(24, dtype=np.int8).reshape(3, 2, 2, 2)
    x, y = T("x", (1, 4, 4, 2), I8, scale=[0.05], zero=[3]), T("y", (1, 4, 4, 3), I8, scale=[0.1])
    w = constant("w", weights, scale=[0.01, 0.02, 0.03], zero=[0, 0, 0], axis=0)
    b = constant("b", np.arange(3, dtype=np.int32), scale=[0.0005, 0.001, 0.0015])
    scales = ([NAN], [0.0], [-1.0], [float("inf")], [1e-45], [3e38], [0.1] * 2, [0.1] * 5000)
    zeros = ([1 << 62], [-(1 << 63)], [200], [0] * 2, [0] * 5000)
    for at, good in enumerate((x, w, b, y)):
        bad = [replace(good, scale=v) for v in scales]
        bad += [replace(good, zero=v) for v in zeros]
        bad += [replace(good, axis=_small(v)) for v in INTEGERS]
        for t in bad:
            tensors = [x, w, b, y]
            tensors[at] = t
            conv = O("CONV_2D", ["x", "w", "b"], ["y"], {**WINDOW, "dilation_w": 1})
            yield write(tensors, [conv], ["x"], ["y"])


def numbers() -> Iterator[bytes]:
    """Extents, options and shape operands at the edges of their types."""
    for n in {_small(i) for i in INTEGERS}:
        for t in (replace(X, shape=(n,)), replace(X, shape=(n,) * 4), replace(X, shape=(1,) * 9)):
            yield write([t, replace(t, name="y")], [O("RELU", ["x"], ["y"])], ["x"], ["y"])
        yield write([constant("c", np.zeros(4, np.float32)), replace(X, shape=(n,))],
                    [O("RELU", ["c"], ["x"])], [], ["x"])  # fmt: skip
        pool = {"filter_w": 2, "filter_h": 2, **WINDOW}
        for key in pool:
            for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
                value = n & 1 if key == "padding" else n
                yield write([X, Y], [O(op, ["x"], ["y"], {**pool, key: value})], ["x"], ["y"])
        operand = constant("s", np.array([n] * 4, np.int32))
        one = constant("v", np.array(0.5, np.float32))
        for op in ("FILL", "BROADCAST_TO", "TILE", "RESHAPE", "GATHER", "REVERSE_V2", "TRANSPOSE"):
            inputs = ["s", "v"] if op == "FILL" else ["x", "s"]
            tensors = [X, operand, one, Y]
            yield write(tensors, [O(op, inputs, ["y"])], ["x"], ["y"])
        pads = constant("s", np.full((4, 2), n, np.int32))
        for op in ("PAD", "MIRROR_PAD", "SPACE_TO_BATCH_ND"):
            yield write([X, pads, Y], [O(op, ["x", "s"], ["y"], {"mode": 0})], ["x"], ["y"])
        for op, key in (
            ("SPACE_TO_DEPTH", "block_size"), ("DEPTH_TO_SPACE", "block_size"),
            ("CONCATENATION", "axis"), ("PACK", "axis"), ("SOFTMAX", "beta"),
            ("SPLIT", "num_splits"), ("UNPACK", "num"), ("ONE_HOT", "axis"),
        ):  # fmt: skip
            yield write([X, Y], [O(op, ["x"], ["y"], {key: n})], ["x"], ["y"])
        ends = [constant(a, np.array(v, np.int32)) for a, v in (("a", 0), ("b", n), ("c", 1))]
        yield write([*ends, T("y", (4,), I32)], [O("RANGE", ["a", "b", "c"], ["y"])], [], ["y"])


def circles() -> Iterator[bytes]:
    """Order, names, and tensors that are defined twice or never."""
    add = {"activation": 0}
    yield write([X, Y], [O("ADD", ["x", "y"], ["y"], add)], ["x"], ["y"])
    yield write([X, Y], [O("RELU", ["y"], ["x"]), O("RELU", ["x"], ["y"])], [], ["y"])
    yield write([X, Y], [O("RELU", ["x"], ["y"])] * 2, ["x"], ["y"])
    yield write([X, Y], [], ["x"], ["y"])
    yield write([X], [], ["x"] * 5000, ["x"] * 5000)
    yield write([X, Y], [O("RELU", ["x"] * 5000, ["y"] * 5000)], ["x"], ["y"])
    yield write([X, Y], [O("CONCATENATION", ["x"] * 5000, ["y"], {"axis": 0})], ["x"], ["y"])
    yield write([X, Y], [O("ADD_N", ["x"] * 8000, ["y"])], ["x"], ["y"])
    yield write([X, Y], [O("RELU", [], [])], ["x"], ["y"])
    chain = [replace(X, name=f"t{i}") for i in range(4000)]
    ops = [O("RELU", [f"t{i}"], [f"t{i + 1}"]) for i in range(3999)]
    yield write(chain, ops, ["t0"], ["t3999"])
    for name in (*HOSTILE, "x" * 1_000_000):
        if "\ud7ff" not in name:
            x, y = name or "x", f"{name}."
            tensors = [replace(X, name=x), replace(Y, name=y)]
            yield write(tensors, [O("RELU", [x], [y])], [x], [y])


def sharing() -> Iterator[bytes]:
    """A large part that stands once in the file and is pointed at many times."""
    big = constant("c", np.zeros(1 << 18, np.float32))
    plain = write([big, Y], [O("RELU", ["c"], ["y"])], [], ["y"])
    root = struct.unpack_from("<I", plain)[0]
    # after it: a vector of as many offsets as fit, all to one place in the file
    for field, count in ((1, 1 << 16), (2, 1 << 16), (4, 1 << 16), (1, 1 << 20)):
        for target in (root, root + 4, 8):
            data = bytearray(plain)
            start = len(data)
            data += struct.pack("<I", count)
            for i in range(count):
                data += struct.pack("<I", (target - (start + 4 + 4 * i)) & 0xFFFFFFFF)
            vtable = root - struct.unpack_from("<i", data, root)[0]
            slot = struct.unpack_from("<H", data, vtable + 4 + 2 * field)[0]
            if slot:
                struct.pack_into("<I", data, root + slot, start - root - slot)
                yield bytes(data)
    # one operator and one tensor, whose lists are long, many times over
    many = [replace(X, name=f"t{i}") for i in range(1000)]
    ops = [O("CONCATENATION", [f"t{i}" for i in range(1000)], ["y"], {"axis": 0})] * 1000
    yield write([*many, Y], ops, [t.name for t in many], ["y"])


def control() -> Iterator[bytes]:
    """Variables, branches, sparse constants and options of custom operators that say anything."""
    p, h, y = T("p", (), BOOL), T("h", (), I32, resource=True), replace(Y, name="y")
    handle, read = O("VAR_HANDLE", [], ["h"], {"name": "v"}), O("READ_VARIABLE", ["h"], ["y"])
    for n in {_small(i) for i in INTEGERS}:
        begin = O("CALL_ONCE", [], [], {"subgraph": n})
        yield write([h, X, y], [begin, handle, read], ["x"], ["y"], [G([h, X], [begin, handle])])
        branch = O("IF", ["p", "x"], ["y"], {"then": n, "otherwise": 1})
        inner = G([p, X, y], [branch], ["x"], ["y"])
        yield write([p, X, y], [branch], ["p", "x"], ["y"], [inner])
        first, at = np.array([0, n], np.int32), np.array([n], np.int32)
        for s in (
            Sparsity((0, 1), (), (1, (first, at))),
            Sparsity((n, 1), (n,), (n, (first, at), n)),
            Sparsity((0, 1, 2), (1,), (1, (np.array([0, 1], np.int32), at), n)),
        ):
            c = T("c", (1, 4), F32, np.ones(1, np.float32), sparsity=s)
            yield write([c, replace(Y, shape=(1, 4))], [O("DENSIFY", ["c"], ["y"])], [], ["y"])
    for name in HOSTILE:
        if "\ud7ff" not in name:
            named = O("VAR_HANDLE", [], ["h"], {"name": name, "container": name})
            yield write(
                [h, X, y], [named, O("ASSIGN_VARIABLE", ["h", "x"], []), read], ["x"], ["y"]
            )
    matrix = T("m", (1, 4, 4), F32)
    options = (
        b"",
        b"\0" * 24,
        b"\xff" * 24,
        b"\1\0\0\0" * 6,
        bytes(range(64)),
        b"\4\4\x24\1",
    )
    names = (
        *("Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D"),
        *("TransformTensorBilinear", "Landmarks2TransformMatrix", "TransformLandmarks"),
    )
    for op, custom in product(names, options):
        node = O(f"CUSTOM:{op}", ["x", "m"], ["y"], custom=custom, version=2)
        yield write([X, matrix, Y], [node], ["x", "m"], ["y"])


def envelopes() -> Iterator[bytes]:
    """Files that are hardly any."""
    good = write([X, Y], [O("RELU", ["x"], ["y"])], ["x"], ["y"])
    yield from (b"", b"TFL3", bytes(8) + b"TFL3", b"\x08\0\0\0TFL3", bytes(64), b"\xff" * 64)
    for offset in (0, 1, 4, len(good) - 1, len(good), 1 << 31, (1 << 32) - 1):
        yield struct.pack("<I", offset & 0xFFFFFFFF) + good[4:]
    root = struct.unpack_from("<I", good)[0]
    for back in (0, 1, -1, root, -root, 1 << 30, -(1 << 31)):
        data = bytearray(good)
        struct.pack_into("<i", data, root, back)
        yield bytes(data)
    yield good.replace(b"TFL3", b"TFL9")
    yield good * 2
    yield good + bytes(1 << 20)


@cache
def files() -> tuple[bytes, ...]:
    """All of them."""
    parts = (quantizations, numbers, circles, sharing, control, envelopes)
    return tuple(data for part in parts for data in part())
