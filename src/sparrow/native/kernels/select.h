/* Elements selected by order, condition or being distinct; dense operands. Where the extent of a
 * result depends on the data it lies packed at the start, zeros behind it, and a count says how far
 * it goes. */
#ifndef SP_SELECT_H
#define SP_SELECT_H

#include "../base.h"
#include "element.h"

/* The k first elements along the middle axis of x [outer][n][inner], sorted; of equal ones the
 * lower index comes first, NaN is larger than everything. y and at are [outer][k][inner]. Tasks are
 * runs of outer. A heap of the k best so far lies in at, the one to be replaced first on top. */
typedef struct sp_topk {
  int smallest;
  ptrdiff_t outer, n, k, inner, task_rows;
} sp_topk;

/* From element i on the first of a vector in which something may come before `top`, or beside it,
 * or where whole vectors end: of many elements few do. Comparisons with NaN are false, and so it is
 * looked at. */
SP_INLINE ptrdiff_t sp_topk_pass(const sp_topk p, const float *x, ptrdiff_t i, float top,
                                 int beside) {
  const sp_f32 t = sp_set1_f32(top);
  for (; i + SP_LANES <= p.n; i += SP_LANES) {
    const sp_f32 v = sp_load_f32(x + i), a = p.smallest ? t : v, b = p.smallest ? v : t;
    if (sp_mask_any(sp_mask_not(beside ? sp_lt_f32(a, b) : sp_le_f32(a, b)))) break;
  }
  return i;
}

/* What k elements do not come behind: the last of the first ones of k groups or more. NaN, which
 * bounds nothing, where that of a group is. */
SP_INLINE float sp_topk_bound(const sp_topk p, const float *x, ptrdiff_t groups) {
  float first[SP_LANES], bound = 0;
  for (ptrdiff_t g = 0; g < groups; g += SP_LANES) {
    sp_f32 best = sp_load_f32(x + g);
    for (ptrdiff_t i = g + groups; i + SP_LANES <= p.n; i += groups) {
      const sp_f32 v = sp_load_f32(x + i);
      best = p.smallest ? sp_min_f32(best, v) : sp_max_f32(best, v);
    }
    sp_store_f32(first, best);
    for (ptrdiff_t l = 0; l < SP_LANES; ++l) {
      const float f = first[l];
      if (f != f) return f;
      if (g + l == 0 || (p.smallest ? f > bound : f < bound)) bound = f;
    }
  }
  return bound;
}

#define SP_DEFINE_TOPK(name, T, A, W)                                                            \
  SP_INLINE int sp_topk_before_##name(const sp_topk p, const T *x, int64_t i, int64_t j) {       \
    const A a = sp_get_##name(x + i * p.inner), b = sp_get_##name(x + j * p.inner);              \
    const int na = a != a, nb = b != b;                                                          \
    if (na != nb) return p.smallest ? nb : na;                                                   \
    if (na || a == b) return i < j;                                                              \
    return p.smallest ? a < b : a > b;                                                           \
  }                                                                                              \
  SP_INLINE void sp_topk_sift_##name(const sp_topk p, const T *x, int64_t *heap, ptrdiff_t root, \
                                     ptrdiff_t n) {                                              \
    const int64_t moved = heap[root * p.inner];                                                  \
    for (;;) {                                                                                   \
      ptrdiff_t c = 2 * root + 1;                                                                \
      if (c >= n) break;                                                                         \
      if (c + 1 < n &&                                                                           \
          sp_topk_before_##name(p, x, heap[c * p.inner], heap[(c + 1) * p.inner]))               \
        ++c;                                                                                     \
      if (!sp_topk_before_##name(p, x, moved, heap[c * p.inner])) break;                         \
      heap[root * p.inner] = heap[c * p.inner];                                                  \
      root = c;                                                                                  \
    }                                                                                            \
    heap[root * p.inner] = moved;                                                                \
  }                                                                                              \
  SP_INLINE void sp_topk_##name(const sp_topk p, const T *x, T *y, int64_t *at, int task) {      \
    const ptrdiff_t hi = sp_imin(p.outer, (task + 1) * p.task_rows);                             \
    const int floats = (T)0.5 != 0 && sizeof(T) == sizeof(float);                                \
    for (ptrdiff_t o = task * p.task_rows; o < hi; ++o)                                          \
      for (ptrdiff_t j = 0; j < p.inner; ++j) {                                                  \
        const T *q = x + o * p.n * p.inner + j;                                                  \
        int64_t *heap = at + o * p.k * p.inner + j;                                              \
        T *out = y + o * p.k * p.inner + j;                                                      \
        const int plain = floats && p.inner == 1;                                                \
        const ptrdiff_t groups = (p.k + SP_LANES - 1) / SP_LANES * SP_LANES;                     \
        const int bounded = plain && SP_LANES > 1 && p.n >= 4 * groups;                          \
        const float *f = (const float *)(const void *)q;                                         \
        const float bound = bounded ? sp_topk_bound(p, f, groups) : 0;                           \
        ptrdiff_t held = 0;                                                                      \
        for (ptrdiff_t i = 0, end = p.n; i < p.n; end = p.n) {                                   \
          const int full = held == p.k;                                                          \
          if (plain) {                                                                           \
            if (full || bounded) i = sp_topk_pass(p, f, i, full ? f[heap[0]] : bound, !full);    \
            end = sp_imin(i + SP_LANES, p.n);                                                    \
          }                                                                                      \
          for (; i < end; ++i)                                                                   \
            if (held < p.k) {                                                                    \
              if (bounded && (p.smallest ? f[i] > bound : f[i] < bound)) continue;               \
              heap[held++ * p.inner] = i;                                                        \
              for (ptrdiff_t r = held < p.k ? -1 : p.k / 2 - 1; r >= 0; --r)                     \
                sp_topk_sift_##name(p, q, heap, r, p.k);                                         \
            } else if (!(plain && (p.smallest ? f[i] >= f[heap[0]] : f[i] <= f[heap[0]])) &&     \
                       sp_topk_before_##name(p, q, i, heap[0])) {                                \
              heap[0] = i;                                                                       \
              sp_topk_sift_##name(p, q, heap, 0, p.k);                                           \
            }                                                                                    \
        }                                                                                        \
        for (ptrdiff_t i = p.k - 1; i > 0; --i) {                                                \
          const int64_t last = heap[0];                                                          \
          heap[0] = heap[i * p.inner];                                                           \
          heap[i * p.inner] = last;                                                              \
          sp_topk_sift_##name(p, q, heap, 0, i);                                                 \
        }                                                                                        \
        for (ptrdiff_t i = 0; i < p.k; ++i) out[i * p.inner] = q[heap[i * p.inner] * p.inner];   \
      }                                                                                          \
  }
SP_FLOAT_TYPES(SP_DEFINE_TOPK)
SP_INT_TYPES(SP_DEFINE_TOPK)

/* Coordinates [rank][count] of the elements that are not zero, in row-major order. */
typedef struct sp_nonzero {
  int rank;
  ptrdiff_t size, d[8];
} sp_nonzero;

#define SP_DEFINE_NONZERO(name, T, A, W)                                                       \
  SP_INLINE void sp_nonzero_##name(const sp_nonzero p, const T *x, int64_t *y, int64_t *count, \
                                   int task) {                                                 \
    ptrdiff_t all = 0, found = 0;                                                              \
    (void)task;                                                                                \
    for (ptrdiff_t i = 0; i < p.size; ++i) all += sp_get_##name(x + i) != 0;                   \
    for (ptrdiff_t i = 0; i < p.size; ++i) {                                                   \
      ptrdiff_t rest = i;                                                                      \
      if (sp_get_##name(x + i) == 0) continue;                                                 \
      for (int a = p.rank - 1; a >= 0; --a) {                                                  \
        y[a * all + found] = rest % p.d[a];                                                    \
        rest /= p.d[a];                                                                        \
      }                                                                                        \
      ++found;                                                                                 \
    }                                                                                          \
    for (ptrdiff_t i = p.rank * all; i < p.rank * p.size; ++i) y[i] = 0;                       \
    *count = all;                                                                              \
  }
SP_FLOAT_TYPES(SP_DEFINE_NONZERO)
SP_INT_TYPES(SP_DEFINE_NONZERO)

/* Slices of x [outer][n][inner] where one of m conditions holds, in y [outer][count][inner]. */
typedef struct sp_compress {
  ptrdiff_t outer, n, m, inner;
} sp_compress;

#define SP_DEFINE_COMPRESS(name, T, A, W)                                                      \
  SP_INLINE void sp_compress_##name(const sp_compress p, const T *x, const uint8_t *condition, \
                                    T *y, int64_t *count, int task) {                          \
    T *const end = y + p.outer * p.m * p.inner;                                                \
    ptrdiff_t kept = 0;                                                                        \
    (void)task;                                                                                \
    for (ptrdiff_t i = 0; i < p.m; ++i) kept += condition[i] != 0;                             \
    for (ptrdiff_t o = 0; o < p.outer; ++o)                                                    \
      for (ptrdiff_t i = 0; i < p.m; ++i) {                                                    \
        const T *q = x + (o * p.n + i) * p.inner;                                              \
        if (!condition[i]) continue;                                                           \
        for (ptrdiff_t j = 0; j < p.inner; ++j) *y++ = q[j];                                   \
      }                                                                                        \
    while (y < end) *y++ = 0;                                                                  \
    *count = kept;                                                                             \
  }
SP_FLOAT_TYPES(SP_DEFINE_COMPRESS)
SP_INT_TYPES(SP_DEFINE_COMPRESS)

/* Distinct slices of x [outer][n][inner] along n: y [outer][count][inner], first and repeats
 * [count], inverse [n]; order [n] is scratch. Slices compare element by element, NaN after
 * everything and equal to itself; ordered: ascending, else by first occurrence. */
typedef struct sp_unique {
  int ordered;
  ptrdiff_t outer, n, inner;
} sp_unique;

#define SP_DEFINE_UNIQUE(name, T, A, W)                                                           \
  SP_INLINE int sp_unique_compare_##name(const sp_unique p, const T *x, ptrdiff_t i,              \
                                         ptrdiff_t j) {                                           \
    for (ptrdiff_t o = 0; o < p.outer; ++o)                                                       \
      for (ptrdiff_t k = 0; k < p.inner; ++k) {                                                   \
        const A a = sp_get_##name(x + (o * p.n + i) * p.inner + k);                               \
        const A b = sp_get_##name(x + (o * p.n + j) * p.inner + k);                               \
        const int na = a != a, nb = b != b;                                                       \
        if (a < b || (nb && !na)) return -1;                                                      \
        if (a > b || (na && !nb)) return 1;                                                       \
      }                                                                                           \
    return 0;                                                                                     \
  }                                                                                               \
  SP_INLINE int sp_unique_after_##name(const sp_unique p, const T *x, int32_t i, int32_t j) {     \
    const int c = sp_unique_compare_##name(p, x, i, j);                                           \
    return c > 0 || (c == 0 && i > j);                                                            \
  }                                                                                               \
  SP_OUTLINE void sp_unique_sift_##name(const sp_unique p, const T *x, int32_t *heap,             \
                                        ptrdiff_t root, ptrdiff_t n) {                            \
    const int32_t moved = heap[root];                                                             \
    for (;;) {                                                                                    \
      ptrdiff_t c = 2 * root + 1;                                                                 \
      if (c >= n) break;                                                                          \
      if (c + 1 < n && sp_unique_after_##name(p, x, heap[c + 1], heap[c])) ++c;                   \
      if (!sp_unique_after_##name(p, x, heap[c], moved)) break;                                   \
      heap[root] = heap[c];                                                                       \
      root = c;                                                                                   \
    }                                                                                             \
    heap[root] = moved;                                                                           \
  }                                                                                               \
  SP_INLINE void sp_unique_##name(const sp_unique p, const T *x, T *y, int64_t *first,            \
                                  int64_t *inverse, int64_t *repeats, int64_t *count,             \
                                  int32_t *order, int task) {                                     \
    ptrdiff_t found = 0, leader = 0;                                                              \
    (void)task;                                                                                   \
    for (ptrdiff_t i = 0; i < p.n; ++i) order[i] = (int32_t)i, repeats[i] = 0, first[i] = 0;      \
    for (ptrdiff_t i = p.n / 2 - 1; i >= 0; --i) sp_unique_sift_##name(p, x, order, i, p.n);      \
    for (ptrdiff_t i = p.n - 1; i > 0; --i) {                                                     \
      const int32_t last = order[0];                                                              \
      order[0] = order[i];                                                                        \
      order[i] = last;                                                                            \
      sp_unique_sift_##name(p, x, order, 0, i);                                                   \
    }                                                                                             \
    /* inverse holds the first occurrence of each slice until ranks are known */                  \
    for (ptrdiff_t i = 0; i < p.n; ++i) {                                                         \
      const int fresh = i == 0 || sp_unique_compare_##name(p, x, order[i - 1], order[i]) != 0;    \
      if (fresh) leader = order[i];                                                               \
      inverse[order[i]] = leader;                                                                 \
      if (fresh && p.ordered) first[found++] = leader;                                            \
    }                                                                                             \
    if (p.ordered) {                                                                              \
      for (ptrdiff_t i = 0; i < found; ++i) order[first[i]] = (int32_t)i;                         \
      for (ptrdiff_t i = 0; i < p.n; ++i) inverse[i] = order[inverse[i]];                         \
    } else {                                                                                      \
      for (ptrdiff_t i = 0; i < p.n; ++i) {                                                       \
        if (inverse[i] == i) {                                                                    \
          first[found] = i;                                                                       \
          inverse[i] = found++;                                                                   \
        } else {                                                                                  \
          inverse[i] = inverse[inverse[i]];                                                       \
        }                                                                                         \
      }                                                                                           \
    }                                                                                             \
    for (ptrdiff_t i = 0; i < p.n; ++i) ++repeats[inverse[i]];                                    \
    for (ptrdiff_t o = 0; o < p.outer; ++o)                                                       \
      for (ptrdiff_t i = 0; i < found; ++i)                                                       \
        for (ptrdiff_t k = 0; k < p.inner; ++k)                                                   \
          *y++ = x[(o * p.n + (ptrdiff_t)first[i]) * p.inner + k];                                \
    for (ptrdiff_t i = found * p.outer * p.inner; i < p.n * p.outer * p.inner; ++i) *y++ = 0;     \
    *count = found;                                                                               \
  }
SP_FLOAT_TYPES(SP_DEFINE_UNIQUE)
SP_INT_TYPES(SP_DEFINE_UNIQUE)

#endif
