"""What a graph costs in kernels launched and bytes moved: the measure of fusion.

A node is a kernel unless it only gives another shape to its operand. It moves the bytes it reads
and the bytes it writes, each operand once; constants count, as they come from memory too.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparrow.graph import Graph
from sparrow.ops.reshape import Reshape
from sparrow.ops.transpose import Transpose
from sparrow.passes.sinking import moved_elements, moves


@dataclass(frozen=True, slots=True)
class Traffic:
    """A graph in numbers.

    Attributes:
        kernels: Nodes that run.
        bytes: Bytes all of them read and write.
        transposes: Transposes that move elements.
        transposed: Elements they move.
    """

    kernels: int
    bytes: int
    transposes: int
    transposed: int


def traffic(g: Graph) -> Traffic:
    """Kernels and bytes of one call of ``g``."""
    kernels = size = transposes = 0
    for n in g.nodes:
        if isinstance(n.op, Reshape):
            continue
        if isinstance(n.op, Transpose):
            if not moves(g.types[n.inputs[0]].shape, n.op.perm):
                continue
            transposes += 1
        kernels += 1
        size += sum(g.types[v].bytes for v in {*n.inputs, *n.outputs} if v)
    return Traffic(kernels, size, transposes, moved_elements(g))


def compare(before: Graph, after: Graph) -> str:
    """One line: kernels, bytes and transposed elements before and after the passes."""
    a, b = traffic(before), traffic(after)
    return (
        f"{a.kernels} -> {b.kernels} kernels, {a.bytes / 1e6:.2f} -> {b.bytes / 1e6:.2f} MB moved, "
        f"{a.transposes} -> {b.transposes} transposes ({a.transposed} -> {b.transposed} elements)"
    )
