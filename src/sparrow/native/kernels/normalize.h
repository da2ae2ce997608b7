/* Normalization by mean and variance: x and y are [outer][n][inner], dense, statistics over n.
 *   inner = 1   lanes along n
 *   inner > 1   lanes along inner, scale and bias per inner
 * sp_norm_groups_f32 is of groups of channels.
 * y may be x. The variance is the mean of squared differences from the mean, in a second pass. */
#ifndef SP_NORMALIZE_H
#define SP_NORMALIZE_H

#include "../base.h"
#include "element.h"

/* Element j of row i is scaled by scale[i / row_run % rows * row_step + j / run * col_step]; with
 * inner > 1 the inner index takes the place of j. `run` elements share a factor; it divides n. A task
 * takes so many rows and so many columns of inner: all of them, or whole vectors. */
typedef struct sp_norm {
  int outer, n, inner, task_rows, task_columns;
  int center, scaled, shifted, stats;
  int rows, row_run, row_step, run, col_step;
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

/* Vectors of a row that are normalized beside one another: where rows are long, a walk down single
 * ones waits for every sum and reads a line of each page. */
enum { SP_NORM_WIDE = 4 };

/* so many vectors of n elements; n is SP_LANES where there are more than one */
SP_INLINE void sp_norm_lanes_f32(const sp_norm p, const float *x, const float *scale,
                                 const float *bias, float *y, float *mean, float *inverse,
                                 int vectors, int n) {
  const sp_f32 count = sp_set1_f32((float)p.n);
  sp_f32 m[SP_NORM_WIDE], r[SP_NORM_WIDE];
  SP_UNROLL
  for (int k = 0; k < vectors; ++k) m[k] = r[k] = sp_zero_f32();
  if (p.center) {
    for (int i = 0; i < p.n; ++i) {
      const float *q = x + (ptrdiff_t)i * p.inner;
      SP_UNROLL
      for (int k = 0; k < vectors; ++k) m[k] = sp_add_f32(m[k], sp_loadn_f32(q + k * SP_LANES, n));
    }
    SP_UNROLL
    for (int k = 0; k < vectors; ++k) m[k] = sp_div_f32(m[k], count);
  }
  for (int i = 0; i < p.n; ++i) {
    const float *q = x + (ptrdiff_t)i * p.inner;
    SP_UNROLL
    for (int k = 0; k < vectors; ++k) {
      const sp_f32 d = sp_sub_f32(sp_loadn_f32(q + k * SP_LANES, n), m[k]);
      r[k] = sp_fma_f32(d, d, r[k]);
    }
  }
  SP_UNROLL
  for (int k = 0; k < vectors; ++k) {
    r[k] = sp_add_f32(sp_div_f32(r[k], count), sp_set1_f32(p.epsilon));
    r[k] = sp_div_f32(sp_set1_f32(1.0f), sp_sqrt_f32(r[k]));
    if (p.stats) {
      if (p.center) sp_storen_f32(mean + k * SP_LANES, m[k], n);
      sp_storen_f32(inverse + k * SP_LANES, r[k], n);
    }
  }
  for (int i = 0; i < p.n; ++i) {
    const float *q = x + (ptrdiff_t)i * p.inner;
    float *o = y + (ptrdiff_t)i * p.inner;
    SP_UNROLL
    for (int k = 0; k < vectors; ++k) {
      const int c = p.col_step * k * SP_LANES;
      sp_f32 v = sp_mul_f32(sp_sub_f32(sp_loadn_f32(q + k * SP_LANES, n), m[k]), r[k]);
      if (p.scaled)
        v = sp_mul_f32(v, p.col_step ? sp_loadn_f32(scale + c, n) : sp_set1_f32(*scale));
      if (p.shifted) v = sp_add_f32(v, p.col_step ? sp_loadn_f32(bias + c, n) : sp_set1_f32(*bias));
      sp_storen_f32(o + k * SP_LANES, v, n);
    }
  }
}

SP_INLINE void sp_norm_f32(const sp_norm p, const float *x, const float *scale, const float *bias,
                           float *y, float *mean, float *inverse, int task) {
  const int across = (p.inner + p.task_columns - 1) / p.task_columns;
  const int lo = task / across * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);
  const int left = task % across * p.task_columns;
  const int right = (int)sp_imin(p.inner, left + p.task_columns);
  for (int i = lo; i < hi; ++i) {
    const float *q = x + (ptrdiff_t)i * p.n * p.inner;
    float *o = y + (ptrdiff_t)i * p.n * p.inner;
    const ptrdiff_t at = (ptrdiff_t)(i / p.row_run % p.rows) * p.row_step;
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
      int vectors;
      for (int j = left; j < right; j += vectors * SP_LANES) {
        const ptrdiff_t c = at + (ptrdiff_t)j * p.col_step, s = (ptrdiff_t)i * p.inner + j;
        vectors = j + SP_NORM_WIDE * SP_LANES <= right ? SP_NORM_WIDE : 1;
        if (vectors == SP_NORM_WIDE)
          sp_norm_lanes_f32(p, q + j, scale + c, bias + c, o + j, mean + s, inverse + s,
                            SP_NORM_WIDE, SP_LANES);
        else if (j + SP_LANES <= right)
          sp_norm_lanes_f32(p, q + j, scale + c, bias + c, o + j, mean + s, inverse + s, 1,
                            SP_LANES);
        else
          sp_norm_lanes_f32(p, q + j, scale + c, bias + c, o + j, mean + s, inverse + s, 1,
                            right - j);
      }
    }
  }
}

/* Of [outer][n][groups][inner], statistics over n and inner: groups of channels of a channels-last
 * image. Channel c is scaled by scale[c / scale_run] and shifted by bias[c / bias_run]; a run of 0
 * does neither. A task takes task_groups groups of one outer index; work is two floats a channel of
 * them. y may be x. */
typedef struct sp_norm_groups {
  int n, groups, inner, task_groups, center, scale_run, bias_run;
  float epsilon;
} sp_norm_groups;

/* sum over rows of x - mean (square = 0) or of its square, for up to SP_LANES channels */
SP_INLINE sp_f32 sp_norm_column_f32(const float *x, ptrdiff_t ld, int rows, sp_f32 mean, int square,
                                    int lanes) {
  sp_f32 a[4];
  int i = 0;
  for (int k = 0; k < 4; ++k) a[k] = sp_zero_f32();
  for (; i + 4 <= rows; i += 4)
    for (int k = 0; k < 4; ++k) {
      const sp_f32 d = sp_sub_f32(sp_loadn_f32(x + (i + k) * ld, lanes), mean);
      a[k] = square ? sp_fma_f32(d, d, a[k]) : sp_add_f32(a[k], d);
    }
  for (; i < rows; ++i) {
    const sp_f32 d = sp_sub_f32(sp_loadn_f32(x + i * ld, lanes), mean);
    a[0] = square ? sp_fma_f32(d, d, a[0]) : sp_add_f32(a[0], d);
  }
  return sp_add_f32(sp_add_f32(a[0], a[1]), sp_add_f32(a[2], a[3]));
}

/* to[c] = the mean of x - mean[c] or of its square over the group of channel c */
SP_INLINE void sp_norm_moment_f32(const sp_norm_groups p, const float *x, int width,
                                  const float *mean, int square, float *to) {
  const ptrdiff_t ld = (ptrdiff_t)p.groups * p.inner;
  int j = 0;
  for (; j + SP_LANES <= width; j += SP_LANES)
    sp_store_f32(to + j, sp_norm_column_f32(x + j, ld, p.n, square ? sp_load_f32(mean + j)
                                                                   : sp_zero_f32(),
                                            square, SP_LANES));
  if (j < width) {
    const sp_f32 m = square ? sp_loadn_f32(mean + j, width - j) : sp_zero_f32();
    sp_storen_f32(to + j, sp_norm_column_f32(x + j, ld, p.n, m, square, width - j), width - j);
  }
  for (int g = 0; g < width; g += p.inner) {
    float sum = 0.0f;
    for (int c = 0; c < p.inner; ++c) sum += to[g + c];
    sum /= (float)p.n * (float)p.inner;
    for (int c = 0; c < p.inner; ++c) to[g + c] = sum;
  }
}

SP_INLINE void sp_norm_apply_f32(const sp_norm_groups p, const float *x, float *y, const float *mean,
                                 const float *factor, const float *bias, int at, int lanes) {
  const ptrdiff_t ld = (ptrdiff_t)p.groups * p.inner;
  const sp_f32 m = sp_loadn_f32(mean, lanes), f = sp_loadn_f32(factor, lanes);
  float shift[SP_LANES] = {0};
  if (p.bias_run)
    for (int l = 0; l < lanes; ++l) shift[l] = bias[(at + l) / p.bias_run];
  const sp_f32 b = sp_load_f32(shift);
  for (int i = 0; i < p.n; ++i) {
    const sp_f32 v = sp_mul_f32(sp_sub_f32(sp_loadn_f32(x + i * ld, lanes), m), f);
    sp_storen_f32(y + i * ld, p.bias_run ? sp_add_f32(v, b) : v, lanes);
  }
}

SP_INLINE void sp_norm_groups_f32(const sp_norm_groups p, const float *x, const float *scale,
                                  const float *bias, float *y, float *work, int task) {
  const int blocks = (p.groups + p.task_groups - 1) / p.task_groups;
  const int lo = task % blocks * p.task_groups, hi = (int)sp_imin(p.groups, lo + p.task_groups);
  const int first = lo * p.inner, width = (hi - lo) * p.inner;
  const ptrdiff_t at = (ptrdiff_t)(task / blocks) * p.n * p.groups * p.inner + first;
  float *mean = work, *factor = work + width;
  int j = 0;
  if (p.center) {
    sp_norm_moment_f32(p, x + at, width, mean, 0, mean);
  } else {
    for (int c = 0; c < width; ++c) mean[c] = 0.0f;
  }
  sp_norm_moment_f32(p, x + at, width, mean, 1, factor);
  for (int c = 0; c < width; ++c) {
    const float r = sp_norm_inverse_f32(factor[c], p.epsilon);
    factor[c] = p.scale_run ? r * scale[(first + c) / p.scale_run] : r;
  }
  for (; j + SP_LANES <= width; j += SP_LANES)
    sp_norm_apply_f32(p, x + at + j, y + at + j, mean + j, factor + j, bias, first + j, SP_LANES);
  if (j < width)
    sp_norm_apply_f32(p, x + at + j, y + at + j, mean + j, factor + j, bias, first + j, width - j);
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
        const ptrdiff_t row = (ptrdiff_t)(i / p.row_run % p.rows) * p.row_step;                   \
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
