"""Which tiles of sums over codes take turns with the epilogues of the former ones."""

import pytest

from sparrow.kernels.case import Tile
from sparrow.kernels.params_f32 import Conv2dShape
from sparrow.kernels.tiles_i8 import INTERLEAVED, between
from sparrow.kernels.tiling_i8 import Bytes, choose_conv2d
from sparrow.targets import ISAS, target

VNNI = next(i for i in ISAS if i.name == "avx512vnni")
CODES, FLOATS = Bytes(False, 0, 1), Bytes(False, 0, 2)


def layer(pixels: int, ci: int, co: int, rows: int = 1) -> Conv2dShape:
    """A product of the pixels of an image with a matrix."""
    return Conv2dShape(
        ih=rows, iw=pixels, oh=rows, ow=pixels, kh=1, kw=1, ci=ci, co=co,
        xn=0, xh=pixels * ci, xw=ci, ldy=co,
    )  # fmt: skip


@pytest.mark.parametrize("code", [CODES, FLOATS])
@pytest.mark.parametrize("ci", [4, 32, 64, 128])
def test_two_tiles_fit_the_registers_and_parts_the_first_run(ci: int, code: Bytes) -> None:
    p, _, tiles = choose_conv2d(layer(400, ci, 64), code, target("x86_64_v4_vnni"))
    assert 0 < p.between <= p.kq
    assert 2 * p.mr * p.nv + p.nv < VNNI.registers
    assert p.wb % p.mr == 0 and Tile(p.mr, p.nv) == tiles[0]


@pytest.mark.parametrize("name", ["x86_64_v3", "x86_64_v4", "rpi5", "x86_64_v4_amx"])
def test_other_processors_multiply_first(name: str) -> None:
    assert choose_conv2d(layer(400, 32, 64), CODES, target(name))[0].between == 0


def test_long_sums_and_few_tiles_have_no_epilogue_to_hide() -> None:
    t, s = Tile(7, 2), layer(400, 4, 32)
    assert between(t, s, INTERLEAVED, INTERLEAVED, False, VNNI) == 7
    assert between(t, s, INTERLEAVED + 1, INTERLEAVED + 1, False, VNNI) == 0
    # a rest ends each row: two tiles are no loop
    assert between(t, layer(15, 4, 32, rows=9), 8, 8, False, VNNI) == 0
    assert between(t, layer(14, 4, 32, rows=9), 8, 8, False, VNNI) == 7
    assert between(Tile(8, 2), s, 8, 8, False, VNNI) == 0
