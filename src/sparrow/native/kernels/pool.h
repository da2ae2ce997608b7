/* Pooling of any element type, any strides, up to three spatial axes (unused ones have extent 1).
 * Task grid: batch x channels planes, task_rows each. */
#ifndef SP_POOL_H
#define SP_POOL_H

#include "../base.h"
#include "element.h"

/* kind: 0 maximum, 1 mean of the taps inside x, 2 mean of the taps inside x and its pads, 3 p-norm.
 * index: 0 none, 1 row-major, 2 first spatial axis fastest; z has the strides of y. */
typedef struct sp_pool {
  int kind, index, power;
  int planes, channels, task_rows;
  int in[3], out[3], k[3], s[3], d[3], begin[3], end[3];
  ptrdiff_t xn, xc, yn, yc, xs[3], ys[3];
} sp_pool;

/* First tap inside [0, n) and the one past the last. */
SP_INLINE int sp_window_first(int at, int d) { return at < 0 ? (-at + d - 1) / d : 0; }
SP_INLINE int sp_window_last(int at, int n, int d, int k) {
  return at >= n ? 0 : (int)sp_imin(k, (n - at + d - 1) / d);
}
/* Taps along axis a that the mean counts in a window that starts at `at`. */
SP_INLINE int sp_window_count(const sp_pool p, int a, int at) {
  const int begin = p.kind == 2 ? p.begin[a] : 0, end = p.kind == 2 ? p.end[a] : 0;
  const int last = sp_window_last(at, p.in[a] + end, p.d[a], p.k[a]);
  return (int)sp_imax(0, last - sp_window_first(at + begin, p.d[a]));
}

#define SP_POOL_LOOP(p)                                                                            \
  const int lo = task * (p).task_rows;                                                             \
  const int hi = (int)sp_imin((p).planes, (ptrdiff_t)lo + (p).task_rows);                          \
  for (int plane = lo; plane < hi; ++plane)                                                        \
    for (int o0 = 0; o0 < (p).out[0]; ++o0)                                                        \
      for (int o1 = 0; o1 < (p).out[1]; ++o1)                                                      \
        for (int o2 = 0; o2 < (p).out[2]; ++o2) {                                                  \
          const int i0 = o0 * (p).s[0] - (p).begin[0], i1 = o1 * (p).s[1] - (p).begin[1];          \
          const int i2 = o2 * (p).s[2] - (p).begin[2];                                             \
          const int a0 = sp_window_first(i0, (p).d[0]), a1 = sp_window_first(i1, (p).d[1]);        \
          const int a2 = sp_window_first(i2, (p).d[2]);                                            \
          const int b0 = sp_window_last(i0, (p).in[0], (p).d[0], (p).k[0]);                        \
          const int b1 = sp_window_last(i1, (p).in[1], (p).d[1], (p).k[1]);                        \
          const int b2 = sp_window_last(i2, (p).in[2], (p).d[2], (p).k[2]);                        \
          const ptrdiff_t n = plane / (p).channels, c = plane % (p).channels;                      \
          const ptrdiff_t from = n * (p).xn + c * (p).xc;                                          \
          const ptrdiff_t to = n * (p).yn + c * (p).yc + o0 * (p).ys[0] + o1 * (p).ys[1] +         \
                               o2 * (p).ys[2];
#define SP_POOL_TAPS(p)                                                                            \
  for (int t0 = a0; t0 < b0; ++t0)                                                                 \
    for (int t1 = a1; t1 < b1; ++t1)                                                               \
      for (int t2 = a2; t2 < b2; ++t2)
#define SP_POOL_AT(p)                                                                              \
  ((i0 + t0 * (p).d[0]) * (p).xs[0] + (i1 + t1 * (p).d[1]) * (p).xs[1] +                           \
   (i2 + t2 * (p).d[2]) * (p).xs[2])

#define SP_DEFINE_MAX_POOL(name, T, A, W)                                                          \
  SP_INLINE void sp_arg_pool_##name(const sp_pool p, const T *x, T *y, int64_t *z, int task) {     \
    SP_POOL_LOOP(p)                                                                                \
      A best = sp_low_##name();                                                                    \
      int at[3] = {i0 + a0 * p.d[0], i1 + a1 * p.d[1], i2 + a2 * p.d[2]};                          \
      SP_POOL_TAPS(p) {                                                                            \
        const A v = sp_get_##name(x + from + SP_POOL_AT(p));                                       \
        if (v > best || (v != v && best == best)) {                                                \
          best = v;                                                                                \
          at[0] = i0 + t0 * p.d[0], at[1] = i1 + t1 * p.d[1], at[2] = i2 + t2 * p.d[2];            \
        }                                                                                          \
      }                                                                                            \
      sp_put_##name(y + to, best);                                                                 \
      if (p.index) {                                                                               \
        const int64_t n0 = p.in[0], n1 = p.in[1], n2 = p.in[2];                                    \
        z[to] = plane * n0 * n1 * n2 + (p.index == 1 ? (at[0] * n1 + at[1]) * n2 + at[2]           \
                                                     : at[0] + n0 * (at[1] + n1 * at[2]));         \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  SP_INLINE void sp_max_pool_##name(const sp_pool p, const T *x, T *y, int task) {                 \
    sp_arg_pool_##name(p, x, y, NULL, task);                                                       \
  }
SP_FLOAT_TYPES(SP_DEFINE_MAX_POOL)
SP_INT_TYPES(SP_DEFINE_MAX_POOL)

SP_INLINE float sp_root_float(float v, int p) {
  return p == 1   ? v
         : p == 2 ? sp_lane0(sp_sqrt_f32(sp_set1_f32(v)))
                  : sp_lane0(sp_pow_f32(sp_set1_f32(v), sp_set1_f32(1.0f / (float)p)));
}
SP_INLINE double sp_root_double(double v, int p) {
  return p == 1 ? v : p == 2 ? sp_sqrt_f64(v) : sp_pow_f64(v, 1.0 / (double)p);
}

#define SP_DEFINE_SUM_POOL(name, T, A, W)                                                          \
  SP_INLINE void sp_sum_pool_##name(const sp_pool p, const T *x, T *y, int task) {                 \
    SP_POOL_LOOP(p)                                                                                \
      A sum = 0;                                                                                   \
      const int count = sp_window_count(p, 0, i0) * sp_window_count(p, 1, i1) *                    \
                        sp_window_count(p, 2, i2);                                                 \
      SP_POOL_TAPS(p) {                                                                            \
        const A v = sp_get_##name(x + from + SP_POOL_AT(p));                                       \
        A term = v;                                                                                \
        if (p.kind == 3) {                                                                         \
          const A size = v < 0 ? -v : v;                                                           \
          term = size;                                                                             \
          for (int e = 1; e < p.power; ++e) term *= size;                                          \
        }                                                                                          \
        sum += term;                                                                               \
      }                                                                                            \
      sp_put_##name(y + to, p.kind == 3 ? sp_root_##A(sum, p.power) : sum / (A)sp_imax(count, 1)); \
    }                                                                                              \
  }
SP_FLOAT_TYPES(SP_DEFINE_SUM_POOL)

#endif
