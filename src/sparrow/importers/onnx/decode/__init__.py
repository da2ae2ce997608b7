"""ONNX operators -> Builder calls. One table; ``domain.Name`` for operators outside the standard
domain.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparrow.importers.onnx.call import Decoder
from sparrow.importers.onnx.decode import (
    arrange,
    attention,
    channels_last,
    control,
    convolution,
    dynamic_recurrent,
    einsum,
    elementwise,
    experts,
    fused,
    grouped_query,
    indexing,
    integer_products,
    linear,
    loss,
    movement,
    normalize,
    numeric,
    pooling,
    quantized,
    recurrent,
    reduction,
    refused,
    resample,
    rotary,
    runtime_attention,
    selection,
    sequence,
    spectral,
    tabular,
)

DECODERS: Mapping[str, Decoder] = {
    **arrange.DECODERS,
    **attention.DECODERS,
    **channels_last.DECODERS,
    **control.DECODERS,
    **convolution.DECODERS,
    **dynamic_recurrent.DECODERS,
    **einsum.DECODERS,
    **elementwise.DECODERS,
    **experts.DECODERS,
    **fused.DECODERS,
    **grouped_query.DECODERS,
    **indexing.DECODERS,
    **integer_products.DECODERS,
    **linear.DECODERS,
    **loss.DECODERS,
    **movement.DECODERS,
    **normalize.DECODERS,
    **numeric.DECODERS,
    **pooling.DECODERS,
    **quantized.DECODERS,
    **recurrent.DECODERS,
    **reduction.DECODERS,
    **refused.DECODERS,
    **resample.DECODERS,
    **rotary.DECODERS,
    **runtime_attention.DECODERS,
    **selection.DECODERS,
    **sequence.DECODERS,
    **spectral.DECODERS,
    **tabular.DECODERS,
}
# What has a decoder that does more than say why not.
SUPPORTED: tuple[str, ...] = tuple(k for k in DECODERS if k not in refused.DECODERS)
