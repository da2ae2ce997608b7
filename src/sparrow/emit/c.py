"""Plan -> C: one ``model.c`` that holds everything, ``model.h``, and the weight blob.

``model.c`` can be compiled whole, or in parts (``-DSPARROW_PART=k``) that a build runs in parallel and
caches one by one; part 0 is the driver and holds no kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from sparrow.emit.lane_c import compute, float_literal, scalar, storage, vector, vectorizable
from sparrow.kernels.case import (
    Argument,
    Epilogue,
    In,
    Invoke,
    Loop,
    Out,
    Packed,
    Param,
    Scratch,
    Stream,
)
from sparrow.plan import Entry, Place, Plan, Step, View
from sparrow.tensor import BF16, F16, F32, Affine, TensorType

STEPS_PER_PART = 12
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*\n', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Artifact:
    """Emitted files by name, and how many parts ``model.c`` has."""

    files: Mapping[str, bytes]
    parts: int


def c_string(text: str) -> str:
    """A C string literal; everything but plain ASCII becomes an octal escape."""
    safe = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-+ ()[]%,")
    body = "".join(chr(b) if chr(b) in safe else f"\\{b:03o}" for b in text.encode("utf-8", "replace"))
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


def _param(v: Param) -> str:
    if isinstance(v, tuple):
        return "{" + ", ".join(_param(i) for i in v) + "}" if v else "{0}"
    return float_literal(v) if isinstance(v, float) else str(v)


class _Emitter:
    def __init__(self, plan: Plan, prefix: str) -> None:
        self.plan = plan
        self.prefix = prefix

    def base(self, place: Place) -> str:
        return {
            "arena": "f->ws",
            "weights": "f->w",
            "state": "f->st",
            "input": f"((const unsigned char *)f->call->inputs[{place.index}])",
            "output": f"((unsigned char *)f->call->outputs[{place.index}])",
        }[place.kind]

    def at(self, view: View, ctype: str, const: bool) -> str:
        offset = view.place.offset + view.offset
        q = "const " if const else ""
        plus = f" + {offset}" if offset else ""
        return f"({q}{ctype} *)({self.base(view.place)}{plus})"

    def operand(self, step: Step, o: In | Out | Packed, ctype: str) -> str:
        if isinstance(o, Packed):
            return f"(const {ctype} *)(f->w + {step.packed[o.index]})"
        view = step.inputs[o.index] if isinstance(o, In) else step.outputs[o.index]
        assert view is not None, (step.node, o)
        text = self.at(view, ctype, isinstance(o, In))
        return f"{text} + {o.offset}" if o.offset else text

    def element(self, step: Step, o: In | Out) -> str:
        view = step.inputs[o.index] if isinstance(o, In) else step.outputs[o.index]
        assert view is not None
        return storage(view.type.dtype)

    def step(self, name: str, step: Step) -> str:
        """The function of a step, and the lane functions it needs."""
        before: list[str] = []
        bodies: list[list[str]] = []
        for k, call in enumerate(step.lowered.calls):
            if isinstance(call, Loop):
                bodies.append(self.loop(f"{name}_{k}", step, call, before))
            else:
                bodies.append(self.invoke(f"{name}_{k}", step, call, before))
        split = len(bodies) == 1
        lines = [f"SP_LINK void {name}(const sp_frame *f, int task) {{"]
        if split and step.lowered.tasks == 1:
            lines.append("  (void)task;")
        for k, body in enumerate(bodies):
            if split:
                lines += [f"  {line}" for line in body]
            else:
                lines += [f"  if (task == {k}) {{", *(f"    {line}" for line in body), "  }"]
        if not bodies:
            lines = [f"SP_LINK void {name}(const sp_frame *f, int task) {{", "  (void)f;", "  (void)task;"]
        lines.append("}")
        return "\n".join([*before, *lines])

    def invoke(self, name: str, step: Step, call: Invoke, before: list[str]) -> list[str]:
        lines: list[str] = []
        args: list[str] = []
        for a in call.arguments:
            args.append(self.argument(name, step, a, lines, before))
        fields = ", ".join(f".{k} = {_param(v)}" for k, v in call.params.items())
        head = f"({call.struct}){{{fields}}}"
        task = "0" if len(step.lowered.calls) > 1 else "i" if call.repeat > 1 else "task"
        text = f"{call.function}({', '.join([head, *args, task])});"
        repeat = f"for (int i = 0; i < {call.repeat}; ++i) " if call.repeat > 1 else ""
        lines.append(repeat + text)
        return lines

    def argument(
        self, name: str, step: Step, a: Argument, lines: list[str], before: list[str]
    ) -> str:
        if isinstance(a, Scratch):
            assert step.scratch is not None
            index = "task" if len(step.lowered.calls) == 1 else name.rsplit("_", 1)[1]
            return f"({a.ctype} *)(f->ws + {step.scratch.offset} + (ptrdiff_t){index} * {a.per_task})"
        if isinstance(a, Packed):
            ctype = {"f": "float", "i": "int", "u": "uint"}
            d = step.lowered.packed[a.index].dtype
            text = "float" if d.str == "<f4" else "double" if d.str == "<f8" else f"{ctype[d.kind]}{d.itemsize * 8}_t"
            return self.operand(step, a, text)
        if isinstance(a, Epilogue):
            return self.epilogue(name, step, a, lines, before)
        return self.operand(step, a, self.element(step, a))

    def epilogue(
        self, name: str, step: Step, e: Epilogue, lines: list[str], before: list[str]
    ) -> str:
        if e.expr is None:
            return "sp_ep_none, NULL"
        loads = {0: "acc"}
        body: list[str] = []
        for k, x in enumerate(e.extras):
            at = " + ".join(
                t for t in (_times("row", x.row_stride), _times("col", x.col_stride)) if t
            )
            p = f"(const {storage(x.type.dtype)} *)e[{k}]"
            load = _load(x.type, p, at or "0", vectored=x.col_stride == 1)
            body.append(f"const sp_f32 x{k} = {load};")
            loads[k + 1] = f"x{k}"
        statements, result = vector(e.expr, loads)
        body += statements
        head = "sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n"
        before.append(
            f"SP_INLINE sp_f32 {name}_ep({head}) {{\n"
            + "  (void)e, (void)row, (void)col, (void)n;\n"
            + "".join(f"  {line}\n" for line in body)
            + f"  return {result};\n}}"
        )
        if not e.extras:
            return f"{name}_ep, NULL"
        table = ", ".join(
            self.operand(step, x.source, storage(x.type.dtype)) for x in e.extras
        )
        lines.append(f"const void *const e_{name}[] = {{{table}}};")
        return f"{name}_ep, e_{name}"

    def loop(self, name: str, step: Step, c: Loop, before: list[str]) -> list[str]:
        """Statements of a loop nest; split along the outermost axis when the step has several tasks."""
        tasks = step.lowered.tasks if len(step.lowered.calls) == 1 else 1
        dims = c.dims or (1,)
        pad = 1 if not c.dims else 0
        xs = [(*s.strides, *(0,) * pad) for s in c.x]
        ys = (*c.y.strides, *(0,) * pad)
        y_type = c.y.type
        lines = [
            f"const {storage(s.type.dtype)} *x{i} = {self.operand(step, s.operand, storage(s.type.dtype))};"
            for i, s in enumerate(c.x)
        ]
        assert isinstance(c.y.operand, Out)
        y_c = storage(y_type.dtype)
        lines.append(f"{y_c} *y = {self.operand(step, c.y.operand, y_c)};")
        last = len(dims) - 1
        inner = [x[last] for x in xs]
        dense = ys[last] == 1 and all(s in (0, 1) for s in inner)
        use_vectors = vectorizable(c.expr) and dense and dims[last] >= 2
        for axis in range(last):
            lo, hi = ("0", str(dims[axis]))
            if axis == 0 and tasks > 1:
                lines.append(_range(dims[0], tasks, 1))
                lo, hi = "lo", "hi"
            lines.append(f"{'  ' * axis}for (ptrdiff_t i{axis} = {lo}; i{axis} < {hi}; ++i{axis}) {{")
        indent = "  " * last
        for i, s in enumerate(c.x):
            lines.append(f"{indent}const {storage(s.type.dtype)} *p{i} = x{i}{_walk(xs[i][:last])};")
        lines.append(f"{indent}{y_c} *q = y{_walk(ys[:last])};")
        lo, hi = "0", str(dims[last])
        if last == 0 and tasks > 1:
            lines.append(_range(dims[0], tasks, 64))
            lo, hi = "lo", "hi"
        if use_vectors:
            self.vector_lane(name, c, inner, before)
            args = "".join(f", p{i}" for i in range(len(c.x)))
            lines += [
                f"{indent}ptrdiff_t j = {lo};",
                f"{indent}for (; j + SP_LANES <= {hi}; j += SP_LANES) {name}_lane(q{args}, j, SP_LANES);",
                f"{indent}if (j < {hi}) {name}_lane(q{args}, j, (int)({hi} - j));",
            ]
        else:
            loads = {}
            body = []
            for i, s in enumerate(c.x):
                at = _times("j", inner[i]) or "0"
                loads[i] = _scalar_load(s.type, f"p{i}", at)
            statements, result = scalar(c.expr, loads)
            body += statements
            body.append(_scalar_store(y_type, "q", _times("j", ys[last]) or "0", result, c))
            lines.append(f"{indent}for (ptrdiff_t j = {lo}; j < {hi}; ++j) {{")
            lines += [f"{indent}  {line}" for line in body]
            lines.append(f"{indent}}}")
        for axis in range(last - 1, -1, -1):
            lines.append(f"{'  ' * axis}}}")
        return lines

    def vector_lane(self, name: str, c: Loop, inner: Sequence[int], before: list[str]) -> None:
        params = [f"{storage(c.y.type.dtype)} *q"]
        loads, body = {}, []
        for i, s in enumerate(c.x):
            params.append(f"const {storage(s.type.dtype)} *p{i}")
            vectored = inner[i] == 1
            body.append(f"const sp_f32 x{i} = {_load(s.type, f'p{i}', 'j' if vectored else '0', vectored)};")
            loads[i] = f"x{i}"
        statements, result = vector(c.expr, loads)
        store = {F16: "sp_storen_f16", BF16: "sp_storen_bf16"}.get(c.y.type.dtype, "sp_storen_f32")
        before.append(
            f"SP_INLINE void {name}_lane({', '.join(params)}, ptrdiff_t j, int n) {{\n"
            + "".join(f"  {line}\n" for line in [*body, *statements])
            + f"  {store}(q + j, {result}, n);\n}}"
        )


def _times(name: str, stride: int) -> str:
    return "" if stride == 0 else name if stride == 1 else f"{name} * {stride}"


def _walk(strides: Sequence[int]) -> str:
    terms = [_times(f"i{k}", s) for k, s in enumerate(strides)]
    return "".join(f" + {t}" for t in terms if t)


def _range(extent: int, tasks: int, grain: int) -> str:
    each = -(-extent // (tasks * grain)) * grain
    return f"const ptrdiff_t lo = sp_imin({extent}, task * {each}), hi = sp_imin({extent}, lo + {each});"


def _load(t: TensorType, p: str, at: str, vectored: bool) -> str:
    kind = {F32: "f32", F16: "f16", BF16: "bf16"}[t.dtype]
    if vectored:
        return f"sp_loadn_{kind}({p} + {at}, n)"
    if kind == "f32":
        return f"sp_set1_f32(({p})[{at}])"
    return f"sp_set1_f32(sp_get_{kind}({p} + {at}))"


def _scalar_load(t: TensorType, p: str, at: str) -> str:
    if t.dtype in (F16, BF16):
        return f"sp_get_{'f16' if t.dtype == F16 else 'bf16'}({p} + {at})"
    return f"{p}[{at}]"


def _scalar_store(t: TensorType, q: str, at: str, value: str, c: Loop) -> str:
    if t.dtype in (F16, BF16):
        return f"sp_put_{'f16' if t.dtype == F16 else 'bf16'}({q} + {at}, {value});"
    del c
    return f"{q}[{at}] = {value};"


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


def _entry_tables(e: Entry, label: str) -> list[str]:
    g = e.graph
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
            f"#ifdef SPARROW_HOOKS\nstatic const char *const {label}_steps[] = {{\n  {names_text}}};\n#endif"
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

SP_INLINE void sp_run_task(void *arg, int task) {
  const sp_job *job = (const sp_job *)arg;
  job->fn(job->frame, task);
}

SP_INLINE void sp_split(const sp_frame *f, void (*fn)(const sp_frame *, int), int tasks) {
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


def _parts(plan: Plan) -> list[list[tuple[int, int]]]:
    """(entry, step) indices per part; part 0, the driver, is not among them."""
    steps = [(e, s) for e, entry in enumerate(plan.entries) for s in range(len(entry.steps))]
    return [steps[i : i + STEPS_PER_PART] for i in range(0, len(steps), STEPS_PER_PART)]


def emit(plan: Plan, *, prefix: str = "model", embed: bool = False) -> Artifact:
    """C sources of a plan.

    Args:
        plan: What to write.
        prefix: Prefix of the exported functions and of internal symbols with linkage.
        embed: Whether the weights are linked in (as a symbol the caller assembles) instead of mapped.

    Returns:
        ``model.c``, ``model.h``, ``sparrow.h`` and ``weights.bin``.
    """
    em = _Emitter(plan, prefix)
    parts = _parts(plan)
    headers = {
        c.header for e in plan.entries for s in e.steps for c in s.lowered.calls if isinstance(c, Invoke)
    }
    isa = plan.target.isa.name
    text = [
        f"/* Emitted by Sparrow for {c_string(plan.target.name)[1:-1]}; instruction set: {isa}. */",
        '#include "sparrow.h"',
        amalgamate(
            ["base.h", f"isa/{isa}.h", "kernels/epilogue.h", "kernels/lane.h", *sorted(f"kernels/{h}" for h in headers)]
        ),
        _PRELUDE,
    ]

    def fn(e: int, s: int) -> str:
        return f"{prefix}_e{e}_s{s}"

    text += [f"SP_LINK void {fn(e, s)}(const sp_frame *f, int task);" for p in parts for e, s in p]
    for k, part in enumerate(parts, start=1):
        text.append(f"\n#if SP_IN({k})")
        text += [em.step(fn(e, s), plan.entries[e].steps[s]) for e, s in part]
        text.append("#endif")
    text += ["\n#if SP_IN(0)", _DRIVER]
    for e, entry in enumerate(plan.entries):
        text.append(_runner(em, e, entry, fn))
    text += _exports(plan, prefix, embed)
    text.append("#endif\n")
    source = "\n".join(text)
    files = {
        "model.c": source.encode(),
        "model.h": _header(plan, prefix).encode(),
        "sparrow.h": (resources.files("sparrow") / "native" / "sparrow.h").read_bytes(),
        "weights.bin": plan.weights,
    }
    return Artifact(files, len(parts) + 1)


def _runner(em: _Emitter, e: int, entry: Entry, fn: object) -> str:
    assert callable(fn)
    lines = [f"static void sp_entry_{e}(const sp_frame *f) {{", "  (void)f;"]
    for i, s in enumerate(entry.steps):
        lines.append(f"  SP_PROFILE({i}, 1);")
        tasks = s.lowered.tasks
        name = fn(e, i)
        lines.append(f"  {name}(f, 0);" if tasks == 1 else f"  sp_split(f, {name}, {tasks});")
        lines.append(f"  SP_PROFILE({i}, 0);")
        for k, v in enumerate(s.outputs):
            low, high = v.span
            at = v.place.offset + low
            data = f"{em.base(v.place)} + {at}" if at else em.base(v.place)
            lines.append(f"  SP_TAP({i}, {k}, {data}, {high - low});")
    for view, place in entry.commits:
        source = f"{em.base(view.place)} + {view.place.offset + view.offset}"
        lines.append(f"  sp_copy_bytes(f->st + {place.offset}, {source}, {view.type.bytes});")
    lines.append("}")
    return "\n".join(lines)


def _exports(plan: Plan, prefix: str, embed: bool) -> list[str]:
    out: list[str] = []
    rows: list[str] = []
    for e, entry in enumerate(plan.entries):
        label = f"sp_t{e}"
        out += _entry_tables(entry, label)
        g = entry.graph
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
    out.append("#ifdef SPARROW_HOOKS\n#define SP_STEPS(...) __VA_ARGS__\n#else\n#define SP_STEPS(...)\n#endif")
    out.append("static const sparrow_entry_info sp_entries[] = {\n" + ",\n".join(rows) + "};")
    if state_rows:
        out.append("static const sparrow_tensor_info sp_states[] = {\n" + ",\n".join(state_rows) + "};")
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
    cases = "\n".join(
        f"    case {e}: sp_entry_{e}(&frame); break;" for e in range(len(plan.entries))
    )
    return f"""\
SPARROW_API int {prefix}_run(const sparrow_call *call) {{
  sp_frame frame;
  if (call == NULL) return SPARROW_NULL;
  if (call->entry >= {len(plan.entries)}u) return SPARROW_BAD_ENTRY;
  for (int i = 0; i < sp_entries[call->entry].n_inputs; ++i)
    if (call->inputs == NULL || (call->inputs[i] == NULL && sp_entries[call->entry].inputs[i].bytes != 0)) return SPARROW_NULL;
  for (int i = 0; i < sp_entries[call->entry].n_outputs; ++i)
    if (call->outputs == NULL || (call->outputs[i] == NULL && sp_entries[call->entry].outputs[i].bytes != 0)) return SPARROW_NULL;
{chr(10).join(checks)}
  frame.call = call;
  frame.w = (const unsigned char *)call->weights;
  frame.ws = (unsigned char *)call->workspace;
  frame.st = (unsigned char *)call->state;
  switch (call->entry) {{
{cases}
    default: return SPARROW_BAD_ENTRY;
  }}
  return SPARROW_OK;
}}
"""


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
                lines.append(f"  sp_copy_bytes(to + {s.offset}, from + {s.initial}, {s.type.bytes});")
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


__all__ = ["Artifact", "amalgamate", "c_string", "compute", "emit"]
