"""Writes docs/conformance.md: the test suites of the onnx package, compiled, beside ONNX Runtime.

PYTHONPATH=tests python tools/conformance_page.py > docs/conformance.md
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
from onnx.defs import onnx_opset_version

from conformance.old_versions import ORT_ERRORS, load_old_cases
from conformance.onnx_cases import (
    Case,
    compare,
    load_cases,
    load_suite,
    onnxruntime_boundary,
    value_dtype,
)
from conformance.onnx_native import Outcome, run_cases
from sparrow.targets import target
from sparrow.tensor import BF16, BOOL, F16, F32, I8, I32, I64, U8

PER_LIBRARY = 60
# Operators that train or belong to classical machine learning, outside the standard domain.
FOREIGN_DOMAINS = ("ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.training")
COMMON = {F32, F16, I8, U8, I32, I64, BOOL}

INTRODUCTION = """\
# Conformance

Written by `tools/conformance_page.py`; do not edit. The test suites that come with the onnx
package: each test is imported, optimised, planned, emitted as C for plain x86-64, compiled
({per} tests per library) and run. Only inputs that determine the shape of something are bound
when a test is compiled (`SHAPE_OPERANDS` in `tests/conformance/onnx_cases.py`); all others are
inputs of the compiled code. A test passes when every output has the expected type, shape and
values within the package's own tolerances. *Refused* is an error with a reason before any code is
made; *wrong* is any other outcome. ONNX Runtime runs the same models with the same data and is
judged alike; what it does not take counts as refused. onnx {onnx} (opset {opset}), ONNX Runtime
{ort}.
"""
NOTES = """
*Common types*: float32, float16, int8, uint8, int32, int64, bool. *All types*: also bfloat16,
float64, int4, uint4, int16, uint16, uint32, uint64. Not counted: tests with values of other types
(float8, strings, sequences, optionals, ..), training and classical machine learning.

*Older versions*: the node tests rewritten for {versions} older versions of operators, opsets 7 to
13 (`tests/conformance/old_versions.py`); ONNX Runtime's answers are the expected ones there,
except where it contradicts the onnx package in the newest version as well.

## Beyond the suites

Random graphs over the whole op table and every type, compiled for each instruction set of the
machine and judged layer by layer against the reference, at one and two threads, before and after
the passes: `tests/property/test_random_native.py` (a share) and `tools/random_graphs.py --minutes
60` (a campaign; what fails is shrunk and written to a folder that `--replay` reads).

Random networks as exporters write them (convolutions, branches, attention, recurrent layers,
heads), each quantized in a way drawn from ranges, roundings, schemes, precisions and pins: the QDQ
file gives in ONNX Runtime what the integers say, and native code of both graphs is right layer by
layer: `tests/property/test_random_quantized.py` (a share) and `tools/random_quantized.py --minutes
60`.

Every row of the kernel table that computes with codes, or moves them, over 500 random
configurations, bit for bit: sums with requantizing and residual epilogues under every rounding
scheme, attention, LSTM and GRU, sums, products and new scales of codes, 16x8, pools and means,
resizing, tables, softmax, gathers and reductions; int8, uint8 and 16 bits, codes, weights and zero
points at their ends and sums at the edge of int32. A row without a generator fails the tests; the
two of engines that multiply by twos have some hundred configurations, in Node.js, instead. Rows
with code of their own for instruction sets run on each of them, the others on one, by turns:
`tests/conformance/test_random_i8.py`. Nightly ten thousand of each row on each instruction set of
the machine: `PYTHONPATH=tests python tools/random_int8.py`, some 20 to 50 minutes of one core for
each. By 2026-11-29 all rows of scalar (54), AVX2 (54), AVX-VNNI (52), AVX-512 (52), AVX-512 VNNI
(52) and BF16 (52) had been through theirs, none wrong; those of matrix registers not all.

Address and undefined-behaviour sanitizers, with bounds, overflow and conversions, over memory that
ends where it should: `pytest -m slow tests/conformance/test_sanitized.py`. The node tests that
compile, 1,639 of them, ran without a complaint on each of scalar, AVX2 and AVX-512; all 39
real models, three of them quantized, were proved layer by layer under them on AVX-512 VNNI.

32 bits: `pytest -k test_group_on_32_bits tests/conformance/test_node_native.py` runs all node tests
as Armv7 in an emulator, and `sparrow build --target armv7` proves a real model there. Each step
writes only what is its own: `tests/conformance/test_workspace.py`. The proved stack is the measured
one: `tests/conformance/test_stack.py`. The long shares carry the mark `slow`.

## Failures
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A suite with what became of it here and in ONNX Runtime."""

    title: str
    ours: Sequence[Outcome]
    theirs: Sequence[str]

    def line(self) -> str:
        """The row of the table."""
        total = len(self.ours)
        kinds = [o.kind for o in self.ours]
        passed, other = kinds.count("passed"), self.theirs.count("passed")
        return (
            f"| {self.title} | {total} | **{passed}** ({passed / total:.1%}) | "
            f"{kinds.count('refused')} | {kinds.count('wrong')} | {other} ({other / total:.1%}) | "
            f"{self.theirs.count('refused')} | {self.theirs.count('wrong')} |"
        )


def compiled(cases: Sequence[Case]) -> list[Outcome]:
    """Outcomes in the order of the cases."""
    found: dict[int, Outcome] = {}
    for i in range(0, len(cases), PER_LIBRARY):
        with tempfile.TemporaryDirectory() as folder:
            for o in run_cases(cases[i : i + PER_LIBRARY], target("x86_64"), Path(folder)):
                found[id(o.case)] = o
    return [found[id(c)] for c in cases]


def runtime(case: Case) -> str:
    """What ONNX Runtime makes of a case as it is, with default options: one of `Outcome.kind`."""
    model = case.model
    dtypes = [value_dtype(v) for v in (*model.graph.input, *model.graph.output)]
    if any(d is not None and (d == BF16 or d.bits < 8) for d in dtypes):
        model = onnxruntime_boundary(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        found = session.run(None, case.inputs)
    except (*ORT_ERRORS, ValueError):
        return "refused"
    try:
        for v, y, want in zip(model.graph.output, found, case.outputs, strict=True):
            compare(y, want, case, v.name)
    except AssertionError:
        return "wrong"
    return "passed"


def numeric(case: Case) -> bool:
    """Whether all values are tensors of ours and nothing trains."""
    domains = {n.domain for n in case.model.graph.node}
    return not case.foreign and not domains & set(FOREIGN_DOMAINS)


def common(case: Case) -> bool:
    """Whether inputs and outputs have the seven most common types only."""
    ends = (*case.model.graph.input, *case.model.graph.output)
    return {value_dtype(v) for v in ends} <= COMMON


def by_reason(outcomes: Iterable[Outcome]) -> Mapping[str, list[str]]:
    """Names of failed tests by reason."""
    found: dict[str, list[str]] = {}
    for o in outcomes:
        if o.kind != "passed":
            # what an error says behind the name of the node
            reason = o.reason.split("): ", 1)[-1].split(": ", 1)[-1] if o.kind == "refused" else ""
            found.setdefault(f"{o.kind}: {reason or o.reason}", []).append(o.case.name)
    return dict(sorted(found.items(), key=lambda kv: -len(kv[1])))


def page() -> str:
    """The page as Markdown."""
    warnings.simplefilter("ignore")
    nodes = sorted((c for c in load_cases() if numeric(c)), key=lambda c: c.name)
    ours = dict(zip((c.name for c in nodes), compiled(nodes), strict=True))
    theirs = {c.name: runtime(c) for c in nodes}

    def row(title: str, names: Sequence[str]) -> Row:
        return Row(title, [ours[n] for n in names], [theirs[n] for n in names])

    rows = []
    for title, chosen in (
        ("common types", [c for c in nodes if common(c)]),
        ("all types", nodes),
    ):
        plain = [c.name for c in chosen if "_expanded" not in c.name]
        expanded = [c.name for c in chosen if "_expanded" in c.name]
        rows += [row(f"node, {title}", plain), row(f"node `_expanded`, {title}", expanded)]
    for kind in ("pytorch-converted", "pytorch-operator", "simple"):
        suite = [c for c in load_suite(kind) if numeric(c)]
        rows.append(Row(kind, compiled(suite), [runtime(c) for c in suite]))
    old = load_old_cases()
    versions = {(c.model.graph.node[0].op_type, c.model.opset_import[0].version) for c in old}
    rows.append(Row("older versions", compiled(old), [runtime(c) for c in old]))
    lines = [
        INTRODUCTION.format(
            per=PER_LIBRARY,
            onnx=onnx.__version__,
            opset=onnx_opset_version(),
            ort=onnxruntime.__version__,
        ),
        "| suite | tests | passed | refused | wrong | ONNX Runtime: passed | refused | wrong |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(r.line() for r in rows),
        NOTES.format(versions=len(versions)),
    ]
    for r in (rows[2], rows[3], *rows[4:]):
        failures = by_reason(r.ours)
        if failures:
            lines += [f"**{r.title}**", ""]
            lines += [f"- {reason}: {', '.join(names)}" for reason, names in failures.items()]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
