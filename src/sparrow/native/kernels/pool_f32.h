/* Float32 max and average pooling, NHWC, any window, strides, dilations and pads; mean over pixels.
 * Included after isa/<isa>.h; all fields of the parameter structs are literals in emitted code.
 *   x  element (n, y, x, c) at x[n * xn + y * xh + x * xw + c]
 *   y  pixel (n, oy, ox) at y + ((n * oh + oy) * ow + ox) * ldy; must not alias x
 * Nothing outside x is read. */
#ifndef SP_POOL_F32_H
#define SP_POOL_F32_H
#include "../base.h"
#include "epilogue.h"

#define SP_POOL_NV 4 /* vectors of channels taken together */

/* average: 0 maximum (NaN wins, an empty window gives -infinity), 1 mean over the taps inside the
 * image, 2 mean over the taps inside the image padded by pt, pl, pb, pr.
 * Task grid: batch x ceil(oh / task_h). */
typedef struct sp_pool2d {
  int batch, ih, iw, c, oh, ow;
  int kh, kw, sh, sw, dh, dw, pt, pl, pb, pr;
  int average;
  ptrdiff_t xn, xh, xw, ldy;
  int task_h;
} sp_pool2d;

/* Taps k in [first, last) of a window that starts at `at` and must stay within [lo, hi). */
SP_INLINE int sp_pool_first(int at, int lo, int d) { return at < lo ? (lo - at + d - 1) / d : 0; }
SP_INLINE int sp_pool_last(int at, int hi, int d, int k) {
  return hi <= at ? 0 : (int)sp_imin(k, (hi - at + d - 1) / d);
}

/* One pixel, nv vectors of channels of which the last has n valid lanes. */
SP_INLINE void sp_pool2d_pixel_f32(const sp_pool2d p, int nv, const float *x, float *y, int top,
                                   int left, float scale, ptrdiff_t row, ptrdiff_t col, int n,
                                   sp_ep_f32 ep, const void *const *e) {
  const int ky0 = sp_pool_first(top, 0, p.dh);
  const int ky1 = sp_pool_last(top, p.ih, p.dh, p.kh);
  const int kx0 = sp_pool_first(left, 0, p.dw);
  const int kx1 = sp_pool_last(left, p.iw, p.dw, p.kw);
  sp_f32 acc[SP_POOL_NV];
  SP_UNROLL
  for (int v = 0; v < nv; ++v)
    acc[v] = p.average ? sp_zero_f32()
                       : sp_from_bits_f32(sp_set1_i32((int32_t)-0x800000)); /* -infinity */
  for (int ky = ky0; ky < ky1; ++ky) {
    const float *r = x + (top + ky * p.dh) * p.xh + col;
    for (int kx = kx0; kx < kx1; ++kx) {
      const float *s = r + (left + kx * p.dw) * p.xw;
      SP_UNROLL
      for (int v = 0; v < nv; ++v) {
        const sp_f32 t = sp_loadn_f32(s + v * SP_LANES, v == nv - 1 ? n : SP_LANES);
        acc[v] = p.average ? sp_add_f32(acc[v], t) : sp_max_f32(t, acc[v]);
      }
    }
  }
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = v == nv - 1 ? n : SP_LANES;
    const ptrdiff_t c = col + v * SP_LANES;
    const sp_f32 t = p.average ? sp_mul_f32(acc[v], sp_set1_f32(scale)) : acc[v];
    sp_storen_f32(y + c, ep(t, e, row, c, lanes), lanes);
  }
}

SP_INLINE void sp_pool2d_f32(const sp_pool2d p, const float *x, float *y, sp_ep_f32 ep,
                             const void *const *e, int task) {
  const int th = (p.oh + p.task_h - 1) / p.task_h;
  const int z = task / th;
  const int oy0 = task % th * p.task_h;
  const int oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);
  const int full = p.c / SP_LANES / SP_POOL_NV * SP_POOL_NV;
  const int rest = p.c - full * SP_LANES;
  const int tail = (rest + SP_LANES - 1) / SP_LANES;
  const float *xz = x + z * p.xn;
  for (int oy = oy0; oy < oy1; ++oy) {
    const int top = oy * p.sh - p.pt;
    for (int ox = 0; ox < p.ow; ++ox) {
      const int left = ox * p.sw - p.pl;
      const ptrdiff_t row = ((ptrdiff_t)z * p.oh + oy) * p.ow + ox;
      float *o = y + row * p.ldy;
      const int pt = p.average == 2 ? p.pt : 0;
      const int pl = p.average == 2 ? p.pl : 0;
      const int pb = p.average == 2 ? p.pb : 0;
      const int pr = p.average == 2 ? p.pr : 0;
      const int taps = (sp_pool_last(top, p.ih + pb, p.dh, p.kh) - sp_pool_first(top, -pt, p.dh)) *
                       (sp_pool_last(left, p.iw + pr, p.dw, p.kw) - sp_pool_first(left, -pl, p.dw));
      const float scale = p.average ? 1.0f / (float)(int)sp_imax(taps, 1) : 1.0f;
      for (int j = 0; j < full; j += SP_POOL_NV)
        sp_pool2d_pixel_f32(p, SP_POOL_NV, xz, o, top, left, scale, row, j * SP_LANES, SP_LANES, ep,
                            e);
      if (tail > 0)
        sp_pool2d_pixel_f32(p, tail, xz, o, top, left, scale, row, full * SP_LANES,
                            rest - (tail - 1) * SP_LANES, ep, e);
    }
  }
}

/* The largest of up to SP_LANES channels of a window, the first of equal ones, and its place in the
 * plane, row-major; the first tap's where nothing is above -infinity. */
SP_INLINE void sp_arg_window_f32(const sp_pool2d p, const float *x, float *y, int64_t *z,
                                 int64_t plane, int top, int left, int n) {
  const int ky0 = sp_pool_first(top, 0, p.dh), ky1 = sp_pool_last(top, p.ih, p.dh, p.kh);
  const int kx0 = sp_pool_first(left, 0, p.dw), kx1 = sp_pool_last(left, p.iw, p.dw, p.kw);
  sp_f32 best = sp_from_bits_f32(sp_set1_i32((int32_t)-0x800000)); /* -infinity */
  sp_i32 at = sp_set1_i32((top + ky0 * p.dh) * p.iw + left + kx0 * p.dw);
  int32_t found[SP_LANES];
  for (int ky = ky0; ky < ky1; ++ky)
    for (int kx = kx0; kx < kx1; ++kx) {
      const int iy = top + ky * p.dh, ix = left + kx * p.dw;
      const sp_f32 v = sp_loadn_f32(x + iy * p.xh + ix * p.xw, n);
      const sp_mask wins =
          sp_mask_or(sp_gt_f32(v, best),
                     sp_mask_and(sp_isnan_f32(v), sp_mask_not(sp_isnan_f32(best))));
      best = sp_select_f32(wins, v, best);
      at = sp_select_i32(wins, sp_set1_i32(iy * p.iw + ix), at);
    }
  sp_storen_f32(y, best, n);
  sp_store_i32(found, at);
  for (int l = 0; l < n; ++l) z[l] = (plane + l) * ((int64_t)p.ih * p.iw) + found[l];
}

/* Maximum pooling that also says where in x, seen as NCHW, the maxima lie: z is laid out like y. */
SP_INLINE void sp_arg_pool2d_f32(const sp_pool2d p, const float *x, float *y, int64_t *z, int task) {
  const int th = (p.oh + p.task_h - 1) / p.task_h;
  const int image = task / th, oy0 = task % th * p.task_h;
  const int oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);
  const float *xz = x + image * p.xn;
  for (int oy = oy0; oy < oy1; ++oy)
    for (int ox = 0; ox < p.ow; ++ox) {
      const int top = oy * p.sh - p.pt, left = ox * p.sw - p.pl;
      const ptrdiff_t to = (((ptrdiff_t)image * p.oh + oy) * p.ow + ox) * p.ldy;
      const int64_t plane = (int64_t)image * p.c;
      int j = 0;
      for (; j + SP_LANES <= p.c; j += SP_LANES)
        sp_arg_window_f32(p, xz + j, y + to + j, z + to + j, plane + j, top, left, SP_LANES);
      if (j < p.c)
        sp_arg_window_f32(p, xz + j, y + to + j, z + to + j, plane + j, top, left, p.c - j);
    }
}

/* The largest of a vector's windows: of rows `step` floats apart. */
SP_INLINE void sp_max_windows_f32(int nv, const float *x, ptrdiff_t step, int taps, float *y, int n) {
  sp_f32 acc[SP_POOL_NV];
  SP_UNROLL
  for (int v = 0; v < nv; ++v) acc[v] = sp_from_bits_f32(sp_set1_i32((int32_t)-0x800000));
  for (int k = 0; k < taps; ++k, x += step) {
    SP_UNROLL
    for (int v = 0; v < nv; ++v)
      acc[v] = sp_max_f32(sp_loadn_f32(x + v * SP_LANES, v == nv - 1 ? n : SP_LANES), acc[v]);
  }
  SP_UNROLL
  for (int v = 0; v < nv; ++v)
    sp_storen_f32(y + v * SP_LANES, acc[v], v == nv - 1 ? n : SP_LANES);
}

/* Of `size` windows side by side; of no taps -infinity. */
SP_INLINE void sp_max_along_f32(ptrdiff_t size, const float *x, ptrdiff_t step, int taps, float *y) {
  ptrdiff_t i = 0;
  for (; i + SP_POOL_NV * SP_LANES <= size; i += SP_POOL_NV * SP_LANES)
    sp_max_windows_f32(SP_POOL_NV, x + i, step, taps, y + i, SP_LANES);
  for (; i + SP_LANES <= size; i += SP_LANES)
    sp_max_windows_f32(1, x + i, step, taps, y + i, SP_LANES);
  if (i < size) sp_max_windows_f32(1, x + i, step, taps, y + i, (int)(size - i));
}

/* Maximum pooling that visits every column: sw is 1, xw and ldy are c. Rows of windows are reduced to
 * a line, and windows along it, so that the lanes are full of few channels, too, and of kh kw taps
 * kh + kw are read. line: (ow + (kw - 1) dw) c floats. Task grid as for sp_pool2d_f32. */
SP_INLINE void sp_max_rows_f32(const sp_pool2d p, const float *x, float *y, float *line, int task) {
  const int th = (p.oh + p.task_h - 1) / p.task_h;
  const int z = task / th;
  const int oy0 = task % th * p.task_h;
  const int oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);
  const ptrdiff_t lo = (ptrdiff_t)p.pl * p.c, hi = lo + (ptrdiff_t)p.iw * p.c;
  const ptrdiff_t end = (ptrdiff_t)(p.ow + (p.kw - 1) * p.dw) * p.c;
  sp_max_along_f32(lo, line, 0, 0, line);
  sp_max_along_f32(end - hi, line, 0, 0, line + hi);
  for (int oy = oy0; oy < oy1; ++oy) {
    const int top = oy * p.sh - p.pt;
    const int ky = sp_pool_first(top, 0, p.dh);
    const int taps = (int)sp_imax(0, sp_pool_last(top, p.ih, p.dh, p.kh) - ky);
    const float *first = x + z * p.xn + (taps ? top + ky * p.dh : 0) * p.xh;
    sp_max_along_f32(hi - lo, first, p.dh * p.xh, taps, line + lo);
    sp_max_along_f32((ptrdiff_t)p.ow * p.c, line, (ptrdiff_t)p.dw * p.c, p.kw,
                     y + ((ptrdiff_t)z * p.oh + oy) * p.ow * p.ldy);
  }
}

/* Mean over all pixels: y[n * ldy + c], row n.
 * Task grid: ceil(batch / task_n) x ceil(ceil(c / SP_LANES) / task_c), task_c a multiple of SP_POOL_NV. */
typedef struct sp_mean2d {
  int batch, ih, iw, c;
  ptrdiff_t xn, xh, xw, ldy;
  int task_n, task_c;
} sp_mean2d;

/* nv vectors of channels; every fourth pixel goes to the same partial sum. */
SP_INLINE void sp_mean2d_vectors_f32(const sp_mean2d p, int nv, const float *x, float *y,
                                     ptrdiff_t row, ptrdiff_t col, int n, sp_ep_f32 ep,
                                     const void *const *e) {
  sp_f32 acc[4 * SP_POOL_NV];
  SP_UNROLL
  for (int v = 0; v < 4 * nv; ++v) acc[v] = sp_zero_f32();
  for (int iy = 0; iy < p.ih; ++iy) {
    const float *s = x + iy * p.xh + col;
    int ix = 0;
    for (; ix + 4 <= p.iw; ix += 4, s += 4 * p.xw) {
      SP_UNROLL
      for (int u = 0; u < 4; ++u) {
        SP_UNROLL
        for (int v = 0; v < nv; ++v)
          acc[u * nv + v] = sp_add_f32(acc[u * nv + v], sp_loadn_f32(s + u * p.xw + v * SP_LANES,
                                                                     v == nv - 1 ? n : SP_LANES));
      }
    }
    for (; ix < p.iw; ++ix, s += p.xw) {
      SP_UNROLL
      for (int v = 0; v < nv; ++v)
        acc[v] = sp_add_f32(acc[v], sp_loadn_f32(s + v * SP_LANES, v == nv - 1 ? n : SP_LANES));
    }
  }
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = v == nv - 1 ? n : SP_LANES;
    const ptrdiff_t c = col + v * SP_LANES;
    const sp_f32 sum =
        sp_add_f32(sp_add_f32(acc[v], acc[nv + v]), sp_add_f32(acc[2 * nv + v], acc[3 * nv + v]));
    const sp_f32 mean = sp_mul_f32(sum, sp_set1_f32(1.0f / (float)(p.ih * p.iw)));
    sp_storen_f32(y + c, ep(mean, e, row, c, lanes), lanes);
  }
}

SP_INLINE void sp_mean2d_f32(const sp_mean2d p, const float *x, float *y, sp_ep_f32 ep,
                             const void *const *e, int task) {
  const int vectors = (p.c + SP_LANES - 1) / SP_LANES;
  const int tc = (vectors + p.task_c - 1) / p.task_c;
  const int z0 = task / tc * p.task_n;
  const int z1 = (int)sp_imin(z0 + p.task_n, p.batch);
  const int j0 = task % tc * p.task_c;
  const int j1 = (int)sp_imin(j0 + p.task_c, vectors);
  const int full = p.c / SP_LANES / SP_POOL_NV * SP_POOL_NV;
  const int rest = p.c - full * SP_LANES;
  const int tail = (rest + SP_LANES - 1) / SP_LANES;
  for (int z = z0; z < z1; ++z) {
    const float *xz = x + z * p.xn;
    float *yz = y + z * p.ldy;
    for (int j = j0; j < (int)sp_imin(j1, full); j += SP_POOL_NV)
      sp_mean2d_vectors_f32(p, SP_POOL_NV, xz, yz, z, j * SP_LANES, SP_LANES, ep, e);
    if (tail > 0 && j1 > full)
      sp_mean2d_vectors_f32(p, tail, xz, yz, z, full * SP_LANES, rest - (tail - 1) * SP_LANES, ep,
                            e);
  }
}
#endif
