/* Vocabulary of one lane but for the product of four bytes, in strict C99; scalar.h says what each name
 * means. */
#ifndef SP_ISA_SCALAR_BASE_H
#define SP_ISA_SCALAR_BASE_H

#include "../base.h"
#include "half.h"

#define SP_LANES 1

typedef float sp_f32;
typedef int32_t sp_i32;
typedef int sp_mask; /* 0 or 1 */

SP_INLINE sp_i32 sp_bits_f32(sp_f32 v) {
  union {
    float f;
    int32_t i;
  } u;
  u.f = v;
  return u.i;
}
SP_INLINE sp_f32 sp_from_bits_f32(sp_i32 v) {
  union {
    float f;
    int32_t i;
  } u;
  u.i = v;
  return u.f;
}

/* memory */
SP_INLINE sp_f32 sp_load_f32(const float *p) { return *p; }
SP_INLINE sp_f32 sp_loadn_f32(const float *p, int n) { return n > 0 ? *p : 0.0f; }
SP_INLINE void sp_store_f32(float *p, sp_f32 v) { *p = v; }
SP_INLINE void sp_storen_f32(float *p, sp_f32 v, int n) {
  if (n > 0) *p = v;
}
SP_INLINE sp_i32 sp_load_i32(const int32_t *p) { return *p; }
SP_INLINE sp_i32 sp_loadn_i32(const int32_t *p, int n) { return n > 0 ? *p : 0; }
SP_INLINE void sp_store_i32(int32_t *p, sp_i32 v) { *p = v; }
SP_INLINE void sp_storen_i32(int32_t *p, sp_i32 v, int n) {
  if (n > 0) *p = v;
}
SP_INLINE sp_f32 sp_load_f16(const uint16_t *p) { return sp_half_to_float(*p); }
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n) {
  return n > 0 ? sp_half_to_float(*p) : 0.0f;
}
SP_INLINE void sp_store_f16(uint16_t *p, sp_f32 v) { *p = sp_float_to_half(v); }
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n) {
  if (n > 0) *p = sp_float_to_half(v);
}
SP_INLINE sp_f32 sp_load_bf16(const uint16_t *p) {
  return sp_from_bits_f32((int32_t)((uint32_t)*p << 16));
}
SP_INLINE sp_f32 sp_loadn_bf16(const uint16_t *p, int n) { return n > 0 ? sp_load_bf16(p) : 0.0f; }
SP_INLINE void sp_store_bf16(uint16_t *p, sp_f32 v) {
  const uint32_t b = (uint32_t)sp_bits_f32(v);
  const uint32_t r = v != v ? b | 0x400000u : b + 0x7fffu + ((b >> 16) & 1u);
  *p = (uint16_t)(r >> 16);
}
SP_INLINE void sp_storen_bf16(uint16_t *p, sp_f32 v, int n) {
  if (n > 0) sp_store_bf16(p, v);
}
SP_INLINE sp_i32 sp_load_i8(const int8_t *p) { return *p; }
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n) { return n > 0 ? *p : 0; }
SP_INLINE sp_i32 sp_load_u8(const uint8_t *p) { return *p; }
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n) { return n > 0 ? *p : 0; }
SP_INLINE void sp_store_i8(int8_t *p, sp_i32 v) {
  *p = (int8_t)(v < -128 ? -128 : v > 127 ? 127 : v);
}
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n) {
  if (n > 0) sp_store_i8(p, v);
}
SP_INLINE void sp_store_u8(uint8_t *p, sp_i32 v) { *p = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n) {
  if (n > 0) sp_store_u8(p, v);
}
SP_INLINE sp_i32 sp_load_i16(const int16_t *p) { return *p; }
SP_INLINE sp_i32 sp_loadn_i16(const int16_t *p, int n) { return n > 0 ? *p : 0; }
SP_INLINE void sp_store_i16(int16_t *p, sp_i32 v) {
  *p = (int16_t)(v < -32768 ? -32768 : v > 32767 ? 32767 : v);
}
SP_INLINE void sp_storen_i16(int16_t *p, sp_i32 v, int n) {
  if (n > 0) sp_store_i16(p, v);
}
#define SP_NO_PREFETCH
SP_INLINE void sp_prefetch(const void *p) { (void)p; }
SP_INLINE void sp_prefetch_l2(const void *p) { (void)p; }

/* lanes */
SP_INLINE sp_f32 sp_set1_f32(float x) { return x; }
SP_INLINE sp_i32 sp_set1_i32(int32_t x) { return x; }
SP_INLINE sp_f32 sp_zero_f32(void) { return 0.0f; }
SP_INLINE sp_i32 sp_iota_i32(void) { return 0; }
SP_INLINE sp_i32 sp_gather_pair_i32(const int32_t *t, sp_i32 i, sp_i32 *next) {
  *next = t[i + 1];
  return t[i];
}

/* compare and masks */
SP_INLINE sp_mask sp_lt_f32(sp_f32 a, sp_f32 b) { return a < b; }
SP_INLINE sp_mask sp_le_f32(sp_f32 a, sp_f32 b) { return a <= b; }
SP_INLINE sp_mask sp_gt_f32(sp_f32 a, sp_f32 b) { return a > b; }
SP_INLINE sp_mask sp_ge_f32(sp_f32 a, sp_f32 b) { return a >= b; }
SP_INLINE sp_mask sp_eq_f32(sp_f32 a, sp_f32 b) { return a == b; }
SP_INLINE sp_mask sp_ne_f32(sp_f32 a, sp_f32 b) { return a != b; }
SP_INLINE sp_mask sp_isnan_f32(sp_f32 v) { return v != v; }
SP_INLINE sp_mask sp_lt_i32(sp_i32 a, sp_i32 b) { return a < b; }
SP_INLINE sp_mask sp_gt_i32(sp_i32 a, sp_i32 b) { return a > b; }
SP_INLINE sp_mask sp_eq_i32(sp_i32 a, sp_i32 b) { return a == b; }
SP_INLINE sp_mask sp_mask_and(sp_mask a, sp_mask b) { return a & b; }
SP_INLINE sp_mask sp_mask_or(sp_mask a, sp_mask b) { return a | b; }
SP_INLINE sp_mask sp_mask_xor(sp_mask a, sp_mask b) { return a ^ b; }
SP_INLINE sp_mask sp_mask_not(sp_mask a) { return a ^ 1; }
SP_INLINE int sp_mask_any(sp_mask a) { return a; }
SP_INLINE sp_f32 sp_select_f32(sp_mask m, sp_f32 a, sp_f32 b) { return m ? a : b; }
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) { return m ? a : b; }

/* f32 */
SP_INLINE sp_f32 sp_add_f32(sp_f32 a, sp_f32 b) { return a + b; }
SP_INLINE sp_f32 sp_sub_f32(sp_f32 a, sp_f32 b) { return a - b; }
SP_INLINE sp_f32 sp_mul_f32(sp_f32 a, sp_f32 b) { return a * b; }
SP_INLINE sp_f32 sp_div_f32(sp_f32 a, sp_f32 b) { return a / b; }
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return a * b + c; }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return c - a * b; }
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return a > b ? a : b; }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return a < b ? a : b; }
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) { return (a > b || a != a) ? a : b; }
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) { return (a < b || a != a) ? a : b; }
SP_INLINE sp_f32 sp_neg_f32(sp_f32 v) { return -v; }
SP_INLINE sp_f32 sp_abs_f32(sp_f32 v) { return sp_from_bits_f32(sp_bits_f32(v) & 0x7fffffff); }
SP_INLINE sp_f32 sp_copysign_f32(sp_f32 mag, sp_f32 sgn) {
  const uint32_t s = (uint32_t)sp_bits_f32(sgn) & 0x80000000u;
  return sp_from_bits_f32((int32_t)(((uint32_t)sp_bits_f32(mag) & 0x7fffffffu) | s));
}
/* From 2^23 on every float is an integer; the comparison is false for NaN, which is returned. */
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) {
  const float a = sp_abs_f32(v);
  return a < 8388608.0f ? sp_copysign_f32((a + 8388608.0f) - 8388608.0f, v) : v;
}
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) {
  return sp_abs_f32(v) < 8388608.0f ? sp_copysign_f32((float)(int32_t)v, v) : v;
}
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) {
  const float t = sp_trunc_f32(v);
  return t > v ? t - 1.0f : t;
}
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) {
  const float t = sp_trunc_f32(v);
  return t < v ? sp_copysign_f32(t + 1.0f, v) : t;
}

/* Correctly rounded. The significand m in [2^46, 2^48) has a root k in [2^23, 2^24); Newton in
 * float finds k within a few units and the integer remainder m - k^2 settles it exactly. */
SP_INLINE sp_f32 sp_sqrt_f32(sp_f32 v) {
  int32_t b = sp_bits_f32(v);
  int32_t e = 0;
  int64_t m, k, rest;
  float x, y;
  if (v == 0.0f || v != v || b == 0x7f800000) return v;
  if (b < 0) return sp_from_bits_f32(0x7fc00000);
  if (b < 0x800000) {
    b = sp_bits_f32(v * 16777216.0f);
    e = -24;
  }
  e += (b >> 23) - 127;
  m = (int64_t)((b & 0x7fffff) | 0x800000) << (23 + (e & 1));
  x = sp_from_bits_f32((b & 0x7fffff) | ((127 + (e & 1)) << 23)); /* [1, 4) */
  y = sp_from_bits_f32(0x5f375a86 - (sp_bits_f32(x) >> 1));
  y = y * (1.5f - 0.5f * x * y * y);
  y = y * (1.5f - 0.5f * x * y * y);
  y = y * (1.5f - 0.5f * x * y * y);
  k = (int64_t)(int32_t)(x * y * 8388608.0f);
  rest = m - k * k;
  while (rest < 0) {
    --k;
    rest += 2 * k + 1;
  }
  while (rest > 2 * k) {
    rest -= 2 * k + 1;
    ++k;
  }
  if (rest > k) ++k;
  return sp_from_bits_f32((int32_t)k + (((e - (e & 1)) / 2 + 126) << 23));
}

/* i32 */
SP_INLINE sp_i32 sp_add_i32(sp_i32 a, sp_i32 b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
SP_INLINE sp_i32 sp_sub_i32(sp_i32 a, sp_i32 b) { return (int32_t)((uint32_t)a - (uint32_t)b); }
SP_INLINE sp_i32 sp_mul_i32(sp_i32 a, sp_i32 b) { return (int32_t)((uint32_t)a * (uint32_t)b); }
SP_INLINE sp_i32 sp_and_i32(sp_i32 a, sp_i32 b) { return a & b; }
SP_INLINE sp_i32 sp_or_i32(sp_i32 a, sp_i32 b) { return a | b; }
SP_INLINE sp_i32 sp_xor_i32(sp_i32 a, sp_i32 b) { return a ^ b; }
SP_INLINE sp_i32 sp_shl_i32(sp_i32 v, int n) { return (int32_t)((uint32_t)v << n); }
SP_INLINE sp_i32 sp_shr_i32(sp_i32 v, int n) { return v >> n; }
SP_INLINE sp_i32 sp_shru_i32(sp_i32 v, int n) { return (int32_t)((uint32_t)v >> n); }
SP_INLINE sp_i32 sp_mulh31_i32(sp_i32 a, sp_i32 b) {
  return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}
SP_INLINE sp_i32 sp_mulh15_i32(sp_i32 a, sp_i32 b) { return (a * b + (1 << 14)) >> 15; }
SP_INLINE sp_i32 sp_rshr_i32(sp_i32 v, sp_i32 n) {
  return (int32_t)((uint32_t)v + ((uint32_t)1 << n >> 1)) >> n;
}
SP_INLINE sp_i32 sp_max_i32(sp_i32 a, sp_i32 b) { return a > b ? a : b; }
SP_INLINE sp_i32 sp_min_i32(sp_i32 a, sp_i32 b) { return a < b ? a : b; }

/* convert; the comparisons keep NaN and large values away from the cast, where C has no meaning */
SP_INLINE sp_f32 sp_cvt_i32_f32(sp_i32 v) { return (float)v; }
SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) {
  return v >= -2147483648.0f && v < 2147483648.0f ? (int32_t)v : INT32_MIN;
}
SP_INLINE sp_i32 sp_rne_near_f32_i32(sp_f32 v) { return sp_bits_f32(v + 12582912.0f) - 0x4b400000; }
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) {
  if (v > -4194304.0f && v < 4194304.0f) return sp_rne_near_f32_i32(v);
  return sp_trunc_f32_i32(sp_round_f32(v));
}

/* reduce */
SP_INLINE float sp_sum_f32(sp_f32 v) { return v; }
SP_INLINE float sp_hmax_f32(sp_f32 v) { return v; }
SP_INLINE float sp_hmin_f32(sp_f32 v) { return v; }
SP_INLINE int32_t sp_sum_i32(sp_i32 v) { return v; }

/* lanes: element j of v[i] and element i of v[j] change places, v[SP_LANES] */
SP_INLINE void sp_transpose_f32(sp_f32 *v) { (void)v; }

/* products of bytes */
#define SP_DOT_UNSIGNED 0
SP_INLINE int32_t sp_quad(const void *p) {
  const uint8_t *b = (const uint8_t *)p;
  return (int32_t)((uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 |
                   (uint32_t)b[3] << 24);
}
SP_INLINE sp_i32 sp_set1_quad(const void *p) { return sp_set1_i32(sp_quad(p)); }
SP_INLINE sp_i32 sp_flip_i32(sp_i32 v) { return (sp_i32)((uint32_t)v ^ 0x80808080u); }
SP_INLINE sp_i32 sp_loadq_i32(const void *p) { return sp_quad(p); }
SP_INLINE void sp_storeq_i32(void *p, sp_i32 v) {
  uint8_t *b = (uint8_t *)p;
  SP_UNROLL
  for (int i = 0; i < 4; ++i) b[i] = (uint8_t)((uint32_t)v >> (uint32_t)(8 * i));
}
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  const void *from[4] = {p, q, r, s};
  uint32_t v = 0;
  SP_UNROLL
  for (int i = 0; i < 4; ++i)
    if (n > 0) v |= (uint32_t)*(const uint8_t *)from[i] << (uint32_t)(8 * i);
  return (sp_i32)v;
}

/* products of halves */
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int32_t low = (((a & 0xffff) ^ 0x8000) - 0x8000) * (((b & 0xffff) ^ 0x8000) - 0x8000);
  return sp_add_i32(acc, sp_add_i32(low, (a >> 16) * (b >> 16)));
}
SP_INLINE sp_i32 sp_pair(int8_t low, int8_t high) {
  return (sp_i32)((uint32_t)low & 0xffffu) | (sp_i32)((uint32_t)high << 16);
}
SP_INLINE sp_i32 sp_loadp_i32(const void *p) {
  const int8_t *b = (const int8_t *)p;
  return sp_pair(b[0], b[1]);
}
SP_INLINE sp_i32 sp_addp_i32(sp_i32 a, sp_i32 b) {
  const uint32_t low = (uint32_t)a + (uint32_t)b, high = ((uint32_t)a >> 16) + ((uint32_t)b >> 16);
  return (sp_i32)((low & 0xffffu) | high << 16);
}
SP_INLINE sp_i32 sp_subp_i32(sp_i32 a, sp_i32 b) {
  const uint32_t low = (uint32_t)a - (uint32_t)b, high = ((uint32_t)a >> 16) - ((uint32_t)b >> 16);
  return (sp_i32)((low & 0xffffu) | high << 16);
}
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  return n > 0 ? sp_pair(*(const int8_t *)p, *(const int8_t *)q) : 0;
}

/* 256-entry tables: y[i] = table[(x[i] + offset) & 255] */
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  for (ptrdiff_t i = 0; i < n; ++i) y[i] = table[(x[i] + offset) & 255];
}

#endif
