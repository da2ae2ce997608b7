"""Loop nests as C, in the form that `kernels.loop.schedule` picks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sparrow import lane
from sparrow.emit.dtype_c import scalar_load, scalar_store, storage, suffix
from sparrow.emit.scalar_c import scalar
from sparrow.emit.vector_c import vector, vector_load, vector_repeat, vector_store
from sparrow.kernels.case import Loop, Stream
from sparrow.kernels.loop import Schedule, is_copy, schedule, split_axis, task_extent
from sparrow.tensor import I8, U8, U16, DType
from sparrow.vectors import vector_type

# Elements of a plane before they are interleaved, which compilers do with shuffles but for three
# planes of bytes.
RUN = 64
# Parameters of a function over a vector.
PLACE = ("ptrdiff_t j", "int n")
_WORD = re.compile(r"\w+")
_INDEX = re.compile(r"\*\((\w+) \+ ([^()]+)\)")


def loop_function(c: Loop, tasks: int, lanes: int) -> tuple[list[str], list[str], list[str]]:
    """A loop nest as the parts of a function.

    Returns:
        Functions it needs (with ``@`` for the name of the function), parameters, statements. The
        parameters are the operands in order, then the result, then ``int task`` if there are
        several.
    """
    return _Nest(c, tasks, lanes).parts()


def element_type(c: Loop, s: Stream, lanes: int) -> str:
    """C type of an operand's elements: copies move bits, whatever they mean."""
    if schedule(c, lanes).form == "transpose":
        return "float" if s.type.dtype.bytes == 4 else f"uint{8 * s.type.dtype.bytes}_t"
    return storage(s.type.dtype)


class _Nest:
    def __init__(self, c: Loop, tasks: int, lanes: int) -> None:
        pad = () if c.dims else (0,)
        self.c = c
        self.dims = c.dims or (1,)
        self.xs = [(*s.strides, *pad) for s in c.x]
        self.ys = (*c.y.strides, *pad)
        self.tasks, self.lanes = tasks, lanes
        self.plan: Schedule = schedule(c, lanes)
        self.split = split_axis(c) if c.dims else 0
        self.before: list[str] = []
        self.names = [f"x{i}" for i in range(len(c.x))]
        self.several = ""  # the function over SP_STORE_VECTORS vectors, where `lane` gives bytes

    def parts(self) -> tuple[list[str], list[str], list[str]]:
        types = [element_type(self.c, s, self.lanes) for s in (*self.c.x, self.c.y)]
        # in place are only results that lie as their operand does
        alone = is_copy(self.c) and self.xs[0] != self.ys
        pointer = "*SP_RESTRICT " if alone else "*"
        parameters = [f"const {t} {pointer}{n}" for t, n in zip(types, self.names, strict=False)]
        parameters.append(f"{types[-1]} {pointer}y")
        if self.tasks > 1:
            parameters.append("int task")
        return self.before, parameters, self.body(types)

    def body(self, types: Sequence[str]) -> list[str]:
        last = len(self.dims) - 1
        form = self.plan.form
        inner = [self.plan.axis]
        if form in ("transpose", "interleave"):
            inner.append(self.plan.other)
        elif form == "blocks":
            inner.append(last - 1)
        outer = [a for a in range(len(self.dims)) if a not in inner]
        make = {
            "scalar": self.scalar,
            "vector": self.vector,
            "blocks": self.blocks,
            "interleave": self.interleave,
            "transpose": self.transpose,
        }[form]
        inner_lines = make()
        lines = [self.range(self.split)] if self.tasks > 1 else []
        depth = 0
        for axis in outer:
            lo, hi = self.bounds(axis)
            lines.append(
                f"{'  ' * depth}for (ptrdiff_t i{axis} = {lo}; i{axis} < {hi}; ++i{axis}) {{"
            )
            depth += 1
        for i, t in enumerate(types[:-1]):
            pointer = f"const {t} *p{i} = x{i}{_walk(self.xs[i], outer)};"
            # x == x of integers reads nothing
            read = any(f"p{i}" in _WORD.findall(line) for line in inner_lines)
            lines.append(f"{'  ' * depth}{pointer if read else f'(void)x{i};'}")
        lines.append(f"{'  ' * depth}{types[-1]} *q = y{_walk(self.ys, outer)};")
        lines += [f"{'  ' * depth}{line}" for line in inner_lines]
        lines += [f"{'  ' * d}}}" for d in range(depth - 1, -1, -1)]
        return lines

    def range(self, axis: int) -> str:
        each, d = task_extent(self.c, self.tasks, self.lanes), self.dims[axis]
        low, high = f"sp_imin({d}, (ptrdiff_t)task * {each})", f"sp_imin({d}, lo + {each})"
        return f"const ptrdiff_t lo = {low}, hi = {high};"

    def bounds(self, axis: int) -> tuple[str, str]:
        if self.tasks > 1 and axis == self.split:
            return "lo", "hi"
        return "0", str(self.dims[axis])

    def scalar(self) -> list[str]:
        axis = self.plan.axis
        lo, hi = self.bounds(axis)
        loads = {
            i: scalar_load(_moved(self.c, s), _at(f"p{i}", _times("j", self.xs[i][axis])))
            for i, s in enumerate(self.c.x)
        }
        statements, result = scalar(self.c.expr, loads)
        store = scalar_store(_moved(self.c, self.c.y), _at("q", _times("j", self.ys[axis])), result)
        if self.dims[axis] == 1:
            return _cleaned([*statements, store])
        fixed, moving = _hoisted(statements)
        body = [f"  {line}" for line in _cleaned([*moving, store])]
        rolled = ["SP_ROLLED"] if self.halves_of_wide() else []
        return [
            *_cleaned(fixed),
            *rolled,
            f"for (ptrdiff_t j = {lo}; j < {hi}; ++j) {{",
            *body,
            "}",
        ]

    def halves_of_wide(self) -> bool:
        """Whether 64 bits become 16.

        Of 9 or 13 such values in a row, unrolled, clang 22 for AVX-512 stores the last as 8 bytes,
        6 of them behind the result.
        """
        wide = any(e.dtype.bits == 64 for e in lane.walk(self.c.expr))
        return wide and self.c.y.type.dtype.bits == 16

    def vector(self) -> list[str]:
        axis = self.plan.axis
        self.lane([x[axis] for x in self.xs], self.ys[axis])
        lo, hi = self.bounds(axis)
        args = "".join(f", p{i}" for i in range(len(self.c.x)))
        if lo == "0" and self.dims[axis] < self.lanes:
            return [f"@_lane(q{args}, 0, {hi});"]
        whole = self.whole(f"(q{args}, j", hi)
        lines = [f"ptrdiff_t j = {lo};", *whole]
        if lo != "0" or self.dims[axis] % self.lanes:
            lines.append(f"if (j < {hi}) @_lane(q{args}, j, (int)({hi} - j));")
        return lines

    def lane(self, steps: Sequence[int], y_step: int) -> None:
        """The function that computes up to SP_LANES elements from index ``j``; n says how many."""
        c = self.c
        parameters = [f"{storage(c.y.type.dtype)} *q"]
        loads: dict[int, str] = {}
        body: list[str] = []
        for i, (s, step) in enumerate(zip(c.x, steps, strict=True)):
            dtype = s.type.dtype
            ctype = storage(dtype)
            parameters.append(f"const {ctype} *p{i}")
            if step == 0:
                load = vector_repeat(dtype, f"p{i}")
            elif step == 1:
                load = vector_load(dtype, f"p{i} + j", "n")
            else:
                body.append(f"{ctype} g{i}[SP_LANES];")
                body.append(f"for (int k = 0; k < n; ++k) g{i}[k] = p{i}[(j + k) * {step}];")
                load = vector_load(dtype, f"g{i}", "n")
            body.append(f"const {vector_type(dtype)} v{i} = {load};")
            loads[i] = f"v{i}"
        statements, result = vector(c.expr, loads)
        body += statements
        dtype = c.y.type.dtype
        if y_step == 1 and self.lanes > 1 and dtype in (I8, U8):
            code = f"@_code({''.join(f'p{i}, ' for i in range(len(c.x)))}j"
            body.append(f"return {result};")
            if not any(steps):
                # a constant, or what is the same for all
                body[:0] = ["(void)j;", "(void)n;"]
            self.before.append(_inlined("sp_i32", "code", [*parameters[1:], *PLACE], body))
            body = [vector_store(dtype, "q + j", f"{code}, n)", "n")]
            stores = [
                "sp_i32 v[SP_STORE_VECTORS];",
                "SP_UNROLL",
                "for (int k = 0; k < SP_STORE_VECTORS; ++k)",
                f"  v[k] = {code} + k * SP_LANES, SP_LANES);",
                f"sp_stores_{suffix(dtype)}(q + j, v, SP_STORE_VECTORS);",
            ]
            self.several = _inlined("void", "lanes", [*parameters, PLACE[0]], stores)
        elif y_step == 1:
            body.append(vector_store(dtype, "q + j", result, "n"))
        else:
            body.append(f"{storage(dtype)} h[SP_LANES];")
            body.append(vector_store(dtype, "h", result, "n"))
            body.append(f"for (int k = 0; k < n; ++k) q[(j + k) * {y_step}] = h[k];")
        self.before.append(_inlined("void", "lane", [*parameters, *PLACE], body))

    def whole(self, call: str, hi: str) -> list[str]:
        """Loops over whole vectors from ``j`` on, of bytes over as many as are stored at once."""
        single = f"for (; j + SP_LANES <= {hi}; j += SP_LANES) @_lane{call}, SP_LANES);"
        if not self.several:
            return [single]
        self.before.append(self.several)
        step = "SP_STORE_VECTORS * SP_LANES"
        return [f"for (; j + {step} <= {hi}; j += {step}) @_lanes{call});", single]

    def blocks(self) -> list[str]:
        """SP_LANES rows of the last axis at a time, as one dense run."""
        last = len(self.dims) - 1
        n = self.dims[last]
        direct = [x[last] == 1 and x[last - 1] == n for x in self.xs]
        constant = [x[last] == 0 and x[last - 1] == 0 for x in self.xs]
        repeated = [x[last - 1] == 0 for x in self.xs]
        self.lane([0 if z else 1 for z in constant], 1)
        y_direct = self.ys[last] == 1 and self.ys[last - 1] == n
        lines: list[str] = []
        fills: list[str] = []
        args: list[str] = []
        for i, s in enumerate(self.c.x):
            if direct[i] or constant[i]:
                args.append(f"p{i} + i * {n}" if direct[i] else f"p{i}")
                continue
            args.append(f"g{i}")
            lines.append(f"{storage(s.type.dtype)} g{i}[{n} * SP_LANES];")
            rows = "SP_LANES" if repeated[i] else "rows"
            row = "r" if repeated[i] else "(i + r)"
            at = _sum([_times(row, self.xs[i][last - 1]), _times("c", self.xs[i][last])])
            fill = [
                f"for (int r = 0; r < {rows}; ++r)",
                f"  for (int c = 0; c < {n}; ++c) g{i}[r * {n} + c] = p{i}[{at}];",
            ]
            if repeated[i]:
                lines += fill
            else:
                fills += fill
        y_c = storage(self.c.y.type.dtype)
        if not y_direct:
            lines.append(f"{y_c} h[{n} * SP_LANES];")
        out = f"q + i * {n}" if y_direct else "h"
        call = f"@_lane({', '.join([out, *args])}, j, "
        lo, hi = self.bounds(last - 1)
        lines += [
            f"for (ptrdiff_t i = {lo}; i < {hi}; i += SP_LANES) {{",
            f"  const int rows = (int)sp_imin(SP_LANES, {hi} - i);",
            *(f"  {line}" for line in fills),
            "  if (rows == SP_LANES) {",
            "    SP_UNROLL",
            f"    for (int j = 0; j < {n} * SP_LANES; j += SP_LANES) {call}SP_LANES);",
            "  } else {",
            f"    for (int j = 0; j < rows * {n}; j += SP_LANES) "
            f"{call}(int)sp_imin(SP_LANES, rows * {n} - j));",
            "  }",
        ]
        if not y_direct:
            at = _sum([_times("(i + r)", self.ys[last - 1]), _times("c", self.ys[last])])
            lines += [
                "  for (int r = 0; r < rows; ++r)",
                f"    for (int c = 0; c < {n}; ++c) q[{at}] = h[r * {n} + c];",
            ]
        return [*lines, "}"]

    def interleave(self) -> list[str]:
        """Runs of each plane into a small array, whose elements are then stored in turn."""
        axis, other = self.plan.axis, self.plan.other
        n = self.dims[other]
        self.lane([x[axis] for x in self.xs], 1)
        lo, hi = self.bounds(axis)
        places = [
            _at(f"p{i}", _sum([_times("i", x[axis]), _times("c", x[other])]))
            for i, x in enumerate(self.xs)
        ]
        call = f"({', '.join(['h[c]', *places])}, j"
        whole = [f"    {line}" for line in self.whole(call, "rows")]
        turn = "".join(f" q[(i + k) * {n} + {c}] = h[{c}][k];" for c in range(n))
        together = f"for (int k = 0; k < {RUN}; ++k) {{{turn} }}"
        if n == 3 and self.c.y.type.dtype.bytes == 1:
            together = "sp_interleave_3(q + 3 * i, h[0], h[1], h[2]);"
        return [
            f"{storage(self.c.y.type.dtype)} h[{n}][{RUN}];",
            f"for (ptrdiff_t i = {lo}; i < {hi}; i += {RUN}) {{",
            f"  const int rows = (int)sp_imin({RUN}, {hi} - i);",
            f"  for (int c = 0; c < {n}; ++c) {{",
            "    int j = 0;",
            *whole,
            f"    if (j < rows) @_lane{call}, rows - j);",
            "  }",
            f"  if (rows == {RUN})",
            f"    {together}",
            "  else",
            f"    for (int k = 0; k < rows; ++k) {{{turn} }}",
            "}",
        ]

    def transpose(self) -> list[str]:
        a, b = self.plan.axis, self.plan.other
        x, y = self.xs[0], self.ys
        rows, cols = str(self.dims[a]), str(self.dims[b])
        p, q = "p0", "q"
        if self.tasks > 1 and self.split == a:
            rows, p, q = "hi - lo", "p0 + lo", f"q + lo * {y[a]}"
        elif self.tasks > 1 and self.split == b:
            cols, p, q = "hi - lo", f"p0 + lo * {x[b]}", "q + lo"
        bits = 8 * self.c.y.type.dtype.bytes
        return [f"sp_transpose_{bits}({q}, {y[a]}, {p}, {x[b]}, {rows}, {cols});"]


def _inlined(result: str, name: str, parameters: Sequence[str], body: Iterable[str]) -> str:
    lines = "".join(f"  {line}\n" for line in body)
    return f"SP_INLINE {result} @_{name}({', '.join(parameters)}) {{\n{lines}}}"


def _moved(c: Loop, s: Stream) -> DType:
    """The dtype elements are read as: a copy of half types moves their bits."""
    if is_copy(c) and s.type.dtype.bytes == 2 and s.type.dtype.kind == "float":
        return U16
    return s.type.dtype


def _times(name: str, stride: int) -> str:
    return "" if stride == 0 else name if stride == 1 else f"{name} * {stride}"


def _sum(terms: Iterable[str]) -> str:
    return " + ".join(t for t in terms if t) or "0"


def _at(p: str, offset: str) -> str:
    return f"{p} + {offset}" if offset else p


def _walk(strides: Sequence[int], axes: Sequence[int]) -> str:
    terms = [_times(f"i{a}", strides[a]) for a in axes]
    return "".join(f" + {t}" for t in terms if t)


def _hoisted(statements: Sequence[str]) -> tuple[list[str], list[str]]:
    """Statements that do not depend on ``j``, and the others.

    A compiler cannot tell that the result overwrites no operand, and clang 22 does not come to an
    end when it vectorizes a loop with a long chain of these in it.
    """
    fixed: list[str] = []
    moving: list[str] = []
    names = {"j"}
    for line in statements:
        left, _, right = line.partition(" = ")
        if names & set(_WORD.findall(right)):
            names.add(_WORD.findall(left)[-1])
            moving.append(line)
        else:
            fixed.append(line)
    return fixed, moving


def _cleaned(lines: Sequence[str]) -> list[str]:
    """``*(p + j)`` as ``p[j]``."""
    return [_INDEX.sub(r"\1[\2]", line).replace("*(q)", "*q") for line in lines]
