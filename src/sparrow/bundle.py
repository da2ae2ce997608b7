"""The bundle: a folder with sources, library, weights and evidence, opened to be run and asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparrow.device.abi import EntryInfo
from sparrow.device.runners import find_runner
from sparrow.device.session import ModelSession, from_native, to_native
from sparrow.errors import BadBundle, BadInput
from sparrow.folder import check_model, check_whole, library_path, machine_of, weights_of
from sparrow.importers.file import read_file
from sparrow.tensor import BF16, Array, round_bfloat16

if TYPE_CHECKING:
    from sparrow.blame import Blame
    from sparrow.evidence.plan_record import PlanRecord
    from sparrow.evidence.proof import Proof
    from sparrow.evidence.receipt import ReceiptRecord
    from sparrow.importers.model import Model
    from sparrow.timing.instructions import Instructions
    from sparrow.timing.profiling import Profile


class Bundle:
    """A built model in a folder.

    Args:
        folder: Holds ``model.c``, the library, ``weights.bin``, ``receipt.json`` and the rest.
        threads: Threads per call.
        device: Where it runs, as for `find_runner`.
        cores: Which cores of an ssh or adb device: ``big``, ``little`` or a list such as ``0-3``.

    A bundle whose target nothing here can run can be opened and looked at, but not run. Copies and
    pickles (processes of a pool) open the folder again, in the initial state.

    Raises:
        BadBundle: Files are missing or the library cannot be loaded.
    """

    def __init__(
        self, folder: Path, threads: int = 1, device: str = "auto", cores: str = ""
    ) -> None:
        self.folder = folder
        self.threads = threads
        self._place = device, cores
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
        self._converted = [
            any(t.dtype == BF16 for t in (*e.inputs, *e.outputs)) for e in self._info
        ]
        self._results = [_results(e) for e in self._info]

    def __reduce__(self) -> tuple[Any, ...]:
        return load_bundle, (str(self.folder.absolute()), self.threads, *self._place)

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
        index = 0 if entry is None else self.entry_index(entry)
        session = self._session
        if isinstance(session, BadInput):
            raise session
        names = self._names[index]
        if type(feeds) is not dict and not isinstance(feeds, Mapping):
            if len(names) != 1:
                raise BadInput(f"one array for {len(names)} inputs", hint="pass a dict by name")
            feeds = {names[0]: feeds}
        # Loops, since a comprehension is a call until Python 3.12.
        arrays = []
        try:
            for name in names:
                arrays.append(np.asarray(feeds[name]))
        except KeyError as e:
            known = ", ".join(map(repr, names))
            others = [n for n in feeds if n not in names]
            fault = f"{others[0]!r} is unknown" if others else f"{e.args[0]!r} is missing"
            raise BadInput(f"input {fault}", hint=f"the model takes {known}") from None
        if len(feeds) != len(arrays):
            unknown = sorted(set(feeds) - set(names))
            raise BadInput(f"input {unknown[0]!r} is unknown")
        if self._converted[index]:
            outputs = self._run_converted(session, index, arrays)
        else:
            outputs = session.run(index, arrays)
        found = {}
        for name, i in self._results[index]:
            found[name] = outputs[i]
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
        from sparrow.evidence.receipt import ReceiptRecord
        from sparrow.evidence.record import load

        return load(ReceiptRecord, self.folder / "receipt.json")

    @cached_property
    def plan(self) -> PlanRecord:
        """Steps, kernels and memory.

        Raises:
            BadBundle: ``plan.json`` is missing or of another schema.
        """
        from sparrow.evidence.plan_record import PlanRecord
        from sparrow.evidence.record import load

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
        from sparrow.evidence.verify import verify_bundle

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
        constants: Mapping[str, Any] | None = None,
    ) -> Blame:
        """Say which layer lost the accuracy to quantization, why, and what cures it.

        Args:
            model: The float model; cures need it. None takes the one inside the bundle, whose
                weights are the rounded ones.
            calib: Samples, see `sparrow.quantize`; the golden calls of the bundle when None.
            shapes: Static shapes of inputs of ``model`` with dynamic dimensions.
            constants: Inputs of ``model`` that the bundle was built with as constants.

        Raises:
            BadInput: The bundle is not quantized, or ``model`` is not what it was made of.
        """
        from sparrow.blame import blame_bundle

        return blame_bundle(self, model, calib, shapes=shapes, constants=constants)

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


def _results(e: EntryInfo) -> tuple[tuple[str, int], ...]:
    """(name, position) of the outputs that a call returns.

    Counts that the importer added are left out: the arrays that are cut to them say as much. A
    count that the model returns under a name of its own stays.
    """
    added = {
        t.count_of
        for t in e.outputs
        if t.count_of >= 0 and e.outputs[t.count_of].name.rstrip("_") == f"{t.name}.count"
    }
    return tuple((t.name, i) for i, t in enumerate(e.outputs) if i not in added)


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
    check_whole(folder)
    return Bundle(folder, threads, device, cores)
