"""How deep the stack pointer goes in a run under the emulator, to the byte.

Paint that a call overwrites shows what was written, and a frame may end in padding which nothing
writes. A plugin of the emulator (runtime/depth.c) sees where the model's code reads and writes its
frames instead: an address less the distance that the instruction names is the stack pointer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sparrow.device import riscv, thumb
from sparrow.device.elf import FUNCTION, Elf
from sparrow.device.firmware import link_alone
from sparrow.device.qemu import plugin
from sparrow.device.remote import RemoteLibrary, RemoteSession
from sparrow.device.stack import MEMORY
from sparrow.errors import BadBundle
from sparrow.targets import Machine
from sparrow.tensor import Array

_ACCESSES: Mapping[str, Callable[[bytes], Iterator[tuple[int, int, int]]]] = {
    "thumb": thumb.accesses,
    "riscv32": riscv.accesses,
}


def deepest_stack(
    library: RemoteLibrary, machine: Machine, weights: Array, entry: int, inputs: Sequence[Array]
) -> int:
    """Bytes between the stack pointer that ``model_run`` is called with and its lowest.

    What the program's own memcpy and memset take is left out, as in `stack_bytes`.

    Args:
        library: A bare archive that is linked into a program of the emulator.
        machine: What it is built for: Thumb or RV32.
        weights: The blob.
        entry: Entry point.
        inputs: Its inputs.

    Raises:
        BadBundle: This emulator was built without plugins.
    """
    program = Elf(Path(library.command[-1]).read_bytes())
    alone = Elf(link_alone((library.path,), machine).read_bytes())
    own = {s.name for s in alone.symbols if s.kind == FUNCTION} - MEMORY
    rows: dict[int, int] = {}
    first = taken = 0
    for s in program.symbols:
        if s.kind != FUNCTION or not s.section or s.name not in own:
            continue
        section, at = program.sections[s.section], s.value & ~1
        code = section.data[at - section.address :][: s.size]
        found = [(at + offset, *rest) for offset, *rest in _ACCESSES[machine.arch](code)]
        rows |= {place: above for place, above, _ in found}
        if s.name == "model_run":
            first, _, taken = found[0]
    with tempfile.TemporaryDirectory(prefix="sparrow-") as folder:
        table, out = Path(folder) / "table", Path(folder) / "out"
        np.array(sorted(rows.items()), np.int64).tofile(table)
        arguments = f"{plugin('depth')},out={out},table={table},first={first}"
        session = RemoteSession(library, weights, wire=library.connect(("-plugin", arguments)))
        session.run(entry, inputs)
        session.close()
        at_first, lowest = (int(x) for x in np.fromfile(out, np.uint64))
    if not at_first:
        raise BadBundle(f"{library.path}: model_run keeps nothing on the stack")
    return at_first + taken - lowest
