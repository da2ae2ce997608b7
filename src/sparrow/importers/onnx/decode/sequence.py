"""Sequences, which are lists of tensors while the model is compiled and leave no trace in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.importers.onnx.call import Call, Decoder, elem_type
from sparrow.importers.onnx.decode.control import body_of, stacked
from sparrow.importers.onnx.decode.movement import MAX_PARTS, slice_axis
from sparrow.ops.concat import Concat
from sparrow.tensor import I64


def _elements(n: Call, i: int = 0) -> tuple[str, ...]:
    """What the sequence at input ``i`` holds."""
    found = n.b.sequences.get(n.x(i))
    if found is None:
        raise n.bad(f"input {i} is {n.type(i)}, expected a sequence")
    return found


def _position(n: Call, i: int, count: int) -> int:
    """Input ``i`` as a place among ``count``; negative ones count from the end."""
    at = n.integer(i, "the position")
    if not -count <= at < count:
        raise n.bad(f"position {at} of a sequence of {count}")
    return at % count


def _tensor(n: Call, i: int) -> str:
    """Input ``i``, which is no sequence itself."""
    if n.x(i) in n.b.sequences:
        raise n.bad(f"input {i} is a sequence, expected a tensor")
    return n.x(i)


def _construct(n: Call) -> Sequence[str]:
    return [n.b.sequence([_tensor(n, i) for i in range(len(n.inputs))])]


def _empty(n: Call) -> Sequence[str]:
    elem_type(int(n.attr("dtype", 1)), n.where)
    return [n.b.sequence(())]


def _at(n: Call) -> Sequence[str]:
    elements = _elements(n)
    return [elements[_position(n, 1, len(elements))]]


def _length(n: Call) -> Sequence[str]:
    return [n.b.scalar(len(_elements(n)), I64)]


def _insert(n: Call) -> Sequence[str]:
    elements = _elements(n)
    at = count = len(elements)
    if n.has(2) and n.integer(2, "the position") != count:
        at = _position(n, 2, count)
    return [n.b.sequence((*elements[:at], _tensor(n, 1), *elements[at:]))]


def _erase(n: Call) -> Sequence[str]:
    elements = _elements(n)
    if not elements:
        raise n.bad("nothing to erase from an empty sequence")
    at = _position(n, 1, len(elements)) if n.has(1) else len(elements) - 1
    return [n.b.sequence((*elements[:at], *elements[at + 1 :]))]


def _split(n: Call) -> Sequence[str]:
    """Pieces of an axis: of the sizes given, of one size and a rest, or single ones."""
    shape = n.type().shape
    axis = n.axis(int(n.attr("axis", 0)), len(shape))
    extent = shape[axis]
    sizes = n.ints_at(1, "split")
    drop = sizes is None and not n.attr("keepdims", 1)
    if sizes is None or not n.type(1).rank:
        each = 1 if sizes is None else sizes[0]
        if each < 1 or -(-extent // each) > MAX_PARTS:
            raise n.bad(
                f"an axis of {extent} in pieces of {each}, expected 1 to {MAX_PARTS} pieces"
            )
        sizes = tuple(min(each, extent - a) for a in range(0, extent, each))
    if sum(sizes) != extent or min((0, *sizes)) < 0:
        raise n.bad(f"split {sizes} does not fit an axis of {extent}")
    pieces, start = [], 0
    for size in sizes:
        piece = slice_axis(n, n.x(), axis, start, size)
        start += size
        pieces.append(n.b.reshape(piece, shape[:axis] + shape[axis + 1 :]) if drop else piece)
    return [n.b.sequence(pieces)]


def _concat(n: Call) -> Sequence[str]:
    """Elements side by side along an axis, a new one where ``new_axis`` says so."""
    elements = _elements(n)
    if n.attr("axis") is None or not elements:
        raise n.bad("axis is missing" if elements else "an empty sequence has no elements to join")
    axis = int(n.attr("axis"))
    if n.attr("new_axis", 0):
        return [stacked(n, elements, axis)]
    rank = n.b.type(elements[0]).rank
    joined = n.b.add(Concat(n.axis(axis, rank)), *elements) if len(elements) > 1 else elements[0]
    return [joined]


def _map(n: Call) -> Sequence[str]:
    """The body on each element; further operands are sequences as long, or the same tensor."""
    body = body_of(n, "body")
    count = len(_elements(n))
    if count * len(body.node) > n.room:
        raise n.unsupported(f"{count * len(body.node)} nodes would be unrolled, at most {n.room}")
    operands = [n.b.sequences.get(x, (x,) * count) for x in n.xs()]
    if any(len(o) != count for o in operands):
        raise n.bad(f"sequences of {sorted({len(o) for o in operands})} elements")
    rows = [n.run(body, [o[i] for o in operands]) for i in range(count)]
    return [n.b.sequence([row[k] for row in rows]) for k in range(len(body.output))]


DECODERS: Mapping[str, Decoder] = {
    "ConcatFromSequence": _concat,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SequenceMap": _map,
    "SplitToSequence": _split,
}
