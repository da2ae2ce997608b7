/* Float64 softmax and log-softmax: x and y are [outer][n][inner], dense; y may be x. */
#ifndef SP_SOFTMAX_F64_H
#define SP_SOFTMAX_F64_H

#include "../base.h"
#include "scalar_math.h"
#include "softmax_f32.h"

/* Rows [task * task_rows, ...) of the outer axis. */
SP_INLINE void sp_softmax_f64(const sp_softmax p, const double *x, double *y, int task) {
  const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);
  for (ptrdiff_t i = (ptrdiff_t)lo * p.inner; i < (ptrdiff_t)hi * p.inner; ++i) {
    const ptrdiff_t at = i / p.inner * p.n * p.inner + i % p.inner;
    double top = x[at], sum = 0;
    for (ptrdiff_t j = 1; j < p.n; ++j) {
      const double v = x[at + j * p.inner];
      top = (v > top || v != v) ? v : top;
    }
    for (ptrdiff_t j = 0; j < p.n; ++j) {
      const double d = x[at + j * p.inner] - top, v = sp_exp_f64(d);
      y[at + j * p.inner] = p.log ? d : v;
      sum += v;
    }
    const double l = sp_log_f64(sum);
    for (ptrdiff_t j = 0; j < p.n; ++j) {
      double *q = y + at + j * p.inner;
      *q = p.log ? *q - l : *q / sum;
    }
  }
}

#endif
