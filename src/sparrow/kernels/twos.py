"""Sums of products that are added by twos in 16 bits (`sp_maddubs_i32`).

An unsigned byte times a signed one, and the same of its neighbour, fit in 16 bits together where
the positive weights of the two add up to 128 at most, and so do the negative ones. Twos of two
quads fit where these sums do. A byte of the input may be turned, x to 255 - x, where its weight is
negated and 255 times it is where the sum begins: of neighbours of one sign that are too large
together, one changes its side. Which quads are taken together, and what is turned, is chosen from
the weights, for each vector of channels: a sum has no order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# What the weights of one sign, of bytes up to 255, may add up to.
MOST = 128
# Quads that are looked at together.
WINDOW = 64
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


def steps_of(quads: NDArray[np.int8]) -> tuple[Steps, ...]:
    """Steps of int8 [vectors, quads, lanes, 4], none of which is -128."""
    return _steps_of(quads.tobytes(), quads.shape)


@lru_cache(maxsize=128)  # plans of other parts and rows have the same weights
def _steps_of(data: bytes, shape: tuple[int, ...]) -> tuple[Steps, ...]:
    quads = np.frombuffer(data, np.int8).reshape(shape)
    vectors, n, lanes, _ = shape
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
    return tuple(
        Steps(pairs, np.nonzero(alone)[0], bits.reshape(n, lanes, 4))
        for pairs, alone, bits in zip(zip(*kinds, strict=True), free, turned, strict=True)
    )


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
