/* 3x3 convolution of 8-bit codes, stride 1, by Winograd's F(2x2, 3x3) or F(4x4, 3x3) in integers: 16
 * products for 4 outputs instead of 36, or 36 for 16 instead of 144, and the same sums bit for bit.
 * Products are of halves, whatever else a vocabulary multiplies.
 *   c y = A' [(G w G') * (B' d B)] A    d codes of a channel, y sums, G and A times what makes them whole
 * `size` is 2 or 4, and T = size + 2 the side of d. A transformed code adds within +-512, or +-12,800; a
 * weight within +-1152, or +-6,272: both are halves, and a lane of sp_dot2_i32 of them fits in 32 bits.
 * All behind it wraps modulo 2^32. c is 4 for F(2x2): 4 y comes out where it is an int32. For F(4x4) it is
 * 9 and at most 64 times (A' by rows is 24, 12, 6 and 6 times y): c y times the inverse of 9 modulo 2^32
 * is 64 y, or less. So |y| < 2^29, or 2^25, as winograd_i8.py proves from weights.
 * Included after isa/<isa>.h. Sizes are known at run time, as in compact_i8.h, whose x, w and y
 * these are: one group, weights of whole pairs of vectors of input channels and of whole panels of output
 * channels, 0 beyond those of x and y: what is read there, the next pixel's, does not count.
 *   scratch  private to the task: the rows of x that a row of tiles reads, then transformed codes
 *            [T * T][tiles of a block][ci], weights [panels][T * T][ci / 2][nv][SP_LANES][2] and sums
 *            [T * T][tiles of a block][nv][SP_LANES], each plane a cache line longer */
#ifndef SP_WINOGRAD_I8_H
#define SP_WINOGRAD_I8_H
#include "compact_i8.h"

#define SP_WINOGRAD_I8_PLANES 36
/* Bytes from one plane to the next: powers of two apart, stores would share a cache set. */
SP_INLINE ptrdiff_t sp_winograd_i8_plane(ptrdiff_t bytes) { return bytes + 64; }

/* o = B' d of pairs, elements at distances ds and os. */
SP_INLINE void sp_winograd_in_i8(int size, const sp_i32 *d, int ds, sp_i32 *o, int os) {
  if (size == 2) {
    o[0] = sp_subp_i32(d[0], d[2 * ds]);
    o[os] = sp_addp_i32(d[ds], d[2 * ds]);
    o[2 * os] = sp_subp_i32(d[2 * ds], d[ds]);
    o[3 * os] = sp_subp_i32(d[ds], d[3 * ds]);
    return;
  }
  const sp_i32 one = sp_addp_i32(d[ds], d[ds]), two = sp_addp_i32(d[2 * ds], d[2 * ds]);
  const sp_i32 even = sp_subp_i32(sp_subp_i32(d[4 * ds], two), two);
  const sp_i32 odd = sp_subp_i32(sp_subp_i32(d[3 * ds], one), one);
  const sp_i32 near = sp_subp_i32(d[4 * ds], d[2 * ds]);
  const sp_i32 far = sp_addp_i32(sp_subp_i32(d[3 * ds], d[ds]), sp_subp_i32(d[3 * ds], d[ds]));
  const sp_i32 first = sp_addp_i32(sp_subp_i32(d[0], d[2 * ds]), sp_subp_i32(d[0], d[2 * ds]));
  const sp_i32 last = sp_subp_i32(sp_subp_i32(d[5 * ds], d[3 * ds]), far);
  o[0] = sp_addp_i32(sp_addp_i32(first, first), near);
  o[os] = sp_addp_i32(even, odd);
  o[2 * os] = sp_subp_i32(even, odd);
  o[3 * os] = sp_addp_i32(near, far);
  o[4 * os] = sp_subp_i32(near, far);
  o[5 * os] = sp_subp_i32(last, far);
}

/* o = G w of pairs. */
SP_INLINE void sp_winograd_weights_i8(int size, const sp_i32 *w, int ws, sp_i32 *o, int os) {
  const sp_i32 ends = sp_addp_i32(w[0], w[2 * ws]);
  o[os] = sp_addp_i32(ends, w[ws]);
  o[2 * os] = sp_subp_i32(ends, w[ws]);
  if (size == 2) {
    o[0] = sp_addp_i32(w[0], w[0]);
    o[3 * os] = sp_addp_i32(w[2 * ws], w[2 * ws]);
    return;
  }
  const sp_i32 one = sp_addp_i32(w[ws], w[ws]), two = sp_addp_i32(w[2 * ws], w[2 * ws]);
  const sp_i32 even = sp_addp_i32(sp_addp_i32(w[0], two), two);
  o[0] = w[0];
  o[3 * os] = sp_addp_i32(even, one);
  o[4 * os] = sp_subp_i32(even, one);
  o[5 * os] = w[2 * ws];
}

/* o = A' m of sums. */
SP_INLINE void sp_winograd_out_i8(int size, const sp_i32 *m, int ms, sp_i32 *o, int os) {
  if (size == 2) {
    o[0] = sp_add_i32(sp_add_i32(m[0], m[ms]), m[2 * ms]);
    o[os] = sp_sub_i32(sp_sub_i32(m[ms], m[2 * ms]), m[3 * ms]);
    return;
  }
  const sp_i32 p = sp_add_i32(m[ms], m[2 * ms]), q = sp_sub_i32(m[ms], m[2 * ms]);
  const sp_i32 r = sp_add_i32(m[3 * ms], m[4 * ms]), s = sp_sub_i32(m[3 * ms], m[4 * ms]);
  const sp_i32 first = sp_add_i32(m[0], sp_shl_i32(m[0], 1));
  const sp_i32 last = sp_add_i32(m[5 * ms], sp_shl_i32(m[5 * ms], 1));
  o[0] = sp_add_i32(sp_sub_i32(sp_shl_i32(first, 1), sp_shl_i32(p, 2)), r);
  o[os] = sp_sub_i32(s, sp_shl_i32(q, 1));
  o[2 * os] = sp_sub_i32(r, p);
  o[3 * os] = sp_add_i32(sp_sub_i32(sp_shl_i32(s, 1), q), sp_shl_i32(last, 1));
}

/* Powers of two by which a row of A' is less than the first. */
SP_INLINE int sp_winograd_less_i8(int row) { return row < 2 ? row : 2; }

/* y from c y at place k of the tile. */
SP_INLINE sp_i32 sp_winograd_sum_i8(int size, int k, sp_i32 o) {
  const int shift = size == 2 ? 2 : 6 - sp_winograd_less_i8(k / 4) - sp_winograd_less_i8(k % 4);
  if (size == 4) o = sp_mul_i32(o, sp_set1_i32(954437177)); /* 9 times it is 1 modulo 2^32 */
  return sp_shr_i32(o, shift);
}

/* A row of `tiles` tiles from rows of halves at x, `line` bytes apart and `pixel` from one to the next, to v,
 * where a tile has `each`. */
SP_INLINE void sp_winograd_codes_in_i8(int size, const uint8_t *x, ptrdiff_t line, ptrdiff_t pixel,
                                       int tiles, uint8_t *v, ptrdiff_t each, ptrdiff_t plane) {
  const int n = size + 2;
  for (int i = 0; i < tiles; ++i, x += size * pixel, v += each) {
    SP_ROLLED
    for (ptrdiff_t c = 0; c < each; c += 4 * SP_LANES) {
      sp_i32 t[SP_WINOGRAD_I8_PLANES];
      SP_UNROLL
      for (int k = 0; k < n; ++k) {
        sp_i32 d[6];
        SP_UNROLL
        for (int j = 0; j < n; ++j) d[j] = sp_loadq_i32(x + j * line + k * pixel + c);
        sp_winograd_in_i8(size, d, 1, t + k, n);
      }
      SP_UNROLL
      for (int k = 0; k < n; ++k) {
        sp_i32 o[6];
        sp_winograd_in_i8(size, t + n * k, 1, o, 1);
        SP_UNROLL
        for (int j = 0; j < n; ++j) sp_storeq_i32(v + (n * k + j) * plane + c, o[j]);
      }
    }
  }
}

/* The `count` vectors of a panel of weights to u; the next tap lies `tap` bytes on. */
SP_INLINE void sp_winograd_weights_in_i8(int size, const int8_t *w, ptrdiff_t tap, int count, uint8_t *u,
                                         ptrdiff_t plane) {
  const int n = size + 2;
  SP_ROLLED
  for (int i = 0; i < count; ++i, w += 2 * SP_LANES, u += 4 * SP_LANES) {
    sp_i32 g[9], t[18];
    SP_UNROLL
    for (int k = 0; k < 9; ++k) g[k] = sp_loadp_i32(w + k * tap);
    SP_UNROLL
    for (int k = 0; k < 3; ++k) sp_winograd_weights_i8(size, g + k, 3, t + k, 3);
    SP_UNROLL
    for (int k = 0; k < n; ++k) {
      sp_i32 o[6];
      sp_winograd_weights_i8(size, t + 3 * k, 1, o, 1);
      SP_UNROLL
      for (int j = 0; j < n; ++j) sp_storeq_i32(u + (n * k + j) * plane, o[j]);
    }
  }
}

/* m[T * T][count][nv] = v[T * T][count] times u, mr tiles at a time, whose pixels lie so many bytes apart;
 * where `more`, added to what is there. The last of them may be leftovers, for which there is room. */
SP_INLINE void sp_winograd_products_i8(int planes, int mr, int nv, int ci, int more, int count,
                                       const uint8_t *v, ptrdiff_t pixel, ptrdiff_t vf,
                                       const uint8_t *u, ptrdiff_t uf, uint8_t *m, ptrdiff_t mf) {
  const ptrdiff_t sums = (ptrdiff_t)nv * 4 * SP_LANES;
  const sp_tile_i8 t = {.mr = mr, .nv = nv, .xp = pixel, .bv = 4 * SP_LANES, .quad = sums,
                        .pair = SP_PAIRED};
  for (int f = 0; f < planes; ++f, v += vf, u += uf, m += mf) {
    for (int i = 0; i < count; i += mr) {
      uint8_t *const to = m + i * sums;
      sp_i32 acc[SP_TILE_I8_MAX];
      SP_UNROLL
      for (int k = 0; k < mr * nv; ++k)
        acc[k] = more ? sp_loadq_i32(to + (ptrdiff_t)k * 4 * SP_LANES) : sp_set1_i32(0);
      sp_tile_quads_i8(t, ci / 2, v + i * pixel, (const int8_t *)u, acc);
      SP_UNROLL
      for (int k = 0; k < mr * nv; ++k) sp_storeq_i32(to + (ptrdiff_t)k * 4 * SP_LANES, acc[k]);
    }
  }
}

/* n channels of a vector of the tile at (oy, ox) of image z. */
SP_INLINE void sp_winograd_store_i8(const sp_compact_i8 *g, int size, int put, const uint8_t *m,
                                    ptrdiff_t mf, sp_i32 init, void *y, ptrdiff_t z, int oy, int ox,
                                    ptrdiff_t col, int n, sp_ep_i32 ep, const void *const *e) {
  const int side = size + 2;
  sp_i32 t[24], o[16];
  ptrdiff_t row[16];
  SP_UNROLL
  for (int k = 0; k < side; ++k) {
    sp_i32 d[6];
    SP_UNROLL
    for (int j = 0; j < side; ++j) d[j] = sp_loadq_i32(m + (side * j + k) * mf);
    sp_winograd_out_i8(size, d, 1, t + k, side);
  }
  SP_UNROLL
  for (int k = 0; k < size; ++k) sp_winograd_out_i8(size, t + side * k, 1, o + size * k, 1);
  SP_UNROLL
  for (int k = 0; k < size * size; ++k) {
    /* outside the image, the epilogue of its last pixel: nothing else may be read */
    row[k] = (z * g->oh + sp_imin(oy + k / size, g->oh - 1)) * g->ow;
    row[k] += sp_imin(ox + k % size, g->ow - 1);
    const sp_i32 sum = sp_add_i32(sp_winograd_sum_i8(size, k, o[k]), init);
    o[k] = ep(sum, e, row[k], col, n);
  }
  const int whole = SP_STORES_APART > 1 && ox + size <= g->ow;
  SP_UNROLL
  for (int k = 0; k < size * size; k += size) {
    if (oy + k / size >= g->oh) continue;
    if (whole) sp_put_pixels(put, y, row[k] * g->ldy + col, g->ldy, o + k, size, n);
    SP_UNROLL
    for (int j = 0; j < size; ++j)
      if (!whole && ox + j < g->ow)
        sp_put_sum(put, y, row[k + j] * g->ldy + col, o[k + j], n);
  }
}

/* Task grid: parts of the panels x parts of the blocks. g->panels panels have their weights transformed
 * at once, before all blocks, or where `kc` is not 0 so many channels of one of them in each block; a block
 * is g->rb output rows, whole tiles, and the codes of a sole one are transformed once. `whole`: y has all
 * channels of the last panel. */
SP_INLINE void sp_winograd_i8(const sp_compact_i8 *g, int size, int mr, int nv, int kc, int flip, int put,
                              int whole, int panel_tasks, int block_tasks, const void *x,
                              const int8_t *w, void *y, uint8_t *scratch, sp_ep_i32 ep,
                              const void *const *e, int task) {
  const int pair = 2 * SP_LANES, ci = (g->ci + pair - 1) / pair * pair;
  const int channels = nv * SP_LANES, tw = (g->ow + size - 1) / size;
  const int planes = (size + 2) * (size + 2), step = kc ? kc : ci;
  const int all = (g->co + channels - 1) / channels, part = task % panel_tasks;
  const int stop = all * (part + 1) / panel_tasks;
  const int blocks = (g->oh + g->rb - 1) / g->rb, total = g->batch * blocks;
  const int first = total * (task / panel_tasks) / block_tasks;
  const int last = total * (task / panel_tasks + 1) / block_tasks;
  const ptrdiff_t pixel = 2 * (ptrdiff_t)ci, panel = 9 * (ptrdiff_t)ci * channels;
  const int32_t *init = (const int32_t *)(const void *)(w + all * panel);
  const ptrdiff_t most = (g->rb / size * tw + mr - 1) / mr * mr;
  const ptrdiff_t vf = sp_winograd_i8_plane(most * pixel);
  const ptrdiff_t uf = sp_winograd_i8_plane(2 * (ptrdiff_t)step * channels);
  const ptrdiff_t mf = sp_winograd_i8_plane(most * channels * 4);
  /* whole tiles of what is in scratch */
  sp_compact_i8 band = *g;
  band.ow = size * tw;
  const ptrdiff_t line = sp_compact_i8_line(&band, 1);
  uint8_t *const v = scratch + (size + 2) * line, *const u = v + planes * vf;
  const ptrdiff_t up = kc ? 0 : planes * uf; /* from a panel to the next */
  uint8_t *const m = u + (kc ? planes * uf : g->panels * up);
  int held = -1;
  for (int j0 = all * part / panel_tasks; j0 < stop; j0 += g->panels) {
    const int count = (int)sp_imin(g->panels, stop - j0);
    for (int j = 0; !kc && j < count; ++j)
      sp_winograd_weights_in_i8(size, w + (j0 + j) * panel, ci * channels, ci / 2 * nv,
                                u + j * up, uf);
    for (int b = first; b < last; ++b) {
      const int z = b / blocks, top = b % blocks * g->rb;
      const int rows = ((int)sp_imin(g->rb, g->oh - top) + size - 1) / size;
      for (int r = 0; b != held && r < rows; ++r) {
        sp_compact_i8_band(&band, 1, flip, (const uint8_t *)x + z * (ptrdiff_t)g->xn, top + size * r,
                           top + size * r + size, scratch);
        sp_winograd_codes_in_i8(size, scratch, line, 2 * (ptrdiff_t)g->ci, tw,
                                v + (ptrdiff_t)r * tw * pixel, pixel, vf);
      }
      held = b;
      for (int j = 0; j < count; ++j) {
        const ptrdiff_t col = (ptrdiff_t)(j0 + j) * channels;
        for (int c = 0; c < ci; c += step) {
          const int k = (int)sp_imin(step, ci - c);
          if (kc)
            sp_winograd_weights_in_i8(size, w + (j0 + j) * panel + c * channels, ci * channels,
                                      k / 2 * nv, u, uf);
          sp_winograd_products_i8(planes, mr, nv, k, c > 0, rows * tw, v + 2 * c, pixel, vf,
                                  u + j * up, uf, m, mf);
        }
        for (int i = 0; i < rows * tw; ++i) {
          for (int k = 0; k < nv; ++k) {
            const ptrdiff_t at = col + k * SP_LANES;
            const uint8_t *const sums = m + ((ptrdiff_t)i * nv + k) * 4 * SP_LANES;
            const sp_i32 start = sp_load_i32(init + at);
            const int oy = top + i / tw * size, ox = i % tw * size;
            if (whole || at + SP_LANES <= g->co)
              sp_winograd_store_i8(g, size, put, sums, mf, start, y, z, oy, ox, at, SP_LANES, ep, e);
            else if (at < g->co)
              sp_winograd_store_i8(g, size, put, sums, mf, start, y, z, oy, ox, at, (int)(g->co - at),
                                   ep, e);
          }
        }
      }
    }
  }
}

/* The same of a layer that has its own code: sizes are literals. */
SP_INLINE void sp_winograd_i8_own(const sp_compact_i8 g, int size, int mr, int nv, int kc, int flip,
                                  int put, int whole, int panel_tasks, int block_tasks,
                                  const void *x, const int8_t *w, void *y, uint8_t *scratch,
                                  sp_ep_i32 ep, const void *const *e, int task) {
  sp_winograd_i8(&g, size, mr, nv, kc, flip, put, whole, panel_tasks, block_tasks, x, w, y, scratch,
                 ep, e, task);
}
#endif
