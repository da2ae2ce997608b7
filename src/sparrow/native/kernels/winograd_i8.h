/* 3x3 convolution of 8-bit codes, stride 1, by Winograd's F(2x2, 3x3) in integers: 16 products for
 * 4 outputs instead of 36, and the same sums bit for bit. For vocabularies whose products are of
 * halves.
 *   4 y = A' [((2G) w (2G)') * (B' d B)] A      d 4 x 4 codes of a channel, y 2 x 2 sums
 * A transformed code adds four codes, within +-512; a transformed weight nine, within +-1152: both
 * are halves, and a lane of sp_dot2_i32 of them fits in 32 bits. All behind it wraps modulo
 * 2^32, and 4 y comes out where it is an int32: |y| < 2^29, as winograd_i8.py proves from weights.
 * Included after isa/<isa>.h. Sizes are known at run time, as in compact_i8.h, whose x, w and y
 * these are: one group, whole pairs of vectors of input channels, whole panels of output channels.
 *   scratch  private to the task: the rows of x that a row of tiles reads, then transformed codes
 *            [16][tiles of a block][ci], weights [panels][16][ci / 2][nv][SP_LANES][2] and sums
 *            [16][tiles of a block][nv][SP_LANES], each 16th a cache line longer */
#ifndef SP_WINOGRAD_I8_H
#define SP_WINOGRAD_I8_H
#include "compact_i8.h"

/* Bytes from one of the 16 to the next: powers of two apart, stores would share a cache set. */
SP_INLINE ptrdiff_t sp_winograd_i8_plane(ptrdiff_t bytes) { return bytes + 64; }

/* o = B' d of pairs, elements at distances ds and os. */
SP_INLINE void sp_winograd_in_i8(const sp_i32 *d, int ds, sp_i32 *o, int os) {
  o[0] = sp_subp_i32(d[0], d[2 * ds]);
  o[os] = sp_addp_i32(d[ds], d[2 * ds]);
  o[2 * os] = sp_subp_i32(d[2 * ds], d[ds]);
  o[3 * os] = sp_subp_i32(d[ds], d[3 * ds]);
}

/* o = 2 G w of pairs. */
SP_INLINE void sp_winograd_weights_i8(const sp_i32 *w, int ws, sp_i32 *o, int os) {
  const sp_i32 ends = sp_addp_i32(w[0], w[2 * ws]);
  o[0] = sp_addp_i32(w[0], w[0]);
  o[os] = sp_addp_i32(ends, w[ws]);
  o[2 * os] = sp_subp_i32(ends, w[ws]);
  o[3 * os] = sp_addp_i32(w[2 * ws], w[2 * ws]);
}

/* o = A' m of sums. */
SP_INLINE void sp_winograd_out_i8(const sp_i32 *m, int ms, sp_i32 *o, int os) {
  o[0] = sp_add_i32(sp_add_i32(m[0], m[ms]), m[2 * ms]);
  o[os] = sp_sub_i32(sp_sub_i32(m[ms], m[2 * ms]), m[3 * ms]);
}

/* A row of `tiles` tiles from rows of halves at x, `line` bytes apart, to v. */
SP_INLINE void sp_winograd_codes_in_i8(const uint8_t *x, ptrdiff_t line, int ci, int tiles,
                                       uint8_t *v, ptrdiff_t plane) {
  const ptrdiff_t pixel = 2 * (ptrdiff_t)ci;
  for (int i = 0; i < tiles; ++i, x += 2 * pixel, v += pixel) {
    SP_ROLLED
    for (ptrdiff_t c = 0; c < pixel; c += 4 * SP_LANES) {
      sp_i32 d[16], t[16], o[16];
      SP_UNROLL
      for (int k = 0; k < 16; ++k) d[k] = sp_loadq_i32(x + k / 4 * line + k % 4 * pixel + c);
      SP_UNROLL
      for (int k = 0; k < 4; ++k) sp_winograd_in_i8(d + k, 4, t + k, 4);
      SP_UNROLL
      for (int k = 0; k < 4; ++k) sp_winograd_in_i8(t + 4 * k, 1, o + 4 * k, 1);
      SP_UNROLL
      for (int k = 0; k < 16; ++k) sp_storeq_i32(v + k * plane + c, o[k]);
    }
  }
}

/* The `count` vectors of a panel of weights to u; the next tap lies `tap` bytes on. */
SP_INLINE void sp_winograd_weights_in_i8(const int8_t *w, ptrdiff_t tap, int count, uint8_t *u,
                                         ptrdiff_t plane) {
  SP_ROLLED
  for (int i = 0; i < count; ++i, w += 2 * SP_LANES, u += 4 * SP_LANES) {
    sp_i32 g[9], t[12], o[16];
    SP_UNROLL
    for (int k = 0; k < 9; ++k) g[k] = sp_loadp_i32(w + k * tap);
    SP_UNROLL
    for (int k = 0; k < 3; ++k) sp_winograd_weights_i8(g + k, 3, t + k, 3);
    SP_UNROLL
    for (int k = 0; k < 4; ++k) sp_winograd_weights_i8(t + 3 * k, 1, o + 4 * k, 1);
    SP_UNROLL
    for (int k = 0; k < 16; ++k) sp_storeq_i32(u + k * plane, o[k]);
  }
}

/* m[16][count][nv] = v[16][count] times u, mr tiles at a time. The last of them end with the block,
 * and some are multiplied again; where there are fewer than mr there is room for as many. */
SP_INLINE void sp_winograd_products_i8(int mr, int nv, int ci, int count, const uint8_t *v,
                                       ptrdiff_t vf, const uint8_t *u, ptrdiff_t uf, uint8_t *m,
                                       ptrdiff_t mf) {
  const ptrdiff_t sums = (ptrdiff_t)nv * 4 * SP_LANES;
  const sp_tile_i8 t = {.mr = mr, .nv = nv, .xp = 2 * (ptrdiff_t)ci, .bv = 4 * SP_LANES,
                        .quad = sums, .pair = SP_PAIRED};
  for (int f = 0; f < 16; ++f, v += vf, u += uf, m += mf) {
    for (int i = 0; i < count; i += mr) {
      const ptrdiff_t at = sp_imax(0, sp_imin(i, count - mr));
      sp_i32 acc[SP_TILE_I8_MAX];
      SP_UNROLL
      for (int k = 0; k < mr * nv; ++k) acc[k] = sp_set1_i32(0);
      sp_tile_quads_i8(t, ci / 2, v + at * t.xp, (const int8_t *)u, acc);
      SP_UNROLL
      for (int k = 0; k < mr * nv; ++k)
        sp_storeq_i32(m + at * sums + (ptrdiff_t)k * 4 * SP_LANES, acc[k]);
    }
  }
}

/* One vector of channels of the tile at (oy, ox) of image z. */
SP_INLINE void sp_winograd_store_i8(const sp_compact_i8 *g, int put, const uint8_t *m,
                                    ptrdiff_t mf, sp_i32 init, void *y, ptrdiff_t z, int oy, int ox,
                                    ptrdiff_t col, sp_ep_i32 ep, const void *const *e) {
  sp_i32 d[16], t[8], o[4];
  ptrdiff_t row[4];
  SP_UNROLL
  for (int k = 0; k < 16; ++k) d[k] = sp_loadq_i32(m + k * mf);
  SP_UNROLL
  for (int k = 0; k < 4; ++k) sp_winograd_out_i8(d + k, 4, t + k, 4);
  SP_UNROLL
  for (int k = 0; k < 2; ++k) sp_winograd_out_i8(t + 4 * k, 1, o + 2 * k, 1);
  SP_UNROLL
  for (int k = 0; k < 4; ++k) {
    /* outside the image, the epilogue of its last pixel: nothing else may be read */
    row[k] = (z * g->oh + sp_imin(oy + k / 2, g->oh - 1)) * g->ow;
    row[k] += sp_imin(ox + k % 2, g->ow - 1);
    o[k] = ep(sp_add_i32(sp_shr_i32(o[k], 2), init), e, row[k], col, SP_LANES);
  }
  SP_UNROLL
  for (int k = 0; k < 4; ++k)
    if (oy + k / 2 < g->oh && ox + k % 2 < g->ow)
      sp_put_sum(put, y, row[k] * g->ldy + col, o[k], SP_LANES);
}

/* Task grid: parts of the panels x parts of the blocks. g->panels panels have their weights transformed
 * at once; a block is g->rb output rows, an even number, and the codes of a sole one are transformed
 * once. */
SP_INLINE void sp_winograd_i8(const sp_compact_i8 *g, int mr, int nv, int flip, int put,
                              int panel_tasks, int block_tasks, const void *x, const int8_t *w, void *y, uint8_t *scratch,
                              sp_ep_i32 ep, const void *const *e, int task) {
  const int ci = g->ci, channels = nv * SP_LANES, tw = (g->ow + 1) / 2;
  const int all = g->co / channels, part = task % panel_tasks;
  const int stop = all * (part + 1) / panel_tasks;
  const int blocks = (g->oh + g->rb - 1) / g->rb, total = g->batch * blocks;
  const int first = total * (task / panel_tasks) / block_tasks;
  const int last = total * (task / panel_tasks + 1) / block_tasks;
  const ptrdiff_t pixel = 2 * (ptrdiff_t)ci, panel = 9 * (ptrdiff_t)ci * channels;
  const int32_t *init = (const int32_t *)(const void *)(w + all * panel);
  const ptrdiff_t most = sp_imax(g->rb / 2 * tw, mr);
  const ptrdiff_t vf = sp_winograd_i8_plane(most * pixel);
  const ptrdiff_t uf = sp_winograd_i8_plane(pixel * channels);
  const ptrdiff_t mf = sp_winograd_i8_plane(most * channels * 4);
  /* whole tiles of what is in scratch */
  sp_compact_i8 band = *g;
  band.ow = 2 * tw;
  const ptrdiff_t line = sp_compact_i8_line(&band, 1);
  uint8_t *const v = scratch + 4 * line, *const u = v + 16 * vf, *const m = u + g->panels * 16 * uf;
  int held = -1;
  for (int j0 = all * part / panel_tasks; j0 < stop; j0 += g->panels) {
    const int count = (int)sp_imin(g->panels, stop - j0);
    for (int j = 0; j < count; ++j)
      sp_winograd_weights_in_i8(w + (j0 + j) * panel, ci * channels, ci / 2 * nv, u + j * 16 * uf,
                                uf);
    for (int b = first; b < last; ++b) {
      const int z = b / blocks, top = b % blocks * g->rb;
      const int rows = ((int)sp_imin(g->rb, g->oh - top) + 1) / 2;
      for (int r = 0; b != held && r < rows; ++r) {
        sp_compact_i8_band(&band, 1, flip, (const uint8_t *)x + z * (ptrdiff_t)g->xn, top + 2 * r,
                           top + 2 * r + 2, scratch);
        sp_winograd_codes_in_i8(scratch, line, ci, tw, v + (ptrdiff_t)r * tw * pixel, vf);
      }
      held = b;
      for (int j = 0; j < count; ++j) {
        const ptrdiff_t col = (ptrdiff_t)(j0 + j) * channels;
        sp_winograd_products_i8(mr, nv, ci, rows * tw, v, vf, u + j * 16 * uf, uf, m, mf);
        for (int i = 0; i < rows * tw; ++i) {
          for (int k = 0; k < nv; ++k)
            sp_winograd_store_i8(g, put, m + ((ptrdiff_t)i * nv + k) * 4 * SP_LANES, mf,
                                 sp_load_i32(init + col + k * SP_LANES), y, z, top + i / tw * 2,
                                 i % tw * 2, col + k * SP_LANES, ep, e);
        }
      }
    }
  }
}
#endif
