"""The passes, in order, each with the reason for its position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sparrow.graph import Graph
from sparrow.passes.affine import fold_affine, fold_affine_before
from sparrow.passes.attention import (
    attention,
    group_heads,
    interleave_inputs,
    interleave_output,
)
from sparrow.passes.code_signs import multiplied_unsigned, signed
from sparrow.passes.crops import crop
from sparrow.passes.cse import cse
from sparrow.passes.depth import flat_depth_conv, flat_depth_pool
from sparrow.passes.fuse_epilogue import bias_add, fuse_epilogue
from sparrow.passes.fuse_lanes import fuse_lanes, fuse_unary
from sparrow.passes.global_pool import global_pool
from sparrow.passes.halves import Takes, whole_codes
from sparrow.passes.hoist_projection import hoist_projection
from sparrow.passes.integer import integer
from sparrow.passes.layout import assign_layout
from sparrow.passes.legalize import legalize
from sparrow.passes.literals import hoist_constants, literals
from sparrow.passes.lower_quant import lower_quant, lower_weights
from sparrow.passes.normalization import (
    grouped_channels,
    normalization,
    scale_norm,
    shifted_normalization,
)
from sparrow.passes.pads import fold_pad, merge_pads
from sparrow.passes.parallel import add_parallel
from sparrow.passes.parts import part_heads
from sparrow.passes.pointwise import pointwise
from sparrow.passes.products import (
    absorb_transpose,
    slice_before_reshape,
    slice_before_transpose,
    split_product,
)
from sparrow.passes.regions import scatter_region, slice_of_concat
from sparrow.passes.report import compare
from sparrow.passes.simplify import simplify
from sparrow.passes.softmax import flat_softmax, spelled_log_softmax, spelled_softmax
from sparrow.passes.stacks import reduced_stack
from sparrow.passes.tidy import TIDY, lane_before_transpose
from sparrow.passes.transposed import few_channels, unit_stride
from sparrow.passes.whole_rows import whole_rows
from sparrow.passes.wide_codes import (
    look_up_narrow,
    look_up_wide,
    move_wide,
    read_wide,
    split_codes,
)
from sparrow.rewrite import Remark, Rule, apply_rules, prune


@dataclass(frozen=True, slots=True)
class Pass:
    """A graph transformation: a whole-graph function, or rules applied until nothing changes.

    Attributes:
        name: Shown by ``--explain``.
        why: Reason for its position in `PIPELINE`.
        rules: Local rules, or empty.
        function: Whole-graph function used when there are no rules.
    """

    name: str
    why: str
    rules: tuple[tuple[str, Rule], ...] = ()
    function: Callable[[Graph, list[Remark] | None], Graph] | None = None

    def __call__(self, g: Graph, remarks: list[Remark] | None = None) -> Graph:
        """Apply to a graph; the result gives the same answers."""
        return self.function(g, remarks) if self.function else apply_rules(g, self.rules, remarks)


def _rules(*rules: Rule) -> tuple[tuple[str, Rule], ...]:
    return tuple((r.__name__, r) for r in rules)


def _merge(g: Graph, remarks: list[Remark] | None) -> Graph:
    return cse(prune(g))


def _layout(g: Graph, remarks: list[Remark] | None) -> Graph:
    return assign_layout(g, remarks)


SCALARS = _rules(literals, hoist_constants, simplify)
FRONT: tuple[Pass, ...] = (
    Pass("merge", "dead nodes go and equal ones join before anything counts users", (), _merge),
    Pass("lower_weights", "float passes look for constant weights", (), lower_weights),
    Pass(
        "tidy",
        "matchers do not see through movement that moves nothing, or parts a sum and its clamp",
        (*TIDY, *_rules(lane_before_transpose)),
    ),
    Pass(
        "regions",
        "once indices are constants, before layout speaks of the pieces",
        (*_rules(scatter_region, slice_of_concat), *TIDY),
    ),
    Pass("whole_rows", "Gather, unlike its elements, moves codes", _rules(whole_rows)),
    Pass("scalars", "patterns are written over literals", SCALARS),
    Pass(
        "normalization",
        "while each step of it is a node of its own",
        (*_rules(normalization, shifted_normalization, scale_norm), *TIDY),
    ),
    Pass(
        "softmax",
        "attention looks for one",
        _rules(spelled_softmax, spelled_log_softmax, flat_softmax),
    ),
    Pass("transposed", "what follows looks for convolutions", _rules(unit_stride)),
    Pass(
        "pads",
        "while Pad and its reader are both channels-first",
        _rules(merge_pads, fold_pad, crop),
    ),
    Pass("global_pool", "a reduction sinks through any transpose", _rules(global_pool)),
    Pass(
        "fold_affine",
        "while the multiply-add of a batch norm is still a node of its own",
        _rules(bias_add, fold_affine, add_parallel, fold_affine_before),
    ),
    Pass(
        "activations",
        "functions of one value become one when nothing more folds into weights",
        (*_rules(fuse_unary), *SCALARS),
    ),
    Pass(
        "products",
        "slices reach the products they cut before transposes settle between them",
        (*TIDY, *_rules(slice_before_transpose, slice_before_reshape, split_product)),
    ),
    Pass(
        "attention",
        "over the transposes of the exporter",
        (*_rules(attention, group_heads), *TIDY),
    ),
)
_INTEGER = Pass(
    "integer",
    "functions of one value are single nodes now, and axes are the model's",
    (),
    integer,
)
_REST: tuple[Pass, ...] = (
    Pass("code_pads", "sums over codes have their zero points now", _rules(fold_pad)),
    Pass("lower_quant", "what of the quantization stays float", (), lower_quant),
    Pass(
        "wide_codes",
        "quantization is arithmetic now, and nothing is fused yet",
        _rules(split_codes, look_up_wide, move_wide, read_wide),
    ),
    Pass("legalize", "types change when nothing more is recognized", _rules(legalize)),
    Pass("few_channels", "integers have their phases; layout places them", _rules(few_channels)),
    Pass(
        "stacks",
        "a reduction of codes moves them, and those are settled; layout places the chain",
        _rules(reduced_stack),
    ),
    Pass(
        "groups",
        "their channels move as one with the layout",
        (*_rules(grouped_channels), *TIDY),
    ),
    Pass("layout", "after folding, which speaks of one channel axis", (), _layout),
    Pass(
        "views",
        "kernels may read through the transposes that are left",
        (*TIDY, *_rules(interleave_inputs, interleave_output, absorb_transpose)),
    ),
    Pass("hoist_projection", "its ONNX form is larger: after all that", _rules(hoist_projection)),
    Pass(
        "fuse_epilogue",
        "activations join sums before chains take them",
        _rules(fuse_epilogue, look_up_narrow),
    ),
    Pass(
        "fuse_lanes",
        "what is left of elementwise chains becomes single loops",
        (*_rules(fuse_lanes), *SCALARS),
    ),
    Pass("fuse_rest", "a fused chain may now end at a sum", _rules(fuse_epilogue, simplify)),
    Pass(
        "pointwise",
        "the convolution has what lies between the transposes; what follows joins the product",
        _rules(pointwise, fuse_epilogue),
    ),
    Pass(
        "depth",
        "an epilogue does not see through the reshapes",
        (*_rules(flat_depth_conv, flat_depth_pool), *TIDY),
    ),
)
_PARTS = Pass("parts", "epilogues and the order of axes are what they stay", (), part_heads)
_CLEAN = Pass("clean", "what passes left behind", (), _merge)
_SIGNED = Pass("signed", "integer operators are of int8, whichever the file says", (), signed)
_UNSIGNED = Pass("unsigned", "integer operators read codes as they lie", (), multiplied_unsigned)
BACK = (_SIGNED, _INTEGER, *_REST, _PARTS, _CLEAN)


def back(*, unsigned: bool, halves: Takes | None = None, parts: int | None = 1) -> tuple[Pass, ...]:
    """`BACK` for the kernels of a processor.

    Args:
        unsigned: Products of bytes take unsigned codes.
        halves: Of some sums over codes of 16 bits they are taken.
        parts: Least columns of products that are written in parts; None where none are.
    """
    first = _UNSIGNED if unsigned else _SIGNED
    heads = () if parts is None else (replace(_PARTS, function=partial(part_heads, least=parts)),)
    rest = (*_REST, *heads, _CLEAN)
    if halves is None:
        return (first, _INTEGER, *rest)
    why = "nothing but the digits lies between codes and sums"
    return (first, _INTEGER, Pass("halves", why, _rules(whole_codes(halves))), *rest)


# The quantizer stands between the two: it sees what float passes recognized, in the order of axes
# that the model has.
PIPELINE = FRONT + BACK


def optimize(
    g: Graph, passes: tuple[Pass, ...] = PIPELINE, remarks: list[Remark] | None = None
) -> Graph:
    """Run the passes in order; the last remark compares kernels and bytes before and after."""
    source = g
    for p in passes:
        g = p(g, remarks)
    if remarks is not None:
        remarks.append(Remark("optimize", g.name, compare(source, g), g is not source))
    return g
