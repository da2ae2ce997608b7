/* Non-maximum suppression: per batch and class, boxes by falling score (equal scores: lower index
 * first) unless they overlap one taken before. boxes [batch][n][4], scores [batch][classes][n], y
 * [batch * classes * min(limit, n)][3] = (batch, class, box), zero from count on; heap [n] is
 * scratch. Thresholds are read when has_iou, has_score say so; without a score threshold NaN scores
 * drop out. */
#ifndef SP_NMS_F32_H
#define SP_NMS_F32_H

#include "../base.h"

typedef struct sp_nms {
  int batch, classes, n, limit, center, has_iou, has_score;
} sp_nms;

/* Low and high corner of a box, each an (axis 0, axis 1) pair. */
SP_INLINE void sp_nms_corners(const sp_nms p, const float *b, float *c) {
  if (p.center) {
    const float w = b[2] / 2.0f, h = b[3] / 2.0f;
    c[0] = b[1] - h, c[1] = b[0] - w, c[2] = b[1] + h, c[3] = b[0] + w;
  } else {
    c[0] = b[0] < b[2] ? b[0] : b[2], c[1] = b[1] < b[3] ? b[1] : b[3];
    c[2] = b[0] < b[2] ? b[2] : b[0], c[3] = b[1] < b[3] ? b[3] : b[1];
  }
}

SP_INLINE int sp_nms_overlaps(const float *a, const float *b, float threshold) {
  const float low0 = a[0] > b[0] ? a[0] : b[0], low1 = a[1] > b[1] ? a[1] : b[1];
  const float high0 = a[2] < b[2] ? a[2] : b[2], high1 = a[3] < b[3] ? a[3] : b[3];
  const float side0 = high0 - low0, side1 = high1 - low1;
  const float inter = (side0 > 0 ? side0 : 0) * (side1 > 0 ? side1 : 0);
  const float first = (a[2] - a[0]) * (a[3] - a[1]), second = (b[2] - b[0]) * (b[3] - b[1]);
  const float all = first + second - inter;
  return inter > 0 && first > 0 && second > 0 && all > 0 && inter > threshold * all;
}

SP_INLINE int sp_nms_before(const float *s, int32_t i, int32_t j) {
  return s[i] > s[j] || (s[i] == s[j] && i < j);
}

SP_OUTLINE void sp_nms_sift(const float *s, int32_t *heap, int root, int n) {
  const int32_t moved = heap[root];
  for (;;) {
    int c = 2 * root + 1;
    if (c >= n) break;
    if (c + 1 < n && sp_nms_before(s, heap[c + 1], heap[c])) ++c;
    if (!sp_nms_before(s, heap[c], moved)) break;
    heap[root] = heap[c];
    root = c;
  }
  heap[root] = moved;
}

SP_INLINE void sp_nms_f32(const sp_nms p, const float *boxes, const float *scores,
                          const float *iou, const float *score, int64_t *y, int64_t *count,
                          int32_t *heap, int task) {
  const int most = p.limit < p.n ? p.limit : p.n;
  ptrdiff_t found = 0;
  (void)task;
  for (int b = 0; b < p.batch; ++b)
    for (int c = 0; c < p.classes; ++c) {
      const float *s = scores + ((ptrdiff_t)b * p.classes + c) * p.n;
      const float *box = boxes + (ptrdiff_t)b * p.n * 4;
      const ptrdiff_t start = found;
      int left = 0;
      for (int i = 0; i < p.n; ++i)
        if (p.has_score ? s[i] > *score : s[i] == s[i]) heap[left++] = i;
      for (int i = left / 2 - 1; i >= 0; --i) sp_nms_sift(s, heap, i, left);
      while (left > 0 && found - start < most) {
        const int32_t best = heap[0];
        float at[4], other[4];
        int free = 1;
        heap[0] = heap[--left];
        if (left > 0) sp_nms_sift(s, heap, 0, left);
        sp_nms_corners(p, box + (ptrdiff_t)best * 4, at);
        for (ptrdiff_t k = start; free && k < found; ++k) {
          sp_nms_corners(p, box + (ptrdiff_t)y[3 * k + 2] * 4, other);
          free = !sp_nms_overlaps(at, other, p.has_iou ? *iou : 0.0f);
        }
        if (free) {
          y[3 * found] = b, y[3 * found + 1] = c, y[3 * found + 2] = best;
          ++found;
        }
      }
    }
  for (ptrdiff_t i = 3 * found; i < (ptrdiff_t)p.batch * p.classes * most * 3; ++i) y[i] = 0;
  *count = found;
}

#endif
