"""The bundle: a folder with sources, library, weights and evidence; running and proving it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparrow.device import build as toolchain
from sparrow.device.cache import file_sha256
from sparrow.device.elf import code_bytes
from sparrow.device.firmware import flash_bytes
from sparrow.device.runners import Runner, find_runner
from sparrow.device.session import ModelLibrary, ModelSession
from sparrow.errors import BadBundle, BadInput, InvalidGraph
from sparrow.importers.file import read_file
from sparrow.targets import SUFFIXES, Machine
from sparrow.tensor import BF16, Array, DType, round_bfloat16

if TYPE_CHECKING:
    from sparrow.blame import Blame
    from sparrow.evidence.golden import Golden
    from sparrow.evidence.proof import Proof
    from sparrow.evidence.receipt import PlanRecord, ReceiptRecord
    from sparrow.graph import Graph
    from sparrow.importers.model import Model
    from sparrow.timing.instructions import Instructions
    from sparrow.timing.profiling import Profile

LIBRARY = "model"
# Written after the hashes are taken, or not the same twice.
UNHASHED = ("receipt.json", "measurements.json", "report.html")


class Bundle:
    """A built model in a folder.

    Args:
        folder: Holds ``model.c``, the library, ``weights.bin``, ``receipt.json`` and the rest.
        threads: Threads per call.
        device: Where it runs, as for `find_runner`.
        cores: Which cores of an ssh or adb device: ``big``, ``little`` or a list such as ``0-3``.

    A bundle whose target nothing here can run can be opened and looked at, but not run.

    Raises:
        BadBundle: Files are missing or the library cannot be loaded.
    """

    def __init__(
        self, folder: Path, threads: int = 1, device: str = "auto", cores: str = ""
    ) -> None:
        self.folder = folder
        self.threads = threads
        self.library_path = library_path(folder)
        self.entries = {e.name: i for i, e in enumerate(self.plan.entries)}
        self._session: ModelSession | BadInput
        try:
            self.runner = find_runner(machine_of(self.plan), device, cores)
            self._session = self.runner.load(self.library_path).open(weights_of(folder), threads)
        except BadInput as e:
            self._session = e
            return
        check_model(self.session.library, self.plan)
        self._info = self.session.library.info.entries
        self._names = [tuple(t.name for t in e.inputs) for e in self._info]
        self._results = [tuple(t.name for t in e.outputs) for e in self._info]
        self._converted = [
            any(t.dtype == BF16 for t in (*e.inputs, *e.outputs)) for e in self._info
        ]
        # the importer's own outputs, which the caller's cut arrays already say
        self._lengths = [
            {
                t.count_of
                for t in e.outputs
                if t.count_of >= 0
                # a count that the model returns under a name of its own stays
                and e.outputs[t.count_of].name.rstrip("_") == f"{t.name}.count"
            }
            for e in self._info
        ]

    @property
    def session(self) -> ModelSession:
        """The instance that `run` uses.

        Raises:
            BadInput: Nothing here runs code for the bundle's target; says why.
        """
        if isinstance(self._session, BadInput):
            raise self._session
        return self._session

    @property
    def device(self) -> str:
        """Where it runs, one of `DEVICES` but ``auto``.

        Raises:
            BadInput: As for `session`.
        """
        assert self.session
        return self.runner.name

    def run(self, feeds: Mapping[str, Array] | Array, entry: str | None = None) -> dict[str, Array]:
        """Outputs of one call.

        Args:
            feeds: Input name -> array of its exact shape and dtype; a bare array for one input.
                bfloat16 tensors are float32 arrays here.
            entry: Entry point; the first by default.

        Returns:
            Output name -> array; one of data-dependent length is cut to it.

        Raises:
            BadInput: Unknown entry or input names, missing inputs, wrong shape or dtype.
        """
        session, index = self.session, self.entry_index(entry) if entry is not None else 0
        names = self._names[index]
        if type(feeds) is not dict and not isinstance(feeds, Mapping):
            if len(names) != 1:
                raise BadInput(f"one array for {len(names)} inputs", hint="pass a dict by name")
            feeds = {names[0]: feeds}
        try:
            arrays = [np.asarray(feeds[n]) for n in names]
        except KeyError as e:
            known = ", ".join(map(repr, names))
            raise BadInput(
                f"input {e.args[0]!r} is missing", hint=f"the model takes {known}"
            ) from None
        if len(feeds) != len(arrays):
            unknown = sorted(set(feeds) - set(names))
            raise BadInput(f"input {unknown[0]!r} is unknown")
        if self._converted[index]:
            outputs = self._run_converted(session, index, arrays)
        else:
            outputs = session.run(index, arrays)
        found = dict(zip(self._results[index], outputs, strict=True))
        for i in self._lengths[index]:
            del found[self._results[index][i]]
        return found

    def _run_converted(self, session: ModelSession, index: int, arrays: list[Array]) -> list[Array]:
        """A call with bfloat16 tensors, which NumPy does not have."""
        info = self._info[index]
        inputs = [
            to_native(round_bfloat16(x), t.dtype)
            if t.dtype == BF16 and x.dtype == np.float32
            else x
            for x, t in zip(arrays, info.inputs, strict=True)
        ]
        outputs = session.run(index, inputs)
        return [from_native(y, t.dtype) for t, y in zip(info.outputs, outputs, strict=True)]

    def entry_index(self, entry: str | None) -> int:
        """Index of an entry point; the first for None.

        Raises:
            BadInput: There is no such entry point.
        """
        if entry is None:
            return 0
        if entry not in self.entries:
            raise BadInput(
                f"entry {entry!r} is unknown", hint=f"entries: {', '.join(self.entries)}"
            )
        return self.entries[entry]

    def reset(self) -> None:
        """Set all states to their initial values."""
        self.session.reset()

    @cached_property
    def receipt(self) -> ReceiptRecord:
        """How the bundle came to be and what was proved.

        Raises:
            BadBundle: ``receipt.json`` is missing or of another schema.
        """
        from sparrow.evidence.receipt import ReceiptRecord, load

        return load(ReceiptRecord, self.folder / "receipt.json")

    @cached_property
    def plan(self) -> PlanRecord:
        """Steps, kernels and memory.

        Raises:
            BadBundle: ``plan.json`` is missing or of another schema.
        """
        from sparrow.evidence.receipt import PlanRecord, load

        return load(PlanRecord, self.folder / "plan.json")

    @cached_property
    def measurements(self) -> dict[str, Any]:
        """Content of ``measurements.json``."""
        path = self.folder / "measurements.json"
        try:
            found = json.loads(read_file(path))
        except BadInput as e:
            raise BadBundle(e.message) from None
        except (ValueError, RecursionError) as e:
            raise BadBundle(f"{path} is no JSON: {e}") from None
        if not isinstance(found, dict):
            raise BadBundle(f"{path} is no JSON object")
        return found

    def verify(self, device: str = "auto") -> Proof:
        """Prove the bundle again: hashes, every layer, every output.

        Needs neither the source model nor what trained it. Altered files are not run.

        Args:
            device: Where to run it, as for `find_runner`.

        Raises:
            DeviceError: The device cannot be used, or was lost.
        """
        return verify_bundle(self.folder, device)

    def profile(self, entry: str | None = None, runs: int = 0) -> Profile:
        """Time every step.

        Args:
            entry: Entry point; the first by default.
            runs: Inferences; 0 takes as many as fit half a second.
        """
        from sparrow.timing.profiling import profile_bundle

        return profile_bundle(self, self.entry_index(entry), runs)

    def instructions(self, entry: str | None = None) -> Instructions:
        """Count the instructions of every step; needs the device ``qemu``.

        Args:
            entry: Entry point; the first by default.
        """
        from sparrow.timing.instructions import count_bundle

        return count_bundle(self, self.entry_index(entry))

    def blame(
        self,
        model: Model | None = None,
        calib: Iterable[Any] | str | Path | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> Blame:
        """Say which layer lost the accuracy to quantization, why, and what cures it.

        Args:
            model: The float model; cures need it. None takes the one inside the bundle, whose
                weights are the rounded ones.
            calib: Samples, see `sparrow.quantize`; the golden calls of the bundle when None.
            shapes: Static shapes of inputs of ``model`` with dynamic dimensions.

        Raises:
            BadInput: The bundle is not quantized, or ``model`` is not what it was made of.
        """
        from sparrow.blame import blame_bundle

        return blame_bundle(self, model, calib, shapes=shapes)

    def _repr_html_(self) -> str:
        from html import escape

        r = self.receipt
        rows = "".join(
            f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>"
            for k, v in (
                ("verdict", r.verdict),
                ("target", r.target),
                ("entries", ", ".join(self.entries)),
                ("flash", f"{r.memory.code_bytes + r.memory.weights_bytes:,} bytes"),
                ("RAM", f"{r.memory.arena_bytes + r.memory.state_bytes:,} bytes"),
            )
        )
        return f"<table>{rows}</table>"


def to_native(x: Array, dtype: DType) -> Array:
    """A value as the library takes it: bfloat16 as its upper half."""
    if dtype == BF16:
        return (np.asarray(x, np.float32, order="C").view(np.uint32) >> 16).astype(np.uint16)
    return x


def from_native(x: Array, dtype: DType) -> Array:
    """A value as the library gives it, in its storage type."""
    if dtype == BF16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x


def library_path(folder: Path) -> Path:
    """The library in a bundle folder.

    Raises:
        BadBundle: It, or the weight blob, is missing.
    """
    names = [f"{LIBRARY}{suffix}" for suffix in sorted(set(SUFFIXES.values()))]
    found = [folder / name for name in names if os.path.isfile(folder / name)]
    if not found or not os.path.isfile(folder / "weights.bin"):
        raise BadBundle(f"{folder} is no bundle: the library or weights.bin is missing")
    return found[0]


def weights_of(folder: Path) -> Array:
    """The weight blob in a bundle folder, mapped."""
    path = folder / "weights.bin"
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)


def library_sources(source: str, parts: int, hooks: bool = False) -> list[toolchain.Unit]:
    """The parts of ``model.c`` as translation units; part 0 alone depends on the hooks."""
    flag = "#define SPARROW_HOOKS 1\n" if hooks else ""
    found = []
    for k in range(parts):
        head = f"#define SPARROW_PART {k}\n" + (flag if k == 0 else "")
        found.append(toolchain.Unit(f"model_{k}.c", head + source))
    return found


def compile_objects(
    files: Mapping[str, bytes], target: Machine, parts: int, hooks: bool = False
) -> tuple[Path, ...]:
    """Compile emitted sources, or find the objects in the cache; see `compile_library`."""
    header = files["sparrow.h"].decode()
    text = files["model.c"].decode().replace('#include "sparrow.h"\n', header + "\n", 1)
    sources = library_sources(text, parts, hooks)
    if "weights.c" in files:
        sources.append(toolchain.Unit("weights.c", files["weights.c"].decode()))
    return toolchain.find_toolchain().compile_objects(sources, target)


def compile_library(
    files: Mapping[str, bytes],
    target: Machine,
    parts: int,
    folder: Path | None = None,
    hooks: bool = False,
) -> Path:
    """Build the library of emitted sources: shared, or static where nothing loads one.

    Args:
        files: ``model.c``, ``sparrow.h`` and, where it is linked in, ``weights.c``.
        target: What to compile for.
        parts: Translation units of ``model.c``.
        folder: Where to put it as ``model<suffix>``; None leaves it in the cache.
        hooks: Build the tap and profile hooks in.

    Raises:
        CompileError: The compiler is missing or refuses the sources.
    """
    objects = compile_objects(files, target, parts, hooks)
    out = None if folder is None else folder / f"{LIBRARY}{target.library_suffix}"
    tools = toolchain.find_toolchain()
    if target.bare:
        return tools.archive(objects, target, out)
    return tools.link_shared(objects, target, out)


def code_bytes_of(library: Path, target: Machine) -> int:
    """Bytes of code and constants, weights apart, that a library takes where it runs."""
    return flash_bytes(library, target) if target.bare else code_bytes(library)


def machine_of(plan: PlanRecord) -> Machine:
    """What a bundle's library is built for."""
    return Machine(plan.target.triple, plan.target.cpu, plan.target.isa)


def check_model(library: ModelLibrary, plan: PlanRecord) -> None:
    """Check that a library is of a bundle's model: a board has what was flashed last.

    Raises:
        BadBundle: It is of another one.
    """
    found = [
        (e.n_steps, *((t.name, t.dtype.name, t.shape) for t in (*e.inputs, *e.outputs)))
        for e in library.info.entries
    ]
    known = [
        (len(e.steps), *((t.name, t.dtype, t.shape) for t in (*e.inputs, *e.outputs)))
        for e in plan.entries
    ]
    if found != known:
        raise BadBundle(
            f"the device runs another model, {library.info.name!r}",
            hint="flash a firmware of this bundle",
        )


def hooked_library(folder: Path, plan: PlanRecord, runner: Runner) -> ModelLibrary:
    """The library of a bundle built with tap and profile hooks, from its own sources.

    Raises:
        BadBundle: Sources are missing.
        CompileError: The compiler is missing.
    """
    names = ["model.c", "sparrow.h"]
    names += ["weights.c"] if (folder / "weights.c").exists() else []
    try:
        files = {name: (folder / name).read_bytes() for name in names}
    except OSError as e:
        raise BadBundle(f"{folder}: {e.filename} cannot be read: {e.strerror}") from None
    return runner.load(compile_library(files, machine_of(plan), plan.parts, hooks=True))


def step_values(plan: PlanRecord) -> list[list[list[str]]]:
    """For each entry, the values that each step writes."""
    return [[[v.name for v in s.outputs] for s in e.steps] for e in plan.entries]


def load_graphs(folder: Path, plan: PlanRecord) -> list[Graph]:
    """The graphs of ``graph.txt``; their constants come from the ONNX twins.

    Raises:
        BadBundle: The files do not belong together.
    """
    import onnx
    from google.protobuf.message import DecodeError

    from sparrow.evidence.golden import graph_arrays
    from sparrow.importers.onnx.call import to_array
    from sparrow.parse import parse_graph
    from sparrow.text import array_key

    arrays = graph_arrays(folder / "golden.npz")
    try:
        for e in plan.entries:
            model = onnx.ModelProto()
            model.ParseFromString((folder / Path(e.model).name).read_bytes())
            for t in model.graph.initializer:
                a, _ = to_array(t, t.name)
                arrays[array_key(a)] = a
        text = (folder / "graph.txt").read_text(encoding="utf-8")
        graphs = [parse_graph(part, arrays) for part in re.split(r"(?m)^(?=graph )", text) if part]
    except (OSError, UnicodeDecodeError, DecodeError, BadInput, InvalidGraph) as e:
        raise BadBundle(f"{folder}: graph.txt and the ONNX twins do not fit: {e}") from None
    if [g.name for g in graphs] != [e.name for e in plan.entries]:
        raise BadBundle(f"{folder}: graph.txt and plan.json have other entry points")
    return graphs


def load_evidence(folder: Path, plan: PlanRecord) -> tuple[list[Graph], Golden]:
    """Graphs and golden calls of a bundle.

    Raises:
        BadBundle: They do not belong together.
    """
    from sparrow.evidence.golden import load_golden

    graphs = load_graphs(folder, plan)
    return graphs, load_golden(folder / "golden.npz", graphs, step_values(plan))


def check_hashes(folder: Path, files: Mapping[str, str]) -> str:
    """The first file that is missing or altered, in words; empty when all are as recorded."""
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or not os.path.isfile(path):
            return f"{name} is missing"
        found = file_sha256(path)
        if found != expected:
            return f"{name} has SHA-256 {found[:16]}.., the receipt says {expected[:16]}.."
    present = {p.name for p in folder.iterdir()}
    extra = sorted(n for n in present - set(files) - set(UNHASHED) if not n.startswith("."))
    return f"{extra[0]} is not in the receipt" if extra else ""


def verify_bundle(folder: Path, device: str = "auto") -> Proof:
    """Prove a bundle from its folder alone; code of altered bundles is not run.

    Args:
        folder: The bundle.
        device: Where to run it, as for `find_runner`.

    Raises:
        BadBundle: It is no bundle.
        BadInput: Nothing here runs code for its target.
        DeviceError: The device cannot be used, or was lost.
    """
    import onnx

    from sparrow.evidence.proof import Gate, Proof, prove, receipt_gate
    from sparrow.evidence.receipt import MemoryRecord, PlanRecord, ReceiptRecord, load
    from sparrow.evidence.twin import twin_gates
    from sparrow.rendering.page import page_gates

    receipt = load(ReceiptRecord, folder / "receipt.json")
    altered = check_hashes(folder, receipt.files)
    hashes = Gate(
        "files are those of the receipt",
        f"{len(receipt.files)} hashes",
        altered or f"{len(receipt.files)} of {len(receipt.files)}",
        not altered,
    )
    if altered:
        return Proof((hashes,), ())
    plan = load(PlanRecord, folder / "plan.json")
    graphs, golden = load_evidence(folder, plan)
    runner = find_runner(machine_of(plan), device)
    hooked = hooked_library(folder, plan, runner)
    path = library_path(folder)
    library = runner.load(path)
    check_model(library, plan)
    weights = weights_of(folder)
    done = prove(graphs, plan, golden, library, hooked, weights)
    builds = page_gates(folder, graphs, golden, runner, weights)
    twins = [onnx.load(folder / Path(e.model).name) for e in plan.entries]
    done = Proof((*done.gates, *builds, *twin_gates(twins, graphs, golden)), done.layers)
    memory = MemoryRecord(
        code_bytes=code_bytes_of(path, machine_of(plan)),
        weights_bytes=(folder / "weights.bin").stat().st_size,
        arena_bytes=library.info.workspace_bytes,
        state_bytes=library.info.state_bytes,
        stack_bytes=receipt.memory.stack_bytes,
    )
    agrees = receipt_gate(receipt, memory, done)
    return Proof((hashes, *done.gates, agrees), done.layers)


def load_bundle(
    folder: str | Path, threads: int = 1, device: str = "auto", cores: str = ""
) -> Bundle:
    """Open a bundle folder. A bundle is a program: this loads and runs its native code.

    Args:
        folder: The bundle.
        threads: Threads per call.
        device: Where it runs: ``host``, ``qemu``, ``ssh:user@host``, .., see docs/devices.md.
        cores: Which cores of an ssh or adb device: ``big``, ``little`` or a list such as ``0-3``.

    Raises:
        DeviceError: The device cannot be used.
        BadBundle: It is no bundle, or its library or weights are not those of its receipt: what a
            full disk or a broken copy cut short would crash the process.
    """
    folder = Path(folder)
    _check_whole(folder)
    return Bundle(folder, threads, device, cores)


def _check_whole(folder: Path) -> None:
    from sparrow.evidence.receipt import ReceiptRecord, load

    names = [f"{LIBRARY}{s}" for s in SUFFIXES.values()]
    if not any(os.path.isfile(folder / name) for name in names):
        return  # Bundle says so
    receipt = load(ReceiptRecord, folder / "receipt.json")
    for name in names:
        path = folder / name
        if os.path.isfile(path) and file_sha256(path) != receipt.files.get(name):
            raise BadBundle(
                f"{path} is not the library of the receipt", hint="build the model again"
            )
    weights, expected = folder / "weights.bin", receipt.memory.weights_bytes
    if os.path.isfile(weights) and os.path.getsize(weights) != expected:
        raise BadBundle(
            f"{weights} has {os.path.getsize(weights)} bytes, the receipt says {expected}",
            hint="build the model again",
        )


__all__ = ["Bundle", "compile_library", "compile_objects", "load_bundle", "verify_bundle"]
