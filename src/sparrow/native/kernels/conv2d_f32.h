/* Float32 2-D convolution as an implicit matrix product, any strides, dilations, zero pads, groups.
 *   Y[n][oy][ox][o] = ep(sum over ky, kx, c of X[n][oy*sh - pt + ky*dh][ox*sw - pl + kx*dw][c] * W)
 * Included after isa/<isa>.h; all fields of sp_conv2d are literals in emitted code.
 *   x  element (n, y, x, c) at x[n * xn + y * xh + x * xw + c * xc]: NHWC, views, or NCHW
 *   w  [groups][ceil(co / groups / SP_LANES)][kh][kw][ci / groups][SP_LANES], by packing_f32.pack_conv(),
 *      padded as b of sp_gemm
 *   y  pixel (n, oy, ox) at element ((n * oh + oy) * ow + ox) * ldy, channels innermost, bfloat16
 *      where `half`; the epilogue sees that pixel number as its row; must not alias x or w
 * Where `pair`, elements of x and w are pairs of bfloat16 (tile_f32.h), and ci, xn, xh and xw count
 * pairs.
 * Taps outside the image are skipped: padding costs nothing and nothing outside x is read. */
#ifndef SP_CONV2D_F32_H
#define SP_CONV2D_F32_H
#include "gemm_f32.h"

/* Tiles: mr pixels of one output row x nv vectors; blocks of rb output rows are finished for all
 * channels of the task before the next block. Task grid: batch x ceil(oh / task_h) rows x groups x
 * ceil(vectors of a group / task_n). as_gemm: the taps of a pixel are one
 * run of k and pixels lie at equal distances (1x1 stride 1, or one output pixel); then mc, task_m,
 * ku, pf, every are those of sp_gemm with m = oh * ow, and the row fields rb, task_h and ahead are not
 * used. ahead: each tile asks for its part of the rows of x that the next output row needs. */
typedef struct sp_conv2d {
  int batch, ih, iw, ci, oh, ow, co;
  int kh, kw, sh, sw, dh, dw, pt, pl, groups;
  ptrdiff_t xn, xh, xw, xc, ldy;
  int mr, nv, ku;
  int rb, task_h, task_n;
  int as_gemm, mc, task_m, pf, every;
  int pair, half, shared, ahead;
} sp_conv2d;

/* Tap kx of one kernel row when it is one of [k0, k1); x is the image row, w the kernel row. */
SP_INLINE void sp_conv2d_tap_f32(const sp_conv2d p, const sp_tile t, sp_f32 *acc, const float *x,
                                 const float *w, int ox, int k0, int k1, int kx) {
  const int ci = p.ci / p.groups;
  const int lo = p.pl - kx * p.dw - ox * p.sw; /* pixel i reads column i * sw - lo */
  const int hi = p.iw - 1 + lo;
  const int i0 = lo > 0 ? (lo + p.sw - 1) / p.sw : 0;
  const int i1 = hi < 0 ? 0 : (int)sp_imin(hi / p.sw + 1, t.mr);
  if (kx >= k0 && kx < k1 && i0 < i1)
    sp_tile_mac_f32(t, acc, i0, i1, x, -lo * p.xw, w + (ptrdiff_t)kx * ci * SP_LANES, ci);
}

/* Taps [k0, k1): one copy of the loop each for the first seven. */
SP_INLINE void sp_conv2d_taps_f32(const sp_conv2d p, const sp_tile t, sp_f32 *acc, const float *x,
                                  const float *w, int ox, int k0, int k1) {
  sp_conv2d_tap_f32(p, t, acc, x, w, ox, k0, k1, 0);
  sp_conv2d_tap_f32(p, t, acc, x, w, ox, k0, k1, 1);
  sp_conv2d_tap_f32(p, t, acc, x, w, ox, k0, k1, 2);
  sp_conv2d_tap_f32(p, t, acc, x, w, ox, k0, k1, 3);
  sp_conv2d_tap_f32(p, t, acc, x, w, ox, k0, k1, 4);
  sp_conv2d_tap_f32(p, t, acc, x, w, ox, k0, k1, 5);
  sp_conv2d_tap_f32(p, t, acc, x, w, ox, k0, k1, 6);
  for (int kx = (int)sp_imax(k0, 7); kx < k1; ++kx)
    sp_conv2d_tap_f32(p, t, acc, x, w, ox, k0, k1, kx);
}

/* Asks for what the output row after oy reads and this one does not, of the columns under mr pixels from
 * ox: as evenly as tiles come, since a processor waits where it is asked for more than it can keep
 * track of. */
SP_INLINE void sp_conv2d_ahead_f32(const sp_conv2d p, const float *x, int oy, int ox, int mr) {
  const int from = oy * p.sh - p.pt + (p.kh - 1) * p.dh + 1;
  const int planes = p.xc == 1 ? 1 : p.ci / p.groups;
  const ptrdiff_t line = 64 / (ptrdiff_t)sizeof(float);
  const ptrdiff_t first = (ox * p.sw * p.xw + line - 1) / line * line;
  const ptrdiff_t end = ox + mr < p.ow ? (ox + mr) * p.sw * p.xw : p.iw * p.xw;
  for (int iy = (int)sp_imax(from, 0); iy < (int)sp_imin(from + p.sh, p.ih); ++iy) {
    for (int c = 0; c < planes; ++c) {
      const float *row = x + iy * p.xh + c * p.xc;
      for (ptrdiff_t i = first; i < end; i += line) sp_prefetch(row + i);
    }
  }
}

/* mr pixels from column ox. Taps [k0, k1) of a kernel row reach all of them; each tap before and
 * after gets its own loop over the pixels it reaches. At an edge ox is a literal wherever speed
 * matters, so that all this folds into constant displacements. */
SP_INLINE void sp_conv2d_tile_f32(const sp_conv2d p, const sp_tile t, const float *x,
                                  const float *w, void *y, int edge, int oy, int ox, ptrdiff_t row,
                                  ptrdiff_t col, int n, sp_ep_f32 ep, const void *const *e) {
  const int ci = p.ci / p.groups;
  const int top = oy * p.sh - p.pt;
  const int ky0 = top < 0 ? (-top + p.dh - 1) / p.dh : 0;
  const int ky1 = (int)sp_imin(p.kh, (p.ih - top + p.dh - 1) / p.dh);
  const int left = ox * p.sw - p.pl;
  const int right = p.iw - 1 - left - (t.mr - 1) * p.sw;
  const int k0 = edge && left < 0 ? (int)sp_imin((-left + p.dw - 1) / p.dw, p.kw) : 0;
  const int k1 = edge ? (right < 0 ? k0 : (int)sp_imax(k0, sp_imin(right / p.dw + 1, p.kw))) : p.kw;
  sp_f32 acc[SP_TILE_MAX];
  if (p.ahead) sp_conv2d_ahead_f32(p, x, oy, ox, t.mr);
  sp_tile_zero_f32(t, acc);
  for (int ky = ky0; ky < ky1; ++ky) {
    const float *xr = x + (top + ky * p.dh) * p.xh;
    const float *wr = w + (ptrdiff_t)ky * p.kw * ci * SP_LANES;
    sp_conv2d_taps_f32(p, t, acc, xr, wr, ox, 0, k0);
    if (p.xc == 1 && p.dw == 1 && p.xw == ci) {
      sp_tile_mac_f32(t, acc, 0, t.mr, xr, (left + k0) * p.xw, wr + (ptrdiff_t)k0 * ci * SP_LANES,
                      (k1 - k0) * ci);
    } else {
      for (int kx = k0; kx < k1; ++kx)
        sp_tile_mac_f32(t, acc, 0, t.mr, xr, (left + kx * p.dw) * p.xw,
                        wr + (ptrdiff_t)kx * ci * SP_LANES, ci);
    }
    sp_conv2d_taps_f32(p, t, acc, xr, wr, ox, k1, p.kw);
  }
  sp_tile_put_f32(t, acc, sp_out_at(p.half, y, ox * p.ldy), p.ldy, row + ox, col, n, ep, e);
}

/* Output rows [oy0, oy1) of nv vectors of one group; x is the group's image, y and row its pixel 0.
 */
SP_INLINE void sp_conv2d_panel_f32(const sp_conv2d p, int nv, int n, const float *x, const float *w,
                                   void *y, int oy0, int oy1, ptrdiff_t row, ptrdiff_t col,
                                   sp_ep_f32 ep, const void *const *e) {
  const ptrdiff_t bv = (ptrdiff_t)p.kh * p.kw * (p.ci / p.groups) * SP_LANES;
  sp_tile t = {.mr = p.mr, .nv = nv, .ku = p.ku, .ai = p.sw * p.xw, .ak = p.xc,
               .bv = bv, .bk = SP_LANES, .bn = SP_LANES, .pf = p.pf, .every = p.every,
               .pair = p.pair, .half = p.half, .shared = p.shared && n < SP_LANES, .next = nv * bv,
               .left = nv};
  const int ci = p.ci / p.groups;
  const int run = p.xc == 1 && p.dw == 1 && p.xw == ci ? p.kw * ci : ci;
  const int tiles = p.ow / p.mr;
  /* tiles [lo, hi) read no column outside the image */
  const int reach =
      p.iw - 1 + p.pl - (p.kw - 1) * p.dw; /* last column at which all taps are inside, times sw */
  const int inside = reach < 0 ? 0 : (int)sp_imin((reach / p.sw + 1) / p.mr, tiles);
  const int lo = (int)sp_imin((p.pl + p.sw * p.mr - 1) / (p.sw * p.mr), tiles);
  const int hi = (int)sp_imax(inside, lo);
  for (int oy = oy0; oy < oy1; ++oy) {
    void *yr = sp_out_at(p.half, y, (ptrdiff_t)oy * p.ow * p.ldy);
    const ptrdiff_t r = row + (ptrdiff_t)oy * p.ow;
    if (lo > 0) sp_conv2d_tile_f32(p, t, x, w, yr, 1, oy, 0, r, col, n, ep, e);
    for (int i = lo; i < hi; ++i)
      sp_conv2d_tile_f32(p, t, x, w, yr, 0, oy, i * p.mr, r, col, n, ep, e);
    if (hi < tiles) sp_conv2d_tile_f32(p, t, x, w, yr, 1, oy, hi * p.mr, r, col, n, ep, e);
    if (lo > 1 || hi + 1 < tiles) /* more edge tiles than one a side: ox is not a literal */
      for (int i = 1; i < tiles; ++i)
        if (i < lo || i > hi) sp_conv2d_tile_f32(p, t, x, w, yr, 1, oy, i * p.mr, r, col, n, ep, e);
    sp_tile tail = t;
    tail.mr = p.ow % p.mr;
    if (tail.mr > 0)
      sp_conv2d_tile_f32(p, tail, x, w, yr, p.pl > tiles * p.mr * p.sw || reach < (p.ow - 1) * p.sw,
                         oy, tiles * p.mr, r, col, n, ep, e);
    sp_tile_onward(&t, run);
  }
}

SP_INLINE void sp_conv2d_f32(const sp_conv2d p, const void *x, const void *w, void *y,
                             sp_ep_f32 ep, const void *const *e, int task) {
  if (p.as_gemm) {
    const int m = p.oh * p.ow;
    const sp_gemm g = {.m = m, .n = p.co, .k = p.kh * p.kw * p.ci, .lda = p.xw, .ldc = p.ldy,
                       .b_packed = 1, .mr = p.mr, .nv = p.nv, .ku = p.ku, .pf = p.pf,
                       .every = p.every, .mc = p.mc, .task_m = p.task_m, .task_n = p.task_n,
                       .batch = p.batch, .sa = p.xn,
                       .sc = m * p.ldy, .pair = p.pair, .half = p.half, .shared = p.shared};
    sp_gemm_f32(g, x, w, y, ep, e, task);
  } else {
    const int ci = p.ci / p.groups;
    const int co = p.co / p.groups;
    const int vectors = (co + SP_LANES - 1) / SP_LANES;
    const int tn = (vectors + p.task_n - 1) / p.task_n;
    const int th = (p.oh + p.task_h - 1) / p.task_h;
    const int j0 = task % tn * p.task_n;
    const int g = task / tn % p.groups;
    const int oy0 = task / (tn * p.groups) % th * p.task_h;
    const int z = task / (tn * p.groups * th);
    const int j1 = (int)sp_imin(j0 + p.task_n, vectors);
    const int oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);
    /* as in sp_gemm_block_f32 */
    const sp_panels last = sp_panels_of(co - (tn - 1) * p.task_n * SP_LANES, p.nv);
    const sp_panels inner = sp_panels_of(p.task_n * SP_LANES, p.nv);
    const int ends = tn == 1 || j1 == vectors;
    const int alike = inner.tail == last.tail && inner.n == last.n;
    const int je = j0 + (ends ? last.full : inner.full);
    const ptrdiff_t bv = (ptrdiff_t)p.kh * p.kw * ci * SP_LANES;
    const ptrdiff_t row = (ptrdiff_t)z * p.oh * p.ow;
    const float *xg = (const float *)x + z * p.xn + g * ci * p.xc;
    const float *wg = (const float *)w + g * vectors * bv;
    void *yg = sp_out_at(p.half, y, row * p.ldy + g * co);
    for (int oy = oy0; oy < oy1; oy += p.rb) {
      const int oe = (int)sp_imin(oy + p.rb, oy1);
      for (int j = j0; j < je; j += p.nv)
        sp_conv2d_panel_f32(p, p.nv, SP_LANES, xg, wg + j * bv,
                            sp_out_at(p.half, yg, j * SP_LANES), oy, oe, row,
                            g * co + j * SP_LANES, ep, e);
      if (last.tail > 0 && (ends || alike))
        sp_conv2d_panel_f32(p, last.tail, last.n, xg, wg + je * bv,
                            sp_out_at(p.half, yg, je * SP_LANES), oy, oe, row,
                            g * co + je * SP_LANES, ep, e);
      else if (inner.tail > 0 && !ends)
        sp_conv2d_panel_f32(p, inner.tail, inner.n, xg, wg + je * bv,
                            sp_out_at(p.half, yg, je * SP_LANES), oy, oe, row,
                            g * co + je * SP_LANES, ep, e);
    }
  }
}
#endif
