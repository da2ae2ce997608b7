/* Outputs that are fixed weighted sums of inputs along every axis.
 * Five axes, outermost first, then a dense run of `inner` elements. Axis a has d[a] outputs with
 * k[a] taps each: `offset` holds, axis after axis, the element offset of every tap (-1: the output
 * lies outside), `weight` the factors likewise. Task grid: rows of the last axis, task_rows each. */
#ifndef SP_RESIZE_H
#define SP_RESIZE_H

#include "../base.h"
#include "element.h"

typedef struct sp_taps {
  int d[5], k[5], at[5];
  ptrdiff_t ys[5];
  int inner, task_rows, shift, repeat;
  float outside;
} sp_taps;

/* Rows that sp_resize_rows_f32 weighs at most. */
#define SP_MAX_ROWS 4

/* Rows of the last axis, and where one of them is along the others. */
#define SP_TAPS_ROWS(p) ((ptrdiff_t)(p).d[0] * (p).d[1] * (p).d[2] * (p).d[3])
#define SP_TAPS_ROW(p, row)                                                             \
  const int o3 = (row) % (p).d[3], o2 = (row) / (p).d[3] % (p).d[2];                    \
  const int o1 = (row) / ((p).d[3] * (p).d[2]) % (p).d[1];                              \
  const int o0 = (row) / ((p).d[3] * (p).d[2] * (p).d[1])

/* offsets and weights of one output along one axis */
#define SP_TAPS_LOOP(p, offset)                                                                   \
  const int lo = task * (p).task_rows;                                                            \
  const int hi = (int)sp_imin(SP_TAPS_ROWS(p), (ptrdiff_t)lo + (p).task_rows);                    \
  for (int row = lo; row < hi; ++row)                                                             \
        for (int o4 = 0; o4 < (p).d[4]; ++o4) {                                                   \
          SP_TAPS_ROW(p, row);                                                                    \
          const int t0 = (p).at[0] + o0 * (p).k[0], t1 = (p).at[1] + o1 * (p).k[1];               \
          const int t2 = (p).at[2] + o2 * (p).k[2], t3 = (p).at[3] + o3 * (p).k[3];               \
          const int t4 = (p).at[4] + o4 * (p).k[4];                                               \
          const int gone = (offset[t0] | offset[t1] | offset[t2] | offset[t3] | offset[t4]) < 0;  \
          const ptrdiff_t to = o0 * (p).ys[0] + o1 * (p).ys[1] + o2 * (p).ys[2] + o3 * (p).ys[3] + \
                               o4 * (p).ys[4];
#define SP_TAPS_SUM(p)                               \
  for (int a = 0; a < (p).k[0]; ++a)                 \
    for (int b = 0; b < (p).k[1]; ++b)               \
      for (int c = 0; c < (p).k[2]; ++c)             \
        for (int d = 0; d < (p).k[3]; ++d)           \
          for (int e = 0; e < (p).k[4]; ++e)
#define SP_TAPS_FROM(x, offset) \
  ((x) + offset[t0 + a] + offset[t1 + b] + offset[t2 + c] + offset[t3 + d] + offset[t4 + e])
#define SP_TAPS_WEIGHT(weight) \
  (weight[t0 + a] * weight[t1 + b] * weight[t2 + c] * weight[t3 + d] * weight[t4 + e])

SP_INLINE void sp_resize_f32(const sp_taps p, const float *x, const int32_t *offset,
                             const float *weight, float *y, int task) {
  SP_TAPS_LOOP(p, offset)
    if (gone) {
      for (int j = 0; j < p.inner; ++j) y[to + j] = p.outside;
    } else if (p.inner == 1) {
      float sum = 0.0f;
      SP_TAPS_SUM(p) sum += SP_TAPS_WEIGHT(weight) * *SP_TAPS_FROM(x, offset);
      y[to] = sum;
    } else {
      int j = 0;
      for (; j + SP_LANES <= p.inner; j += SP_LANES) {
        sp_f32 sum = sp_zero_f32();
        SP_TAPS_SUM(p)
        sum = sp_fma_f32(sp_set1_f32(SP_TAPS_WEIGHT(weight)),
                         sp_load_f32(SP_TAPS_FROM(x, offset) + j), sum);
        sp_store_f32(y + to + j, sum);
      }
      if (j < p.inner) {
        sp_f32 sum = sp_zero_f32();
        SP_TAPS_SUM(p)
        sum = sp_fma_f32(sp_set1_f32(SP_TAPS_WEIGHT(weight)),
                         sp_loadn_f32(SP_TAPS_FROM(x, offset) + j, p.inner - j), sum);
        sp_storen_f32(y + to + j, sum, p.inner - j);
      }
    }
  }
}

/* The last two axes are resized one after the other: rows of x are stretched along axis 4 when they
 * are first wanted, and kept for the k[3] rows of y that weigh them. xs is the distance of rows of x;
 * rows that meet in one row of y differ modulo k[3]. Nothing lies outside. Tasks are task_rows of all
 * rows [.., d[3]]. */
SP_INLINE void sp_stretch_f32(const sp_taps p, const float *x, const int32_t *offset,
                              const float *weight, float *y) {
  const int k = p.k[4];
  for (int o = 0; o < p.d[4]; ++o) {
    const int32_t *from = offset + p.at[4] + o * k;
    const float *w = weight + p.at[4] + o * k;
    float *to = y + (ptrdiff_t)o * p.inner;
    if (p.inner == 1) {
      float sum = w[0] * x[from[0]];
      for (int e = 1; e < k; ++e) sum += w[e] * x[from[e]];
      *to = sum;
    } else {
      for (int j = 0; j < p.inner; j += SP_LANES) {
        const int n = (int)sp_imin(SP_LANES, p.inner - j);
        sp_f32 sum = sp_mul_f32(sp_set1_f32(w[0]), sp_loadn_f32(x + from[0] + j, n));
        for (int e = 1; e < k; ++e)
          sum = sp_fma_f32(sp_set1_f32(w[e]), sp_loadn_f32(x + from[e] + j, n), sum);
        sp_storen_f32(to + j, sum, n);
      }
    }
  }
}

SP_INLINE void sp_resize_rows_f32(const sp_taps p, ptrdiff_t xs, const float *x,
                                  const int32_t *offset, const float *weight, float *y,
                                  float *kept, int task) {
  const int run = p.d[4] * p.inner, k = p.k[3], lo = task * p.task_rows;
  const int hi = (int)sp_imin(SP_TAPS_ROWS(p), (ptrdiff_t)lo + p.task_rows);
  ptrdiff_t held[SP_MAX_ROWS];
  for (int a = 0; a < k; ++a) held[a] = -1;
  for (int row = lo; row < hi; ++row) {
    SP_TAPS_ROW(p, row);
    const int at = p.at[3] + o3 * k;
    const ptrdiff_t plane = (ptrdiff_t)offset[p.at[0] + o0] + offset[p.at[1] + o1] +
                            offset[p.at[2] + o2];
    float *to = y + o0 * p.ys[0] + o1 * p.ys[1] + o2 * p.ys[2] + o3 * p.ys[3];
    const float *from[SP_MAX_ROWS];
    int j = 0;
    for (int a = 0; a < k; ++a) {
      const ptrdiff_t source = plane + offset[at + a];
      const int slot = (int)(offset[at + a] / xs % k);
      if (held[slot] != source) {
        sp_stretch_f32(p, x + source, offset, weight, kept + (ptrdiff_t)slot * run);
        held[slot] = source;
      }
      from[a] = kept + (ptrdiff_t)slot * run;
    }
    for (; j + SP_LANES <= run; j += SP_LANES) {
      sp_f32 sum = sp_mul_f32(sp_set1_f32(weight[at]), sp_load_f32(from[0] + j));
      for (int a = 1; a < k; ++a)
        sum = sp_fma_f32(sp_set1_f32(weight[at + a]), sp_load_f32(from[a] + j), sum);
      sp_store_f32(to + j, sum);
    }
    if (j < run) {
      sp_f32 sum = sp_mul_f32(sp_set1_f32(weight[at]), sp_loadn_f32(from[0] + j, run - j));
      for (int a = 1; a < k; ++a)
        sum = sp_fma_f32(sp_set1_f32(weight[at + a]), sp_loadn_f32(from[a] + j, run - j), sum);
      sp_storen_f32(to + j, sum, run - j);
    }
  }
}

/* Other types, summed in W; wide integers are truncated and saturate. */
#define SP_SATURATE(name, T, A, W)                                    \
  SP_INLINE A sp_saturate_##name(double v) {                          \
    if (v != v) return 0;                                             \
    if (v >= (double)sp_high_##name()) return sp_high_##name();       \
    return v <= (double)sp_low_##name() ? sp_low_##name() : (A)v;     \
  }
SP_INT_TYPES(SP_SATURATE)
#define SP_NO_SATURATION(name, T, A, W) \
  SP_INLINE A sp_saturate_##name(W v) { return v; }
SP_HALF_TYPES(SP_NO_SATURATION)
SP_NO_SATURATION(f64, double, double, double)

#define SP_DEFINE_RESIZE(name, T, A, W)                                                           \
  SP_INLINE void sp_resize_##name(const sp_taps p, const T *x, const int32_t *offset,             \
                                  const W *weight, T *y, int task) {                              \
    SP_TAPS_LOOP(p, offset)                                                                       \
      for (int j = 0; j < p.inner; ++j) {                                                         \
        W sum = gone ? (W)p.outside : (W)0;                                                       \
        if (!gone)                                                                                \
          SP_TAPS_SUM(p)                                                                          \
            sum += SP_TAPS_WEIGHT(weight) * (W)sp_get_##name(SP_TAPS_FROM(x, offset) + j);        \
        sp_put_##name(y + to + j, sp_saturate_##name(sum));                                       \
      }                                                                                           \
    }                                                                                             \
  }
SP_HALF_TYPES(SP_DEFINE_RESIZE)
SP_DEFINE_RESIZE(f64, double, double, double)
SP_DEFINE_RESIZE(i32, int32_t, int32_t, double)
SP_DEFINE_RESIZE(u32, uint32_t, uint32_t, double)
SP_DEFINE_RESIZE(i64, int64_t, int64_t, double)
SP_DEFINE_RESIZE(u64, uint64_t, uint64_t, double)

/* Narrow integers: weights are integers whose product is a multiple of 2^-shift, sums are exact. */
#define SP_DEFINE_FIXED_RESIZE(name, T)                                                           \
  SP_INLINE void sp_resize_##name(const sp_taps p, const T *x, const int32_t *offset,             \
                                  const int64_t *weight, T *y, int task) {                        \
    const int64_t one = (int64_t)1 << p.shift;                                                    \
    SP_TAPS_LOOP(p, offset)                                                                       \
      for (int j = 0; j < p.inner; ++j) {                                                         \
        int64_t sum = 0;                                                                          \
        if (!gone)                                                                                \
          SP_TAPS_SUM(p) sum += SP_TAPS_WEIGHT(weight) * *(SP_TAPS_FROM(x, offset) + j);          \
        y[to + j] = sp_saturate_##name(gone ? (double)p.outside : (double)(sum / one));           \
      }                                                                                           \
    }                                                                                             \
  }
SP_DEFINE_FIXED_RESIZE(i8, int8_t)
SP_DEFINE_FIXED_RESIZE(u8, uint8_t)
SP_DEFINE_FIXED_RESIZE(i16, int16_t)
SP_DEFINE_FIXED_RESIZE(u16, uint16_t)

/* 8-bit codes: sums of at most 2^30 in int32, halves up. */
#define SP_DEFINE_CODE_RESIZE(name, T)                                                            \
  SP_INLINE void sp_resize_codes_##name(const sp_taps p, const T *x, const int32_t *offset,       \
                                        const int32_t *weight, T *y, int task) {                  \
    const sp_i32 half = sp_set1_i32(1 << (p.shift - 1));                                          \
    SP_TAPS_LOOP(p, offset)                                                                       \
      for (int j = 0; !gone && j < p.inner; j += SP_LANES) {                                      \
        const int n = (int)sp_imin(SP_LANES, p.inner - j);                                        \
        sp_i32 sum = half;                                                                        \
        SP_TAPS_SUM(p)                                                                            \
        sum = sp_add_i32(sum, sp_mul_i32(sp_set1_i32(SP_TAPS_WEIGHT(weight)),                     \
                                         sp_loadn_##name(SP_TAPS_FROM(x, offset) + j, n)));       \
        sp_storen_##name(y + to + j, sp_shr_i32(sum, p.shift), n);                                \
      }                                                                                           \
    }                                                                                             \
  }
SP_DEFINE_CODE_RESIZE(i8, int8_t)
SP_DEFINE_CODE_RESIZE(u8, uint8_t)

/* One tap of weight 1: elements are moved. `outside` holds one element. With `repeat` > 1 the last
 * axis is a dense run of which every element is written that many times. A row that comes from
 * where the one before it came from is copied from there. */
#define SP_DEFINE_REMAP(bits)                                                                     \
  SP_INLINE void sp_remap_##bits(const sp_taps p, const void *from, const int32_t *offset,        \
                                 const void *outside, void *into, int task) {                     \
    const uint##bits##_t *x = (const uint##bits##_t *)from;                                       \
    const uint##bits##_t fill = *(const uint##bits##_t *)outside;                                 \
    const int32_t *last = offset + p.at[4];                                                       \
    const int lo = task * p.task_rows;                                                            \
    const int hi = (int)sp_imin(SP_TAPS_ROWS(p), (ptrdiff_t)lo + p.task_rows);                    \
    const int dense = p.ys[4] == p.inner, run = p.d[4] * p.inner;                                 \
    for (int row = lo; row < hi; ++row) {                                                         \
      SP_TAPS_ROW(p, row);                                                                        \
      const int t3 = p.at[3] + o3;                                                                \
      const int32_t a = offset[p.at[0] + o0], b = offset[p.at[1] + o1];                           \
      const int32_t c = offset[p.at[2] + o2], d = offset[t3];                                     \
      const int gone = (a | b | c | d) < 0;                                                       \
      const uint##bits##_t *q = gone ? x : x + a + b + c + d;                                     \
      uint##bits##_t *y = (uint##bits##_t *)into + o0 * p.ys[0] + o1 * p.ys[1] + o2 * p.ys[2] +   \
                          o3 * p.ys[3];                                                           \
      if (dense && row > lo && o3 > 0 && offset[t3 - 1] == d) {                                   \
        const uint##bits##_t *before = y - p.ys[3];                                               \
        for (int j = 0; j < run; ++j) y[j] = before[j];                                           \
      } else if (p.repeat > 1 && !gone) {                                                         \
        for (int j = 0; j < run / p.repeat; ++j)                                                  \
          for (int k = 0; k < p.repeat; ++k) y[j * p.repeat + k] = q[j];                          \
      } else {                                                                                    \
        for (int o4 = 0; o4 < p.d[4]; ++o4) {                                                     \
          const int32_t e = last[o4];                                                             \
          uint##bits##_t *to = y + o4 * p.ys[4];                                                  \
          if (gone || e < 0)                                                                      \
            for (int j = 0; j < p.inner; ++j) to[j] = fill;                                       \
          else                                                                                    \
            for (int j = 0; j < p.inner; ++j) to[j] = q[e + j];                                   \
        }                                                                                         \
      }                                                                                           \
    }                                                                                             \
  }
SP_DEFINE_REMAP(8)
SP_DEFINE_REMAP(16)
SP_DEFINE_REMAP(32)
SP_DEFINE_REMAP(64)

#endif
