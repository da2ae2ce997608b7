/* Tile of the matrix kernels in matrix registers: mr pixels x nv vectors of output channels, up to four
 * registers of sums; for instruction sets that define SP_MATRIX. */
#ifndef SP_TILE_MATRIX_H
#define SP_TILE_MATRIX_H
#include "tile_i8.h"

#if SP_MATRIX

#define SP_MATRIX_PIXELS 64 /* of a tile, at most */

/* Where sums of four vectors begin that begin with nothing. */
SP_ALIGN(64) SP_CONST int32_t sp_matrix_none[4 * SP_LANES] = {0};

/* Blocks of at most 16 pixels that a tile's are split into, and pixels of all but the last. */
SP_INLINE int sp_matrix_blocks(int mr) { return (mr + 15) / 16; }
SP_INLINE int sp_matrix_rows(int mr) {
  const int blocks = sp_matrix_blocks(mr);
  return (mr + blocks - 1) / blocks;
}

/* Shapes the registers for tiles of mr x nv whose steps take so many quads. */
SP_INLINE void sp_tile_matrix_shape(int mr, int nv, int quads) {
  const int blocks = sp_matrix_blocks(mr), rows = sp_matrix_rows(mr);
  sp_matrix_shape(blocks, nv, rows, mr - (blocks - 1) * rows, quads);
}

/* The products of one step: t.matrix quads of each pixel and vector. */
SP_INLINE void sp_tile_matrix_step(const sp_tile_i8 t, const uint8_t *a, const int8_t *b) {
  const int blocks = sp_matrix_blocks(t.mr), rows = sp_matrix_rows(t.mr);
  SP_UNROLL
  for (int i = 0; i < blocks && blocks < 3; ++i)
    sp_matrix_load(i == blocks - 1 ? 5 : 4, a + i * rows * t.xp, t.xp);
  SP_UNROLL
  for (int v = 0; v < t.nv; ++v) {
    if (t.stream)
      sp_matrix_stream(6 + v % 2, b + v * t.bv, t.quad);
    else
      sp_matrix_load(6 + v % 2, b + v * t.bv, t.quad);
    SP_UNROLL
    for (int i = 0; i < blocks; ++i) {
      const int pixels = i == blocks - 1 ? 5 : 4;
      if (blocks >= 3) sp_matrix_load(pixels, a + i * rows * t.xp, t.xp);
      sp_matrix_dot(t.kind, i * t.nv + v, pixels, 6 + v % 2);
    }
  }
}

/* Sums in memory, mr rows of nv vectors, whose epilogue is between the products of the next tile;
 * `done` pixels have had it. */
typedef struct sp_matrix_former {
  const int32_t *sums;
  void *y;
  ptrdiff_t at, row, col;
  int n, done;
  sp_ep_i32 ep;
  const void *const *e;
} sp_matrix_former;

SP_INLINE void sp_tile_matrix_some(const sp_tile_i8 t, sp_matrix_former *f, int pixels);

/* The sums of a tile, mr rows of nv vectors that are `ld` sums apart. `former`, where not NULL, gets its
 * epilogue meanwhile, of whole times so many pixels. */
SP_INLINE void sp_tile_matrix_sums(const sp_tile_i8 t, const uint8_t *x, const int8_t *w,
                                   const int32_t *init, int32_t *sums, ptrdiff_t ld,
                                   sp_matrix_former *former) {
  const int blocks = sp_matrix_blocks(t.mr), rows = sp_matrix_rows(t.mr);
  const int steps = t.kq / t.matrix, all = t.kh * t.runs * steps;
  const int each = 8 / t.nv, whole = t.mr / each * each;
  const int now = (whole / each + all - 1) / all * each;
  SP_UNROLL
  for (int c = 0; c < blocks * t.nv; ++c)
    sp_matrix_load(c, init + c % t.nv * SP_LANES, 0);
  SP_ROLLED
  for (int ky = 0; ky < t.kh; ++ky, x += t.xr) {
    const uint8_t *run = x;
    SP_ROLLED
    for (int r = 0; r < t.runs; ++r, run += t.xt) {
      const uint8_t *a = run;
      SP_ROLLED
      for (int s = 0; s < steps; ++s, a += 4 * t.matrix, w += t.matrix * t.quad) {
        sp_tile_matrix_step(t, a, w);
        if (former == NULL) continue;
        const int end = (int)sp_imin(former->done + now, whole);
        SP_ROLLED
        while (former->done < end) sp_tile_matrix_some(t, former, each);
      }
    }
  }
  if (former != NULL && former->done < t.mr) sp_tile_matrix_some(t, former, t.mr - whole);
  SP_UNROLL
  for (int c = 0; c < blocks * t.nv; ++c)
    sp_matrix_store(c, sums + c / t.nv * rows * ld + c % t.nv * SP_LANES,
                    ld * (ptrdiff_t)sizeof(int32_t));
}

/* sp_tile_end_i8 of sums whose bits acc holds. */
SP_INLINE void sp_tile_end_bf16(const sp_tile_i8 t, sp_i32 *acc, void *y, ptrdiff_t at, ptrdiff_t row,
                                ptrdiff_t col, int n, sp_ep_f32 ep, const void *const *e) {
  SP_UNROLL
  for (int k = 0; k < t.mr * t.nv; ++k) {
    const int v = k % t.nv, lanes = v == t.nv - 1 ? n : SP_LANES;
    const sp_f32 sum = sp_from_bits_f32(acc[k]);
    acc[k] = sp_bits_f32(ep(sum, e, row + k / t.nv, col + v * SP_LANES, lanes));
  }
  SP_UNROLL
  for (int k = 0; k < t.mr * t.nv; ++k) {
    const int v = k % t.nv, lanes = v == t.nv - 1 ? n : SP_LANES;
    sp_put_out(t.put == SP_PUT_I16, y, at + k / t.nv * t.ldy + v * SP_LANES,
               sp_from_bits_f32(acc[k]), lanes);
  }
}

/* The epilogue of pixels [i0, i1), `mr` at a time. */
SP_INLINE void sp_tile_matrix_end(sp_tile_i8 t, int mr, int i0, int i1, const int32_t *sums, void *y,
                                  ptrdiff_t at, ptrdiff_t row, ptrdiff_t col, int n, sp_ep_i32 ep,
                                  const void *const *e) {
  t.mr = mr;
  SP_ROLLED
  for (int i = i0; i < i1; i += mr) {
    sp_i32 acc[SP_TILE_I8_MAX];
    SP_UNROLL
    for (int k = 0; k < mr * t.nv; ++k) acc[k] = sp_load_i32(sums + (i * t.nv + k) * SP_LANES);
    if (t.kind == SP_MATRIX_BF16)
      sp_tile_end_bf16(t, acc, y, at + i * t.ldy, row + i, col, n, (sp_ep_f32)(void (*)(void))ep, e);
    else
      sp_tile_end_i8(t, acc, y, at + i * t.ldy, row + i, col, n, ep, e);
  }
}

/* The same of a tile of the pixels of several rows in scratch, `flat` from one to the next, which begins
 * with pixel f; only the first `ow` of a row are there. */
SP_INLINE void sp_tile_matrix_flat(const sp_tile_i8 t, int flat, int ow, int f, int pixels,
                                   const uint8_t *x, const int8_t *w, const int32_t *init, void *y,
                                   ptrdiff_t at, ptrdiff_t row, ptrdiff_t col, int n, sp_ep_i32 ep,
                                   const void *const *e) {
  const int each = 8 / t.nv, stop = (int)sp_imin(t.mr, pixels - f);
  SP_ALIGN(64) int32_t sums[SP_MATRIX_PIXELS * SP_LANES];
  sp_tile_matrix_sums(t, x, w, init, sums, t.nv * SP_LANES, NULL);
  int oy = f / flat, ox = f % flat;
  for (int i = 0; i < stop; ++oy, ox = 0) {
    const int end = i + (int)sp_imax(0, sp_imin(ow - ox, stop - i));
    const int whole = i + (end - i) / each * each;
    const ptrdiff_t pixel = (ptrdiff_t)oy * ow + ox - i;
    sp_tile_matrix_end(t, each, i, whole, sums, y, at + pixel * t.ldy, row + pixel, col, n, ep, e);
    sp_tile_matrix_end(t, 1, whole, end, sums, y, at + pixel * t.ldy, row + pixel, col, n, ep, e);
    i += flat - ox;
  }
}

/* The epilogue of so many pixels more. */
SP_INLINE void sp_tile_matrix_some(const sp_tile_i8 t, sp_matrix_former *f, int pixels) {
  const int i = f->done;
  sp_tile_matrix_end(t, pixels, i, i + pixels, f->sums, f->y, f->at, f->row, f->col, f->n, f->ep, f->e);
  f->done = i + pixels;
}

/* And of those that are left. */
SP_INLINE void sp_tile_matrix_finish(const sp_tile_i8 t, sp_matrix_former *f) {
  const int each = 8 / t.nv, whole = t.mr / each * each;
  SP_ROLLED
  while (f->done < whole) sp_tile_matrix_some(t, f, each);
  if (f->done < t.mr) sp_tile_matrix_some(t, f, t.mr - whole);
}
#endif
#endif
