/* Convolutions of 8-bit codes in little code: sizes are known at run time, so that all layers with the
 * same epilogue share one function, and weights take no more bytes than they need. For flash that is
 * counted in kilobytes; conv2d_i8.h and depthwise_i8.h are faster. Included after isa/<isa>.h.
 *   x, y, scratch  as there
 *   w  conv2d: int8 [groups][vectors][kh][runs][kq][lanes][4] by compact_i8.trimmed(), where the last
 *      vector of a group has as many lanes as channels are left; then where sums begin, as `init`
 *      there: what is read behind the last quad is that
 *      depthwise: int8 [kh][kw][c], zeros up to whole words, then `init`
 * mr, band, flip, put, and of a depthwise kernel kw, sw and dw are literals; its mr is at most ow. Task
 * grid: batch x groups x ceil(oh / rb) rows. */
#ifndef SP_COMPACT_I8_H
#define SP_COMPACT_I8_H
#include "conv2d_i8.h"
#include "depthwise_i8.h"

/* As in sp_conv2d_i8, in as few bytes: a layer has one of these. */
typedef struct sp_compact_i8 {
  int32_t xn, xh, xw, ldy, iw, ow, ci, co;
  uint16_t ih, oh, groups, rb;
  uint8_t kh, kw, sh, sw, dh, dw, pt, pl, runs, pad;
} sp_compact_i8;

SP_INLINE ptrdiff_t sp_compact_i8_line(const sp_compact_i8 *g) {
  const ptrdiff_t width = (ptrdiff_t)(g->ow - 1) * g->sw + (g->kw - 1) * g->dw + 1;
  return (width * (g->ci / g->groups) + 66) / 64 * 64;
}

SP_SMALL void sp_compact_i8_band(const sp_compact_i8 *g, int flip, const uint8_t *x, int oy0,
                                 int oy1, uint8_t *scratch) {
  const sp_conv2d_i8 p = {.ih = g->ih, .iw = g->iw, .ci = g->ci, .ow = g->ow, .kh = g->kh,
                          .kw = g->kw, .sh = g->sh, .sw = g->sw, .dh = g->dh, .dw = g->dw,
                          .pt = g->pt, .pl = g->pl, .groups = g->groups, .xh = g->xh, .xw = g->xw,
                          .flip = flip, .pad = g->pad, .line = sp_compact_i8_line(g)};
  sp_conv2d_i8_band(p, x, oy0, oy1, 0, p.ow, scratch);
}

/* mr pixels at a time from ox on, while they fit; returns where they end. */
SP_INLINE int sp_conv2d_compact_i8_row(const sp_tile_i8 t, const uint8_t *x, const int8_t *w,
                                       const int32_t *init, void *y, ptrdiff_t at, ptrdiff_t row,
                                       ptrdiff_t col, int n, int ox, int ow, sp_ep_i32 ep,
                                       const void *const *e) {
  for (; ox + t.mr <= ow; ox += t.mr)
    sp_tile_run_i8(t, x + ox * t.xp, w, init, y, at + ox * t.ldy, row + ox, col, n, ep, e);
  return ox;
}

SP_INLINE void sp_conv2d_compact_i8(const sp_compact_i8 *g, int mr, int band, int flip, int put,
                                    const void *x, const int8_t *w, void *y, uint8_t *scratch,
                                    sp_ep_i32 ep, const void *const *e, int task) {
  const int ci = g->ci / g->groups, co = g->co / g->groups;
  const int blocks = (g->oh + g->rb - 1) / g->rb;
  const int oy0 = task % blocks * g->rb, group = task / blocks % g->groups;
  const int z = task / blocks / g->groups;
  const int oy1 = (int)sp_imin(oy0 + g->rb, g->oh);
  const int kq = (g->kw / g->runs * ci + 3) / 4;
  const ptrdiff_t k = (ptrdiff_t)g->kh * g->runs * kq * 4;
  const ptrdiff_t row = (ptrdiff_t)z * g->oh * g->ow;
  const ptrdiff_t xr = band ? sp_compact_i8_line(g) : g->xh, xp = band ? ci : g->xw;
  const uint8_t *from = (const uint8_t *)x + (ptrdiff_t)z * g->xn + group * ci;
  const int8_t *wg = w + (ptrdiff_t)group * co * k;
  const int32_t *init = (const int32_t *)(const void *)(w + g->co * k) +
                        (ptrdiff_t)group * ((co + SP_LANES - 1) / SP_LANES) * SP_LANES;
  if (band) {
    sp_compact_i8_band(g, flip, from, oy0, oy1, scratch);
    from = scratch;
  } else {
    from += oy0 * g->sh * xr;
  }
  for (int j = 0; j < co; j += SP_LANES) {
    const int n = (int)sp_imin(co - j, SP_LANES);
    const ptrdiff_t col = (ptrdiff_t)group * co + j;
    const sp_tile_i8 t = {mr, 1, g->kh, g->runs, kq, g->dh * xr, g->dw * xp, g->sw * xp, 0, 4 * n,
                          !band && flip, put, g->ldy, 0, 0, 0};
    sp_tile_i8 one = t;
    one.mr = 1;
    for (int oy = oy0; oy < oy1; ++oy) {
      const uint8_t *line = from + (oy - oy0) * g->sh * xr;
      const ptrdiff_t first = row + (ptrdiff_t)oy * g->ow;
      const ptrdiff_t at = first * g->ldy + col;
      const int ox = sp_conv2d_compact_i8_row(t, line, wg + j * k, init + j, y, at, first, col, n, 0,
                                              g->ow, ep, e);
      sp_conv2d_compact_i8_row(one, line, wg + j * k, init + j, y, at, first, col, n, ox, g->ow, ep,
                               e);
    }
  }
}

/* scratch: the row of padding of depthwise_i8.h, up to a whole line, then 4 * SP_LANES bytes for each
 * quad of a channel's taps. */
SP_INLINE void sp_depthwise_compact_i8(const sp_compact_i8 *g, int mr, int kw, int sw, int dw,
                                       int flip, int put, const void *x, const int8_t *w, void *y,
                                       uint8_t *scratch, sp_ep_i32 ep, const void *const *e,
                                       int task) {
  const sp_depthwise_i8 p = {.ih = g->ih, .iw = g->iw, .c = g->co, .oh = g->oh, .ow = g->ow,
                             .kh = g->kh, .kw = kw, .sh = g->sh, .sw = sw, .dh = g->dh, .dw = dw,
                             .pt = g->pt, .pl = g->pl, .xh = g->xh, .xw = g->xw, .ldy = g->ldy,
                             .flip = flip, .pad = g->pad, .put = put, .ro = 1,
                             .rq = (g->kh + 3) / 4};
  static const int8_t none[SP_LANES] = {0};
  const int blocks = (g->oh + g->rb - 1) / g->rb;
  const int oy0 = task % blocks * g->rb, z = task / blocks;
  const int oy1 = (int)sp_imin(oy0 + g->rb, g->oh);
  const int pads = g->iw * g->xw + SP_LANES;
  const ptrdiff_t row = (ptrdiff_t)z * g->oh * g->ow, at = row * g->ldy;
  const uint8_t *from = (const uint8_t *)x + (ptrdiff_t)z * g->xn;
  const int32_t *init =
      (const int32_t *)(const void *)(w + ((ptrdiff_t)g->kh * kw * g->co + 3) / 4 * 4);
  int8_t *taps = (int8_t *)scratch + (pads + 63) / 64 * 64;
  sp_fill_i8(scratch, pads, flip ? g->pad ^ 128 : g->pad);
  for (int j = 0; j < g->co; j += SP_LANES) {
    const int n = (int)sp_imin(g->co - j, SP_LANES);
    for (int q = 0; q < p.rq; ++q) {
      for (int kx = 0; kx < kw; ++kx) {
        const int8_t *tap[4];
        SP_UNROLL
        for (int i = 0; i < 4; ++i)
          tap[i] = 4 * q + i < p.kh ? w + ((ptrdiff_t)(4 * q + i) * kw + kx) * g->co + j : none;
        sp_storeq_i32(taps + (q * kw + kx) * 4 * SP_LANES,
                      sp_zip4_i8(tap[0], tap[1], tap[2], tap[3], n));
      }
    }
    for (int oy = oy0; oy < oy1; ++oy) {
      /* the last tile ends with the row, and computes again what both have */
      for (int ox = 0; ox < g->ow; ox += mr)
        sp_depthwise_i8_tile(p, 1, mr, from + j, taps, init + j, scratch, y, at + j, 1, oy,
                             (int)sp_imin(ox, g->ow - mr), row, j, n, ep, e);
    }
  }
}
#endif
