/* Product of rows of 8-bit codes with one column of int8, exact in int32 that wraps: what zero points of
 * weights add to a sum is one such column of ones.
 *   Y[i] = init[0] + sum over c of X[i][c] * W[c]
 * Lanes are bytes of a row, whose sums are added up at its end. Included after isa/<isa>.h, which has
 * sp_dot_bytes_i32; all fields of sp_column_i8 are literals in emitted code.
 *   x     element (i, c) at byte x[i * xw + c]
 *   w     int8 [k]
 *   y     int32 [rows] */
#ifndef SP_COLUMN_I8_H
#define SP_COLUMN_I8_H
#include "tile_i8.h"

#define SP_COLUMN_ROWS 8 /* rows at a time, and vectors of each that are a round */
#define SP_COLUMN_VECTORS 2

/* rows, k, xw: k is a multiple of the bytes of a vector. kind: which products, see sp_dot_bytes_i32. */
typedef struct sp_column_i8 {
  int rows, k, kind;
  ptrdiff_t xw;
} sp_column_i8;

/* So many rows, and vectors of each from x and w on. */
SP_INLINE void sp_column_round(const sp_column_i8 p, int rows, int vectors, const uint8_t **x,
                               const int8_t *w, sp_i32 *acc) {
  sp_i32 wv[SP_COLUMN_VECTORS];
  SP_UNROLL
  for (int v = 0; v < vectors; ++v) wv[v] = sp_loadq_i32(w + v * 4 * SP_LANES);
  SP_UNROLL
  for (int i = 0; i < rows; ++i) {
    SP_UNROLL
    for (int v = 0; v < vectors; ++v)
      acc[i] = sp_dot_bytes_i32(acc[i], sp_loadq_i32(x[i] + v * 4 * SP_LANES), wv[v], p.kind);
    x[i] += vectors * 4 * SP_LANES;
    SP_FORGET(x[i]);
  }
}

SP_INLINE void sp_column_some(const sp_column_i8 p, int rows, const uint8_t *x, const int8_t *w,
                              sp_i32 init, int32_t *y) {
  enum { ROUND = SP_COLUMN_VECTORS * 4 * SP_LANES };
  sp_i32 acc[SP_COLUMN_ROWS];
  const uint8_t *from[SP_COLUMN_ROWS];
  int c = 0;
  SP_UNROLL
  for (int i = 0; i < rows; ++i) {
    acc[i] = init;
    from[i] = x + i * p.xw;
  }
  SP_ROLLED
  for (; c + ROUND <= p.k; c += ROUND) sp_column_round(p, rows, SP_COLUMN_VECTORS, from, w + c, acc);
  if (p.k % ROUND) sp_column_round(p, rows, 1, from, w + c, acc);
  SP_UNROLL
  for (int i = 0; i < rows; ++i) y[i] = sp_sum_i32(acc[i]);
}

SP_INLINE void sp_column_i8_run(const sp_column_i8 p, const void *x, const int8_t *w,
                                const int32_t *init, int32_t *y, int task) {
  const uint8_t *from = (const uint8_t *)x;
  const sp_i32 start = sp_loadn_i32(init, 1); /* which is in the sum of lanes once */
  int i = 0;
  (void)task;
  for (; i + SP_COLUMN_ROWS <= p.rows; i += SP_COLUMN_ROWS)
    sp_column_some(p, SP_COLUMN_ROWS, from + i * p.xw, w, start, y + i);
  if (p.rows % SP_COLUMN_ROWS)
    sp_column_some(p, p.rows % SP_COLUMN_ROWS, from + i * p.xw, w, start, y + i);
}
#endif
