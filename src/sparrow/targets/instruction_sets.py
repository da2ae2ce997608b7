"""What selection knows of instruction sets."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Isa:
    """What selection knows of an instruction set.

    Attributes:
        name: Of the vocabulary header ``native/isa/<name>.h``.
        lanes: float32 lanes of a vector.
        registers: Vector registers that a tile may use.
        flops_per_cycle: float32 operations of a core per cycle at best; an FMA lane counts two.
        dot_ops: Instructions of one `sp_dot4_i32`, what its operands share left out.
        dot_unsigned: Its first operand holds unsigned bytes (SP_DOT_UNSIGNED).
        dot2_ops: Instructions of one `sp_dot2_f32`, two products of bfloat16 per lane, or of a
            multiply-add that take as long.
        both_held: Operands of all rows and columns of a tile are in registers at once: the compiler
            takes the products column by column, and knows nothing of the engine's registers.
        group: Quads of a pixel that one load brings to a tile of sums over bytes (SP_GROUP).
        halves: Products of bytes become halves, two of which are added where they fit.
        octets: Tiles of sums over bytes take products of two octets of two pixels (SP_OCTETS).
        singles: Convolutions of bytes take one product of a lane at a time, a multiply-add.
        lengths: Of vectors, in bits, that a library holds code for; what fits the processor runs.
        pairs: Sums over bytes are taken by `sp_dot2_i32` over activations widened to halves;
            ``dot_ops`` counts its instructions then.
        widens: A product of bytes widens both operands to halves. Those that are packed at run time
            become halves once, and weights that do not hold -128 are taken by `sp_dot4_tame_i32`.
        runs: Products of sixteen bytes of one channel are added up across a vector, in a general
            register (SP_RUNS); those of a depthwise convolution are taken one of a lane at a time.
        matrix: There are matrix registers as well (SP_MATRIX), which hold 16 x 16 sums each.
        quads: Despite ``pairs``, convolutions whose weights do not hold -128 take `sp_dot4_i32`.
        twos: Convolutions whose weights do not hold -128 add products of unsigned bytes by twos in
            16 bits (`sp_maddubs_i32`), despite ``pairs`` or what `sp_dot4_i32` takes.
        half_ops: Instructions of one `sp_dot2_i32` where sums over codes of 16 bits are taken by
            it; 0 where two sums over their bytes take no longer.
        held_whole: Products take operands as they lie in registers, though ``dot_ops`` is not 1.
        shares: Two pixels share a vector of output channels of which half are left (SP_HALVES).
        shortens: Stores count on what is known to fit 16 bits (SP_SHORTENS).
    """

    name: str
    lanes: int
    registers: int
    flops_per_cycle: int
    dot_ops: int
    dot_unsigned: bool = False
    dot2_ops: int = 6
    both_held: bool = False
    group: int = 1
    halves: bool = False
    octets: bool = False
    pairs: bool = False
    widens: bool = False
    singles: bool = False
    lengths: tuple[int, ...] = ()
    runs: bool = False
    matrix: bool = False
    quads: bool = False
    twos: bool = False
    half_ops: int = 0
    held_whole: bool = False
    shares: bool = False
    shortens: bool = False

    @property
    def multiplies_bfloat16(self) -> bool:
        """Whether an instruction does, twice as many as of float32 at a time."""
        return self.dot2_ops == 1 or self.matrix

    @property
    def engine(self) -> bool:
        """Whether an engine compiles the code again.

        It is short then, and sums of depthwise convolutions are over pairs.
        """
        return self.both_held

    @property
    def codes_unsigned(self) -> bool:
        """Whether codes between layers are, which products then take as they lie.

        Matrix registers multiply codes of either sign.
        """
        return (self.dot_unsigned or (self.twos and not self.engine)) and not self.matrix

    @property
    def interleaves(self) -> bool:
        """Whether a product over bytes is one instruction, and registers hold sums of two tiles."""
        return self.dot_unsigned and self.registers == 32 and not self.matrix

    @property
    def per(self) -> int:
        """Products that a lane of a sum over bytes takes at once."""
        return 2 if self.pairs else 4

    @property
    def packs_pairs(self) -> bool:
        """Whether operands that are packed at run time are halves."""
        return self.pairs or self.widens

    @property
    def packed_ops(self) -> int:
        """Instructions of a lane's product of operands that are packed at run time."""
        return 2 if self.widens else self.dot_ops

    @property
    def taken(self) -> int:
        """Products that a lane of a convolution over bytes takes at once."""
        return 1 if self.singles else self.per

    @property
    def depthwise_taken(self) -> int:
        """The same of a depthwise convolution."""
        return 1 if self.runs else self.taken

    @property
    def over_halves(self) -> Isa:
        """The same for sums over codes of 16 bits: a product of two and an addition for each."""
        plain = replace(self, halves=False, group=1, widens=False, twos=False)
        return replace(plain, dot_ops=self.half_ops, held_whole=True)

    @property
    def together(self) -> int:
        """Weights of a channel that lie together in a tile of sums over bytes."""
        return 8 if self.octets else self.taken


ISAS = (
    Isa("scalar", 1, 14, 4, 4),
    Isa("dsp", 1, 14, 2, 2),
    Isa("mve", 4, 8, 8, 1, runs=True),
    Isa("avx2", 8, 16, 32, 5, widens=True, twos=True, half_ops=2),
    Isa("avxvnni", 8, 16, 32, 1, dot_unsigned=True),
    Isa("avx512", 16, 32, 64, 5, half_ops=2, shares=True),
    Isa("avx512vnni", 16, 32, 64, 1, dot_unsigned=True, shares=True),
    Isa("avx512bf16", 16, 32, 64, 1, dot_unsigned=True, dot2_ops=1, shares=True),
    # vdpbf16ps takes four times as long as a multiply-add there
    Isa("amx", 16, 32, 64, 1, dot_unsigned=True, dot2_ops=4, matrix=True, shares=True),
    Isa("neon32", 4, 16, 8, 4, group=2, halves=True),
    Isa("neon", 4, 32, 16, 4, group=2, halves=True, shortens=True),
    Isa("neon_dot", 4, 32, 16, 1, group=4, shortens=True),
    Isa("neon_i8mm", 4, 32, 16, 1, group=4, octets=True, shortens=True),
    # 16 lanes are four registers of 128 bits; what is broadcast comes from scalar registers
    Isa("rvv", 16, 9, 8, 4, singles=True, lengths=(128, 256, 512)),
    # engines of 16 registers; without vectors an operation is four
    Isa("wasm", 4, 16, 2, 16, both_held=True, pairs=True, half_ops=16),
    Isa("wasm_simd", 4, 16, 12, 2, both_held=True, pairs=True, half_ops=2),
    Isa("wasm_relaxed", 4, 16, 16, 2, both_held=True, pairs=True, half_ops=2),
    Isa("wasm_maddubs", 4, 16, 16, 2, both_held=True, pairs=True, twos=True, half_ops=2),
    Isa("wasm_usdot", 4, 16, 16, 1, dot_unsigned=True, both_held=True),
    Isa("wasm_sdot", 4, 16, 16, 1, both_held=True, pairs=True, quads=True),
)
# Names of those with matrix registers, and of those that an engine compiles again.
MATRIX_ISAS = tuple(i.name for i in ISAS if i.matrix)
ENGINE_ISAS = tuple(i.name for i in ISAS if i.engine)
