/* Convolutions of 8-bit codes in little code: sizes are known at run time, so that all layers with the
 * same epilogue share one function, and weights take no more bytes than they need. For flash that is
 * counted in kilobytes; conv2d_i8.h and depthwise_i8.h are faster. Included after isa/<isa>.h.
 *   x, init, y, scratch  as there
 *   w  conv2d: int8 [groups][vectors][kh][runs][kq][lanes][4], where the last vector of a group has as
 *      many lanes as channels are left; 4 * SP_LANES bytes can be read from any quad
 *      depthwise: as there, with ro = 1
 * mr, band, flip, put, and of a depthwise kernel kw, sw and dw are literals. Task grid: batch x groups
 * x ceil(oh / rb) rows. */
#ifndef SP_COMPACT_I8_H
#define SP_COMPACT_I8_H
#include "conv2d_i8.h"
#include "depthwise_i8.h"

typedef struct sp_compact_i8 {
  int ih, iw, ci, oh, ow, co;
  int kh, kw, sh, sw, dh, dw, pt, pl, groups;
  int xn, xh, xw, ldy, pad, runs, kq, xr, xp, xt, line, rb;
} sp_compact_i8;

/* mr pixels at a time from ox on, while they fit; returns where they end. */
SP_INLINE int sp_conv2d_compact_i8_row(const sp_compact_i8 *g, int mr, int flip, int put,
                                       const uint8_t *x, const int8_t *w, ptrdiff_t quad,
                                       const int32_t *init, void *y, ptrdiff_t at, ptrdiff_t row,
                                       ptrdiff_t col, int n, int ox, sp_ep_i32 ep,
                                       const void *const *e) {
  const ptrdiff_t xp = (ptrdiff_t)g->sw * g->xp;
  const sp_tile_i8 t = {mr, 1, g->kh, g->runs, g->kq, (ptrdiff_t)g->dh * g->xr, g->xt,
                        xp, 0, quad,  flip,    put,   g->ldy, 0};
  for (; ox + mr <= g->ow; ox += mr)
    sp_tile_run_i8(t, x + ox * xp, w, init, y, at + (ptrdiff_t)ox * g->ldy, row + ox, col, n, ep, e);
  return ox;
}

SP_INLINE void sp_conv2d_compact_i8(const sp_compact_i8 *g, int mr, int band, int flip, int put,
                                    const void *x, const int8_t *w, const int32_t *init, void *y,
                                    uint8_t *scratch, sp_ep_i32 ep, const void *const *e,
                                    int task) {
  const int ci = g->ci / g->groups, co = g->co / g->groups;
  const int blocks = (g->oh + g->rb - 1) / g->rb;
  const int oy0 = task % blocks * g->rb, group = task / blocks % g->groups;
  const int z = task / blocks / g->groups;
  const int oy1 = (int)sp_imin(oy0 + g->rb, g->oh);
  const ptrdiff_t k = (ptrdiff_t)g->kh * g->runs * g->kq * 4;
  const ptrdiff_t row = (ptrdiff_t)z * g->oh * g->ow;
  const uint8_t *from = (const uint8_t *)x + (ptrdiff_t)z * g->xn + group * ci;
  const int8_t *wg = w + (ptrdiff_t)group * co * k;
  const int32_t *start = init + (ptrdiff_t)group * ((co + SP_LANES - 1) / SP_LANES) * SP_LANES;
  if (band) {
    const sp_conv2d_i8 p = {.ih = g->ih, .iw = g->iw, .ci = g->ci, .ow = g->ow, .kh = g->kh,
                            .kw = g->kw, .sh = g->sh, .sw = g->sw, .dh = g->dh, .dw = g->dw,
                            .pt = g->pt, .pl = g->pl, .groups = g->groups, .xh = g->xh,
                            .xw = g->xw, .flip = flip, .pad = g->pad, .line = g->line};
    sp_conv2d_i8_band(p, from, oy0, oy1, scratch);
    from = scratch;
  } else {
    from += (ptrdiff_t)oy0 * g->sh * g->xr;
  }
  for (int j = 0; j < co; j += SP_LANES) {
    const int n = (int)sp_imin(co - j, SP_LANES);
    const ptrdiff_t col = (ptrdiff_t)group * co + j;
    for (int oy = oy0; oy < oy1; ++oy) {
      const uint8_t *line = from + (ptrdiff_t)(oy - oy0) * g->sh * g->xr;
      const ptrdiff_t first = row + (ptrdiff_t)oy * g->ow;
      const ptrdiff_t at = first * g->ldy + col;
      const int ox = sp_conv2d_compact_i8_row(g, mr, !band && flip, put, line, wg + j * k, 4 * n,
                                              start + j, y, at, first, col, n, 0, ep, e);
      sp_conv2d_compact_i8_row(g, 1, !band && flip, put, line, wg + j * k, 4 * n, start + j, y, at,
                               first, col, n, ox, ep, e);
    }
  }
}

SP_INLINE void sp_depthwise_compact_i8(const sp_compact_i8 *g, int mr, int kw, int sw, int dw,
                                       int flip, int put, const void *x, const int8_t *w,
                                       const int32_t *init, void *y, uint8_t *pads, sp_ep_i32 ep,
                                       const void *const *e, int task) {
  const sp_depthwise_i8 p = {.ih = g->ih, .iw = g->iw, .c = g->co, .oh = g->oh, .ow = g->ow,
                             .kh = g->kh, .kw = kw, .sh = g->sh, .sw = sw, .dh = g->dh, .dw = dw,
                             .pt = g->pt, .pl = g->pl, .xh = g->xh, .xw = g->xw, .ldy = g->ldy,
                             .flip = flip, .pad = g->pad, .put = put, .ro = 1,
                             .rq = (g->kh + 3) / 4};
  const int blocks = (g->oh + g->rb - 1) / g->rb;
  const int oy0 = task % blocks * g->rb, z = task / blocks;
  const int oy1 = (int)sp_imin(oy0 + g->rb, g->oh);
  const ptrdiff_t row = (ptrdiff_t)z * g->oh * g->ow, at = row * g->ldy;
  const ptrdiff_t wv = (ptrdiff_t)p.rq * kw * 4 * SP_LANES;
  const uint8_t *from = (const uint8_t *)x + (ptrdiff_t)z * g->xn;
  sp_fill_i8(pads, g->iw * g->xw + SP_LANES, flip ? g->pad ^ 128 : g->pad);
  for (int j = 0; j < g->co; j += SP_LANES, w += wv) {
    const int n = (int)sp_imin(g->co - j, SP_LANES);
    for (int oy = oy0; oy < oy1; ++oy) {
      int ox = 0;
      for (; ox + mr <= g->ow; ox += mr)
        sp_depthwise_i8_tile(p, 1, mr, from + j, w, init + j, pads, y, at + j, 1, oy, ox, row, j, n,
                             ep, e);
      for (; ox < g->ow; ++ox)
        sp_depthwise_i8_tile(p, 1, 1, from + j, w, init + j, pads, y, at + j, 1, oy, ox, row, j, n,
                             ep, e);
    }
  }
}
#endif
