/* 2-D convolution of 8- or 16-bit codes with int8 weights as an implicit matrix product, exact in int32.
 *   Y[n][oy][ox][o] = ep(init[o] + sum over ky, kx, c of
 *                        X[n][oy*sh - pt + ky*dh][ox*sw - pl + kx*dw][c] * W)
 * Included after isa/<isa>.h; all fields of sp_conv2d_i8 are literals in emitted code.
 *   x     element (n, y, x, c) at byte x[n * xn + y * xh + x * xw + c], signed or not
 *   w     int8 [groups][vectors][kh][runs][kq][SP_LANES][4], zero padded, by packing_i8.pack_conv(),
 *         1 for 4 where `pair` is SP_SINGLE, and octets for quads where SP_OCTETS;
 *         2 where SP_I16, and sizes of x are in bytes
 *         (first pairs of all lanes before second ones where SP_PAIRS_APART);
 *         where SP_TWOS, of each vector an sp_twos_i8, in a quad's room, and what that speaks of, which
 *         take kh x runs x kq quads of room together
 *         vectors = ceil(co / groups / SP_LANES); a run is a kernel row of a pixel, or one tap
 *   init  int32 [groups][vectors * SP_LANES]: bias less what the zero point of x adds
 *   y     pixel (n, oy, ox) at element ((n * oh + oy) * ow + ox) * ldy; must not alias x or w.
 *         Its channels are adjacent, or where `part`, in parts of so many, ldp elements apart
 * Where `band`, rows are first copied into scratch with their padding: bytes between quads and in the
 * pads are then there, and are what sp_dot4_i32 takes. Otherwise x is read where it lies: channels are
 * whole quads and there are no pads. compact_i8.h copies rows as halves, where `pair` is 1. */
#ifndef SP_CONV2D_I8_H
#define SP_CONV2D_I8_H
#include "tile_i8.h"
#include "tile_matrix.h"

/* Tiles: mr pixels of one output row x nv vectors; where ro is 2, of two rows x one vector, which then
 * has all channels. Blocks of rb output rows x wb pixels are finished for all channels of the task
 * before the next. Task grid: batch x ceil(oh / task_h) rows x ceil(ow / task_w) pixels x groups x
 * ceil(vectors / task_n). flip: bytes of x are of the other kind than sp_dot4_i32 takes. pad: byte of
 * the padding, as it takes it. xr, xp, xt: bytes from a row of x, a pixel and a run to the next, in
 * scratch where band, which has `line` bytes a row. matrix: quads of a step where sums are matrix
 * registers', which multiply the bytes of `kind` as they are; kq is whole steps then, of which those
 * behind the channels meet zeros, and so does w. flat: pixels of a row of scratch where tiles run on
 * from row to row, whose steps are of one pixel. across: so many panels are multiplied with a tile of
 * pixels before the next, in matrix registers, while the epilogue of the former tile is computed; 0: of
 * one panel, and the epilogue follows each tile. between: of so many quads of a tile's first run each is
 * followed by a part of the epilogue of the former tile; 0: by none. */
typedef struct sp_conv2d_i8 {
  int batch, ih, iw, ci, oh, ow, co;
  int kh, kw, sh, sw, dh, dw, pt, pl, groups;
  ptrdiff_t xn, xh, xw, ldy, ldp;
  int part, each, fetch, between, band, pair, flip, pad, put;
  int tame, matrix, kind, flat, across, runs, kq;
  ptrdiff_t xr, xp, xt, line;
  int mr, nv, ro, rb, wb, task_h, task_w, task_n;
} sp_conv2d_i8;

SP_INLINE void sp_fill_i8(uint8_t *to, int n, int value) {
  for (int i = 0; i < n; ++i) to[i] = (uint8_t)value;
}

SP_INLINE void sp_fill_pairs(int16_t *to, int n, int value) {
  for (int i = 0; i < n; ++i) to[i] = (int16_t)value;
}

/* n elements of scratch from x, or n times `value`, a byte. */
SP_INLINE void sp_band_copy(const sp_conv2d_i8 p, uint8_t *to, const uint8_t *from, int n) {
  if (p.pair == 1)
    sp_copy_pairs((int16_t *)(void *)to, from, n, p.flip);
  else
    sp_copy_i8(to, from, n, p.flip);
}
SP_INLINE void sp_band_fill(const sp_conv2d_i8 p, uint8_t *to, int n, int value) {
  if (p.pair == 1)
    sp_fill_pairs((int16_t *)(void *)to, n, ((value & 255) ^ 128) - 128);
  else
    sp_fill_i8(to, n, value);
}

/* What output rows [oy0, oy1) x pixels [ox0, ox1) read, of the channels at x, to its place in
 * scratch. */
SP_INLINE void sp_conv2d_i8_band(const sp_conv2d_i8 p, const uint8_t *x, int oy0, int oy1, int ox0,
                                 int ox1, uint8_t *to) {
  const int c = p.ci / p.groups;
  const int each = p.pair == 1 ? 2 * c : c; /* bytes of a pixel */
  const int from = ox0 * p.sw;
  const int end = (ox1 - 1) * p.sw + (p.kw - 1) * p.dw + 1;
  const int rows = (oy1 - 1 - oy0) * p.sh + (p.kh - 1) * p.dh + 1;
  const int lo = (int)sp_imin(sp_imax(p.pl, from), end);
  const int hi = (int)sp_imin(sp_imax(p.pl + p.iw, lo), end);
  /* the last quad reads on into these */
  const int ahead = p.matrix ? 4 * p.matrix : 4;
  const int more = (int)(ox1 == p.ow ? p.line - end * each : sp_imin(p.line - end * each, ahead));
  for (int r = 0; r < rows; ++r, to += p.line) {
    const int iy = oy0 * p.sh - p.pt + r;
    if (iy < 0 || iy >= p.ih || hi <= lo) {
      sp_band_fill(p, to + from * each, (end - from) * c, p.pad);
    } else {
      const uint8_t *row = x + iy * p.xh + (lo - p.pl) * p.xw;
      sp_band_fill(p, to + from * each, (lo - from) * c, p.pad);
      if (p.xw == c) {
        sp_band_copy(p, to + lo * each, row, (hi - lo) * c);
      } else {
        for (int i = lo; i < hi; ++i) sp_band_copy(p, to + i * each, row + (i - lo) * p.xw, c);
      }
      sp_band_fill(p, to + hi * each, (end - hi) * c, p.pad);
    }
    sp_fill_i8(to + end * each, more, 0);
  }
}

/* A tile at a pixel of the image whose first element is `at`, and first row `row`. */
SP_INLINE void sp_conv2d_i8_tile(const sp_conv2d_i8 p, const sp_tile_i8 t, int rows,
                                 const uint8_t *x, const int8_t *w, const int32_t *init, void *y,
                                 ptrdiff_t at, ptrdiff_t pixel, ptrdiff_t row, ptrdiff_t col, int n,
                                 sp_ep_i32 ep, const void *const *e) {
  if (rows == 2)
    sp_tile_two_rows_i8(t, p.sh, p.ow, x, w, init, y, at + pixel * p.ldy, row + pixel, col, n, ep,
                        e);
  else
    sp_tile_run_i8(t, x, w, init, y, at + pixel * p.ldy, row + pixel, col, n, ep, e);
}

/* A tile of nv vectors. */
SP_INLINE sp_tile_i8 sp_conv2d_i8_tile_of(const sp_conv2d_i8 p, int nv) {
  const ptrdiff_t quad = (ptrdiff_t)sp_bytes_at_once(p.pair) * SP_LANES;
  const ptrdiff_t run = sp_tile_quads(SP_OCTETS, p.kq) * quad;
  const sp_tile_i8 t = {.mr = p.mr, .nv = nv, .kh = p.kh, .runs = p.runs, .kq = p.kq,
                        .xr = p.dh * p.xr, .xt = p.xt, .xp = p.sw * p.xp,
                        .bv = p.kh * p.runs * run, .quad = quad, .flip = !p.band && p.flip,
                        .put = p.put, .ldy = p.ldy, .pair = p.pair, .tame = p.tame,
                        .own = 1, .apart = SP_PAIRS_APART, .octets = SP_OCTETS,
                        .part = p.part, .ldp = p.ldp, .matrix = p.matrix, .kind = p.kind,
                        .each = p.each, .fetch = p.fetch, .stream = p.across > 1};
  return t;
}

/* Pixels of the last tile of a row, 0 where it is as the others. */
SP_INLINE int sp_conv2d_i8_rest(const sp_conv2d_i8 p) {
  return (p.ow % p.wb ? p.ow % p.wb : p.wb) % p.mr;
}

#ifndef SP_RUNS
/* What sp_conv2d_i8_panel does where epilogues are computed between the sums of the next tile. Before the
 * first tile there is none: its place takes what no sums become, and then what its own do. */
SP_INLINE void sp_conv2d_i8_between(const sp_conv2d_i8 p, const sp_tile_i8 t, int n,
                                    const uint8_t *x, const int8_t *w, const int32_t *init, void *y,
                                    ptrdiff_t at, int oy0, int oy1, int ox0, int ox1, ptrdiff_t row,
                                    ptrdiff_t col, sp_ep_i32 ep, const void *const *e) {
  const int tail = (ox1 - ox0) % p.mr, end = ox1 - tail;
  sp_tile_i8 rest = t;
  sp_former_i8 former;
  rest.mr = sp_conv2d_i8_rest(p);
  for (int oy = oy0; oy < oy1; ++oy) {
    const uint8_t *xr = x + (ptrdiff_t)(oy - oy0) * p.sh * p.xr;
    const ptrdiff_t left = (ptrdiff_t)oy * p.ow;
    if (oy == oy0 || tail) {
      sp_tile_begin_i8(t, init, former.acc);
      former.at = at + (left + ox0) * p.ldy;
      former.row = row + left + ox0;
    }
    for (int ox = ox0; ox < end; ox += p.mr)
      sp_tile_next_i8(t, p.between, xr + ox * t.xp, w, init, y, at + (left + ox) * p.ldy,
                      row + left + ox, col, n, &former, ep, e);
    if (ox0 < end && (tail || oy + 1 == oy1))
      sp_tile_end_i8(t, former.acc, y, former.at, former.row, col, n, ep, e);
    if (rest.mr > 0 && tail) /* wb is a multiple of mr: only the last block has one */
      sp_conv2d_i8_tile(p, rest, 1, xr + end * t.xp, w, init, y, at, left + end, row, col, n, ep, e);
  }
}
#endif

/* Rows [oy0, oy1) x pixels [ox0, ox1) of nv vectors; x is where output row oy0, pixel 0 begins to
 * read. */
SP_INLINE void sp_conv2d_i8_panel(const sp_conv2d_i8 p, int nv, int n, const uint8_t *x,
                                  const int8_t *w, const int32_t *init, void *y, ptrdiff_t at,
                                  int oy0, int oy1, int ox0, int ox1, ptrdiff_t row, ptrdiff_t col,
                                  sp_ep_i32 ep, const void *const *e) {
  const sp_tile_i8 t = sp_conv2d_i8_tile_of(p, nv);
  sp_tile_i8 tail = t;
  tail.mr = sp_conv2d_i8_rest(p);
#ifndef SP_RUNS
  if (p.between && !sp_reaches_across_i8(t, col, n)) {
    sp_conv2d_i8_between(p, t, n, x, w, init, y, at, oy0, oy1, ox0, ox1, row, col, ep, e);
    return;
  }
#endif
  for (int oy = oy0, rows; oy < oy1; oy += rows) {
    const uint8_t *xr = x + (ptrdiff_t)(oy - oy0) * p.sh * p.xr;
    rows = p.ro == 2 && oy + 1 < oy1 ? 2 : 1;
    int ox = ox0;
    for (; ox + p.mr <= ox1; ox += p.mr)
      sp_conv2d_i8_tile(p, t, rows, xr + ox * t.xp, w, init, y, at, (ptrdiff_t)oy * p.ow + ox, row,
                        col, n, ep, e);
    /* wb is a multiple of mr: only the last block has a tail */
    if (tail.mr > 0 && ox < ox1)
      sp_conv2d_i8_tile(p, tail, rows, xr + ox * t.xp, w, init, y, at, (ptrdiff_t)oy * p.ow + ox,
                        row, col, n, ep, e);
  }
}

#if SP_MATRIX
/* Whole tiles of pixels [ox0, ox1) of the rows and of so many panels, one after the other. */
SP_INLINE void sp_conv2d_matrix_tiles(const sp_conv2d_i8 p, const sp_tile_i8 t, int panels, int n,
                                      const uint8_t *x, const int8_t *w, const int32_t *init,
                                      void *y, ptrdiff_t at, int oy0, int oy1, int ox0, int ox1,
                                      ptrdiff_t row, ptrdiff_t col, sp_ep_i32 ep,
                                      const void *const *e) {
  SP_ALIGN(64) int32_t sums[2][SP_MATRIX_PIXELS * SP_LANES];
  const int width = t.nv * SP_LANES, alone = p.across == 0, group = alone ? 1 : p.across;
  if (t.mr == 0 || ox0 == ox1) return;
  sp_matrix_former former = {.y = y, .n = n, .done = t.mr, .ep = ep, .e = e};
  int next = 0;
  sp_tile_matrix_shape(t.mr, t.nv, t.matrix);
  for (int j0 = 0; j0 < panels; j0 += group) {
    const int j1 = (int)sp_imin(j0 + group, panels);
    for (int oy = oy0; oy < oy1; ++oy) {
      const uint8_t *xr = x + (ptrdiff_t)(oy - oy0) * p.sh * p.xr;
      for (int ox = ox0; ox < ox1; ox += t.mr) {
        const ptrdiff_t pixel = (ptrdiff_t)oy * p.ow + ox;
        for (int j = j0; j < j1; ++j, next ^= !alone) {
          const ptrdiff_t to = at + pixel * p.ldy + (p.part ? 0 : j * width);
          if (t.fetch) sp_tile_fetch_i8(t, y, to, col + j * width);
          sp_tile_matrix_sums(t, xr + ox * t.xp, w + j * t.nv * t.bv, init + j * width, sums[next],
                              width, alone ? NULL : &former);
          former.sums = sums[next];
          former.at = to;
          former.row = row + pixel;
          former.col = col + j * width;
          former.done = 0;
          if (alone) sp_tile_matrix_finish(t, &former);
        }
      }
    }
  }
  sp_tile_matrix_finish(t, &former);
}

/* Rows [oy0, oy1) x pixels [ox0, ox1) of panels of nv vectors: all whole tiles before the rests, which
 * registers change their shape for. */
SP_INLINE void sp_conv2d_matrix_panels(const sp_conv2d_i8 p, int nv, int panels, int n,
                                       const uint8_t *x, const int8_t *w, const int32_t *init,
                                       void *y, ptrdiff_t at, int oy0, int oy1, int ox0, int ox1,
                                       ptrdiff_t row, ptrdiff_t col, sp_ep_i32 ep,
                                       const void *const *e) {
  const sp_tile_i8 t = sp_conv2d_i8_tile_of(p, nv);
  if (p.flat) {
    const int pixels = (oy1 - oy0 - 1) * p.flat + p.ow;
    const ptrdiff_t first = (ptrdiff_t)oy0 * p.ow;
    sp_tile_matrix_shape(t.mr, t.nv, t.matrix);
    for (int j = 0; j < panels; ++j) {
      const int to = j * nv * SP_LANES;
      for (int f = 0; f < pixels; f += p.mr)
        sp_tile_matrix_flat(t, p.flat, p.ow, f, pixels, x + f * t.xp, w + j * nv * t.bv, init + to, y,
                            at + first * p.ldy + (p.part ? 0 : to), row + first, col + to, n, ep, e);
    }
    return;
  }
  sp_tile_i8 tail = t;
  tail.mr = sp_conv2d_i8_rest(p);
  const int end = ox0 + (ox1 - ox0) / p.mr * p.mr;
  sp_conv2d_matrix_tiles(p, t, panels, n, x, w, init, y, at, oy0, oy1, ox0, end, row, col, ep, e);
  sp_conv2d_matrix_tiles(p, tail, panels, n, x, w, init, y, at, oy0, oy1, end, ox1, row, col, ep, e);
}
#endif

SP_INLINE void sp_conv2d_i8_run(const sp_conv2d_i8 p, const void *x, const int8_t *w,
                                const int32_t *init, void *y, uint8_t *scratch, sp_ep_i32 ep,
                                const void *const *e, int task) {
  const int ci = p.ci / p.groups;
  const int co = p.co / p.groups;
  const int vectors = (co + SP_LANES - 1) / SP_LANES;
  const int tn = (vectors + p.task_n - 1) / p.task_n;
  const int tw = (p.ow + p.task_w - 1) / p.task_w;
  const int th = (p.oh + p.task_h - 1) / p.task_h;
  const int j0 = task % tn * p.task_n;
  const int g = task / tn % p.groups;
  const int ox0 = task / (tn * p.groups) % tw * p.task_w;
  const int oy0 = task / (tn * p.groups * tw) % th * p.task_h;
  const int z = task / (tn * p.groups * tw * th);
  const int j1 = (int)sp_imin(j0 + p.task_n, vectors);
  const int oy1 = (int)sp_imin(oy0 + p.task_h, p.oh);
  const int ox1 = (int)sp_imin(ox0 + p.task_w, p.ow);
  const int full = co / SP_LANES / p.nv * p.nv;
  const int rest = co - full * SP_LANES;
  const int last = (rest + SP_LANES - 1) / SP_LANES;
  const ptrdiff_t bv = (ptrdiff_t)p.kh * p.runs * sp_tile_quads(SP_OCTETS, p.kq) *
                       sp_bytes_at_once(p.pair) * SP_LANES;
  const ptrdiff_t row = (ptrdiff_t)z * p.oh * p.ow;
  const ptrdiff_t at = row * p.ldy + g * co;
  const uint8_t *xg = (const uint8_t *)x + z * p.xn + g * ci;
  const int8_t *wg = w + g * vectors * bv;
  const int32_t *ig = init + (ptrdiff_t)g * vectors * SP_LANES;
  for (int oy = oy0; oy < oy1; oy += p.rb) {
    const int oe = (int)sp_imin(oy + p.rb, oy1);
    const uint8_t *xb = xg + (ptrdiff_t)oy * p.sh * p.xr;
    if (p.band) {
      sp_conv2d_i8_band(p, xg, oy, oe, ox0, ox1, scratch);
      xb = scratch;
    }
    for (int ox = ox0; ox < ox1; ox += p.wb) {
      const int xe = (int)sp_imin(ox + p.wb, ox1);
      const int end = (int)sp_imin(j1, full);
#if SP_MATRIX
      if (p.matrix) {
        if (j0 < end)
          sp_conv2d_matrix_panels(p, p.nv, (end - j0) / p.nv, SP_LANES, xb, wg + j0 * bv,
                                  ig + j0 * SP_LANES, y, at + (p.part ? 0 : j0 * SP_LANES), oy, oe,
                                  ox, xe, row, g * co + j0 * SP_LANES, ep, e);
        if (last > 0 && j1 > full)
          sp_conv2d_matrix_panels(p, last, 1, rest - (last - 1) * SP_LANES, xb, wg + full * bv,
                                  ig + full * SP_LANES, y, at + (p.part ? 0 : full * SP_LANES), oy,
                                  oe, ox, xe, row, g * co + full * SP_LANES, ep, e);
        continue;
      }
#endif
      for (int j = j0; j < end; j += p.nv)
        sp_conv2d_i8_panel(p, p.nv, SP_LANES, xb, wg + j * bv, ig + j * SP_LANES, y,
                           at + (p.part ? 0 : j * SP_LANES), oy, oe, ox, xe, row, g * co + j * SP_LANES, ep, e);
      if (last > 0 && j1 > full)
        sp_conv2d_i8_panel(p, last, rest - (last - 1) * SP_LANES, xb, wg + full * bv,
                           ig + full * SP_LANES, y, at + (p.part ? 0 : full * SP_LANES), oy, oe, ox, xe, row,
                           g * co + full * SP_LANES, ep, e);
    }
  }
#if SP_MATRIX
  if (p.matrix) sp_matrix_release();
#endif
}

/* Where x is read where it lies. */
SP_INLINE void sp_conv2d_i8_direct(const sp_conv2d_i8 p, const void *x, const int8_t *w,
                                   const int32_t *init, void *y, sp_ep_i32 ep,
                                   const void *const *e, int task) {
  sp_conv2d_i8_run(p, x, w, init, y, NULL, ep, e, task);
}

#if SP_MATRIX
/* Of bfloat16, whose sums begin with floats. ci, xn, xh and xw count bytes, co and ldy elements. */
SP_INLINE void sp_conv2d_bf16_run(const sp_conv2d_i8 p, const void *x, const int8_t *w,
                                  const float *init, void *y, uint8_t *scratch, sp_ep_f32 ep,
                                  const void *const *e, int task) {
  sp_conv2d_i8_run(p, x, w, (const int32_t *)(const void *)init, y, scratch,
                   (sp_ep_i32)(void (*)(void))ep, e, task);
}
SP_INLINE void sp_conv2d_bf16_direct(const sp_conv2d_i8 p, const void *x, const int8_t *w,
                                     const float *init, void *y, sp_ep_f32 ep,
                                     const void *const *e, int task) {
  sp_conv2d_bf16_run(p, x, w, init, y, NULL, ep, e, task);
}
#endif
#endif
