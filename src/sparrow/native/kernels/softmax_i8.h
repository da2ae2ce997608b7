/* Softmax of 8-bit codes over one axis: x and y are [outer][n][inner], dense; y may be x.
 * table[d] is what a code d below the largest of its row counts. Tasks: task_rows of outer each. */
#ifndef SP_SOFTMAX_I8_H
#define SP_SOFTMAX_I8_H
#include "../base.h"

/* low: lowest code of x, added to bytes of signed codes as 128. zero, lo, hi: of y, whose bytes are
 * stored modulo 256. total, shift: of the exact form. above: what p must reach to be lifted to 1. */
typedef struct sp_softmax_i8 {
  int outer, n, inner, task_rows;
  int flip, zero, lo, hi;
  int32_t total;
  int shift;
  float step, above;
} sp_softmax_i8;

SP_INLINE int sp_top_i8(const sp_softmax_i8 p, const uint8_t *x) {
  int top = 0;
  for (int i = 0; i < p.n; ++i) {
    const int v = x[(ptrdiff_t)i * p.inner] ^ p.flip;
    top = v > top ? v : top;
  }
  return top;
}

SP_INLINE uint8_t sp_clip_i8(const sp_softmax_i8 p, int32_t v) {
  const int32_t q = v + p.zero;
  return (uint8_t)(q < p.lo ? p.lo : q > p.hi ? p.hi : q);
}

/* Sums and products stay in int32; see ops/softmax_codes.py. */
SP_INLINE void sp_softmax_exact_i8(const sp_softmax_i8 p, const uint8_t *x, const int32_t *table,
                                   uint8_t *y) {
  const int top = sp_top_i8(p, x);
  int32_t s = 0;
  for (int i = 0; i < p.n; ++i) s += table[top - (x[(ptrdiff_t)i * p.inner] ^ p.flip)];
  const int32_t r = (p.total + s / 2) / s;
  for (int i = 0; i < p.n; ++i) {
    const int32_t e = table[top - (x[(ptrdiff_t)i * p.inner] ^ p.flip)];
    y[(ptrdiff_t)i * p.inner] = sp_clip_i8(p, (e * r + (1 << (p.shift - 1))) >> p.shift);
  }
}

/* LiteRT's. No product feeds a sum: nothing a compiler could contract. */
SP_INLINE void sp_softmax_litert_i8(const sp_softmax_i8 p, const uint8_t *x, const float *table,
                                    uint8_t *y) {
  const int top = sp_top_i8(p, x);
  float s = 0.0f;
  for (int i = 0; i < p.n; ++i) s += table[top - (x[(ptrdiff_t)i * p.inner] ^ p.flip)];
  const float r = 1.0f / (s * p.step);
  for (int i = 0; i < p.n; ++i) {
    const float v = table[top - (x[(ptrdiff_t)i * p.inner] ^ p.flip)] * r;
    const int32_t whole = v < 65536.0f ? (int32_t)v : 65536;
    const int32_t up = v >= (whole ? (float)whole + 0.5f : p.above);
    y[(ptrdiff_t)i * p.inner] = sp_clip_i8(p, whole + up);
  }
}

#define SP_DEFINE_SOFTMAX_I8(kind, T)                                                              \
  SP_INLINE void sp_softmax_i8_##kind(const sp_softmax_i8 p, const void *x, const T *table,        \
                                      void *y, int task) {                                         \
    const int lo = task * p.task_rows, hi = (int)sp_imin(p.outer, lo + p.task_rows);               \
    for (int i = lo; i < hi; ++i)                                                                  \
      for (int j = 0; j < p.inner; ++j) {                                                          \
        const ptrdiff_t at = (ptrdiff_t)i * p.n * p.inner + j;                                     \
        sp_softmax_##kind##_i8(p, (const uint8_t *)x + at, table, (uint8_t *)y + at);              \
      }                                                                                            \
  }
SP_DEFINE_SOFTMAX_I8(exact, int32_t)
SP_DEFINE_SOFTMAX_I8(litert, float)
#endif
