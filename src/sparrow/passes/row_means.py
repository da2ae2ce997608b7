"""The mean of an image by way of the means of its rows.

    before   y = mean of x over height and width
    after    y = mean over height of (mean of x over width)

    before   y = f(depthwise sum of codes x over all pixels)        a mean of codes
    after    y = f(upper + lower), the sums of x over those rows that a thread computes

Cores compute rows. One of them that read all for a mean would leave the lines of the others in two
caches, where they are slow to overwrite: what scales the channels of a squeeze-and-excitation block
in place took 17 us on two cores, and 3 on one. So each takes the means of its own rows. Sums are
shorter than before, and their errors smaller; those of codes are exact, whatever their parts.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.reduce import Reduce
from sparrow.ops.slice import Slice
from sparrow.ops.sums import CODES
from sparrow.passes.fuse_lanes import fuse_lanes
from sparrow.rewrite import Match, Reject, Remark, Rewrite, Rule, apply_rules
from sparrow.tensor import F32, I32

# Elements that one core reads sooner than two agree on.
FEW = 4096


def row_means(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a float32 mean over the pixels of a channels-last image."""
    if not isinstance(n.op, Reduce) or n.op.kind != "mean" or n.op.axes != (1, 2):
        return None
    t = m.type(n.inputs[0])
    if t.dtype != F32 or t.rank != 4 or 1 in t.shape[1:3]:
        return None
    if t.size < FEW:
        return Reject(f"{t.size} elements are few")
    rows = m.fresh()
    return Rewrite(
        (
            Node(replace(n.op, axes=(2,)), n.inputs, (rows,), f"{n.origin} rows"),
            replace(n, inputs=(rows,)),
        ),
        (n,),
    )


def row_sums(threads: int) -> Rule:
    """The rule for sums of codes, in a part for each thread."""

    def matched(m: Match, n: Node) -> Rewrite | Reject | None:
        """Match a depthwise sum of one window, which weighs all rows of the image alike."""
        op = n.op
        if not isinstance(op, Conv) or not op.channels_last or len(op.pads) != 2:
            return None
        t, w = m.type(n.inputs[0]), m.const(n.inputs[1])
        if t.dtype not in CODES or w is None or op.group != t.shape[-1] or len(w) != op.group:
            return None
        height, width = t.shape[1:3]
        whole = w.shape[2:] == (height, width) and op.pads == ((0, 0), (0, 0)) and t.shape[0] == 1
        if not whole or height == 1 or op.dilations != (1, 1) or (w != w[:, :, :1]).any():
            return None
        if t.size < FEW:
            return Reject(f"{t.size} elements are few")
        rows = -(-height // min(threads, height))
        parts = -(-height // rows)
        # rows behind the last hold the zero point, and add nothing
        part = replace(
            op, strides=(rows, width), pads=((0, parts * rows - height), (0, 0)), epilogue=None
        )
        weights, sums = m.fresh(), m.fresh()
        size = (1, 1, 1, op.group)
        each = [m.fresh() for _ in range(parts)]
        nodes = [Node(part, (n.inputs[0], weights), (sums,), f"{n.origin} rows")]
        nodes += [
            Node(Slice((0, i, 0, 0), size, (1, 1, 1, 1)), (sums,), (y,), f"{n.origin} rows {i}")
            for i, y in enumerate(each)
        ]
        added: list[lane.Expr] = [lane.Arg(i, I32) for i in range(parts)]
        rest = [x for x in n.inputs[2:] if x]
        after = [lane.Arg(parts + i, m.type(x).dtype) for i, x in enumerate(rest)]
        if n.inputs[2:3] and n.inputs[2]:
            added.append(after.pop(0))
        total = reduce(lambda a, b: lane.call("add", a, b), added)
        e = total if op.epilogue is None else lane.substitute(op.epilogue, [total, *after])
        nodes.append(Node(Lane(e), (*each, *rest), n.outputs, n.origin))
        return Rewrite(tuple(nodes), (n,), consts={weights: np.ascontiguousarray(w[:, :, :rows])})

    return matched


def means_by_rows(g: Graph, threads: int, remarks: list[Remark] | None = None) -> Graph:
    """A graph whose large means go by rows: for several cores, however many a call has.

    Sums of codes are in as many parts as there are ``threads``.
    """
    rules: tuple[tuple[str, Rule], ...] = (("row_means", row_means),)
    if threads > 1:
        rules += (("row_sums", row_sums(threads)), ("fuse_lanes", fuse_lanes))
    return apply_rules(g, rules, remarks)
