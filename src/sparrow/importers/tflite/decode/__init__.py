"""TFLite operators -> Builder calls, one table."""

from __future__ import annotations

from collections.abc import Mapping

from sparrow.importers.tflite.call import Decoder
from sparrow.importers.tflite.decode import (
    blocks,
    convolution,
    elementwise,
    mediapipe,
    movement,
    recurrent,
    reduction,
)

DECODERS: Mapping[str, Decoder] = {
    **blocks.DECODERS,
    **convolution.DECODERS,
    **elementwise.DECODERS,
    **mediapipe.DECODERS,
    **movement.DECODERS,
    **recurrent.DECODERS,
    **reduction.DECODERS,
}
