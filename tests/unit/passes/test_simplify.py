"""Expression rules: what each spelling becomes, and that special values stay."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.special import erf

from sparrow import lane
from sparrow.lane import Arg, Expr, Imm, call, cast, imm_like
from sparrow.passes.literals import hoist_constants, literals
from sparrow.passes.simplify import bounds, simpler, simplify
from sparrow.tensor import BOOL, F16, F32, F64, I8, I32, I64, U8, Array
from unit.passes.check import Net, becomes, kinds, refused, run

X, Y = Arg(0, F32), Arg(1, F32)
K = Arg(0, I32)
B = Arg(0, BOOL)


def f(v: float) -> Imm:
    """A float32 literal."""
    return Imm(float(v), F32)


def c(fn: str, *args: Expr) -> Expr:
    """A call."""
    return call(fn, *args)


SPECIAL = np.array(
    [0.0, -0.0, 1, -1, 0.5, -2.5, 3, 7, -7, 1e-30, 1e30, -1e30, np.inf, -np.inf, np.nan], np.float32
)


def clip01(e: Expr) -> Expr:
    """Between 0 and 1 as exporters write it."""
    return c("min", c("max", e, f(0)), f(1))


def tanh_gelu(x: Expr, cube: Expr) -> Expr:
    """0.5 x (1 + tanh(..)) with a given spelling of x^3."""
    inner = c("mul", f(math.sqrt(2 / math.pi)), c("add", x, c("mul", f(0.044715), cube)))
    return c("mul", c("mul", f(0.5), x), c("add", f(1), c("tanh", inner)))


EXACT: list[tuple[str, Expr, Expr]] = [
    ("x * 1", c("mul", X, f(1)), X),
    ("1 * x", c("mul", f(1), X), X),
    ("x + 0", c("add", X, f(0)), X),
    ("x - 0", c("sub", X, f(0)), X),
    ("x / 1", c("div", X, f(1)), X),
    ("x ^ 1", c("pow", X, f(1)), X),
    ("x * -1", c("mul", X, f(-1)), c("neg", X)),
    ("-(-x)", c("neg", c("neg", X)), X),
    ("|-x|", c("abs", c("neg", X)), c("abs", X)),
    ("x + -y", c("add", X, c("neg", Y)), c("sub", X, Y)),
    ("x - -y", c("sub", X, c("neg", Y)), c("add", X, Y)),
    ("-x * -y", c("mul", c("neg", X), c("neg", Y)), c("mul", X, Y)),
    ("x / 8", c("div", X, f(8)), c("mul", X, f(0.125))),
    ("relu relu", c("relu", c("relu", X)), c("relu", X)),
    ("max(x, 0)", c("max", X, f(0)), c("relu", X)),
    ("max(max)", c("max", c("max", X, f(1)), f(2)), c("max", X, f(2))),
    ("relu(max(x, -1))", c("relu", c("max", X, f(-1))), c("relu", X)),
    ("relu(sigmoid)", c("relu", c("sigmoid", X)), c("sigmoid", X)),
    ("clip of clip", clip01(clip01(X)), c("min", c("relu", X), f(1))),
    ("min(sigmoid, 2)", c("min", c("sigmoid", X), f(2)), c("sigmoid", X)),
    ("x * sigmoid(x)", c("mul", X, c("sigmoid", X)), c("silu", X)),
    ("2 + 3", c("mul", X, c("add", f(2), f(3))), c("mul", X, f(5))),
]


@pytest.mark.parametrize(("name", "e", "want"), EXACT, ids=[r[0] for r in EXACT])
def test_exact_rules(name: str, e: Expr, want: Expr) -> None:
    """Same values for special operands too, NaN and infinities included."""
    assert simpler(e) == want
    a, b = np.meshgrid(SPECIAL, SPECIAL)
    np.testing.assert_array_equal(lane.evaluate(want, (a, b)), lane.evaluate(e, (a, b)))


ROUNDED: list[tuple[str, Expr, Expr]] = [
    ("x ^ 2", c("pow", X, f(2)), c("mul", X, X)),
    ("x ^ 3", c("pow", X, f(3)), c("mul", c("mul", X, X), X)),
    ("x ^ 0.5", c("pow", X, f(0.5)), c("sqrt", X)),
    ("x ^ -0.5", c("pow", X, f(-0.5)), c("div", f(1), c("sqrt", X))),
    ("x * (1 / y)", c("mul", X, c("div", f(1), Y)), c("div", X, Y)),
    ("logistic", c("div", f(1), c("add", f(1), c("exp", c("neg", X)))), c("sigmoid", X)),
    ("swish", c("div", X, c("add", c("exp", c("neg", X)), f(1))), c("silu", X)),
    (
        "hardswish",
        c("mul", X, clip01(c("add", c("mul", X, f(1 / 6)), f(0.5)))),
        c("hardswish", X),
    ),
    (
        "hardswish by relu6",
        c("div", c("mul", X, c("min", c("max", c("add", X, f(3)), f(0)), f(6))), f(6)),
        c("hardswish", X),
    ),
    (
        "hardswish, divided inside",
        c("mul", X, c("div", c("min", c("relu", c("add", f(3), X)), f(6)), f(6))),
        c("hardswish", X),
    ),
    (
        "gelu of pytorch",
        c("mul", c("mul", X, c("add", c("erf", c("div", X, f(math.sqrt(2)))), f(1))), f(0.5)),
        c("gelu", X),
    ),
    (
        "gelu whose half is in weights",
        c("mul", X, c("add", c("erf", c("div", X, f(2**0.5))), f(1))),
        c("mul", c("gelu", X), f(2)),
    ),
    (
        "gelu, halved inside",
        c("mul", X, c("add", f(0.5), c("mul", f(0.5), c("erf", c("mul", X, f(0.5**0.5)))))),
        c("gelu", X),
    ),
    ("tanh gelu by pow", tanh_gelu(X, c("pow", X, f(3))), c("gelu_tanh", X)),
    ("tanh gelu by products", tanh_gelu(X, c("mul", X, c("mul", X, X))), c("gelu_tanh", X)),
]


@pytest.mark.parametrize(("name", "e", "want"), ROUNDED, ids=[r[0] for r in ROUNDED])
def test_rules_within_rounding(name: str, e: Expr, want: Expr) -> None:
    """The spelled form and the function differ by rounding only."""
    assert simpler(e) == want
    a = np.linspace(0.01 if "^" in name else -6, 6, 200, dtype=np.float32)
    b = a[::-1] + np.float32(7)
    np.testing.assert_allclose(
        lane.evaluate(want, (a, b)), lane.evaluate(e, (a, b)), rtol=2e-5, atol=1e-6
    )


KEPT = {
    "a product with 0": c("mul", X, f(0)),
    "division by 49": c("div", X, f(49)),
    "a reassociated sum": c("add", c("add", X, f(1e30)), f(-1e30)),
    "x - x": c("sub", X, X),
    "gelu with another factor": c(
        "mul", c("mul", X, c("add", c("erf", c("mul", X, f(0.7))), f(1))), f(0.5)
    ),
    "hardswish with another slope": c("mul", X, clip01(c("add", c("mul", X, f(0.2)), f(0.5)))),
    "half-precision swish": c("mul", Arg(0, F16), c("sigmoid", Arg(0, F16))),
    "a maximum with NaN": c("max", X, f(math.nan)),
    "an integer division by 8": c("div", K, Imm(8, I32)),
    "a narrowing cast": cast(cast(X, F16), F32),
    "a wrapping cast": cast(cast(K, I8), I32),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    """What looks alike but is not the same stays (clips may still take their short form)."""
    e = KEPT[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a: Array = SPECIAL.astype(np.float16) if "half" in name else SPECIAL
        if name.endswith(("by 8", "wrapping cast")):
            a = np.array([-9, 300], np.int32)
        np.testing.assert_array_equal(lane.evaluate(simpler(e), (a,)), lane.evaluate(e, (a,)))
    names = {s.fn for s in lane.walk(simpler(e)) if isinstance(s, lane.Call)}
    assert not names & {"gelu", "hardswish", "silu"}


def test_selections_and_casts() -> None:
    a, b = Arg(1, F32), Arg(2, F32)
    assert simpler(c("where", c("not", B), a, b)) == c("where", B, b, a)
    assert simpler(c("where", B, a, a)) == a
    assert simpler(c("not", c("not", B))) == B
    assert simpler(cast(cast(Arg(0, F16), F32), F16)) == Arg(0, F16)
    assert simpler(cast(cast(Arg(0, U8), F32), U8)) == Arg(0, U8)
    assert simpler(cast(cast(Arg(0, I8), I32), I64)) == cast(Arg(0, I8), I64)


def test_bounds_hold() -> None:
    """Values never leave their interval."""
    for e in (c("tanh", X), c("min", c("exp", X), f(3)), c("where", c("lt", X, f(0)), f(2), f(5))):
        lo, hi = bounds(e)
        with np.errstate(all="ignore"):
            v = lane.evaluate(e, (SPECIAL[:-1],))
        assert (v >= lo).all() and (v <= hi).all()


def test_int64_literals_keep_all_bits() -> None:
    big = Arg(0, I64)
    e = c("max", c("max", big, Imm(2**53 + 1, I64)), Imm(2**53, I64))
    assert simpler(e) == c("max", big, Imm(2**53 + 1, I64))


def test_a_uniform_constant_becomes_a_literal() -> None:
    n = Net()
    g = n.done(n.call("mul", n.x(2, 3), n.const(np.full((3,), 2, np.float32))))
    after = becomes(g, [literals], ["Lane"])
    assert after.nodes[0].inputs == ("x",)


def test_a_negative_zero_is_no_zero() -> None:
    n = Net()
    g = n.done(n.call("mul", n.x(2), n.const(np.array([0.0, -0.0], np.float32))))
    after, _ = run(g, literals)
    assert after is g


def test_a_constant_that_gives_the_shape_stays() -> None:
    n = Net()
    refused(
        n.done(n.call("add", n.x(1, 3), n.const(np.zeros((2, 3), np.float32)))), literals, "shape"
    )


def test_a_call_over_constants_is_computed() -> None:
    n = Net()
    x, a, b = n.x(2, 3), n.w(3), n.w(3)
    e = c("add", X, c("mul", Arg(1, F32), Arg(2, F32)))
    after = becomes(n.done(n.lane(e, x, a, b)), [hoist_constants], ["Lane"])
    assert len(after.nodes[0].inputs) == 2


def test_constants_that_would_grow_stay() -> None:
    n = Net()
    e = c("add", X, c("mul", Arg(1, F32), Arg(2, F32)))
    g = n.done(n.lane(e, n.x(3, 3), n.w(3, 1), n.w(1, 3)))
    assert run(g, hoist_constants)[0] is g


def test_an_operand_that_gives_the_shape_is_kept() -> None:
    n = Net()
    e = c("where", c("eq", X, X), Y, Y)
    refused(n.done(n.lane(e, n.x(2, 3), n.x(3, name="z"))), simplify, "shape")


def test_operands_that_are_no_longer_read_go() -> None:
    n = Net()
    e = c("where", c("eq", X, X), Y, Y)
    after, _ = run(n.done(n.call("exp", n.lane(e, n.x(2, 3), n.x(2, 3, name="z")))), simplify)
    assert after.nodes[0].inputs == ("z",) and kinds(after) == ["Lane", "Lane"]


def test_gelu_is_what_its_definition_says() -> None:
    """A closed form, independent of the lane table."""
    x = np.linspace(-4, 4, 101)
    got = lane.evaluate(c("gelu", Arg(0, F64)), (x,))
    np.testing.assert_allclose(got, x * (1 + erf(x / np.sqrt(2))) / 2, rtol=1e-9, atol=1e-12)
    assert imm_like(2, X) == f(2)
