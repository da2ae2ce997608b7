/* Normalization by mean and variance: x and y are [outer][n][inner], dense, statistics over n.
 *   inner = 1   lanes along n
 *   inner > 1   lanes along inner, scale and bias per inner
 * y may be x. The variance is the mean of squared differences from the mean, in a second pass. */
#ifndef SP_NORMALIZE_H
#define SP_NORMALIZE_H

#include "../base.h"
#include "element.h"

/* Element j of row i is scaled by scale[i % rows * row_step + j / run * col_step]; with inner > 1
 * the inner index takes the place of j. `run` elements share a factor; it divides n. */
typedef struct sp_norm {
  int outer, n, inner, task_rows;
  int center, scaled, shifted, stats;
  int rows, row_step, run, col_step;
  float epsilon;
} sp_norm;

SP_INLINE sp_f32 sp_norm_tail_f32(sp_f32 v, int n) {
  return n == SP_LANES ? v
                       : sp_select_f32(sp_lt_i32(sp_iota_i32(), sp_set1_i32(n)), v, sp_zero_f32());
}

/* sum of x - m (square = 0) or of its square over n elements */
SP_INLINE float sp_norm_sum_f32(const float *x, int n, float m, int square) {
  const sp_f32 mean = sp_set1_f32(m);
  sp_f32 a[4];
  int j = 0;
  for (int k = 0; k < 4; ++k) a[k] = sp_zero_f32();
  for (; j + 4 * SP_LANES <= n; j += 4 * SP_LANES)
    for (int k = 0; k < 4; ++k) {
      const sp_f32 d = sp_sub_f32(sp_load_f32(x + j + k * SP_LANES), mean);
      a[k] = square ? sp_fma_f32(d, d, a[k]) : sp_add_f32(a[k], d);
    }
  for (; j < n; j += SP_LANES) {
    const int lanes = (int)sp_imin(SP_LANES, n - j);
    const sp_f32 d = sp_norm_tail_f32(sp_sub_f32(sp_loadn_f32(x + j, lanes), mean), lanes);
    a[0] = square ? sp_fma_f32(d, d, a[0]) : sp_add_f32(a[0], d);
  }
  return sp_sum_f32(sp_add_f32(sp_add_f32(a[0], a[1]), sp_add_f32(a[2], a[3])));
}

SP_INLINE void sp_norm_run_f32(const sp_norm p, const float *x, float *y, int n, float mean,
                               float inverse, const float *scale, const float *bias) {
  const sp_f32 m = sp_set1_f32(mean), r = sp_set1_f32(inverse);
  const int each = p.run == 1 && p.col_step == 1;
  for (int j = 0; j < n; j += SP_LANES) {
    const int lanes = (int)sp_imin(SP_LANES, n - j);
    sp_f32 v = sp_loadn_f32(x + j, lanes);
    if (p.center) v = sp_sub_f32(v, m);
    v = sp_mul_f32(v, r);
    if (p.scaled)
      v = sp_mul_f32(v, each ? sp_loadn_f32(scale + j, lanes) : sp_set1_f32(*scale));
    if (p.shifted) v = sp_add_f32(v, each ? sp_loadn_f32(bias + j, lanes) : sp_set1_f32(*bias));
    sp_storen_f32(y + j, v, lanes);
  }
}

SP_INLINE float sp_norm_inverse_f32(float square, float epsilon) {
  return 1.0f / sp_lane0(sp_sqrt_f32(sp_set1_f32(square + epsilon)));
}

SP_INLINE void sp_norm_lanes_f32(const sp_norm p, const float *x, const float *scale,
                                 const float *bias, float *y, float *mean, float *inverse, int n) {
  const sp_f32 count = sp_set1_f32((float)p.n);
  sp_f32 m = sp_zero_f32(), square = sp_zero_f32(), r;
  if (p.center) {
    for (int i = 0; i < p.n; ++i) m = sp_add_f32(m, sp_loadn_f32(x + (ptrdiff_t)i * p.inner, n));
    m = sp_div_f32(m, count);
  }
  for (int i = 0; i < p.n; ++i) {
    const sp_f32 d = sp_sub_f32(sp_loadn_f32(x + (ptrdiff_t)i * p.inner, n), m);
    square = sp_fma_f32(d, d, square);
  }
  square = sp_add_f32(sp_div_f32(square, count), sp_set1_f32(p.epsilon));
  r = sp_div_f32(sp_set1_f32(1.0f), sp_sqrt_f32(square));
  if (p.stats) {
    if (p.center) sp_storen_f32(mean, m, n);
    sp_storen_f32(inverse, r, n);
  }
  for (int i = 0; i < p.n; ++i) {
    sp_f32 v = sp_mul_f32(sp_sub_f32(sp_loadn_f32(x + (ptrdiff_t)i * p.inner, n), m), r);
    if (p.scaled) v = sp_mul_f32(v, p.col_step ? sp_loadn_f32(scale, n) : sp_set1_f32(*scale));
    if (p.shifted) v = sp_add_f32(v, p.col_step ? sp_loadn_f32(bias, n) : sp_set1_f32(*bias));
    sp_storen_f32(y + (ptrdiff_t)i * p.inner, v, n);
  }
}

SP_INLINE void sp_norm_f32(const sp_norm p, const float *x, const float *scale, const float *bias,
                           float *y, float *mean, float *inverse, int task) {
  const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);
  for (int i = lo; i < hi; ++i) {
    const float *q = x + (ptrdiff_t)i * p.n * p.inner;
    float *o = y + (ptrdiff_t)i * p.n * p.inner;
    const ptrdiff_t at = (ptrdiff_t)(i % p.rows) * p.row_step;
    if (p.inner == 1) {
      const float m = p.center ? sp_norm_sum_f32(q, p.n, 0.0f, 0) / (float)p.n : 0.0f;
      const float r = sp_norm_inverse_f32(sp_norm_sum_f32(q, p.n, m, 1) / (float)p.n, p.epsilon);
      if (p.stats) {
        if (p.center) mean[i] = m;
        inverse[i] = r;
      }
      if (p.run == 1) {
        sp_norm_run_f32(p, q, o, p.n, m, r, scale + at, bias + at);
      } else {
        for (int k = 0; k < p.n / p.run; ++k)
          sp_norm_run_f32(p, q + k * p.run, o + k * p.run, p.run, m, r, scale + at + k * p.col_step,
                          bias + at + k * p.col_step);
      }
    } else {
      for (int j = 0; j < p.inner; j += SP_LANES) {
        const ptrdiff_t c = at + (ptrdiff_t)j * p.col_step, s = (ptrdiff_t)i * p.inner + j;
        if (j + SP_LANES <= p.inner)
          sp_norm_lanes_f32(p, q + j, scale + c, bias + c, o + j, mean + s, inverse + s, SP_LANES);
        else
          sp_norm_lanes_f32(p, q + j, scale + c, bias + c, o + j, mean + s, inverse + s,
                            p.inner - j);
      }
    }
  }
}

/* Other float types, one element at a time. The normalized value is rounded to T before it is
 * scaled; statistics are given in the type they are computed in. */
SP_INLINE float sp_norm_sqrt_float(float v) { return sp_lane0(sp_sqrt_f32(sp_set1_f32(v))); }
SP_INLINE double sp_norm_sqrt_double(double v) { return sp_sqrt_f64(v); }
#define SP_DEFINE_NORM(name, T, A, W)                                                             \
  SP_INLINE void sp_norm_##name(const sp_norm p, const T *x, const T *scale, const T *bias, T *y, \
                                void *mean, void *inverse, int task) {                            \
    const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);              \
    for (int i = lo; i < hi; ++i)                                                                 \
      for (int j = 0; j < p.inner; ++j) {                                                         \
        const ptrdiff_t base = (ptrdiff_t)i * p.n * p.inner + j;                                  \
        const ptrdiff_t row = (ptrdiff_t)(i % p.rows) * p.row_step;                               \
        A m = 0, square = 0, r;                                                                   \
        if (p.center) {                                                                           \
          for (int k = 0; k < p.n; ++k) m += sp_get_##name(x + base + (ptrdiff_t)k * p.inner);    \
          m /= (A)p.n;                                                                            \
        }                                                                                         \
        for (int k = 0; k < p.n; ++k) {                                                           \
          const A d = sp_get_##name(x + base + (ptrdiff_t)k * p.inner) - m;                       \
          square += d * d;                                                                        \
        }                                                                                         \
        r = (A)1 / sp_norm_sqrt_##A(square / (A)p.n + (A)p.epsilon);                              \
        if (p.stats) {                                                                            \
          if (p.center) ((A *)mean)[(ptrdiff_t)i * p.inner + j] = m;                              \
          ((A *)inverse)[(ptrdiff_t)i * p.inner + j] = r;                                         \
        }                                                                                         \
        for (int k = 0; k < p.n; ++k) {                                                           \
          const ptrdiff_t at = base + (ptrdiff_t)k * p.inner;                                     \
          const ptrdiff_t c = row + (ptrdiff_t)(p.inner == 1 ? k / p.run : j) * p.col_step;       \
          sp_put_##name(y + at, (sp_get_##name(x + at) - m) * r);                                 \
          if (p.scaled) sp_put_##name(y + at, sp_get_##name(y + at) * sp_get_##name(scale + c));  \
          if (p.shifted) sp_put_##name(y + at, sp_get_##name(y + at) + sp_get_##name(bias + c));  \
        }                                                                                         \
      }                                                                                           \
  }
SP_HALF_TYPES(SP_DEFINE_NORM)
SP_DEFINE_NORM(f64, double, double, double)

/* y = x / (bias + alpha * sum of squares of neighbours)^beta along the middle axis. */
typedef struct sp_lrn {
  int outer, n, inner, size, task_rows;
  float alpha, beta, bias;
} sp_lrn;

SP_INLINE sp_f32 sp_lrn_power_f32(const sp_lrn p, sp_f32 v) {
  /* base^-3/4 is what networks use, and has a closed form */
  if (p.beta == 0.75f) {
    const sp_f32 root = sp_sqrt_f32(v);
    return sp_div_f32(sp_set1_f32(1.0f), sp_mul_f32(root, sp_sqrt_f32(root)));
  }
  if (p.beta == 0.5f) return sp_div_f32(sp_set1_f32(1.0f), sp_sqrt_f32(v));
  return sp_div_f32(sp_set1_f32(1.0f), sp_pow_f32(v, sp_set1_f32(p.beta)));
}

SP_INLINE void sp_lrn_f32(const sp_lrn p, const float *x, float *y, int task) {
  const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);
  const int before = (p.size - 1) / 2, after = p.size / 2;
  for (int i = lo; i < hi; ++i)
    for (int c = 0; c < p.n; ++c) {
      const int first = (int)sp_imax(0, c - before), last = (int)sp_imin(p.n - 1, c + after);
      const float *q = x + (ptrdiff_t)i * p.n * p.inner;
      float *o = y + (ptrdiff_t)i * p.n * p.inner;
      if (p.inner == 1) {
        float sum = 0.0f;
        for (int k = first; k <= last; ++k) sum += q[k] * q[k];
        o[c] = q[c] * sp_lane0(sp_lrn_power_f32(p, sp_set1_f32(p.bias + p.alpha * sum)));
        continue;
      }
      for (int j = 0; j < p.inner; j += SP_LANES) {
        const int lanes = (int)sp_imin(SP_LANES, p.inner - j);
        sp_f32 sum = sp_zero_f32();
        for (int k = first; k <= last; ++k) {
          const sp_f32 v = sp_loadn_f32(q + (ptrdiff_t)k * p.inner + j, lanes);
          sum = sp_fma_f32(v, v, sum);
        }
        sum = sp_fma_f32(sum, sp_set1_f32(p.alpha), sp_set1_f32(p.bias));
        sp_storen_f32(o + (ptrdiff_t)c * p.inner + j,
                      sp_mul_f32(sp_loadn_f32(q + (ptrdiff_t)c * p.inner + j, lanes),
                                 sp_lrn_power_f32(p, sum)),
                      lanes);
      }
    }
}

#endif
