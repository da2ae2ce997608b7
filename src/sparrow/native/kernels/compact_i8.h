/* Convolutions of 8-bit codes in little code: sizes are known at run time, so that all layers with the
 * same epilogue share one function, and weights take no more bytes than they need. For flash that is
 * counted in kilobytes, and for engines whose sums are over halves; conv2d_i8.h and depthwise_i8.h are
 * faster. Included after isa/<isa>.h.
 *   x, y, scratch  as there
 *   w  conv2d: int8 [groups][panels][kh][runs][kq][vectors][lanes][4] by compact_i8.panels(): nv vectors
 *      of channels are a panel, and each of what is left, the last with as many lanes as channels; then
 *      where sums begin, as `init` there: what is read behind the last quad is that
 *      depthwise: int8 [kh][kw][c], zeros up to whole words, then `init`
 * mr, nv, pair, whole, band, one_run, flip, put, and of a depthwise kernel ro, kh, kw, sw and dw are
 * literals; mr is at most ow. Where `one_run` a kernel is one run, where it is 2 in rounds of SP_QUADS
 * quads: an engine moves no sums from loop to loop.
 * Where `whole`, groups are whole vectors; where `pair` is SP_I16, x holds codes of 16 bits, sizes of
 * it are in bytes, and quads are pairs. Where it is another, quads are pairs, and what is in scratch are
 * halves: rows, and where it is SP_PAIRED, behind them a panel of nv vectors, widened once for all its
 * tiles, where a kernel is one run by the first of them. Task grid: batch x groups x parts x ceil(oh / rb)
 * rows; where nv > 1 a part has so many panels, all where `panels` is 0. */
#ifndef SP_COMPACT_I8_H
#define SP_COMPACT_I8_H
#include "conv2d_i8.h"
#include "depthwise_i8.h"

/* As in sp_conv2d_i8, in as few bytes: a layer has one of these. */
typedef struct sp_compact_i8 {
  int32_t xn, xh, xw, ldy, iw, ow, ci, co;
  uint16_t batch, ih, oh, groups, rb, panels, kw, sw;
  uint8_t kh, sh, dh, dw, pt, pl, runs, pad;
} sp_compact_i8;

/* Bytes in scratch of what ci counts: codes, or of codes of 16 bits their bytes. */
SP_INLINE int sp_compact_i8_size(int pair) { return pair && pair != SP_I16 ? 2 : 1; }

SP_INLINE ptrdiff_t sp_compact_i8_line(const sp_compact_i8 *g, int pair) {
  const ptrdiff_t width = (ptrdiff_t)(g->ow - 1) * g->sw + (g->kw - 1) * g->dw + 1;
  return (width * (g->ci / g->groups) * sp_compact_i8_size(pair) + 66) / 64 * 64;
}

SP_SMALL void sp_compact_i8_band(const sp_compact_i8 *g, int pair, int flip, const uint8_t *x, int oy0,
                                 int oy1, uint8_t *scratch) {
  const sp_conv2d_i8 p = {.ih = g->ih, .iw = g->iw, .ci = g->ci, .ow = g->ow, .kh = g->kh,
                          .kw = g->kw, .sh = g->sh, .sw = g->sw, .dh = g->dh, .dw = g->dw,
                          .pt = g->pt, .pl = g->pl, .groups = g->groups, .xh = g->xh, .xw = g->xw,
                          .pair = sp_compact_i8_size(pair) - 1, .flip = flip, .pad = g->pad,
                          .line = sp_compact_i8_line(g, pair)};
  sp_conv2d_i8_band(p, x, oy0, oy1, 0, g->ow, scratch);
}

/* A panel of so many rows, of which x is where the first begins to read and `first` its first pixel. The
 * last tile ends with the row, and computes again what both have. Where t widens weights, that is only the
 * first tile, which leaves them at `wide` for the others: memory then has a tile's time to deliver them. */
SP_INLINE void sp_compact_i8_panel(const sp_compact_i8 *g, sp_tile_i8 t, const uint8_t *x,
                                   ptrdiff_t down, const int8_t *w, int8_t *wide, const int32_t *init,
                                   void *y, ptrdiff_t first, int rows, ptrdiff_t col, int n,
                                   sp_ep_i32 ep, const void *const *e) {
  int done = 0;
  if (t.widens) {
    t.narrow = w, t.wide = wide;
    sp_tile_run_i8(t, x, w, init, y, first * t.ldy + col, first, col, n, ep, e);
    w = wide, done = t.mr, t.pair = SP_PAIRED, t.widens = 0, t.bv *= 2, t.quad *= 2;
  }
  for (int r = 0; r < rows; ++r, x += down, first += g->ow, done = 0) {
    for (int i = done; i < g->ow; i += t.mr) {
      ptrdiff_t ox = sp_imin(i, g->ow - t.mr);
      const ptrdiff_t row = first + ox;
      sp_tile_run_i8(t, x + ox * t.xp, w, init, y, row * t.ldy + col, row, col, n, ep, e);
    }
  }
}

SP_INLINE void sp_conv2d_compact_i8(const sp_compact_i8 *g, int mr, int nv, int pair, int whole,
                                    int band, int one_run, int flip, int put, const void *x,
                                    const int8_t *w, void *y, uint8_t *scratch, sp_ep_i32 ep,
                                    const void *const *e, int task) {
  const int ci = g->ci / g->groups, co = g->co / g->groups, per = pair ? 2 : 4;
  const int size = sp_compact_i8_size(pair);
  const int blocks = (g->oh + g->rb - 1) / g->rb;
  const int all = co / (nv * SP_LANES), parts = g->panels ? (all + g->panels - 1) / g->panels : 1;
  const int oy0 = task % blocks * g->rb, part = task / blocks % parts;
  const int group = task / blocks / parts % g->groups, z = task / blocks / parts / g->groups;
  const int rows = (int)sp_imin(g->rb, g->oh - oy0);
  const int kh = one_run ? 1 : g->kh, runs = one_run ? 1 : g->runs;
  const int kq = (g->kw / runs * ci * size + 3) / 4;
  const ptrdiff_t k = (ptrdiff_t)kh * runs * kq * per;
  const ptrdiff_t first = ((ptrdiff_t)z * g->oh + oy0) * g->ow;
  const ptrdiff_t xr = band ? sp_compact_i8_line(g, pair) : g->xh;
  const ptrdiff_t xp = band ? size * ci : g->xw;
  const uint8_t *from = (const uint8_t *)x + (ptrdiff_t)z * g->xn + group * ci;
  const int8_t *wg = w + (ptrdiff_t)group * co * k;
  const int32_t *init = (const int32_t *)(const void *)(w + g->co * k) +
                        (ptrdiff_t)group * ((co + SP_LANES - 1) / SP_LANES) * SP_LANES;
  sp_tile_i8 t = {.mr = mr, .nv = nv, .kh = kh, .runs = runs, .kq = kq,
                  .xr = g->dh * xr, .xt = g->dw * xp, .xp = g->sw * xp, .bv = per * SP_LANES,
                  .quad = (ptrdiff_t)nv * per * SP_LANES, .flip = !band && flip, .put = put,
                  .ldy = g->ldy, .pair = pair, .rounds = one_run == 2};
  int j = part * g->panels * nv * SP_LANES;
  int8_t *wide = NULL;
  if (pair == SP_PAIRED)
    wide = (int8_t *)scratch + ((rows - 1) * g->sh + (kh - 1) * g->dh + 1) * xr;
  if (pair == SP_PAIRED && one_run)
    t.pair = t.widens = 1;
  else if (pair == SP_PAIRED)
    t.bv *= 2, t.quad *= 2;
  if (band) {
    sp_compact_i8_band(g, pair, flip, from, oy0, oy0 + rows, scratch);
    from = scratch;
  } else {
    from += oy0 * g->sh * xr;
  }
  if (nv > 1)
    for (const int end = (part < parts - 1 ? (part + 1) * g->panels : all) * nv * SP_LANES; j < end;
         j += nv * SP_LANES) {
      const int8_t *panel = wg + j * k;
      if (pair == SP_PAIRED && !one_run) { /* in a loop for each kernel row that takes longer */
        sp_copy_pairs((int16_t *)(void *)wide, (const uint8_t *)panel, (int)(nv * SP_LANES * k), 0);
        panel = wide;
      }
      sp_compact_i8_panel(g, t, from, g->sh * xr, panel, wide, init + j, y, first, rows,
                          (ptrdiff_t)group * co + j, SP_LANES, ep, e);
    }
  t.pair = pair == SP_PAIRED ? 1 : pair, t.widens = 0;
  t.bv = per * SP_LANES;
  t.nv = 1;
  for (; part == parts - 1 && j < co; j += SP_LANES) {
    const int n = whole ? SP_LANES : (int)sp_imin(co - j, SP_LANES);
    t.quad = per * n;
    sp_compact_i8_panel(g, t, from, g->sh * xr, wg + j * k, NULL, init + j, y, first, rows,
                        (ptrdiff_t)group * co + j, n, ep, e);
  }
}

#ifndef SP_ZIPS /* where a header interleaves two vectors of either row in fewer steps than one by one */
SP_INLINE void sp_zips_i8(const uint8_t *p, const uint8_t *q, sp_i32 *v) {
  v[0] = sp_zip2_i8(p, q, SP_LANES);
  v[1] = sp_zip2_i8(p + SP_LANES, q + SP_LANES, SP_LANES);
}
#endif

/* Pairs of taps of a channel for an output row. Rows that all `ro` output rows read are taken in twos;
 * where kh is odd, each output row has another, whose columns are. */
SP_INLINE int sp_depthwise_taps_i8(int kh, int kw) {
  return kh / 2 * kw + kh % 2 * ((kw + 1) / 2);
}
/* A last column without another is the second of a pair where that is the first of the next pixel's. */
SP_INLINE int sp_depthwise_second_i8(int kx, int kw, int sw, int dw) {
  return kx > 0 && kx == kw - 1 && sw == 1 && dw == 1;
}

/* Turns that a tile takes its taps in, so that 15 registers hold the sums and those of a turn: one by one,
 * or those that share columns, which of a stride of two is every other; 1 where taps come from memory each
 * time. */
SP_INLINE int sp_depthwise_turns_i8(const sp_depthwise_i8 p, int mr, int nv) {
  const int taps = p.ro * nv, sums = taps * mr;
  if (taps == 1 || p.dw > 1) return 1;
  if (p.sw == 1) return sums + mr * nv + 3 <= 15 ? p.kw : 1;
  return sums + (p.kw + p.sw - 1) / p.sw * taps + nv + 1 <= 15 ? p.sw : 1;
}

/* Of both, nv vectors. */
SP_INLINE void sp_depthwise_zip_i8(int nv, const uint8_t *p, const uint8_t *q, int n, sp_i32 *v) {
  if (nv == 2)
    sp_zips_i8(p, q, v);
  else
    v[0] = sp_zip2_i8(p, q, n);
}

/* What the q-th two of the rows that all output rows read add to the sums of such a tile, by its weights
 * of them. */
SP_INLINE void sp_depthwise_pair_i8(const sp_depthwise_i8 p, int mr, int nv, int q, const uint8_t *x,
                                    const int8_t *w, int n, sp_i32 *acc) {
  const int taps = p.ro * nv, turns = sp_depthwise_turns_i8(p, mr, nv);
  const uint8_t *upper = x + (p.ro - 1 + 2 * q) * p.dh * p.xh;
  const uint8_t *lower = upper + p.dh * p.xh;
  const int8_t *const tap = w + q * p.kw * taps * 4 * SP_LANES;
  sp_i32 pair[2 * SP_DEPTHWISE_I8_MAX], held[16];
  SP_UNROLL
  for (int turn = 0; turn < turns; ++turn) {
    const int kept = turns > 1 ? (p.kw - turn + turns - 1) / turns * taps : 0;
    SP_UNROLL
    for (int i = 0; i < kept; ++i)
      held[i] = sp_loadq_i32(tap + ((turn + i / taps * turns) * taps + i % taps) * 4 * SP_LANES);
    SP_UNROLL
    for (int j = 0; j < (mr - 1) * p.sw + (p.kw - 1) * p.dw + 1; ++j) {
      sp_i32 *const column = pair + j % mr * 2;
      int there = 0; /* whether this turn has read the column */
      SP_UNROLL
      for (int kx = turn; kx < p.kw; kx += turns) {
        const int d = j - kx * p.dw; /* i * sw */
        if (d < 0 || d % p.sw != 0 || d / p.sw >= mr) continue;
        /* of a stride of one a turn shares all columns but its last with the one before */
        if (!there && !(p.sw == 1 && turn > 0 && d < mr - 1))
          sp_depthwise_zip_i8(nv, upper + j * p.xw, lower + j * p.xw, n, column);
        there = 1;
        SP_UNROLL
        for (int i = 0; i < taps; ++i) {
          sp_i32 *const sum = acc + (i / nv * mr + d / p.sw) * nv + i % nv;
          const sp_i32 by = turns > 1 ? held[kx / turns * taps + i]
                                      : sp_loadq_i32(tap + (kx * taps + i) * 4 * SP_LANES);
          *sum = sp_dot2_i32(*sum, column[i % nv], by);
          SP_IN_ORDER(*sum);
        }
      }
    }
  }
}

/* What the row adds that output row o has for itself. The last column may be its own neighbour, with
 * weights of 0. */
SP_INLINE void sp_depthwise_own_i8(const sp_depthwise_i8 p, int mr, int nv, int o, const uint8_t *x,
                                   const int8_t *w, int n, sp_i32 *acc) {
  const int twos = (p.kw + 1) / 2, held = p.ro * mr * nv + twos * nv + nv + 1 <= 15;
  const int columns = (mr - 1) * p.sw + (p.kw - 1) * p.dw + 1;
  const uint8_t *row = x + (p.ro == 1 ? p.kh - 1 : o * p.kh) * p.dh * p.xh;
  sp_i32 tap[16];
  const int kept = held ? twos * nv : 0;
  SP_UNROLL
  for (int i = 0; i < kept; ++i)
    tap[i] = sp_loadq_i32(w + ((i / nv * p.ro + o) * nv + i % nv) * 4 * SP_LANES);
  SP_UNROLL
  for (int j = 0; j < columns; ++j) {
    const int next = j + p.dw < columns ? j + p.dw : j;
    sp_i32 pair[2];
    int there = 0;
    SP_UNROLL
    for (int m = 0; m < twos; ++m) {
      const int d = j - (2 * m - sp_depthwise_second_i8(2 * m, p.kw, p.sw, p.dw)) * p.dw;
      if (d < 0 || d % p.sw != 0 || d / p.sw >= mr) continue;
      if (!there) sp_depthwise_zip_i8(nv, row + j * p.xw, row + next * p.xw, n, pair);
      there = 1;
      SP_UNROLL
      for (int v = 0; v < nv; ++v) {
        sp_i32 *const sum = acc + (o * mr + d / p.sw) * nv + v;
        const sp_i32 by =
            held ? tap[m * nv + v] : sp_loadq_i32(w + ((m * p.ro + o) * nv + v) * 4 * SP_LANES);
        *sum = sp_dot2_i32(*sum, pair[v], by);
        SP_IN_ORDER(*sum);
      }
    }
  }
}

/* ro rows x mr pixels x nv vectors of a depthwise sum over pairs of bytes; x is where the first pixel
 * begins to read, and `row` the first pixel of y.
 *   w  halves [sp_depthwise_taps_i8][ro][nv][SP_LANES][2] */
SP_INLINE void sp_depthwise_pairs_i8(const sp_depthwise_i8 p, int mr, int nv, const uint8_t *x,
                                     const int8_t *w, const int32_t *init, void *y, ptrdiff_t row,
                                     ptrdiff_t col, int n, sp_ep_i32 ep, const void *const *e) {
  const int ro = p.ro, twos = p.kh / 2;
  sp_i32 acc[SP_DEPTHWISE_I8_MAX];
  SP_UNROLL
  for (int i = 0; i < ro * mr * nv; ++i) acc[i] = sp_load_i32(init + i % nv * SP_LANES);
  if (twos == 1) { /* an engine keeps sums in other registers in a loop */
    SP_OPAQUE(w);
    sp_depthwise_pair_i8(p, mr, nv, 0, x, w, n, acc);
  } else {
    SP_ROLLED
    for (int q = 0; q < twos; ++q) sp_depthwise_pair_i8(p, mr, nv, q, x, w, n, acc);
  }
  const int alone = p.kh % 2 ? ro : 0;
  SP_UNROLL
  for (int o = 0; o < alone; ++o)
    sp_depthwise_own_i8(p, mr, nv, o, x, w + twos * p.kw * ro * nv * 4 * SP_LANES, n, acc);
  /* as in sp_tile_run_i8, all epilogues before the first store */
  SP_UNROLL
  for (int i = 0; i < ro * mr * nv; ++i) {
    const ptrdiff_t pixel = row + i / nv / mr * p.ow + i / nv % mr;
    acc[i] = ep(acc[i], e, pixel, col + i % nv * SP_LANES, n);
  }
  const ptrdiff_t at = row * p.ldy + col;
  SP_UNROLL
  for (int i = 0; i < ro * mr; ++i)
    sp_put_sums(p.put, y, at + (i / mr * p.ow + i % mr) * p.ldy, acc + i * nv, nv, n);
}

/* scratch: the rows that a block reads, padded, then the taps of each channel for each of ro rows of a
 * tile, 4 bytes for a quad or pair. A block has ro rows at least; ro is 1 where rows are not successive,
 * ro and nv are where quads are not pairs. */
SP_INLINE void sp_depthwise_compact_i8(const sp_compact_i8 *g, int mr, int ro, int nv, int pair,
                                       int whole, int kh, int kw, int sw, int dw, int flip, int put,
                                       const void *x, const int8_t *w, void *y, uint8_t *scratch,
                                       sp_ep_i32 ep, const void *const *e, int task) {
  const int per = pair ? 2 : 4;
  const ptrdiff_t line = sp_compact_i8_line(g, 0);
  const int blocks = (g->oh + g->rb - 1) / g->rb;
  const int oy0 = task % blocks * g->rb, z = task / blocks;
  const int rows = (int)sp_imin(g->rb, g->oh - oy0);
  /* the rows in scratch as an image without padding */
  const sp_depthwise_i8 p = {.ow = g->ow, .kh = kh, .kw = kw, .sh = g->sh, .sw = sw, .dh = g->dh,
                             .dw = dw, .xh = line, .xw = g->co, .ldy = g->ldy, .put = put, .ro = ro,
                             .rq = (ro - 1 + kh + per - 1) / per};
  const ptrdiff_t taps_of = /* bytes of a channel */
      4 * (ptrdiff_t)ro * (pair ? sp_depthwise_taps_i8(kh, kw) : p.rq * kw);
  /* from the middle on: gcc 12 takes the last of n bytes for one before the first */
  static const int8_t zeros[2 * SP_LANES] = {0};
  const int8_t *const none = zeros + SP_LANES;
  const ptrdiff_t first = ((ptrdiff_t)z * g->oh + oy0) * g->ow;
  const int32_t *init =
      (const int32_t *)(const void *)(w + ((ptrdiff_t)kh * kw * g->co + 3) / 4 * 4);
  int8_t *taps = (int8_t *)scratch + ((rows - 1) * g->sh + (kh - 1) * g->dh + 1) * line;
  sp_compact_i8_band(g, 0, flip, (const uint8_t *)x + (ptrdiff_t)z * g->xn, oy0, oy0 + rows, scratch);
  for (int j = 0; j < g->co; j += nv * SP_LANES) {
    const int n = whole ? SP_LANES : (int)sp_imin(g->co - j, SP_LANES);
    int8_t *to = taps + taps_of * j;
    for (int q = 0; q < (pair ? kh / 2 : p.rq) * kw; ++q) {
      for (int k = 0; k < ro * nv; ++k, to += 4 * SP_LANES) {
        const int ky = per * (q / kw) + ro - 1 - k / nv;
        const int8_t *tap[4];
        SP_UNROLL
        for (int i = 0; i < per; ++i)
          tap[i] = ky + i < kh
                       ? w + ((ptrdiff_t)(ky + i) * kw + q % kw) * g->co + j + k % nv * SP_LANES
                       : none;
        sp_storeq_i32(to, pair ? sp_zip2_i8(tap[0], tap[1], n)
                               : sp_zip4_i8(tap[0], tap[1], tap[2], tap[3], n));
      }
    }
    for (int kx = 0; pair && kh % 2 && kx < kw; kx += 2) {
      for (int k = 0; k < ro * nv; ++k, to += 4 * SP_LANES) {
        const int ky = ro == 1 ? kh - 1 : k / nv * (kh - 1);
        const int8_t *const tap = w + ((ptrdiff_t)ky * kw + kx) * g->co + j + k % nv * SP_LANES;
        const int8_t *const second = kx + 1 < kw ? tap + g->co : none;
        const int turned = sp_depthwise_second_i8(kx, kw, sw, dw);
        sp_storeq_i32(to, sp_zip2_i8(turned ? second : tap, turned ? tap : second, n));
      }
    }
  }
  /* rows of all channels, which stay near; tiles as above */
  for (int oy = 0; oy < rows; oy += ro) {
    const int top = (int)sp_imin(oy, rows - ro);
    for (int j = 0; j < g->co; j += nv * SP_LANES) {
      const int n = whole ? SP_LANES : (int)sp_imin(g->co - j, SP_LANES);
      const int8_t *tap = taps + taps_of * j;
      for (int i = 0; i < g->ow; i += mr) {
        const int ox = (int)sp_imin(i, g->ow - mr);
        if (pair)
          sp_depthwise_pairs_i8(p, mr, nv, scratch + top * g->sh * line + (ptrdiff_t)ox * sw * g->co + j,
                                tap, init + j, y, first + (ptrdiff_t)top * g->ow + ox, j, n, ep, e);
        else
          sp_depthwise_i8_tile(p, 1, mr, scratch + j, tap, init + j, NULL, y, first * g->ldy + j, 0,
                               top, ox, first, j, n, ep, e);
      }
    }
  }
}
#endif
