/* Softmax and log-softmax over one axis: x and y are [outer][n][inner], dense.
 *   inner = 1   each row is a vector loop; short rows are turned so that each is a lane
 *   inner > 1   lanes run along inner
 * y may be x. The maximum is subtracted first, so the largest exponential is 1. */
#ifndef SP_SOFTMAX_F32_H
#define SP_SOFTMAX_F32_H

#include "../base.h"
#include "math.h"
#include "transpose.h"

typedef struct sp_softmax {
  int outer, n, inner, log, task_rows;
} sp_softmax;

/* The quick maximum may lose a NaN or keep it; either way the row's sum, and so all of it, is NaN. */
SP_INLINE void sp_softmax_row_f32(const sp_softmax p, const float *x, float *y) {
  const int full = p.n / SP_LANES * SP_LANES, rest = p.n - full;
  const sp_mask kept = sp_lt_i32(sp_iota_i32(), sp_set1_i32(rest));
  sp_f32 top = sp_set1_f32(x[0]);
  for (int j = 0; j < full; j += SP_LANES) top = sp_maxq_f32(top, sp_load_f32(x + j));
  if (rest > 0)
    top = sp_maxq_f32(top, sp_select_f32(kept, sp_loadn_f32(x + full, rest), sp_set1_f32(x[0])));
  const sp_f32 shift = sp_set1_f32(sp_hmax_f32(top));
  sp_f32 total = sp_zero_f32();
  for (int j = 0; j < full; j += SP_LANES) {
    const sp_f32 d = sp_sub_f32(sp_load_f32(x + j), shift), e = sp_exp_below_f32(d);
    sp_store_f32(y + j, p.log ? d : e);
    total = sp_add_f32(total, e);
  }
  if (rest > 0) {
    const sp_f32 d = sp_sub_f32(sp_loadn_f32(x + full, rest), shift), e = sp_exp_below_f32(d);
    sp_storen_f32(y + full, p.log ? d : e, rest);
    total = sp_add_f32(total, sp_select_f32(kept, e, sp_zero_f32()));
  }
  const float s = sp_sum_f32(total);
  const sp_f32 l = p.log ? sp_log_f32(sp_set1_f32(s)) : sp_zero_f32();
  const sp_f32 r = sp_set1_f32(1.0f / s);
  for (int j = 0; j < full; j += SP_LANES) {
    const sp_f32 v = sp_load_f32(y + j);
    sp_store_f32(y + j, p.log ? sp_sub_f32(v, l) : sp_mul_f32(v, r));
  }
  if (rest > 0) {
    const sp_f32 v = sp_loadn_f32(y + full, rest);
    sp_storen_f32(y + full, p.log ? sp_sub_f32(v, l) : sp_mul_f32(v, r), rest);
  }
}

/* n rows side by side, one per lane; neighbours along the axis lie p.inner apart. */
SP_INLINE void sp_softmax_lanes_f32(const sp_softmax p, const float *x, float *y, int n) {
  sp_f32 top = sp_loadn_f32(x, n), total = sp_zero_f32();
  for (int i = 1; i < p.n; ++i)
    top = sp_maxq_f32(top, sp_loadn_f32(x + (ptrdiff_t)i * p.inner, n));
  for (int i = 0; i < p.n; ++i) {
    const sp_f32 d = sp_sub_f32(sp_loadn_f32(x + (ptrdiff_t)i * p.inner, n), top);
    const sp_f32 e = sp_exp_below_f32(d);
    sp_storen_f32(y + (ptrdiff_t)i * p.inner, p.log ? d : e, n);
    total = sp_add_f32(total, e);
  }
  const sp_f32 l = p.log ? sp_log_f32(total) : total, r = sp_div_f32(sp_set1_f32(1.0f), total);
  for (int i = 0; i < p.n; ++i) {
    float *q = y + (ptrdiff_t)i * p.inner;
    const sp_f32 v = sp_loadn_f32(q, n);
    sp_storen_f32(q, p.log ? sp_sub_f32(v, l) : sp_mul_f32(v, r), n);
  }
}

/* SP_LANES dense rows of n <= SP_SOFTMAX_SHORT values, turned so that each is a lane: two vectors
 * of a row cost more in sums across lanes than in turning. */
#define SP_SOFTMAX_SHORT (SP_LANES > 4 ? 2 * SP_LANES : 8)
#define SP_SOFTMAX_FEW 4 /* values that compilers turn in fewer shuffles than a whole transpose has */
SP_INLINE void sp_softmax_short_f32(const sp_softmax p, const float *x, float *y) {
  float turned[SP_SOFTMAX_SHORT * SP_LANES];
  sp_softmax q = p;
  q.inner = SP_LANES;
  if (p.n <= SP_SOFTMAX_FEW) {
    for (int i = 0; i < p.n; ++i)
      for (int k = 0; k < SP_LANES; ++k) turned[i * SP_LANES + k] = x[k * p.n + i];
  } else {
    sp_transpose_32(turned, SP_LANES, x, p.n, p.n, SP_LANES);
  }
  sp_softmax_lanes_f32(q, turned, turned, SP_LANES);
  if (p.n <= SP_SOFTMAX_FEW) {
    for (int i = 0; i < p.n; ++i)
      for (int k = 0; k < SP_LANES; ++k) y[k * p.n + i] = turned[i * SP_LANES + k];
  } else {
    sp_transpose_32(y, p.n, turned, SP_LANES, SP_LANES, p.n);
  }
}

/* Rows [task * task_rows, ...) of the outer axis. */
SP_INLINE void sp_softmax_f32(const sp_softmax p, const float *x, float *y, int task) {
  const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);
  int i = lo;
  if (SP_LANES > 1 && p.inner == 1 && p.n <= SP_SOFTMAX_SHORT)
    for (; i + SP_LANES <= hi; i += SP_LANES)
      sp_softmax_short_f32(p, x + (ptrdiff_t)i * p.n, y + (ptrdiff_t)i * p.n);
  for (; i < hi; ++i) {
    const ptrdiff_t at = (ptrdiff_t)i * p.n * p.inner;
    if (p.inner == 1) {
      sp_softmax_row_f32(p, x + at, y + at);
    } else {
      int j = 0;
      for (; j + SP_LANES <= p.inner; j += SP_LANES)
        sp_softmax_lanes_f32(p, x + at + j, y + at + j, SP_LANES);
      if (j < p.inner) sp_softmax_lanes_f32(p, x + at + j, y + at + j, p.inner - j);
    }
  }
}

#endif
