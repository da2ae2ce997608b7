/* Depthwise 2-D convolution of 8- or 16-bit codes, exact, where the widest sum of products is one over pairs of
 * halves (sp_dot2_i32). Included after isa/<isa>.h; all fields of sp_depthwise_pairs are literals in emitted
 * code. Every two rows of the image that are multiplied together are interleaved and widened to a line of
 * scratch, once for all that read it and with their padding: then tiles have no edges, and all that their
 * sums take are loads, products and additions.
 *   x, init, y  as in depthwise_i8.h; where `wide`, x holds int16, and its distances are in bytes
 *   w      halves [vectors][rq][kw][ro][SP_LANES][2], zero padded, by depthwise_pairs_i8.pack()
 *   lines  scratch of a block: halves [nv][lines][(ow - 1) * sw + (kw - 1) * dw + 1][SP_LANES][2] */
#ifndef SP_DEPTHWISE_PAIRS_I8_H
#define SP_DEPTHWISE_PAIRS_I8_H
#include "../base.h"
#include "epilogue.h"

#define SP_DEPTHWISE_PAIRS_MAX 16 /* accumulators of a tile, ro * mr */
#define SP_DEPTHWISE_VECTORS 4    /* of a block at most */

/* Tiles: ro output rows x mr pixels x 1 vector; mr is at most ow. rq lines cover the rows that a tile
 * reads. Blocks: rb rows, a multiple of ro, of nv vectors, whose bytes of a pixel come with one line of
 * the cache. flip: bytes of x are unsigned. pad: byte of the padding, as a signed one. Task grid: batch x
 * ceil(oh / task_h) rows x ceil(vectors / task_c); task_h is a multiple of ro. */
typedef struct sp_depthwise_pairs {
  int batch, ih, iw, c, oh, ow;
  int kh, kw, sh, sw, dh, dw, pt, pl;
  ptrdiff_t xn, xh, xw, ldy;
  int wide, flip, pad, put;
  int ro, rq, mr, nv, rb, task_h, task_c;
} sp_depthwise_pairs;

/* Lines from a tile's first to that of the tile below: of whole pairs of rows they share the others. */
SP_INLINE int sp_depthwise_step_i8(const sp_depthwise_pairs p) {
  return p.dh == 1 && p.ro * p.sh % 2 == 0 ? (int)sp_imin(p.ro * p.sh / 2, p.rq) : p.rq;
}

/* Bytes from the first channel of a pixel to channel c. */
SP_INLINE ptrdiff_t sp_depthwise_channel_i8(const sp_depthwise_pairs p, ptrdiff_t c) {
  return p.wide ? 2 * c : c;
}

/* n channels of two rows, in pairs of halves. */
SP_INLINE sp_i32 sp_depthwise_zip_i16(const uint8_t *p, const uint8_t *q, int n) {
  const sp_i32 low = sp_loadn_i16((const int16_t *)(const void *)p, n);
  const sp_i32 high = sp_loadn_i16((const int16_t *)(const void *)q, n);
  return sp_or_i32(sp_and_i32(low, sp_set1_i32(0xffff)), sp_shl_i32(high, 16));
}

SP_INLINE int sp_depthwise_width_i8(const sp_depthwise_pairs p) {
  return (p.ow - 1) * p.sw + (p.kw - 1) * p.dw + 1;
}

/* Rows iy and iy + dh of nv vectors, the last of n channels, whose lines are `apart`. Of rows behind
 * `last`, which no sum needs, nothing is read. */
SP_INLINE void sp_depthwise_line_i8(const sp_depthwise_pairs p, const uint8_t *x, int iy, int last, int nv,
                                    int n, int8_t *line, ptrdiff_t apart) {
  const ptrdiff_t pair = 4 * SP_LANES;
  const int width = sp_depthwise_width_i8(p);
  const int left = (int)sp_imin(width, p.pl), there = (int)sp_imin(width, p.pl + p.iw);
  const sp_i32 other = sp_set1_i32(p.flip ? (int32_t)0xff80ff80u : 0); /* of bytes that were widened */
  const uint32_t half = (uint32_t)p.pad & 255, wide = (half ^ 128) - 128;
  const sp_i32 pads = sp_set1_i32((int32_t)((wide & 0xffff) | wide << 16));
  uint8_t outside[2 * SP_DEPTHWISE_VECTORS * SP_LANES];
  const uint8_t *from[2];
  ptrdiff_t to[2];
  SP_UNROLL
  for (int i = 0; i < sp_depthwise_channel_i8(p, nv * SP_LANES); ++i)
    outside[i] = (uint8_t)(p.flip ? half ^ 128 : half);
  SP_UNROLL
  for (int i = 0; i < 2; ++i, iy += p.dh) {
    const int inside = iy >= 0 && iy < p.ih && iy <= last;
    from[i] = inside ? x + iy * p.xh : outside;
    to[i] = inside ? p.xw : 0;
  }
  for (int v = 0; v < nv; ++v) {
    for (int j = 0; j < left; ++j) sp_storeq_i32(line + v * apart + j * pair, pads);
    for (int j = there; j < width; ++j) sp_storeq_i32(line + v * apart + j * pair, pads);
  }
  for (int j = left; j < there; ++j, from[0] += to[0], from[1] += to[1]) {
    SP_UNROLL
    for (int v = 0; v < nv; ++v) {
      const ptrdiff_t c = sp_depthwise_channel_i8(p, v * SP_LANES);
      const int lanes = v + 1 < nv ? SP_LANES : n;
      const sp_i32 two = p.wide ? sp_depthwise_zip_i16(from[0] + c, from[1] + c, lanes)
                                : sp_zip2_i8(from[0] + c, from[1] + c, lanes);
      sp_storeq_i32(line + v * apart + j * pair, sp_xor_i32(two, other));
    }
  }
}

/* taps of a line for `rows` rows of mr pixels; column is where the first pixel begins to read. */
SP_INLINE void sp_depthwise_pairs_taps_i8(const sp_depthwise_pairs p, int rows, int taps,
                                          const int8_t *column, const int8_t *w, sp_i32 *acc) {
  const ptrdiff_t pair = 4 * SP_LANES;
  SP_UNROLL
  for (int kx = 0; kx < taps; ++kx) {
    SP_UNROLL
    for (int i = 0; i < p.mr; ++i) {
      const sp_i32 v = sp_loadq_i32(column + (i * p.sw + kx * p.dw) * pair);
      SP_UNROLL
      for (int o = 0; o < rows; ++o) {
        sp_i32 *const sum = acc + o * p.mr + i;
        *sum = sp_dot2_i32(*sum, v, sp_loadq_i32(w + (kx * p.ro + o) * pair));
      }
    }
  }
}

/* `rows` rows x mr pixels of n channels from pixel `first` of the image; lines is where it begins to read. */
SP_INLINE void sp_depthwise_pairs_tile_i8(const sp_depthwise_pairs p, int rows, const int8_t *lines,
                                          const int8_t *w, const int32_t *init, void *y, ptrdiff_t at,
                                          ptrdiff_t first, ptrdiff_t row, ptrdiff_t col, int n,
                                          sp_ep_i32 ep, const void *const *e) {
  const ptrdiff_t pair = 4 * SP_LANES, line = sp_depthwise_width_i8(p) * pair;
  const int most = p.kw > 7 ? 4 : p.kw, rest = p.kw % most;
  sp_i32 acc[SP_DEPTHWISE_PAIRS_MAX];
  const sp_i32 start = sp_load_i32(init);
  SP_UNROLL
  for (int i = 0; i < rows * p.mr; ++i) acc[i] = start;
  SP_ROLLED /* else sums leave the registers */
  for (int q = 0; 2 * q < (rows - 1) * p.sh + p.kh; ++q, lines += line) {
    int k = 0;
    for (; k + most <= p.kw; k += most, w += most * p.ro * pair)
      sp_depthwise_pairs_taps_i8(p, rows, most, lines + k * p.dw * pair, w, acc);
    if (rest) sp_depthwise_pairs_taps_i8(p, rows, rest, lines + k * p.dw * pair, w, acc);
    w += rest * p.ro * pair;
  }
  /* as in sp_tile_run_i8, all epilogues before the first store */
  SP_UNROLL
  for (int i = 0; i < rows * p.mr; ++i)
    acc[i] = ep(acc[i], e, row + first + i / p.mr * p.ow + i % p.mr, col, n);
  SP_UNROLL
  for (int o = 0; o < rows; ++o)
    sp_put_pixels(p.put, y, at + (first + o * p.ow) * p.ldy, p.ldy, acc + o * p.mr, p.mr, n);
}

/* Output rows [oy, oe) of nv vectors, the last of n channels. */
SP_INLINE void sp_depthwise_pairs_block_i8(const sp_depthwise_pairs p, const uint8_t *x, const int8_t *w,
                                           const int32_t *init, int8_t *lines, void *y, ptrdiff_t at,
                                           int oy, int oe, ptrdiff_t row, ptrdiff_t col, int nv, int n,
                                           sp_ep_i32 ep, const void *const *e) {
  const int step = sp_depthwise_step_i8(p), count = ((oe - oy - 1) / p.ro) * step + p.rq;
  const int top = oy * p.sh - p.pt, last = (oe - 1) * p.sh - p.pt + (p.kh - 1) * p.dh;
  const ptrdiff_t pair = 4 * SP_LANES, line = sp_depthwise_width_i8(p) * pair;
  for (int l = 0; l < count; ++l)
    sp_depthwise_line_i8(p, x, top + l / step * p.ro * p.sh + l % step * 2 * p.dh, last, nv, n,
                         lines + l * line, count * line);
  for (int v = 0; v < nv; ++v, lines += count * line, w += p.rq * p.kw * p.ro * pair, init += SP_LANES) {
    const int lanes = v + 1 < nv ? SP_LANES : n;
    const ptrdiff_t c = v * SP_LANES;
    for (int o = oy; o < oe; o += p.ro) {
      for (int i = 0; i < p.ow; i += p.mr) {
        /* the last tile ends with the row, and computes again what both have */
        const int ox = (int)sp_imin(i, p.ow - p.mr);
        const int8_t *from = lines + (o - oy) / p.ro * step * line + ox * p.sw * pair;
        const ptrdiff_t first = (ptrdiff_t)o * p.ow + ox;
        if (p.ro == 1 || o + p.ro <= oe)
          sp_depthwise_pairs_tile_i8(p, p.ro, from, w, init, y, at + c, first, row, col + c, lanes, ep, e);
        else
          sp_depthwise_pairs_tile_i8(p, 1, from, w, init, y, at + c, first, row, col + c, lanes, ep, e);
      }
    }
  }
}

SP_INLINE void sp_depthwise_pairs_i8_run(const sp_depthwise_pairs p, const void *x, const int8_t *w,
                                         const int32_t *init, void *y, uint8_t *lines, sp_ep_i32 ep,
                                         const void *const *e, int task) {
  const int vectors = (p.c + SP_LANES - 1) / SP_LANES;
  const int tc = (vectors + p.task_c - 1) / p.task_c, th = (p.oh + p.task_h - 1) / p.task_h;
  const int j0 = task % tc * p.task_c, oy0 = task / tc % th * p.task_h, z = task / (tc * th);
  const int j1 = (int)sp_imin(j0 + p.task_c, vectors), oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);
  const ptrdiff_t row = (ptrdiff_t)z * p.oh * p.ow, wv = (ptrdiff_t)p.rq * p.kw * p.ro * 4 * SP_LANES;
  const uint8_t *const from = (const uint8_t *)x + z * p.xn;
  int8_t *const to = (int8_t *)lines;
  for (int oy = oy0; oy < oy1; oy += p.rb) {
    const int oe = (int)sp_imin(oy + p.rb, oy1);
    for (int j = j0, nv = p.nv; j < j1; j += nv) {
      const ptrdiff_t c = (ptrdiff_t)j * SP_LANES, at = row * p.ldy + c, left = p.c - c;
      const uint8_t *const here = from + sp_depthwise_channel_i8(p, c);
      if (p.nv > 1 && (j + p.nv > j1 || left < p.nv * SP_LANES)) nv = 1;
      if (p.nv > 1 && nv > 1)
        sp_depthwise_pairs_block_i8(p, here, w + j * wv, init + c, to, y, at, oy, oe, row, c, p.nv,
                                    SP_LANES, ep, e);
      else if (p.c % SP_LANES && left < SP_LANES)
        sp_depthwise_pairs_block_i8(p, here, w + j * wv, init + c, to, y, at, oy, oe, row, c, 1,
                                    p.c % SP_LANES, ep, e);
      else if (p.nv == 1 || p.c / SP_LANES % p.nv || p.task_c % p.nv)
        sp_depthwise_pairs_block_i8(p, here, w + j * wv, init + c, to, y, at, oy, oe, row, c, 1,
                                    SP_LANES, ep, e);
    }
  }
}
#endif
