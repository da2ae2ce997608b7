/* Depthwise 2-D convolution of 8-bit codes (one output channel per input channel), NHWC, exact.
 *   Y[n][oy][ox][c] = ep(init[c] + sum over ky, kx of
 *                        X[n][oy*sh - pt + ky*dh][ox*sw - pl + kx*dw][c] * W[ky][kx][c])
 * Included after isa/<isa>.h; all fields of sp_depthwise_i8 are literals in emitted code.
 *   x     element (n, y, x, c) at byte x[n * xn + y * xh + x * xw + c], signed or not
 *   w     int8 [vectors][ro][rq][kw][SP_LANES][4], zero padded, by packing_i8.pack_depthwise(); 1 for 4
 *         where `pair` is SP_SINGLE, 2 for rq where `same`
 *   init  int32 [vectors * SP_LANES]: bias less what the zero point of x adds
 *   pads  scratch of iw * xw + SP_LANES bytes: a row of padding, of the kind of x
 *   y     pixel (n, oy, ox) at element ((n * oh + oy) * ow + ox) * ldy; must not alias x or w
 * Four rows of a column are zipped into quads of one channel; a quad serves ro output rows, with
 * weights shifted down by a row each, and all kx that reach its column. */
#ifndef SP_DEPTHWISE_I8_H
#define SP_DEPTHWISE_I8_H
#include "../base.h"
#include "epilogue.h"
#include "tile_i8.h"

#define SP_DEPTHWISE_I8_MAX 32 /* accumulators of a tile, ro * mr */

/* Tiles: ro output rows x mr pixels x 1 vector; rq quads cover the rows they read. flip: bytes of x
 * are of the other kind than sp_dot4_i32 takes. pad: byte of the padding, as it takes it. Task grid:
 * batch x ceil(oh / task_h) rows x ceil(vectors / task_c); task_h is a multiple of ro. */
typedef struct sp_depthwise_i8 {
  int batch, ih, iw, c, oh, ow;
  int kh, kw, sh, sw, dh, dw, pt, pl;
  ptrdiff_t xn, xh, xw, ldy;
  int pair, flip, pad, put, same;
  int ro, rq, mr, rb, task_h, task_c;
} sp_depthwise_i8;

/* taps of one row of quads, of which the first of pixel 0 is over column `left`, which is `ahead`
 * columns from `from`. */
SP_INLINE void sp_depthwise_i8_taps(const sp_depthwise_i8 p, int rows, int mr, int taps,
                                    const uint8_t *const *from, int ahead, const int8_t *w,
                                    sp_i32 *acc, int edge, int left, int n) {
  const int per = sp_bytes_at_once(p.pair);
  const uint32_t quad = 0x01010101u * (uint32_t)(p.pad & 255);
  const sp_i32 outside = sp_set1_i32((int32_t)quad);
  SP_UNROLL
  for (int j = 0; j < (mr - 1) * p.sw + (taps - 1) * p.dw + 1; ++j) {
    const ptrdiff_t at = (ahead + j) * p.xw;
    sp_i32 v = outside;
    sp_single one = sp_set1_single(((p.pad & 255) ^ 128) - 128);
    if (!edge || (left + j >= 0 && left + j < p.iw)) {
      if (p.pair == SP_SINGLE) {
        one = sp_loadn_single(from[0] + at, n, p.flip);
      } else {
        v = sp_zip4_i8(from[0] + at, from[1] + at, from[2] + at, from[3] + at, n);
        if (p.flip) v = sp_flip_i32(v);
      }
    }
    SP_UNROLL
    for (int kx = 0; kx < taps; ++kx) {
      const int d = j - kx * p.dw; /* i * sw */
      if (d >= 0 && d % p.sw == 0 && d / p.sw < mr) {
        SP_UNROLL
        for (int o = 0; o < rows; ++o) {
          const int8_t *wk = w + ((ptrdiff_t)o * p.rq * p.kw + kx) * per * SP_LANES;
          const int cell = o * mr + d / p.sw;
          acc[cell] = p.pair == SP_SINGLE
                          ? sp_add_product(acc[cell], one, sp_loadn_single(wk, SP_LANES, 0))
                          : sp_dot4_i32(acc[cell], v, sp_loadq_i32(wk));
        }
      }
    }
  }
}

/* rows x mr pixels from (oy, ox), n channels. At an edge ox is a literal wherever speed matters. */
SP_INLINE void sp_depthwise_i8_tile(const sp_depthwise_i8 p, int rows, int mr, const uint8_t *x,
                                    const int8_t *w, const int32_t *init, const uint8_t *pads,
                                    void *y, ptrdiff_t at, int edge, int oy, int ox, ptrdiff_t row,
                                    ptrdiff_t col, int n, sp_ep_i32 ep, const void *const *e) {
  const int left = ox * p.sw - p.pl;
  const int per = sp_bytes_at_once(p.pair);
  sp_i32 acc[SP_DEPTHWISE_I8_MAX];
  const sp_i32 start = sp_load_i32(init);
  SP_UNROLL
  for (int i = 0; i < rows * mr; ++i) acc[i] = start;
  for (int q = 0; q < p.rq; ++q) {
    const uint8_t *from[4];
    from[0] = x; /* gcc does not see that it always is set */
    const int8_t *wq = w + (ptrdiff_t)(p.same ? q + 1 == p.rq : q) * p.kw * per * SP_LANES;
    SP_UNROLL
    for (int i = 0; i < per; ++i) {
      const int iy = oy * p.sh - p.pt + (per * q + i) * p.dh;
      const int there = pads == NULL || (iy >= 0 && iy < p.ih);
      /* a row behind the last may be any, for its weights are 0 */
      from[i] = per * q + i < (p.ro - 1) * p.sh + p.kh ? (there ? x + iy * p.xh : pads) + left * p.xw
                                                       : from[0];
    }
    const int taps = sp_taps_at_once(p.kw);
    int k = 0;
    for (; k + taps <= p.kw; k += taps)
      sp_depthwise_i8_taps(p, rows, mr, taps, from, k * p.dw, wq + k * per * SP_LANES, acc, edge,
                           left + k * p.dw, n);
    if (p.kw % taps)
      sp_depthwise_i8_taps(p, rows, mr, p.kw % taps, from, k * p.dw, wq + k * per * SP_LANES, acc,
                           edge, left + k * p.dw, n);
  }
  /* as in sp_tile_run_i8, all epilogues before the first store */
  const ptrdiff_t first = (ptrdiff_t)oy * p.ow + ox;
  SP_UNROLL
  for (int o = 0; o < rows; ++o) {
    SP_UNROLL
    for (int i = 0; i < mr; ++i)
      acc[o * mr + i] = ep(acc[o * mr + i], e, row + first + o * p.ow + i, col, n);
  }
  SP_UNROLL
  for (int o = 0; o < rows; ++o) {
    const ptrdiff_t to = at + (first + o * p.ow) * p.ldy;
    SP_UNROLL
    for (int i = 0; i < mr; ++i) sp_put_sum(p.put, y, to + i * p.ldy, acc[o * mr + i], n);
  }
}

/* One pass over the pixels of output rows oy .. oy + rows - 1. */
SP_INLINE void sp_depthwise_i8_rows(const sp_depthwise_i8 p, int rows, const uint8_t *x,
                                    const int8_t *w, const int32_t *init, const uint8_t *pads,
                                    void *y, ptrdiff_t at, int oy, ptrdiff_t row, ptrdiff_t col,
                                    int n, sp_ep_i32 ep, const void *const *e) {
  const int tiles = p.ow / p.mr;
  const int rest = p.ow % p.mr;
  const int reach =
      p.iw - 1 + p.pl - (p.kw - 1) * p.dw; /* last column with all taps inside, times sw */
  const int inside = reach < 0 ? 0 : (int)sp_imin((reach / p.sw + 1) / p.mr, tiles);
  const int lo = (int)sp_imin((p.pl + p.sw * p.mr - 1) / (p.sw * p.mr), tiles);
  const int hi = (int)sp_imax(inside, lo);
  if (lo > 0)
    sp_depthwise_i8_tile(p, rows, p.mr, x, w, init, pads, y, at, 1, oy, 0, row, col, n, ep, e);
  for (int i = lo; i < hi; ++i)
    sp_depthwise_i8_tile(p, rows, p.mr, x, w, init, pads, y, at, 0, oy, i * p.mr, row, col, n, ep,
                         e);
  if (hi < tiles)
    sp_depthwise_i8_tile(p, rows, p.mr, x, w, init, pads, y, at, 1, oy, hi * p.mr, row, col, n, ep,
                         e);
  if (lo > 1 || hi + 1 < tiles) /* more edge tiles than one a side: ox is not a literal */
    for (int i = 1; i < tiles; ++i)
      if (i < lo || i > hi)
        sp_depthwise_i8_tile(p, rows, p.mr, x, w, init, pads, y, at, 1, oy, i * p.mr, row, col, n,
                             ep, e);
  if (rest > 0)
    sp_depthwise_i8_tile(p, rows, rest, x, w, init, pads, y, at, 1, oy, tiles * p.mr, row, col, n,
                         ep, e);
}

SP_INLINE void sp_depthwise_i8_run(const sp_depthwise_i8 p, const void *x, const int8_t *w,
                                   const int32_t *init, void *y, uint8_t *pads, sp_ep_i32 ep,
                                   const void *const *e, int task) {
  const int full = p.c / SP_LANES;
  const int rest = p.c % SP_LANES;
  const int vectors = full + (rest > 0);
  const int tc = (vectors + p.task_c - 1) / p.task_c;
  const int th = (p.oh + p.task_h - 1) / p.task_h;
  const int j0 = task % tc * p.task_c;
  const int oy0 = task / tc % th * p.task_h;
  const int z = task / (tc * th);
  const int j1 = (int)sp_imin(j0 + p.task_c, vectors);
  const int oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);
  const ptrdiff_t row = (ptrdiff_t)z * p.oh * p.ow;
  const ptrdiff_t at = row * p.ldy;
  const int quads = p.same ? 2 : p.rq;
  const ptrdiff_t wv = (ptrdiff_t)p.ro * quads * p.kw * sp_bytes_at_once(p.pair) * SP_LANES;
  const uint8_t *xz = (const uint8_t *)x + z * p.xn;
  const int byte = p.flip ? p.pad ^ 128 : p.pad;
  for (ptrdiff_t i = 0; i < p.iw * p.xw + SP_LANES; ++i) pads[i] = (uint8_t)byte;
  for (int ob = oy0; ob < oy1; ob += p.rb) {
    const int oe = (int)sp_imin(ob + p.rb, oy1);
    for (int j = j0; j < j1; ++j) {
      const ptrdiff_t c = (ptrdiff_t)j * SP_LANES;
      int oy = ob;
      if (j < full) {
        for (; oy + p.ro <= oe; oy += p.ro)
          sp_depthwise_i8_rows(p, p.ro, xz + c, w + j * wv, init + c, pads, y, at + c, oy, row, c,
                               SP_LANES, ep, e);
        if (p.ro > 1 && oy < oe)
          sp_depthwise_i8_rows(p, 1, xz + c, w + j * wv, init + c, pads, y, at + c, oy, row, c,
                               SP_LANES, ep, e);
      } else {
        for (; oy + p.ro <= oe; oy += p.ro)
          sp_depthwise_i8_rows(p, p.ro, xz + c, w + j * wv, init + c, pads, y, at + c, oy, row, c,
                               rest, ep, e);
        if (p.ro > 1 && oy < oe)
          sp_depthwise_i8_rows(p, 1, xz + c, w + j * wv, init + c, pads, y, at + c, oy, row, c, rest,
                               ep, e);
      }
    }
  }
}
#endif
