"""exp of what is not positive, in int32: one polynomial that every op over codes shares."""

from __future__ import annotations

from sparrow import lane
from sparrow.lane import Expr
from sparrow.tensor import I32

# 2^-x on [0, 1] is 1 - x (A - x (B - x C)), coefficients times 2^15; with the roundings of its
# steps within 1.8e-4 of itself.
A, B, C = 22662, 7575, 1298
ONE = 1 << 15
# Greatest argument: there the result is 0, and a shift of up to 7 more is one of at most 31.
LIMIT = 24 * ONE


def _times(a: Expr, b: Expr) -> Expr:
    return lane.call("rshr", lane.call("mul", a, b), lane.Imm(15, I32))


def halved(t: Expr, shift: int = 0) -> Expr:
    """2^(15 - shift) 2^(-t / 2^15), rounded, for int32 ``t`` in [0, LIMIT]; shift is up to 7.

    Products stay below 2^30. `sp_halved_i32` of native/kernels/exponential.h is its twin.
    """
    x = lane.call("bitand", t, lane.Imm(ONE - 1, I32))
    inner = lane.call("sub", lane.Imm(B, I32), _times(x, lane.Imm(C, I32)))
    inner = lane.call("sub", lane.Imm(A, I32), _times(x, inner))
    p = lane.call("sub", lane.Imm(ONE, I32), _times(x, inner))
    # the difference is a multiple of 2^15: nothing is rounded
    whole = lane.call("rshr", lane.call("sub", t, x), lane.Imm(15, I32))
    places = lane.call("add", whole, lane.Imm(shift, I32)) if shift else whole
    return lane.call("rshr", p, places)
