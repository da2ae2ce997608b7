"""Compute on codes where a float op stands between Dequantize and Quantize.

`FAMILIES` lists which ops have a rule, one file each. Clips between an op and its Quantize become
the range of the codes: rounding is monotone. What matches no rule stays float
(`passes/lower_quant.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from sparrow.graph import Graph, Node, Scheme
from sparrow.ops.attention import Attention
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.gather import Gather
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Resize
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.ops.transpose import Transpose
from sparrow.passes.integer.attention import attention
from sparrow.passes.integer.codes import Edit, Target, codes_of, rescaled, target_at
from sparrow.passes.integer.elementwise import elementwise
from sparrow.passes.integer.means import means
from sparrow.passes.integer.movement import looked_up, move, reshaped_codes
from sparrow.passes.integer.normalization import normalize
from sparrow.passes.integer.products import float_product, matmul
from sparrow.passes.integer.recurrent import recurrent
from sparrow.passes.integer.resizing import resizing
from sparrow.passes.integer.softmax import softmax
from sparrow.passes.integer.sums import coded_bias, float_result, sums, turned_weights
from sparrow.passes.transposed import channels_first, phases, quantize_first
from sparrow.rewrite import Match, Reject, Remark, Rewrite, apply_rules

Handler = Callable[[Match, Node, Target, Scheme], Rewrite | Reject]
FAMILIES: tuple[tuple[tuple[type, ...], Handler], ...] = (
    ((Conv,), sums),
    ((MatMul,), matmul),
    ((Lane,), elementwise),
    ((Reshape, Transpose, Slice, Expand, Gather, Concat, Pad), move),
    ((Pool, Reduce), means),
    ((Resize,), resizing),
    ((Softmax,), softmax),
    ((Attention,), attention),
    ((Normalize,), normalize),
)


def _quantized(m: Match, n: Node, scheme: Scheme) -> Rewrite | Reject | None:
    """Match a Quantize and what it rounds."""
    if not isinstance(n.op, Quantize):
        return None
    t = target_at(m, n)
    if isinstance(t, Reject):
        return t
    x = codes_of(m, t.source)
    if x is not None:
        e = Edit(m, n.origin)
        named = rescaled(e, x, t, scheme, y=n.outputs[0])
        return named if isinstance(named, Reject) else e.done(n)
    source = m.producer(t.source)
    if source is None or len(source.outputs) != 1:
        return None
    for kinds, handler in FAMILIES:
        if isinstance(source.op, kinds):
            r = handler(m, source, t, scheme)
            if isinstance(r, Reject):
                return Reject(f"{source.origin or source.outputs[0]}: {r.reason}")
            return r
    return None


def integer(g: Graph, remarks: list[Remark] | None = None) -> Graph:
    """Compute on codes; see the module."""
    if not any(isinstance(n.op, Dequantize) for n in g.nodes):
        return g

    def quantized(m: Match, n: Node) -> Rewrite | Reject | None:
        return _quantized(m, n, g.scheme)

    def over_time(m: Match, n: Node) -> Rewrite | Reject | None:
        return recurrent(m, n, g.scheme)

    g = apply_rules(
        g,
        (
            ("turned_weights", turned_weights),
            ("coded_bias", coded_bias),
            ("reshaped_codes", reshaped_codes),
            ("looked_up", looked_up),
            ("channels_first", channels_first),
            ("phases", phases),
            ("quantize_first", quantize_first),
        ),
        remarks,
    )
    # results that are quantized first: what is left of the sums gives floats
    g = apply_rules(g, (("recurrent", over_time), ("integer", quantized)), remarks)
    rules = (("integer_float", float_result), ("integer_product", float_product))
    return apply_rules(g, rules, remarks)
