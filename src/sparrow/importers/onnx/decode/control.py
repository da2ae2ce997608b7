"""If, Loop and Scan, resolved or unrolled when the model is compiled; tests for absent inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from sparrow.errors import BadModel, UnsupportedOp
from sparrow.importers.onnx.call import Call, Decoder, elem_type
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.concat import Concat
from sparrow.tensor import BOOL, I64

MAX_STEPS = 4096
MAX_BOTH_BRANCHES = 1024


def body_of(n: Call, name: str) -> onnx.GraphProto:
    """The subgraph in an attribute."""
    g = n.attr(name)
    if not isinstance(g, onnx.GraphProto):
        raise n.bad(f"attribute {name!r} is no graph")
    return g


def _if(n: Call) -> Sequence[str]:
    """The branch a constant condition takes; else both, selected elementwise at run time.

    What only the side that is not taken needs does not run (`sparrow.branches`).
    """
    if n.type().size != 1 or n.type().dtype != BOOL:
        raise n.bad(f"the condition is {n.type()}, expected one bool")
    known = n.b.value(n.x())
    if known is not None:
        return n.run(body_of(n, "then_branch" if known.ravel()[0] else "else_branch"), ())
    before = len(n.b.nodes)

    def at_run_time(why: str) -> UnsupportedOp:
        hint = n.fixing(n.x()) or "fold the condition, or export the branch you need"
        return n.unsupported(f"the condition is computed at run time{why}", hint)

    try:
        then, other = n.run(body_of(n, "then_branch"), ()), n.run(body_of(n, "else_branch"), ())
    except (BadModel, UnsupportedOp) as e:
        if n.fixing(n.x()) in ("", e.hint):
            raise
        # a branch for another sample rate need not fit these shapes
        raise at_run_time(f", and in a branch {e.message}") from None
    steps = len(n.b.nodes) - before
    if steps > MAX_BOTH_BRANCHES:
        raise at_run_time(
            f" and the branches have {steps} operators, more than {MAX_BOTH_BRANCHES} to keep both"
        )
    if len(then) != len(other):
        raise n.bad(f"branches have {len(then)} and {len(other)} outputs")
    condition = n.b.reshape(n.x(), ())
    results = []
    for a, b in zip(then, other, strict=True):
        if {a, b} & n.b.sequences.keys():
            raise at_run_time(" and the branches give sequences")
        ta, tb = n.b.type(a), n.b.type(b)
        if (ta.shape, ta.dtype) != (tb.shape, tb.dtype) or {a, b} & n.b.lengths.keys():
            raise at_run_time(f" and the branches give {ta} and {tb}")
        results.append(a if a == b else n.b.call("where", condition, a, b))
    return results


def stacked(n: Call, values: Sequence[str], axis: int) -> str:
    """Values side by side on a new axis."""
    shape = n.b.shape(values[0])
    at = n.axis(axis, len(shape) + 1)
    parts = []
    for v in values:
        if n.b.shape(v) != shape:
            raise n.unsupported(f"a scan output has shape {shape}, then {n.b.shape(v)}")
        parts.append(n.b.reshape(v, (*shape[:at], 1, *shape[at:])))
    return n.b.add(Concat(at), *parts) if len(parts) > 1 else parts[0]


def _empty(n: Call, v: onnx.ValueInfoProto, axis: int) -> str:
    """The scan output of no iteration, from the type the body declares."""
    tt = v.type.tensor_type
    shape = [int(d.dim_value) for d in tt.shape.dim if d.HasField("dim_value")]
    if not tt.HasField("shape") or len(shape) != len(tt.shape.dim) or min((0, *shape)) < 0:
        raise n.unsupported(f"scan output {v.name!r} of no iteration has no static shape")
    dtype = elem_type(tt.elem_type, n.where)
    shape.insert(n.axis(axis, len(shape) + 1), 0)
    return n.b.const(np.zeros(shape, dtype.numpy), dtype)


def _too_long(n: Call, steps: int, nodes: int = 0) -> None:
    """Refuse what is known to be too much before any of it is done.

    Args:
        n: The loop.
        steps: Its iterations.
        nodes: Nodes of each, where that many iterations are sure.
    """
    for count, what, most in ((steps, "iterations", MAX_STEPS), (steps * nodes, "nodes", n.room)):
        if count > most:
            raise n.unsupported(
                f"{count} {what} would be unrolled, at most {most}",
                "freeze fewer with --shape, or compile the body alone and call it in a loop",
            )


def _known_condition(n: Call, v: str, step: int) -> bool:
    value = n.b.value(v)
    if value is None:
        raise n.unsupported(
            f"the condition after iteration {step} is computed at run time",
            "compile the body as a model of its own and call it in a loop",
        )
    if value.size != 1:
        raise n.bad(f"the condition has {value.size} elements")
    return bool(value.ravel()[0])


def _loop(n: Call) -> Sequence[str]:
    body = body_of(n, "body")
    carried = list(n.xs(2))
    trips: int | None = None
    if n.has(0):
        trips = n.integer(0, "the trip count")
        _too_long(n, trips, 0 if n.has(1) else len(body.node))
    going = True
    if n.has(1):
        going = bool(n.number(1, "the condition"))
    count = len(carried)
    n_scan = len(body.output) - 1 - count
    if n_scan < 0:
        raise n.bad(f"the body has {len(body.output)} outputs for {count} carried values")
    scans: list[list[str]] = [[] for _ in range(n_scan)]
    step = 0
    while going and (trips is None or step < trips):
        _too_long(n, step + 1)
        outputs = n.run(body, (n.b.scalar(step, I64), n.b.scalar(True, BOOL), *carried))
        carried = outputs[1 : 1 + count]
        for found, v in zip(scans, outputs[1 + count :], strict=True):
            found.append(v)
        # without a condition input the body's condition is ignored
        last = trips is not None and step + 1 == trips
        if n.has(1) and not last:
            going = _known_condition(n, outputs[0], step)
        step += 1
    results = [
        stacked(n, found, 0) if found else _empty(n, v, 0)
        for found, v in zip(scans, body.output[1 + count :], strict=True)
    ]
    return [*carried, *results]


def _element(n: Call, x: str, axis: int, i: int) -> str:
    shape = n.b.shape(x)
    y = slice_axis(n, x, axis, i, 1)
    return n.b.reshape(y, (*shape[:axis], *shape[axis + 1 :]))


def _per(n: Call, name: str, count: int) -> tuple[int, ...]:
    """A list attribute with one integer per scan input or output, 0 by default."""
    v = n.ints(name) or (0,) * count
    if len(v) != count:
        raise n.bad(f"{name} has {len(v)} values, expected {count}")
    return v


def _scan(n: Call) -> Sequence[str]:
    return _scan_8(n) if n.version < 9 else _scan_9(n)


def _split_inputs(n: Call, first: int) -> tuple[list[str], list[str]]:
    """(initial states, scan inputs)."""
    m = int(n.attr("num_scan_inputs", 0))
    inputs = list(n.xs(first))
    if not 1 <= m <= len(inputs):
        raise n.bad(f"num_scan_inputs is {m} with {len(inputs)} inputs")
    return inputs[: len(inputs) - m], inputs[len(inputs) - m :]


def _scan_outputs(n: Call, body: onnx.GraphProto, states: Sequence[str]) -> int:
    """How many results a Scan stacks: what its body gives beyond the states."""
    if len(body.output) < len(states):
        raise n.bad(f"the body has {len(body.output)} outputs for {len(states)} states")
    return len(body.output) - len(states)


def _scan_9(n: Call) -> Sequence[str]:
    body = body_of(n, "body")
    states, xs = _split_inputs(n, 0)
    given = _per(n, "scan_input_axes", len(xs))
    axes = [n.axis(a, len(n.b.shape(x))) for a, x in zip(given, xs, strict=True)]
    n_out = _scan_outputs(n, body, states)
    backwards = _per(n, "scan_input_directions", len(xs))
    out_axes = _per(n, "scan_output_axes", n_out)
    prepend = _per(n, "scan_output_directions", n_out)
    lengths = {n.b.shape(x)[a] for x, a in zip(xs, axes, strict=True)}
    if len(lengths) != 1:
        raise n.bad(f"scan inputs have {sorted(lengths)} elements")
    (steps,) = lengths
    _too_long(n, steps, len(body.node))
    scans: list[list[str]] = [[] for _ in range(n_out)]
    for t in range(steps):
        at = [steps - 1 - t if back else t for back in backwards]
        elements = [_element(n, x, a, i) for x, a, i in zip(xs, axes, at, strict=True)]
        outputs = n.run(body, (*states, *elements))
        states = outputs[: len(states)]
        for found, v in zip(scans, outputs[len(states) :], strict=True):
            found.append(v)
    results = []
    declared = body.output[len(states) :]
    for found, axis, back, v in zip(scans, out_axes, prepend, declared, strict=True):
        ordered = found[::-1] if back else found
        results.append(stacked(n, ordered, axis) if found else _empty(n, v, axis))
    return [*states, *results]


def _scan_8(n: Call) -> Sequence[str]:
    """Opset 8: a leading batch axis everywhere, optional sequence lengths as input 0."""
    body = body_of(n, "body")
    states, xs = _split_inputs(n, 1)
    leading = {n.b.shape(x)[:2] for x in xs}
    if len(leading) != 1 or len(min(leading)) != 2 or 0 in min(leading):
        raise n.bad(f"scan inputs have shapes {[n.b.shape(x) for x in xs]}")
    ((batch, steps),) = leading
    if n.has(0) and any(v != steps for v in n.ints_at(0, "sequence_lens") or ()):
        raise n.unsupported("sequence_lens shorter than the scan inputs")
    _too_long(n, batch * steps, len(body.node))
    n_out = _scan_outputs(n, body, states)
    backwards = _per(n, "directions", len(xs))
    columns: list[list[str]] = [[] for _ in body.output]
    for i in range(batch):
        now = [_element(n, s, 0, i) for s in states]
        rows = [_element(n, x, 0, i) for x in xs]
        scans: list[list[str]] = [[] for _ in range(n_out)]
        for t in range(steps):
            at = [steps - 1 - t if back else t for back in backwards]
            elements = [_element(n, x, 0, k) for x, k in zip(rows, at, strict=True)]
            outputs = n.run(body, (*now, *elements))
            now = outputs[: len(now)]
            for found, v in zip(scans, outputs[len(now) :], strict=True):
                found.append(v)
        for column, v in zip(columns, [*now, *(stacked(n, s, 0) for s in scans)], strict=True):
            column.append(v)
    return [stacked(n, c, 0) for c in columns]


def _has_element(n: Call) -> Sequence[str]:
    """Whether an optional input is there, which a model without optional values knows."""
    return [n.b.scalar(n.has(0), BOOL)]


def _get_element(n: Call) -> Sequence[str]:
    return [n.x()]


DECODERS: Mapping[str, Decoder] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
}
