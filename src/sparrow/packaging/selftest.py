"""``selftest.c``: the first golden call of a bundle, run and compared on the device itself."""

from __future__ import annotations

import numpy as np

from sparrow.device.session import to_native
from sparrow.evidence.golden import GoldenCall
from sparrow.graph import Graph
from sparrow.tensor import Array, DType

# Share of an output's largest magnitude that floats may be away; integers are equal.
_FLOAT_SHARE = 1e-4

_HEAD = """\
/* Runs a recorded call of the model and compares its outputs with the reference: integers are
 * equal, floats within {share} of the largest magnitude. Memory is static; a program that needs it
 * for other things leaves this file out.
 *
 *     int model_selftest(void);   0: all agree; k > 0: output k - 1 differs; k < 0: status -k */
#include "model.h"

int model_selftest(void);

#if defined(__GNUC__)
#define ALIGNED __attribute__((aligned(MODEL_ALIGN)))
#else
#define ALIGNED _Alignas(MODEL_ALIGN)
#endif
"""


def _table(name: str, ctype: str, values: list[str]) -> str:
    rows = [",".join(values[i : i + 20]) for i in range(0, len(values), 20)]
    return f"static ALIGNED const {ctype} {name}[] = {{\n" + ",\n".join(rows) + "};"


def _bytes(name: str, x: Array) -> str:
    data = np.ascontiguousarray(x).tobytes() or b"\0"
    return _table(name, "unsigned char", [str(b) for b in data])


def _buffer(name: str, size: str) -> str:
    return f"static ALIGNED unsigned char {name}[{size} > 0 ? {size} : 1];"


def selftest(g: Graph, call: GoldenCall) -> str:
    """C source that checks entry point 0 of a model.

    Args:
        g: Its graph.
        call: Inputs, and outputs of the reference.
    """
    ins = [to_native(call.feeds[n], g.types[n].dtype) for n in g.inputs]
    outs = [(to_native(call.outputs[n], g.types[n].dtype), g.types[n].dtype) for n in g.outputs]
    lines = [_HEAD.format(share=_FLOAT_SHARE)]
    lines += [_bytes(f"input{i}", x) for i, x in enumerate(ins)]
    for i, (y, _) in enumerate(outs):
        lines += [
            _bytes(f"expected{i}", y),
            f"static ALIGNED unsigned char output{i}[{y.nbytes or 1}];",
        ]
    lines += [
        _buffer("workspace", "MODEL_WORKSPACE_BYTES"),
        _buffer("state", "MODEL_STATE_BYTES"),
        "",
        "int model_selftest(void) {",
        f"  static const void *const inputs[] = {{{_names('input', len(ins))}}};",
        f"  static void *const outputs[] = {{{_names('output', len(outs))}}};",
        "  sparrow_call call = {0};",
        "  int status;",
        "  call.inputs = inputs;",
        "  call.outputs = outputs;",
        "  call.weights = model_info()->weights;",
        "  call.workspace = workspace;",
        "  call.state = state;",
        "  status = model_reset(state, call.weights);",
        "  if (status == SPARROW_OK) status = model_run(&call);",
        "  if (status != SPARROW_OK) return -status;",
    ]
    for i, (y, dtype) in enumerate(outs):
        lines += _comparison(i, y, dtype)
    return "\n".join([*lines, "  return 0;", "}", ""])


def _names(name: str, count: int) -> str:
    return ", ".join(f"{name}{i}" for i in range(count)) or "0"


def _comparison(i: int, y: Array, dtype: DType) -> list[str]:
    if dtype.name != "float32":
        return [
            f"  for (size_t i = 0; i < {y.nbytes}; ++i)",
            f"    if (output{i}[i] != expected{i}[i]) return {i + 1};",
        ]
    finite = np.abs(y[np.isfinite(y)])
    bound = float(np.float32(_FLOAT_SHARE * float(finite.max(initial=0.0)))).hex()
    return [
        f"  for (size_t i = 0; i < {y.size}; ++i) {{",
        f"    const float a = ((const float *)(const void *)output{i})[i];",
        f"    const float b = ((const float *)(const void *)expected{i})[i];",
        f"    if (!(a - b <= {bound}f && b - a <= {bound}f) && !(a != a && b != b) && a != b)",
        f"      return {i + 1};",
        "  }",
    ]
