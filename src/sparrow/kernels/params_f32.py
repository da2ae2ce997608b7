"""Parameters of the float32 kernels: twins of the C structs in ``native/kernels``.

A class has the field names of its struct, plus `tasks` and `scratch_bytes`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

from sparrow.kernels.params_i8 import ChannelsI8, Conv2dI8
from sparrow.kernels.tasks import Core, core_of
from sparrow.targets import Target


@dataclass(frozen=True, slots=True)
class Simd:
    """What the tile choice needs to know of a CPU.

    `registers` counts those a tile may use; `ways` is the associativity of the level-1 data cache;
    `dot2_ops` counts the instructions of two products of bfloat16; `both_held` and `shares` are as
    in `Isa`; `l2_rate` and `memory_rate` are bytes that a core reads per cycle from L2 and from
    memory.
    """

    lanes: int
    registers: int
    l1_bytes: int
    l2_bytes: int
    ways: int
    dot2_ops: int
    both_held: bool
    l2_rate: float
    memory_rate: float
    core: Core
    shares: bool = False


@dataclass(frozen=True, slots=True)
class Gemm:
    """`sp_gemm` of gemm_f32.h; `scratch_bytes` per task, 0 unless `sp_gemm_pack_f32` is meant."""

    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int
    a_trans: int
    b_packed: int
    b_trans: int
    mr: int
    nv: int
    ku: int
    pf: int
    every: int
    mc: int
    task_m: int
    task_n: int
    batch: int
    sa: int
    sb: int
    sc: int
    pair: int
    half: int
    shared: int
    tasks: int
    scratch_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Sizes and addresses of a windowed layer.

    Element (n, y, x, c) of the input lies at n*xn + y*xh + x*xw + c; output pixels lie at distance
    `ldy`. Pads `pt` and `pl` are those before the image; those after it follow from `oh` and `ow`.
    """

    ih: int
    iw: int
    oh: int
    ow: int
    kh: int
    kw: int
    xn: int
    xh: int
    xw: int
    ldy: int
    sh: int = 1
    sw: int = 1
    dh: int = 1
    dw: int = 1
    pt: int = 0
    pl: int = 0
    batch: int = 1

    @property
    def halo(self) -> int:
        """Rows of the input that a core reads of its neighbour's: half of those that both read."""
        return max(0, (self.kh - 1) * self.dh + 1 - self.sh) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2dShape(Window):
    """A convolution: `ci` and `co` count all groups; `xc` is the distance of input channels."""

    ci: int
    co: int
    groups: int = 1
    xc: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2d(Conv2dShape):
    """`sp_conv2d` of conv2d_f32.h."""

    mr: int
    nv: int
    ku: int
    rb: int
    task_h: int
    task_n: int
    as_gemm: int
    mc: int
    task_m: int
    pf: int
    every: int
    pair: int
    half: int
    shared: int
    ahead: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise(Window):
    """`sp_depthwise` of depthwise_f32.h."""

    c: int
    xhalf: int
    half: int
    mr: int
    cb: int
    rb: int
    task_h: int
    task_c: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool2d(Window):
    """`sp_pool2d` of pool_f32.h."""

    c: int
    pb: int
    pr: int
    average: int
    task_h: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Mean2d:
    """`sp_mean2d` of pool_f32.h."""

    batch: int
    ih: int
    iw: int
    c: int
    xn: int
    xh: int
    xw: int
    ldy: int
    task_n: int
    task_c: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WinogradShape:
    """A dense 3x3 convolution of stride 1, as both structs begin; addresses as in `Window`."""

    batch: int
    ih: int
    iw: int
    ci: int
    oh: int
    ow: int
    co: int
    pt: int
    pl: int
    xn: int
    xh: int
    xw: int
    ldy: int
    half: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Winograd(WinogradShape):
    """`sp_winograd` of winograd_f32.h."""

    raw: int
    mr: int
    nv: int
    tb: int
    task_b: int
    task_n: int
    group: int
    tasks: int
    scratch_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WinogradStream(WinogradShape):
    """`sp_winograd_stream` of winograd_stream_f32.h."""

    np: int
    nt: int
    kc: int
    tb: int
    task_b: int
    task_n: int
    tasks: int
    scratch_bytes: int


def winograd_shape(s: Conv2dShape, half: bool) -> WinogradShape | None:
    """What F(4x4, 3x3) takes; None where it does not apply. `half`: the output is bfloat16."""
    plain = s.sh == s.sw == s.dh == s.dw == s.groups == s.xc == 1
    if not plain or s.kh != 3 or s.kw != 3:
        return None
    own = {f.name: getattr(s, f.name) for f in fields(WinogradShape) if f.name != "half"}
    return WinogradShape(**own, half=int(half))


def shape_text(s: Window | Gemm, **more: int) -> str:
    """Sizes and strides, and ``more``, as a key of measured times; zeros and defaults left out."""
    tile = ("mr", "nv", "ku", "shared", "pf", "every", "mc", "task_m", "task_n")
    chosen = (*tile, "tasks", "scratch_bytes")
    own = {
        f.name: getattr(s, f.name)
        for f in fields(s)
        if f.name not in chosen and getattr(s, f.name) != f.default
    }
    return " ".join(f"{k}={int(v)}" for k, v in {**own, **more}.items() if v)


def simd_of(target: Target) -> Simd:
    """The CPU of a target as the tile choice sees it."""
    isa, t = target.isa, target
    caches = (t.l1_bytes, t.l2_bytes, t.l1_ways)
    rates = (t.l2_rate, t.memory_rate, core_of(t))
    return Simd(isa.lanes, isa.registers, *caches, isa.dot2_ops, isa.both_held, *rates, isa.shares)


Params: TypeAlias = Gemm | Conv2d | Depthwise | Pool2d | Mean2d | Winograd | WinogradStream

_STRUCTS = {
    Gemm: "sp_gemm",
    Conv2d: "sp_conv2d",
    Depthwise: "sp_depthwise",
    Pool2d: "sp_pool2d",
    Mean2d: "sp_mean2d",
    Winograd: "sp_winograd",
    WinogradStream: "sp_winograd_stream",
}


def c_literal(p: Params) -> str:
    """The parameters as a C99 compound literal with designated initialisers."""
    values = (
        f".{f.name} = {getattr(p, f.name)}"
        for f in fields(p)
        if f.name not in ("tasks", "scratch_bytes")
    )
    return f"(({_STRUCTS[type(p)]}){{{', '.join(values)}}})"


def params_of(p: Params | Conv2dI8 | ChannelsI8) -> dict[str, int]:
    """Fields of the C parameter struct."""
    return {k: v for k, v in asdict(p).items() if k not in ("tasks", "scratch_bytes")}
