"""The way down in one call: models to a plan and its emitted sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sparrow.bfloat16 import to_bfloat16
from sparrow.emit.c import Artifact, emit
from sparrow.errors import BadInput, CompileError
from sparrow.graph import Graph, Module
from sparrow.importers.imported import Imported, Shapes
from sparrow.importers.model import Model, import_model, input_names
from sparrow.kernels import COMPACT, KERNELS, parts_of
from sparrow.kernels.case import Kernel
from sparrow.kernels.conv_i16 import takes_halves
from sparrow.passes import FRONT, back, optimize
from sparrow.passes.row_means import means_by_rows
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.quant.bfloat16 import rounded_products
from sparrow.reference import one_thread
from sparrow.rewrite import Remark
from sparrow.schedule import faster
from sparrow.schedule.patching import within
from sparrow.schedule.pixel_groups import in_pixel_groups
from sparrow.targets import Target
from sparrow.tuning import Tuning


@dataclass(frozen=True, slots=True)
class Source:
    """A model to become an entry point.

    Attributes:
        model: Path or ModelProto.
        shapes: Static shapes of dynamic inputs.
        constants: Inputs bound to fixed values; one number fills the shape of its input.
        states: Model input -> output pairs carried between calls.
    """

    model: Model
    shapes: Shapes = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """Everything between the model files and the C compiler.

    ``whole`` are the entry points of the module before layers were put in strips, ``tuning`` the
    measured times that decided, of these layers alone.
    """

    imported: tuple[Imported, ...]
    whole: tuple[Graph, ...]
    module: Module
    plan: Plan
    artifact: Artifact
    remarks: tuple[Remark, ...]
    tuning: Tuning | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """Entry points after import and the passes before quantization.

    Attributes:
        imported: What was read.
        graphs: Each after `FRONT`.
        remarks: Of the passes.
    """

    imported: tuple[Imported, ...]
    graphs: tuple[Graph, ...]
    remarks: tuple[Remark, ...]


def import_source(s: Source, name: str) -> Imported:
    """Decode a model with all that was said of it."""
    return import_model(s.model, s.shapes, constants=s.constants, states=s.states, name=name)


def front(sources: Mapping[str, Source]) -> Front:
    """Import every entry point and recognize what is in it."""
    if not sources:
        raise BadInput("no model given")
    sources = _states_where_they_are(sources)
    imported: list[Imported] = []
    graphs: list[Graph] = []
    remarks: list[Remark] = []
    for name, s in sources.items():
        with one_thread():
            found = import_source(s, name)
            imported.append(found)
            graphs.append(optimize(found.graph, FRONT, remarks))
    return Front(tuple(imported), tuple(graphs), tuple(remarks))


def _states_where_they_are(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Each of several entry points takes the states whose input it has; one must have each."""
    wanted = {name for s in sources.values() for name in s.states}
    if len(sources) == 1 or not wanted:
        return dict(sources)
    inputs = {name: input_names(s.model) for name, s in sources.items()}
    missing = wanted - set().union(*inputs.values())
    if missing:
        raise BadInput(f"state {min(missing)!r} is no input of any entry point")
    return {
        name: replace(s, states={i: o for i, o in s.states.items() if i in inputs[name]})
        for name, s in sources.items()
    }


def compile_front(
    found: Front,
    target: Target,
    *,
    threads: int = 1,
    kernels: Sequence[Kernel] = KERNELS,
    tuning: Tuning | None = None,
    bfloat16: bool = False,
    ram: int | None = None,
) -> Compiled:
    """Graphs after `FRONT`, quantized or not, to C; arguments as of `compile_sources`.

    With ``bfloat16`` the float32 products that gain are taken over bfloat16; without, those of them
    whose data and weights the graph itself rounds to bfloat16. Layers whose results do
    not fit in L2 are computed in strips of rows where that is predicted to be faster; with ``ram``,
    where arena and state take more bytes, as many as that takes, or as lower it the most.
    """
    remarks = list(found.remarks)
    target = tuning.measured(target) if tuning else target
    with one_thread():
        isa = target.isa
        passes = back(
            unsigned=isa.codes_unsigned,
            halves=takes_halves(isa),
            parts=parts_of(kernels, isa),
        )
        graphs = tuple(optimize(g, passes, remarks) for g in found.graphs)
        if target.cores > 1:
            graphs = tuple(means_by_rows(g, threads, remarks) for g in graphs)
        only = None if bfloat16 else frozenset().union(*map(rounded_products, found.graphs))
        if bfloat16 or only:
            graphs = tuple(to_bfloat16(g, target, threads, kernels, remarks, only) for g in graphs)
        if not set(COMPACT) <= set(kernels):  # groups multiply weights
            by_one = partial(plan, target=target, kernels=kernels)
            graphs = tuple(in_pixel_groups(g, target, by_one, remarks) for g in graphs)
    module = Module(graphs[0].name, graphs)

    def planned_for(m: Module) -> Plan:
        return plan(m, target, threads=threads, kernels=kernels, tuning=tuning)

    planned = planned_for(module)
    if ram is None:
        planned = faster(planned, planned_for, remarks)
    else:
        planned = within(planned, ram, planned_for, remarks)
    _reachable(planned)
    steps = (s for e in planned.entries for s in e.steps)
    used = tuning.of({o.work for s in steps for o in s.options}, threads) if tuning else None
    return Compiled(
        found.imported,
        graphs,
        planned.module,
        planned,
        emit(planned),
        tuple(remarks),
        used,
    )


def _reachable(p: Plan) -> None:
    """Differences of pointers are signed: half of what a pointer could name is within reach.

    Raises:
        CompileError: Memory of the plan is beyond it.
    """
    needed = len(p.weights) + p.state_bytes + p.arena_bytes + p.io_bytes
    most = (1 << p.target.machine.address_bits - 1) - 1
    if needed > most:
        raise CompileError(
            f"weights, states, arena, inputs and outputs take {needed:,} bytes, and"
            f" {p.target.name} addresses {most:,}: give smaller shapes or another target"
        )


def compile_sources(
    sources: Mapping[str, Source],
    target: Target,
    *,
    threads: int = 1,
    kernels: Sequence[Kernel] = KERNELS,
    tuning: Tuning | None = None,
) -> Compiled:
    """Models to C.

    Args:
        sources: Entry point name -> model.
        target: Device.
        threads: Threads that tasks are cut for; results do not depend on it.
        kernels: Kernel table.
        tuning: Measured times of tiles.

    Raises:
        SparrowError: The model is malformed, unsupported, has no kernel for the target, or takes
            more memory than its pointers reach.
    """
    return compile_front(front(sources), target, threads=threads, kernels=kernels, tuning=tuning)
