/* Scaled dot-product attention over codes, head by head; the integers of ops/attention_codes.py.
 *
 * One task is one key head of one sequence with all the query heads that read it, or `share` rows of
 * these where there are fewer heads than threads to share them. Its keys and values
 * are packed once, as weights of a product are at build time: a vector of keys, quads of features, and
 * a vector of features, quads of keys. Then for every block of mr rows: exact scores, weights of two
 * digits of seven bits, product with the values, codes. A block stays in the level-1 cache.
 *
 * Codes of 16 bits are halves, which sp_dot2_i32 multiplies on every instruction set: weights are one
 * digit there, and values two, of eight bits. */
#ifndef SP_ATTENTION_I8_H
#define SP_ATTENTION_I8_H

#include "../base.h"
#include "exponential.h"
#include "pack_i16.h"
#include "pack_i8.h"
#include "tile_matrix.h"

#define SP_UNSEEN INT32_MIN

/* Every field is a literal in emitted code.
 *   batch, groups, repeat   sequences, key heads, query heads per key head
 *   rows, keys, d, e        query rows of a head, keys, features of keys and of values
 *   parts, share            tasks of a key head, and their rows: whole blocks
 *   mr, nk, ne              rows of a block; vectors of keys and of features in one register tile
 *   pair                    SP_PAIRED where sums are taken by sp_dot2_i32 over halves, else 0
 *   wide                    q, k and v are int16, and pair is SP_PAIRED; q and k lose bits: lost_q, lost_k
 *   matrix, along           quads of features and of keys of a step in matrix registers, else 0: mr rows
 *                           then take up to four of them, and keys are whole tiles
 *   flip_q, flip_k, flip_v  bytes of the other kind than the product takes
 *   zero_q, zero_v          zero points as the product sees the bytes;  zero, lo, hi: of y
 *   put                     0 int8, 1 uint8, 2 int16
 *   q*, k*, v*, y*, m*      distances in elements: *b sequence, *h head, *s row or key; ms row, mt key
 *   mask                    whether m is read; mt is 0 or 1
 *   causal                  row i sees keys j <= i + offset
 *   bits                    of a weight */
typedef struct sp_attention_i8 {
  int batch, groups, repeat, rows, keys, d, e, parts, share;
  int mr, nk, ne, pair, wide, lost_q, lost_k, matrix, along, flip_q, flip_k, flip_v;
  int zero_q, zero_v, zero, lo, hi, put;
  int mask, causal, bits;
  ptrdiff_t offset;
  float step, ratio;
  ptrdiff_t qb, qh, qs, kb, kh, ks, vb, vh, vs, yb, yh, ys, mb, mh, ms, mt;
} sp_attention_i8;

/* Quads of features and of keys. */
SP_INLINE int sp_attention_kq(const sp_attention_i8 p) {
  return sp_up_to(sp_pack_quads(p.pair, p.d), (int)sp_imax(p.matrix, 1));
}
SP_INLINE int sp_attention_tq(const sp_attention_i8 p) {
  return sp_up_to(sp_pack_quads(p.pair, p.keys), (int)sp_imax(p.along, 1));
}
/* Bytes of the weights of a row, of each digit where not paired. */
SP_INLINE int sp_attention_line(const sp_attention_i8 p) {
  const int keys = p.along ? 4 * sp_attention_tq(p) : p.keys;
  return sp_up_to(keys, SP_LANES > 4 ? SP_LANES : 4) * (p.pair ? 2 : 1);
}
/* Bytes of n codes of q, k or v. */
SP_INLINE ptrdiff_t sp_attention_bytes(const sp_attention_i8 p, ptrdiff_t n) {
  return p.wide ? 2 * n : n;
}
/* Bytes of the packed values, of each digit. */
SP_INLINE ptrdiff_t sp_attention_plane(const sp_attention_i8 p) {
  return (ptrdiff_t)sp_up_to(p.e, SP_LANES) * 4 * sp_attention_tq(p);
}
/* Scores of a row. */
SP_INLINE int sp_attention_codes_ld(const sp_attention_i8 p) {
  return sp_up_to(p.keys, SP_LANES * (p.matrix ? p.nk : 1));
}

#if SP_MATRIX
/* Scores of m rows as below, tiles in matrix registers: the last may reach past `panels`. */
SP_INLINE void sp_attention_scores_matrix(const sp_attention_i8 p, int m, int panels,
                                          const uint8_t *q, const int8_t *keys,
                                          const int32_t *start, int32_t *s, ptrdiff_t ld) {
  const int quads = sp_attention_kq(p);
  sp_tile_i8 t = sp_pack_tile(0, m, p.nk, quads, quads, 4 * quads);
  t.matrix = p.matrix;
  sp_tile_matrix_shape(m, p.nk, p.matrix);
  for (int j = 0; j < panels; j += p.nk)
    sp_tile_matrix_sums(t, q, keys + j * t.bv, start + j * SP_LANES, s + j * SP_LANES, ld, NULL);
}

/* Sums of both digits of m weights times nv vectors of values: [m][nv] vectors. */
SP_INLINE void sp_attention_digits_matrix(const sp_attention_i8 p, int m, int nv, int quads,
                                          const uint8_t *e, ptrdiff_t plane, const int8_t *values,
                                          int32_t *high, int32_t *low) {
  sp_tile_i8 t = sp_pack_tile(0, m, nv, quads, sp_attention_tq(p), sp_attention_line(p));
  t.matrix = p.along;
  sp_tile_matrix_shape(m, nv, p.along);
  sp_tile_matrix_sums(t, e, values, sp_matrix_none, high, nv * SP_LANES, NULL);
  sp_tile_matrix_sums(t, e + plane, values, sp_matrix_none, low, nv * SP_LANES, NULL);
}
#endif

/* Scores of m rows of bytes at q against the first `panels` vectors of keys. */
SP_INLINE void sp_attention_scores_i8(const sp_attention_i8 p, int m, int panels, const uint8_t *q,
                                      const int8_t *keys, const int32_t *start, int32_t *s,
                                      ptrdiff_t ld) {
  const int quads = sp_attention_kq(p);
  int j = 0;
#if SP_MATRIX
  if (p.matrix) {
    sp_attention_scores_matrix(p, m, panels, q, keys, start, s, ld);
    return;
  }
#endif
  for (; j + p.nk <= panels; j += p.nk) {
    const sp_tile_i8 t = sp_pack_tile(p.pair, m, p.nk, quads, quads, 4 * quads);
    sp_i32 acc[SP_TILE_I8_MAX];
    SP_UNROLL
    for (int i = 0; i < m; ++i) {
      SP_UNROLL
      for (int v = 0; v < p.nk; ++v) acc[i * p.nk + v] = sp_load_i32(start + (j + v) * SP_LANES);
    }
    sp_tile_dots_i8(t, q, keys + j * t.bv, acc);
    SP_UNROLL
    for (int i = 0; i < m; ++i) {
      SP_UNROLL
      for (int v = 0; v < p.nk; ++v)
        sp_store_i32(s + i * ld + (j + v) * SP_LANES, acc[i * p.nk + v]);
    }
  }
  for (; p.nk > 1 && j < panels; ++j) {
    const sp_tile_i8 t = sp_pack_tile(p.pair, m, 1, quads, quads, 4 * quads);
    sp_i32 acc[SP_TILE_I8_MAX];
    SP_UNROLL
    for (int i = 0; i < m; ++i) acc[i] = sp_load_i32(start + j * SP_LANES);
    sp_tile_dots_i8(t, q, keys + j * t.bv, acc);
    SP_UNROLL
    for (int i = 0; i < m; ++i) sp_store_i32(s + i * ld + j * SP_LANES, acc[i]);
  }
}

/* Scores of a row that sees the first n keys to weights, zero up to `all`; their sum. */
SP_INLINE int32_t sp_attention_weights_i8(const sp_attention_i8 p, int n, int all, int32_t *s,
                                          const int32_t *mask, uint8_t *e, uint8_t *low) {
  const sp_i32 unseen = sp_set1_i32(SP_UNSEEN), zero = sp_set1_i32(0);
  sp_i32 top = unseen, sum = zero;
  int32_t lanes[SP_LANES], most = SP_UNSEEN;
  for (int j = 0; j < n; j += SP_LANES) {
    sp_i32 v = sp_load_i32(s + j);
    if (p.mask) {
      const sp_i32 m = p.mt ? sp_loadn_i32(mask + j, (int)sp_imin(SP_LANES, n - j))
                            : sp_set1_i32(mask[0]);
      v = sp_select_i32(sp_eq_i32(m, unseen), unseen, sp_add_i32(v, m));
    }
    if (n - j < SP_LANES) v = sp_select_i32(sp_lt_i32(sp_iota_i32(), sp_set1_i32(n - j)), v, unseen);
    sp_store_i32(s + j, v);
    top = sp_max_i32(top, v);
  }
  sp_store_i32(lanes, top);
  for (int l = 0; l < SP_LANES; ++l) most = lanes[l] > most ? lanes[l] : most;
  top = sp_set1_i32(most);
  for (int j = 0; j < all; j += SP_LANES) {
    sp_i32 w = zero;
    if (j < n) {
      const sp_i32 v = sp_load_i32(s + j);
      sp_i32 d = sp_sub_i32(top, v);
      sp_f32 t;
      if (p.mask || n - j < SP_LANES) d = sp_select_i32(sp_eq_i32(v, unseen), zero, d);
      t = sp_mul_f32(sp_cvt_i32_f32(d), sp_set1_f32(p.step));
      t = sp_minq_f32(t, sp_set1_f32(24.0f * 32768.0f));
      w = sp_halved_i32(sp_rne_f32_i32(t), 15 - p.bits);
      w = sp_min_i32(w, sp_set1_i32((1 << p.bits) - 1));
      if (p.mask || n - j < SP_LANES) w = sp_select_i32(sp_eq_i32(v, unseen), zero, w);
      sum = sp_add_i32(sum, w);
    }
    if (p.pair) {
      sp_store_i16((int16_t *)(void *)e + j, w);
    } else {
      sp_store_u8(e + j, sp_shr_i32(w, 7));
      sp_store_u8(low + j, sp_and_i32(w, sp_set1_i32(127)));
    }
  }
  return sp_sum_i32(sum);
}

SP_INLINE void sp_attention_put_i8(const sp_attention_i8 p, void *y, ptrdiff_t at, sp_i32 v, int n) {
  if (p.put < 2) {
    sp_put_sum(p.put, y, at, v, n);
  } else {
    sp_storen_i16((int16_t *)y + at, v, n);
  }
}

/* Codes of a row whose weights sum up to `sum`, from nv vectors of totals. */
SP_INLINE void sp_attention_end_i8(const sp_attention_i8 p, int nv, int n, int32_t sum,
                                   const sp_i32 *total, void *y, ptrdiff_t at) {
  const sp_i32 away = sp_set1_i32((int32_t)((uint32_t)sum * (uint32_t)-p.zero_v));
  const sp_f32 each = sp_set1_f32(p.ratio / (float)(sum > 0 ? sum : 1));
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    sp_f32 c = sp_mul_f32(sp_cvt_i32_f32(sp_add_i32(total[v], away)), each);
    c = sp_minq_f32(sp_maxq_f32(c, sp_set1_f32((float)(p.lo - p.zero))),
                    sp_set1_f32((float)(p.hi - p.zero)));
    sp_attention_put_i8(p, y, at + v * SP_LANES,
                        sp_add_i32(sp_rne_f32_i32(c), sp_set1_i32(p.zero)),
                        v == nv - 1 ? n : SP_LANES);
  }
}

/* m rows of y at distance p.ys from their weights over `quads` quads of keys: vectors [j, j + nv) of
 * features, n lanes of the last. */
SP_INLINE void sp_attention_sums_i8(const sp_attention_i8 p, int m, int nv, int n, int quads,
                                    const uint8_t *e, ptrdiff_t plane, const int8_t *values,
                                    const int32_t *sums, void *y, ptrdiff_t at) {
#if SP_MATRIX
  if (p.matrix) {
    SP_ALIGN(64) int32_t high[SP_MATRIX_PIXELS * SP_LANES], low[SP_MATRIX_PIXELS * SP_LANES];
    sp_attention_digits_matrix(p, m, nv, quads, e, plane, values, high, low);
    for (int i = 0; i < m; ++i) {
      sp_i32 total[4];
      SP_UNROLL
      for (int v = 0; v < nv; ++v)
        total[v] = sp_add_i32(sp_shl_i32(sp_load_i32(high + (i * nv + v) * SP_LANES), 7),
                              sp_load_i32(low + (i * nv + v) * SP_LANES));
      sp_attention_end_i8(p, nv, n, sums[i], total, y, at + i * p.ys);
    }
    return;
  }
#endif
  const sp_tile_i8 t =
      sp_pack_tile(p.pair, m, nv, quads, sp_attention_tq(p), sp_attention_line(p));
  sp_i32 acc[SP_TILE_I8_MAX];
  SP_UNROLL
  for (int i = 0; i < m * nv; ++i) acc[i] = sp_set1_i32(0);
  sp_tile_dots_i8(t, e, values, acc);
  if (p.wide) {
    SP_UNROLL
    for (int i = 0; i < m * nv; ++i)
      acc[i] = sp_shr_i32(sp_add_i32(acc[i], sp_set1_i32(128)), 8);
    sp_tile_dots_i8(t, e, values + sp_attention_plane(p), acc);
  } else if (!p.pair) {
    SP_UNROLL
    for (int i = 0; i < m * nv; ++i) acc[i] = sp_shl_i32(acc[i], 7);
    sp_tile_dots_i8(t, e + plane, values, acc);
  }
  SP_UNROLL
  for (int i = 0; i < m; ++i)
    sp_attention_end_i8(p, nv, n, sums[i], acc + i * nv, y, at + i * p.ys);
}

/* Rows [row, row + m) of a head: q and the mask at the first of them, y at element `at`. */
SP_INLINE void sp_attention_block_i8(const sp_attention_i8 p, int m, int row, const uint8_t *q,
                                     const int8_t *keys, const int32_t *start, const int8_t *values,
                                     const int32_t *mask, void *y, ptrdiff_t at, uint8_t *qs,
                                     int32_t *s, uint8_t *e) {
  const int quads = sp_attention_kq(p), line = sp_attention_line(p);
  const ptrdiff_t ld = sp_attention_codes_ld(p), plane = (ptrdiff_t)p.mr * line;
  const ptrdiff_t last = p.causal ? sp_imax(0, sp_imin(p.keys, row + m + p.offset)) : p.keys;
  const int all = (int)last, vectors = sp_up_to(p.e, SP_LANES) / SP_LANES;
  const int used = sp_up_to(sp_pack_quads(p.pair, all), (int)sp_imax(p.along, 1));
  int32_t sums[SP_TILE_I8_MAX];
  for (int i = 0; i < m; ++i) {
    const uint8_t *const from = q + sp_attention_bytes(p, i * p.qs);
    uint8_t *const to = qs + 4 * i * quads;
    if (p.wide)
      sp_pack_row_i16(p.d, quads, (const int16_t *)(const void *)from, p.lost_q,
                      (int16_t *)(void *)to);
    else
      sp_pack_row_i8(p.pair, p.d, quads, from, p.flip_q, to);
  }
  sp_attention_scores_i8(p, m, sp_up_to(all, SP_LANES) / SP_LANES, qs, keys, start, s, ld);
  for (int i = 0; i < m; ++i) {
    const ptrdiff_t n = p.causal ? sp_imax(0, sp_imin(p.keys, row + i + 1 + p.offset)) : p.keys;
    sums[i] = sp_attention_weights_i8(p, (int)n, used * sp_pack_per(p.pair), s + i * ld,
                                      p.mask ? mask + i * p.ms : mask, e + i * line,
                                      e + plane + i * line);
  }
  {
    const ptrdiff_t bv = (ptrdiff_t)sp_attention_tq(p) * 4 * SP_LANES;
    const int whole = p.e / SP_LANES / p.ne * p.ne, rest = p.e - whole * SP_LANES;
    for (int j = 0; j < whole; j += p.ne)
      sp_attention_sums_i8(p, m, p.ne, SP_LANES, used, e, plane, values + j * bv, sums, y,
                           at + j * SP_LANES);
    if (rest > 0)
      sp_attention_sums_i8(p, m, vectors - whole, rest - (vectors - whole - 1) * SP_LANES, used, e,
                           plane, values + whole * bv, sums, y, at + whole * SP_LANES);
  }
}

/* Keys and values of a head. */
SP_INLINE void sp_attention_pack_i8(const sp_attention_i8 p, const uint8_t *k, const uint8_t *v,
                                    int32_t *keys, int32_t *values) {
  const int quads = sp_attention_kq(p), along = sp_attention_tq(p);
  if (p.wide) {
    sp_pack_columns_i16(p.keys, p.d, quads, (const int16_t *)(const void *)k, p.ks, p.lost_k, keys);
    sp_pack_digits_i16(p.e, p.keys, along, (const int16_t *)(const void *)v, p.vs, values,
                       values + sp_attention_plane(p) / 4);
  } else {
    sp_pack_columns_i8(p.pair, p.keys, p.d, quads, k, p.ks, p.flip_k, keys);
    sp_pack_rows_i8(p.pair, p.e, p.keys, along, v, p.vs, p.flip_v, values);
  }
}

SP_INLINE void sp_attention_i8_run(const sp_attention_i8 p, const void *q, const void *k,
                                   const void *v, const int32_t *mask, void *y, int32_t *work,
                                   int task) {
  const int at_head = task / p.parts, b = at_head / p.groups, g = at_head % p.groups;
  const int row = task % p.parts * p.share, end = (int)sp_imin(p.rows, row + p.share);
  const int quads = sp_attention_kq(p), keys = sp_attention_codes_ld(p);
  int32_t *packed = work, *start = packed + (ptrdiff_t)keys * quads, *s = start + keys;
  int8_t *values = (int8_t *)(void *)(s + (ptrdiff_t)p.mr * keys);
  uint8_t *qs = (uint8_t *)values + (p.wide ? 2 : 1) * sp_attention_plane(p);
  uint8_t *e = qs + 4 * (ptrdiff_t)p.mr * quads;
  const int8_t *const bytes = (const int8_t *)(const void *)packed;
  const int tail = p.rows % p.mr;
  sp_attention_pack_i8(p, (const uint8_t *)k + sp_attention_bytes(p, b * p.kb + g * p.kh),
                       (const uint8_t *)v + sp_attention_bytes(p, b * p.vb + g * p.vh), packed,
                       (int32_t *)(void *)values);
  /* what a zero point of k adds to a row falls out; keys past the last have no weight */
  sp_pack_start_i8(p.pair, sp_up_to(p.keys, SP_LANES) / SP_LANES, p.d, quads, packed, p.zero_q, qs, start);
  for (int r = 0; r < p.repeat; ++r) {
    const int head = g * p.repeat + r;
    const uint8_t *qh =
        (const uint8_t *)q + sp_attention_bytes(p, b * p.qb + head * p.qh);
    const int32_t *mh = p.mask ? mask + b * p.mb + head * p.mh : mask;
    const ptrdiff_t at = b * p.yb + head * p.yh;
    for (int i = row; i + p.mr <= end; i += p.mr)
      sp_attention_block_i8(p, p.mr, i, qh + sp_attention_bytes(p, i * p.qs), bytes, start, values,
                            mh + i * p.ms, y, at + i * p.ys, qs, s, e);
    if (tail > 0 && end == p.rows) {
      const int i = p.rows - tail;
      sp_attention_block_i8(p, tail, i, qh + sp_attention_bytes(p, i * p.qs), bytes, start, values,
                            mh + i * p.ms, y, at + i * p.ys, qs, s, e);
    }
  }
#if SP_MATRIX
  if (p.matrix) sp_matrix_release();
#endif
}
#endif
