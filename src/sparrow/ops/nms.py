"""Non-maximum suppression of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.padded import export_count, export_packed, packed
from sparrow.tensor import F32, I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

_f = np.float32


def corners(boxes: Array, center: bool) -> Array:
    """Boxes [n, 4] as (low, low, high, high) float32 corners of axes 0 and 1."""
    a, b, c, d = (boxes[:, i].astype(_f) for i in range(4))
    if center:
        half_w, half_h = c / _f(2), d / _f(2)
        return np.stack([b - half_h, a - half_w, b + half_h, a + half_w], 1)
    return np.stack([np.minimum(a, c), np.minimum(b, d), np.maximum(a, c), np.maximum(b, d)], 1)


def overlaps(box: Array, others: Array, threshold: np.float32) -> Array:
    """Whether the intersection over union of ``box`` [4] with ``others`` [n, 4] exceeds the
    threshold.
    """
    zero = _f(0)
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    side = np.maximum(high - low, zero)
    inter = side[:, 0] * side[:, 1]
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = area + areas - inter
    positive = (inter > zero) & (area > zero) & (areas > zero) & (union > zero)
    return np.asarray(positive & (inter > threshold * union))


@dataclass(frozen=True, slots=True)
class NonMaxSuppression(Op):
    """(selected int64 [B * C * min(limit, N), 3], count int64 []). ONNX NonMaxSuppression-11.

    boxes float32 [B, N, 4], scores float32 [B, C, N], iou and score thresholds float32 scalars (or
    one element). Per batch and class the boxes are taken by falling score (equal scores: lower
    index first) unless they overlap one taken before by more than iou; each row of ``selected`` is
    (batch, class, box). Boxes at or below the score threshold are left out; an absent threshold
    keeps all. Rows from ``count`` on are zero.

    Attributes:
        limit: Most boxes taken per batch and class.
        center: Boxes are (x center, y center, width, height), else two corners (y, x, y, x).
    """

    limit: int
    center: bool = False

    def infer(
        self,
        boxes: TensorType,
        scores: TensorType,
        iou: TensorType | None = None,
        score: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        if boxes.rank != 3 or scores.rank != 3 or boxes.shape[2] != 4 or self.limit < 0:
            raise InvalidGraph(f"boxes {boxes}, scores {scores}")
        b, c, n = scores.shape
        if boxes.shape[:2] != (b, n) or boxes.dtype != F32 or scores.dtype != F32:
            raise InvalidGraph(f"boxes {boxes} do not fit scores {scores}")
        for t in (iou, score):
            if t is not None and (t.dtype != F32 or t.size != 1):
                raise InvalidGraph(f"threshold is {t}, expected one float32")
        return TensorType((b * c * min(self.limit, n), 3), I64), TensorType((), I64)

    def eval(
        self, boxes: Array, scores: Array, iou: Array | None = None, score: Array | None = None
    ) -> tuple[Array, ...]:
        limit = _f(0) if iou is None else iou.ravel()[0]
        found: list[tuple[int, int, int]] = []
        for b in range(scores.shape[0]):
            shape = corners(boxes[b], self.center)
            for c in range(scores.shape[1]):
                s = scores[b, c]
                alive = ~np.isnan(s) if score is None else s > score.ravel()[0]
                order = [int(i) for i in np.argsort(-s, kind="stable") if alive[i]]
                kept: list[int] = []
                for i in order:
                    if len(kept) == self.limit:
                        break
                    if not overlaps(shape[i], shape[kept], limit).any():
                        kept.append(i)
                found += [(b, c, i) for i in kept]
        rows = scores.shape[0] * scores.shape[1] * min(self.limit, scores.shape[2])
        selected = np.array(found, np.int64).reshape(-1, 3)
        return packed(selected, (rows, 3)), np.array(len(found), np.int64)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        scores = x[1]
        assert scores is not None
        return 12 * y[0].shape[0] * scores.shape[2]

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[1] is not None
        return 16 * x[1].size

    def export(self, w: Writer, site: Site) -> None:
        names = [*site.inputs[:2], w.const(np.array([self.limit], np.int64))]
        for i in (2, 3):
            given = site.inputs[i] if len(site.inputs) > i else ""
            names.append(
                w.node("Reshape", [given, w.const(np.array([1], np.int64))]) if given else ""
            )
        kept = w.node("NonMaxSuppression", names, center_point_box=int(self.center))
        y, count = site.outputs
        export_packed(w, kept, site.out_types[0].shape, y)
        export_count(w, kept, 0, count)
