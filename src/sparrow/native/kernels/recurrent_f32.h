/* LSTM, GRU and plain recurrent layers over projected inputs: the loop over time.
 *
 *   x   gates of every step, x W' + b: step t of sequence b at x + t * xt + b * xb, gates one after
 *       the other, hidden values each
 *   y   output of every step, at y + t * yt + b * yb; not written when sequence is 0
 *   r   recurrent weights packed by blocks of nv vectors of units, each
 *       [hidden][nv][gates][SP_LANES] (the last block may have fewer vectors): a block is a run of
 *       memory, and the states of its units are updated while the sums are in registers
 * One task is up to `rows` sequences of the batch, which share the weights while these are in registers.
 * Sequences are independent, so tasks may run at once, and how many share changes no bit. */
#ifndef SP_RECURRENT_F32_H
#define SP_RECURRENT_F32_H

#include "../base.h"
#include "math.h"

#define SP_RECUR_SUMS 32 /* accumulators, ku * rows * nv * gates */
#define SP_RECUR_ROWS 8  /* sequences of a task */

/* Every field is a literal in emitted code.
 *   rows      sequences computed together, all of p.time steps where there are several
 *   nv        vectors of hidden units computed together; they share the broadcast of h[k]
 *   ku        partial sums per output: few units would otherwise wait for each other's additions
 *   couple    LSTM: forget gate is 1 - input gate;  peephole: LSTM reads p
 *   after     GRU: reset gate after the recurrent product
 *   pack      r is [gates * hidden][hidden] as ONNX has it and packed into work first
 *   clip      activations see [-clip, clip]; 0 is no limit
 *   act       activations f, g, h in the order of ops/recurrent.py, with their alpha and beta */
typedef struct sp_recur {
  int time, batch, hidden, rows, nv, ku;
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

/* acc[b * n + i] += h[b] * w[i]: n vectors of weights of one hidden unit, its value in `rows` states. */
SP_INLINE void sp_recur_add_f32(const sp_recur p, int rows, int n, sp_f32 *acc, const float *w,
                                const float *h) {
  sp_f32 s[SP_RECUR_ROWS];
  SP_UNROLL
  for (int b = 0; b < rows; ++b) s[b] = sp_set1_f32(h[b * p.hidden]);
  SP_UNROLL
  for (int i = 0; i < n; ++i) {
    const sp_f32 v = sp_load_f32(w + i * SP_LANES);
    SP_UNROLL
    for (int b = 0; b < rows; ++b) acc[b * n + i] = sp_fma_f32(s[b], v, acc[b * n + i]);
  }
}

/* acc[(b * nv + v) * gates + g] += sum_k h[b][k] * r[k][v][g]: nv vectors of hidden units of `rows`
 * sequences, all gates of each. */
SP_INLINE void sp_recur_mac_f32(const sp_recur p, int rows, int nv, int gates, sp_f32 *acc,
                                const float *r, const float *h) {
  const int n = nv * gates, all = rows * n;
  int k = 0;
  SP_UNROLL
  for (int i = all; i < p.ku * all; ++i) acc[i] = sp_zero_f32();
  for (; k + p.ku <= p.hidden; k += p.ku) {
    SP_UNROLL
    for (int u = 0; u < p.ku; ++u)
      sp_recur_add_f32(p, rows, n, acc + u * all, r + (ptrdiff_t)(k + u) * n * SP_LANES, h + k + u);
  }
  for (; k < p.hidden; ++k)
    sp_recur_add_f32(p, rows, n, acc, r + (ptrdiff_t)k * n * SP_LANES, h + k);
  SP_UNROLL
  for (int i = all; i < p.ku * all; ++i) acc[i % all] = sp_add_f32(acc[i % all], acc[i]);
}

/* Lanes of vector v of a block of nv whose last vector has n lanes. */
SP_INLINE int sp_recur_lanes(int v, int nv, int n) { return v == nv - 1 ? n : SP_LANES; }

/* acc = gates [first, first + gates) of the step's inputs for units [col, ..). */
SP_INLINE void sp_recur_input_f32(const sp_recur p, int rows, int nv, int n, int first, int gates,
                                  sp_f32 *acc, const float *x, ptrdiff_t col) {
  SP_UNROLL
  for (int i = 0; i < rows * nv * gates; ++i) {
    const int b = i / (nv * gates), v = i / gates % nv, g = first + i % gates;
    acc[i] = sp_loadn_f32(x + b * p.xb + (ptrdiff_t)g * p.hidden + col + v * SP_LANES,
                          sp_recur_lanes(v, nv, n));
  }
}

/* New state of nv vectors of units of `rows` sequences, whose states are rows of `hidden` values; h
 * holds the step before, c is updated in place. */
SP_INLINE void sp_lstm_block_f32(const sp_recur p, int rows, int nv, int n, const float *x, const float *r,
                                 const float *peep, const float *h, float *next, float *c,
                                 int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, rows, nv, n, 0, 4, acc, x, col);
  sp_recur_mac_f32(p, rows, nv, 4, acc, r + col * p.hidden * 4, h);
  SP_UNROLL
  for (int i = 0; i < rows * nv; ++i) {
    const int v = i % nv, lanes = sp_recur_lanes(v, nv, n);
    const ptrdiff_t unit = col + v * SP_LANES, at = (ptrdiff_t)(i / nv) * p.hidden + unit;
    sp_f32 *a = acc + i * 4;
    sp_f32 cell = sp_loadn_f32(c + at, lanes);
    if (p.peephole) {
      a[0] = sp_fma_f32(sp_loadn_f32(peep + unit, lanes), cell, a[0]);
      a[2] = sp_fma_f32(sp_loadn_f32(peep + 2 * p.hidden + unit, lanes), cell, a[2]);
    }
    const sp_f32 in = sp_recur_act_f32(p, 0, a[0]);
    const sp_f32 forget =
        p.couple ? sp_sub_f32(sp_set1_f32(1.0f), in) : sp_recur_act_f32(p, 0, a[2]);
    cell = sp_fma_f32(in, sp_recur_act_f32(p, 1, a[3]), sp_mul_f32(forget, cell));
    if (p.peephole)
      a[1] = sp_fma_f32(sp_loadn_f32(peep + p.hidden + unit, lanes), cell, a[1]);
    sp_storen_f32(c + at, cell, lanes);
    /* the cell is not clipped */
    const sp_f32 out = sp_recur_plain_f32(p, 2, cell);
    sp_storen_f32(next + at, sp_mul_f32(sp_recur_act_f32(p, 0, a[1]), out), lanes);
  }
}

SP_INLINE void sp_gru_block_f32(const sp_recur p, int rows, int nv, int n, const float *x, const float *r,
                                const float *rb, const float *h, float *next, int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, rows, nv, n, 0, 3, acc, x, col);
  SP_UNROLL
  for (int i = 0; i < rows * nv; ++i) {
    const int v = i % nv;
    acc[i * 3 + 2] = sp_loadn_f32(rb + col + v * SP_LANES, sp_recur_lanes(v, nv, n));
  }
  sp_recur_mac_f32(p, rows, nv, 3, acc, r + col * p.hidden * 3, h);
  SP_UNROLL
  for (int i = 0; i < rows * nv; ++i) {
    const int v = i % nv, lanes = sp_recur_lanes(v, nv, n);
    const ptrdiff_t unit = col + v * SP_LANES, at = (ptrdiff_t)(i / nv) * p.hidden + unit;
    const sp_f32 z = sp_recur_act_f32(p, 0, acc[i * 3]), t = sp_recur_act_f32(p, 0, acc[i * 3 + 1]);
    const sp_f32 in = sp_loadn_f32(
        x + i / nv * p.xb + 2 * (ptrdiff_t)p.hidden + unit, lanes);
    const sp_f32 fresh = sp_recur_act_f32(p, 1, sp_fma_f32(t, acc[i * 3 + 2], in));
    const sp_f32 old = sp_loadn_f32(h + at, lanes);
    sp_storen_f32(next + at, sp_fma_f32(z, sp_sub_f32(old, fresh), fresh), lanes);
  }
}

/* First half of a GRU step with the reset gate before the product: update gate and r * h. */
SP_INLINE void sp_gru_reset_f32(const sp_recur p, int rows, int nv, int n, const float *x, const float *r,
                                const float *h, float *update, float *reset,
                                int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, rows, nv, n, 0, 2, acc, x, col);
  sp_recur_mac_f32(p, rows, nv, 2, acc, r + col * p.hidden * 2, h);
  SP_UNROLL
  for (int i = 0; i < rows * nv; ++i) {
    const int v = i % nv, lanes = sp_recur_lanes(v, nv, n);
    const ptrdiff_t unit = col + v * SP_LANES, at = (ptrdiff_t)(i / nv) * p.hidden + unit;
    const sp_f32 t = sp_recur_act_f32(p, 0, acc[i * 2 + 1]);
    sp_storen_f32(update + at, sp_recur_act_f32(p, 0, acc[i * 2]), lanes);
    sp_storen_f32(reset + at, sp_mul_f32(t, sp_loadn_f32(h + at, lanes)), lanes);
  }
}

/* Second half: the product with r * h, and the new state. */
SP_INLINE void sp_gru_update_f32(const sp_recur p, int rows, int nv, int n, const float *x, const float *r,
                                 const float *h, const float *update,
                                 const float *reset, float *next, int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, rows, nv, n, 2, 1, acc, x, col);
  sp_recur_mac_f32(p, rows, nv, 1, acc, r + col * p.hidden, reset);
  SP_UNROLL
  for (int i = 0; i < rows * nv; ++i) {
    const int v = i % nv, lanes = sp_recur_lanes(v, nv, n);
    const ptrdiff_t unit = col + v * SP_LANES, at = (ptrdiff_t)(i / nv) * p.hidden + unit;
    const sp_f32 fresh = sp_recur_act_f32(p, 1, acc[i]);
    const sp_f32 old = sp_loadn_f32(h + at, lanes), z = sp_loadn_f32(update + at, lanes);
    sp_storen_f32(next + at, sp_fma_f32(z, sp_sub_f32(old, fresh), fresh), lanes);
  }
}

SP_INLINE void sp_rnn_block_f32(const sp_recur p, int rows, int nv, int n, const float *x, const float *r,
                                const float *h, float *next, int vector) {
  sp_f32 acc[SP_RECUR_SUMS];
  const ptrdiff_t col = (ptrdiff_t)vector * SP_LANES;
  sp_recur_input_f32(p, rows, nv, n, 0, 1, acc, x, col);
  sp_recur_mac_f32(p, rows, nv, 1, acc, r + col * p.hidden, h);
  SP_UNROLL
  for (int i = 0; i < rows * nv; ++i) {
    const int v = i % nv;
    sp_storen_f32(next + (ptrdiff_t)(i / nv) * p.hidden + col + v * SP_LANES,
                  sp_recur_act_f32(p, 0, acc[i]), sp_recur_lanes(v, nv, n));
  }
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

/* The outputs of step t of sequences b.. */
SP_INLINE void sp_recur_put_f32(const sp_recur p, int rows, int t, int b, const float *next, float *y) {
  for (int i = 0; i < rows && p.sequence; ++i)
    sp_recur_copy_f32(y + t * p.yt + (b + i) * p.yb, next + (ptrdiff_t)i * p.hidden, p.hidden);
}

/* What follows the last step of sequences b..: zeros in the rest of y, the final state (zero when
 * there was no step). */
SP_INLINE void sp_recur_end_f32(const sp_recur p, int rows, int b, int steps, const float *h, float *y,
                                float *yh) {
  if (p.sequence && rows == 1) {
    for (int t = steps; t < p.time; ++t) sp_recur_zero_f32(y + t * p.yt + b * p.yb, p.hidden);
  }
  if (steps > 0)
    sp_recur_copy_f32(yh + (ptrdiff_t)b * p.hidden, h, rows * p.hidden);
  else
    sp_recur_zero_f32(yh + (ptrdiff_t)b * p.hidden, rows * p.hidden);
}

/* Sequences [b, b + rows) of sp_lstm_f32. */
SP_INLINE void sp_lstm_rows_f32(const sp_recur p, int rows, const float *x, const float *r,
                                const int32_t *lens, const float *h0, const float *c0,
                                const float *peep, float *y, float *yh, float *yc, float *work, int b) {
  const int steps = sp_recur_steps(p, lens, b), states = rows * p.hidden;
  const ptrdiff_t at = (ptrdiff_t)b * p.hidden;
  float *h = work, *next = work + (ptrdiff_t)p.rows * p.hidden, *c = yc + at;
  if (p.pack) r = sp_recur_pack_f32(p, 4, r, work + 2 * (ptrdiff_t)p.rows * p.hidden);
  sp_recur_copy_f32(h, h0 + at, states);
  if (steps > 0)
    sp_recur_copy_f32(c, c0 + at, states);
  else
    sp_recur_zero_f32(c, states);
  for (int i = 0; i < steps; ++i) {
    const int t = p.reverse ? steps - 1 - i : i;
    const float *xi = x + t * p.xt + b * p.xb;
    float *const last = h;
    SP_RECUR_BLOCKS(p, sp_lstm_block_f32(p, rows, nv, n, xi, r, peep, h, next, c, j));
    sp_recur_put_f32(p, rows, t, b, next, y);
    h = next;
    next = last;
  }
  sp_recur_end_f32(p, rows, b, steps, h, y, yh);
}

/* The sequences of a task: p.rows, or those that are left. */
#define SP_RECUR_TASK(p, task, call)                                         \
  do {                                                                       \
    const int b = (task) * (p).rows;                                         \
    if ((p).batch % (p).rows == 0 || b + (p).rows <= (p).batch) {            \
      const int rows = (p).rows;                                             \
      call;                                                                  \
    } else {                                                                 \
      const int rows = (p).batch % (p).rows;                                 \
      call;                                                                  \
    }                                                                        \
  } while (0)

/* work: 2 * rows * hidden floats, then the packed weights. y may be anything when sequence is 0. */
SP_INLINE void sp_lstm_f32(const sp_recur p, const float *x, const float *r, const int32_t *lens,
                           const float *h0, const float *c0, const float *peep, float *y, float *yh,
                           float *yc, float *work, int task) {
  SP_RECUR_TASK(p, task, sp_lstm_rows_f32(p, rows, x, r, lens, h0, c0, peep, y, yh, yc, work, b));
}

/* Sequences [b, b + rows) of sp_gru_f32. */
SP_INLINE void sp_gru_rows_f32(const sp_recur p, int rows, const float *x, const float *r,
                               const float *r2, const int32_t *lens, const float *h0,
                               const float *rb, float *y, float *yh, float *work, int b) {
  const int steps = sp_recur_steps(p, lens, b);
  const ptrdiff_t most = (ptrdiff_t)p.rows * p.hidden;
  float *h = work, *next = work + most, *update = work + 2 * most, *reset = work + 3 * most;
  if (p.pack) {
    float *packed = work + 4 * most;
    const int gates = p.after ? 3 : 2;
    if (!p.after) {
      const float *last_gate = r2 + 2 * (ptrdiff_t)p.hidden * p.hidden;
      r2 = sp_recur_pack_f32(p, 1, last_gate, packed + sp_recur_packed(p, 2));
    }
    r = sp_recur_pack_f32(p, gates, r, packed);
  }
  sp_recur_copy_f32(h, h0 + (ptrdiff_t)b * p.hidden, rows * p.hidden);
  for (int i = 0; i < steps; ++i) {
    const int t = p.reverse ? steps - 1 - i : i;
    const float *xi = x + t * p.xt + b * p.xb;
    float *const last = h;
    if (p.after) {
      SP_RECUR_BLOCKS(p, sp_gru_block_f32(p, rows, nv, n, xi, r, rb, h, next, j));
    } else {
      SP_RECUR_BLOCKS(p, sp_gru_reset_f32(p, rows, nv, n, xi, r, h, update, reset, j));
      SP_RECUR_BLOCKS(p, sp_gru_update_f32(p, rows, nv, n, xi, r2, h, update, reset, next, j));
    }
    sp_recur_put_f32(p, rows, t, b, next, y);
    h = next;
    next = last;
  }
  sp_recur_end_f32(p, rows, b, steps, h, y, yh);
}

/* work: 4 * rows * hidden floats, then the packed weights. r: all three gates when after is 1; otherwise
 * z and r, then r2 for h. */
SP_INLINE void sp_gru_f32(const sp_recur p, const float *x, const float *r, const float *r2,
                          const int32_t *lens, const float *h0, const float *rb, float *y,
                          float *yh, float *work, int task) {
  SP_RECUR_TASK(p, task, sp_gru_rows_f32(p, rows, x, r, r2, lens, h0, rb, y, yh, work, b));
}

/* Sequences [b, b + rows) of sp_rnn_f32. */
SP_INLINE void sp_rnn_rows_f32(const sp_recur p, int rows, const float *x, const float *r,
                               const int32_t *lens, const float *h0, float *y, float *yh, float *work,
                               int b) {
  const int steps = sp_recur_steps(p, lens, b);
  float *h = work, *next = work + (ptrdiff_t)p.rows * p.hidden;
  if (p.pack) r = sp_recur_pack_f32(p, 1, r, work + 2 * (ptrdiff_t)p.rows * p.hidden);
  sp_recur_copy_f32(h, h0 + (ptrdiff_t)b * p.hidden, rows * p.hidden);
  for (int i = 0; i < steps; ++i) {
    const int t = p.reverse ? steps - 1 - i : i;
    const float *xi = x + t * p.xt + b * p.xb;
    float *const last = h;
    SP_RECUR_BLOCKS(p, sp_rnn_block_f32(p, rows, nv, n, xi, r, h, next, j));
    sp_recur_put_f32(p, rows, t, b, next, y);
    h = next;
    next = last;
  }
  sp_recur_end_f32(p, rows, b, steps, h, y, yh);
}

/* work: 2 * rows * hidden floats, then the packed weights. */
SP_INLINE void sp_rnn_f32(const sp_recur p, const float *x, const float *r, const int32_t *lens,
                          const float *h0, float *y, float *yh, float *work, int task) {
  SP_RECUR_TASK(p, task, sp_rnn_rows_f32(p, rows, x, r, lens, h0, y, yh, work, b));
}

#endif
