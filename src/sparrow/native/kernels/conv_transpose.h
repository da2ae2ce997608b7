/* Transposed convolution.
 *   sp_conv_transpose_f32     channels last, packed weights, epilogue; up to three spatial axes
 *   sp_deconv_<type>          any strides, weights as they are, bias; one element at a time
 * Output o takes x[i] * w[k] wherever o + begin = i * s + k * d. */
#ifndef SP_CONV_TRANSPOSE_H
#define SP_CONV_TRANSPOSE_H

#include "../base.h"
#include "element.h"
#include "epilogue.h"

#define SP_DECONV_NV 2  /* vectors of output channels by np outputs of one phase that are summed together */
#define SP_DECONV_MAX 12 /* sums at most */

/* ci and co are per group. w is [group][k0][k1][k2][ci][co rounded up to whole vectors].
 * Task grid: batch x out[0] x out[1] rows, task_rows each. */
typedef struct sp_conv_transpose {
  int batch, groups, ci, co, np, task_rows;
  int in[3], out[3], k[3], s[3], d[3], begin[3];
  ptrdiff_t xn, xs[3], ldy;
} sp_conv_transpose;

/* Index of the input that meets output o at tap k, -1 for none. */
SP_INLINE int sp_deconv_from(int o, int k, int s, int d, int begin, int n) {
  const int at = o + begin - k * d;
  return at < 0 || at % s != 0 || at / s >= n ? -1 : at / s;
}

/* One tap of nv vectors for np outputs; where not `all`, of those whose input lies inside the row. */
SP_INLINE void sp_deconv_tap_f32(const sp_conv_transpose p, int np, int nv, int all, const float *q, int i2,
                                 const float *u, sp_f32 *acc) {
  const int ld = (p.co + SP_LANES - 1) / SP_LANES * SP_LANES;
  for (int c = 0; c < p.ci; ++c, u += ld) {
    sp_f32 w[SP_DECONV_NV];
    SP_UNROLL
    for (int v = 0; v < nv; ++v) w[v] = sp_load_f32(u + v * SP_LANES);
    SP_UNROLL
    for (int j = 0; j < np; ++j) {
      if (!all && (i2 + j < 0 || i2 + j >= p.in[2])) continue;
      const sp_f32 t = sp_set1_f32(q[j * p.xs[2] + c]);
      SP_UNROLL
      for (int v = 0; v < nv; ++v) acc[nv * j + v] = sp_fma_f32(t, w[v], acc[nv * j + v]);
    }
  }
}

/* np outputs o2, o2 + s, ... of one row, all of which lie inside it; nv vectors, the last of n channels. */
SP_INLINE void sp_deconv_tile_f32(const sp_conv_transpose p, int np, int nv, const float *x,
                                  const float *w, float *y, int o0, int o1, int o2, int col,
                                  ptrdiff_t row, int n, int first, sp_ep_f32 ep,
                                  const void *const *e) {
  const int ld = (p.co + SP_LANES - 1) / SP_LANES * SP_LANES;
  sp_f32 acc[SP_DECONV_MAX];
  SP_UNROLL
  for (int v = 0; v < np * nv; ++v) acc[v] = sp_zero_f32();
  for (int k0 = 0; k0 < p.k[0]; ++k0) {
    const int i0 = sp_deconv_from(o0, k0, p.s[0], p.d[0], p.begin[0], p.in[0]);
    if (i0 < 0) continue;
    for (int k1 = 0; k1 < p.k[1]; ++k1) {
      const int i1 = sp_deconv_from(o1, k1, p.s[1], p.d[1], p.begin[1], p.in[1]);
      if (i1 < 0) continue;
      for (int k2 = 0; k2 < p.k[2]; ++k2) {
        const int at = o2 + p.begin[2] - k2 * p.d[2];
        const int i2 = at >= 0 ? at / p.s[2] : -((-at) / p.s[2]);
        const float *q = x + i0 * p.xs[0] + i1 * p.xs[1] + i2 * p.xs[2];
        const float *u = w + (((ptrdiff_t)k0 * p.k[1] + k1) * p.k[2] + k2) * p.ci * ld + col;
        if (at % p.s[2] != 0) continue;
        if (i2 >= 0 && i2 + np <= p.in[2])
          sp_deconv_tap_f32(p, np, nv, 1, q, i2, u, acc);
        else
          sp_deconv_tap_f32(p, np, nv, 0, q, i2, u, acc);
      }
    }
  }
  SP_UNROLL
  for (int j = 0; j < np; ++j) {
    float *o = y + (ptrdiff_t)j * p.s[2] * p.ldy;
    const ptrdiff_t at = row + (ptrdiff_t)j * p.s[2];
    SP_UNROLL
    for (int v = 0; v < nv; ++v) {
      const int lanes = v + 1 < nv ? SP_LANES : n;
      sp_storen_f32(o + v * SP_LANES, ep(acc[nv * j + v], e, at, first + v * SP_LANES, lanes), lanes);
    }
  }
}

/* The outputs of one phase of a row. */
SP_INLINE void sp_deconv_row_f32(const sp_conv_transpose p, int nv, const float *x, const float *w,
                                 float *y, int o0, int o1, int phase, int col, ptrdiff_t row, int n,
                                 int first, sp_ep_f32 ep, const void *const *e) {
  const int count = (p.out[2] - 1 - phase) / p.s[2] + 1;
  for (int i = 0; i < count; i += p.np) {
    /* the last tile ends with the row, and computes again what both have */
    const int j = count < p.np ? i : (int)sp_imin(i, count - p.np), o2 = phase + j * p.s[2];
    if (count >= p.np)
      sp_deconv_tile_f32(p, p.np, nv, x, w, y + o2 * p.ldy, o0, o1, o2, col, row + o2, n, first, ep, e);
    else
      for (int k = 0; k < count; ++k)
        sp_deconv_tile_f32(p, 1, nv, x, w, y + (o2 + k * p.s[2]) * p.ldy, o0, o1, o2 + k * p.s[2], col,
                           row + o2 + k * p.s[2], n, first, ep, e);
  }
}

SP_INLINE void sp_conv_transpose_f32(const sp_conv_transpose p, const float *x, const float *w,
                                     float *y, sp_ep_f32 ep, const void *const *e, int task) {
  const int ld = (p.co + SP_LANES - 1) / SP_LANES * SP_LANES;
  const ptrdiff_t size = (ptrdiff_t)p.k[0] * p.k[1] * p.k[2] * p.ci * ld;
  const int rows = p.batch * p.out[0] * p.out[1];
  const int lo = task * p.task_rows, hi = (int)sp_imin(rows, (ptrdiff_t)lo + p.task_rows);
  for (int r = lo; r < hi; ++r) {
    const int o1 = r % p.out[1], o0 = r / p.out[1] % p.out[0], b = r / p.out[1] / p.out[0];
    for (int g = 0; g < p.groups; ++g)
      for (int col = 0, nv = SP_DECONV_NV; col < p.co; col += nv * SP_LANES) {
        const int left = p.co - col, first = g * p.co + col;
        const ptrdiff_t row = (ptrdiff_t)r * p.out[2];
        const float *const q = x + b * p.xn + (ptrdiff_t)g * p.ci, *const u = w + g * size;
        float *const o = y + row * p.ldy + first;
        if (left <= SP_LANES) nv = 1;
        const int n = (int)sp_imin(left - (nv - 1) * SP_LANES, SP_LANES);
        for (int phase = 0; phase < (int)sp_imin(p.s[2], p.out[2]); ++phase) {
          if (nv == SP_DECONV_NV)
            sp_deconv_row_f32(p, SP_DECONV_NV, q, u, o, o0, o1, phase, col, row, n, first, ep, e);
          else
            sp_deconv_row_f32(p, 1, q, u, o, o0, o1, phase, col, row, n, first, ep, e);
        }
      }
  }
}

/* w is [groups * ci][co][k0][k1][k2]. Task grid: batch x groups * co planes, task_rows each. */
typedef struct sp_deconv {
  int batch, groups, ci, co, task_rows, bias;
  int in[3], out[3], k[3], s[3], d[3], begin[3];
  ptrdiff_t xn, xc, xs[3], yn, yc, ys[3];
} sp_deconv;

#define SP_DEFINE_DECONV(name, T, A, W)                                                           \
  SP_INLINE void sp_deconv_##name(const sp_deconv p, const T *x, const T *w, const T *bias, T *y, \
                                  int task) {                                                     \
    const int planes = p.batch * p.groups * p.co;                                                 \
    const int lo = task * p.task_rows, hi = (int)sp_imin(planes, (ptrdiff_t)lo + p.task_rows);    \
    for (int plane = lo; plane < hi; ++plane)                                                     \
      for (int o0 = 0; o0 < p.out[0]; ++o0)                                                       \
        for (int o1 = 0; o1 < p.out[1]; ++o1)                                                     \
          for (int o2 = 0; o2 < p.out[2]; ++o2) {                                                 \
            const int m = plane % (p.groups * p.co), n = plane / (p.groups * p.co);               \
            const int g = m / p.co;                                                               \
            W sum = 0;                                                                            \
            for (int k0 = 0; k0 < p.k[0]; ++k0)                                                   \
              for (int k1 = 0; k1 < p.k[1]; ++k1)                                                 \
                for (int k2 = 0; k2 < p.k[2]; ++k2) {                                             \
                  const int i0 = sp_deconv_from(o0, k0, p.s[0], p.d[0], p.begin[0], p.in[0]);     \
                  const int i1 = sp_deconv_from(o1, k1, p.s[1], p.d[1], p.begin[1], p.in[1]);     \
                  const int i2 = sp_deconv_from(o2, k2, p.s[2], p.d[2], p.begin[2], p.in[2]);     \
                  if (i0 < 0 || i1 < 0 || i2 < 0) continue;                                       \
                  for (int c = 0; c < p.ci; ++c) {                                                \
                    const ptrdiff_t k = (((ptrdiff_t)(g * p.ci + c) * p.co + m % p.co) * p.k[0] + \
                                         k0) * p.k[1] + k1;                                       \
                    const T *q = x + n * p.xn + (g * p.ci + c) * p.xc + i0 * p.xs[0] +            \
                                 i1 * p.xs[1] + i2 * p.xs[2];                                     \
                    sum += sp_widen_##name(sp_get_##name(q)) *                                    \
                           sp_widen_##name(sp_get_##name(w + k * p.k[2] + k2));                   \
                  }                                                                               \
                }                                                                                 \
            if (p.bias) sum += sp_widen_##name(sp_get_##name(bias + m));                          \
            sp_put_##name(y + n * p.yn + m * p.yc + o0 * p.ys[0] + o1 * p.ys[1] + o2 * p.ys[2],   \
                          sp_narrow_##name(sum));                                                 \
          }                                                                                       \
  }
SP_FLOAT_TYPES(SP_DEFINE_DECONV)
SP_INT_TYPES(SP_DEFINE_DECONV)

#endif
