"""The C interface of an emitted model: what sparrow.h declares, and ``model.h``."""

from __future__ import annotations

from collections.abc import Mapping

from sparrow.emit.dtype_c import float_literal
from sparrow.graph import Graph
from sparrow.kernels.case import Invoke
from sparrow.plan import Entry, Plan
from sparrow.tensor import Affine, TensorType


def c_string(text: str) -> str:
    """A C string literal; everything but plain ASCII becomes an octal escape."""
    safe = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-+ ()[]%,")
    body = "".join(
        chr(b) if chr(b) in safe else f"\\{b:03o}" for b in text.encode("utf-8", "replace")
    )
    return f'"{body}"'


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


def exports(plan: Plan, prefix: str, embed: bool) -> list[str]:
    """Tables and functions of the interface; ``embed``: the weights are linked in."""
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


def asks_processor(plan: Plan) -> bool:
    """Whether `model_reset` asks the processor what it has: ``processor.h`` knows x86-64."""
    return plan.target.machine.arch == "x86_64"


def _reset_function(plan: Plan, prefix: str) -> str:
    head = f"SPARROW_API int {prefix}_reset(void *state, const void *weights) {{"
    fill = _fill_state(plan)
    if not asks_processor(plan):
        return "\n".join([head, *fill, "}"])
    if plan.state_bytes:
        # a function of its own: one that has vectors ends with an instruction of theirs
        sign = "SP_OUTLINE int sp_fill_state(void *state, const void *weights) {"
        filled = [sign, *fill, "}"]
        fill = ["  return sp_fill_state(state, weights);"]
    else:
        filled = []
    refuse = "  if (sp_processor_lacks()) return SPARROW_REFUSED;"
    return "\n".join(
        [*filled, head, "#ifdef SP_ASKS_PROCESSOR", refuse, "#endif", *fill, "}"],
    )


def _fill_state(plan: Plan) -> list[str]:
    """Statements that write the initial state."""
    if not plan.state_bytes:
        return ["  (void)state;", "  (void)weights;", "  return SPARROW_OK;"]
    lines = [
        "  unsigned char *to = (unsigned char *)state;",
        "  const unsigned char *from = (const unsigned char *)weights;",
        "  (void)from;",
        "  if (state == NULL) return SPARROW_NULL;",
        "  if (((uintptr_t)state & 63u) != 0) return SPARROW_MISALIGNED;",
    ]
    initial = [s for s in plan.states if s.initial >= 0]
    if initial:
        lines.append("  if (weights == NULL) return SPARROW_NULL;")
    lines.append(f"  for (ptrdiff_t i = 0; i < {plan.state_bytes}; ++i) to[i] = 0;")
    for s in initial:
        lines.append(f"  sp_copy_bytes(to + {s.offset}, from + {s.initial}, {s.type.bytes});")
    return [*lines, "  return SPARROW_OK;"]


def header(plan: Plan, prefix: str) -> str:
    """``model.h``."""
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
