"""``serve_uart.c`` and its header: a firmware that Sparrow proves and times over a serial line."""

from __future__ import annotations

import math

from sparrow.device.build import NATIVE
from sparrow.evidence.plan_record import PlanRecord, TensorRecord
from sparrow.tensor import BY_NAME

_ALIGN = 64
# The frames and the state of the line, with 8-byte pointers.
_LINE_BYTES = 3 * 256 + 128


def serving(plan: PlanRecord) -> dict[str, str]:
    """The two files, which need nothing else of the runtime.

    Args:
        plan: Record of the plan.
    """
    runtime = NATIVE / "runtime"
    texts = {n: (runtime / n).read_text("utf-8") for n in ("serve_uart.c", "serve_uart.h")}
    inner = (runtime / "serve.h").read_text(encoding="utf-8")
    source = texts["serve_uart.c"].replace('#include "serve.h"', inner)
    head, end, _ = texts["serve_uart.h"].rpartition("#endif")
    size = (
        "/* What sparrow_serve_uart takes for this model, with frames of 256 bytes. */\n"
        f"#define MODEL_SERVE_BYTES {serve_bytes(plan)}\n\n"
    )
    own = '#include "../sparrow.h"'
    return {
        "serve_uart.c": source.replace(own, '#include "sparrow.h"'),
        "serve_uart.h": head.replace(own, '#include "sparrow.h"') + size + end + "\n",
    }


def serve_bytes(plan: PlanRecord) -> int:
    """Memory that the server takes for a model, at most."""
    tables = 2 * _ALIGN * len(plan.entries)
    blocks = [_ALIGN, _LINE_BYTES, plan.arena_bytes, plan.state_bytes]
    blocks += [16 * max(len(e.steps) for e in plan.entries), tables]
    for e in plan.entries:
        blocks += [_stored(t) for t in (*e.inputs, *e.outputs)]
        blocks += [8 * len(e.inputs), 8 * len(e.outputs)]
    return sum(-(-b // _ALIGN) * _ALIGN for b in blocks)


def _stored(t: TensorRecord) -> int:
    # elements of less than a byte take one where they cross the interface
    return math.prod(t.shape) * -(-BY_NAME[t.dtype].bits // 8)
