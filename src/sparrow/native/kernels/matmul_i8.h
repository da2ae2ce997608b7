/* Products of two matrices of 8-bit codes that are both known at run time, exact in int32.
 *
 * b is packed block by block of columns, as weights are at build time (pack_i8.h), and stays in the
 * level-2 cache while all rows of a pass. Included after isa/<isa>.h. */
#ifndef SP_MATMUL_I8_H
#define SP_MATMUL_I8_H

#include "../base.h"
#include "pack_i8.h"

/* y[z][i][j] = epilogue(sum over k of (a[z][i][k] - zero_a) (b[z][k][j] - zero_b)). Every field is a
 * literal in emitted code.
 *   batch, heads    two axes of matrices z, with the strides *z and *h
 *   m, n, k         rows, columns, products of a sum
 *   as, ak          distances of rows of a and of codes in one
 *   bs, columns     distance of stored rows of b, which are columns of b where `columns`
 *   mr, nv          rows and vectors of one register tile
 *   block, task_n   vectors that are packed at once, and those of a task
 *   pair            SP_PAIRED where sums are taken by sp_dot2_i32 over halves, else 0
 *   flip_a, flip_b  bytes of the other kind than the product takes
 *   seen_a, zero_b  zero points as the product sees the bytes
 *   sign_a, zero_a  whether codes of a have a sign, and their zero point
 *   direct          rows of a are read where they lie: dense whole quads of the right kind, zero_b 0
 *   put             0 int8, 1 uint8, 2 any 32 bits */
typedef struct sp_matmul_i8 {
  int batch, heads, m, n, k, columns;
  int mr, nv, block, task_n, pair, flip_a, flip_b;
  int seen_a, zero_b, sign_a, zero_a, direct, put;
  ptrdiff_t az, ah, as, ak, bz, bh, bs, yz, yh, ys;
} sp_matmul_i8;

/* A row of a as the product takes it; returns what the zero point of b adds to its sums. */
SP_INLINE int32_t sp_matmul_row_i8(const sp_matmul_i8 p, const uint8_t *from, uint8_t *to) {
  int32_t sum = -p.k * p.zero_a;
  if (p.ak == 1) {
    sp_pack_row_i8(p.pair, p.k, sp_pack_quads(p.pair, p.k), from, p.flip_a, to);
  } else {
    const int per = sp_pack_per(p.pair);
    for (int c = 0; c < p.k; c += per, to += 4) {
      uint8_t quad[4] = {0, 0, 0, 0};
      for (int i = 0; i < per && c + i < p.k; ++i) quad[i] = from[(c + i) * p.ak];
      sp_pack_row_i8(p.pair, (int)sp_imin(per, p.k - c), 1, quad, p.flip_a, to);
    }
  }
  if (p.zero_b == 0) return 0;
  for (int c = 0; c < p.k; ++c) {
    const int code = from[c * p.ak];
    sum += p.sign_a ? (code ^ 128) - 128 : code;
  }
  return (int32_t)((uint32_t)-p.zero_b * (uint32_t)sum);
}

/* m rows x nv vectors of columns, of which the last has n; `away` belongs to the rows. */
SP_INLINE void sp_matmul_tile_i8(const sp_matmul_i8 p, int m, int nv, int n, const uint8_t *rows,
                                 ptrdiff_t line, const int32_t *away, const int32_t *packed,
                                 const int32_t *start, void *y, ptrdiff_t at, ptrdiff_t row,
                                 ptrdiff_t col, sp_ep_i32 ep, const void *const *e) {
  const int quads = sp_pack_quads(p.pair, p.k);
  const sp_tile_i8 t = sp_pack_tile(p.pair, m, nv, quads, quads, line);
  sp_i32 acc[SP_TILE_I8_MAX];
  SP_UNROLL
  for (int i = 0; i < m; ++i) {
    SP_UNROLL
    for (int v = 0; v < nv; ++v) {
      acc[i * nv + v] = sp_load_i32(start + v * SP_LANES);
      if (p.zero_b != 0) acc[i * nv + v] = sp_add_i32(acc[i * nv + v], sp_set1_i32(away[i]));
    }
  }
  sp_tile_dots_i8(t, rows, (const int8_t *)packed, acc);
  SP_UNROLL
  for (int i = 0; i < m; ++i) {
    SP_UNROLL
    for (int v = 0; v < nv; ++v)
      acc[i * nv + v] =
          ep(acc[i * nv + v], e, row + i, col + v * SP_LANES, v == nv - 1 ? n : SP_LANES);
    sp_put_sums(p.put, y, at + i * p.ys, acc + i * nv, nv, n);
  }
}

/* m rows from `i` on times the packed vectors of columns [j0, j1). */
SP_INLINE void sp_matmul_rows_i8(const sp_matmul_i8 p, int m, int i, int j0, int j1,
                                 const uint8_t *a, uint8_t *copy, const int32_t *packed,
                                 const int32_t *start, void *y, ptrdiff_t at, ptrdiff_t row,
                                 sp_ep_i32 ep, const void *const *e) {
  const int quads = sp_pack_quads(p.pair, p.k), full = p.n / SP_LANES / p.nv * p.nv;
  const int rest = p.n - full * SP_LANES, last = (rest + SP_LANES - 1) / SP_LANES;
  const ptrdiff_t line = p.direct ? p.as : 4 * (ptrdiff_t)quads;
  const ptrdiff_t vector = (ptrdiff_t)quads * SP_LANES;
  const uint8_t *const rows = p.direct ? a + i * p.as : copy;
  int32_t away[SP_TILE_I8_MAX];
  if (!p.direct)
    for (int r = 0; r < m; ++r) away[r] = sp_matmul_row_i8(p, a + (i + r) * p.as, copy + r * line);
  at += i * p.ys;
  row += i;
  for (int j = j0; j < (int)sp_imin(j1, full); j += p.nv)
    sp_matmul_tile_i8(p, m, p.nv, SP_LANES, rows, line, away, packed + (j - j0) * vector,
                      start + (j - j0) * SP_LANES, y, at + j * SP_LANES, row, j * SP_LANES, ep, e);
  if (last > 0 && j1 > full)
    sp_matmul_tile_i8(p, m, last, rest - (last - 1) * SP_LANES, rows, line, away,
                      packed + (full - j0) * vector, start + (full - j0) * SP_LANES, y,
                      at + full * SP_LANES, row, full * SP_LANES, ep, e);
}

/* Tasks are runs of task_n vectors of columns of a matrix; `work` holds a block, where its sums start,
 * and mr rows. */
SP_INLINE void sp_matmul_i8_run(const sp_matmul_i8 p, const void *a, const void *b, void *y,
                                int32_t *work, sp_ep_i32 ep, const void *const *e, int task) {
  const int vectors = sp_up_to(p.n, SP_LANES) / SP_LANES, quads = sp_pack_quads(p.pair, p.k);
  const int tn = (vectors + p.task_n - 1) / p.task_n, z = task / tn;
  const int first = task % tn * p.task_n, end = (int)sp_imin(first + p.task_n, vectors);
  const int h = z % p.heads, tail = p.m % p.mr;
  const uint8_t *const az = (const uint8_t *)a + z / p.heads * p.az + h * p.ah;
  const uint8_t *const bz = (const uint8_t *)b + z / p.heads * p.bz + h * p.bh;
  const ptrdiff_t at = z / p.heads * p.yz + h * p.yh, row = (ptrdiff_t)z * p.m;
  int32_t *const start = work + (ptrdiff_t)p.block * quads * SP_LANES;
  uint8_t *const copy = (uint8_t *)(void *)(start + p.block * SP_LANES);
  for (int j = first; j < end; j += p.block) {
    const int stop = (int)sp_imin(j + p.block, end);
    const int columns = (int)sp_imin(stop * SP_LANES, p.n) - j * SP_LANES;
    if (p.columns)
      sp_pack_columns_i8(p.pair, columns, p.k, quads, bz + j * SP_LANES * p.bs, p.bs, p.flip_b, work);
    else
      sp_pack_rows_i8(p.pair, columns, p.k, quads, bz + j * SP_LANES, p.bs, p.flip_b, work);
    sp_pack_start_i8(p.pair, stop - j, p.k, quads, work, p.seen_a, copy, start);
    for (int i = 0; i + p.mr <= p.m; i += p.mr)
      sp_matmul_rows_i8(p, p.mr, i, j, stop, az, copy, work, start, y, at, row, ep, e);
    if (tail > 0)
      sp_matmul_rows_i8(p, tail, p.m - tail, j, stop, az, copy, work, start, y, at, row, ep, e);
  }
}
#endif
