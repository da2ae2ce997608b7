/* Float32 3x3 convolution, stride 1, by Winograd's F(4x4, 3x3) (Lavin & Gray, arXiv:1509.09308): 36
 * products per 16 outputs instead of 144, at the price of rounding errors some two times those of the
 * direct sum. Points and error analysis: kernels/winograd.py. Included after isa/<isa>.h; all fields of sp_winograd are literals in emitted code.
 *   x  element (n, y, x, c) at x[n * xn + y * xh + x * xw + c]
 *   w  [ceil(co / SP_LANES)][36][ci][SP_LANES], zero padded, by winograd.pack_winograd(); where `raw`,
 *      [ceil(co / SP_LANES)][9][ci][SP_LANES] by pack_conv(), transformed in each call
 *   y  pixel (n, oy, ox) at element ((n * oh + oy) * ow + ox) * ldy, bfloat16 where `half`; the epilogue
 *      sees that pixel number as its row; must not alias x or w
 *   scratch  private to the task: 36 * (tb * ceil(ci / SP_LANES) + 1 + tb * nv) * SP_LANES floats; where
 *      `raw`, group * 36 * (ci * SP_LANES + 16) more
 * Nothing outside x is read. */
#ifndef SP_WINOGRAD_F32_H
#define SP_WINOGRAD_F32_H
#include "tile_f32.h"

/* Blocks of tb output tiles of 4 x 4 are transformed, multiplied in register tiles of mr rows x nv
 * vectors, and transformed back nv vectors at a time. Task grid: ceil(blocks / task_b) x
 * ceil(vectors / task_n); task_n is a multiple of nv. Where `raw`, `group` vectors, a multiple of nv,
 * have their weights transformed at once; elsewhere it is task_n. */
typedef struct sp_winograd {
  int batch, ih, iw, ci, oh, ow, co, pt, pl;
  ptrdiff_t xn, xh, xw, ldy;
  int half, raw;
  int mr, nv, tb, task_b, task_n, group;
} sp_winograd;

/* Floats from the weights of one position to those of the next. Powers of two apart, 36 stores would
 * share a cache set. */
SP_INLINE ptrdiff_t sp_winograd_plane(const sp_winograd p) {
  return (ptrdiff_t)p.ci * SP_LANES + (p.raw ? 16 : 0);
}

/* The points 0, a, -a, b, -b with a = 5/8, b = 13/8, and infinity; powers and products are exact. */
#define SP_WINOGRAD_A 0.625f
#define SP_WINOGRAD_B 1.625f
#define SP_WINOGRAD_A2 0.390625f
#define SP_WINOGRAD_B2 2.640625f

/* o = B' d, elements at distance ds and os. */
SP_INLINE void sp_winograd_in_f32(const sp_f32 *d, int ds, sp_f32 *o, int os) {
  const sp_f32 a = sp_set1_f32(SP_WINOGRAD_A), b = sp_set1_f32(SP_WINOGRAD_B);
  const sp_f32 a2 = sp_set1_f32(SP_WINOGRAD_A2), b2 = sp_set1_f32(SP_WINOGRAD_B2);
  const sp_f32 product = sp_set1_f32(SP_WINOGRAD_A2 * SP_WINOGRAD_B2);
  const sp_f32 sum = sp_set1_f32(SP_WINOGRAD_A2 + SP_WINOGRAD_B2);
  const sp_f32 p = sp_fnma_f32(b2, d[2 * ds], d[4 * ds]);
  const sp_f32 q = sp_fnma_f32(b2, d[ds], d[3 * ds]);
  const sp_f32 r = sp_fnma_f32(a2, d[2 * ds], d[4 * ds]);
  const sp_f32 s = sp_fnma_f32(a2, d[ds], d[3 * ds]);
  o[0] = sp_fma_f32(product, d[0], sp_fnma_f32(sum, d[2 * ds], d[4 * ds]));
  o[os] = sp_fma_f32(a, q, p);
  o[2 * os] = sp_fnma_f32(a, q, p);
  o[3 * os] = sp_fma_f32(b, s, r);
  o[4 * os] = sp_fnma_f32(b, s, r);
  o[5 * os] = sp_fma_f32(product, d[ds], sp_fnma_f32(sum, d[3 * ds], d[5 * ds]));
}

/* o = G w. Quotients of exact numbers, each rounded once. */
SP_INLINE void sp_winograd_weights_f32(const sp_f32 *w, int ws, sp_f32 *o, int os) {
  const float na = 2.0f * SP_WINOGRAD_A2 * (SP_WINOGRAD_A2 - SP_WINOGRAD_B2);
  const float nb = 2.0f * SP_WINOGRAD_B2 * (SP_WINOGRAD_B2 - SP_WINOGRAD_A2);
  const sp_f32 a0 = sp_set1_f32(1.0f / na), b0 = sp_set1_f32(1.0f / nb);
  const sp_f32 a1 = sp_set1_f32(SP_WINOGRAD_A / na), b1 = sp_set1_f32(SP_WINOGRAD_B / nb);
  const sp_f32 a2 = sp_set1_f32(SP_WINOGRAD_A2 / na), b2 = sp_set1_f32(SP_WINOGRAD_B2 / nb);
  const sp_f32 s = sp_fma_f32(a2, w[2 * ws], sp_mul_f32(a0, w[0]));
  const sp_f32 t = sp_fma_f32(b2, w[2 * ws], sp_mul_f32(b0, w[0]));
  o[0] = sp_mul_f32(sp_set1_f32(1.0f / (SP_WINOGRAD_A2 * SP_WINOGRAD_B2)), w[0]);
  o[os] = sp_fma_f32(a1, w[ws], s);
  o[2 * os] = sp_fnma_f32(a1, w[ws], s);
  o[3 * os] = sp_fma_f32(b1, w[ws], t);
  o[4 * os] = sp_fnma_f32(b1, w[ws], t);
  o[5 * os] = w[2 * ws];
}

/* o = A' m. */
SP_INLINE void sp_winograd_out_f32(const sp_f32 *m, int ms, sp_f32 *o, int os) {
  const sp_f32 a = sp_set1_f32(SP_WINOGRAD_A), b = sp_set1_f32(SP_WINOGRAD_B);
  const sp_f32 a2 = sp_set1_f32(SP_WINOGRAD_A2), b2 = sp_set1_f32(SP_WINOGRAD_B2);
  const sp_f32 a3 = sp_set1_f32(SP_WINOGRAD_A2 * SP_WINOGRAD_A);
  const sp_f32 b3 = sp_set1_f32(SP_WINOGRAD_B2 * SP_WINOGRAD_B);
  const sp_f32 s = sp_add_f32(m[ms], m[2 * ms]), d = sp_sub_f32(m[ms], m[2 * ms]);
  const sp_f32 t = sp_add_f32(m[3 * ms], m[4 * ms]), e = sp_sub_f32(m[3 * ms], m[4 * ms]);
  o[0] = sp_add_f32(sp_add_f32(m[0], s), t);
  o[os] = sp_fma_f32(b, e, sp_mul_f32(a, d));
  o[2 * os] = sp_fma_f32(b2, t, sp_mul_f32(a2, s));
  o[3 * os] = sp_fma_f32(b3, e, sp_fma_f32(a3, d, m[5 * ms]));
}

/* n channels of the 6 x 6 input pixels at (y0, x0); pixels outside the image are 0. v[36] at
 * distance vf. */
SP_INLINE void sp_winograd_load_f32(const sp_winograd p, const float *x, int y0, int x0, int edge,
                                    int n, float *v, ptrdiff_t vf) {
  sp_f32 d[36], t[36];
  SP_UNROLL
  for (int i = 0; i < 36; ++i) {
    const int iy = y0 + i / 6, ix = x0 + i % 6;
    if (!edge || (iy >= 0 && iy < p.ih && ix >= 0 && ix < p.iw))
      d[i] = sp_loadn_f32(x + iy * p.xh + ix * p.xw, n);
    else
      d[i] = sp_zero_f32();
  }
  SP_UNROLL
  for (int i = 0; i < 6; ++i) sp_winograd_in_f32(d + i, 6, t + i, 6);
  SP_UNROLL
  for (int i = 0; i < 6; ++i) {
    sp_f32 o[6];
    sp_winograd_in_f32(t + 6 * i, 1, o, 1);
    SP_UNROLL
    for (int j = 0; j < 6; ++j) sp_store_f32(v + (6 * i + j) * vf, o[j]);
  }
}

/* Full vectors of channels of one tile into v. */
SP_INLINE void sp_winograd_inside_f32(const sp_winograd p, const float *x, int y0, int x0, int full,
                                      float *v, ptrdiff_t vf) {
  if (y0 >= 0 && y0 + 6 <= p.ih && x0 >= 0 && x0 + 6 <= p.iw) {
    for (int c = 0; c < full; c += SP_LANES)
      sp_winograd_load_f32(p, x + c, y0, x0, 0, SP_LANES, v + c, vf);
  } else {
    for (int c = 0; c < full; c += SP_LANES)
      sp_winograd_load_f32(p, x + c, y0, x0, 1, SP_LANES, v + c, vf);
  }
}

/* One function for all layers, where code is downloaded. */
SP_OUTLINE void sp_winograd_shared_in_f32(int ih, int iw, ptrdiff_t xh, ptrdiff_t xw, const float *x,
                                          int y0, int x0, int full, float *v, ptrdiff_t vf) {
  const sp_winograd p = {.ih = ih, .iw = iw, .xh = xh, .xw = xw};
  sp_winograd_inside_f32(p, x, y0, x0, full, v, vf);
}

/* All channels of one tile into v. */
SP_INLINE void sp_winograd_tile_in_f32(const sp_winograd p, const float *x, int y0, int x0,
                                       float *v, ptrdiff_t vf) {
  const int full = p.ci / SP_LANES * SP_LANES;
  if (p.raw)
    sp_winograd_shared_in_f32(p.ih, p.iw, p.xh, p.xw, x, y0, x0, full, v, vf);
  else
    sp_winograd_inside_f32(p, x, y0, x0, full, v, vf);
  if (full < p.ci) sp_winograd_load_f32(p, x + full, y0, x0, 1, p.ci - full, v + full, vf);
}

/* A vector of output channels of raw weights to u[36] at distance uf. */
SP_OUTLINE void sp_winograd_weights_in_f32(int ci, const float *w, float *u, ptrdiff_t uf) {
  const ptrdiff_t tap = (ptrdiff_t)ci * SP_LANES;
  SP_ROLLED
  for (int c = 0; c < ci; ++c, w += SP_LANES, u += SP_LANES) {
    sp_f32 g[9], t[18];
    SP_UNROLL
    for (int k = 0; k < 9; ++k) g[k] = sp_load_f32(w + k * tap);
    SP_UNROLL
    for (int k = 0; k < 3; ++k) sp_winograd_weights_f32(g + k, 3, t + k, 3);
    SP_UNROLL
    for (int k = 0; k < 6; ++k) {
      sp_f32 o[6];
      sp_winograd_weights_f32(t + 3 * k, 1, o, 1);
      SP_UNROLL
      for (int j = 0; j < 6; ++j) sp_store_f32(u + (6 * k + j) * uf, o[j]);
    }
  }
}

/* Four pixels of an output row. */
SP_INLINE void sp_winograd_row_f32(const sp_winograd p, const sp_f32 *o, void *y, int z, int py,
                                   int ox, ptrdiff_t col, int n, sp_ep_f32 ep,
                                   const void *const *e) {
  SP_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int px = ox + i;
    const ptrdiff_t row = ((ptrdiff_t)z * p.oh + py) * p.ow + px;
    if (py < p.oh && px < p.ow)
      sp_put_out(p.half, y, row * p.ldy, ep(o[i], e, row, col, n), n);
  }
}

/* One vector of n channels of one tile: m[36] at distance mf -> output pixels (oy, ox) and on. */
SP_INLINE void sp_winograd_store_f32(const sp_winograd p, const float *m, ptrdiff_t mf, void *y,
                                     int z, int oy, int ox, ptrdiff_t col, int n, sp_ep_f32 ep,
                                     const void *const *e) {
  sp_f32 d[36], t[24], o[16];
  SP_UNROLL
  for (int i = 0; i < 36; ++i) d[i] = sp_load_f32(m + i * mf);
  SP_UNROLL
  for (int i = 0; i < 6; ++i) sp_winograd_out_f32(d + i, 6, t + i, 6);
  SP_UNROLL
  for (int i = 0; i < 4; ++i) sp_winograd_out_f32(t + 6 * i, 1, o + 4 * i, 1);
  if (p.raw) { /* an epilogue may be long */
    SP_ROLLED
    for (int i = 0; i < 4; ++i)
      sp_winograd_row_f32(p, o + 4 * i, y, z, oy + i, ox, col, n, ep, e);
  } else {
    SP_UNROLL
    for (int i = 0; i < 4; ++i)
      sp_winograd_row_f32(p, o + 4 * i, y, z, oy + i, ox, col, n, ep, e);
  }
}

/* m[t.mr][t.nv][SP_LANES] = rows of v times w. */
SP_INLINE void sp_winograd_product_f32(const sp_winograd p, const sp_tile t, const float *v,
                                       const float *w, float *m) {
  sp_f32 acc[SP_TILE_MAX];
  sp_tile_zero_f32(t, acc);
  sp_tile_mac_f32(t, acc, 0, t.mr, v, 0, w, p.ci);
  sp_tile_put_f32(t, acc, m, t.nv * SP_LANES, 0, 0, SP_LANES, sp_ep_none, (const void *const *)0);
}

/* Vectors of channels from col: products of all 36 positions, then the way back of count tiles from
 * tile t0. */
SP_INLINE void sp_winograd_panel_f32(const sp_winograd p, int nv, int n, const float *v,
                                     ptrdiff_t vf, const float *w, float *m, void *y, int t0,
                                     int count, ptrdiff_t col, sp_ep_f32 ep, const void *const *e) {
  const int up = (p.ci + SP_LANES - 1) / SP_LANES * SP_LANES;
  const int th = (p.oh + 3) / 4, tw = (p.ow + 3) / 4;
  const ptrdiff_t mf = (ptrdiff_t)p.tb * nv * SP_LANES;
  const ptrdiff_t wf = sp_winograd_plane(p);
  /* while one position is multiplied, the weights of the next are fetched */
  const ptrdiff_t bv = 36 * wf;
  const int steps = (p.tb + p.mr - 1) / p.mr;
  const int lines = (nv + steps - 1) / steps;
  const int every = steps >= 2 * nv ? 2 : 1;
  for (int f = 0; f < 36; ++f) {
    const float *b = w + f * wf;
    sp_tile t = {.mr = p.mr, .nv = nv, .ku = 1, .ai = up, .ak = 1, .bv = bv, .bk = SP_LANES,
                 .bn = SP_LANES, .pf = -lines, .every = every, .next = wf, .left = nv / lines};
    int i = 0;
    for (; i + p.mr <= p.tb; i += p.mr) {
      sp_winograd_product_f32(p, t, v + f * vf + i * up, b, m + f * mf + i * nv * SP_LANES);
      sp_tile_onward(&t, p.ci);
    }
    t.mr = p.tb % p.mr;
    if (t.mr > 0)
      sp_winograd_product_f32(p, t, v + f * vf + i * up, b, m + f * mf + i * nv * SP_LANES);
  }
  for (int i = 0; i < count; ++i) {
    const int z = (t0 + i) / (th * tw);
    const int oy = (t0 + i) / tw % th * 4;
    const int ox = (t0 + i) % tw * 4;
    const int full = n == SP_LANES ? nv : nv - 1;
    for (int j = 0; j < full; ++j)
      sp_winograd_store_f32(p, m + (i * nv + j) * SP_LANES, mf,
                            sp_out_at(p.half, y, j * SP_LANES), z, oy, ox, col + j * SP_LANES,
                            SP_LANES, ep, e);
    if (full < nv)
      sp_winograd_store_f32(p, m + (i * nv + full) * SP_LANES, mf,
                            sp_out_at(p.half, y, full * SP_LANES), z, oy, ox,
                            col + full * SP_LANES, n, ep, e);
  }
}

SP_INLINE void sp_winograd_f32(const sp_winograd p, const float *x, const float *w, void *y,
                               float *scratch, sp_ep_f32 ep, const void *const *e, int task) {
  const int up = (p.ci + SP_LANES - 1) / SP_LANES * SP_LANES;
  const int th = (p.oh + 3) / 4, tw = (p.ow + 3) / 4;
  const int tiles = p.batch * th * tw;
  const int full = p.co / SP_LANES / p.nv * p.nv;
  const int rest = p.co - full * SP_LANES;
  const int tail = (rest + SP_LANES - 1) / SP_LANES;
  const ptrdiff_t bv = 36 * sp_winograd_plane(p);
  /* one vector more than the tiles need: powers of two apart, 36 stores would share a cache set */
  const ptrdiff_t vf = (ptrdiff_t)p.tb * up + SP_LANES;
  float *const m = scratch + 36 * vf, *const u = m + (ptrdiff_t)36 * p.tb * p.nv * SP_LANES;
  const int vectors = full + tail;
  const int tn = (vectors + p.task_n - 1) / p.task_n;
  const int j0 = task % tn * p.task_n;
  const int j1 = (int)sp_imin(j0 + p.task_n, vectors);
  const int begin = task / tn * p.task_b * p.tb;
  const int end = (int)sp_imin(begin + p.task_b * p.tb, tiles);
  int held = -1;
  for (int g = j0; g < j1; g += p.group) {
    const int stop = (int)sp_imin(g + p.group, j1);
    const float *b = p.raw ? u : w + g * bv;
    for (int j = g; p.raw && j < stop; ++j)
      sp_winograd_weights_in_f32(p.ci, w + (ptrdiff_t)j * 9 * p.ci * SP_LANES, u + (j - g) * bv,
                                 sp_winograd_plane(p));
    for (int t0 = begin; t0 < end; t0 += p.tb) {
      const int count = (int)sp_imin(p.tb, end - t0);
      for (int i = 0; t0 != held && i < count; ++i) {
        const int z = (t0 + i) / (th * tw);
        const int y0 = (t0 + i) / tw % th * 4 - p.pt;
        const int x0 = (t0 + i) % tw * 4 - p.pl;
        sp_winograd_tile_in_f32(p, x + z * p.xn, y0, x0, scratch + i * up, vf);
      }
      held = t0;
      /* rows past count hold leftovers: they are multiplied, never stored */
      for (int j = g; j < (int)sp_imin(stop, full); j += p.nv)
        sp_winograd_panel_f32(p, p.nv, SP_LANES, scratch, vf, b + (j - g) * bv, m,
                              sp_out_at(p.half, y, j * SP_LANES), t0, count, j * SP_LANES, ep, e);
      if (tail > 0 && stop > full)
        sp_winograd_panel_f32(p, tail, rest - (tail - 1) * SP_LANES, scratch, vf,
                              b + (full - g) * bv, m, sp_out_at(p.half, y, full * SP_LANES), t0,
                              count, full * SP_LANES, ep, e);
    }
  }
}
#endif
