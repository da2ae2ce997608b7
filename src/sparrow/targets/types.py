"""What a target row holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from sparrow.targets.instruction_sets import ISAS, Isa

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
