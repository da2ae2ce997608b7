/* Float32 depthwise 2-D convolution (one output channel per input channel), NHWC.
 *   Y[n][oy][ox][c] = ep(sum over ky, kx of X[n][oy*sh - pt + ky*dh][ox*sw - pl + kx*dw][c]
 *                                           * W[ky][kx][c])
 * Included after isa/<isa>.h; all fields of sp_depthwise are literals in emitted code.
 *   x  element (n, y, x, c) at x[n * xn + y * xh + x * xw + c], bfloat16 where `xhalf`
 *   w  [kh * kw][c rounded up to SP_LANES], zero padded, by packing_f32.pack_depthwise()
 *   y  pixel (n, oy, ox) at element ((n * oh + oy) * ow + ox) * ldy, bfloat16 where `half`; must not
 *      alias x or w
 * Taps outside the image are skipped; nothing outside x is read. */
#ifndef SP_DEPTHWISE_F32_H
#define SP_DEPTHWISE_F32_H
#include "../base.h"
#include "epilogue.h"

#define SP_DEPTHWISE_MR 16 /* output pixels of a tile */

/* Tiles of mr output pixels x 1 vector; blocks of rb output rows are finished cb vectors at a time,
 * tile by tile, so that input rows are read again from L1, and so are lines that hold several vectors.
 * Task grid: batch x ceil(oh / task_h) rows x ceil(ceil(c / SP_LANES) / task_c) vectors. */
typedef struct sp_depthwise {
  int batch, ih, iw, c, oh, ow;
  int kh, kw, sh, sw, dh, dw, pt, pl;
  ptrdiff_t xn, xh, xw, ldy;
  int xhalf, half;
  int mr, cb, rb, task_h, task_c;
} sp_depthwise;

SP_INLINE const void *sp_depthwise_at(int half, const void *x, ptrdiff_t i) {
  return half ? (const void *)((const uint16_t *)x + i) : (const void *)((const float *)x + i);
}

SP_INLINE sp_f32 sp_depthwise_get(int half, const void *x, ptrdiff_t i, int n) {
  return half ? sp_loadn_bf16((const uint16_t *)x + i, n) : sp_loadn_f32((const float *)x + i, n);
}

/* taps of one row of the kernel, of which the first of pixel 0 is over column `left`. Input columns
 * are walked once; each feeds the outputs that use it. */
SP_INLINE void sp_depthwise_taps_f32(const sp_depthwise p, int mr, int taps, const void *x,
                                     ptrdiff_t at, const float *w, sp_f32 *acc, int edge, int left,
                                     int n) {
  const ptrdiff_t wk = (ptrdiff_t)(p.c + SP_LANES - 1) / SP_LANES * SP_LANES;
  SP_UNROLL
  for (int j = 0; j < (mr - 1) * p.sw + (taps - 1) * p.dw + 1; ++j) {
    if (!edge || (left + j >= 0 && left + j < p.iw)) {
      const sp_f32 v = sp_depthwise_get(p.xhalf, x, at + (left + j) * p.xw, n);
      SP_UNROLL
      for (int kx = 0; kx < taps; ++kx) {
        const int d = j - kx * p.dw; /* i * sw */
        if (d >= 0 && d % p.sw == 0 && d / p.sw < mr)
          acc[d / p.sw] = sp_fma_f32(v, sp_load_f32(w + kx * wk), acc[d / p.sw]);
      }
    }
  }
}

/* mr pixels from column ox of row oy, n channels. At an edge ox is a literal wherever speed matters,
 * so that the tests fold away. */
SP_INLINE void sp_depthwise_tile_f32(const sp_depthwise p, int mr, const void *x, const float *w,
                                     void *y, int edge, int oy, int ox, ptrdiff_t row,
                                     ptrdiff_t col, int n, sp_ep_f32 ep, const void *const *e) {
  const ptrdiff_t wk = (ptrdiff_t)(p.c + SP_LANES - 1) / SP_LANES * SP_LANES;
  const int top = oy * p.sh - p.pt;
  const int left = ox * p.sw - p.pl;
  const int ky0 = top < 0 ? (-top + p.dh - 1) / p.dh : 0;
  const int ky1 = (int)sp_imin(p.kh, (p.ih - top + p.dh - 1) / p.dh);
  sp_f32 acc[SP_DEPTHWISE_MR];
  SP_UNROLL
  for (int i = 0; i < mr; ++i) acc[i] = sp_zero_f32();
  for (int ky = ky0; ky < ky1; ++ky) {
    const ptrdiff_t at = (top + ky * p.dh) * p.xh;
    const float *wr = w + ky * p.kw * wk;
    const int taps = sp_taps_at_once(p.kw);
    int k = 0;
    for (; k + taps <= p.kw; k += taps)
      sp_depthwise_taps_f32(p, mr, taps, x, at, wr + k * wk, acc, edge, left + k * p.dw, n);
    if (p.kw % taps)
      sp_depthwise_taps_f32(p, mr, p.kw % taps, x, at, wr + k * wk, acc, edge, left + k * p.dw, n);
  }
  SP_UNROLL
  for (int i = 0; i < mr; ++i)
    sp_put_out(p.half, y, (ox + i) * p.ldy, ep(acc[i], e, row + ox + i, col, n), n);
}

/* Such a tile of each of so many vectors. */
SP_INLINE void sp_depthwise_tiles_f32(const sp_depthwise p, int mr, int vectors, const void *x,
                                      const float *w, void *y, int edge, int oy, int ox,
                                      ptrdiff_t row, ptrdiff_t col, int n, sp_ep_f32 ep,
                                      const void *const *e) {
  if (p.cb == 1) {
    sp_depthwise_tile_f32(p, mr, x, w, y, edge, oy, ox, row, col, n, ep, e);
    return;
  }
  SP_ROLLED
  for (int j = 0; j < vectors; ++j) {
    const ptrdiff_t c = (ptrdiff_t)j * SP_LANES;
    sp_depthwise_tile_f32(p, mr, sp_depthwise_at(p.xhalf, x, c), w + c, sp_out_at(p.half, y, c),
                          edge, oy, ox, row, col + c, n, ep, e);
  }
}

/* Output rows [oy0, oy1) of so many vectors of n channels; y and row belong to pixel 0. */
SP_INLINE void sp_depthwise_rows_f32(const sp_depthwise p, const void *x, const float *w, void *y,
                                     int vectors, int oy0, int oy1, ptrdiff_t row, ptrdiff_t col,
                                     int n, sp_ep_f32 ep, const void *const *e) {
  const int tiles = p.ow / p.mr;
  const int rest = p.ow % p.mr;
  const int reach =
      p.iw - 1 + p.pl - (p.kw - 1) * p.dw; /* last column with all taps inside, times sw */
  const int inside = reach < 0 ? 0 : (int)sp_imin((reach / p.sw + 1) / p.mr, tiles);
  const int lo = (int)sp_imin((p.pl + p.sw * p.mr - 1) / (p.sw * p.mr), tiles);
  const int hi = (int)sp_imax(inside, lo);
  for (int oy = oy0; oy < oy1; ++oy) {
    void *yr = sp_out_at(p.half, y, (ptrdiff_t)oy * p.ow * p.ldy);
    const ptrdiff_t r = row + (ptrdiff_t)oy * p.ow;
    if (lo > 0) sp_depthwise_tiles_f32(p, p.mr, vectors, x, w, yr, 1, oy, 0, r, col, n, ep, e);
    for (int i = lo; i < hi; ++i)
      sp_depthwise_tiles_f32(p, p.mr, vectors, x, w, yr, 0, oy, i * p.mr, r, col, n, ep, e);
    if (hi < tiles)
      sp_depthwise_tiles_f32(p, p.mr, vectors, x, w, yr, 1, oy, hi * p.mr, r, col, n, ep, e);
    if (lo > 1 || hi + 1 < tiles) /* more edge tiles than one a side: ox is not a literal */
      for (int i = 1; i < tiles; ++i)
        if (i < lo || i > hi)
          sp_depthwise_tiles_f32(p, p.mr, vectors, x, w, yr, 1, oy, i * p.mr, r, col, n, ep, e);
    if (rest > 0)
      sp_depthwise_tiles_f32(p, rest, vectors, x, w, yr, 1, oy, tiles * p.mr, r, col, n, ep, e);
  }
}

SP_INLINE void sp_depthwise_f32(const sp_depthwise p, const void *x, const float *w, void *y,
                                sp_ep_f32 ep, const void *const *e, int task) {
  const int full = p.c / SP_LANES;
  const int rest = p.c % SP_LANES;
  const int vectors = full + (rest > 0);
  const int tc = (vectors + p.task_c - 1) / p.task_c;
  const int th = (p.oh + p.task_h - 1) / p.task_h;
  const int j0 = task % tc * p.task_c;
  const int oy0 = task / tc % th * p.task_h;
  const int z = task / (tc * th);
  const int j1 = (int)sp_imin(j0 + p.task_c, vectors);
  const int je = (int)sp_imin(j1, full);
  const int oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);
  const ptrdiff_t row = (ptrdiff_t)z * p.oh * p.ow;
  const void *xz = sp_depthwise_at(p.xhalf, x, z * p.xn);
  void *yz = sp_out_at(p.half, y, row * p.ldy);
  for (int oy = oy0; oy < oy1; oy += p.rb) {
    const int oe = (int)sp_imin(oy + p.rb, oy1);
    for (int j = j0; j < je; j += p.cb) {
      const ptrdiff_t c = (ptrdiff_t)j * SP_LANES;
      const int side = p.cb == 1 ? 1 : (int)sp_imin(p.cb, je - j); /* a literal where it can be */
      sp_depthwise_rows_f32(p, sp_depthwise_at(p.xhalf, xz, c), w + c, sp_out_at(p.half, yz, c),
                            side, oy, oe, row, c, SP_LANES, ep, e);
    }
    if (rest > 0 && j1 > full) {
      const ptrdiff_t c = (ptrdiff_t)full * SP_LANES;
      sp_depthwise_rows_f32(p, sp_depthwise_at(p.xhalf, xz, c), w + c, sp_out_at(p.half, yz, c), 1,
                            oy, oe, row, c, rest, ep, e);
    }
  }
}
#endif
