"""Every network compiled by gcc with every warning an error, run, and proved layer by layer.

    python bench/gcc.py [--rows x86_64_v3,armv7] [--precision int8] [--threads 1,2] [network ..]

Sources for a row of targets are compiled by Debian's gcc for its processor at the options of
`sparrow package --as cmake`, with the hooks and under -Wall -Wextra -Wconversion -Werror, linked,
and run with a runner by the same gcc, in this process or in an emulator. Each layer is judged on
what the code itself computed before it, integers bit for bit; the outputs of golden calls must be
the reference's, and the same bits on one thread and on two (in an emulator: with tasks in reverse
order). What nothing here runs is compiled and linked, and the table says so. Integers of random
networks are calibrated on random inputs. Rows go to `bench/results/gcc.csv` in place of older ones.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import sparrow
from cases import Case, all_cases, data_folder, tflite_cases
from sparrow.compiler import Compiled, Front, Source, compile_front, front
from sparrow.device.build import Unit, find_toolchain
from sparrow.device.runners import Runner, find_runner
from sparrow.errors import BadInput, DeviceError, SparrowError
from sparrow.evidence.describe import describe
from sparrow.evidence.golden import Golden, make_golden
from sparrow.evidence.plan_record import PlanRecord
from sparrow.evidence.proof import prove
from sparrow.folder import step_values
from sparrow.packaging.sources import NEEDED
from sparrow.targets import Machine, target
from sparrow.text import print_graph

# By architecture, as Debian calls them.
COMPILERS = {
    "x86_64": "gcc",
    "x86": "i686-linux-gnu-gcc",
    "aarch64": "aarch64-linux-gnu-gcc",
    "arm": "arm-linux-gnueabihf-gcc",
    "riscv64": "riscv64-linux-gnu-gcc",
    "riscv32": "riscv64-unknown-elf-gcc",
    "thumb": "arm-none-eabi-gcc",
}
STRICT = ("-std=gnu99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
PACKAGED = ("-Os", *NEEDED, "-ffunction-sections", "-fdata-sections")
ROWS = (
    *("x86_64_v4_vnni", "aarch64_dotprod", "armv7", "riscv64", "cortex_m4f", "rv32imc"),
    *("x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v3_vnni", "x86_64_v4", "x86_64_v4_bf16"),
    *("x86", "x86_64_v4_amx", "aarch64", "aarch64_i8mm", "armv7_vfpv4", "riscv64_v"),
    *("cortex_m0", "cortex_m3", "cortex_m7", "cortex_m33", "cortex_m55"),
)
PRECISIONS = ("int8", "float32")


@dataclass(frozen=True, slots=True)
class Cell:
    """A network on a row of targets.

    Attributes:
        network: Its name.
        precision: Of `PRECISIONS`.
        row: Of targets.
        threads: That tasks are cut for.
        compiler: Its name and version.
        ran: Where; empty where nothing here runs it.
        layers: Proved.
        compile_s: By gcc, and linked.
        run_s: All of the proof.
        failure: What is wrong; empty where all is right.
        note: Why it was not run.
    """

    network: str
    precision: str
    row: str
    threads: int
    compiler: str
    ran: str = ""
    layers: int = 0
    compile_s: float = 0
    run_s: float = 0
    failure: str = ""
    note: str = ""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What it is of."""
        return self.network, self.precision, self.row, self.threads

    def __str__(self) -> str:
        found = f"{self.layers} layers in {self.ran}" if self.ran else f"compiled: {self.note}"
        return (
            f"{self.network:32} {self.precision:8} {self.row:16} {self.threads}  "
            f"{'FAILED: ' + self.failure if self.failure else 'ok  ' + found}, "
            f"{self.compile_s:.1f} + {self.run_s:.1f} s, {self.compiler}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network before a target is chosen; ``samples`` are drawn where there are none."""

    name: str
    precision: str
    front: Front
    samples: Sequence[Any] | None = None


def of_case(case: Case, precision: str) -> Network:
    """A float network, as it is or quantized."""
    model, samples = case.model(), list(case.inputs())
    if precision == "int8":
        model = sparrow.quantize(model, samples)
    return Network(case.name, precision, front({"net": Source(model)}), samples)


def coded_files() -> list[Path]:
    """TFLite files of codes."""
    known = {case.tflite for case in tflite_cases(data_folder())}
    return [p for p in sorted((data_folder() / "models").rglob("*.tflite")) if p not in known]


def networks(names: Sequence[str], precisions: Sequence[str]) -> Iterator[Network]:
    """Those of these names, all without any."""
    for path in coded_files():
        if "int8" in precisions and (not names or path.name in names):
            yield Network(path.name, "int8", front({"net": Source(path)}))
    for case in all_cases():
        for precision in precisions:
            if not names or case.name in names:
                yield of_case(case, precision)


@contextmanager
def compiled_by(compiler: str) -> Iterator[None]:
    """Any warning of ``compiler`` is an error in here."""
    before = os.environ.get("SPARROW_CC")
    os.environ["SPARROW_CC"] = " ".join((compiler, *STRICT))
    try:
        yield
    finally:
        if before is None:
            del os.environ["SPARROW_CC"]
        else:
            os.environ["SPARROW_CC"] = before


@cache
def version(compiler: str) -> str:
    """A compiler's name and version."""
    asked = [compiler, "-dumpfullversion"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True)
    return f"{compiler} {said.stdout.strip()}"


def library(c: Compiled, machine: Machine) -> Path:
    """The sources as a library, or as an archive, with hooks; each file as a whole."""
    header, text = (c.artifact.files[n].decode() for n in ("sparrow.h", "model.c"))
    units = [Unit("model.c", text.replace('#include "sparrow.h"\n', header + "\n", 1))]
    if "weights.c" in c.artifact.files:
        units.append(Unit("weights.c", c.artifact.files["weights.c"].decode()))
    tools = find_toolchain()
    objects = tools.compile_objects(units, machine, (*PACKAGED, "-DSPARROW_HOOKS"))
    return (tools.archive if machine.bare else tools.link_shared)(objects, machine)


class Reference:
    """Golden calls of a network's graphs; several targets share one."""

    def __init__(self) -> None:
        self._known: dict[str, Golden] = {}

    def golden(self, network: Network, c: Compiled, p: PlanRecord) -> Golden:
        """The calls of a compiled network."""
        steps = step_values(p)
        text = repr([print_graph(g)[0] for g in c.module]) + repr(steps)
        key = hashlib.sha256(text.encode()).hexdigest()
        if key not in self._known:
            self._known[key] = make_golden(c.module.entries, steps, network.samples)
        return self._known[key]


def place(machine: Machine) -> Runner | str:
    """What runs code for a machine, or why nothing here does."""
    try:
        return find_runner(machine)
    except BadInput as e:
        return e.message


def prove_on(network: Network, row: str, threads: int, reference: Reference) -> Cell:
    """A network by gcc on a row of targets, cut for ``threads``."""
    machine = target(row).machine
    compiler = COMPILERS[machine.arch]
    cell = Cell(*(network.name, network.precision, row, threads), version(compiler))
    try:
        c = compile_front(network.front, target(row), threads=threads)
        names = [f"{g.name}.onnx" for g in c.module]
        p = describe(c.plan, parts=c.artifact.parts, threads=threads, models=names)
        with compiled_by(compiler):
            begin = time.perf_counter()
            path = library(c, machine)
            cell = replace(cell, compile_s=round(time.perf_counter() - begin, 1))
            runner = place(machine)
            if isinstance(runner, str):
                return replace(cell, note=runner)
            begin = time.perf_counter()
            golden = reference.golden(network, c, p)
            weights = np.frombuffer(c.plan.weights, np.uint8) if c.plan.weights else None
            try:
                hooked = runner.load(path)
                proof = prove(c.module.entries, p, golden, hooked, hooked, weights)
            except DeviceError as e:  # it is larger than the board
                return replace(cell, note=e.message)
    except SparrowError as e:
        return replace(cell, failure=f"{e.message}; {e.hint}")
    return replace(
        *(cell,),
        ran=runner.name,
        layers=len(proof.layers),
        run_s=round(time.perf_counter() - begin, 1),
        failure=proof.failure,
    )


def stored(path: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows of a results file by what they are of."""
    if not path.exists():
        return {}
    with path.open(newline="") as f:
        return {tuple(list(r.values())[:4]): r for r in csv.DictReader(f)}


def write(path: Path, rows: Sequence[Any]) -> None:
    """Write a results file."""
    with path.open("w", newline="") as f:
        names = [x.name for x in fields(Cell)]
        writer = csv.DictWriter(f, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Prove, print, write; ends with 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="network")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--precision", default=",".join(PRECISIONS))
    parser.add_argument("--threads", default="1,2", help="of rows that have them")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gcc.csv")
    given = parser.parse_args()
    wrong = 0
    for network in networks(given.names, given.precision.split(",")):
        reference = Reference()
        for row in given.rows.split(","):
            machine = target(row).machine
            for threads in (1,) if machine.bare else map(int, given.threads.split(",")):
                cell = prove_on(network, row, threads, reference)
                print(cell, flush=True)
                wrong += bool(cell.failure)
                rows = stored(given.out)
                rows[tuple(map(str, cell.key))] = asdict(cell)
                write(given.out, [*rows.values()])
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
