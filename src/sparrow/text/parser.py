"""A Graph from the text of `printer.py`: ``parse_graph(*print_graph(g))`` equals ``g``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

from sparrow.errors import BadInput, InvalidGraph
from sparrow.graph import SCHEMES, Graph, Length, Node, Op, Scheme, State, verify
from sparrow.ops import OPS
from sparrow.tensor import Array, TensorType
from sparrow.text.scanner import Line

_OPS: dict[str, type[Op]] = {op.__name__: op for op in OPS}


def _takes(kind: type[Op], inputs: list[str]) -> bool:
    """Whether an operator takes as many operands, and those it needs are there."""
    signature = inspect.signature(kind.infer)
    try:
        bound = signature.bind(None, *inputs)
    except TypeError:
        return False
    for k, value in bound.arguments.items():
        p = signature.parameters[k]
        # ``*x`` takes a tuple of them
        absent = "" in value if p.kind is p.VAR_POSITIONAL else value == ""
        if absent and p.default is p.empty and "None" not in str(p.annotation):
            return False
    return True


class _Parser:
    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self.name: str | None = None
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.consts: dict[str, Array] = {}
        self.states: list[State] = []
        self.lengths: list[Length] = []
        self.scheme: Scheme = "f32"

    def declare(self, line: Line, name: str) -> TensorType:
        line.need(":")
        t = line.tensor_type()
        if name in self.types or not name:
            raise BadInput(f"line {line.number}: {name!r} is declared a second time or has no name")
        self.types[name] = t
        return t

    def statement(self, line: Line) -> None:
        keyword = re.match(r"(graph|scheme|input|state|const|output|length) ", line.text)
        if not keyword:
            self.node(line)
            return
        line.at = keyword.end()
        name = line.name()
        match keyword[1]:
            case "graph":
                if self.name is not None:
                    raise BadInput(f"line {line.number}: a second graph")
                self.name = name
            case "scheme":
                found = next((s for s in SCHEMES if s == name), None)
                if found is None:
                    known = ", ".join(SCHEMES)
                    raise BadInput(f"line {line.number}: scheme {name!r}, expected one of {known}")
                self.scheme = found
            case "input":
                self.declare(line, name)
                self.inputs.append(name)
            case "const":
                t = self.declare(line, name)
                line.need("=")
                self.consts[name] = line.data(t)
            case "state":
                line.need("(")
                source = line.name()
                line.need(",")
                stored = line.name()
                line.need(")")
                t = self.declare(line, source)
                line.need("=")
                self.states.append(State(name, source, stored, line.data(t)))
            case "output":
                self.outputs.append(name)
            case "length":
                axis = line.integer()
                self.lengths.append(Length(name, axis, line.name()))
        line.end()

    def node(self, line: Line) -> None:
        outputs: list[str] = []
        while True:
            outputs.append(line.name())
            self.declare(line, outputs[-1])
            if not line.take(","):
                break
        line.need("=")
        kind = line.word(_OPS, "an operator")
        line.need("(")
        inputs = line.rows(line.name, ")")
        if not _takes(kind, inputs):
            line.fail(f"operands of {kind.__name__} before this")
        op = line.checked(lambda: line.build(kind, "}" if line.take("{") else ""))
        origin = ""
        if line.take("#"):
            line.space()
            origin = line.string() if line.peek('"') else line.text[line.at :]
            line.at = len(line.text)
        line.end()
        self.nodes.append(Node(op, tuple(inputs), tuple(outputs), origin))


def parse_graph(text: str, arrays: Mapping[str, Array] | None = None) -> Graph:
    """The verified Graph that `print_graph` wrote.

    Args:
        text: Statements, one per line; blank lines and lines that begin with ``#`` are skipped.
        arrays: Arrays by the hash the text names them with.

    Raises:
        BadInput: The text does not follow the grammar; the message has the line number.
        InvalidGraph: It does, but its types or names are wrong.
    """
    p = _Parser(arrays or {})
    for number, statement in enumerate(text.split("\n"), 1):
        if statement.strip() and not statement.startswith("#"):
            p.statement(Line(statement.rstrip("\r"), number, p.arrays))
    if p.name is None:
        raise BadInput("line 1: expected 'graph <name>'")
    missing = [v for v in (*p.outputs, *(s.output for s in p.states)) if v not in p.types]
    if missing:
        raise BadInput(f"output {missing[0]!r} is not defined")
    g = Graph(
        p.name,
        tuple(p.inputs),
        tuple(p.outputs),
        tuple(p.nodes),
        p.types,
        p.consts,
        tuple(p.states),
        tuple(p.lengths),
        p.scheme,
    )
    try:
        verify(g)
    except IndexError:
        raise InvalidGraph(f"{g.name}: an expression reads an operand that is not there") from None
    return g
