/* Scaled dot-product attention: y = softmax(cap(scale * q k') + mask) v, head by head.
 *
 * One task is one key head of one sequence with all the query heads that read it.
 * Keys are packed once into panels of SP_LANES keys, so that scores come out as vectors along the
 * keys; then for every block of mr rows: scores, softmax in place, product with the values. The
 * scores of a block stay in the level-1 cache. Few rows (decoding one token) would not repay the
 * packing: with packed = 0 every score is a dot product along the features.
 * Rows that may see no key become zero, or NaN with blind_nan. */
#ifndef SP_ATTENTION_F32_H
#define SP_ATTENTION_F32_H

#include "../base.h"
#include "math.h"
#include "tile_f32.h"
#include "transpose.h"

/* Every field is a literal in emitted code.
 *   batch, groups, repeat   sequences, key heads, query heads per key head
 *   rows, keys, d, e        query rows of a head, keys, features of keys and of values
 *   mr, nk, ne              rows of a block; vectors of keys and of features in one register tile
 *   q*, k*, v*, y*, m*      distances: *b sequence, *h head, *s row or key; ms row, mt key
 *   mask                    whether m is read; mt is 0 or 1
 *   softcap                 0 is none;  causal: row i sees keys j <= i + offset
 *   blind_nan               a row that sees no key is NaN, not 0 */
typedef struct sp_attention {
  int batch, groups, repeat, rows, keys, d, e;
  int mr, nk, ne, packed, mask, causal, blind_nan;
  ptrdiff_t offset;
  float scale, softcap;
  ptrdiff_t qb, qh, qs, kb, kh, ks, vb, vh, vs, yb, yh, ys, mb, mh, ms, mt;
} sp_attention;

SP_INLINE int sp_attention_panels(const sp_attention p) {
  return (p.keys + SP_LANES - 1) / SP_LANES;
}

/* Floats of work memory: packed keys, then the scores of a block. */
SP_INLINE ptrdiff_t sp_attention_scores_at(const sp_attention p) {
  return p.packed ? (ptrdiff_t)sp_attention_panels(p) * SP_LANES * p.d : 0;
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
                     .every = 1};
  sp_tile_zero_f32(t, acc);
  sp_tile_mac_f32(t, acc, 0, n, q, 0, panel, p.d);
  SP_UNROLL
  for (int i = 0; i < n; ++i) {
    SP_UNROLL
    for (int v = 0; v < nk; ++v) sp_store_f32(s + i * ld + v * SP_LANES, acc[i * nk + v]);
  }
}

SP_INLINE void sp_attention_scores_f32(const sp_attention p, int n, const float *q,
                                       const float *panels, float *s, ptrdiff_t ld, int keys) {
  const int all = (keys + SP_LANES - 1) / SP_LANES;
  int j = 0;
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
 * makes them probabilities is returned. Vectors up to `keys` rounded up are written. Nothing becomes
 * subnormal: some processors take a hundred times as long for that. */
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
    sp_store_f32(s + j, v);
    total = sp_add_f32(total, v);
  }
  const float sum = sp_sum_f32(total);
  /* with blind_nan: infinity, which times the 0 that such a row adds up to is NaN */
  return sum == 0.0f && !p.blind_nan ? 0.0f : 1.0f / sum;
}

/* y[i] = factor[i] * sum_j s[i][j] v[j] for features [col, ..), the last vector with `lanes`. */
SP_INLINE void sp_attention_values_f32(const sp_attention p, int n, int ne, int lanes,
                                       const float *s, ptrdiff_t ld, const float *factor,
                                       const float *v, float *y, int keys) {
  sp_f32 acc[SP_TILE_MAX];
  const sp_tile t = {.mr = n, .nv = ne, .ku = 1, .ai = ld, .ak = 1, .bv = SP_LANES, .bk = p.vs,
                     .bn = lanes, .pf = 0, .every = 1};
  sp_tile_zero_f32(t, acc);
  sp_tile_mac_f32(t, acc, 0, n, s, 0, v, keys);
  SP_UNROLL
  for (int i = 0; i < n; ++i) {
    SP_UNROLL
    for (int c = 0; c < ne; ++c)
      sp_storen_f32(y + i * p.ys + c * SP_LANES,
                    sp_mul_f32(acc[i * ne + c], sp_set1_f32(factor[i])),
                    c == ne - 1 ? lanes : SP_LANES);
  }
}

/* n rows of one head from row `row` on. */
SP_INLINE void sp_attention_block_f32(const sp_attention p, int n, int row, const float *q,
                                      const float *k, const float *v, const float *m, float *y,
                                      float *work) {
  const int keys = sp_attention_seen(p, row, n);
  const ptrdiff_t ld = (ptrdiff_t)sp_attention_panels(p) * SP_LANES;
  float *s = work + sp_attention_scores_at(p);
  float factor[SP_TILE_NV];
  const int full = p.e / SP_LANES, rest = p.e - full * SP_LANES;
  q += row * p.qs;
  y += row * p.ys;
  if (p.packed) {
    sp_attention_scores_f32(p, n, q, work, s, ld, keys);
  } else {
    for (int i = 0; i < n; ++i) sp_attention_dots_f32(p, q + i * p.qs, k, s + i * ld, keys);
  }
  for (int i = 0; i < n; ++i) {
    const int own = sp_attention_seen(p, row + i, 1);
    factor[i] = sp_attention_softmax_f32(p, s + i * ld, m + (row + i) * p.ms, own);
    for (int j = (own + SP_LANES - 1) / SP_LANES * SP_LANES; j < keys; ++j) s[i * ld + j] = 0.0f;
  }
  int c = 0;
  for (; c + p.ne <= full; c += p.ne)
    sp_attention_values_f32(p, n, p.ne, SP_LANES, s, ld, factor, v + c * SP_LANES, y + c * SP_LANES,
                            keys);
  for (; c < full; ++c)
    sp_attention_values_f32(p, n, 1, SP_LANES, s, ld, factor, v + c * SP_LANES, y + c * SP_LANES,
                            keys);
  if (rest > 0)
    sp_attention_values_f32(p, n, 1, rest, s, ld, factor, v + full * SP_LANES, y + full * SP_LANES,
                            keys);
}

/* work: sp_attention_scores_at floats and mr * (keys rounded up to vectors) more. */
SP_INLINE void sp_attention_f32(const sp_attention p, const float *q, const float *k,
                                const float *v, const float *m, float *y, float *work, int task) {
  const int b = task / p.groups, g = task % p.groups;
  k += b * p.kb + g * p.kh;
  v += b * p.vb + g * p.vh;
  if (p.packed) sp_attention_pack_f32(p, k, work);
  for (int i = 0; i < p.repeat; ++i) {
    const ptrdiff_t head = (ptrdiff_t)g * p.repeat + i;
    const float *qh = q + b * p.qb + head * p.qh, *mh = m + (p.mask ? b * p.mb + head * p.mh : 0);
    float *yh = y + b * p.yb + head * p.yh;
    int row = 0;
    for (; row + p.mr <= p.rows; row += p.mr)
      sp_attention_block_f32(p, p.mr, row, qh, k, v, mh, yh, work);
    for (; row < p.rows; ++row) sp_attention_block_f32(p, 1, row, qh, k, v, mh, yh, work);
  }
}

#endif
