"""Parameters of the 8-bit kernels: twins of the C structs in ``native/kernels``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2dI8:
    """`sp_conv2d_i8` of conv2d_i8.h, with `tasks` and `scratch_bytes` of each."""

    batch: int
    ih: int
    iw: int
    ci: int
    oh: int
    ow: int
    co: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    pt: int
    pl: int
    groups: int
    xn: int
    xh: int
    xw: int
    ldy: int
    ldp: int
    part: int
    each: int
    fetch: int
    between: int
    band: int
    pair: int
    flip: int
    pad: int
    put: int
    tame: int
    matrix: int
    kind: int
    flat: int
    across: int
    runs: int
    kq: int
    xr: int
    xp: int
    xt: int
    line: int
    mr: int
    nv: int
    ro: int
    rb: int
    wb: int
    task_h: int
    task_w: int
    task_n: int
    tasks: int
    scratch_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsI8:
    """What structs of depthwise kernels begin with: sizes and addresses, as of `Window`."""

    batch: int
    ih: int
    iw: int
    c: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    pt: int
    pl: int
    xn: int
    xh: int
    xw: int
    ldy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseI8(ChannelsI8):
    """`sp_depthwise_i8` of depthwise_i8.h, with `tasks`."""

    pair: int
    flip: int
    pad: int
    put: int
    same: int
    ro: int
    rq: int
    mr: int
    rb: int
    task_h: int
    task_c: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwisePairsI8(ChannelsI8):
    """`sp_depthwise_pairs` of depthwise_pairs_i8.h, with `tasks`."""

    wide: int
    flip: int
    pad: int
    put: int
    ro: int
    rq: int
    mr: int
    nv: int
    rb: int
    task_h: int
    task_c: int
    tasks: int
