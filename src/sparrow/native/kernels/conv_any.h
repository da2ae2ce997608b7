/* Convolution where nothing is assumed: one to three spatial axes, any strides of x, w and y, weights
 * known only at run time, channels in any place. Sums are float32, double in double, or of 8-bit codes
 * of either sign exactly in int32; all but the double ones take an epilogue.
 * Axes of extent 1 stand in front of fewer than three spatial ones. */
#ifndef SP_CONV_ANY_H
#define SP_CONV_ANY_H
#include "../base.h"
#include "epilogue.h"

/* ci, co: channels of one group. xs, ws, ys: strides along the spatial axes; xc, wi, yc along
 * channels, wo along output channels, xn, yn along the batch. last: whether channels are the last
 * axis of y; the epilogue sees the last axis as its column and all others as its row. Tasks are
 * runs of task_pixels output pixels, batch included. */
typedef struct sp_conv_any {
  ptrdiff_t batch, groups, ci, co;
  ptrdiff_t in[3], out[3], k[3], step[3], dilation[3], pad[3];
  ptrdiff_t xn, xc, xs[3], wo, wi, ws[3], yn, yc, ys[3];
  int last, biased, zero, put;
  ptrdiff_t task_pixels;
} sp_conv_any;

#define SP_CONV_ANY_PLAIN(y, i, v) ((y)[i] = (v), (void)row, (void)col, (void)ep, (void)e)
#define SP_CONV_ANY_EP(y, i, v) sp_storen_f32((y) + (i), ep(sp_set1_f32(v), e, row, col, 1), 1)
#define SP_CONV_ANY_CODE(y, i, v) sp_put_sum(p.put, y, i, ep(sp_set1_i32(v), e, row, col, 1), 1)

/* X, W: elements of x and w; A: of bias and the sum, taken in S (where it wraps); Y: of y, stored by
 * PUT after the epilogue EP. */
#define SP_DEFINE_CONV_ANY(name, X, W, A, S, Y, EP, PUT)                                               \
  SP_INLINE A sp_conv_any_sum_##name(const sp_conv_any p, const X *x, const W *w, A start,         \
                                     const ptrdiff_t *at) {                                        \
    S sum = (S)start;                                                                              \
    for (ptrdiff_t a = 0; a < p.k[0]; ++a) {                                                       \
      const ptrdiff_t i = at[0] * p.step[0] - p.pad[0] + a * p.dilation[0];                        \
      if (i < 0 || i >= p.in[0]) continue;                                                         \
      for (ptrdiff_t b = 0; b < p.k[1]; ++b) {                                                     \
        const ptrdiff_t j = at[1] * p.step[1] - p.pad[1] + b * p.dilation[1];                      \
        if (j < 0 || j >= p.in[1]) continue;                                                       \
        for (ptrdiff_t c = 0; c < p.k[2]; ++c) {                                                   \
          const ptrdiff_t k = at[2] * p.step[2] - p.pad[2] + c * p.dilation[2];                    \
          if (k < 0 || k >= p.in[2]) continue;                                                     \
          const X *xt = x + i * p.xs[0] + j * p.xs[1] + k * p.xs[2];                               \
          const W *wt = w + a * p.ws[0] + b * p.ws[1] + c * p.ws[2];                               \
          for (ptrdiff_t m = 0; m < p.ci; ++m)                                                     \
            sum += (S)(((A)xt[m * p.xc] - (A)p.zero) * (A)wt[m * p.wi]);                                       \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
    return (A)sum;                                                                                 \
  }                                                                                                \
  SP_INLINE void sp_conv_any_##name(const sp_conv_any p, const X *x, const W *w, const void *bias, \
                                    Y *y, EP ep, const void *const *e, int task) {          \
    const ptrdiff_t pixels = p.batch * p.out[0] * p.out[1] * p.out[2];                             \
    const ptrdiff_t hi = sp_imin(pixels, (task + 1) * p.task_pixels);                              \
    for (ptrdiff_t r = task * p.task_pixels; r < hi; ++r) {                                        \
      const ptrdiff_t r2 = r / p.out[2], r1 = r2 / p.out[1], n = r1 / p.out[0];                    \
      const ptrdiff_t at[3] = {r1 % p.out[0], r2 % p.out[1], r % p.out[2]};                        \
      const ptrdiff_t q = n * p.yn + at[0] * p.ys[0] + at[1] * p.ys[1] + at[2] * p.ys[2];                 \
      for (ptrdiff_t o = 0; o < p.groups * p.co; ++o) {                                            \
        const X *xg = x + n * p.xn + o / p.co * p.ci * p.xc;                                       \
        const ptrdiff_t line = ((n * p.groups * p.co + o) * p.out[0] + at[0]) * p.out[1] + at[1];  \
        const ptrdiff_t row = p.last ? r : line, col = p.last ? o : at[2];                         \
        const A start = p.biased ? ((const A *)bias)[o] : (A)0;                                                 \
        PUT(y, q + o * p.yc, sp_conv_any_sum_##name(p, xg, w + o * p.wo, start, at));                 \
      }                                                                                            \
    }                                                                                              \
  }
#define SP_DEFINE_CONV_ANY_CODE(name, X, W) \
  SP_DEFINE_CONV_ANY(name, X, W, int32_t, uint32_t, void, sp_ep_i32, SP_CONV_ANY_CODE)
SP_DEFINE_CONV_ANY(f32, float, float, float, float, float, sp_ep_f32, SP_CONV_ANY_EP)
SP_DEFINE_CONV_ANY(f64, double, double, double, double, double, sp_ep_f32, SP_CONV_ANY_PLAIN)
SP_DEFINE_CONV_ANY_CODE(i8_i8, int8_t, int8_t)
SP_DEFINE_CONV_ANY_CODE(i8_u8, int8_t, uint8_t)
SP_DEFINE_CONV_ANY_CODE(u8_i8, uint8_t, int8_t)
SP_DEFINE_CONV_ANY_CODE(u8_u8, uint8_t, uint8_t)
SP_DEFINE_CONV_ANY_CODE(i16_i8, int16_t, int8_t)

#endif
