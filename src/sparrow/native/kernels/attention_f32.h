/* Scaled dot-product attention: y = softmax(cap(scale * q k') + mask) v, head by head.
 *
 * One task is one key head of one sequence with all the query heads that read it.
 * Keys are packed once into panels of SP_LANES keys, so that scores come out as vectors along the
 * keys; then for every block of mr rows: scores, softmax in place, product with the values. The
 * scores of a block stay in the level-1 cache. Few rows (decoding one token) would not repay the
 * packing: with packed = 0 every score is a dot product along the features.
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
 *   mr, nk, ne              rows of a block; vectors of keys and of features in one register tile
 *   q*, k*, v*, y*, m*      distances: *b sequence, *h head, *s row or key; ms row, mt key
 *   mask                    whether m is read; mt is 0 or 1
 *   softcap                 0 is none;  causal: row i sees keys j <= i + offset
 *   blind_nan               a row that sees no key is NaN, not 0
 *   pair                    q, k and v are bfloat16: d, q* and k* count pairs of features
 *   half                    y is bfloat16
 *   matrix, along           of pairs of features and of keys a step in matrix registers, else 0: mr
 *                           rows then take up to four of them */
typedef struct sp_attention {
  int batch, groups, repeat, rows, keys, d, e;
  int mr, nk, ne, packed, mask, causal, blind_nan, pair, half, matrix, along;
  ptrdiff_t offset;
  float scale, softcap;
  ptrdiff_t qb, qh, qs, kb, kh, ks, vb, vh, vs, yb, yh, ys, mb, mh, ms, mt;
} sp_attention;

SP_INLINE int sp_attention_panels(const sp_attention p) {
  return (p.keys + SP_LANES - 1) / SP_LANES;
}

/* Scores of a row in memory: whole tiles. */
SP_INLINE ptrdiff_t sp_attention_ld(const sp_attention p) {
  const int tile = p.matrix ? p.nk : 1;
  return (ptrdiff_t)(sp_attention_panels(p) + tile - 1) / tile * tile * SP_LANES;
}

/* Pairs of the first `keys` keys, whole steps. */
SP_INLINE int sp_attention_pairs(const sp_attention p, int keys) {
  const int step = p.along ? p.along : 1;
  return ((keys + 1) / 2 + step - 1) / step * step;
}

/* Floats of work memory: packed keys, packed values, then the scores of a block. */
SP_INLINE ptrdiff_t sp_attention_values_at(const sp_attention p) {
  return p.packed ? sp_attention_ld(p) * p.d : 0;
}
SP_INLINE ptrdiff_t sp_attention_scores_at(const sp_attention p) {
  const ptrdiff_t vectors = (p.e + SP_LANES - 1) / SP_LANES;
  return sp_attention_values_at(p) +
         (p.pair ? vectors * SP_LANES * sp_attention_pairs(p, p.keys) : 0);
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
                      (int32_t *)(void *)sums, ld);
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

/* Vector j of a row of scores, finished: scaled, capped, masked; lanes past `keys` are -inf. */
SP_INLINE sp_f32 sp_attention_finish_f32(const sp_attention p, sp_f32 v, const float *m, int j,
                                         int keys) {
  v = sp_mul_f32(v, sp_set1_f32(p.scale));
  if (p.softcap > 0.0f) {
    const sp_f32 cap = sp_set1_f32(p.softcap);
    v = sp_mul_f32(sp_tanh_f32(sp_div_f32(v, cap)), cap);
  }
  if (p.mask)
    v = sp_add_f32(v, p.mt ? sp_loadn_f32(m + j, (int)sp_imin(SP_LANES, p.keys - j))
                           : sp_set1_f32(m[0]));
  if (j + SP_LANES > keys)
    v = sp_select_f32(sp_gt_i32(sp_set1_i32(keys - j), sp_iota_i32()), v,
                      sp_attention_never_f32());
  return v;
}

/* Softmax of a row in place, without the division: scores become exponentials, the factor that
 * makes them probabilities is returned. Vectors up to `keys` rounded up are written; bfloat16 to
 * the first half of the row, which has been read by then. Nothing becomes subnormal: some processors
 * take a hundred times as long for that. */
SP_INLINE float sp_attention_softmax_f32(const sp_attention p, float *s, const float *m, int keys) {
  sp_f32 top = sp_attention_never_f32(), total = sp_zero_f32();
  for (int j = 0; j < keys; j += SP_LANES) {
    const sp_f32 v = sp_attention_finish_f32(p, sp_load_f32(s + j), m, j, keys);
    sp_store_f32(s + j, v);
    /* a NaN is passed over here and comes back with the sum */
    top = sp_maxq_f32(v, top);
  }
  const float most = sp_hmax_f32(top);
  const sp_f32 shift = sp_set1_f32(most < -3.4028235e38f ? 0.0f : most);
  for (int j = 0; j < keys; j += SP_LANES) {
    const sp_f32 v = sp_exp_below_f32(sp_sub_f32(sp_load_f32(s + j), shift));
    sp_put_out(p.pair, s, j, v, SP_LANES);
    total = sp_add_f32(total, v);
  }
  const float sum = sp_sum_f32(total);
  /* with blind_nan: infinity, which times the 0 that such a row adds up to is NaN */
  return sum == 0.0f && !p.blind_nan ? 0.0f : 1.0f / sum;
}

/* y[i] = factor[i] * sum_j s[i][j] v[j] for features [col, ..), the last vector with `lanes`; y at
 * element `at`. v is packed where it is bfloat16. */
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
    sp_tile_mac_f32(t, acc, 0, n, s, 0, v, p.pair ? sp_attention_pairs(p, keys) : keys);
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

/* n rows of one head from row `row` on, which is y's element `at`. */
SP_INLINE void sp_attention_block_f32(const sp_attention p, int n, int row, const float *q,
                                      const float *k, const float *v, const float *m, void *y,
                                      ptrdiff_t at, float *work) {
  const int keys = sp_attention_seen(p, row, n);
  const ptrdiff_t ld = sp_attention_ld(p);
  const ptrdiff_t each = p.pair ? (ptrdiff_t)sp_attention_pairs(p, p.keys) * SP_LANES : SP_LANES;
  float *s = work + sp_attention_scores_at(p);
  float factor[SP_TILE_MAX];
  const int full = p.e / SP_LANES, rest = p.e - full * SP_LANES;
  q += row * p.qs;
  at += row * p.ys;
  if (p.packed) {
    sp_attention_scores_f32(p, n, q, work, s, ld, keys);
  } else {
    for (int i = 0; i < n; ++i) sp_attention_dots_f32(p, q + i * p.qs, k, s + i * ld, keys);
  }
  for (int i = 0; i < n; ++i) {
    const int own = sp_attention_seen(p, row + i, 1);
    const int read = p.pair ? 2 * sp_attention_pairs(p, keys) : keys;
    factor[i] = sp_attention_softmax_f32(p, s + i * ld, m + (row + i) * p.ms, own);
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

/* work: sp_attention_scores_at floats and mr * sp_attention_ld more. Rows past the last whole block are
 * one more, or blocks of their own. */
SP_INLINE void sp_attention_run(const sp_attention p, const void *qp, const void *kp, const void *vp,
                                const float *m, void *y, float *work, int task) {
  const int b = task / p.groups, g = task % p.groups, tail = p.matrix ? p.rows % p.mr : 1;
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
    const float *qh = (const float *)qp + b * p.qb + head * p.qh;
    const float *mh = m + (p.mask ? b * p.mb + head * p.mh : 0);
    const ptrdiff_t at = b * p.yb + head * p.yh;
    int row = 0;
    for (; row + p.mr <= p.rows; row += p.mr)
      sp_attention_block_f32(p, p.mr, row, qh, k, v, mh, y, at, work);
    for (; row < p.rows; row += tail)
      sp_attention_block_f32(p, tail, row, qh, k, v, mh, y, at, work);
  }
#if SP_MATRIX
  if (p.matrix) sp_matrix_release();
#endif
}

#endif
