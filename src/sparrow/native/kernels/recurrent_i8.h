/* LSTM and GRU over codes: the loop over time, over projected inputs. The integers of
 * ops/lstm_codes.py, ops/gru_codes.py and ops/recurrent_codes.py.
 *
 *   x      int32 gates of every step in units of 2^-11, at x + t * xt + b * xb, hidden values each
 *   r      int8 recurrent weights [vectors][gates][quads][SP_LANES][4] (2 for 4 where `pair`), zero
 *          padded; the gates of a vector of units one after the other
 *   start  int32 [vectors][gates][SP_LANES]: what the zero point of the hidden codes adds
 *   ratio  float32, likewise: a unit of a sum in units of gates
 * One task is one sequence of the batch. */
#ifndef SP_RECURRENT_I8_H
#define SP_RECURRENT_I8_H

#include "../base.h"
#include "exponential.h"
#include "tile_i8.h"

/* Every field is a literal in emitted code.
 *   nv       vectors of hidden units computed together
 *   couple   LSTM: forget gate is 1 - input gate;  after: GRU: reset gate after the product
 *   clip     limit of gates in units of 2^-11, 0 for none
 *   pair     hidden codes are multiplied as halves;  flip: as unsigned bytes, 128 more
 *   tame     no weight is -128
 *   ahead    sums of all units wait in memory for the gates, whose chains are long: those of many units
 *            overlap, which a processor cannot see past the products of one
 *   zero     zero point of the hidden codes
 *   step     a unit of what becomes codes, in steps of the codes
 *   most     LSTM: largest magnitude of hidden codes of 16 bits, whose zero point is 0 and `pair` 1;
 *            else 0, and they are int8 */
typedef struct sp_recur_i8 {
  int time, batch, hidden, nv;
  int reverse, sequence, couple, after, clip, pair, flip, tame, ahead, zero, most;
  float step;
  ptrdiff_t xt, xb, yt, yb;
} sp_recur_i8;

#define SP_GATES_I8 8 /* vectors of sums of a block, nv * gates */
#define SP_STATE_LIMIT ((1 << 30) - (2 << 20))

SP_INLINE sp_i32 sp_clip_i32(sp_i32 v, int low, int high) {
  return sp_min_i32(sp_max_i32(v, sp_set1_i32(low)), sp_set1_i32(high));
}
SP_INLINE sp_i32 sp_shifted_i32(sp_i32 v, int n) {
  return sp_shr_i32(sp_add_i32(v, sp_set1_i32(1 << (n - 1))), n);
}
/* (a b + 2^14) >> 15 for |a| < 2^30 and b in [0, 2^15]. */
SP_INLINE sp_i32 sp_share_i32(sp_i32 a, sp_i32 b) {
  return sp_mulh31_i32(sp_shl_i32(a, 1), sp_shl_i32(b, 15));
}
/* n / (2^15 + e) to the nearest. */
SP_INLINE sp_i32 sp_over_i32(sp_i32 n, sp_i32 e) {
  const sp_f32 below = sp_cvt_i32_f32(sp_add_i32(e, sp_set1_i32(1 << 15)));
  return sp_rne_f32_i32(sp_div_f32(sp_cvt_i32_f32(n), below));
}

/* Units of 2^-11 to units of 2^-15. */
SP_INLINE sp_i32 sp_sigmoid_i32(sp_i32 x) {
  const sp_i32 zero = sp_set1_i32(0), a = sp_max_i32(x, sp_sub_i32(zero, x));
  const sp_i32 t = sp_shifted_i32(sp_mul_i32(a, sp_set1_i32(47274)), 11);
  const sp_i32 up = sp_over_i32(sp_set1_i32(1 << 30), sp_halved_i32(t, 0));
  return sp_select_i32(sp_lt_i32(x, zero), sp_sub_i32(sp_set1_i32(1 << 15), up), up);
}
SP_INLINE sp_i32 sp_tanh_i32(sp_i32 x) {
  const sp_i32 zero = sp_set1_i32(0);
  const sp_i32 a = sp_min_i32(sp_max_i32(x, sp_sub_i32(zero, x)), sp_set1_i32(8 << 11));
  const sp_i32 e = sp_halved_i32(sp_shifted_i32(sp_mul_i32(a, sp_set1_i32(47274)), 10), 0);
  const sp_i32 up = sp_over_i32(sp_shl_i32(sp_sub_i32(sp_set1_i32(1 << 15), e), 15), e);
  return sp_select_i32(sp_lt_i32(x, zero), sp_sub_i32(zero, up), up);
}

/* A sum in units of gates. */
SP_INLINE sp_i32 sp_part_i32(sp_i32 acc, const float *ratio) {
  const sp_f32 v = sp_mul_f32(sp_cvt_i32_f32(acc), sp_load_f32(ratio));
  const sp_f32 most = sp_set1_f32(1048576.0f);
  return sp_rne_f32_i32(sp_minq_f32(sp_maxq_f32(v, sp_set1_f32(-1048576.0f)), most));
}
SP_INLINE sp_i32 sp_gate_i32(const sp_recur_i8 p, sp_i32 v) {
  return p.clip > 0 && p.clip < (1 << 15) ? sp_clip_i32(v, -p.clip, p.clip)
                                          : sp_clip_i32(v, -(1 << 15), (1 << 15) - 1);
}
/* The hidden code of a value. */
SP_INLINE sp_i32 sp_hidden_i32(const sp_recur_i8 p, sp_i32 v) {
  const int least = p.most ? -p.most : -128, most = p.most ? p.most : 127;
  const sp_f32 low = sp_set1_f32((float)(least - p.zero)), high = sp_set1_f32((float)(most - p.zero));
  const sp_f32 s = sp_mul_f32(sp_cvt_i32_f32(v), sp_set1_f32(p.step));
  return sp_add_i32(sp_rne_f32_i32(sp_minq_f32(sp_maxq_f32(s, low), high)), sp_set1_i32(p.zero));
}

SP_INLINE int sp_recur_units(const sp_recur_i8 p) {
  return (p.hidden + SP_LANES - 1) / SP_LANES * SP_LANES;
}
SP_INLINE int sp_recur_quads(const sp_recur_i8 p) {
  const int per = p.pair ? 2 : 4;
  return (p.hidden + per - 1) / per;
}
/* Bytes of hidden codes as the product takes them. */
SP_INLINE int sp_recur_line(const sp_recur_i8 p) {
  const int units = sp_recur_units(p) * (p.pair ? 2 : 1), quads = 4 * sp_recur_quads(p);
  return units > quads ? units : quads;
}

/* Codes of the units from `at` on, as the product takes them. */
SP_INLINE void sp_recur_put_i8(const sp_recur_i8 p, uint8_t *h, ptrdiff_t at, sp_i32 code) {
  if (p.pair) {
    sp_store_i16((int16_t *)(void *)h + at, code);
  } else if (p.flip) {
    sp_store_u8(h + at, sp_add_i32(code, sp_set1_i32(128)));
  } else {
    sp_store_i8((int8_t *)h + at, code);
  }
}
/* The codes of n units from `at` on where they go. */
SP_INLINE void sp_recur_give_i8(const sp_recur_i8 p, void *y, ptrdiff_t at, sp_i32 code, int n) {
  if (p.most) {
    sp_storen_i16((int16_t *)y + at, code, n);
  } else {
    sp_storen_i8((int8_t *)y + at, code, n);
  }
}
SP_INLINE int8_t sp_recur_code(const sp_recur_i8 p, const uint8_t *h, ptrdiff_t at) {
  if (p.pair) return (int8_t)((const int16_t *)(const void *)h)[at];
  return (int8_t)((int)(h[at] ^ (p.flip ? 0u : 128u)) - 128);
}

/* Sums of nv vectors of units from j on, `gates` each. */
SP_INLINE void sp_recur_sums_i8(const sp_recur_i8 p, int gates, int j, int nv, const uint8_t *h,
                                const int8_t *r, const int32_t *start, sp_i32 *acc) {
  const ptrdiff_t quad = (p.pair ? 2 : 4) * SP_LANES;
  const int quads = sp_recur_quads(p), n = gates * nv;
  const sp_tile_i8 t = {.mr = 1, .nv = n, .kh = 1, .runs = 1, .kq = quads,
                        .bv = quads * quad, .quad = quad, .pair = p.pair, .tame = p.tame};
  SP_UNROLL
  for (int i = 0; i < n; ++i) acc[i] = sp_load_i32(start + (gates * j + i) * SP_LANES);
  sp_tile_dots_i8(t, h, r + gates * j * t.bv, acc);
}
/* The same in memory. */
SP_INLINE void sp_recur_ahead_i8(const sp_recur_i8 p, int gates, int j, int nv, const uint8_t *h,
                                 const int8_t *r, const int32_t *start, int32_t *sums) {
  sp_i32 acc[SP_GATES_I8];
  sp_recur_sums_i8(p, gates, j, nv, h, r, start, acc);
  SP_UNROLL
  for (int i = 0; i < gates * nv; ++i) sp_store_i32(sums + (gates * j + i) * SP_LANES, acc[i]);
}
/* And where gates take them. */
SP_INLINE void sp_recur_taken_i8(const sp_recur_i8 p, int gates, int j, int nv, const uint8_t *h,
                                 const int8_t *r, const int32_t *start, const int32_t *sums,
                                 sp_i32 *acc) {
  if (!p.ahead) {
    sp_recur_sums_i8(p, gates, j, nv, h, r, start, acc);
    return;
  }
  SP_UNROLL
  for (int i = 0; i < gates * nv; ++i) acc[i] = sp_load_i32(sums + (gates * j + i) * SP_LANES);
}
/* x of gate g of units from `at` on. */
SP_INLINE sp_i32 sp_recur_x_i32(const sp_recur_i8 p, const int32_t *x, int g, ptrdiff_t at, int n) {
  return sp_loadn_i32(x + (ptrdiff_t)g * p.hidden + at, n);
}

/* Blocks of p.nv vectors of units; the last has what is left, its last vector n units. */
#define SP_RECUR_I8_BLOCKS(p, body)                                                   \
  do {                                                                                \
    const int all = sp_recur_units(p) / SP_LANES, whole = (all - 1) / (p).nv * (p).nv; \
    for (int j = 0; j < whole; j += (p).nv) {                                         \
      const int nv = (p).nv, n = SP_LANES;                                            \
      (void)n;                                                                        \
      body;                                                                           \
    }                                                                                 \
    {                                                                                 \
      const int j = whole, nv = all - whole, n = (p).hidden - (all - 1) * SP_LANES;   \
      (void)n;                                                                        \
      body;                                                                           \
    }                                                                                 \
  } while (0)

SP_INLINE void sp_lstm_block_i8(const sp_recur_i8 p, int j, int nv, int n, const int32_t *x,
                                const int8_t *r, const int32_t *start, const float *ratio,
                                const uint8_t *h, uint8_t *next, const int32_t *sums, int32_t *c,
                                void *y) {
  sp_i32 acc[SP_GATES_I8];
  sp_recur_taken_i8(p, 4, j, nv, h, r, start, sums, acc);
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = v == nv - 1 ? n : SP_LANES;
    const ptrdiff_t at = (ptrdiff_t)(j + v) * SP_LANES;
    const float *m = ratio + 4 * at;
    sp_i32 a[4], in, keep, cell, code;
    SP_UNROLL
    for (int g = 0; g < 4; ++g)
      a[g] = sp_gate_i32(p, sp_add_i32(sp_recur_x_i32(p, x, g, at, lanes),
                                       sp_part_i32(acc[4 * v + g], m + g * SP_LANES)));
    in = sp_sigmoid_i32(a[0]);
    keep = p.couple ? sp_sub_i32(sp_set1_i32(1 << 15), in) : sp_sigmoid_i32(a[2]);
    cell = sp_share_i32(sp_loadn_i32(c + at, lanes), keep);
    cell = sp_add_i32(cell, sp_shifted_i32(sp_mul_i32(in, sp_tanh_i32(a[3])), 10));
    cell = sp_clip_i32(cell, -SP_STATE_LIMIT, SP_STATE_LIMIT);
    sp_storen_i32(c + at, cell, lanes);
    code = sp_tanh_i32(sp_shifted_i32(cell, 9));
    code = sp_hidden_i32(p, sp_mul_i32(sp_sigmoid_i32(a[1]), code));
    sp_recur_put_i8(p, next, at, code);
    if (p.sequence) sp_recur_give_i8(p, y, at, code, lanes);
  }
}

/* Codes [hidden] to what the product takes, zero beyond. */
SP_INLINE void sp_recur_load_i8(const sp_recur_i8 p, const void *from, ptrdiff_t at, uint8_t *h) {
  const int8_t *const codes = (const int8_t *)from + at;
  for (int i = 0; i < sp_recur_line(p); ++i) h[i] = 0;
  for (int i = 0; i < p.hidden; ++i) {
    if (p.most)
      ((int16_t *)(void *)h)[i] = ((const int16_t *)from)[at + i];
    else if (p.pair)
      ((int16_t *)(void *)h)[i] = codes[i];
    else
      h[i] = (uint8_t)(codes[i] + (p.flip ? 128 : 0));
  }
}
SP_INLINE void sp_recur_start_i32(const sp_recur_i8 p, const int32_t *from, int32_t *to) {
  for (int i = 0; i < p.hidden; ++i)
    to[i] = from[i] < -SP_STATE_LIMIT  ? -SP_STATE_LIMIT
            : from[i] > SP_STATE_LIMIT ? SP_STATE_LIMIT
                                       : from[i];
}

/* work: two lines of hidden codes, then where `ahead` int32 [vectors][4][SP_LANES]. h0, y and yh: int8, or int16 where most is not 0; y may be anything
 * when sequence is 0. */
SP_INLINE void sp_lstm_i8(const sp_recur_i8 p, const int32_t *x, const int8_t *r,
                          const int32_t *start, const float *ratio, const void *h0,
                          const int32_t *c0, void *y, void *yh, int32_t *yc, uint8_t *work, int b) {
  uint8_t *h = work, *next = work + sp_recur_line(p);
  int32_t *const sums = (int32_t *)(void *)(work + 2 * sp_recur_line(p));
  int32_t *c = yc + (ptrdiff_t)b * p.hidden;
  sp_recur_load_i8(p, h0, (ptrdiff_t)b * p.hidden, h);
  for (int i = 0; i < sp_recur_line(p); ++i) next[i] = 0;
  sp_recur_start_i32(p, c0 + (ptrdiff_t)b * p.hidden, c);
  for (int i = 0; i < p.time; ++i) {
    const int t = p.reverse ? p.time - 1 - i : i;
    const int32_t *xi = x + t * p.xt + b * p.xb;
    const ptrdiff_t place = p.sequence ? (t * p.yt + b * p.yb) * (p.most ? 2 : 1) : 0;
    void *yi = (int8_t *)y + place;
    uint8_t *const last = h;
    if (p.ahead) SP_RECUR_I8_BLOCKS(p, sp_recur_ahead_i8(p, 4, j, nv, h, r, start, sums));
    SP_RECUR_I8_BLOCKS(p, sp_lstm_block_i8(p, j, nv, n, xi, r, start, ratio, h, next, sums, c, yi));
    h = next;
    next = last;
  }
  for (int i = 0; i < p.hidden; ++i) {
    const ptrdiff_t at = (ptrdiff_t)b * p.hidden + i;
    if (p.most)
      ((int16_t *)yh)[at] = ((const int16_t *)(const void *)h)[i];
    else
      ((int8_t *)yh)[at] = sp_recur_code(p, h, i);
  }
}

/* Gates z, r and h of a step with the reset gate after the product, or z and r before it. */
SP_INLINE void sp_gru_block_i8(const sp_recur_i8 p, int j, int nv, int n, const int32_t *x,
                               const int8_t *r, const int32_t *start, const float *ratio,
                               const int32_t *rb, const uint8_t *h, uint8_t *next,
                               const int32_t *sums, int32_t *s, int32_t *update, int8_t *y) {
  const int gates = p.after ? 3 : 2;
  sp_i32 acc[SP_GATES_I8];
  sp_recur_taken_i8(p, gates, j, nv, h, r, start, sums, acc);
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = v == nv - 1 ? n : SP_LANES;
    const ptrdiff_t at = (ptrdiff_t)(j + v) * SP_LANES;
    const float *m = ratio + gates * at;
    sp_i32 a[2];
    SP_UNROLL
    for (int g = 0; g < 2; ++g)
      a[g] = sp_sigmoid_i32(
          sp_gate_i32(p, sp_add_i32(sp_recur_x_i32(p, x, g, at, lanes),
                                    sp_part_i32(acc[gates * v + g], m + g * SP_LANES))));
    if (p.after) {
      sp_i32 fresh = sp_part_i32(acc[gates * v + 2], m + 2 * SP_LANES), old, code;
      fresh = sp_share_i32(sp_add_i32(fresh, sp_loadn_i32(rb + at, lanes)), a[1]);
      fresh = sp_add_i32(sp_recur_x_i32(p, x, 2, at, lanes), fresh);
      fresh = sp_shl_i32(sp_tanh_i32(sp_gate_i32(p, fresh)), 5);
      old = sp_loadn_i32(s + at, lanes);
      old = sp_add_i32(fresh, sp_share_i32(sp_sub_i32(old, fresh), a[0]));
      sp_storen_i32(s + at, old, lanes);
      code = sp_hidden_i32(p, old);
      sp_recur_put_i8(p, next, at, code);
      if (p.sequence) sp_storen_i8(y + at, code, lanes);
    } else {
      const sp_i32 zero = sp_set1_i32(p.zero);
      const sp_i32 code = sp_hidden_i32(p, sp_loadn_i32(s + at, lanes));
      sp_storen_i32(update + at, a[0], lanes);
      sp_recur_put_i8(p, next, at,
                      sp_add_i32(sp_share_i32(sp_sub_i32(code, zero), a[1]), zero));
    }
  }
}

/* Second half of a step with the reset gate before the product, which has made the codes `kept`. */
SP_INLINE void sp_gru_update_i8(const sp_recur_i8 p, int j, int nv, int n, const int32_t *x,
                                const int8_t *r, const int32_t *start, const float *ratio,
                                const uint8_t *kept, uint8_t *next, const int32_t *sums,
                                int32_t *s, const int32_t *update, int8_t *y) {
  sp_i32 acc[SP_GATES_I8];
  sp_recur_taken_i8(p, 1, j, nv, kept, r, start, sums, acc);
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = v == nv - 1 ? n : SP_LANES;
    const ptrdiff_t at = (ptrdiff_t)(j + v) * SP_LANES;
    const sp_i32 own = sp_part_i32(acc[v], ratio + at);
    sp_i32 fresh = sp_add_i32(sp_recur_x_i32(p, x, 2, at, lanes), own), old, code;
    fresh = sp_shl_i32(sp_tanh_i32(sp_gate_i32(p, fresh)), 5);
    old = sp_loadn_i32(s + at, lanes);
    old = sp_add_i32(fresh, sp_share_i32(sp_sub_i32(old, fresh), sp_loadn_i32(update + at, lanes)));
    sp_storen_i32(s + at, old, lanes);
    code = sp_hidden_i32(p, old);
    sp_recur_put_i8(p, next, at, code);
    if (p.sequence) sp_storen_i8(y + at, code, lanes);
  }
}

/* work: hidden values of int32, then two lines of hidden codes, then where `ahead` int32 [vectors][3]
 * [SP_LANES]. r, start and ratio: of all three gates
 * when after is 1; otherwise of z and r, and r2, start2, ratio2 of h. */
SP_INLINE void sp_gru_i8(const sp_recur_i8 p, const int32_t *x, const int8_t *r,
                         const int32_t *start, const float *ratio, const int8_t *r2,
                         const int32_t *start2, const float *ratio2, const int32_t *h0,
                         const int32_t *rb, void *y, int32_t *yh, int32_t *work, int b) {
  int32_t *s = yh + (ptrdiff_t)b * p.hidden, *update = work;
  uint8_t *h = (uint8_t *)(void *)(work + p.hidden), *next = h + sp_recur_line(p);
  int32_t *const sums = (int32_t *)(void *)(h + 2 * sp_recur_line(p));
  const int gates = p.after ? 3 : 2;
  for (int i = 0; i < 2 * sp_recur_line(p); ++i) h[i] = 0;
  sp_recur_start_i32(p, h0 + (ptrdiff_t)b * p.hidden, s);
  for (int j = 0; j < p.hidden; j += SP_LANES)
    sp_recur_put_i8(p, h, j,
                    sp_hidden_i32(p, sp_loadn_i32(s + j, (int)sp_imin(SP_LANES, p.hidden - j))));
  for (int i = 0; i < p.time; ++i) {
    const int t = p.reverse ? p.time - 1 - i : i;
    const int32_t *xi = x + t * p.xt + b * p.xb;
    int8_t *yi = p.sequence ? (int8_t *)y + t * p.yt + b * p.yb : NULL;
    if (p.ahead) SP_RECUR_I8_BLOCKS(p, sp_recur_ahead_i8(p, gates, j, nv, h, r, start, sums));
    SP_RECUR_I8_BLOCKS(
        p, sp_gru_block_i8(p, j, nv, n, xi, r, start, ratio, rb, h, next, sums, s, update, yi));
    if (p.after) {
      uint8_t *const last = h;
      h = next;
      next = last;
    } else {
      if (p.ahead) SP_RECUR_I8_BLOCKS(p, sp_recur_ahead_i8(p, 1, j, nv, next, r2, start2, sums));
      SP_RECUR_I8_BLOCKS(p, sp_gru_update_i8(p, j, nv, n, xi, r2, start2, ratio2, next, h, sums, s,
                                             update, yi));
    }
  }
}
#endif
