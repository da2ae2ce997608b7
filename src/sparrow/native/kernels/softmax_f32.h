/* Softmax and log-softmax over one axis: x and y are [outer][n][inner], dense.
 *   inner = 1   each row is a vector loop (rows shorter than a vector are one masked vector)
 *   inner > 1   lanes run along inner
 * y may be x. The maximum is subtracted first, so the largest exponential is 1. */
#ifndef SP_SOFTMAX_F32_H
#define SP_SOFTMAX_F32_H

#include "../base.h"
#include "math.h"

typedef struct sp_softmax {
  int outer, n, inner, log, task_rows;
} sp_softmax;

SP_INLINE void sp_softmax_row_f32(const sp_softmax p, const float *x, float *y) {
  const int full = p.n / SP_LANES * SP_LANES, rest = p.n - full;
  sp_f32 top = sp_set1_f32(x[0]);
  for (int j = 0; j < full; j += SP_LANES) top = sp_max_f32(top, sp_load_f32(x + j));
  float m = sp_hmax_f32(top);
  for (int j = full; j < p.n; ++j) m = (x[j] > m || x[j] != x[j]) ? x[j] : m;
  const sp_f32 shift = sp_set1_f32(m);
  sp_f32 total = sp_zero_f32();
  for (int j = 0; j < full; j += SP_LANES) {
    const sp_f32 d = sp_sub_f32(sp_load_f32(x + j), shift), e = sp_exp_f32(d);
    sp_store_f32(y + j, p.log ? d : e);
    total = sp_add_f32(total, e);
  }
  float s = full > 0 ? sp_sum_f32(total) : 0.0f;
  if (rest > 0) {
    const sp_f32 d = sp_sub_f32(sp_loadn_f32(x + full, rest), shift), e = sp_exp_f32(d);
    float part[SP_LANES];
    sp_storen_f32(y + full, p.log ? d : e, rest);
    sp_storen_f32(part, e, rest);
    for (int j = 0; j < rest; ++j) s += part[j];
  }
  if (p.log) {
    const sp_f32 l = sp_log_f32(sp_set1_f32(s));
    for (int j = 0; j < full; j += SP_LANES)
      sp_store_f32(y + j, sp_sub_f32(sp_load_f32(y + j), l));
    if (rest > 0) sp_storen_f32(y + full, sp_sub_f32(sp_loadn_f32(y + full, rest), l), rest);
  } else {
    const sp_f32 r = sp_set1_f32(1.0f / s);
    for (int j = 0; j < full; j += SP_LANES)
      sp_store_f32(y + j, sp_mul_f32(sp_load_f32(y + j), r));
    if (rest > 0) sp_storen_f32(y + full, sp_mul_f32(sp_loadn_f32(y + full, rest), r), rest);
  }
}

SP_INLINE void sp_softmax_lanes_f32(const sp_softmax p, const float *x, float *y, int n) {
  sp_f32 top = sp_loadn_f32(x, n), total = sp_zero_f32();
  for (int i = 1; i < p.n; ++i)
    top = sp_max_f32(top, sp_loadn_f32(x + (ptrdiff_t)i * p.inner, n));
  for (int i = 0; i < p.n; ++i) {
    const sp_f32 d = sp_sub_f32(sp_loadn_f32(x + (ptrdiff_t)i * p.inner, n), top);
    const sp_f32 e = sp_exp_f32(d);
    sp_storen_f32(y + (ptrdiff_t)i * p.inner, p.log ? d : e, n);
    total = sp_add_f32(total, e);
  }
  const sp_f32 l = sp_log_f32(total), r = sp_div_f32(sp_set1_f32(1.0f), total);
  for (int i = 0; i < p.n; ++i) {
    float *q = y + (ptrdiff_t)i * p.inner;
    const sp_f32 v = sp_loadn_f32(q, n);
    sp_storen_f32(q, p.log ? sp_sub_f32(v, l) : sp_mul_f32(v, r), n);
  }
}

/* Rows [task * task_rows, ...) of the outer axis. */
SP_INLINE void sp_softmax_f32(const sp_softmax p, const float *x, float *y, int task) {
  const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);
  for (int i = lo; i < hi; ++i) {
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
