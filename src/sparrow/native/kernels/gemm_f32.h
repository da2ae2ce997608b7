/* Float32 matrix product with a fused epilogue.
 *   C[z][i][j] = ep(sum_k A[z][i][k] * B[z][k][j], row z * m + i, column j)   z < batch
 * Included after isa/<isa>.h; all fields of sp_gemm are literals in emitted code.
 *   a  row i, k at a[z * sa + i * lda + k], or [.. + k * lda + i] when a_trans
 *   b  b_packed: [ceil(n / SP_LANES)][k][SP_LANES], by packing_f32.pack_gemm_b(), padded by zeros or, where
 *      columns of the last vector fit there twice, by these, which `shared` takes (tile_f32.h);
 *      else row-major, (k, j) at b[z * sb + k * ldb + j], or [.. + j * ldb + k] when b_trans
 *   c  element (i, j) at c[z * sc + i * ldc + j], bfloat16 where `half`; must not alias a or b
 * Where `pair`, elements of a and of b, which is then packed, are pairs of bfloat16 (tile_f32.h), and k,
 * lda and sa count pairs.
 * b_trans, and plain B that is read often, are packed first: sp_gemm_pack_f32.
 * pf, every: constant B is prefetched pf values of k ahead (m = 1), or, when -1, the next panel while this
 * one is used, a line for every `every` values of k.
 * The sum over k runs in order in ku interleaved partial sums, whatever the tiles and tasks. */
#ifndef SP_GEMM_F32_H
#define SP_GEMM_F32_H
#include "tile_f32.h"

/* Tiles: mr rows x nv vectors; blocks of mc rows (a multiple of mr) are finished for all columns of
 * the task before the next block. Task grid: batch x ceil(m / task_m) x ceil(vectors / task_n), with
 * vectors = ceil(n / SP_LANES); task_m is a multiple of mr. */
typedef struct sp_gemm {
  int m, n, k;
  ptrdiff_t lda, ldb, ldc;
  int a_trans, b_packed, b_trans;
  int mr, nv, ku, pf, every;
  int mc, task_m, task_n;
  int batch;
  ptrdiff_t sa, sb, sc;
  int pair, half, shared;
} sp_gemm;

SP_INLINE void sp_gemm_tile_f32(const sp_gemm p, const sp_tile t, const float *a, const float *b,
                                void *c, ptrdiff_t row, ptrdiff_t col, int n, sp_ep_f32 ep,
                                const void *const *e) {
  sp_f32 acc[SP_TILE_MAX];
  sp_tile_zero_f32(t, acc);
  sp_tile_mac_f32(t, acc, 0, t.mr, a, 0, b, p.k);
  sp_tile_put_f32(t, acc, c, p.ldc, row, col, n, ep, e);
}

/* Rows [i0, i1) of nv vectors of columns; a, b, c and row belong to row 0. */
SP_INLINE void sp_gemm_panel_f32(const sp_gemm p, int nv, int n, const float *a, const float *b,
                                 void *c, int i0, int i1, ptrdiff_t row, ptrdiff_t col,
                                 sp_ep_f32 ep, const void *const *e) {
  const ptrdiff_t bv = p.b_packed ? (ptrdiff_t)p.k * SP_LANES : SP_LANES;
  const ptrdiff_t ai = p.a_trans ? 1 : p.lda;
  const ptrdiff_t bk = p.b_packed ? SP_LANES : p.ldb;
  const int bn = p.b_packed ? SP_LANES : n;
  sp_tile t = {.mr = p.mr, .nv = nv, .ku = p.ku, .ai = ai, .ak = p.a_trans ? p.lda : 1,
               .bv = bv, .bk = bk, .bn = bn, .pf = p.pf, .every = p.every, .pair = p.pair,
               .half = p.half, .shared = p.shared && n < SP_LANES, .next = nv * bv, .left = nv};
  int i = i0;
  for (; i + p.mr <= i1; i += p.mr) {
    sp_gemm_tile_f32(p, t, a + i * ai, b, sp_out_at(p.half, c, i * p.ldc), row + i, col, n, ep, e);
    sp_tile_onward(&t, p.k);
  }
  t.mr = p.m % p.mr;
  if (t.mr > 0 && i < i1)
    sp_gemm_tile_f32(p, t, a + i * ai, b, sp_out_at(p.half, c, i * p.ldc), row + i, col, n, ep, e);
}

/* How a task's columns are divided: `full` vectors in panels of nv, then a panel of `tail` vectors,
 * the last of which has n columns. */
typedef struct sp_panels {
  int full, tail, n;
} sp_panels;

SP_INLINE sp_panels sp_panels_of(int columns, int nv) {
  const int full = columns / SP_LANES / nv * nv;
  const int rest = columns - full * SP_LANES;
  const int tail = (rest + SP_LANES - 1) / SP_LANES;
  const sp_panels found = {full, tail, rest - (tail - 1) * SP_LANES};
  return found;
}

/* Rows [i0, i1) x vectors [j0, j1) of one matrix; b starts at vector j0. Literals must stay such,
 * so the last task of a row and those before it have a tail of their own, unless both are alike. */
SP_INLINE void sp_gemm_block_f32(const sp_gemm p, const float *a, const float *b, void *c, int i0,
                                 int i1, int j0, int j1, ptrdiff_t row, sp_ep_f32 ep,
                                 const void *const *e) {
  const int vectors = (p.n + SP_LANES - 1) / SP_LANES;
  const int tn = (vectors + p.task_n - 1) / p.task_n;
  const sp_panels last = sp_panels_of(p.n - (tn - 1) * p.task_n * SP_LANES, p.nv);
  const sp_panels inner = sp_panels_of(p.task_n * SP_LANES, p.nv);
  const int ends = tn == 1 || j1 == vectors;
  const int alike = inner.tail == last.tail && inner.n == last.n;
  const int je = j0 + (ends ? last.full : inner.full);
  const ptrdiff_t bv = p.b_packed ? (ptrdiff_t)p.k * SP_LANES : SP_LANES;
  for (int i = i0; i < i1; i += p.mc) {
    const int ie = (int)sp_imin(i + p.mc, i1);
    for (int j = j0; j < je; j += p.nv)
      sp_gemm_panel_f32(p, p.nv, SP_LANES, a, b + (j - j0) * bv,
                        sp_out_at(p.half, c, j * SP_LANES), i, ie, row, j * SP_LANES, ep, e);
    if (last.tail > 0 && (ends || alike))
      sp_gemm_panel_f32(p, last.tail, last.n, a, b + (je - j0) * bv,
                        sp_out_at(p.half, c, je * SP_LANES), i, ie, row, je * SP_LANES, ep, e);
    else if (inner.tail > 0 && !ends)
      sp_gemm_panel_f32(p, inner.tail, inner.n, a, b + (je - j0) * bv,
                        sp_out_at(p.half, c, je * SP_LANES), i, ie, row, je * SP_LANES, ep, e);
  }
}

SP_INLINE void sp_gemm_f32(const sp_gemm p, const void *a, const void *b, void *c, sp_ep_f32 ep,
                           const void *const *e, int task) {
  const int vectors = (p.n + SP_LANES - 1) / SP_LANES;
  const int tn = (vectors + p.task_n - 1) / p.task_n;
  const int tm = (p.m + p.task_m - 1) / p.task_m;
  const int z = task / (tn * tm);
  const int i = task / tn % tm * p.task_m;
  const int j = task % tn * p.task_n;
  const ptrdiff_t bv = p.b_packed ? (ptrdiff_t)p.k * SP_LANES : SP_LANES;
  sp_gemm_block_f32(p, (const float *)a + z * p.sa, (const float *)b + z * p.sb + j * bv,
                    sp_out_at(p.half, c, z * p.sc), i, (int)sp_imin(i + p.task_m, p.m), j,
                    (int)sp_imin(j + p.task_n, vectors), (ptrdiff_t)z * p.m, ep, e);
}

/* nk columns of n rows at distance ld -> nk vectors, zero padded. */
SP_INLINE void sp_gemm_turn_f32(const float *s, ptrdiff_t ld, int n, int nk, float *to) {
  sp_f32 v[SP_LANES];
  SP_UNROLL
  for (int i = 0; i < SP_LANES; ++i) v[i] = i < n ? sp_loadn_f32(s + i * ld, nk) : sp_zero_f32();
  sp_transpose_f32(v);
  SP_UNROLL
  for (int i = 0; i < SP_LANES; ++i)
    if (i < nk) sp_store_f32(to + i * SP_LANES, v[i]);
}

/* n columns of a row-major or transposed B -> [k][SP_LANES], zero padded. */
SP_INLINE void sp_gemm_pack_vector_f32(const sp_gemm p, const float *b, int n, float *to) {
  if (p.b_trans) {
    const int full = p.k / SP_LANES * SP_LANES;
    for (int k = 0; k < full; k += SP_LANES)
      sp_gemm_turn_f32(b + k, p.ldb, n, SP_LANES, to + k * SP_LANES);
    if (full < p.k) sp_gemm_turn_f32(b + full, p.ldb, n, p.k - full, to + full * SP_LANES);
  } else {
    for (int k = 0; k < p.k; ++k) sp_store_f32(to + k * SP_LANES, sp_loadn_f32(b + k * p.ldb, n));
  }
}

/* Vectors [j0, j1) of B -> [j1 - j0][k][SP_LANES]. */
SP_INLINE void sp_gemm_pack_b_f32(const sp_gemm p, const float *b, int j0, int j1, float *to) {
  const int full = p.n / SP_LANES;
  const ptrdiff_t step = SP_LANES * (p.b_trans ? p.ldb : 1);
  const ptrdiff_t size = (ptrdiff_t)p.k * SP_LANES;
  for (int j = j0; j < (int)sp_imin(j1, full); ++j)
    sp_gemm_pack_vector_f32(p, b + j * step, SP_LANES, to + (j - j0) * size);
  if (p.n % SP_LANES > 0 && j1 > full)
    sp_gemm_pack_vector_f32(p, b + full * step, p.n % SP_LANES, to + (full - j0) * size);
}

/* sp_gemm_f32 for B known only at run time (b_packed = 0): packs the columns of the task into
 * scratch (task_n * k * SP_LANES floats, private to the task), then multiplies. */
SP_INLINE void sp_gemm_pack_f32(const sp_gemm p, const float *a, const float *b, void *c,
                                float *scratch, sp_ep_f32 ep, const void *const *e, int task) {
  const int vectors = (p.n + SP_LANES - 1) / SP_LANES;
  const int tn = (vectors + p.task_n - 1) / p.task_n;
  const int tm = (p.m + p.task_m - 1) / p.task_m;
  const int z = task / (tn * tm);
  const int i = task / tn % tm * p.task_m;
  const int j0 = task % tn * p.task_n;
  const int j1 = (int)sp_imin(j0 + p.task_n, vectors);
  sp_gemm q = p;
  q.b_packed = 1;
  sp_gemm_pack_b_f32(p, b + z * p.sb, j0, j1, scratch);
  sp_gemm_block_f32(q, a + z * p.sa, scratch, sp_out_at(p.half, c, z * p.sc), i,
                    (int)sp_imin(i + p.task_m, p.m), j0, j1, (ptrdiff_t)z * p.m, ep, e);
}
#endif
