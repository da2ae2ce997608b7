"""Tiles, blocks, tasks and predicted cycles of the 8-bit kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

from sparrow.kernels.case import Tile
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import Conv2dShape, Window
from sparrow.kernels.params_i8 import Conv2dI8, DepthwiseI8
from sparrow.kernels.tasks import core_of, task_grid
from sparrow.targets import Isa, Target

# Instructions of an epilogue (scale, round, clamp, narrow, store) in units of a dot product's slot.
EPILOGUE = 3.0
# Loads that broadcasting a quad to all lanes counts for: a vector of channels by itself takes 1.36
# cycles for a dot product of 512 bits on Zen 4, two vectors 1.04.
BROADCAST = 1.3
MATRIX_AGAIN = 1.5  # what loading a matrix register from L2 takes more than from L1
MATRIX_EPILOGUE = 4.0  # the same in cycles, where sums come from memory
SINGLE, PAIRED = 3, 2  # SP_SINGLE, SP_PAIRED
STORED = (1, 1, 4, 2)  # bytes of what SP_PUT_I8 and so on store
PUT_32, PUT_16 = 2, 3
UNSIGNED, SIGNED, PAIRS = 0, 1, 2  # SP_MATRIX_U8 and so on


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


def _operands(mr: int, nv: int, isa: Isa) -> int:
    """Registers that the operands of a tile take."""
    if isa.octets:
        # an octet of two pixels each, and the next one, which the compiler loads before it has to
        return mr + mr % 2 + 1
    if isa.halves and isa.registers == 16:
        # half of them are counted in Armv7: bytes of pixels, pairs of one and of the weights
        return (mr + 2 * nv + 2) // 2 + 2
    if isa.halves:
        # of a pixel its bytes and two pairs
        return 3 * mr + 4
    if isa.singles:
        # of weights the bytes, and what they are widened to; activations are no vectors
        return 2 * nv
    if isa.group > 1:
        # the activations stay, and weights come one by one
        return mr + 2
    # the dot product of 16-bit halves needs both halves of its operands in registers
    halves = 1 if isa.dot_ops == 1 else 2
    return halves * (nv + 1)


def tiles(pixels: int, vectors: int, isa: Isa) -> Iterator[Tile]:
    """Every tile that fits the registers."""
    if isa.runs:
        # the sums of one vector of channels are half of the general registers
        yield Tile(1, 1)
        return
    # with one lane these are the registers that hold pointers and counters too
    held = 3 if isa.lanes == 1 else 0
    for nv in range(1, min(vectors, 8) + 1):
        for mr in range(1, min(pixels, 32) + 1):
            rows = mr + mr % 2 if isa.octets else mr
            if mr + held > 1 and rows * nv + _operands(mr, nv, isa) + held >= isa.registers:
                break
            yield Tile(mr, nv)


def _step(mr: int, nv: int, isa: Isa) -> float:
    """Cycles of one quad where pixels are broadcast."""
    return max(mr * nv * isa.dot_ops / 2, (BROADCAST * mr + nv) / 2 + 0.25, 4.5)


def _cost_of_two(mr: int, pixels: int, s: Conv2dShape, quads: int, isa: Isa) -> float:
    """Half the cycles of two output rows that share broadcasts, with ``quads`` of a kernel row."""

    def tile(n: int) -> float:
        steps = s.sh * _step(n, 1, isa) + (s.kh - s.sh) / 2 * _step(n, 2, isa)
        return quads * steps + EPILOGUE * n + 12 if n else 0.0

    return pixels // mr * tile(mr) + tile(pixels % mr)


def _cost(t: Tile, pixels: int, vectors: int, quads: int, isa: Isa) -> float:
    """Cycles of one output row of `pixels` pixels with `quads` quads of k."""

    def tile(mr: int, nv: int) -> float:
        if mr == 0 or nv == 0:
            return 0.0
        step = _step(mr, nv, isa)
        if isa.lanes == 1:
            # in order, one at a time: a load and what widens it, and the loop's own three
            widen = 3 if isa.dot_ops == 2 else 5
            step = (mr * nv * isa.dot_ops + (mr + nv) * widen + 3) / 2
        elif isa.runs:
            # four quads of four channels: five loads, four sums, the loop's own
            step = 10 * mr * nv / 4
        elif isa.group > 1:
            # what counts is the number of instructions, two at a time: weights come two by two
            products, shuffles = float(mr * nv * isa.dot_ops), 0.0
            if isa.halves:
                products, shuffles = 3.0 * mr * nv, 2.0 * (mr + (nv if isa.registers == 16 else 0))
            if isa.octets:
                products, shuffles = (mr + mr % 2) * nv // 2, mr / isa.group
            step = max((products + shuffles + mr / isa.group + nv / 2 + 1) / 2, 4)
            # sums begin, are scaled and rounded, those of octets moved twice; bytes are stored by
            # four vectors at best
            whole, rest = divmod(nv, 4)
            each = (6 if isa.octets else 4) * nv + 7 * whole + (0, 4, 4, 8)[rest]
            return quads * step + mr * each / 2 + nv / 2 + 8
        elif isa.singles:
            # each counts: a product, a byte of a pixel, and weights with their address
            step = (mr * nv + mr + 3 * nv + 3) / 2
        return quads * step + EPILOGUE * mr * nv + 12

    full_m, tail_m = divmod(pixels, t.mr)
    full_n, tail_n = divmod(vectors, t.nv)
    cycles = full_n * (full_m * tile(t.mr, t.nv) + tile(tail_m, t.nv)) + (
        full_m * tile(t.mr, tail_n) + tile(tail_m, tail_n)
    )
    # a rest is its code once more, which costs a core of one lane more than a few cycles
    rests = (tail_m > 0) + (tail_n > 0)
    return cycles * (1 + 0.1 * rests) if isa.lanes == 1 else cycles


def step_of(quads: int, kind: int) -> int:
    """Quads of a step of a run, 16 at most, which matrix registers hold.

    The last step may read bytes behind the run, which meet zeros; what is no number must not be
    met, so of bfloat16 steps are whole.
    """
    if kind == PAIRS:
        return max(d for d in range(1, 17) if quads % d == 0)
    steps = -(-quads // 16)
    return -(-quads // steps)


def matrix_tiles(pixels: int, vectors: int) -> Iterator[Tile]:
    """Every tile that four matrix registers hold the sums of."""
    for mr in range(1, min(pixels, 64) + 1):
        blocks = -(-mr // 16)
        for nv in range(1, min(vectors, 4 // blocks if blocks < 3 else 1) + 1):
            yield Tile(mr, nv)


def _matrix_cost(
    t: Tile, pixels: int, vectors: int, steps: int, quads: int, far: bool, taps: int, l1_bytes: int
) -> float:
    """Cycles of one output row with `steps` steps of `quads` in all `taps` of a kernel.

    ``far``: rows cross cache lines.
    """
    # what L1 does not keep comes from L2 again: pixels for every panel, once for all taps
    row = pixels * steps * quads * 4 // taps
    x_load = 8 * (1 + far + (MATRIX_AGAIN / taps if row > l1_bytes // 2 else 0))

    def tile(mr: int, nv: int) -> float:
        if mr == 0 or nv == 0:
            return 0.0
        blocks = -(-mr // 16)
        dots = blocks * nv * max(-(-mr // blocks), quads, 8)
        # and weights for every tile
        w_load = 8 * (1 + (MATRIX_AGAIN if steps * quads * 64 * nv > l1_bytes // 2 else 0))
        loads = w_load * nv + x_load * blocks
        # sums begin, are stored and loaded again, behind the last product
        return steps * max(dots, loads) + 24 * blocks * nv + MATRIX_EPILOGUE * mr * nv + 60

    full_m, tail_m = divmod(pixels, t.mr)
    full_n, tail_n = divmod(vectors, t.nv)
    return full_n * (full_m * tile(t.mr, t.nv) + tile(tail_m, t.nv)) + (
        full_m * tile(t.mr, tail_n) + tile(tail_m, tail_n)
    )


def tile_of_any(isa: Isa) -> tuple[int, int]:
    """(mr, nv) where sizes are not known: what is best for many rows, columns and quads."""

    def each(t: Tile) -> float:
        return _cost(t, t.mr, t.nv, 64, isa) / (t.mr * t.nv)

    t = min(tiles(32, 8, isa), key=each)
    return t.mr, t.nv


def choose_conv2d(
    s: Conv2dShape,
    code: Bytes,
    target: Target,
    *,
    threads: int = 1,
    tile: Tile | None = None,
    matrix: bool = False,
) -> tuple[Conv2dI8, float, tuple[Tile, ...]]:
    """Tiles and tasks of a convolution, its cycles on one core, and the tiles it may take.

    ``tile``: one of these; the first, predicted best, by default. ``matrix``: sums are in matrix
    registers, to which pairs of bfloat16 are quads of bytes.
    """
    ci, co = s.ci // s.groups, s.co // s.groups
    isa = target.isa
    vectors = -(-co // isa.lanes)
    # bytes of the other kind are turned in scratch: once there, and not for each panel and quad,
    # where it takes three quarters of a dot product
    turned = code.flip and not target.machine.bare
    if matrix and reads_inside(s):
        # nor may the last step read on behind the image
        run = (s.kw if merges(s, False) else 1) * ci // 4
        turned = turned or run % step_of(run, code.kind) > 0
    band, per = turned or not reads_inside(s), isa.taken
    oh, ow, xh, xw, ih, iw = s.oh, s.ow, s.xh, s.xw, s.ih, s.iw
    plain = s.kh == s.kw == s.sh == s.sw == 1 and xh == s.iw * xw and oh == s.ih and ow == s.iw
    if plain and not s.pt and not s.pl:
        if not band:
            oh, ow, xh = 1, oh * ow, 0
        elif turned:
            # any rows will do: the longest whose copies stay in L2 beside the weights
            ow = row_of(oh * ow, max(ow, target.l2_bytes // (8 * ci)), threads)
            oh = s.oh * s.ow // ow
            ih, iw, xh = oh, ow, ow * xw
    width = (ow - 1) * s.sw + (s.kw - 1) * s.dw + 1
    merged = merges(s, band)
    runs, k = (1, s.kw * ci) if merged else (s.kw, ci)
    kq = -(-k // per)
    step = flat = 0
    if matrix:
        step = step_of(kq, code.kind)
        kq = round_up(kq, step)
    quads = s.kh * runs * kq
    if matrix:
        steps, far, taps = quads // step, (ci if band else xw) % 64 > 0, s.kh * s.kw
        costs = {
            t: _matrix_cost(t, ow, vectors, steps, step, far, taps, target.l1_bytes)
            for t in matrix_tiles(ow, vectors)
        }
        if band and s.sh == s.sw == 1 and oh > 1:
            # tiles that run on from row to row also compute what lies between two rows
            pixels = (oh - 1) * width + ow
            running = {
                t: _matrix_cost(
                    t, round_up(pixels, t.mr), vectors, steps, step, far, taps, target.l1_bytes
                )
                / oh
                for t in matrix_tiles(pixels, vectors)
            }
            if min(running.values()) < min(costs.values()):
                flat, costs = width, running
    else:
        costs = {t: _cost(t, ow, vectors, quads, isa) for t in tiles(ow, vectors, isa)}
    ro = 1
    if not matrix and vectors == 1 and s.dh == 1 and s.sh < s.kh and oh > 1 and shares_rows(target):
        held = (t.mr for t in tiles(ow, 2, isa) if t.nv == 2)
        two = {Tile(mr, 1): _cost_of_two(mr, ow, s, runs * kq, isa) for mr in held}
        if min(two.values()) < min(costs.values()):
            ro, costs = 2, two
    ranked = sorted(costs, key=lambda t: costs[t])
    t = tile or ranked[0]
    work = s.batch * s.groups * oh * costs[t]
    if oh == 1 and target.machine.bare and s.ow % t.mr == 0:
        # row by row, as the code that strips of rows share has it
        oh, ow, xh = s.oh, s.ow, s.xh
    line = round_up(width * ci + max(3, 4 * kq - k), 64) if band else 0
    if flat:
        line = width * ci
    copies = s.batch * s.groups
    flops = 2 * oh * ow * co * quads
    blocks = -(-ow // t.mr) if oh == 1 else 1
    cells = oh * blocks, -(-vectors // t.nv)
    read = s.ih * s.iw * ci, per * quads * co
    rows, columns = task_grid(flops, *cells, copies, threads, core_of(target), *read)
    task_h, task_w = (1, rows * t.mr) if oh == 1 else (rows, ow)
    # a block's input and output stay in L2 until all channels have visited them: panels share the
    # lines of the output
    size = STORED[code.put]
    written = (co if code.part else s.ldy) * size
    row = (line if band else s.iw * ci) * s.sh + ow * written
    rb = max(1, min(task_h, target.l2_bytes // 4 // max(1, row)))
    pixel = 4 * kq + written
    near = target.l2_bytes // 8 // (pixel * t.mr)
    if target.machine.bare and per * quads * co <= target.l1_bytes // 2:
        # all weights stay near: a tile at a time, which soon runs over what it read
        near, rb = 1, rb if band else 1
    across = min(-(-task_w // t.mr), -(-ow // t.mr))
    wide = min(across, max(1, near))
    task_n = columns * t.nv
    if task_w < ow:
        # equal blocks: one of what is left over would make the tasks unequal
        turns = -(-across // wide)
        wide = -(-across // turns)
        task_w = turns * wide * t.mr
    wb = ow if flat else wide * t.mr
    # what L2 does not hold is asked for while the sums before it are made; results of 32 bits are
    # mostly the caller's, whose memory was left a whole call ago
    share = 8 if size == 4 else 2
    fetched = oh * ow * written > target.l2_bytes // share and not target.machine.bare
    lines = (rb - 1) * s.sh + (s.kh - 1) * s.dh + 1
    fields = asdict(s) | {"ih": ih, "iw": iw, "oh": oh, "ow": ow, "xh": xh}
    del fields["xc"]
    p = Conv2dI8(
        **fields,
        band=int(band),
        pair=SINGLE if isa.singles else 0,
        flip=int(code.flip),
        pad=code.pad,
        put=code.put,
        part=code.part,
        ldp=code.ldp,
        each=int(code.each),
        fetch=size if fetched else 0,
        tame=0,
        matrix=step,
        kind=code.kind if matrix else 0,
        flat=flat,
        runs=runs,
        kq=kq,
        xr=line if band else xh,
        xp=ci if band else xw,
        xt=s.dw * (ci if band else xw),
        line=line,
        mr=t.mr,
        nv=t.nv,
        ro=ro,
        rb=rb,
        wb=wb,
        task_h=task_h,
        task_w=task_w,
        task_n=task_n,
        tasks=copies * -(-oh // task_h) * -(-ow // task_w) * -(-vectors // task_n),
        # a last tile reads on
        scratch_bytes=round_up(lines * line + (t.mr * ci + 4 * kq if flat else 0), 64),
    )
    packing = copies * -(-oh // rb) * lines * line / 16 if band else 0
    cycles = work + packing + 0.3 * per * quads * co * s.groups / target.memory_rate
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


def choose_depthwise(
    s: Conv2dShape,
    code: Bytes,
    target: Target,
    *,
    threads: int = 1,
    tile: Tile | None = None,
) -> tuple[DepthwiseI8, float, tuple[Tile, ...]]:
    """Tiles and tasks of a depthwise convolution, its cycles on one core, and tiles it may take.

    ``tile``: one of these, pixels of one vector; the first, predicted best, by default.
    """
    c, vectors = s.co, -(-s.co // target.isa.lanes)
    isa, small = target.isa, target.machine.bare
    per = isa.depthwise_taken
    shared = s.sh == 1 and s.dh == 1 and s.oh > 1 and s.kh % 4 in (1, 2, 3)
    ro = 2 if shared and not small and per == 4 else 1
    rq = -(-((ro - 1) * s.sh + s.kh) // per)
    spare = target.isa.registers - 4

    def cost(mr: int) -> float:
        columns = (mr - 1) * s.sw + (s.kw - 1) * s.dw + 1
        spill = max(0, ro * mr + ro * s.kw - spare)
        work = rq * (columns * 7 + ro * mr * s.kw * target.isa.dot_ops + 2 * spill)
        return work / 3 + 3 * ro * mr + 10

    # of few registers, weights and a pixel take half of one each, and there is no room for more
    few = isa.singles and isa.registers < 16
    most = max(1, min(s.ow, 32 // ro, isa.registers - 4 - (s.kw + 1) // 2 if few else 12))
    ranked = sorted(
        range(1, most + 1),
        key=lambda mr: s.ow // mr * cost(mr) + (cost(s.ow % mr) if s.ow % mr else 0),
    )
    if small:
        # each kind of tile is its code once more: one row, no rest, and few pixels
        even = [n for n in range(2, min(s.ow, 6) + 1) if s.ow % n == 0]
        ranked = [next((n for n in even if n >= 3), even[-1] if even else ranked[0])]
    mr = tile.mr if tile else ranked[0]
    flops = 2 * s.oh * s.ow * c * s.kh * s.kw
    # an odd row of a task is done alone
    task_h, task_c = task_grid(
        flops, s.oh, vectors, s.batch, threads, core_of(target), s.ih * s.iw * c
    )
    pixel_bytes = min(c, task_c * target.isa.lanes)
    room = target.l2_bytes // 2 // pixel_bytes - s.kh * s.iw
    # where RAM is short a row at a time, so that it may run over what it was made from
    rb = 1 if small else max(1, room // (s.sh * s.iw + s.ow)) // ro * ro
    p = DepthwiseI8(
        **{f.name: getattr(s, f.name) for f in fields(Window)},
        c=c,
        pair=SINGLE if per == 1 else 0,
        flip=int(code.flip),
        pad=code.pad,
        put=code.put,
        ro=ro,
        rq=rq,
        mr=mr,
        rb=min(task_h, max(ro, rb)),
        task_h=task_h,
        task_c=task_c,
        tasks=s.batch * -(-s.oh // task_h) * -(-vectors // task_c),
    )
    cycles = s.batch * vectors * -(-s.oh // ro) * (-(-s.ow // mr)) * cost(mr)
    return p, cycles, tuple(Tile(mr, 1) for mr in ranked)
