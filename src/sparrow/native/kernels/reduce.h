/* Reductions, arg-reductions and running sums.
 *   sp_reduce_<type>     any axes, any strides
 *   sp_reduce_rows_f32   x is [outer][n][inner], dense, reduced over n; lanes along n or inner
 *   sp_reduce_rows_<integer>   the same, but for means
 *   sp_arg_<type>, sp_scan_<type>   along the middle axis of a dense [outer][n][inner]
 * Maximum and minimum give NaN when there is one. */
#ifndef SP_REDUCE_H
#define SP_REDUCE_H

#include "../base.h"
#include "element.h"

enum { SP_SUM, SP_MEAN, SP_MAX, SP_MIN, SP_PROD };

/* kept and reduced: extents and x strides, unused ones 1 and 0. y is dense over the kept axes. */
typedef struct sp_reduce {
  int kind;
  ptrdiff_t kept[4], ks[4], reduced[4], rs[4];
  ptrdiff_t task_size;
} sp_reduce;

#define SP_DEFINE_REDUCE(name, T, A, W)                                                            \
  SP_INLINE A sp_reduce_one_##name(const sp_reduce p, const T *x) {                                \
    W sum = (W)(p.kind == SP_PROD);                                                                \
    A best = p.kind == SP_MAX ? sp_low_##name() : sp_high_##name();                                \
    for (ptrdiff_t a = 0; a < p.reduced[0]; ++a)                                                   \
      for (ptrdiff_t b = 0; b < p.reduced[1]; ++b)                                                 \
        for (ptrdiff_t c = 0; c < p.reduced[2]; ++c) {                                             \
          const T *q = x + a * p.rs[0] + b * p.rs[1] + c * p.rs[2];                                \
          for (ptrdiff_t d = 0; d < p.reduced[3]; ++d) {                                           \
            const A v = sp_get_##name(q + d * p.rs[3]);                                            \
            if (p.kind == SP_MAX)                                                                  \
              best = (v > best || v != v) ? v : best;                                              \
            else if (p.kind == SP_MIN)                                                             \
              best = (v < best || v != v) ? v : best;                                              \
            else if (p.kind == SP_PROD)                                                            \
              sum *= sp_widen_##name(v);                                                           \
            else                                                                                   \
              sum += sp_widen_##name(v);                                                           \
          }                                                                                        \
        }                                                                                          \
    if (p.kind == SP_MAX || p.kind == SP_MIN) return best;                                         \
    if (p.kind == SP_MEAN)                                                                         \
      return sp_quotient_##name(sum, p.reduced[0] * p.reduced[1] * p.reduced[2] * p.reduced[3]);   \
    return sp_narrow_##name(sum);                                                                  \
  }                                                                                                \
  SP_INLINE void sp_reduce_##name(const sp_reduce p, const T *x, T *y, int task) {                 \
    const ptrdiff_t size = p.kept[0] * p.kept[1] * p.kept[2] * p.kept[3];                          \
    const ptrdiff_t lo = task * p.task_size, hi = sp_imin(size, lo + p.task_size);                 \
    for (ptrdiff_t i = lo; i < hi; ++i) {                                                          \
      const ptrdiff_t d = i % p.kept[3], i3 = i / p.kept[3];                                       \
      const ptrdiff_t c = i3 % p.kept[2], i2 = i3 / p.kept[2];                                     \
      const ptrdiff_t b = i2 % p.kept[1], a = i2 / p.kept[1];                                      \
      const T *q = x + a * p.ks[0] + b * p.ks[1] + c * p.ks[2] + d * p.ks[3];                      \
      sp_put_##name(y + i, sp_reduce_one_##name(p, q));                                            \
    }                                                                                              \
  }
SP_FLOAT_TYPES(SP_DEFINE_REDUCE)
SP_INT_TYPES(SP_DEFINE_REDUCE)

/* A task takes so many of outer and so many columns of inner: all of them, or all but the last task
 * whole blocks of SP_REDUCED vectors. */
typedef struct sp_rows {
  int kind, outer, n, inner, task_rows, task_columns;
} sp_rows;

/* Vectors of a row that are reduced beside one another: a walk down single ones meets a page at
 * each step where rows are long. */
enum { SP_REDUCED = 8 };

typedef struct sp_part {
  int lo, hi, left, right;
} sp_part;

SP_INLINE sp_part sp_part_of(const sp_rows p, int task) {
  const int across = (p.inner + p.task_columns - 1) / p.task_columns;
  const int lo = task / across * p.task_rows, left = task % across * p.task_columns;
  return (sp_part){lo, (int)sp_imin(p.outer, lo + p.task_rows), left,
                   (int)sp_imin(p.inner, left + p.task_columns)};
}

SP_INLINE sp_f32 sp_reduce_step_f32(int kind, sp_f32 acc, sp_f32 v) {
  return kind == SP_MAX    ? sp_max_f32(v, acc)
         : kind == SP_MIN  ? sp_min_f32(v, acc)
         : kind == SP_PROD ? sp_mul_f32(acc, v)
                           : sp_add_f32(acc, v);
}
SP_INLINE sp_f32 sp_reduce_start_f32(int kind) {
  return sp_set1_f32(kind == SP_MAX    ? sp_low_f32()
                     : kind == SP_MIN  ? sp_high_f32()
                     : kind == SP_PROD ? 1.0f
                                       : 0.0f);
}

SP_INLINE float sp_reduce_row_f32(const sp_rows p, const float *x) {
  const int n = p.n;
  sp_f32 a[4];
  float part[SP_LANES], r;
  int j = 0;
  for (int k = 0; k < 4; ++k) a[k] = sp_reduce_start_f32(p.kind);
  for (; j + 4 * SP_LANES <= n; j += 4 * SP_LANES)
    for (int k = 0; k < 4; ++k)
      a[k] = sp_reduce_step_f32(p.kind, a[k], sp_load_f32(x + j + k * SP_LANES));
  for (; j + SP_LANES <= n; j += SP_LANES)
    a[0] = sp_reduce_step_f32(p.kind, a[0], sp_load_f32(x + j));
  a[0] = sp_reduce_step_f32(p.kind, sp_reduce_step_f32(p.kind, a[0], a[1]),
                            sp_reduce_step_f32(p.kind, a[2], a[3]));
  sp_store_f32(part, a[0]);
  r = part[0];
  for (int k = 1; k < SP_LANES; ++k)
    r = sp_lane0(sp_reduce_step_f32(p.kind, sp_set1_f32(r), sp_set1_f32(part[k])));
  for (; j < n; ++j) r = sp_lane0(sp_reduce_step_f32(p.kind, sp_set1_f32(r), sp_set1_f32(x[j])));
  return p.kind == SP_MEAN ? r / (float)n : r;
}

SP_INLINE void sp_reduce_lanes_f32(const sp_rows p, const float *x, float *y, int lanes) {
  sp_f32 a = sp_reduce_start_f32(p.kind), b = a;
  int i = 0;
  for (; i + 2 <= p.n; i += 2) {
    a = sp_reduce_step_f32(p.kind, a, sp_loadn_f32(x + (ptrdiff_t)i * p.inner, lanes));
    b = sp_reduce_step_f32(p.kind, b, sp_loadn_f32(x + (ptrdiff_t)(i + 1) * p.inner, lanes));
  }
  if (i < p.n) a = sp_reduce_step_f32(p.kind, a, sp_loadn_f32(x + (ptrdiff_t)i * p.inner, lanes));
  a = sp_reduce_step_f32(p.kind, a, b);
  if (p.kind == SP_MEAN) a = sp_div_f32(a, sp_set1_f32((float)p.n));
  sp_storen_f32(y, a, lanes);
}

SP_INLINE void sp_reduce_block_f32(const sp_rows p, const float *x, float *y) {
  sp_f32 a[SP_REDUCED];
  SP_UNROLL
  for (int k = 0; k < SP_REDUCED; ++k) a[k] = sp_reduce_start_f32(p.kind);
  for (int i = 0; i < p.n; ++i, x += p.inner) {
    SP_UNROLL
    for (int k = 0; k < SP_REDUCED; ++k)
      a[k] = sp_reduce_step_f32(p.kind, a[k], sp_load_f32(x + k * SP_LANES));
  }
  SP_UNROLL
  for (int k = 0; k < SP_REDUCED; ++k) {
    if (p.kind == SP_MEAN) a[k] = sp_div_f32(a[k], sp_set1_f32((float)p.n));
    sp_store_f32(y + k * SP_LANES, a[k]);
  }
}

/* SP_LANES rows at once, whose elements turn into vectors of one element of each. */
SP_INLINE void sp_reduce_turned_f32(const sp_rows p, const float *x, float *y) {
  sp_f32 a = sp_reduce_start_f32(p.kind);
  for (int k = 0; k < p.n; k += SP_LANES) {
    const int n = (int)sp_imin(SP_LANES, p.n - k);
    sp_f32 v[SP_LANES];
    SP_UNROLL
    for (int l = 0; l < SP_LANES; ++l) v[l] = sp_loadn_f32(x + (ptrdiff_t)l * p.n + k, n);
    sp_transpose_f32(v);
    SP_UNROLL
    for (int l = 0; l < SP_LANES; ++l)
      if (l < n) a = sp_reduce_step_f32(p.kind, a, v[l]);
  }
  if (p.kind == SP_MEAN) a = sp_div_f32(a, sp_set1_f32((float)p.n));
  sp_store_f32(y, a);
}

SP_INLINE void sp_reduce_rows_f32(const sp_rows p, const float *x, float *y, int task) {
  const sp_part t = sp_part_of(p, task);
  const int hi = t.hi;
  int i = t.lo;
  /* a row of few vectors is added up across its lanes, which takes longer than to turn them all */
  if (p.inner == 1 && p.n < 4 * SP_LANES) {
    for (; i + SP_LANES <= hi; i += SP_LANES) sp_reduce_turned_f32(p, x + (ptrdiff_t)i * p.n, y + i);
  }
  for (; i < hi; ++i) {
    const float *q = x + (ptrdiff_t)i * p.n * p.inner;
    float *o = y + (ptrdiff_t)i * p.inner;
    if (p.inner == 1) {
      *o = sp_reduce_row_f32(p, q);
    } else {
      int j = t.left;
      for (; j + SP_REDUCED * SP_LANES <= t.right; j += SP_REDUCED * SP_LANES)
        sp_reduce_block_f32(p, q + j, o + j);
      for (; j + SP_LANES <= t.right; j += SP_LANES) sp_reduce_lanes_f32(p, q + j, o + j, SP_LANES);
      if (j < t.right) sp_reduce_lanes_f32(p, q + j, o + j, t.right - j);
    }
  }
}

/* Integers, n >= 1: loops over elements, for compilers to make vectors of. Sums and products may wrap
 * at every step as well as at the end. */
#define SP_DEFINE_REDUCE_ROWS(name, T, A, W)                                                      \
  SP_INLINE T sp_further_##name(int kind, T a, T b) {                                             \
    if (kind == SP_SUM) return sp_narrow_##name(sp_widen_##name(a) + sp_widen_##name(b));         \
    if (kind == SP_PROD) return sp_narrow_##name(sp_widen_##name(a) * sp_widen_##name(b));        \
    return (kind == SP_MAX ? b > a : b < a) ? b : a;                                              \
  }                                                                                               \
  SP_INLINE void sp_reduce_rows_##name(const sp_rows p, const T *x, T *SP_RESTRICT y, int task) { \
    const sp_part t = sp_part_of(p, task);                                                        \
    for (int i = t.lo; i < t.hi; ++i) {                                                           \
      const T *q = x + (ptrdiff_t)i * p.n * p.inner;                                              \
      T *o = y + (ptrdiff_t)i * p.inner;                                                          \
      if (p.inner == 1) {                                                                         \
        T found = *q;                                                                             \
        for (int k = 1; k < p.n; ++k) found = sp_further_##name(p.kind, found, q[k]);             \
        *o = found;                                                                               \
        continue;                                                                                 \
      }                                                                                           \
      for (int j = t.left; j < t.right; ++j) o[j] = q[j];                                         \
      for (int k = 1; k < p.n; ++k) {                                                             \
        q += p.inner;                                                                             \
        for (int j = t.left; j < t.right; ++j) o[j] = sp_further_##name(p.kind, o[j], q[j]);      \
      }                                                                                           \
    }                                                                                             \
  }
SP_INT_TYPES(SP_DEFINE_REDUCE_ROWS)

/* Index of the first (last) largest or smallest element; a NaN beats every number. */
typedef struct sp_arg {
  int min, last, outer, n, inner, task_rows;
} sp_arg;

#define SP_DEFINE_ARG(name, T, A, W)                                                              \
  SP_INLINE int sp_arg_of_##name(const sp_arg p, const T *q) {                                    \
    A best = sp_get_##name(q);                                                                    \
    int at = 0;                                                                                   \
    for (int k = 1; k < p.n; ++k) {                                                               \
      const A v = sp_get_##name(q + (ptrdiff_t)k * p.inner);                                      \
      const int nan = v != v, had = best != best;                                                 \
      const int same = v == best || (nan && had);                                                 \
      const int wins = !had && (nan || (p.min ? v < best : v > best));                            \
      if (wins || (p.last && same)) best = v, at = k;                                             \
    }                                                                                             \
    return at;                                                                                    \
  }                                                                                               \
  SP_INLINE void sp_arg_##name(const sp_arg p, const T *x, int64_t *y, int task) {                \
    const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);              \
    for (int i = lo; i < hi; ++i)                                                                 \
      for (int j = 0; j < p.inner; ++j)                                                           \
        y[(ptrdiff_t)i * p.inner + j] =                                                           \
            sp_arg_of_##name(p, x + (ptrdiff_t)i * p.n * p.inner + j);                            \
  }
SP_FLOAT_TYPES(SP_DEFINE_ARG)
SP_INT_TYPES(SP_DEFINE_ARG)

/* The same of SP_LANES rows, or inner indices, at a time. */
typedef struct sp_arg_lanes {
  sp_f32 best;
  sp_i32 at;
} sp_arg_lanes;

SP_INLINE sp_arg_lanes sp_arg_next_f32(const sp_arg p, sp_arg_lanes a, sp_f32 v, int k) {
  const sp_f32 x = p.min ? sp_neg_f32(v) : v;
  const sp_mask nan = sp_isnan_f32(x);
  const sp_mask wins =
      p.last ? sp_mask_or(nan, sp_ge_f32(x, a.best))
             : sp_mask_and(sp_mask_or(nan, sp_gt_f32(x, a.best)),
                           sp_mask_not(sp_isnan_f32(a.best)));
  if (k == 0) return (sp_arg_lanes){x, sp_set1_i32(0)};
  a.best = sp_select_f32(wins, x, a.best);
  a.at = sp_select_i32(wins, sp_set1_i32(k), a.at);
  return a;
}

SP_INLINE void sp_arg_store(int64_t *y, sp_i32 at, int n) {
  int32_t found[SP_LANES];
  sp_store_i32(found, at);
  for (int l = 0; l < n; ++l) y[l] = found[l];
}

SP_INLINE void sp_arg_columns_f32(const sp_arg p, const float *x, int64_t *y, int n) {
  sp_arg_lanes a = {sp_zero_f32(), sp_set1_i32(0)};
  for (int k = 0; k < p.n; ++k)
    a = sp_arg_next_f32(p, a, sp_loadn_f32(x + (ptrdiff_t)k * p.inner, n), k);
  sp_arg_store(y, a.at, n);
}

SP_INLINE void sp_arg_lanes_f32(const sp_arg p, const float *x, int64_t *y, int task) {
  const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);
  int i = lo;
  if (p.inner > 1) {
    for (; i < hi; ++i) {
      const float *q = x + (ptrdiff_t)i * p.n * p.inner;
      int64_t *to = y + (ptrdiff_t)i * p.inner;
      int j = 0;
      for (; j + SP_LANES <= p.inner; j += SP_LANES) sp_arg_columns_f32(p, q + j, to + j, SP_LANES);
      if (j < p.inner) sp_arg_columns_f32(p, q + j, to + j, p.inner - j);
    }
    return;
  }
  for (; i + SP_LANES <= hi; i += SP_LANES) {
    sp_arg_lanes a = {sp_zero_f32(), sp_set1_i32(0)};
    for (int k = 0; k < p.n; k += SP_LANES) {
      const int n = (int)sp_imin(SP_LANES, p.n - k);
      sp_f32 v[SP_LANES];
      SP_UNROLL
      for (int l = 0; l < SP_LANES; ++l) v[l] = sp_loadn_f32(x + (ptrdiff_t)(i + l) * p.n + k, n);
      sp_transpose_f32(v);
      SP_UNROLL
      for (int l = 0; l < SP_LANES; ++l)
        if (l < n) a = sp_arg_next_f32(p, a, v[l], k + l);
    }
    sp_arg_store(y + i, a.at, SP_LANES);
  }
  for (; i < hi; ++i) y[i] = sp_arg_of_f32(p, x + (ptrdiff_t)i * p.n);
}

typedef struct sp_scan {
  int prod, exclusive, reverse, outer, n, inner, task_rows;
} sp_scan;

#define SP_DEFINE_SCAN(name, T, A, W)                                                             \
  SP_INLINE void sp_scan_##name(const sp_scan p, const T *x, T *y, int task) {                    \
    const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);              \
    for (int i = lo; i < hi; ++i)                                                                 \
      for (int j = 0; j < p.inner; ++j) {                                                         \
        W run = (W)p.prod;                                                                        \
        for (int k = 0; k < p.n; ++k) {                                                           \
          const int row = p.reverse ? p.n - 1 - k : k;                                            \
          const ptrdiff_t at = ((ptrdiff_t)i * p.n + row) * p.inner + j;                          \
          const W v = sp_widen_##name(sp_get_##name(x + at)), before = run;                       \
          run = p.prod ? run * v : run + v;                                                       \
          sp_put_##name(y + at, sp_narrow_##name(p.exclusive ? before : run));                    \
        }                                                                                         \
      }                                                                                           \
  }
SP_FLOAT_TYPES(SP_DEFINE_SCAN)
SP_INT_TYPES(SP_DEFINE_SCAN)

#endif
