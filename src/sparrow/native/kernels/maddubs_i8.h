/* Convolutions of 8-bit codes whose products are added by twos in 16 bits (sp_maddubs_i32), for engines
 * that have no sum of four: 16 products in three instructions, or in two and a half where the twos of
 * two quads fit together. Included after isa/<isa>.h. Sizes are known at run time, as in compact_i8.h.
 *   x, y, scratch  as there, unsigned bytes
 *   w  for each group, for each vector of channels an sp_maddubs_i8; then int32 [groups][vectors]
 *      [SP_LANES], where sums begin; then what those structs speak of, quads of a vector in steps:
 *        both    two quads whose twos fit in 16 bits together: int8 [2][SP_LANES][4]
 *        one     likewise where bytes of the second are turned (255 minus them, the weight negated):
 *                two of these and the mask of what is turned
 *        two     of both: and two masks
 *        single  a quad and its mask
 *      and behind them, for each quad in this order, uint16 bytes from the first one of a pixel to it
 * mr, whole, band, flip and put are literals; mr is at most ow. Where `whole`, groups are whole vectors.
 * Task grid: batch x groups x parts x ceil(oh / rb) rows; a part has `panels` vectors, all where it is
 * 0. */
#ifndef SP_MADDUBS_I8_H
#define SP_MADDUBS_I8_H
#include "compact_i8.h"

typedef struct sp_maddubs_i8 {
  int32_t at, both, one, two, single; /* bytes from w to the weights; steps */
} sp_maddubs_i8;

/* Steps of one kind, `quads` of each, the last `masks` of which have bytes turned: mr pixels x one vector.
 * x is where the first pixel begins to read. */
SP_INLINE void sp_maddubs_steps_i8(int mr, int steps, int quads, int masks, const int8_t **weights,
                                   const uint16_t **places, const uint8_t *x, ptrdiff_t xp, sp_i32 ones,
                                   sp_i32 *acc) {
  const int8_t *w = *weights;
  const uint16_t *at = *places;
  SP_ROLLED
  for (int k = 0; k < steps; ++k, at += quads, w += 4 * SP_LANES * (quads + masks)) {
    const uint8_t *pixel[2];
    sp_i32 wv[2], turned[2];
    SP_OPAQUE(w);
    SP_UNROLL
    for (int q = 0; q < quads; ++q) {
      pixel[q] = x + at[q];
      SP_OPAQUE(pixel[q]);
      wv[q] = sp_loadq_i32(w + 4 * SP_LANES * q);
      if (q >= quads - masks) turned[q] = sp_loadq_i32(w + 4 * SP_LANES * (q + masks));
    }
    SP_UNROLL
    for (int i = 0; i < mr; ++i) {
      sp_i32 two[2];
      SP_UNROLL
      for (int q = 0; q < quads; ++q) {
        const sp_i32 quad = sp_set1_quad(pixel[q] + i * xp);
        two[q] = sp_maddubs_i32(wv[q], q < quads - masks ? quad : sp_xor_i32(quad, turned[q]));
      }
      acc[i] = sp_dot2_i32(acc[i], quads > 1 ? sp_addp_i32(two[0], two[1]) : two[0], ones);
      SP_IN_ORDER(acc[i]);
    }
  }
  *weights = w;
  *places = at;
}

SP_INLINE void sp_maddubs_sums_i8(int mr, const sp_maddubs_i8 *v, const int8_t *w, const uint8_t *x,
                                  ptrdiff_t xp, sp_i32 *acc) {
  const int vectors = 2 * v->both + 3 * v->one + 4 * v->two + 2 * v->single;
  sp_i32 ones = sp_set1_i32(0x00010001);
  SP_OPAQUE(ones); /* engines make a constant anew wherever it is named */
  w += v->at;
  const uint16_t *at = (const uint16_t *)(const void *)(w + (ptrdiff_t)vectors * 4 * SP_LANES);
  sp_maddubs_steps_i8(mr, v->both, 2, 0, &w, &at, x, xp, ones, acc);
  sp_maddubs_steps_i8(mr, v->one, 2, 1, &w, &at, x, xp, ones, acc);
  sp_maddubs_steps_i8(mr, v->two, 2, 2, &w, &at, x, xp, ones, acc);
  sp_maddubs_steps_i8(mr, v->single, 1, 1, &w, &at, x, xp, ones, acc);
}

SP_INLINE void sp_conv2d_maddubs_i8(const sp_compact_i8 *g, int mr, int whole, int band, int flip,
                                    int put, const void *x, const int8_t *w, void *y, uint8_t *scratch,
                                    sp_ep_i32 ep, const void *const *e, int task) {
  const int ci = g->ci / g->groups, co = g->co / g->groups;
  const int blocks = (g->oh + g->rb - 1) / g->rb, all = (co + SP_LANES - 1) / SP_LANES;
  const int parts = g->panels ? (all + g->panels - 1) / g->panels : 1;
  const int oy0 = task % blocks * g->rb, part = task / blocks % parts;
  const int group = task / blocks / parts % g->groups, z = task / blocks / parts / g->groups;
  const int rows = (int)sp_imin(g->rb, g->oh - oy0);
  const int stop = part < parts - 1 ? (part + 1) * g->panels : all;
  const ptrdiff_t xr = band ? sp_compact_i8_line(g, 0) : g->xh, xp = g->sw * (band ? ci : g->xw);
  const uint8_t *from = (const uint8_t *)x + (ptrdiff_t)z * g->xn + group * ci;
  const sp_maddubs_i8 *const steps = (const sp_maddubs_i8 *)(const void *)w;
  const int32_t *const init = (const int32_t *)(const void *)(steps + g->groups * all);
  const sp_tile_i8 t = {.mr = mr, .nv = 1, .put = put, .ldy = g->ldy};
  if (band) {
    sp_compact_i8_band(g, 0, flip, from, oy0, oy0 + rows, scratch);
    from = scratch;
  } else {
    from += oy0 * g->sh * xr;
  }
  for (int j = part * g->panels; j < stop; ++j) {
    const sp_maddubs_i8 *const v = steps + group * all + j;
    const int n = whole ? SP_LANES : (int)sp_imin(co - j * SP_LANES, SP_LANES);
    const ptrdiff_t col = (ptrdiff_t)group * co + j * SP_LANES;
    const uint8_t *a = from;
    ptrdiff_t first = ((ptrdiff_t)z * g->oh + oy0) * g->ow;
    for (int r = 0; r < rows; ++r, a += g->sh * xr, first += g->ow) {
      for (int i = 0; i < g->ow; i += mr) {
        /* the last tile ends with the row, and computes again what both have */
        const ptrdiff_t ox = sp_imin(i, g->ow - mr), row = first + ox;
        sp_i32 acc[SP_TILE_I8_MAX];
        sp_tile_begin_i8(t, init + (group * all + j) * SP_LANES, acc);
        sp_maddubs_sums_i8(mr, v, w, a + ox * xp, xp, acc);
        sp_tile_end_i8(t, acc, y, row * g->ldy + col, row, col, n, ep, e);
      }
    }
  }
}
#endif
