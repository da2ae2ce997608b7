/* LSTM, GRU and plain recurrent layers over projected inputs: the loop over time.
 *
 *   x   gates of every step, x W' + b: step t of sequence b at x + t * xt + b * xb, gates one after
 *       the other, hidden values each
 *   y   output of every step, at y + t * yt + b * yb; not written when sequence is 0
 *   r   recurrent weights packed by blocks of nv vectors of units, each
 *       [hidden][nv][gates][SP_LANES] (the last block may have fewer vectors): a block is a run of
 *       memory, and the states of its units are updated while the sums are in registers
 * One task is one sequence of the batch. Sequences are independent, so tasks may run at once. */
#ifndef SP_RECURRENT_F32_H
#define SP_RECURRENT_F32_H

#include "../base.h"
#include "math.h"

#define SP_RECUR_SUMS 32 /* accumulators, ku * nv * gates */

/* Every field is a literal in emitted code.
 *   nv        vectors of hidden units computed together; they share the broadcast of h[k]
 *   ku        partial sums per output: few units would otherwise wait for each other's additions
 *   couple    LSTM: forget gate is 1 - input gate;  peephole: LSTM reads p
 *   after     GRU: reset gate after the recurrent product
 *   pack      r is [gates * hidden][hidden] as ONNX has it and packed into work first
 *   clip      activations see [-clip, clip]; 0 is no limit
 *   act       activations f, g, h in the order of ops/recurrent.py, with their alpha and beta */
typedef struct sp_recur {
  int time, batch, hidden, nv, ku;
  int reverse, sequence, couple, peephole, after, pack;
  float clip;
  int act[3];
  float alpha[3], beta[3];
  ptrdiff_t xt, xb, yt, yb;
} sp_recur;

enum {
  SP_ACT_RELU,
  SP_ACT_TANH,
  SP_ACT_SIGMOID,
  SP_ACT_SOFTSIGN,
  SP_ACT_SOFTPLUS,
  SP_ACT_AFFINE,
  SP_ACT_LEAKY_RELU,
  SP_ACT_THRESHOLDED_RELU,
  SP_ACT_SCALED_TANH,
  SP_ACT_HARD_SIGMOID,
  SP_ACT_ELU
};

/* Activation i (0: f, 1: g, 2: h) without clipping. The kind is a literal: one case is left. */
SP_INLINE sp_f32 sp_recur_plain_f32(const sp_recur p, int i, sp_f32 v) {
  const sp_f32 a = sp_set1_f32(p.alpha[i]), b = sp_set1_f32(p.beta[i]), zero = sp_zero_f32();
  switch (p.act[i]) {
    case SP_ACT_RELU: return sp_max_f32(v, zero);
    case SP_ACT_TANH: return sp_tanh_f32(v);
    case SP_ACT_SIGMOID: return sp_sigmoid_f32(v);
    case SP_ACT_SOFTSIGN: return sp_softsign_f32(v);
    case SP_ACT_SOFTPLUS: return sp_softplus_f32(v);
    case SP_ACT_AFFINE: return sp_fma_f32(a, v, b);
    case SP_ACT_LEAKY_RELU: return sp_select_f32(sp_lt_f32(v, zero), sp_mul_f32(a, v), v);
    case SP_ACT_THRESHOLDED_RELU: return sp_select_f32(sp_ge_f32(v, a), v, zero);
    case SP_ACT_SCALED_TANH: return sp_mul_f32(a, sp_tanh_f32(sp_mul_f32(b, v)));
    case SP_ACT_HARD_SIGMOID:
      return sp_min_f32(sp_max_f32(sp_fma_f32(a, v, b), zero), sp_set1_f32(1.0f));
    default: return sp_select_f32(sp_lt_f32(v, zero), sp_mul_f32(a, sp_expm1_f32(v)), v);
  }
}

SP_INLINE sp_f32 sp_recur_act_f32(const sp_recur p, int i, sp_f32 v) {
  if (p.clip > 0.0f)
    v = sp_min_f32(sp_max_f32(v, sp_set1_f32(-p.clip)), sp_set1_f32(p.clip));
  return sp_recur_plain_f32(p, i, v);
}

/* Steps of sequence b, within [0, time]. */
SP_INLINE int sp_recur_steps(const sp_recur p, const int32_t *lens, int b) {
  const int32_t n = lens[b];
  return n < 0 ? 0 : n > p.time ? p.time : (int)n;
}

SP_INLINE int sp_recur_vectors(const sp_recur p) { return (p.hidden + SP_LANES - 1) / SP_LANES; }

/* acc[v * gates + g] += sum_k h[k] * r[k][v][g]: nv vectors of hidden units, all gates of each. */
SP_INLINE void sp_recur_mac_f32(const sp_recur p, int nv, int gates, sp_f32 *acc, const float *r,
                                const float *h) {
  const int n = nv * gates;
  int k = 0;
  SP_UNROLL
  for (int i = n; i < p.ku * n; ++i) acc[i] = sp_zero_f32();
  for (; k + p.ku <= p.hidden; k += p.ku) {
    SP_UNROLL
    for (int u = 0; u < p.ku; ++u) {
      const sp_f32 s = sp_set1_f32(h[k + u]);
      const float *w = r + (ptrdiff_t)(k + u) * n * SP_LANES;
      SP_UNROLL
      for (int i = 0; i < n; ++i)
        acc[u * n + i] = sp_fma_f32(s, sp_load_f32(w + i * SP_LANES), acc[u * n + i]);
    }
  }
  for (; k < p.hidden; ++k) {
    const sp_f32 s = sp_set1_f32(h[k]);
    const float *w = r + (ptrdiff_t)k * n * SP_LANES;
    SP_UNROLL
    for (int i = 0; i < n; ++i) acc[i] = sp_fma_f32(s, sp_load_f32(w + i * SP_LANES), acc[i]);
  }
  SP_UNROLL
  for (int i = n; i < p.ku * n; ++i) acc[i % n] = sp_add_f32(acc[i % n], acc[i]);
}

/* Lanes of vector v of a block of nv whose last vector has n lanes. */
SP_INLINE int sp_recur_lanes(int v, int nv, int n) { return v == nv - 1 ? n : SP_LANES; }

/* acc = gates [first, first + gates) of the step's input for units [col, ..). */
SP_INLINE void sp_recur_input_f32(const sp_recur p, int nv, int n, int first, int gates,
                                  sp_f32 *acc, const float *x, ptrdiff_t col) {
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    SP_UNROLL
    for (int g = 0; g < gates; ++g)
      acc[v * gates + g] = sp_loadn_f32(
          x + (ptrdiff_t)(first + g) * p.hidden + col + v * SP_LANES, sp_recur_lanes(v, nv, n));
  }
}

/* New state of nv vectors of units; h holds the step before, c is updated in place. */
SP_INLINE void sp_lstm_block_f32(const sp_recur p, int nv, int n, const float *x, const float *r,
                                 const float *peep, const float *h, float *next, float *c,
                                 int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, nv, n, 0, 4, acc, x, col);
  sp_recur_mac_f32(p, nv, 4, acc, r + col * p.hidden * 4, h);
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = sp_recur_lanes(v, nv, n);
    const ptrdiff_t at = col + v * SP_LANES;
    sp_f32 *a = acc + v * 4;
    sp_f32 cell = sp_loadn_f32(c + at, lanes);
    if (p.peephole) {
      a[0] = sp_fma_f32(sp_loadn_f32(peep + at, lanes), cell, a[0]);
      a[2] = sp_fma_f32(sp_loadn_f32(peep + 2 * p.hidden + at, lanes), cell, a[2]);
    }
    const sp_f32 in = sp_recur_act_f32(p, 0, a[0]);
    const sp_f32 forget =
        p.couple ? sp_sub_f32(sp_set1_f32(1.0f), in) : sp_recur_act_f32(p, 0, a[2]);
    cell = sp_fma_f32(in, sp_recur_act_f32(p, 1, a[3]), sp_mul_f32(forget, cell));
    if (p.peephole)
      a[1] = sp_fma_f32(sp_loadn_f32(peep + p.hidden + at, lanes), cell, a[1]);
    sp_storen_f32(c + at, cell, lanes);
    /* the cell is not clipped */
    const sp_f32 out = sp_recur_plain_f32(p, 2, cell);
    sp_storen_f32(next + at, sp_mul_f32(sp_recur_act_f32(p, 0, a[1]), out), lanes);
  }
}

SP_INLINE void sp_gru_block_f32(const sp_recur p, int nv, int n, const float *x, const float *r,
                                const float *rb, const float *h, float *next, int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, nv, n, 0, 3, acc, x, col);
  SP_UNROLL
  for (int v = 0; v < nv; ++v)
    acc[v * 3 + 2] = sp_loadn_f32(rb + col + v * SP_LANES, sp_recur_lanes(v, nv, n));
  sp_recur_mac_f32(p, nv, 3, acc, r + col * p.hidden * 3, h);
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = sp_recur_lanes(v, nv, n);
    const ptrdiff_t at = col + v * SP_LANES;
    const sp_f32 z = sp_recur_act_f32(p, 0, acc[v * 3]), t = sp_recur_act_f32(p, 0, acc[v * 3 + 1]);
    const sp_f32 in = sp_loadn_f32(x + 2 * (ptrdiff_t)p.hidden + at, lanes);
    const sp_f32 fresh = sp_recur_act_f32(p, 1, sp_fma_f32(t, acc[v * 3 + 2], in));
    const sp_f32 old = sp_loadn_f32(h + at, lanes);
    sp_storen_f32(next + at, sp_fma_f32(z, sp_sub_f32(old, fresh), fresh), lanes);
  }
}

/* First half of a GRU step with the reset gate before the product: update gate and r * h. */
SP_INLINE void sp_gru_reset_f32(const sp_recur p, int nv, int n, const float *x, const float *r,
                                const float *h, float *update, float *reset,
                                int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, nv, n, 0, 2, acc, x, col);
  sp_recur_mac_f32(p, nv, 2, acc, r + col * p.hidden * 2, h);
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = sp_recur_lanes(v, nv, n);
    const ptrdiff_t at = col + v * SP_LANES;
    const sp_f32 t = sp_recur_act_f32(p, 0, acc[v * 2 + 1]);
    sp_storen_f32(update + at, sp_recur_act_f32(p, 0, acc[v * 2]), lanes);
    sp_storen_f32(reset + at, sp_mul_f32(t, sp_loadn_f32(h + at, lanes)), lanes);
  }
}

/* Second half: the product with r * h, and the new state. */
SP_INLINE void sp_gru_update_f32(const sp_recur p, int nv, int n, const float *x, const float *r,
                                 const float *h, const float *update,
                                 const float *reset, float *next, int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, nv, n, 2, 1, acc, x, col);
  sp_recur_mac_f32(p, nv, 1, acc, r + col * p.hidden, reset);
  SP_UNROLL
  for (int v = 0; v < nv; ++v) {
    const int lanes = sp_recur_lanes(v, nv, n);
    const ptrdiff_t at = col + v * SP_LANES;
    const sp_f32 fresh = sp_recur_act_f32(p, 1, acc[v]);
    const sp_f32 old = sp_loadn_f32(h + at, lanes), z = sp_loadn_f32(update + at, lanes);
    sp_storen_f32(next + at, sp_fma_f32(z, sp_sub_f32(old, fresh), fresh), lanes);
  }
}

SP_INLINE void sp_rnn_block_f32(const sp_recur p, int nv, int n, const float *x, const float *r,
                                const float *h, float *next, int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, nv, n, 0, 1, acc, x, col);
  sp_recur_mac_f32(p, nv, 1, acc, r + col * p.hidden, h);
  SP_UNROLL
  for (int v = 0; v < nv; ++v)
    sp_storen_f32(next + col + v * SP_LANES, sp_recur_act_f32(p, 0, acc[v]),
                  sp_recur_lanes(v, nv, n));
}

/* `gates` gates of [gates * hidden][hidden] weights as blocks, units beyond hidden zero. */
SP_INLINE const float *sp_recur_pack_f32(const sp_recur p, int gates, const float *r, float *to) {
  const int all = sp_recur_vectors(p);
  float *out = to;
  for (int j = 0; j < all; j += p.nv) {
    const int nv = (int)sp_imin(p.nv, all - j);
    for (int k = 0; k < p.hidden; ++k) {
      for (int v = 0; v < nv; ++v) {
        for (int g = 0; g < gates; ++g) {
          for (int l = 0; l < SP_LANES; ++l) {
            const int unit = (j + v) * SP_LANES + l;
            *out++ = unit < p.hidden ? r[((ptrdiff_t)g * p.hidden + unit) * p.hidden + k] : 0.0f;
          }
        }
      }
    }
  }
  return to;
}

/* Floats of `gates` packed gates. */
SP_INLINE ptrdiff_t sp_recur_packed(const sp_recur p, int gates) {
  return (ptrdiff_t)sp_recur_vectors(p) * SP_LANES * p.hidden * gates;
}

/* Blocks of p.nv vectors; at least one vector is left for the last block, whose last vector may
 * be partial. `body` uses nv, n and j. */
#define SP_RECUR_BLOCKS(p, body)                                                    \
  do {                                                                              \
    const int all = sp_recur_vectors(p), whole = (all - 1) / (p).nv * (p).nv;       \
    for (int j = 0; j < whole; j += (p).nv) {                                       \
      const int nv = (p).nv, n = SP_LANES;                                          \
      body;                                                                         \
    }                                                                               \
    {                                                                               \
      const int j = whole, nv = all - whole, n = (p).hidden - (all - 1) * SP_LANES; \
      body;                                                                         \
    }                                                                               \
  } while (0)

SP_INLINE void sp_recur_copy_f32(float *to, const float *from, int n) {
  int i = 0;
  for (; i + SP_LANES <= n; i += SP_LANES) sp_store_f32(to + i, sp_load_f32(from + i));
  if (i < n) sp_storen_f32(to + i, sp_loadn_f32(from + i, n - i), n - i);
}

SP_INLINE void sp_recur_zero_f32(float *to, int n) {
  int i = 0;
  for (; i + SP_LANES <= n; i += SP_LANES) sp_store_f32(to + i, sp_zero_f32());
  if (i < n) sp_storen_f32(to + i, sp_zero_f32(), n - i);
}

/* What follows the last step of sequence b: zeros in the rest of y, the final state (zero when
 * there was no step). */
SP_INLINE void sp_recur_end_f32(const sp_recur p, int b, int steps, const float *h, float *y,
                                float *yh) {
  if (p.sequence) {
    for (int t = steps; t < p.time; ++t) sp_recur_zero_f32(y + t * p.yt + b * p.yb, p.hidden);
  }
  if (steps > 0)
    sp_recur_copy_f32(yh + (ptrdiff_t)b * p.hidden, h, p.hidden);
  else
    sp_recur_zero_f32(yh + (ptrdiff_t)b * p.hidden, p.hidden);
}

/* work: 2 * hidden floats, then the packed weights. y may be anything when sequence is 0. */
SP_INLINE void sp_lstm_f32(const sp_recur p, const float *x, const float *r, const int32_t *lens,
                           const float *h0, const float *c0, const float *peep, float *y, float *yh,
                           float *yc, float *work, int b) {
  const int steps = sp_recur_steps(p, lens, b);
  float *h = work, *next = work + p.hidden, *c = yc + (ptrdiff_t)b * p.hidden;
  if (p.pack) r = sp_recur_pack_f32(p, 4, r, work + 2 * (ptrdiff_t)p.hidden);
  sp_recur_copy_f32(h, h0 + (ptrdiff_t)b * p.hidden, p.hidden);
  if (steps > 0)
    sp_recur_copy_f32(c, c0 + (ptrdiff_t)b * p.hidden, p.hidden);
  else
    sp_recur_zero_f32(c, p.hidden);
  for (int i = 0; i < steps; ++i) {
    const int t = p.reverse ? steps - 1 - i : i;
    const float *xi = x + t * p.xt + b * p.xb;
    float *const last = h;
    SP_RECUR_BLOCKS(p, sp_lstm_block_f32(p, nv, n, xi, r, peep, h, next, c, j));
    if (p.sequence) sp_recur_copy_f32(y + t * p.yt + b * p.yb, next, p.hidden);
    h = next;
    next = last;
  }
  sp_recur_end_f32(p, b, steps, h, y, yh);
}

/* work: 4 * hidden floats, then the packed weights. r: all three gates when after is 1; otherwise
 * z and r, then r2 for h. */
SP_INLINE void sp_gru_f32(const sp_recur p, const float *x, const float *r, const float *r2,
                          const int32_t *lens, const float *h0, const float *rb, float *y,
                          float *yh, float *work, int b) {
  const int steps = sp_recur_steps(p, lens, b);
  float *h = work, *next = work + p.hidden;
  float *update = work + 2 * (ptrdiff_t)p.hidden, *reset = work + 3 * (ptrdiff_t)p.hidden;
  if (p.pack) {
    float *packed = work + 4 * (ptrdiff_t)p.hidden;
    const int gates = p.after ? 3 : 2;
    if (!p.after) {
      const float *last_gate = r2 + 2 * (ptrdiff_t)p.hidden * p.hidden;
      r2 = sp_recur_pack_f32(p, 1, last_gate, packed + sp_recur_packed(p, 2));
    }
    r = sp_recur_pack_f32(p, gates, r, packed);
  }
  sp_recur_copy_f32(h, h0 + (ptrdiff_t)b * p.hidden, p.hidden);
  for (int i = 0; i < steps; ++i) {
    const int t = p.reverse ? steps - 1 - i : i;
    const float *xi = x + t * p.xt + b * p.xb;
    float *const last = h;
    if (p.after) {
      SP_RECUR_BLOCKS(p, sp_gru_block_f32(p, nv, n, xi, r, rb, h, next, j));
    } else {
      SP_RECUR_BLOCKS(p, sp_gru_reset_f32(p, nv, n, xi, r, h, update, reset, j));
      SP_RECUR_BLOCKS(p, sp_gru_update_f32(p, nv, n, xi, r2, h, update, reset, next, j));
    }
    if (p.sequence) sp_recur_copy_f32(y + t * p.yt + b * p.yb, next, p.hidden);
    h = next;
    next = last;
  }
  sp_recur_end_f32(p, b, steps, h, y, yh);
}

/* work: 2 * hidden floats, then the packed weights. */
SP_INLINE void sp_rnn_f32(const sp_recur p, const float *x, const float *r, const int32_t *lens,
                          const float *h0, float *y, float *yh, float *work, int b) {
  const int steps = sp_recur_steps(p, lens, b);
  float *h = work, *next = work + p.hidden;
  if (p.pack) r = sp_recur_pack_f32(p, 1, r, work + 2 * (ptrdiff_t)p.hidden);
  sp_recur_copy_f32(h, h0 + (ptrdiff_t)b * p.hidden, p.hidden);
  for (int i = 0; i < steps; ++i) {
    const int t = p.reverse ? steps - 1 - i : i;
    const float *xi = x + t * p.xt + b * p.xb;
    float *const last = h;
    SP_RECUR_BLOCKS(p, sp_rnn_block_f32(p, nv, n, xi, r, h, next, j));
    if (p.sequence) sp_recur_copy_f32(y + t * p.yt + b * p.yb, next, p.hidden);
    h = next;
    next = last;
  }
  sp_recur_end_f32(p, b, steps, h, y, yh);
}

#endif
