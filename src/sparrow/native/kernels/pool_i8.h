/* Maximum pooling of codes, NHWC, any window, strides, dilations and pads.
 *   x     element (n, y, x, c) at x[n * xn + y * xh + x * xw + c]
 *   y     pixel (n, oy, ox) at y + ((n * oh + oy) * ow + ox) * ldy; must not alias x
 *   line  scratch of iw * c elements: the maxima of the rows of a window, then taken along it
 * An empty window gives the lowest code. Loops run over codes, for compilers to make vectors of.
 * Task grid: batch x ceil(oh / task_h). */
#ifndef SP_POOL_I8_H
#define SP_POOL_I8_H
#include "../base.h"

typedef struct sp_pool_i8 {
  int batch, ih, iw, c, oh, ow;
  int kh, kw, sh, sw, dh, dw, pt, pl;
  ptrdiff_t xn, xh, xw, ldy;
  int task_h;
} sp_pool_i8;

/* Where there are vectors, a pass takes up to so many taps, and what lies at an edge one by one; code
 * without is small. */
#define SP_MAX_TAPS 5
SP_INLINE int sp_max_passes(int taps) { return SP_LANES > 1 && taps <= SP_MAX_TAPS; }
SP_INLINE int sp_max_taps(int taps) { return sp_max_passes(taps) ? taps : 1; }

#define SP_DEFINE_MAX_POOL_I8(name, T, LOW)                                                        \
  SP_INLINE void sp_raise_##name(T *SP_RESTRICT y, const T *SP_RESTRICT x, ptrdiff_t n) {          \
    for (ptrdiff_t i = 0; i < n; ++i) y[i] = x[i] > y[i] ? x[i] : y[i];                            \
  }                                                                                                \
  /* The greatest of `taps` codes, each `step` apart, in one pass. */                              \
  SP_INLINE void sp_most_##name(T *SP_RESTRICT y, const T *SP_RESTRICT x, int taps, ptrdiff_t step,\
                                ptrdiff_t n) {                                                     \
    for (ptrdiff_t i = 0; i < n; ++i) {                                                            \
      T most = x[i];                                                                               \
      SP_UNROLL                                                                                    \
      for (int k = 1; k < taps; ++k) most = x[i + k * step] > most ? x[i + k * step] : most;       \
      y[i] = most;                                                                                 \
    }                                                                                              \
  }                                                                                                \
  /* One row of x, into the line. */                                                               \
  SP_INLINE void sp_raise_row_##name(const sp_pool_i8 p, T *line, const T *x) {                    \
    if (p.xw == p.c) {                                                                             \
      sp_raise_##name(line, x, (ptrdiff_t)p.iw * p.c);                                             \
    } else {                                                                                       \
      for (int i = 0; i < p.iw; ++i)                                                               \
        sp_raise_##name(line + (ptrdiff_t)i * p.c, x + i * p.xw, p.c);                             \
    }                                                                                              \
  }                                                                                                \
  SP_INLINE void sp_max_pool2d_##name(const sp_pool_i8 p, const T *x, T *y, T *line, int task) {   \
    const int th = (p.oh + p.task_h - 1) / p.task_h;                                               \
    const int z = task / th;                                                                       \
    const int oy0 = task % th * p.task_h;                                                          \
    const int oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);                                            \
    for (int oy = oy0; oy < oy1; ++oy) {                                                           \
      T *o = y + ((ptrdiff_t)z * p.oh + oy) * p.ow * p.ldy;                                        \
      const int top = oy * p.sh - p.pt;                                                            \
      if (sp_max_passes(p.kh) && p.xw == p.c && top >= 0 && top + (p.kh - 1) * p.dh < p.ih) {      \
        sp_most_##name(line, x + z * p.xn + top * p.xh, sp_max_taps(p.kh), p.dh * p.xh,            \
                       (ptrdiff_t)p.iw * p.c);                                                     \
      } else {                                                                                     \
        for (ptrdiff_t i = 0; i < (ptrdiff_t)p.iw * p.c; ++i) line[i] = LOW;                       \
        for (int ky = 0; ky < p.kh; ++ky) {                                                        \
          const int iy = top + ky * p.dh;                                                          \
          if (iy >= 0 && iy < p.ih) sp_raise_row_##name(p, line, x + z * p.xn + iy * p.xh);        \
        }                                                                                          \
      }                                                                                            \
      if (p.sw == 1 && p.ldy == p.c) { /* windows side by side, few channels or many */            \
        for (ptrdiff_t i = 0; i < (ptrdiff_t)p.ow * p.c; ++i) o[i] = LOW;                          \
        for (int kx = 0; kx < p.kw; ++kx) {                                                        \
          const ptrdiff_t at = kx * p.dw - p.pl, lo = sp_imax(0, -at);                             \
          const ptrdiff_t n = sp_imin(p.ow, p.iw - at) - lo;                                       \
          if (n > 0) sp_raise_##name(o + lo * p.c, line + (lo + at) * p.c, n * p.c);               \
        }                                                                                          \
        continue;                                                                                  \
      }                                                                                            \
      for (int ox = 0; ox < p.ow; ++ox, o += p.ldy) {                                              \
        const int left = ox * p.sw - p.pl;                                                         \
        if (sp_max_passes(p.kw) && left >= 0 && left + (p.kw - 1) * p.dw < p.iw) {                 \
          sp_most_##name(o, line + (ptrdiff_t)left * p.c, sp_max_taps(p.kw),                       \
                         (ptrdiff_t)p.dw * p.c, p.c);                                              \
          continue;                                                                                \
        }                                                                                          \
        for (int i = 0; i < p.c; ++i) o[i] = LOW;                                                  \
        for (int kx = 0; kx < p.kw; ++kx) {                                                        \
          const int ix = left + kx * p.dw;                                                         \
          if (ix >= 0 && ix < p.iw) sp_raise_##name(o, line + (ptrdiff_t)ix * p.c, p.c);           \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
  }
SP_DEFINE_MAX_POOL_I8(i8, int8_t, -128)
SP_DEFINE_MAX_POOL_I8(u8, uint8_t, 0)
SP_DEFINE_MAX_POOL_I8(i16, int16_t, -32768)
#endif
