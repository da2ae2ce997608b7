/* Scaled dot-product attention: y = softmax(cap(scale * q k') + mask) v, head by head.
 *
 * One task is one key head of one sequence with all the query heads that read it, or `share` rows of
 * these where there are fewer heads than threads to share them.
 * Keys are packed once into panels of SP_LANES keys, so that scores come out as vectors along the
 * keys; then for every block of mr rows: scores, softmax in place, product with the values. Few rows
 * (decoding one token) would not repay the packing: with packed = 0 every score is a dot product along
 * the features.
 * The scores of a block stay in the level-1 cache: of many keys they are those of `chunk` keys. The
 * greatest score, the sum and the result of `held` rows are then of the keys so far, and scaled down
 * when a greater score comes (online softmax: Milakov and Gimelshein 2018, arXiv:1805.02867; in tiles
 * as Dao et al. 2022, arXiv:2205.14135), so that a chunk of keys and values serves that many rows
 * while it is near.
 * Rows that may see no key become zero, or NaN with blind_nan.
 * Over bfloat16 two features, and two keys, are one element: their products are summed in float32, and
 * the weights of a row are rounded before they meet the values, which are packed as well. */
#ifndef SP_ATTENTION_F32_H
#define SP_ATTENTION_F32_H

#include "../base.h"
#include "math.h"
#include "tile_f32.h"
#include "tile_matrix.h"
#include "transpose.h"

/* Every field is a literal in emitted code.
 *   batch, groups, repeat   sequences, key heads, query heads per key head
 *   rows, keys, d, e        query rows of a head, keys, features of keys and of values
 *   parts, share            tasks of a key head, and their rows: whole blocks
 *   mr, nk, ne              rows of a block; vectors of keys and of features in one register tile
 *   q*, k*, v*, y*, m*      distances: *b sequence, *h head, *s row or key; ms row, mt key
 *   mask                    whether m is read; mt is 0 or 1
 *   softcap                 0 is none;  causal: row i sees keys j <= i + offset
 *   blind_nan               a row that sees no key is NaN, not 0
 *   pair                    q, k and v are bfloat16: d, q* and k* count pairs of features
 *   half                    y is bfloat16
 *   chunk, held             whole vectors of keys at a time, and of how many rows, else 0: all keys
 *   matrix, along           of pairs of features and of keys a step in matrix registers, else 0: mr
 *                           rows then take up to four of them */
typedef struct sp_attention {
  int batch, groups, repeat, rows, keys, d, e, parts, share;
  int mr, nk, ne, packed, mask, causal, blind_nan, pair, half, matrix, along, chunk, held;
  ptrdiff_t offset;
  float scale, softcap;
  ptrdiff_t qb, qh, qs, kb, kh, ks, vb, vh, vs, yb, yh, ys, mb, mh, ms, mt;
} sp_attention;

SP_INLINE int sp_attention_panels(const sp_attention p) {
  return (p.keys + SP_LANES - 1) / SP_LANES;
}

/* Keys of a row in memory: whole tiles. */
SP_INLINE ptrdiff_t sp_attention_wide(const sp_attention p) {
  const int tile = p.matrix ? p.nk : 1;
  return (ptrdiff_t)(sp_attention_panels(p) + tile - 1) / tile * tile * SP_LANES;
}

/* Scores of a row in memory. */
SP_INLINE ptrdiff_t sp_attention_ld(const sp_attention p) {
  return p.chunk ? p.chunk : sp_attention_wide(p);
}

/* Floats of a row's result in memory: whole vectors. */
SP_INLINE ptrdiff_t sp_attention_result(const sp_attention p) {
  return (ptrdiff_t)(p.e + SP_LANES - 1) / SP_LANES * SP_LANES;
}

/* Pairs of the first `keys` keys, whole steps. */
SP_INLINE int sp_attention_pairs(const sp_attention p, int keys) {
  const int step = p.along ? p.along : 1;
  return ((keys + 1) / 2 + step - 1) / step * step;
}

/* Floats of work memory: packed keys, packed values, the scores of a block, then, with chunks, of
 * every row that is held its result, its greatest score and its sum. */
SP_INLINE ptrdiff_t sp_attention_values_at(const sp_attention p) {
  return p.packed ? sp_attention_wide(p) * p.d : 0;
}
SP_INLINE ptrdiff_t sp_attention_scores_at(const sp_attention p) {
  return sp_attention_values_at(p) +
         (p.pair ? sp_attention_result(p) * sp_attention_pairs(p, p.keys) : 0);
}
SP_INLINE ptrdiff_t sp_attention_held_at(const sp_attention p) {
  return sp_attention_scores_at(p) + p.mr * sp_attention_ld(p);
}

/* Keys [t][d] to panels [t / L][d][L]; keys past the last are zero. */
SP_INLINE void sp_attention_pack_f32(const sp_attention p, const float *k, float *to) {
  for (int j = 0; j < sp_attention_panels(p); ++j) {
    const int n = (int)sp_imin(SP_LANES, p.keys - j * SP_LANES);
    float *panel = to + (ptrdiff_t)j * p.d * SP_LANES;
    if (n < SP_LANES) {
      for (int c = 0; c < p.d; ++c) sp_store_f32(panel + c * SP_LANES, sp_zero_f32());
    }
    sp_transpose_32(panel, SP_LANES, k + (ptrdiff_t)j * SP_LANES * p.ks, p.ks, p.d, n);
  }
}

/* Values [t][e] of bfloat16 to [e / L][t / 2][L] pairs of keys; those past the last are zero. */
SP_INLINE void sp_attention_pack_values(const sp_attention p, const uint16_t *v, float *to) {
  for (int c = 0; c < p.e; c += SP_LANES) {
    const int n = (int)sp_imin(SP_LANES, p.e - c);
    for (int t = 0; t < sp_attention_pairs(p, p.keys); ++t, to += SP_LANES) {
      const uint16_t *const row = v + 2 * t * p.vs + c;
      const sp_f32 none = sp_zero_f32();
      const sp_f32 low = 2 * t < p.keys ? sp_loadn_bf16(row, n) : none;
      const sp_f32 high = 2 * t + 1 < p.keys ? sp_loadn_bf16(row + p.vs, n) : none;
      sp_storeq_i32(to, sp_or_i32(sp_shru_i32(sp_bits_f32(low), 16), sp_bits_f32(high)));
    }
  }
}

/* Keys that some row of [row, row + n) sees: those before the result. */
SP_INLINE int sp_attention_seen(const sp_attention p, int row, int n) {
  if (!p.causal) return p.keys;
  return (int)sp_imax(0, sp_imin(p.keys, row + n + p.offset));
}

/* Scores of rows [0, n) against keys [0, keys): s[i * ld + j] = q[i] . k[j]. */
SP_INLINE void sp_attention_tiles_f32(const sp_attention p, int n, int nk, const float *q,
                                      const float *panel, float *s, ptrdiff_t ld) {
  sp_f32 acc[SP_TILE_MAX];
  const sp_tile t = {.mr = n, .nv = nk, .ku = 1, .ai = p.qs, .ak = 1,
                     .bv = (ptrdiff_t)p.d * SP_LANES, .bk = SP_LANES, .bn = SP_LANES, .pf = 0,
                     .pair = p.pair, .every = 1};
  sp_tile_zero_f32(t, acc);
  sp_tile_mac_f32(t, acc, 0, n, q, 0, panel, p.d);
  SP_UNROLL
  for (int i = 0; i < n; ++i) {
    SP_UNROLL
    for (int v = 0; v < nk; ++v) sp_store_f32(s + i * ld + v * SP_LANES, acc[i * nk + v]);
  }
}

#if SP_MATRIX
/* Sums of n rows of k pairs times nv vectors, `vector` floats apart, in steps of so many. */
SP_INLINE void sp_attention_matrix(int n, int nv, int k, int step, const float *rows, ptrdiff_t row,
                                   const float *packed, ptrdiff_t vector, float *sums,
                                   ptrdiff_t ld) {
  const sp_tile_i8 t = {.mr = n, .nv = nv, .kh = 1, .runs = 1, .kq = k, .xp = 4 * row,
                        .bv = 4 * vector, .quad = 4 * SP_LANES, .matrix = step,
                        .kind = SP_MATRIX_BF16};
  sp_tile_matrix_sums(t, (const uint8_t *)rows, (const int8_t *)packed, sp_matrix_none,
                      (int32_t *)(void *)sums, ld, NULL);
}
#endif

SP_INLINE void sp_attention_scores_f32(const sp_attention p, int n, const float *q,
                                       const float *panels, float *s, ptrdiff_t ld, int keys) {
  const int all = (keys + SP_LANES - 1) / SP_LANES;
  int j = 0;
#if SP_MATRIX
  if (p.matrix) {
    sp_tile_matrix_shape(n, p.nk, p.matrix);
    for (; j < all; j += p.nk)
      sp_attention_matrix(n, p.nk, p.d, p.matrix, q, p.qs, panels + (ptrdiff_t)j * p.d * SP_LANES,
                          (ptrdiff_t)p.d * SP_LANES, s + (ptrdiff_t)j * SP_LANES, ld);
    return;
  }
#endif
  for (; j + p.nk <= all; j += p.nk)
    sp_attention_tiles_f32(p, n, p.nk, q, panels + (ptrdiff_t)j * p.d * SP_LANES,
                           s + (ptrdiff_t)j * SP_LANES, ld);
  for (; j < all; ++j)
    sp_attention_tiles_f32(p, n, 1, q, panels + (ptrdiff_t)j * p.d * SP_LANES,
                           s + (ptrdiff_t)j * SP_LANES, ld);
}

/* The same for one row and keys as they lie. */
SP_INLINE void sp_attention_dots_f32(const sp_attention p, const float *q, const float *k, float *s,
                                     int keys) {
  const int full = p.d / SP_LANES * SP_LANES, rest = p.d - full;
  for (int j = 0; j < keys; ++j) {
    const float *kj = k + j * p.ks;
    sp_f32 sum = rest > 0 ? sp_mul_f32(sp_loadn_f32(q + full, rest), sp_loadn_f32(kj + full, rest))
                          : sp_zero_f32();
    for (int c = 0; c < full; c += SP_LANES)
      sum = sp_fma_f32(sp_load_f32(q + c), sp_load_f32(kj + c), sum);
    s[j] = sp_sum_f32(sum);
  }
}

/* -inf, which no arithmetic on the way can give by accident. */
SP_INLINE sp_f32 sp_attention_never_f32(void) {
  return sp_neg_f32(sp_from_bits_f32(sp_set1_i32(0x7f800000)));
}

/* Scores of keys from first + j on, finished: scaled, capped, masked; lanes past `keys` are -inf. */
SP_INLINE sp_f32 sp_attention_finish_f32(const sp_attention p, sp_f32 v, const float *m, int first,
                                         int j, int keys) {
  v = sp_mul_f32(v, sp_set1_f32(p.scale));
  if (p.softcap > 0.0f) {
    const sp_f32 cap = sp_set1_f32(p.softcap);
    v = sp_mul_f32(sp_tanh_f32(sp_div_f32(v, cap)), cap);
  }
  if (p.mask)
    v = sp_add_f32(v, p.mt ? sp_loadn_f32(m + first + j, (int)sp_imin(SP_LANES, p.keys - first - j))
                           : sp_set1_f32(m[0]));
  if (j + SP_LANES > keys)
    v = sp_select_f32(sp_gt_i32(sp_set1_i32(keys - j), sp_iota_i32()), v,
                      sp_attention_never_f32());
  return v;
}

/* Scores of keys [first, first + keys) of a row become exponentials in place, less the greatest score
 * so far; `top` and `sum` are those so far. Returns the factor of what was added up before. Vectors up
 * to `keys` rounded up are written; bfloat16 to the first half of the row, which has been read by
 * then. Nothing becomes subnormal: some processors take a hundred times as long for that. */
SP_INLINE float sp_attention_exp_f32(const sp_attention p, float *s, const float *m, int first,
                                     int keys, float *top, float *sum) {
  sp_f32 greatest = sp_set1_f32(*top), total = sp_zero_f32();
  for (int j = 0; j < keys; j += SP_LANES) {
    const sp_f32 v = sp_attention_finish_f32(p, sp_load_f32(s + j), m, first, j, keys);
    sp_store_f32(s + j, v);
    /* a NaN is passed over here and comes back with the sum */
    greatest = sp_maxq_f32(v, greatest);
  }
  const float most = sp_hmax_f32(greatest);
  const sp_f32 shift = sp_set1_f32(most < -3.4028235e38f ? 0.0f : most);
  for (int j = 0; j < keys; j += SP_LANES) {
    const sp_f32 v = sp_exp_below_f32(sp_sub_f32(sp_load_f32(s + j), shift));
    sp_put_out(p.pair, s, j, v, SP_LANES);
    total = sp_add_f32(total, v);
  }
  const float scale =
      p.chunk ? sp_hmax_f32(sp_exp_below_f32(sp_sub_f32(sp_set1_f32(*top), shift))) : 0.0f;
  *sum = *sum * scale + sp_sum_f32(total);
  *top = most;
  return scale;
}

/* What makes probabilities of exponentials that add up to `sum`. */
SP_INLINE float sp_attention_factor(const sp_attention p, float sum) {
  /* with blind_nan: infinity, which times the 0 that such a row adds up to is NaN */
  return sum == 0.0f && !p.blind_nan ? 0.0f : 1.0f / sum;
}

/* y[i] = factor[i] * sum_j s[i][j] v[j] for ne vectors of features, the last with `lanes`; y at
 * element `at`. With chunks y[i] = factor[i] y[i] + sum_j s[i][j] v[j], in whole vectors. v is packed
 * where it is bfloat16. */
SP_INLINE void sp_attention_values_f32(const sp_attention p, int n, int ne, int lanes,
                                       const float *s, ptrdiff_t ld, const float *factor,
                                       const float *v, void *y, ptrdiff_t at, int keys) {
  const ptrdiff_t vector = sp_attention_pairs(p, p.keys) * SP_LANES;
  SP_ALIGN(64) sp_f32 acc[SP_TILE_MAX];
#if SP_MATRIX
  if (p.matrix) {
    sp_tile_matrix_shape(n, ne, p.along);
    sp_attention_matrix(n, ne, sp_attention_pairs(p, keys), p.along, s, ld, v, vector, (float *)acc,
                        ne * SP_LANES);
  } else
#endif
  {
    const sp_tile t = {.mr = n, .nv = ne, .ku = 1, .ai = ld, .ak = 1,
                       .bv = p.pair ? vector : SP_LANES, .bk = p.pair ? SP_LANES : p.vs,
                       .bn = p.pair ? SP_LANES : lanes, .pf = 0, .pair = p.pair, .every = 1};
    sp_tile_zero_f32(t, acc);
    if (p.chunk) {
      float *const so_far = (float *)y + at;
      SP_UNROLL
      for (int i = 0; i < n; ++i) {
        SP_UNROLL
        for (int c = 0; c < ne; ++c)
          acc[i * ne + c] =
              sp_mul_f32(sp_load_f32(so_far + i * sp_attention_result(p) + c * SP_LANES),
                         sp_set1_f32(factor[i]));
      }
    }
    sp_tile_mac_f32(t, acc, 0, n, s, 0, v, p.pair ? sp_attention_pairs(p, keys) : keys);
    if (p.chunk) {
      float *const so_far = (float *)y + at;
      SP_UNROLL
      for (int i = 0; i < n; ++i) {
        SP_UNROLL
        for (int c = 0; c < ne; ++c)
          sp_store_f32(so_far + i * sp_attention_result(p) + c * SP_LANES, acc[i * ne + c]);
      }
      return;
    }
  }
  SP_UNROLL
  for (int i = 0; i < n; ++i) {
    SP_UNROLL
    for (int c = 0; c < ne; ++c)
      sp_put_out(p.half, y, at + i * p.ys + c * SP_LANES,
                 sp_mul_f32(acc[i * ne + c], sp_set1_f32(factor[i])),
                 c == ne - 1 ? lanes : SP_LANES);
  }
}

/* One head: its queries, keys, values and mask; y and the element of it that its first row is. */
typedef struct sp_attention_head {
  const float *q, *k, *v, *m;
  void *y;
  ptrdiff_t at;
} sp_attention_head;

/* Keys so far of a row: the greatest score, the sum of exponentials and, with chunks, the result. */
typedef struct sp_attention_sofar {
  float *top, *sum, *y;
} sp_attention_sofar;

/* n rows from row `row` on over the keys from `first` on: all of them, or a chunk. */
SP_INLINE void sp_attention_block_f32(const sp_attention p, const sp_attention_head h, int n,
                                      int row, int first, const sp_attention_sofar x, float *work) {
  const int seen = sp_attention_seen(p, row, n) - first;
  const int keys = p.chunk ? (int)sp_imin(p.chunk, seen) : seen;
  const ptrdiff_t ld = sp_attention_ld(p);
  const ptrdiff_t each = p.pair ? (ptrdiff_t)sp_attention_pairs(p, p.keys) * SP_LANES : SP_LANES;
  const float *const q = h.q + row * p.qs, *const v = h.v + first * p.vs;
  void *const y = p.chunk ? x.y : h.y;
  const ptrdiff_t at = p.chunk ? 0 : h.at + row * p.ys;
  float *s = work + sp_attention_scores_at(p);
  float factor[SP_TILE_MAX];
  const int full = p.e / SP_LANES, rest = p.e - full * SP_LANES;
  if (p.packed) {
    sp_attention_scores_f32(p, n, q, work + (ptrdiff_t)first * p.d, s, ld, keys);
  } else {
    for (int i = 0; i < n; ++i) sp_attention_dots_f32(p, q + i * p.qs, h.k, s + i * ld, keys);
  }
  for (int i = 0; i < n; ++i) {
    const int own = (int)sp_imax(0, sp_imin(keys, sp_attention_seen(p, row + i, 1) - first));
    const int read = p.pair ? 2 * sp_attention_pairs(p, keys) : keys;
    factor[i] = sp_attention_exp_f32(p, s + i * ld, h.m + (row + i) * p.ms, first, own, x.top + i,
                                     x.sum + i);
    if (!p.chunk) factor[i] = sp_attention_factor(p, x.sum[i]);
    for (int j = (own + SP_LANES - 1) / SP_LANES * SP_LANES; j < read; j += SP_LANES)
      sp_put_out(p.pair, s + i * ld, j, sp_zero_f32(), SP_LANES);
  }
  int c = 0;
  for (; c + p.ne <= full; c += p.ne)
    sp_attention_values_f32(p, n, p.ne, SP_LANES, s, ld, factor, v + c * each, y, at + c * SP_LANES,
                            keys);
  for (; c < full; ++c)
    sp_attention_values_f32(p, n, 1, SP_LANES, s, ld, factor, v + c * each, y, at + c * SP_LANES,
                            keys);
  if (rest > 0)
    sp_attention_values_f32(p, n, 1, rest, s, ld, factor, v + full * each, y, at + full * SP_LANES,
                            keys);
}

/* Rows [row, end), chunk by chunk of the keys that they see. */
SP_INLINE void sp_attention_chunks_f32(const sp_attention p, const sp_attention_head h, int row,
                                       int end, float *work) {
  const ptrdiff_t wide = sp_attention_result(p);
  const int seen = sp_attention_seen(p, row, end - row), rows = end - row;
  float *const y = work + sp_attention_held_at(p);
  float *const top = y + p.held * wide, *const sum = top + p.held;
  for (int i = 0; i < rows; ++i) {
    for (ptrdiff_t c = 0; c < wide; c += SP_LANES) sp_store_f32(y + i * wide + c, sp_zero_f32());
    top[i] = sp_hmax_f32(sp_attention_never_f32());
    sum[i] = 0.0f;
  }
  for (int first = 0; first < seen; first += p.chunk) {
    for (int i = 0; i < rows; i += p.mr) {
      const sp_attention_sofar x = {top + i, sum + i, y + i * wide};
      const int n = (int)sp_imin(p.mr, rows - i);
      if (first >= sp_attention_seen(p, row + i, n)) continue;
      if (n == p.mr)
        sp_attention_block_f32(p, h, p.mr, row + i, first, x, work);
      else
        sp_attention_block_f32(p, h, p.rows % p.mr, row + i, first, x, work);
    }
  }
  for (int i = 0; i < rows; ++i) {
    const sp_f32 factor = sp_set1_f32(sp_attention_factor(p, sum[i]));
    for (int c = 0; c < p.e; c += SP_LANES)
      sp_put_out(p.half, h.y, h.at + (row + i) * p.ys + c,
                 sp_mul_f32(sp_load_f32(y + i * wide + c), factor),
                 (int)sp_imin(SP_LANES, p.e - c));
  }
}

/* Rows [row, end) of one head; those past the last whole block are one more. */
SP_INLINE void sp_attention_head_f32(const sp_attention p, const sp_attention_head h, int row,
                                     int end, float *work) {
  for (; p.chunk && row < end; row += p.held)
    sp_attention_chunks_f32(p, h, row, (int)sp_imin(row + p.held, end), work);
  for (; row < end; row += p.mr) {
    float top[SP_TILE_MAX], sum[SP_TILE_MAX];
    const sp_attention_sofar x = {top, sum, sum};
    for (int i = 0; i < p.mr; ++i) {
      top[i] = sp_hmax_f32(sp_attention_never_f32());
      sum[i] = 0.0f;
    }
    if (row + p.mr <= end)
      sp_attention_block_f32(p, h, p.mr, row, 0, x, work);
    else
      sp_attention_block_f32(p, h, p.rows % p.mr, row, 0, x, work);
  }
}

/* work: sp_attention_held_at floats and held * (sp_attention_result + 2) more. */
SP_INLINE void sp_attention_run(const sp_attention p, const void *qp, const void *kp, const void *vp,
                                const float *m, void *y, float *work, int task) {
  const int at_head = task / p.parts, b = at_head / p.groups, g = at_head % p.groups;
  const int row = task % p.parts * p.share, end = (int)sp_imin(p.rows, row + p.share);
  const float *const k = (const float *)kp + b * p.kb + g * p.kh;
  const ptrdiff_t v_at = b * p.vb + g * p.vh;
  const float *v = (const float *)vp + v_at;
  if (p.packed) sp_attention_pack_f32(p, k, work);
  if (p.pair) {
    float *const to = work + sp_attention_values_at(p);
    sp_attention_pack_values(p, (const uint16_t *)vp + v_at, to);
    v = to;
  }
  for (int i = 0; i < p.repeat; ++i) {
    const ptrdiff_t head = (ptrdiff_t)g * p.repeat + i;
    const sp_attention_head h = {.q = (const float *)qp + b * p.qb + head * p.qh, .k = k, .v = v,
                                 .m = m + (p.mask ? b * p.mb + head * p.mh : 0), .y = y,
                                 .at = b * p.yb + head * p.yh};
    sp_attention_head_f32(p, h, row, end, work);
  }
#if SP_MATRIX
  if (p.matrix) sp_matrix_release();
#endif
}

#endif
