/* C = A * B of signed bytes, exact in int32: what `sparrow.gemm_s8` calls. Sizes are known at run time,
 * so that one instance serves all of them; the tile is SP_GEMM_MR rows x SP_GEMM_NV vectors of columns,
 * of a single vector SP_GEMM_TALL rows, defined before this file, which comes after isa/<isa>.h.
 *   a      int8 [m][k] in rows of `row` bytes, or as sparrow_gemm_s8_pack_a leaves it
 *   b      int8 [vectors][quads][SP_LANES][4], zero padded, from sparrow_gemm_s8_pack_b; where products
 *          are added by twos (sp_maddubs_i32) each quad has its mask behind it: what turns bytes of a
 *   start  int32 [vectors * SP_LANES], from there too: C before any product
 *   c      int32 [m][n], dense
 * Where there are matrix registers these hold the sums, 32 rows x two vectors at a time.
 * b holds no -128, so that two products fit 16 bits; nor does a where k > 132104. With k <= 133144 no
 * result leaves int32; sums wrap on the way. */
#ifndef SPARROW_RUNTIME_GEMM_S8_H
#define SPARROW_RUNTIME_GEMM_S8_H
#include "../kernels/conv2d_i8.h"
#include "../sparrow.h"

/* Whether a is multiplied as unsigned bytes. */
#define SP_GEMM_UNSIGNED (SP_DOT_UNSIGNED && !SP_MATRIX)
/* Bytes of a quad of a vector of columns. */
#ifdef SP_MADDUBS
#define SP_GEMM_QUAD (8 * SP_LANES)
#else
#define SP_GEMM_QUAD (4 * SP_LANES)
#endif
/* Rows of a matrix register. */
#define SP_GEMM_ROWS 16

/* Quads of a step in matrix registers: equal steps, the last of which reaches beyond k. */
SP_INLINE ptrdiff_t sp_gemm_s8_step(ptrdiff_t k) {
  const ptrdiff_t quads = (k + 3) / 4, steps = (quads + 15) / 16;
  return steps ? (quads + steps - 1) / steps : 0;
}

/* Quads of a row of a, as they are read: the bytes beyond k are multiplied by zeros. */
SPARROW_API ptrdiff_t sparrow_gemm_s8_quads(ptrdiff_t k);
SPARROW_API ptrdiff_t sparrow_gemm_s8_quads(ptrdiff_t k) {
  const ptrdiff_t quads = (k + 3) / 4, step = sp_gemm_s8_step(k);
  return SP_MATRIX && step ? (quads + step - 1) / step * step : quads;
}

/* Bytes of a vector of columns of b. */
SPARROW_API ptrdiff_t sparrow_gemm_s8_vector(ptrdiff_t k);
SPARROW_API ptrdiff_t sparrow_gemm_s8_vector(ptrdiff_t k) {
  return sparrow_gemm_s8_quads(k) * SP_GEMM_QUAD;
}

/* Task grid: ceil(m / task_m) rows x ceil(vectors / task_n), `tasks` in all. Where `pack`, a task copies
 * `block` rows at a time to its own `block` rows of scratch. A packed row has `packed` bytes: whole
 * quads. Where `turn`, a lies as signed bytes and products may want unsigned ones. Where `check`, a is
 * searched for -128. */
typedef struct sparrow_gemm_s8 {
  ptrdiff_t m, n, k, row, pack, packed, task_m, task_n, block, tasks, turn, check;
  const uint8_t *a;
  const int8_t *b;
  const int32_t *start;
  int32_t *c;
  uint8_t *scratch;
  sparrow_parallel_for parallel_for; /* NULL: serial */
  void *parallel_ctx;
} sparrow_gemm_s8;

SP_INLINE void sp_gemm_s8_pack(const uint8_t *a, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t k,
                               uint8_t *to, ptrdiff_t packed) {
  if (row == k && packed == k) { /* one long row */
    sp_copy_i8(to, a, (int)(rows * k), SP_GEMM_UNSIGNED);
    return;
  }
  for (ptrdiff_t i = 0; i < rows; ++i, a += row, to += packed) {
    sp_copy_i8(to, a, (int)k, SP_GEMM_UNSIGNED);
    sp_fill_i8(to + k, (int)(packed - k), 0);
  }
}

#if SP_MATRIX
/* C of `rows` rows from `row` on, at most 16 in each of `blocks` registers, and vectors [j, j1), nv at a
 * time; a is row `row`. */
SP_INLINE void sp_gemm_s8_across(const sparrow_gemm_s8 *g, int blocks, int nv, int rows,
                                 const uint8_t *a, ptrdiff_t lda, ptrdiff_t row, ptrdiff_t j,
                                 ptrdiff_t j1) {
  const ptrdiff_t quads = sparrow_gemm_s8_quads(g->k), bv = quads * 4 * SP_LANES;
  const sp_tile_i8 t = {.mr = SP_GEMM_ROWS * blocks, .nv = nv, .kh = 1, .runs = 1, .kq = (int)quads,
                        .matrix = (int)sp_gemm_s8_step(g->k), .kind = SP_MATRIX_I8, .xp = lda,
                        .bv = bv, .quad = 4 * SP_LANES};
  for (; j < j1; j += nv) {
    const int8_t *b = g->b + j * bv;
    const int32_t *start = g->start + j * SP_LANES;
    int32_t *c = g->c + row * g->n + j * SP_LANES;
    const ptrdiff_t n = g->n - (j + nv - 1) * SP_LANES;
    if (n >= SP_LANES) {
      sp_tile_matrix_sums(t, a, b, start, c, g->n, NULL);
      continue;
    }
    SP_ALIGN(64) int32_t sums[SP_MATRIX_PIXELS * SP_LANES];
    sp_tile_matrix_sums(t, a, b, start, sums, nv * SP_LANES, NULL);
    for (int i = 0; i < rows; ++i)
      for (int v = 0; v < nv; ++v)
        sp_storen_i32(c + i * g->n + v * SP_LANES, sp_load_i32(sums + (i * nv + v) * SP_LANES),
                      v == nv - 1 ? (int)n : SP_LANES);
  }
}

/* The same of rows [first, end), a whole number of `rows`; a is row `first`. */
SP_INLINE void sp_gemm_s8_down(const sparrow_gemm_s8 *g, int blocks, int nv, int rows,
                               const uint8_t *a, ptrdiff_t lda, ptrdiff_t first, ptrdiff_t end,
                               ptrdiff_t j, ptrdiff_t j1) {
  if (first == end || j == j1) return;
  sp_matrix_shape(blocks, nv, SP_GEMM_ROWS, rows - (blocks - 1) * SP_GEMM_ROWS,
                  (int)sp_gemm_s8_step(g->k));
  for (; first < end; first += rows, a += rows * lda)
    sp_gemm_s8_across(g, blocks, nv, rows, a, lda, first, j, j1);
}

/* Rows [first, end) of vectors [j, j1); a is row `first`. */
SP_INLINE void sp_gemm_s8_block(const sparrow_gemm_s8 *g, int flip, const uint8_t *a,
                                ptrdiff_t lda, ptrdiff_t first, ptrdiff_t end, ptrdiff_t j,
                                ptrdiff_t j1) {
  (void)flip; /* signed bytes are multiplied as they are */
  const int rest = (int)((end - first) % (2 * SP_GEMM_ROWS));
  const ptrdiff_t two = j1 - (j1 - j) % 2, four = j1 - (j1 - j) % 4, whole = end - rest;
  sp_gemm_s8_down(g, 2, 2, 2 * SP_GEMM_ROWS, a, lda, first, whole, j, two);
  sp_gemm_s8_down(g, 2, 1, 2 * SP_GEMM_ROWS, a, lda, first, whole, two, j1);
  a += (whole - first) * lda;
  if (rest > SP_GEMM_ROWS) {
    sp_gemm_s8_down(g, 2, 2, rest, a, lda, whole, end, j, two);
    sp_gemm_s8_down(g, 2, 1, rest, a, lda, whole, end, two, j1);
  } else {
    sp_gemm_s8_down(g, 1, 4, rest, a, lda, whole, end, j, four);
    sp_gemm_s8_down(g, 1, 1, rest, a, lda, whole, end, four, j1);
  }
}
#else
/* Tiles of mr rows from `row` while they fit below `end`; a is row `first`. Returns where they end. */
SP_INLINE ptrdiff_t sp_gemm_s8_tiles(const sparrow_gemm_s8 *g, int mr, int nv, int flip,
                                     const uint8_t *a, ptrdiff_t lda, ptrdiff_t first,
                                     ptrdiff_t row, ptrdiff_t end, ptrdiff_t j) {
  const ptrdiff_t quads = sparrow_gemm_s8_quads(g->k), bv = sparrow_gemm_s8_vector(g->k);
  const int n = (int)sp_imin(g->n - (j + nv - 1) * SP_LANES, SP_LANES);
  const sp_tile_i8 t = {.mr = mr, .nv = nv, .kh = 1, .runs = 1, .kq = (int)quads, .xp = lda,
                        .bv = bv, .quad = SP_GEMM_QUAD, .flip = flip, .put = SP_PUT_32,
                        .ldy = g->n, .pair = SP_GEMM_QUAD > 4 * SP_LANES ? SP_TURNED : 0};
  for (; row + mr <= end; row += mr)
    sp_tile_run_i8(t, a + (row - first) * lda, g->b + j * bv, g->start + j * SP_LANES, g->c,
                   row * g->n + j * SP_LANES, 0, 0, n, sp_ep_none_i32, NULL);
  return row;
}

/* Rows [first, end) of nv vectors from j on. */
SP_INLINE void sp_gemm_s8_panel(const sparrow_gemm_s8 *g, int mr, int nv, int flip,
                                const uint8_t *a, ptrdiff_t lda, ptrdiff_t first, ptrdiff_t end,
                                ptrdiff_t j) {
  ptrdiff_t row = sp_gemm_s8_tiles(g, mr, nv, flip, a, lda, first, first, end, j);
  row = sp_gemm_s8_tiles(g, 4, nv, flip, a, lda, first, row, end, j);
  sp_gemm_s8_tiles(g, 1, nv, flip, a, lda, first, row, end, j);
}

/* Rows [first, end) of vectors [j, j1); a is row `first`. */
SP_INLINE void sp_gemm_s8_block(const sparrow_gemm_s8 *g, int flip, const uint8_t *a,
                                ptrdiff_t lda, ptrdiff_t first, ptrdiff_t end, ptrdiff_t j,
                                ptrdiff_t j1) {
  for (; j + SP_GEMM_NV <= j1; j += SP_GEMM_NV)
    sp_gemm_s8_panel(g, SP_GEMM_MR, SP_GEMM_NV, flip, a, lda, first, end, j);
  for (; j < j1; ++j) sp_gemm_s8_panel(g, SP_GEMM_TALL, 1, flip, a, lda, first, end, j);
}
#endif

SP_INLINE void sp_gemm_s8_task(const sparrow_gemm_s8 *g, int task) {
  const ptrdiff_t vectors = (g->n + SP_LANES - 1) / SP_LANES;
  const ptrdiff_t across = (vectors + g->task_n - 1) / g->task_n;
  const ptrdiff_t j0 = task % across * g->task_n, j1 = sp_imin(j0 + g->task_n, vectors);
  const ptrdiff_t row0 = task / across * g->task_m, row1 = sp_imin(row0 + g->task_m, g->m);
  uint8_t *scratch = g->pack ? g->scratch + task * g->block * g->packed : NULL;
  for (ptrdiff_t row = row0; row < row1; row += g->block) {
    const ptrdiff_t end = sp_imin(row + g->block, row1);
    const uint8_t *a = g->a + row * g->row;
    if (g->pack) {
      sp_gemm_s8_pack(a, g->row, end - row, g->k, scratch, g->packed);
      sp_gemm_s8_block(g, 0, scratch, g->packed, row, end, j0, j1);
    } else if (SP_GEMM_UNSIGNED && g->turn) {
      sp_gemm_s8_block(g, 1, a, g->row, row, end, j0, j1);
    } else {
      sp_gemm_s8_block(g, 0, a, g->row, row, end, j0, j1);
    }
  }
}

SPARROW_API void sparrow_gemm_s8_task(void *arg, int task);
SPARROW_API void sparrow_gemm_s8_task(void *arg, int task) {
  sp_gemm_s8_task((const sparrow_gemm_s8 *)arg, task);
#if SP_MATRIX
  sp_matrix_release();
#endif
}

/* Whether no value of int8 [m][k] in rows of `row` bytes is -128. */
SPARROW_API int sparrow_gemm_s8_symmetric(const uint8_t *a, ptrdiff_t row, ptrdiff_t m, ptrdiff_t k);
SPARROW_API int sparrow_gemm_s8_symmetric(const uint8_t *a, ptrdiff_t row, ptrdiff_t m,
                                          ptrdiff_t k) {
  if (row == k) {
    k *= m;
    m = 1;
  }
  uint8_t found = 0;
  for (ptrdiff_t i = 0; i < m; ++i, a += row)
    for (ptrdiff_t j = 0; j < k; ++j) found = (uint8_t)(found | (a[j] == 128));
  return !found;
}

/* C; or 1 where a holds -128 and must not; or 2 where the system refuses matrix registers. */
SPARROW_API int sparrow_gemm_s8_run(sparrow_gemm_s8 *g);
SPARROW_API int sparrow_gemm_s8_run(sparrow_gemm_s8 *g) {
  if (g->check && !sparrow_gemm_s8_symmetric(g->a, g->row, g->m, g->k)) return 1;
#if SP_MATRIX
  if (sp_matrix_allow() != 0) return 2;
#endif
  if (g->parallel_for)
    g->parallel_for(g->parallel_ctx, sparrow_gemm_s8_task, g, (int)g->tasks);
  else
    for (int i = 0; i < (int)g->tasks; ++i) sp_gemm_s8_task(g, i);
#if SP_MATRIX
  sp_matrix_leave();
#endif
  return 0;
}

/* int8 [m][k] in rows of `row` bytes to rows of `packed` bytes. */
SPARROW_API void sparrow_gemm_s8_pack_a(const uint8_t *a, ptrdiff_t row, ptrdiff_t m, ptrdiff_t k,
                                        uint8_t *to, ptrdiff_t packed);
SPARROW_API void sparrow_gemm_s8_pack_a(const uint8_t *a, ptrdiff_t row, ptrdiff_t m, ptrdiff_t k,
                                        uint8_t *to, ptrdiff_t packed) {
  sp_gemm_s8_pack(a, row, m, k, to, packed);
}

#ifdef SP_MADDUBS
/* A quad of columns and its mask. Bytes of a become unsigned, a + 128, and the second of two whose
 * weights have the same sign 255 minus that, its weight negated: 255 * 127 fits on either side. Returns
 * `sum` less what they add where a is 0. */
SP_INLINE sp_i32 sp_gemm_s8_put(sp_i32 v, int8_t *to, sp_i32 sum) {
  const sp_i32 other = sp_xor_i32(v, sp_shl_i32(v, 8));
  const sp_i32 bits = sp_set1_i32((int32_t)0x80008000u);
  const sp_i32 same = sp_shru_i32(sp_xor_i32(sp_and_i32(other, bits), bits), 7);
  const sp_i32 turned = sp_sub_i32(sp_shl_i32(same, 8), same), mask = sp_flip_i32(turned);
  const sp_i32 w = sp_subp_i32(sp_xor_i32(v, turned), turned);
  sp_storeq_i32(to, w);
  sp_storeq_i32(to + 4 * SP_LANES, mask);
  return sp_sub_i32(sum, sp_dot2_i32(sp_set1_i32(0), sp_maddubs_i32(w, mask), sp_set1_i32(0x00010001)));
}
#else
/* Signed bytes a are multiplied as unsigned ones, a + 128, where the instruction wants them so: sums then
 * start at -128 times the sum of their column. */
SP_INLINE sp_i32 sp_gemm_s8_put(sp_i32 v, int8_t *to, sp_i32 sum) {
  const sp_i32 zero = sp_set1_i32(0), seen = SP_GEMM_UNSIGNED ? sp_flip_i32(zero) : zero;
  sp_storeq_i32(to, v);
  return sp_sub_i32(sum, sp_dot4_i32(zero, seen, v));
}
#endif

/* int8 [k][n] in rows of `row` bytes. */
SPARROW_API void sparrow_gemm_s8_pack_b(const int8_t *b, ptrdiff_t row, ptrdiff_t k, ptrdiff_t n,
                                        int8_t *to, int32_t *start);
SPARROW_API void sparrow_gemm_s8_pack_b(const int8_t *b, ptrdiff_t row, ptrdiff_t k, ptrdiff_t n,
                                        int8_t *to, int32_t *start) {
  const int8_t zeros[SP_LANES] = {0};
  const ptrdiff_t quads = sparrow_gemm_s8_quads(k);
  for (ptrdiff_t j = 0; j < n; j += SP_LANES, start += SP_LANES) {
    const int lanes = (int)sp_imin(n - j, SP_LANES);
    sp_i32 sum = sp_set1_i32(0);
    for (ptrdiff_t q = 0; q < 4 * quads; q += 4, to += SP_GEMM_QUAD) {
      const int8_t *p[4];
      for (int i = 0; i < 4; ++i) p[i] = q + i < k ? b + (q + i) * row + j : zeros;
      sum = sp_gemm_s8_put(sp_zip4_i8(p[0], p[1], p[2], p[3], lanes), to, sum);
    }
    sp_store_i32(start, sum);
  }
}
#endif
