"""ONNX operators -> Builder calls. One table; ``domain.Name`` for operators outside the standard domain."""

from __future__ import annotations

from collections.abc import Mapping

from sparrow.importers.onnx.call import Decoder
from sparrow.importers.onnx.decode import (
    attention,
    elementwise,
    indexing,
    linear,
    movement,
    normalize,
    numeric,
    recurrent,
    refused,
    select,
)

DECODERS: Mapping[str, Decoder] = {
    **attention.DECODERS,
    **elementwise.DECODERS,
    **indexing.DECODERS,
    **linear.DECODERS,
    **movement.DECODERS,
    **normalize.DECODERS,
    **numeric.DECODERS,
    **recurrent.DECODERS,
    **refused.DECODERS,
    **select.DECODERS,
}
