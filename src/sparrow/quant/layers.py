"""The constants of products as codes: weights and biases of every layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import reduce
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from sparrow.graph import Graph, Node
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gather import Gather
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import spread
from sparrow.passes.integer.sums import beyond_int32
from sparrow.quant.adaround import adaround
from sparrow.quant.affine import code_limits, per_tensor
from sparrow.quant.bias_correction import mean_error
from sparrow.quant.calibrate import Calibration
from sparrow.quant.functions import seen
from sparrow.quant.gptq import gptq
from sparrow.quant.histogram import Histogram
from sparrow.quant.moments import Moments
from sparrow.quant.mse import mse
from sparrow.quant.place import Placement
from sparrow.quant.power_of_two import above, activation_steps, weight_steps
from sparrow.quant.ranges import RANGES
from sparrow.quant.recipe import Recipe, Rounding
from sparrow.quant.weights import (
    ACCUMULATOR_LIMIT,
    Coded,
    block_scales,
    channel_block,
    coded,
    coded_bias,
    fits_bias,
    group_scales,
    group_units,
    largest_sum,
)
from sparrow.reference import one_thread
from sparrow.tensor import I8, I16, Affine, Array, DType

Codes = Mapping[str, tuple[DType, Affine]]
Reals = NDArray[np.float64]
Sum = Conv | ConvTranspose | MatMul
ROUNDINGS: Mapping[Rounding, Callable[[Reals, Reals, int, int], Reals]] = {
    "adaround": adaround,
    "gptq": gptq,
}
# Of 16 bits one can be spared: outliers of other samples go beyond those seen, and one that
# saturates costs more than all rounding.
HEADROOM = 2.0
# A search asks for the same layers and values again and again.
_SCALES: WeakKeyDictionary[Calibration, dict[Hashable, Affine]] = WeakKeyDictionary()
_ROUNDED: WeakKeyDictionary[Moments, dict[tuple[Rounding, bool, bytes], Array]] = (
    WeakKeyDictionary()
)


@dataclass(frozen=True, slots=True, eq=False)
class Constants:
    """The constants of a layer as codes.

    Attributes:
        operands: Operand index -> codes.
        wide: Whether a sum over the codes could leave int32.
        beyond: How far, where such a sum is one of bytes that int32 has to hold; else empty.
    """

    operands: Mapping[int, Coded]
    wide: bool
    beyond: str = ""


def activation_codes(p: Placement, c: Calibration, recipe: Recipe) -> Codes:
    """Type and scale (of rank 0) of every value that becomes codes; equal within a group."""
    known = _SCALES.setdefault(c, {})
    of_group: dict[str, tuple[DType, Affine]] = {}
    for root, sources in p.sources.items():
        dtype = p.codes[root]
        # 16 bits have room to spare, and kernels of no zero points are faster
        symmetric = recipe.symmetric or dtype.bits > 8
        by_error = recipe.ranges == "mse" and dtype.bits == 8
        readers = p.functions.get(root, ()) if by_error else ()
        made = tuple((n.op, len(n.inputs)) for n in readers)
        key = (sources, dtype, symmetric, recipe.ranges, recipe.scales, made)
        if key not in known:
            h = reduce(Histogram.merged, (c.values[x].histogram for x in sources))
            if readers:
                limits = mse(h, dtype, symmetric, seen(readers))
            else:
                limits = RANGES[recipe.ranges](h, dtype, symmetric)
            if dtype.bits > 8:
                limits = limits[0] * HEADROOM, limits[1] * HEADROOM
            quant = per_tensor(limits, dtype, 0, symmetric)
            if recipe.scales == "power_of_two":
                quant = activation_steps(h, dtype, quant)
            known[key] = quant
        of_group[root] = (dtype, known[key])
    return {x: of_group[root] for x, root in p.group.items()}


def shaped(g: Graph, codes: Codes) -> Codes:
    """Scales with the rank of their values, as the graph holds them."""

    def of_rank(quant: Affine, rank: int) -> Affine:
        ones = (1,) * rank
        return Affine(quant.scale.reshape(ones), quant.zero_point.reshape(ones), (-1,) * rank)

    return {x: (dtype, of_rank(q, g.types[x].rank)) for x, (dtype, q) in codes.items()}


def constant_codes(x: Array, recipe: Recipe, dtype: DType) -> Coded:
    """Codes of a constant operand of elementwise work whose result is ``dtype``: one scale."""
    dtype = I16 if dtype == I16 else I8
    block = (-1,) * x.ndim
    scale = block_scales(x, block, code_limits(dtype, True)[1])
    if recipe.scales == "power_of_two":
        scale = weight_steps(x, scale, block, dtype)
    return coded(x, scale, block, dtype)


def _output_axis(op: Sum, rank: int) -> int:
    """The axis of the weights that says the output channel, within its group when transposed."""
    if isinstance(op, Conv):
        return 0
    if isinstance(op, ConvTranspose):
        return 1
    return rank - 2 if op.trans_b else rank - 1


def constants_of(g: Graph, n: Node, codes: Codes, c: Calibration, recipe: Recipe) -> Constants:
    """Codes of the weights and the bias of a product.

    Args:
        g: Float graph.
        n: A node of `Placement.sums`.
        codes: Types and scales of the activations.
        c: Means and moments of what the layer reads.
        recipe: How.
    """
    assert isinstance(n.op, Sum)
    bias = g.consts[n.inputs[2]] if len(n.inputs) > 2 and n.inputs[2] else None
    fixed = [i for i in (0, 1) if n.inputs[i] in g.consts]
    if not fixed:
        if bias is None:
            return Constants({}, False)
        steps = np.prod([_scale(codes, x) for x in n.inputs[:2]], keepdims=True)
        return Constants({2: coded_bias(bias, steps)}, False)
    (at,) = fixed
    x = n.inputs[1 - at]
    w = g.consts[n.inputs[at]]
    x_scale = _scale(codes, x)
    groups = n.op.group if isinstance(n.op, ConvTranspose) else 1
    weights, steps = _weights(n.op, w, at, bias, x_scale, recipe)
    moments = c.moments.get(n.outputs[0])
    if recipe.rounding != "nearest" and moments is not None and at == 1:
        assert not isinstance(n.op, ConvTranspose)
        weights = _rounded(n.op, w, weights, moments, recipe)
    operands = {at: weights}
    m = w.shape[_output_axis(n.op, w.ndim)] * groups
    if recipe.bias_correction and at == 1 and w.ndim == 2 + len(getattr(n.op, "strides", ())):
        error = weights.real() - w
        shift = (
            mean_error(n.op, error, c.values[x].mean)
            if moments is None
            else (_rows(n.op, error, len(moments.mean)) @ moments.mean[:, :, None]).reshape(-1)
        )
        bias = (np.zeros(m) if bias is None else bias.astype(np.float64)) - shift
    if bias is not None:
        each = x_scale * steps
        operands[2] = coded_bias(bias, np.tile(each, groups) if each.size > 1 else each)
    dtype, quant = codes[x]
    summed = largest_sum(
        _multiplied(weights, steps, _output_axis(n.op, w.ndim)),
        _output_axis(n.op, w.ndim),
        dtype,
        int(quant.zero_point.reshape(-1)[0]),
        np.abs(operands[2].codes).reshape(groups, -1).max(0) if 2 in operands else None,
    )
    wide = summed > ACCUMULATOR_LIMIT
    if not wide or dtype.bits > 8 or max(weights.quant.block) > 1:
        return Constants(operands, wide)
    products = weights.codes.size // weights.codes.shape[_output_axis(n.op, w.ndim)]
    return Constants(operands, wide, beyond_int32(products, summed))


def _weights(
    op: Sum, w: Array, at: int, bias: Array | None, x_scale: float, recipe: Recipe
) -> tuple[Coded, Reals]:
    """Weights rounded to the nearest codes, and the unit of their sums over that of the inputs: of
    one element or [M].
    """
    # of a constant on the left every row serves all columns: its scale cannot follow the columns
    axis = _output_axis(op, w.ndim) if at == 1 and recipe.weights != "per_tensor" else None
    block = channel_block(w.ndim, axis)
    grouped = axis is not None and _grouped(op, w, axis, recipe)
    if axis is not None and grouped:
        scale = group_units(w, axis, recipe.group)
    else:
        scale = block_scales(w, block, recipe.largest_weight).astype(np.float64)
    if recipe.scales == "power_of_two":
        scale = weight_steps(w, scale.astype(np.float32), block).astype(np.float64)
    if bias is not None:
        # groups of a transposed convolution share the scales of their channels
        split = op.group if isinstance(op, ConvTranspose) else 1
        most = np.abs(bias.astype(np.float64)).reshape(split, -1).max(0)
        most = most if scale.size > 1 else most.max(initial=0, keepdims=True)
        scale = fits_bias(scale, most.reshape(scale.shape), x_scale)
    if axis is not None and grouped:
        block = tuple(1 if i == axis else recipe.group for i in (0, 1))
        return coded(w, group_scales(w, axis, recipe.group, scale), block), scale
    narrow = scale.astype(np.float32)
    if recipe.scales == "power_of_two":
        narrow = above(narrow)
    return coded(w, narrow, block), narrow.astype(np.float64).reshape(-1)


def _grouped(op: Sum, w: Array, axis: int, recipe: Recipe) -> bool:
    """Whether groups of inputs have scales of their own."""
    if recipe.weights != "per_group" or not isinstance(op, MatMul) or op.trans_a or w.ndim != 2:
        return False
    return bool(w.shape[1 - axis] > recipe.group)


def _multiplied(weights: Coded, units: Reals, axis: int) -> Array:
    """What each input is multiplied with before sums are scaled by their unit."""
    scale, block = weights.quant.scale, weights.quant.block
    if max(block) <= 1:
        return weights.codes
    multiples = np.rint(scale / np.expand_dims(units, 1 - axis)).astype(np.int64)
    return weights.codes * spread(multiples, block, weights.codes.shape)


def cell_constants(g: Graph, n: Node, codes: Codes, recipe: Recipe) -> Mapping[int, Coded]:
    """Codes of a recurrent layer's weights, one scale per row.

    Its bias stays float: importers of ONNX add up its parts, and the integer form rounds it.

    Args:
        g: Float graph.
        n: A node of `Placement.cells`.
        codes: Types and scales of the activations.
        recipe: Which scales there may be.
    """
    w, r = (g.consts[x] for x in n.inputs[1:3])
    block = channel_block(2, 0)
    most = recipe.largest_weight
    scale, x_scale = block_scales(w, block, most), _scale(codes, n.inputs[0])
    bias = g.consts[n.inputs[3]] if len(n.inputs) > 3 and n.inputs[3] else None
    if bias is not None:
        biases = np.abs(bias.astype(np.float64)).reshape(scale.shape)
        scale = fits_bias(scale.astype(np.float64), biases, x_scale).astype(np.float32)
    scales = scale, block_scales(r, block, most)
    if recipe.scales == "power_of_two":
        scales = above(scales[0]), above(scales[1])
    return {1: coded(w, scales[0], block), 2: coded(r, scales[1], block)}


def table_codes(g: Graph, n: Node, recipe: Recipe) -> Coded:
    """Codes of a table, one scale per row that is picked, or one for all."""
    assert isinstance(n.op, Gather)
    w = g.consts[n.inputs[0]]
    block = channel_block(w.ndim, None if recipe.weights == "per_tensor" else n.op.axis)
    scale = block_scales(w, block)
    if recipe.scales == "power_of_two":
        scale = weight_steps(w, scale, block)
    return coded(w, scale, block)


def _scale(codes: Codes, x: str) -> float:
    return float(codes[x][1].scale.reshape(-1)[0])


def _rounded(op: Conv | MatMul, w: Array, nearest: Coded, m: Moments, recipe: Recipe) -> Coded:
    """Each group of a layer rounded for the least error of its outputs.

    Args:
        op: The layer.
        w: Its weights.
        nearest: Its weights rounded to the nearest codes.
        m: Moments of its inputs.
        recipe: How; the bias may take back the mean error.
    """
    if not np.isfinite(m.covariance).all():  # squares of the inputs overflow
        return nearest
    known = _ROUNDED.setdefault(m, {})
    rounding, corrected = recipe.rounding, recipe.bias_correction
    key = (rounding, corrected, nearest.quant.scale.tobytes())
    if key not in known:
        low, high = -recipe.largest_weight, recipe.largest_weight
        axis = _output_axis(op, w.ndim)
        scale = spread(nearest.quant.scale, nearest.quant.block, w.shape).astype(np.float64)
        inputs = m.covariance.astype(np.float64) if corrected else m.second
        rows = _rows(op, w / scale, len(inputs))
        with one_thread():
            if rounding == "gptq" and max(nearest.quant.block) > 1:
                worth = _rows(op, np.broadcast_to(scale, w.shape), len(inputs))
                found = gptq(rows, inputs, low, high, worth / worth.max())
            else:
                found = ROUNDINGS[rounding](rows, inputs, low, high)
        shape = np.moveaxis(w, axis, 0).shape
        codes = np.moveaxis(found.reshape(shape), 0, axis)
        known[key] = np.ascontiguousarray(codes.astype(np.int8))
    return Coded(known[key], I8, nearest.quant)


def _rows(op: Sum, w: Array, groups: int) -> Reals:
    """What each output sums: [G, M / G, K]."""
    first = np.moveaxis(w, _output_axis(op, w.ndim), 0)
    return first.reshape(groups, len(first) // groups, -1).astype(np.float64)
