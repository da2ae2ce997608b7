"""Plan -> C: one ``model.c`` that holds everything, ``model.h``, and the weight blob.

``model.c`` can be compiled whole, or in parts (``-DSPARROW_PART=k``) that a build runs in parallel
and caches one by one; part 0 is the driver and holds no kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from sparrow.emit.dtype_c import float_literal
from sparrow.emit.lengths import declare_steps, step_of
from sparrow.emit.steps import Bodies, Body, StepFunction, address
from sparrow.graph import Graph
from sparrow.kernels.case import Invoke
from sparrow.plan import Entry, Plan
from sparrow.tensor import Affine, TensorType

# Compile effort is counted in bytes of native code that a body inlines.
PART_EFFORT = 100_000
SMALL = 1_000
_SCALAR_MATH = re.compile(r"sp_\w+_f64\(|sp_f(32|64)_to_|sp_i(div|rem|mod|pow)_|SP_F32_2\(f?mod")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*\n', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Artifact:
    """Emitted files by name, and how many parts ``model.c`` has."""

    files: Mapping[str, bytes]
    parts: int


def c_string(text: str) -> str:
    """A C string literal; everything but plain ASCII becomes an octal escape."""
    safe = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-+ ()[]%,")
    body = "".join(
        chr(b) if chr(b) in safe else f"\\{b:03o}" for b in text.encode("utf-8", "replace")
    )
    return f'"{body}"'


def amalgamate(headers: Iterable[str]) -> str:
    """The text of native headers with their quoted includes inlined, each once."""
    root = resources.files("sparrow") / "native"
    done: set[str] = set()
    out: list[str] = []

    def add(path: str) -> None:
        if path in done:
            return
        done.add(path)
        text = (root / path).read_text(encoding="utf-8")
        folder = path.rsplit("/", 1)[0] if "/" in path else ""
        for inner in _INCLUDE.findall(text):
            parts: list[str] = [p for p in folder.split("/") if p]
            for piece in inner.split("/"):
                if piece == "..":
                    parts.pop()
                elif piece != ".":
                    parts.append(piece)
            add("/".join(parts))
        out.append(_INCLUDE.sub("", text))

    for h in headers:
        add(h)
    return "\n".join(out)


def _info(label: str, name: str, t: TensorType, extra: Mapping[str, str]) -> tuple[list[str], str]:
    """Static tables and the sparrow_tensor_info initialiser of a tensor."""
    tables: list[str] = []
    fields = {"name": c_string(name)}
    if t.rank:
        tables.append(f"static const int64_t {label}_shape[] = {{{', '.join(map(str, t.shape))}}};")
        fields["shape"] = f"{label}_shape"
    if isinstance(t.quant, Affine):
        scales = ", ".join(float_literal(float(s)) for s in t.quant.scale.ravel())
        zeros = ", ".join(str(int(z)) for z in t.quant.zero_point.ravel())
        tables.append(f"static const float {label}_scales[] = {{{scales}}};")
        tables.append(f"static const int32_t {label}_zeros[] = {{{zeros}}};")
        axis = next((i for i, n in enumerate(t.quant.scale.shape) if n > 1), -1)
        fields |= {
            "scales": f"{label}_scales",
            "zero_points": f"{label}_zeros",
            "n_scales": str(t.quant.scale.size),
        }
        if axis >= 0:
            fields["block"] = str(t.shape[axis] // t.quant.scale.shape[axis])
    else:
        axis = -1
    fields |= {
        "bytes": str(t.bytes),
        "dtype": f"SPARROW_{t.dtype.name.upper()}",
        "rank": str(t.rank),
        "axis": str(axis),
        "count_of": "-1",
        **extra,
    }
    return tables, "{" + ", ".join(f".{k} = {v}" for k, v in fields.items()) + "}"


def _entry_tables(e: Entry, g: Graph, label: str) -> list[str]:
    counts = {n.output: n for n in g.lengths}
    out: list[str] = []
    rows: dict[str, list[str]] = {"in": [], "out": []}
    for kind, names in (("in", g.inputs), ("out", g.outputs)):
        for i, name in enumerate(names):
            extra: dict[str, str] = {}
            if kind == "out" and name in counts:
                at = g.outputs.index(counts[name].count)
                extra = {"count_of": str(at), "count_axis": str(counts[name].axis)}
            tables, row = _info(f"{label}_{kind}{i}", name, g.types[name], extra)
            out += tables
            rows[kind].append(row)
    for kind, items in rows.items():
        if items:
            body = ",\n  ".join(items)
            out.append(f"static const sparrow_tensor_info {label}_{kind}[] = {{\n  {body}}};")
    names_text = ",\n  ".join(
        c_string(f"{type(s.node.op).__name__} {s.node.origin}") for s in e.steps
    )
    if e.steps:
        out.append(
            "#ifdef SPARROW_HOOKS\n"
            f"static const char *const {label}_steps[] = {{\n  {names_text}}};\n"
            "#endif"
        )
    return out


_PRELUDE = """\
#ifdef SPARROW_PART
#define SP_IN(part) (SPARROW_PART == (part))
#define SP_LINK
#else
#define SP_IN(part) 1
#define SP_LINK static
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


def _grouped(steps: Sequence[StepFunction]) -> list[list[StepFunction]]:
    """Steps that share a body, directly or over others, in groups; in the order of first steps.

    Where size matters they share what is in the body's header, too.
    """

    def shared(b: Body) -> str:
        return b.header if b.small else b.name

    group: dict[str, list[StepFunction]] = {}
    found: list[list[StepFunction]] = []
    for s in steps:
        joined = {id(g): g for b in s.bodies if (g := group.get(shared(b))) is not None}
        mine = [s]
        for g in joined.values():
            mine = [*g, *mine]
            found.remove(g)
        found.append(mine)
        for member in mine:
            group |= {shared(b): mine for b in member.bodies}
    return found


def _effort(group: Sequence[StepFunction], sizes: Mapping[str, int]) -> int:
    """How long a group takes to compile, in bytes of always-inlined native code."""
    bodies = {b.name: b for s in group for b in s.bodies}
    return sum(SMALL + sizes.get(b.header, 0) for b in bodies.values())


def _parts(steps: Sequence[StepFunction], sizes: Mapping[str, int]) -> list[list[StepFunction]]:
    """Steps per part, of about equal effort; part 0, the driver, is not among them."""
    groups = sorted(_grouped(steps), key=lambda g: -_effort(g, sizes))
    total = sum(_effort(g, sizes) for g in groups)
    parts: list[list[StepFunction]] = [
        # steps over empty tensors have no body, and are in a part nevertheless
        []
        for _ in range(min(len(groups), max(1, -(-total // PART_EFFORT))))
    ]
    load = [0] * len(parts)
    for g in groups:
        k = load.index(min(load))
        parts[k] += g
        load[k] += _effort(g, sizes)
    place = {s.name: i for i, s in enumerate(steps)}
    return [sorted(p, key=lambda s: place[s.name]) for p in parts]


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
    parts = _parts(steps, {h.removeprefix("kernels/"): len(amalgamate([h])) for h in headers})
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
    text = [
        f"/* Emitted by Sparrow for {c_string(plan.target.name)[1:-1]}; instruction set: {isa}. */",
        '#include "sparrow.h"',
        amalgamate(native),
        _PRELUDE,
        *work,
        "\n#if SP_IN(0)",
        _DRIVER,
    ]
    for e, entry in enumerate(plan.entries):
        text.append(_runner(e, entry, [step_of(name, plan.target.isa) for name in names[e]]))
    text += _exports(plan, prefix, embed)
    text.append("#endif\n")
    source = "\n".join(text)
    files = {
        "model.c": source.encode(),
        "model.h": _header(plan, prefix).encode(),
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


def _runner(e: int, entry: Entry, names: Sequence[str]) -> str:
    lines = [f"static void sp_entry_{e}(const sp_frame *f) {{", "  (void)f;"]
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
    for view, place in entry.commits:
        source = address(view.place, view.offset)
        lines.append(f"  sp_copy_bytes({address(place, 0)}, {source}, {view.type.bytes});")
    lines.append("}")
    return "\n".join(lines)


def _exports(plan: Plan, prefix: str, embed: bool) -> list[str]:
    out: list[str] = []
    rows: list[str] = []
    for e, (entry, g) in enumerate(zip(plan.entries, plan.module, strict=True)):
        label = f"sp_t{e}"
        out += _entry_tables(entry, g, label)
        fields = {
            "name": c_string(g.name),
            "inputs": f"{label}_in" if g.inputs else "NULL",
            "outputs": f"{label}_out" if g.outputs else "NULL",
            "n_inputs": str(len(g.inputs)),
            "n_outputs": str(len(g.outputs)),
            "n_steps": str(len(entry.steps)),
        }
        row = ", ".join(f".{k} = {v}" for k, v in fields.items())
        hooks = f"SP_STEPS(.step_names = {label}_steps,) " if entry.steps else ""
        rows.append(f"  {{{hooks}{row}}}")
    state_rows: list[str] = []
    for i, s in enumerate(plan.states):
        tables, row = _info(f"sp_state{i}", s.name, s.type, {"offset": str(s.offset)})
        out += tables
        state_rows.append(f"  {row}")
    out.append(
        "#ifdef SPARROW_HOOKS\n#define SP_STEPS(...) __VA_ARGS__\n"
        "#else\n#define SP_STEPS(...)\n#endif"
    )
    out.append("static const sparrow_entry_info sp_entries[] = {\n" + ",\n".join(rows) + "};")
    if state_rows:
        out.append(
            "static const sparrow_tensor_info sp_states[] = {\n" + ",\n".join(state_rows) + "};"
        )
    if embed:
        out.append(f"extern const unsigned char {prefix}_weights[];")
    fields = {
        "abi_version": "SPARROW_ABI_VERSION",
        "name": c_string(plan.module.name),
        "isa": c_string(plan.target.isa.name),
        "weights": f"{prefix}_weights" if embed else "NULL",
        "entries": "sp_entries",
        "states": "sp_states" if state_rows else "NULL",
        "weights_bytes": str(len(plan.weights)),
        "workspace_bytes": str(plan.arena_bytes),
        "state_bytes": str(plan.state_bytes),
        "weights_align": "64",
        "workspace_align": "64",
        "state_align": "64",
        "n_entries": str(len(plan.entries)),
        "n_states": str(len(plan.states)),
    }
    body = ",\n  ".join(f".{k} = {v}" for k, v in fields.items())
    out.append(
        "static const sparrow_model_info sp_info = {\n"
        f"  SP_STEPS(.flags = SPARROW_FLAG_HOOKS,)\n  {body}}};"
    )
    out.append(
        f"SPARROW_API const sparrow_model_info *{prefix}_info(void) {{ return &sp_info; }}\n"
    )
    out.append(_run_function(plan, prefix))
    out.append(_reset_function(plan, prefix))
    return out


def _run_function(plan: Plan, prefix: str) -> str:
    checks = []
    needs = (
        ("weights", len(plan.weights)),
        ("workspace", plan.arena_bytes),
        ("state", plan.state_bytes),
    )
    for name, size in needs:
        if size:
            checks.append(f"  if (call->{name} == NULL) return SPARROW_NULL;")
            checks.append(f"  if (((uintptr_t)call->{name} & 63u) != 0) return SPARROW_MISALIGNED;")
    leave = ""
    if _takes_matrices(plan):
        checks.append("  if (sp_matrix_allow() != 0) return SPARROW_REFUSED;")
        leave = "  sp_matrix_leave();\n"
    cases = "\n".join(
        f"    case {e}: sp_entry_{e}(&frame); break;" for e in range(len(plan.entries))
    )
    return f"""\
SPARROW_API int {prefix}_run(const sparrow_call *call) {{
  sp_frame frame;
  const sparrow_entry_info *entry;
  if (call == NULL) return SPARROW_NULL;
  if (call->entry >= {len(plan.entries)}u) return SPARROW_BAD_ENTRY;
  entry = &sp_entries[call->entry];
  if (call->inputs == NULL && entry->n_inputs > 0) return SPARROW_NULL;
  if (call->outputs == NULL && entry->n_outputs > 0) return SPARROW_NULL;
  for (int i = 0; i < entry->n_inputs; ++i)
    if (call->inputs[i] == NULL && entry->inputs[i].bytes != 0) return SPARROW_NULL;
  for (int i = 0; i < entry->n_outputs; ++i)
    if (call->outputs[i] == NULL && entry->outputs[i].bytes != 0) return SPARROW_NULL;
{chr(10).join(checks)}
  frame.call = call;
  frame.w = (const unsigned char *)call->weights;
  frame.ws = (unsigned char *)call->workspace;
  frame.st = (unsigned char *)call->state;
  switch (call->entry) {{
{cases}
    default: return SPARROW_BAD_ENTRY;
  }}
{leave}  return SPARROW_OK;
}}
"""


def _takes_matrices(plan: Plan) -> bool:
    """Whether a step needs registers that the system has to allow."""
    calls = (c for e in plan.entries for s in e.steps for c in s.lowered.calls)
    return any(isinstance(c, Invoke) and c.params.get("matrix") for c in calls)


def _reset_function(plan: Plan, prefix: str) -> str:
    lines = [f"SPARROW_API int {prefix}_reset(void *state, const void *weights) {{"]
    if not plan.state_bytes:
        lines += ["  (void)state;", "  (void)weights;"]
    else:
        lines += [
            "  unsigned char *to = (unsigned char *)state;",
            "  const unsigned char *from = (const unsigned char *)weights;",
            "  (void)from;",
            "  if (state == NULL) return SPARROW_NULL;",
            f"  for (ptrdiff_t i = 0; i < {plan.state_bytes}; ++i) to[i] = 0;",
        ]
        if any(s.initial >= 0 for s in plan.states):
            lines.append("  if (weights == NULL) return SPARROW_NULL;")
        for s in plan.states:
            if s.initial >= 0:
                lines.append(
                    f"  sp_copy_bytes(to + {s.offset}, from + {s.initial}, {s.type.bytes});"
                )
    lines += ["  return SPARROW_OK;", "}"]
    return "\n".join(lines)


def _header(plan: Plan, prefix: str) -> str:
    upper = prefix.upper()
    enums = "\n".join(
        f"#define {upper}_ENTRY_{e} {e}u /* {c_string(x.graph.name)[1:-1]} */"
        for e, x in enumerate(plan.entries)
    )
    return f"""\
/* Sizes and functions of an emitted model; sparrow.h documents the calls. */
#ifndef {upper}_H
#define {upper}_H

#include "sparrow.h"

#define {upper}_WEIGHTS_BYTES {len(plan.weights)}
#define {upper}_WORKSPACE_BYTES {plan.arena_bytes}
#define {upper}_STATE_BYTES {plan.state_bytes}
#define {upper}_ALIGN 64
{enums}

#ifdef __cplusplus
extern "C" {{
#endif
SPARROW_DECLARE({prefix});
#ifdef __cplusplus
}}
#endif

#endif
"""
