"""Softmax family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.ops.softmax import Softmax


def _softmax(log: bool) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        shape = n.type().shape
        if n.version >= 13:
            return [n.b.add(Softmax(n.axis(int(n.attr("axis", -1)), len(shape)), log), n.x())]
        # before opset 13 the axes from `axis` on were one
        axis = n.axis(int(n.attr("axis", 1)), len(shape)) if shape else 0
        rows = int(np.prod(shape[:axis], dtype=np.int64))
        flat = n.b.reshape(n.x(), (rows, n.type().size // max(rows, 1)))
        return [n.b.reshape(n.b.add(Softmax(1, log), flat), shape)]

    return decode


DECODERS: Mapping[str, Decoder] = {
    "Softmax": _softmax(False),
    "LogSoftmax": _softmax(True),
}
