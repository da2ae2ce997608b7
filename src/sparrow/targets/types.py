"""What a target row holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


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
        runs: Products of sixteen bytes of one channel are added up across a vector, in a general
            register (SP_RUNS); those of a depthwise convolution are taken one of a lane at a time.
        matrix: There are matrix registers as well (SP_MATRIX), which hold 16 x 16 sums each.
        quads: Despite ``pairs``, convolutions whose weights do not hold -128 take `sp_dot4_i32`.
        twos: Despite ``pairs``, convolutions add products of bytes by twos in 16 bits
            (`sp_maddubs_i32`).
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
    singles: bool = False
    lengths: tuple[int, ...] = ()
    runs: bool = False
    matrix: bool = False
    quads: bool = False
    twos: bool = False
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
    def interleaves(self) -> bool:
        """Whether a product over bytes is one instruction, and registers hold sums of two tiles."""
        return self.dot_unsigned and self.registers == 32 and not self.matrix

    @property
    def per(self) -> int:
        """Products that a lane of a sum over bytes takes at once."""
        return 2 if self.pairs else 4

    @property
    def taken(self) -> int:
        """Products that a lane of a convolution over bytes takes at once."""
        return 1 if self.singles else self.per

    @property
    def depthwise_taken(self) -> int:
        """The same of a depthwise convolution."""
        return 1 if self.runs else self.taken

    @property
    def together(self) -> int:
        """Weights of a channel that lie together in a tile of sums over bytes."""
        return 8 if self.octets else self.taken


ISAS = (
    Isa("scalar", 1, 14, 4, 4),
    Isa("dsp", 1, 14, 2, 2),
    Isa("mve", 4, 8, 8, 1, runs=True),
    Isa("avx2", 8, 16, 32, 5),
    Isa("avxvnni", 8, 16, 32, 1, dot_unsigned=True),
    Isa("avx512", 16, 32, 64, 5, shares=True),
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
    Isa("wasm", 4, 16, 2, 16, both_held=True, pairs=True),
    Isa("wasm_simd", 4, 16, 12, 2, both_held=True, pairs=True),
    Isa("wasm_relaxed", 4, 16, 16, 2, both_held=True, pairs=True),
    Isa("wasm_maddubs", 4, 16, 16, 2, both_held=True, pairs=True, twos=True),
    Isa("wasm_usdot", 4, 16, 16, 1, dot_unsigned=True, both_held=True),
    Isa("wasm_sdot", 4, 16, 16, 1, both_held=True, pairs=True, quads=True),
)
# Names of those with matrix registers, and of those that an engine compiles again.
MATRIX_ISAS = tuple(i.name for i in ISAS if i.matrix)
ENGINE_ISAS = tuple(i.name for i in ISAS if i.engine)


# Of libraries, by operating system; a WebAssembly module needs none, a firmware has none.
SUFFIXES = {
    "linux": ".so",
    "macos": ".dylib",
    "ios": ".dylib",
    "windows": ".dll",
    "wasm32": ".wasm",
    "freestanding": ".a",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the compiler has to know about a device.

    Attributes:
        triple: ``<arch>-<os>-<abi>`` in zig's words, such as ``x86_64-linux-musl``.
        cpu: zig's ``-mcpu``: a CPU name and ``+feature`` parts, with underscores.
        isa: Name of the vocabulary header, such as ``avx2``.
    """

    triple: str
    cpu: str
    isa: str

    @property
    def lengths(self) -> tuple[int, ...]:
        """Vector lengths in bits that a library holds code for; empty: there is but one."""
        return next(i.lengths for i in ISAS if i.name == self.isa)

    @property
    def arch(self) -> str:
        """The architecture of the triple: x86_64, aarch64, arm, riscv64, wasm32, thumb."""
        return self.triple.split("-")[0]

    @property
    def address_bits(self) -> int:
        """Bits of a pointer."""
        return 32 if self.arch in ("arm", "thumb", "riscv32", "x86", "wasm32") else 64

    @property
    def os(self) -> str:
        """The operating system of the triple: linux, macos, ios, windows, freestanding."""
        return self.triple.split("-")[1]

    @property
    def system(self) -> str:
        """What loads libraries, a key of `SUFFIXES`: the operating system, or wasm32's engine."""
        return self.arch if self.arch == "wasm32" else self.os

    @property
    def bare(self) -> bool:
        """Whether code is linked into a firmware: nothing loads libraries."""
        return self.system == "freestanding"

    @property
    def library_suffix(self) -> str:
        """File suffix of a library: shared, or static for a firmware."""
        return SUFFIXES.get(self.system, ".so")


@dataclass(frozen=True, slots=True)
class Target:
    """A device to compile for.

    Attributes:
        name: Row name.
        triple: zig target triple.
        cpu: zig ``-mcpu`` text.
        isa: Vector vocabulary, with this core's operations per cycle.
        cores: Cores worth using.
        ghz: Sustained clock of one core.
        l1_bytes: First-level data cache of a core.
        l1_ways: Its associativity.
        l2_bytes: Second-level cache of a core (or its share).
        bandwidth_gbs: Memory bandwidth in GB/s.
        l2_gbs: What a core reads from its second-level cache.
        cache_gbs: What a core reads from the level behind its second one; memory where none is.
        fpu: Whether it computes floats itself; elsewhere the compiler's library does.
        source: Where the figures come from: some of `SOURCES`.
        fork_ns: A warm fork and join of its threads.
        move_ns_per_byte: What a byte takes longer to read that another core has written last.
        builds: Rows of 4 lanes whose builds the artifact holds too.
    """

    name: str
    triple: str
    cpu: str
    isa: Isa
    cores: int
    ghz: float
    l1_bytes: int
    l1_ways: int
    l2_bytes: int
    bandwidth_gbs: float
    l2_gbs: float
    cache_gbs: float
    fpu: bool
    source: str
    fork_ns: float
    move_ns_per_byte: float
    builds: tuple[str, ...] = ()

    @property
    def fork_cycles(self) -> float:
        """`fork_ns` in cycles of a core."""
        return self.fork_ns * self.ghz

    @property
    def move_cycles(self) -> float:
        """`move_ns_per_byte` in cycles of a core."""
        return self.move_ns_per_byte * self.ghz

    @property
    def memory_rate(self) -> float:
        """Bytes that come from memory in a cycle of a core."""
        return self.bandwidth_gbs / self.ghz

    @property
    def l2_rate(self) -> float:
        """`l2_gbs` in bytes per cycle of a core."""
        return self.l2_gbs / self.ghz

    @property
    def cache_rate(self) -> float:
        """`cache_gbs` in bytes per cycle of a core."""
        return self.cache_gbs / self.ghz

    @property
    def machine(self) -> Machine:
        """What the compiler has to know of it."""
        return Machine(self.triple, self.cpu, self.isa.name)


# briefing: the project's own reference; public: the vendor says so; estimated; measured by us.
SOURCES = ("briefing", "public", "estimated", "measured")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its origin.

    Attributes:
        value: The number; its unit is in its name.
        source: One of `SOURCES`.
        note: What to know of it.
    """

    value: float
    source: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.value:,.10g} ({self.source}{': ' if self.note else ''}{self.note})"


# What threads cost that share work; `sparrow build --tune` measures these.
SHARING = ("fork_ns", "move_ns_per_byte")
# For rows that do not say: rows from another core's cache, between what `--tune` measures where
# caches are shared and where they are far apart, and a pool that spins, rather more than that: nine
# steps of 2 us, split on two cores that share a cache, took 6 % longer than whole.
SHARED = {"fork_ns": Figure(1000, "estimated"), "move_ns_per_byte": Figure(0.1, "estimated")}
# Figures of a device, and their units.
FIGURES = (
    "process_nm",
    "ram_bytes",
    "sram_bytes",
    "flash_bytes",
    "bandwidth_gbs",
    "cache_gbs",
    "l1_bytes",
    "l1_ways",
    "l2_bytes",
    "l2_gbs",
    "power_w",
    *SHARING,
)

# Peaks are in 1e9 operations per second; a multiply-add counts two.
PRECISIONS = ("float32", "float16", "bfloat16", "int16", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal CPU cores of a chip, the fastest cluster first."""

    core: str
    count: int
    ghz: Figure


@dataclass(frozen=True, slots=True)
class Rules:
    """What an accelerator can compute with.

    Attributes:
        weight_bits: Integer widths of weights; empty: no integers.
        activation_bits: Integer widths of activations.
        float_dtypes: Float types it computes in; empty: integers only.
        scales: ``float`` or ``power-of-two``.
        weights: Scales of weights: ``per-tensor`` or ``per-channel``.
        activations: Scales of activations.
        zero_points: Whether activations may have one.
        scheme: Rounding scheme of requantization; ``vendor`` where it is not public.
        accumulator_bits: Width of integer sums.
        modes: Float precisions as ``<operand>.<accumulator>``.
        parameter_bytes: Weights that stay on the chip; more are fetched per call. 0: no such limit.
        compressed: What is compressed on its way: some of ``weights`` and ``features``.
        one_part: Its compiler takes the operators up to the first that the device does not run,
            and leaves all behind to the host.
        ops: ONNX operators it runs; empty: not public.
        source: One of `SOURCES`.
    """

    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    float_dtypes: tuple[str, ...]
    scales: str
    weights: str
    activations: str
    zero_points: bool
    scheme: str
    accumulator_bits: int
    modes: tuple[str, ...]
    parameter_bytes: int
    compressed: tuple[str, ...]
    one_part: bool
    ops: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Device:
    """A row: everything known of a processor, board, phone or accelerator.

    Attributes:
        name: Row name.
        kind: The folder it lies in: cpu, board, phone, microcontroller, browser, accelerator.
        title: Its name in full.
        note: What else to know.
        clusters: CPU cores, the fastest first; empty for a bare accelerator.
        figures: Some of `FIGURES`.
        peak_gops: Peak by precision.
        scores: Results of public benchmarks, to compare devices.
        rules: Numeric rules of a fixed-function device.
        target: How to compile for it; None where Sparrow cannot.
    """

    name: str
    kind: str
    title: str
    note: str
    clusters: tuple[Cluster, ...]
    figures: Mapping[str, Figure]
    peak_gops: Mapping[str, Figure]
    scores: Mapping[str, Figure]
    rules: Rules | None
    target: Target | None

    def __str__(self) -> str:
        rows = [("name", self.name), ("kind", self.kind), ("title", self.title)]
        rows += [("note", self.note)] if self.note else []
        rows += [("cores", f"{c.count} x {c.core}, GHz {c.ghz}") for c in self.clusters]
        if self.target is not None:
            t = self.target
            rows += [("triple", t.triple), ("cpu", t.cpu), ("isa", t.isa.name)]
        rows += [(key, str(f)) for key, f in self.figures.items()]
        rows += [(f"peak {key}", f"Gop/s {f}") for key, f in self.peak_gops.items()]
        rows += [(key, str(f)) for key, f in self.scores.items()]
        if self.rules is not None:
            found = ((f.name, getattr(self.rules, f.name)) for f in fields(self.rules))
            shown = ((k, ", ".join(map(str, v)) if isinstance(v, tuple) else v) for k, v in found)
            rows += [(f"rules {key}", str(v)) for key, v in shown if v != ""]
        return "\n".join(f"{key:24} {text}" for key, text in rows)
