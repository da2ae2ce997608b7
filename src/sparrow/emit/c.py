"""Plan -> C: one ``model.c`` that holds everything, ``model.h``, and the weight blob.

``model.c`` can be compiled whole, or in parts (``-DSPARROW_PART=k``) that a build runs in parallel
and caches one by one; part 0 is the driver and holds no kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from sparrow.emit.amalgamate import amalgamate
from sparrow.emit.interface import asks_processor, c_string, exports, header
from sparrow.emit.lengths import declare_steps, step_of
from sparrow.emit.parts import parts_of
from sparrow.emit.steps import Bodies, address
from sparrow.memory.stages import stages
from sparrow.plan import Entry, Plan

_SCALAR_MATH = re.compile(r"sp_\w+_f64\(|sp_f(32|64)_to_|sp_i(div|rem|mod|pow)_|SP_F32_2\(f?mod")


@dataclass(frozen=True, slots=True)
class Artifact:
    """Emitted files by name, and how many parts ``model.c`` has."""

    files: Mapping[str, bytes]
    parts: int


_PRELUDE = """\
#ifdef SPARROW_PART
#define SP_IN(part) (SPARROW_PART == (part))
#define SP_LINK SP_KEPT
#else
#define SP_IN(part) 1
#define SP_LINK static SP_KEPT
#endif

/* Where a call's memory is: weights, workspace, state. */
typedef struct sp_frame {
  const sparrow_call *call;
  const unsigned char *w;
  unsigned char *ws;
  unsigned char *st;
} sp_frame;
"""

_DRIVER = """\
typedef struct sp_job {
  void (*fn)(const sp_frame *, int);
  const sp_frame *frame;
} sp_job;

SP_OUTLINE void sp_run_task(void *arg, int task) {
  const sp_job *job = (const sp_job *)arg;
  job->fn(job->frame, task);
}

SP_OUTLINE void sp_split(const sp_frame *f, void (*fn)(const sp_frame *, int), int tasks) {
  if (f->call->parallel_for != NULL) {
    sp_job job;
    job.fn = fn;
    job.frame = f;
    f->call->parallel_for(f->call->parallel_ctx, sp_run_task, &job, tasks);
  } else {
    for (int t = 0; t < tasks; ++t) fn(f, t);
  }
}

SP_INLINE void sp_copy_bytes(unsigned char *to, const unsigned char *from, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; ++i) to[i] = from[i];
}

#ifdef SPARROW_HOOKS
#define SP_PROFILE(step, begin) \\
  if (f->call->profile != NULL) f->call->profile(f->call->hook_ctx, (step), (begin))
#define SP_TAP(step, output, data, bytes) \\
  if (f->call->tap != NULL) f->call->tap(f->call->hook_ctx, (step), (output), (data), (bytes))
#else
#define SP_PROFILE(step, begin) (void)0
#define SP_TAP(step, output, data, bytes) (void)0
#endif
"""


def emit(plan: Plan, *, prefix: str = "model") -> Artifact:
    """C sources of a plan.

    Args:
        plan: What to write.
        prefix: Prefix of the exported functions and of internal symbols with linkage.

    Returns:
        ``model.c``, ``model.h``, ``sparrow.h``, ``weights.bin``, and for a target without files
        ``weights.c``: the same bytes, to be linked in.
    """
    embed = plan.target.machine.bare and len(plan.weights) > 0
    bodies = Bodies(prefix, plan.target.isa.lanes)
    names = [
        [f"{prefix}_e{e}_s{s}" for s in range(len(x.steps))] for e, x in enumerate(plan.entries)
    ]
    steps = [
        bodies.step(name, s)
        for entry, row in zip(plan.entries, names, strict=True)
        for name, s in zip(row, entry.steps, strict=True)
    ]
    headers = sorted({f"kernels/{b.header}" for b in bodies if b.header})
    parts = parts_of(steps, {h.removeprefix("kernels/"): len(amalgamate([h])) for h in headers})
    work = declare_steps([s.name for s in steps], plan.target.isa)
    for k, part in enumerate(parts, start=1):
        work.append(f"\n#if SP_IN({k})")
        done: set[str] = set()
        for s in part:
            work += [b.definition() for b in s.bodies if b.name not in done]
            done |= {b.name for b in s.bodies}
            work.append(s.text)
        work.append("#endif")
    isa = plan.target.isa.name
    native = ["base.h", f"isa/{isa}.h", *_helpers("\n".join(work)), *headers]
    if asks_processor(plan):
        native.append("processor.h")
    text = [
        f"/* Emitted by Sparrow for {c_string(plan.target.name)[1:-1]}; instruction set: {isa}. */",
        '#include "sparrow.h"',
        amalgamate(native),
        _PRELUDE,
        *work,
        "\n#if SP_IN(0)",
        _DRIVER,
    ]
    # in pages a region took longer than one for each step when it was measured (ResNet-18)
    shares = not plan.target.isa.engine
    starts = [stages(entry.steps, plan.threads) if shares else () for entry in plan.entries]
    if any(starts):
        text += [f"#define SP_REGION_COLUMNS {plan.threads}", amalgamate(["region.h"])]
    for e, entry in enumerate(plan.entries):
        called = [step_of(name, plan.target.isa) for name in names[e]]
        # where the processor decides which code a step is, the table is none of constants
        kind = "const" if plan.target.isa.lengths else "static const"
        text.append(_runner(e, entry, called, _region(entry, called, starts[e], kind)))
    text += exports(plan, prefix, embed)
    text.append("#endif\n")
    source = "\n".join(text)
    files = {
        "model.c": source.encode(),
        "model.h": header(plan, prefix).encode(),
        "sparrow.h": (resources.files("sparrow") / "native" / "sparrow.h").read_bytes(),
        "weights.bin": plan.weights,
    }
    if embed:
        files["weights.c"] = _weights_source(plan.weights, prefix).encode()
    return Artifact(files, len(parts) + 1)


def _weights_source(weights: bytes, prefix: str) -> str:
    rows = (weights[i : i + 24] for i in range(0, len(weights), 24))
    body = ",\n".join(",".join(map(str, row)) for row in rows)
    return (
        "/* The weights of an emitted model; they stay where the linker puts constants. */\n"
        "#if defined(__GNUC__)\n#define SP_ALIGNED __attribute__((aligned(64)))\n"
        "#elif defined(_MSC_VER)\n#define SP_ALIGNED __declspec(align(64))\n"
        "#else\n#define SP_ALIGNED _Alignas(64)\n#endif\n"
        f"extern const unsigned char {prefix}_weights[{len(weights)}];\n"
        f"SP_ALIGNED const unsigned char {prefix}_weights[{len(weights)}] = {{\n{body}}};\n"
    )


def _helpers(work: str) -> list[str]:
    """Native headers that emitted loops and epilogues need."""
    found = ["kernels/epilogue.h"] if "_ep(" in work else []
    if "sp_" in work:
        found.append("kernels/lane.h")
    if _SCALAR_MATH.search(work):
        found.append("kernels/scalar_math.h")
    return found


def _region(entry: Entry, names: Sequence[str], first: Sequence[int], kind: str) -> list[str]:
    """All steps as one parallel region, where threads share them in stages from ``first`` on."""
    if not first:
        return []
    steps = ", ".join(
        f"{{{name}, {s.lowered.tasks}, {-1 if s.column is None else s.column}}}"
        for name, s in zip(names, entry.steps, strict=True)
    )
    starts = ", ".join(map(str, (*first, len(entry.steps))))
    return [
        "#ifdef SP_REGIONS",
        "  if (SP_REGIONS(f->call)) {",
        f"    {kind} sp_region_step steps[] = {{{steps}}};",
        f"    static const int stages[] = {{{starts}}};",
        "    SP_ALIGN(SP_REGION_LINE) sp_region_column columns[SP_REGION_COLUMNS];",
        f"    sp_run_steps(f, steps, stages, {len(first)}, columns);",
        *(f"    {line}" for line in _commits(entry)),
        "    return;",
        "  }",
        "#endif",
    ]


def _commits(entry: Entry) -> Iterator[str]:
    for view, place in entry.commits:
        source = address(view.place, view.offset)
        yield f"sp_copy_bytes({address(place, 0)}, {source}, {view.type.bytes});"


def _runner(e: int, entry: Entry, names: Sequence[str], region: Sequence[str]) -> str:
    lines = [f"static void sp_entry_{e}(const sp_frame *f) {{", "  (void)f;", *region]
    for i, s in enumerate(entry.steps):
        lines.append(f"  SP_PROFILE({i}, 1);")
        tasks = s.lowered.tasks
        name = names[i]
        if tasks > 1 and not s.whole:
            lines.append(f"  sp_split(f, {name}, {tasks});")
        else:
            lines += (f"  {name}(f, {task});" for task in range(tasks))
        lines.append(f"  SP_PROFILE({i}, 0);")
        for k, v in enumerate(s.outputs):
            low, high = v.span
            lines.append(f"  SP_TAP({i}, {k}, {address(v.place, low)}, {high - low});")
    lines += (f"  {line}" for line in _commits(entry))
    lines.append("}")
    return "\n".join(lines)
