"""Convolutions and products of codes for engines that add products by twos: ``maddubs_i8.h``.

An unsigned byte times a signed one, and the same of its neighbour, fit in 16 bits together where
the positive weights of the two add up to 128 at most, and so do the negative ones. Twos of two
quads fit where these sums do. A byte of the input may be turned, x to 255 - x, where its weight is
negated and 255 times it is where the sum begins: of neighbours of one sign that are too large
together, one changes its side. Which quads are taken together, and what is turned, is chosen from
the weights, for each vector of channels: a sum has no order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.case import Case, Kernel, Lowered, Pack, Reject
from sparrow.kernels.compact_i8 import blocks_of, lowered, params
from sparrow.kernels.packing_i8 import pack_conv
from sparrow.kernels.sums_i8 import conv2d_sum
from sparrow.kernels.tiling_i8 import merges, reads_inside
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets.instruction_sets import ISAS

# What the weights of one sign, of bytes up to 255, may add up to.
MOST = 128
# Quads that are looked at together.
WINDOW = 64
# Instructions of a step of two quads, of turning one of them, of a step of one that is turned; and
# of an epilogue beyond that of tiles of two vectors, which are stored together.
STEP, TURN, SINGLE, STORE = 5.0, 1.0, 4.0, 1.5
# Pixels of a tile: sums, a quad, weights, a mask and ones just fit V8's registers on x86.
PIXELS = (10, 8, 7)
HEADER = 5  # words of sp_maddubs_i8
# Which of two neighbours are turned; neither where that will do.
_TURNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """How the sums of a vector of channels are taken.

    Attributes:
        pairs: Quads that are taken together, int [steps, 2], by whether none, the second or both
            have bytes turned.
        single: Quads that are taken alone, bytes turned or not.
        turned: bool [quads, lanes, 4].
    """

    pairs: tuple[NDArray[np.intp], ...]
    single: NDArray[np.intp]
    turned: NDArray[np.bool_]

    @property
    def counts(self) -> tuple[int, ...]:
        """Steps of each kind."""
        return (*map(len, self.pairs), len(self.single))

    @property
    def instructions(self) -> float:
        """Of the sums of a pixel."""
        steps = sum((STEP + k * TURN) * len(p) for k, p in enumerate(self.pairs))
        return steps + SINGLE * len(self.single)

    @property
    def nbytes(self) -> int:
        """Of weights, masks and places, whole words."""
        quads, lanes = map(int, self.turned.shape[:2])
        _, one, two, single = self.counts
        masks = one + 2 * two + single
        return 4 * lanes * (quads + masks) + (quads + 1) // 2 * 4

    def start(self, w: NDArray[np.int8]) -> NDArray[np.int64]:
        """What turned bytes of ``w`` [quads, lanes, 4] add to where sums begin, [lanes]."""
        sums: NDArray[np.int64] = (w.astype(np.int64) * self.turned).sum((0, 2))
        return 255 * sums

    def pack(self, w: NDArray[np.int8], places: NDArray[np.int64]) -> bytes:
        """What the kernel reads of ``w``, whose quads lie at ``places``, bytes from a pixel."""
        masks = np.where(self.turned, -1, 0).astype(np.int8)
        w = np.where(self.turned, -w, w)
        steps = [np.concatenate((w[p], masks[p[:, 2 - k :]]), 1) for k, p in enumerate(self.pairs)]
        steps.append(np.stack((w[self.single], masks[self.single]), 1))
        at = places[np.concatenate((*(p.ravel() for p in self.pairs), self.single))]
        at = np.pad(at, (0, len(at) % 2))
        return b"".join((*(a.tobytes() for a in steps), at.astype("<u2").tobytes()))


def steps_of(quads: NDArray[np.int8]) -> list[Steps]:
    """Steps of int8 [vectors, quads, lanes, 4], none of which is -128."""
    vectors, n, lanes, _ = quads.shape
    w = quads.reshape(vectors, n, 2 * lanes, 2).astype(np.int16)
    turned = np.zeros(w.shape, np.bool_)
    found = [_window(w[:, i : i + WINDOW], i) for i in range(0, n, WINDOW)]
    free = np.concatenate([free for _, free in found], 1)
    kinds = []
    for k, parts in enumerate(zip(*(partners for partners, _ in found), strict=True)):
        partner = np.concatenate(parts, 1)
        v, i = np.nonzero(partner >= 0)
        j = partner[v, i]
        turned[v, i], turned[v, j] = _turns(w[v, i], w[v, j], k)
        kinds.append(np.split(np.stack((i, j), 1), np.cumsum((partner >= 0).sum(1))[:-1]))
    v, i = np.nonzero(free)
    _, turned[v, i] = _turns(np.zeros_like(w[v, i]), w[v, i], 1)
    return [
        Steps(pairs, np.nonzero(alone)[0], bits.reshape(n, lanes, 4))
        for pairs, alone, bits in zip(zip(*kinds, strict=True), free, turned, strict=True)
    ]


def _sides(w: NDArray[np.int16], turn: tuple[int, int]) -> NDArray[np.uint8]:
    """What the positive and the negative ones of two add up to, up to 129: [2, ...]."""
    a, b = w[..., 0] * np.int16(turn[0]), w[..., 1] * np.int16(turn[1])
    sums = np.maximum(a, 0) + np.maximum(b, 0), np.maximum(-a, 0) + np.maximum(-b, 0)
    found: NDArray[np.uint8] = np.minimum(np.stack(sums), MOST + 1).astype(np.uint8)
    return found


def _turns(
    first: NDArray[np.int16], second: NDArray[np.int16], most: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What to turn of quads that fit together so, of ``most`` of the two."""
    turned = np.zeros((2, *first.shape), np.bool_)
    done = np.zeros(first.shape[:-1], np.bool_)
    for a in _TURNS[: 4 if most > 1 else 1]:
        for b in _TURNS[: 4 if most else 1]:
            sums = _sides(first, a).astype(int) + _sides(second, b)
            ok = (sums <= MOST).all(0) & ~done
            turned[0] |= ok[..., None] & (np.array(a) < 0)
            turned[1] |= ok[..., None] & (np.array(b) < 0)
            done |= ok
    assert done.all()
    return turned[0], turned[1]


def _window(
    w: NDArray[np.int16], first: int
) -> tuple[tuple[NDArray[np.intp], ...], NDArray[np.bool_]]:
    """Partners of quads [vectors, quads, twos, 2], by how many are turned; those that have none.

    Numbers of quads begin with ``first``, -1 is none.

    Heavy ones choose first, and the heaviest that they can be with; where turning helps, those that
    have the least choice.
    """
    # [turns, 2, twos, vectors, quads]
    sides = np.stack([_sides(w, t) for t in _TURNS]).transpose(0, 1, 4, 2, 3)
    free = np.ones(w.shape[:2], np.bool_)
    rows = np.arange(len(free))[:, None]
    partners = []
    # by turns of the first and of the second; a pair that is turned on its other side is the same
    for firsts, seconds in ((1, 1), (1, 4), (2, 4)):
        left = int(free.sum(1).max())
        at = np.argsort(~free, axis=1, kind="stable")[:, :left]
        s = np.take_along_axis(sides, at[None, None, None], -1)
        room = np.where(s <= MOST, MOST + 1 - s, 0).astype(np.uint8)
        fits = np.ones((len(at), left, left), np.bool_)
        for lane in range(w.shape[2]):
            some = np.zeros_like(fits)
            for a in room[:firsts, :, lane, :, :, None]:
                for b in s[:seconds, :, lane, :, None]:
                    some |= (b[0] < a[0]) & (b[1] < a[1])
            fits &= some
        here = np.take_along_axis(free, at, 1)
        heavy = np.argsort(-s[0].max((0, 1)).astype(int), axis=1, kind="stable")
        choosy = np.argsort((fits & here[:, None]).sum(2), axis=1, kind="stable")
        found = _matched(fits, heavy if seconds == 1 else choosy, heavy, here)
        partner = np.full(free.shape, -1, np.intp)
        partner[rows, at] = np.where(found >= 0, first + at[rows, found], -1)
        free[rows, at] = here
        partners.append(partner)
    return tuple(partners), free


def _matched(
    fits: NDArray[np.bool_],
    asking: NDArray[np.intp],
    asked: NDArray[np.intp],
    free: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """Each one's partner or -1, in the order of ``asking``: the first free one of ``asked``."""
    rows = np.arange(len(free))
    partner = np.full(free.shape, -1, np.intp)
    for k in range(free.shape[1]):
        i = asking[:, k]
        able = free[rows, i][:, None] & fits[rows, i] & free
        able[rows, i] = False
        there = np.take_along_axis(able, asked, 1)
        found = there.any(1)
        v = rows[found]
        j = asked[v, there[found].argmax(1)]
        partner[v, i[found]] = j
        free[v, i[found]] = free[v, j] = False
    return partner


def _maddubs(case: Case) -> Lowered | Reject:
    found = conv2d_sum(case, unsigned=True)
    if isinstance(found, Reject):
        return found
    s, code, lanes = found.shape, found.code, case.target.isa.lanes
    if code.part:
        return Reject("output channels lie in parts")
    if found.weights.min(initial=0) == -128:
        return Reject("a weight of -128 cannot be negated")
    # an engine turns bytes once, when it copies them
    band = code.flip or not reads_inside(s)
    blocks = blocks_of(case, s, 1, -(-(s.co // s.groups) // lanes))
    s = blocks.shape
    merged = merges(s, band)
    p = params(s, code.pad, 1 if merged else s.kw, blocks.rows, blocks.panels)
    if isinstance(p, Reject):
        return p
    each = s.ci // s.groups
    line = blocks.line(1) if band else s.xh
    kernel = pack_conv(found.weights, s.groups, lanes, merged)
    _, _, kh, runs, kq, _, _ = kernel.shape
    ky, run, quad = np.ogrid[:kh, :runs, :kq]
    places = (ky * s.dh * line + run * s.dw * (each if band else s.xw) + 4 * quad).ravel()
    if places[-1] >= 1 << 16:
        return Reject("a pixel reads from more than 64 kB")
    quads = kernel.reshape(-1, kh * runs * kq, lanes, 4)
    steps = steps_of(quads)
    start = found.start(lanes)
    head = 4 * len(steps) * (HEADER + lanes)

    def pack() -> NDArray[np.int8]:
        structs, body = [], bytearray()
        begin = np.asarray(start).reshape(len(steps), lanes).astype(np.int64)
        for v, x in enumerate(steps):
            begin[v] += x.start(quads[v])
            structs.append((head + len(body), *x.counts))
            body += x.pack(quads[v], places)
        whole = begin.astype(np.uint64).astype("<u4").tobytes()
        return np.frombuffer(np.array(structs, "<i4").tobytes() + whole + body, np.int8)

    packed = Pack((head + sum(x.nbytes for x in steps),), np.dtype(np.int8), pack)
    pixels = min((min(n, s.ow) for n in PIXELS), key=lambda n: -(-s.ow // n) * (n + STORE))
    whole = s.co // s.groups % lanes == 0
    literals = (pixels, int(whole), int(band), int(code.flip), code.put)
    sums = sum(x.instructions for x in steps) * (pixels + 1) / pixels  # a step's own instructions
    cycles = s.batch * s.oh * s.ow * (sums + STORE * len(steps))
    scratch = blocks.scratch(1) if band else 0
    return lowered(
        *(case, found, "maddubs_i8.h", "sp_conv2d_maddubs_i8", p, literals),
        *(packed, blocks.tasks, scratch, cycles, blocks.lead(case, band)),
    )


_ISAS = tuple(i.name for i in ISAS if i.twos)
ROWS = (
    Kernel("conv2d_maddubs_i8", Conv, _maddubs, _ISAS),
    Kernel("gemm_maddubs_i8", MatMul, _maddubs, _ISAS),
)
