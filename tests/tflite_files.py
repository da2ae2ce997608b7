"""Small .tflite files made with the flatbuffers builder, and LiteRT to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

from sparrow.importers.tflite.model import Sparsity
from sparrow.importers.tflite.schema import CUSTOM, DTYPES, OPERATORS, OPTIONS, RESOURCE, VERSION
from sparrow.tensor import Array, DType, dtype_of

_CODES = {dtype.name: code for code, dtype in DTYPES.items()}
_OPERATOR_CODES = {name: code for code, name in OPERATORS.items()}
_PREPEND = {"b": "Int8", "B": "Uint8", "i": "Int32", "I": "Uint32", "f": "Float32", "?": "Bool"}


# the first version LiteRT has, where that is not 1
_VERSIONS = {"BROADCAST_TO": 2}


@dataclass(frozen=True, slots=True)
class T:
    """A tensor of a file to be written.

    ``data`` makes it a constant, of which ``sparsity`` says where its elements lie; ``scale``
    quantizes it, along ``axis`` when there are several.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    data: Array | None = None
    scale: Sequence[float] = ()
    zero: Sequence[int] = ()
    axis: int = 0
    signature: tuple[int, ...] | None = None
    variable: bool = False
    resource: bool = False
    sparsity: Sparsity | None = None


@dataclass(frozen=True, slots=True)
class O:  # noqa: E742
    """An operator of a file to be written; operands by tensor name, ``""`` where absent.

    A name ``CUSTOM:x`` makes it a custom one with the options ``custom``.
    """

    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: bytes = b""
    version: int = 0


@dataclass(frozen=True, slots=True)
class G:
    """A subgraph of a file to be written."""

    tensors: Sequence[T]
    ops: Sequence[O]
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()


def constant(name: str, data: Array, **more: Any) -> T:
    """A constant tensor."""
    return T(name, data.shape, dtype_of(data), data, **more)


class _Writer:
    def __init__(self) -> None:
        self.b = flatbuffers.Builder(1024)

    def numbers(self, values: Sequence[float] | Array, dtype: str) -> int:
        return int(self.b.CreateNumpyVector(np.asarray(values, dtype)))

    def offsets(self, values: Sequence[int]) -> int:
        self.b.StartVector(4, len(values), 4)
        for v in reversed(values):
            self.b.PrependUOffsetTRelative(v)
        return int(self.b.EndVector())

    def table(self, count: int, fields: Sequence[tuple[int, str, Any]]) -> int:
        """A table of (number, struct code or ``"o"`` for an offset, value)."""
        self.b.StartObject(count)
        for number, code, value in fields:
            if code == "o":
                self.b.PrependUOffsetTRelativeSlot(number, value, 0)
            else:
                # written even where it is the default, so that readers must find it
                getattr(self.b, f"Prepend{_PREPEND[code]}")(value)
                self.b.Slot(number)
        return int(self.b.EndObject())

    def options(self, o: O) -> list[tuple[int, str, Any]]:
        layout = OPTIONS.get(o.name)
        if layout is None:
            return []
        lists = {
            k: self.numbers(o.options[k], "<i4")
            for k, f in layout.fields.items()
            if f.code == "v" and k in o.options
        }
        lists |= {
            k: self.b.CreateString(o.options[k])
            for k, f in layout.fields.items()
            if f.code == "s" and k in o.options
        }
        fields = [
            (f.number, "o" if k in lists else f.code, lists.get(k, o.options.get(k)))
            for k, f in layout.fields.items()
            if k in o.options
        ]
        count = 1 + max(f.number for f in layout.fields.values())
        return [(3, "B", layout.number), (4, "o", self.table(count, fields))]

    def sparsity(self, s: Sparsity) -> int:
        levels = []
        for level in s.levels:
            if isinstance(level, int):
                levels.append(self.table(6, [(0, "b", 0), (1, "i", level)]))
                continue
            fields: list[tuple[int, str, Any]] = [(0, "b", 1)]
            for at, v in zip((2, 4), level, strict=True):
                kind = {"int32": 1, "uint16": 2, "uint8": 3}[v.dtype.name]
                table = self.table(1, [(0, "o", self.numbers(v, v.dtype.str))])
                fields += [(at, "B", kind), (at + 1, "o", table)]
            levels.append(self.table(6, fields))
        parts = [self.numbers(s.order, "<i4"), self.numbers(s.blocked, "<i4"), self.offsets(levels)]
        return self.table(3, [(i, "o", v) for i, v in enumerate(parts)])

    def tensor(self, t: T, buffers: list[int]) -> int:
        number = 0
        if t.data is not None:
            number = len(buffers)
            raw = np.frombuffer(np.ascontiguousarray(t.data).tobytes(), np.uint8)
            buffers.append(self.table(3, [(0, "o", self.numbers(raw, "u1"))]))
        name = self.b.CreateString(t.name)
        fields: list[tuple[int, str, Any]] = [
            (0, "o", self.numbers(t.shape, "<i4")),
            (1, "b", RESOURCE if t.resource else _CODES[t.dtype.name]),
            (2, "I", number),
            (3, "o", name),
            (5, "?", t.variable),
        ]
        if t.scale:
            scale = self.numbers(t.scale, "<f4")
            zero = self.numbers(t.zero or [0] * len(t.scale), "<i8")
            quant = self.table(7, [(2, "o", scale), (3, "o", zero), (6, "i", t.axis)])
            fields.append((4, "o", quant))
        if t.sparsity is not None:
            fields.append((6, "o", self.sparsity(t.sparsity)))
        if t.signature is not None:
            fields.append((7, "o", self.numbers(t.signature, "<i4")))
        return self.table(10, fields)

    def graph(self, g: G, kinds: Sequence[tuple[str, int]], buffers: list[int]) -> int:
        at = {t.name: i for i, t in enumerate(g.tensors)} | {"": -1}
        rows = [self.tensor(t, buffers) for t in g.tensors]
        nodes = []
        for o in g.ops:
            ins, outs = (
                self.numbers([at[x] for x in names], "<i4") for names in (o.inputs, o.outputs)
            )
            fields = [
                (0, "I", kinds.index(_kind(o))),
                (1, "o", ins),
                (2, "o", outs),
                *self.options(o),
            ]
            if o.custom:
                fields.append((5, "o", self.numbers(np.frombuffer(o.custom, np.uint8), "u1")))
            nodes.append(self.table(9, fields))
        ends = [self.numbers([at[x] for x in names], "<i4") for names in (g.inputs, g.outputs)]
        parts = [self.offsets(rows), *ends, self.offsets(nodes)]
        return self.table(5, [(i, "o", v) for i, v in enumerate(parts)])

    def code(self, kind: tuple[str, int]) -> int:
        name, version = kind
        code = CUSTOM if name.startswith("CUSTOM:") else _OPERATOR_CODES[name]
        custom = self.b.CreateString(name.removeprefix("CUSTOM:")) if code == CUSTOM else 0
        fields: list[tuple[int, str, Any]] = [
            (0, "b", min(code, 127)),
            (2, "i", version),
            (3, "i", code),
        ]
        return self.table(4, fields + ([(1, "o", custom)] if custom else []))


def _kind(o: O) -> tuple[str, int]:
    return o.name, o.version or _VERSIONS.get(o.name, 1)


def write(
    tensors: Sequence[T],
    ops: Sequence[O],
    inputs: Sequence[str],
    outputs: Sequence[str],
    others: Sequence[G] = (),
) -> bytes:
    """A file of one subgraph, or of ``others`` behind it."""
    w = _Writer()
    graphs = [G(tensors, ops, inputs, outputs), *others]
    buffers = [w.table(3, [])]
    kinds = list(dict.fromkeys(_kind(o) for g in graphs for o in g.ops))
    codes = [w.code(k) for k in kinds]
    tables = [w.graph(g, kinds, buffers) for g in graphs]
    lists = [w.offsets(codes), w.offsets(tables), w.offsets(buffers)]
    root = w.table(
        8, [(0, "I", VERSION), *((i, "o", v) for i, v in zip((1, 2, 4), lists, strict=True))]
    )
    w.b.Finish(root, b"TFL3")
    return bytes(w.b.Output())


def one(
    op: str,
    feeds: Mapping[str, Array],
    options: Mapping[str, Any] | None = None,
    *,
    out: T,
    consts: Sequence[T] = (),
    order: Sequence[str] = (),
    quant: Mapping[str, tuple[float, int]] | None = None,
    states: Sequence[T] = (),
) -> bytes:
    """A file of one operator: ``feeds`` are its inputs, then ``consts``, unless ``order`` says."""
    given = quant or {}
    tensors = [
        T(
            k,
            v.shape,
            dtype_of(v),
            scale=[given[k][0]] if k in given else (),
            zero=[given[k][1]] if k in given else (),
        )
        for k, v in feeds.items()
    ]
    names = order or [*feeds, *(c.name for c in consts)]
    node = O(op, names, [out.name], options or {})
    return write([*tensors, *consts, *states, out], [node], list(feeds), [out.name])


def interpreter(model: bytes, *, keep: bool = False) -> Any:
    """LiteRT with its own kernels and no delegate."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    it = Interpreter(
        model_content=model,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=keep,
        num_threads=1,
    )
    it.allocate_tensors()
    return it


def _called(model: bytes, feeds: Mapping[str, Array], *, keep: bool = False) -> Any:
    """LiteRT after one call."""
    it = interpreter(model, keep=keep)
    for d in it.get_input_details():
        it.set_tensor(d["index"], feeds[d["name"]])
    it.invoke()
    return it


def litert(model: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs of LiteRT's own kernels."""
    it = _called(model, feeds)
    return [np.asarray(it.get_tensor(d["index"])) for d in it.get_output_details()]


def litert_tensors(model: bytes, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What every operator gives in LiteRT, by tensor name."""
    it = _called(model, feeds, keep=True)
    made = {int(i) for op in it._get_ops_details() for i in op["outputs"]}
    details = [d for d in it.get_tensor_details() if d["index"] in made]
    return {d["name"]: np.asarray(it.get_tensor(d["index"])) for d in details}
