"""Steps as C functions.

The work of a call is a *body*: a static function of pointers, with all sizes written into it. Calls
that differ in nothing but pointers share one body. A step is a small function that hands its
pointers to the bodies of its calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sparrow import lane
from sparrow.emit.dtype_c import float_literal, literal, storage
from sparrow.emit.loop_c import element_type, loop_function
from sparrow.emit.vector_c import stored_vector, vector_load, vector_repeat
from sparrow.kernels.case import (
    Argument,
    Epilogue,
    Extra,
    In,
    Invoke,
    Literal,
    Loop,
    Out,
    Packed,
    Param,
    Scratch,
)
from sparrow.memory.views import Place
from sparrow.plan import Guard, Step, View
from sparrow.tensor import F32, I8, I32
from sparrow.vectors import WIDE, vector_type

EPILOGUE_HEAD = "acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n"


@dataclass(slots=True, eq=False)
class Body:
    """A static function.

    Attributes:
        name: Its name.
        text: Its definition and that of the functions it needs, ``@`` standing for the name.
        header: Native header it needs, ``""`` for none.
        small: Whether size matters more than speed.
        users: Names of the step functions that call it.
    """

    name: str
    text: str
    header: str
    small: bool
    users: list[str] = field(default_factory=list)

    def definition(self) -> str:
        """C text; a body with several callers stays one function."""
        kind = (
            "SP_SMALL" if self.small else "SP_OUTLINE" if len(self.users) > 1 else "static SP_KEPT"
        )
        return self.text.replace("@@", kind).replace("@", self.name)


@dataclass(frozen=True, slots=True, eq=False)
class StepFunction:
    """A step as C: its name, definition, and the bodies it calls."""

    name: str
    text: str
    bodies: tuple[Body, ...]


def base(place: Place) -> str:
    """Pointer to the start of the memory a place lies in."""
    return {
        "arena": "f->ws",
        "weights": "f->w",
        "state": "f->st",
        "input": f"(const unsigned char *)f->call->inputs[{place.index}]",
        "output": f"(unsigned char *)f->call->outputs[{place.index}]",
    }[place.kind]


def address(place: Place, offset: int) -> str:
    """Pointer to a byte ``offset`` from a place."""
    at = place.offset + offset
    start = base(place)
    if not at:
        return start
    return f"{start} + {at}" if "call" not in start else f"({start}) + {at}"


def param(v: Param) -> str:
    """A field of a parameter struct."""
    if isinstance(v, tuple):
        return "{" + ", ".join(param(i) for i in v) + "}" if v else "{0}"
    return float_literal(v) if isinstance(v, float) else str(v)


class Bodies:
    """All bodies of an artifact, by their text."""

    def __init__(self, prefix: str, lanes: int) -> None:
        self.prefix, self.lanes = prefix, lanes
        self._by_text: dict[str, Body] = {}

    def __iter__(self) -> Iterator[Body]:
        return iter(self._by_text.values())

    def step(self, name: str, step: Step) -> StepFunction:
        """The function of a step, its bodies registered here."""
        calls = step.lowered.calls
        lines = [_guard(g) for g in step.guards]
        bodies: list[Body] = []
        for k, call in enumerate(calls):
            # several calls are a task each; the tasks of a single call are its own
            tasks = step.lowered.tasks if len(calls) == 1 else 1
            index = "task" if len(calls) == 1 else str(k)
            c = (
                _LoopCall(step, call, tasks, index, self.lanes)
                if isinstance(call, Loop)
                else _InvokeCall(step, call, tasks, index)
            )
            body = self._body(c.text, c.header, c.small)
            if name not in body.users:
                body.users.append(name)
            bodies.append(body)
            inner = [*c.setup, f"{body.name}({', '.join(c.arguments)});"]
            if len(calls) == 1:
                lines += [f"  {line}" for line in inner]
            else:
                lines += [f"  if (task == {k}) {{", *(f"    {line}" for line in inner), "  }"]
        used = "".join(lines)
        unused = [f"  (void){v};" for v in ("f", "task") if not _mentions(used, v)]
        text = "\n".join(
            [f"SP_LINK void {name}(const sp_frame *f, int task) {{", *unused, *lines, "}"]
        )
        return StepFunction(name, text, tuple(dict.fromkeys(bodies)))

    def _body(self, text: str, header: str, small: bool) -> Body:
        if text not in self._by_text:
            name = f"{self.prefix}_f{len(self._by_text)}"
            self._by_text[text] = Body(name, text, header, small)
        return self._by_text[text]


def _guard(g: Guard) -> str:
    """Leave a step out whose results nobody takes; taps see them all."""
    at = f"*(const unsigned char *)({address(g.view.place, g.view.offset)})"
    return f"  if (f->call->tap == NULL && {at} {'==' if g.holds else '!='} 0) return;"


def _mentions(text: str, word: str) -> bool:
    cleaned = "".join(c if c.isalnum() or c == "_" else " " for c in text)
    return word in cleaned.split()


class _Call:
    """A call: the text of its body, and how the step calls it.

    Attributes:
        text: Body.
        header: Native header the body needs.
        small: Whether the size of the body matters more than its speed.
        setup: Statements before the call.
        arguments: Arguments of the call.
    """

    header = ""
    small = False

    def __init__(self, step: Step) -> None:
        self.step = step
        self.text = ""
        self.setup: list[str] = []
        self.arguments: list[str] = []

    def view(self, o: In | Out) -> View:
        view = self.step.inputs[o.index] if isinstance(o, In) else self.step.outputs[o.index]
        assert view is not None, (self.step.node, o)
        return view

    def pointer(self, o: In | Out | Packed, ctype: str) -> str:
        """Typed pointer to an operand."""
        q = "" if isinstance(o, Out) else "const "
        if isinstance(o, Packed):
            return f"({q}{ctype} *)({address(Place('weights', 0, 0), self.step.packed[o.index])})"
        v = self.view(o)
        text = f"({q}{ctype} *)({address(v.place, v.offset)})"
        return f"{text} + {o.offset}" if o.offset else text

    def define(self, before: list[str], parameters: list[str], body: list[str]) -> None:
        head = f"@@ void @({', '.join(parameters)}) {{"
        self.text = "\n".join([*before, head, *(f"  {line}" for line in body), "}"])


class _LoopCall(_Call):
    def __init__(self, step: Step, c: Loop, tasks: int, index: str, lanes: int) -> None:
        super().__init__(step)
        before, parameters, body = loop_function(c, tasks, lanes)
        self.define(before, parameters, body)
        if "sp_transpose_" in self.text:
            self.header = "transpose.h"
        self.arguments = [self.pointer(s.operand, element_type(c, s, lanes)) for s in (*c.x, c.y)]
        if tasks > 1:
            self.arguments.append(index)


class _InvokeCall(_Call):
    def __init__(self, step: Step, c: Invoke, tasks: int, index: str) -> None:
        super().__init__(step)
        self.header = c.header
        self.small = c.shared
        self.index = index
        self.before: list[str] = []
        self.parameters: list[str] = []
        values = {
            k: self.parameter("int ", param(v)) if k in c.handed else param(v)
            for k, v in c.params.items()
        }
        fields = ", ".join(f".{k} = {v}" for k, v in values.items())
        first = f"({c.struct}){{{fields}}}"
        if c.shared:
            self.setup.append(f"static const {c.struct} k{index} = {{{fields}}};")
            first = self.parameter(f"const {c.struct} *", f"&k{index}")
        handed = [self.argument(a) for a in c.arguments]
        serial = tasks == 1 and (c.shared or c.repeat > 1)
        task = "i" if serial else "task" if tasks > 1 else "0"
        if task == "task":
            self.parameters.append("int task")
            self.arguments.append(index)
        text = f"{c.function}({', '.join([first, *handed, task])});"
        times = str(c.repeat)
        if c.shared and task == "i":
            self.parameters.append("int times")
            self.arguments.append(times)
            times = "times"
        repeat = f"for (int i = 0; i < {times}; ++i) " if task == "i" else ""
        self.define(self.before, self.parameters, [repeat + text])

    def argument(self, a: Argument) -> str:
        """What the kernel is handed; pointers become parameters of the body."""
        if isinstance(a, Epilogue):
            return self.epilogue(a)
        if isinstance(a, Literal):
            return str(a.value)
        if isinstance(a, Scratch):
            assert self.step.scratch is not None
            at = address(self.step.scratch, 0)
            each = f" + (ptrdiff_t){self.index} * {a.per_task}" if a.per_task else ""
            return self.parameter(f"{a.ctype} *", f"({a.ctype} *)({at}{each})")
        if isinstance(a, Packed):
            ctype = _array_type(self.step.lowered.packed[a.index].dtype.str)
            return self.parameter(f"const {ctype} *", self.pointer(a, ctype))
        ctype = storage(self.view(a).type.dtype)
        q = "const " if isinstance(a, In) else ""
        return self.parameter(f"{q}{ctype} *", self.pointer(a, ctype))

    def parameter(self, ctype: str, value: str) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters.append(f"{ctype}{name}")
        self.arguments.append(value)
        return name

    def epilogue(self, e: Epilogue) -> str:
        if e.expr is None:
            return "sp_ep_none, NULL" if e.sum == F32 else "sp_ep_none_i32, NULL"
        text, numbers = epilogue_function(e, shared=self.small)
        self.before.append(text)
        operands = [self.pointer(x.source, storage(x.type.dtype)) for x in e.extras]
        if numbers:
            values = ", ".join(literal(n, I32) for n in numbers)
            self.setup.append(f"static const int32_t n{self.index}[] = {{{values}}};")
            operands.append(f"n{self.index}")
        if not operands:
            return "@_ep, NULL"
        name = "e" if self.index == "task" else f"e{self.index}"
        self.setup.append(f"const void *const {name}[] = {{{', '.join(operands)}}};")
        self.parameters.append("const void *const *e")
        self.arguments.append(name)
        return "@_ep, e"


def epilogue_function(e: Epilogue, shared: bool) -> tuple[str, list[int]]:
    """C text, and where it is ``shared`` the numbers it reads behind the operands of the table."""
    loads: dict[int, str] = {0: "acc"}
    body: list[str] = []
    numbers: list[int] | None = [] if shared else None
    assert e.expr is not None
    used = {a.index for a in lane.walk(e.expr) if isinstance(a, lane.Arg)}
    for k, x in enumerate(e.extras):
        if k + 1 not in used:
            continue
        ctype = vector_type(x.type.dtype)
        body.append(f"const {ctype} x{k} = {_extra_load(k, x, numbers)};")
        loads[k + 1] = f"x{k}"
    largest = {k + 1: x.largest for k, x in enumerate(e.extras)}
    statements, result = stored_vector(e.expr, loads, numbers, largest, e.reach, e.shortens)
    if numbers:
        body.insert(0, f"const int32_t *k = (const int32_t *)e[{len(e.extras)}];")
    kind = vector_type(e.sum)
    if e.sum == I32 and e.expr.dtype in WIDE:
        result = f"sp_bits_f32({result})"
    text = "".join(f"  {line}\n" for line in [*body, *statements, f"return {result};"])
    unused = [f"(void){v}" for v in ("acc", "e", "row", "col", "n") if not _mentions(text, v)]
    skip = f"  {', '.join(unused)};\n" if unused else ""
    return f"SP_INLINE {kind} @_ep({kind} {EPILOGUE_HEAD}) {{\n{skip}{text}}}", numbers or []


def _extra_load(k: int, x: Extra, numbers: list[int] | None) -> str:
    p = f"(const {storage(x.type.dtype)} *)e[{k}]"
    at = []
    if x.row_stride and numbers is not None:
        numbers.append(x.row_stride)
        at.append(f"row * k[{len(numbers) - 1}]")
    elif x.row_stride:
        at.append("row" if x.row_stride == 1 else f"row * {x.row_stride}")
    if x.col_stride:
        at.append("col" if x.col_stride == 1 else f"col * {x.col_stride}")
    alone = numbers is None  # layers share code whatever their channels are
    if alone and x.col_stride == 1 and x.type.dtype == I8 and x.type.shape[-1] % 16 == 0:
        return f"sp_load_block_i8({' + '.join([p, *at[:-1]])}, col, n)"
    p = " + ".join([p, *at])
    if x.col_stride == 1:
        return vector_load(x.type.dtype, p, "n")
    return vector_repeat(x.type.dtype, p)


_ARRAY_TYPES: Mapping[str, str] = {"f4": "float", "f8": "double", "f2": "uint16_t"}


def _array_type(text: str) -> str:
    """C type of a NumPy dtype string such as ``<f4``."""
    kind = text[1:]
    if kind in _ARRAY_TYPES:
        return _ARRAY_TYPES[kind]
    return f"{'u' if kind[0] in 'ub' else ''}int{8 * int(kind[1:])}_t"
