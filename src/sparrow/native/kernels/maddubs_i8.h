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
  int32_t at; /* bytes from w to the weights */
  sp_twos_i8 steps;
} sp_maddubs_i8;

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
        sp_twos_sums_i8(mr, 1, v->steps, w + v->at, a + ox * xp, xp, acc);
        sp_tile_end_i8(t, acc, y, row * g->ldy + col, row, col, n, ep, e);
      }
    }
  }
}
#endif
