"""Parameters of the 8-bit kernels: tiles, blocks, tasks and predicted cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from sparrow.kernels.case import Tile
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import Conv2dShape
from sparrow.kernels.params_i8 import Conv2dI8
from sparrow.kernels.tasks import Grid, core_of, part_of, seam_cycles, task_grid
from sparrow.kernels.tiles_i8 import (
    MOST_PIXELS,
    between,
    cost_of_two,
    cost_of_twos,
    interleaved_cost,
    tile_cost,
    tiles,
)
from sparrow.kernels.tiles_matrix import (
    DENSE,
    SHAPED,
    Walk,
    matrix_cost,
    matrix_tiles,
    panels_across,
    step_of,
)
from sparrow.targets import Target

SINGLE, PAIRED, TWOS, HALVES = 3, 2, 4, 6  # SP_SINGLE, SP_PAIRED, SP_TWOS, SP_I16
STORED = (1, 1, 4, 2)  # bytes of what SP_PUT_I8 and so on store
PUT_32, PUT_16 = 2, 3


@dataclass(frozen=True, slots=True)
class Bytes:
    """How a kernel reads the bytes of its input, and writes its output.

    Attributes:
        flip: They are of the other kind than the dot product takes.
        pad: Byte of the padding as the dot product takes it.
        put: What is stored: 0 int8, 1 uint8, 2 any 32 bits, 3 int16.
        part: Channels that are adjacent, where not all are; 0 otherwise.
        ldp: Elements from such a part to the next.
        each: A pixel is stored before the epilogue of the next, which loads operands of its own.
        kind: What products that take any of them see: `UNSIGNED`, `SIGNED`, `PAIRS` of bfloat16.
    """

    flip: bool
    pad: int
    put: int
    part: int = 0
    ldp: int = 0
    each: bool = False
    kind: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """How a convolution goes over its input: as rows of pixels, each of runs of quads.

    Attributes:
        s: Sizes; the pixels of a plain product may be one row, or others than the image's.
        band: Whether rows are copied to scratch, with padding and in the kind of bytes wanted.
        width: Pixels of a row of the input that a row of the output sees.
        runs: Runs of adjacent bytes in a kernel row.
        k: Bytes of such a run.
        kq: Quads that it is read by.
        step: Quads of a step in matrix registers, 0 for vectors.
        per: Bytes of a quad.
    """

    s: Conv2dShape
    band: bool
    width: int
    runs: int
    k: int
    kq: int
    step: int
    per: int

    @property
    def ci(self) -> int:
        """Input channels of a group."""
        return self.s.ci // self.s.groups

    @property
    def quads(self) -> int:
        """Quads of a sum."""
        return self.s.kh * self.runs * self.kq


def _walk(s: Conv2dShape, code: Bytes, target: Target, threads: int, matrix: bool) -> _Walk:
    ci = s.ci // s.groups
    # bytes of the other kind are turned in scratch: once there, and not for each panel and quad,
    # where it takes three quarters of a dot product
    turned = code.flip and not target.machine.bare
    if matrix and reads_inside(s):
        # nor may the last step read on behind the image
        run = (s.kw if merges(s, False) else 1) * ci // 4
        turned = turned or run % step_of(run, code.kind) > 0
    band, per = turned or not reads_inside(s), target.isa.taken
    pixels = s.oh * s.ow
    plain = s.kh == s.kw == s.sh == s.sw == 1 and (s.oh, s.ow) == (s.ih, s.iw)
    if plain and s.xh == s.iw * s.xw and not s.pt and not s.pl:
        if not band:
            s = replace(s, oh=1, ow=pixels, xh=0)
        elif turned:
            # any rows will do: the longest whose copies stay in L2 beside the weights
            ow = row_of(pixels, max(s.ow, target.l2_bytes // (8 * ci)), threads)
            oh = pixels // ow
            s = replace(s, oh=oh, ow=ow, ih=oh, iw=ow, xh=ow * s.xw)
    runs, k = (1, s.kw * ci) if merges(s, band) else (s.kw, ci)
    kq, step = -(-k // per), 0
    if matrix:
        step = step_of(kq, code.kind)
        kq = round_up(kq, step)
    width = (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1
    return _Walk(s=s, band=band, width=width, runs=runs, k=k, kq=kq, step=step, per=per)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tiles:
    """The tiles that a convolution may take.

    Attributes:
        cycles: Of a row of the output in each of them.
        rows: Rows of the output that a tile spans.
        flat: Pixels from row to row where tiles run on from one to the next, 0 otherwise.
        across: Panels that are multiplied with a tile of pixels before the next ones, while the
            epilogue of the former is computed; of others that follows each tile.
        between: See `tiles_i8.between`.
    """

    cycles: dict[Tile, float]
    rows: int = 1
    flat: int = 0
    across: Mapping[Tile, int] = field(default_factory=dict)
    between: Mapping[Tile, int] = field(default_factory=dict)


def _tiles(w: _Walk, vectors: int, target: Target, wide: bool, steps: Sequence[int] = ()) -> _Tiles:
    s, isa = w.s, target.isa
    if steps:
        mrs = range(1, min(s.ow, MOST_PIXELS) + 1)
        return _Tiles(cycles={Tile(m, 1): cost_of_twos(m, s.ow, vectors, steps) for m in mrs})
    if w.step:
        walk = Walk(
            pixels=s.ow,
            vectors=vectors,
            steps=w.quads // w.step,
            quads=w.step,
            taps=s.kh * s.kw,
            far=(w.ci if w.band else s.xw) % 64 > 0,
            l1_bytes=target.l1_bytes,
            l2_bytes=target.l2_bytes,
        )
        across = {t: panels_across(t, walk) for t in matrix_tiles(s.ow, vectors)}
        found = {t: matrix_cost(t, walk, n > 1) for t, n in across.items()}
        if s.batch * s.groups * s.oh * min(found.values()) < DENSE:
            found, across = {t: matrix_cost(t, walk, False) for t in across}, {}
        if w.band and s.sh == s.sw == 1 and s.oh > 1:
            # tiles that run on from row to row also compute what lies between two rows
            pixels = (s.oh - 1) * w.width + s.ow
            running = {
                t: matrix_cost(t, replace(walk, pixels=round_up(pixels, t.mr)), False, alone=True)
                / s.oh
                for t in matrix_tiles(pixels, vectors)
            }
            if min(running.values()) < min(found.values()):
                return _Tiles(cycles=running, flat=w.width)
        return _Tiles(cycles=found, across=across)
    found = {t: tile_cost(t, s.ow, vectors, w.quads, isa) for t in tiles(s.ow, vectors, isa)}
    if vectors == 1 and s.dh == 1 and s.sh < s.kh and s.oh > 1 and shares_rows(target):
        held = (t.mr for t in tiles(s.ow, 2, isa) if t.nv == 2)
        two = {Tile(mr, 1): cost_of_two(mr, s.ow, s, w.runs * w.kq, isa) for mr in held}
        if min(two.values()) < min(found.values()):
            return _Tiles(cycles=two, rows=2)
    turns = {t: between(t, s, w.quads, w.kq, wide, isa) for t in found}
    for t, n in turns.items():
        if n:
            found[t] = interleaved_cost(t, s.ow, vectors, w.quads, isa)
    return _Tiles(cycles=found, between=turns)


def choose_conv2d(
    s: Conv2dShape,
    code: Bytes,
    target: Target,
    *,
    threads: int = 1,
    tile: Tile | None = None,
    matrix: bool = False,
    steps: Sequence[int] = (),
) -> tuple[Conv2dI8, float, tuple[Tile, ...]]:
    """Tiles and tasks of a convolution, its cycles on one core, and the tiles it may take.

    ``tile``: one of these; the first, predicted best, by default. ``matrix``: sums are in matrix
    registers, to which pairs of bfloat16 are quads of bytes. ``steps``: of sums by twos, of each
    kind (`twos.Steps.counts`), over all vectors of a group.
    """
    w = _walk(s, code, target, threads, matrix)
    co, vectors = s.co // s.groups, -(-s.co // s.groups // target.isa.lanes)
    wide = STORED[code.put] == 4
    choice = _tiles(w, vectors, target, wide, steps)
    copies, core = s.batch * s.groups, core_of(target)
    flops = 2 * s.oh * s.ow * co * w.quads
    read, stored = s.ih * s.iw * w.ci, s.oh * s.ow * co * STORED[code.put]
    # rows that tasks divide, of the image where its pixels are one row
    rows, width = (s.oh, s.ow) if w.s.oh == 1 < s.oh else (s.ow, 1) if s.oh == 1 else (w.s.oh, 1)
    part, predicted = part_of(copies * flops, rows, width, threads), choice.cycles
    if w.s.oh == 1 and part < w.s.ow:
        pixel = (read + stored) // w.s.ow
        shared = _tiles(replace(w, s=replace(w.s, ow=part)), vectors, target, wide, steps)
        predicted = {
            t: c + seam_cycles(core, -part % t.mr, pixel) for t, c in shared.cycles.items()
        }
    ranked = sorted(predicted, key=lambda t: predicted[t])
    t = tile or ranked[0]
    work = copies * w.s.oh * choice.cycles[t]
    if w.s.oh == 1 and target.machine.bare and s.ow % t.mr == 0:
        # row by row, as the code that strips of rows share has it
        w = replace(w, s=replace(w.s, oh=s.oh, ow=s.ow, xh=s.xh))
        rows, width = s.oh, 1
    s, band, ci, flat, weights = w.s, w.band, w.ci, choice.flat, w.per * w.quads * co
    line = round_up(w.width * ci + max(3, 4 * w.kq - w.k), 64) if band else 0
    if flat:
        line = w.width * ci
    one = s.oh == 1
    grid = Grid(
        flops=flops,
        rows=rows,
        columns=-(-vectors // t.nv),
        copies=copies,
        width=width,
        mr=t.mr if one else 1,
        input_bytes=read,
        output_bytes=stored,
        weight_bytes=weights,
        halo_bytes=s.halo * s.iw * ci,
    )
    task_h, columns = task_grid(grid, threads, core)
    task_h, task_w = (1, task_h * t.mr) if one else (task_h, s.ow)
    # a block's input and output stay in L2 until all channels have visited them: panels share the
    # lines of the output
    size = STORED[code.put]
    written = (co if code.part else s.ldy) * size
    row = (line if band else s.iw * ci) * s.sh + s.ow * written
    rb = max(1, min(task_h, target.l2_bytes // 4 // max(1, row)))
    stay = target.l2_bytes // 8
    if steps and weights <= target.l1_bytes // 4:
        # one vector of few lanes comes to a line of the output again and again
        stay = target.l1_bytes // 2
    near = stay // ((4 * w.kq + written) * t.mr)
    if target.machine.bare and weights <= target.l1_bytes // 2:
        # all weights stay near: a tile at a time, which soon runs over what it read
        near, rb = 1, rb if band else 1
    along, passing = -(-min(task_w, s.ow) // t.mr), choice.across.get(t, 0)
    # those of a tile that passes all panels leave at once
    tiles_along = along if passing > 1 else min(along, max(1, near))
    # equal blocks
    tiles_along = -(-along // -(-along // tiles_along))
    task_n = columns * t.nv
    # what L2 does not hold is asked for while the sums before it are made; results of 32 bits are
    # mostly the caller's, whose memory was left a whole call ago
    share = 8 if size == 4 else 2
    fetched = s.oh * s.ow * written > target.l2_bytes // share and not target.machine.bare
    lines = (rb - 1) * s.sh + (s.kh - 1) * s.dh + 1
    sizes = asdict(s)
    del sizes["xc"]
    p = Conv2dI8(
        **sizes,
        band=int(band),
        pair=TWOS if steps else SINGLE if target.isa.singles else 0,
        flip=int(code.flip),
        pad=code.pad,
        put=code.put,
        part=code.part,
        ldp=code.ldp,
        each=int(code.each),
        fetch=size if fetched else 0,
        between=choice.between.get(t, 0),
        tame=0,
        matrix=w.step,
        kind=code.kind if matrix else 0,
        flat=flat,
        across=passing,
        runs=w.runs,
        kq=w.kq,
        xr=line if band else s.xh,
        xp=ci if band else s.xw,
        xt=s.dw * (ci if band else s.xw),
        line=line,
        mr=t.mr,
        nv=t.nv,
        ro=choice.rows,
        rb=rb,
        wb=s.ow if flat else tiles_along * t.mr,
        task_h=task_h,
        task_w=task_w,
        task_n=task_n,
        tasks=copies * -(-s.oh // task_h) * -(-s.ow // task_w) * -(-vectors // task_n),
        # a last tile reads on
        scratch_bytes=round_up(lines * line + (t.mr * ci + 4 * w.kq if flat else 0), 64),
    )
    packing = copies * -(-s.oh // rb) * lines * line / 16 if band else 0
    cycles = work + packing + 0.3 * weights * s.groups / target.memory_rate + SHAPED * matrix
    return p, cycles, tuple(ranked)


def shares_rows(target: Target) -> bool:
    """Whether tiles of two output rows are worth their code: broadcasts are loads of their own."""
    isa = target.isa
    return not target.machine.bare and isa.lanes > 1 and isa.group == 1 and not isa.singles


def row_of(pixels: int, most: int, threads: int) -> int:
    """The largest divisor of a number of pixels up to ``most`` that leaves threads equal rows.

    One row is as good, since its tiles are split; where there is no such divisor, any will do.
    """
    found = [d for d in range(1, min(pixels, most) + 1) if pixels % d == 0]
    equal = [d for d in found if d == pixels or pixels // d % threads == 0]
    return max(equal or found)


def reads_inside(s: Conv2dShape) -> bool:
    """Whether the input can be read where it lies: in whole quads and without padding."""
    wide = s.iw >= (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1
    high = s.ih >= (s.oh - 1) * s.sh + (s.kh - 1) * s.dh + 1
    return s.ci // s.groups % 4 == 0 and not s.pt and not s.pl and wide and high


def merges(s: Conv2dShape, band: bool) -> bool:
    """Whether the taps of a kernel row are one run of bytes."""
    ci = s.ci // s.groups
    return s.dw == 1 and (band or s.xw == ci)
