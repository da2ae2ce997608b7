/* What vocabularies in vectors of fixed size share, which the compiler maps to the machine's own: all
 * that is the same for any number of lanes. Meaning of each name: isa/scalar.h. clang >= 21, or
 * gcc >= 12. */
#ifndef SP_VECTORS_H
#define SP_VECTORS_H

#include "../base.h"
#include "bytes.h"

#if defined(__riscv)
#if defined(__clang__)
/* In vector registers: else even inlined functions take vectors apart into words. */
#undef SP_VECTOR_CALL
#define SP_VECTOR_CALL __attribute__((riscv_vls_cc(__riscv_v_min_vlen)))
/* A product is an instruction, and loads its scalar by another: the loop's own are many beside. */
#undef SP_SUMMING
#define SP_SUMMING _Pragma("clang loop unroll_count(4)")
#endif
#define SP_LANES 16
#else
#define SP_LANES 4
#endif

/* clang's own kind knows lanes by letters beside. */
#if defined(__clang__)
#define SP_VECTOR(type, n) __attribute__((ext_vector_type(n)))
#else
#define SP_VECTOR(type, n) __attribute__((vector_size((n) * sizeof(type))))
#endif
typedef float sp_f32 SP_VECTOR(float, SP_LANES);
typedef int32_t sp_i32 SP_VECTOR(int32_t, SP_LANES);
typedef int32_t sp_mask SP_VECTOR(int32_t, SP_LANES); /* lanes are 0 or -1 */
typedef uint32_t sp_u32 SP_VECTOR(uint32_t, SP_LANES);
typedef uint16_t sp_u16 SP_VECTOR(uint16_t, SP_LANES);
typedef int8_t sp_s8 SP_VECTOR(int8_t, SP_LANES);
typedef uint8_t sp_u8 SP_VECTOR(uint8_t, SP_LANES);
typedef int64_t sp_s64 SP_VECTOR(int64_t, SP_LANES);
typedef uint16_t sp_u16_pairs SP_VECTOR(uint16_t, 2 * SP_LANES);

/* Unaligned accesses that may alias any type. */
typedef sp_f32 sp_f32_at __attribute__((may_alias, aligned(4)));
typedef sp_i32 sp_i32_at __attribute__((may_alias, aligned(4)));
typedef sp_i32 sp_i32_any __attribute__((may_alias, aligned(1)));

SP_INLINE sp_i32 sp_bits_f32(sp_f32 v) { return (sp_i32)v; }
SP_INLINE sp_f32 sp_from_bits_f32(sp_i32 v) { return (sp_f32)v; }
/* no sum of floats: -0 stays -0 */
SP_INLINE sp_f32 sp_set1_f32(float x) { return x - (sp_f32){0.0f}; }
SP_INLINE sp_i32 sp_set1_i32(int32_t x) { return x + (sp_i32){0}; }
SP_INLINE sp_f32 sp_zero_f32(void) { return (sp_f32){0.0f}; }

/* Of the header that includes this one, as is the rest of the vocabulary: what depends on the number
 * of lanes, fused products, conversions to int32, and sums of products. */
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b);
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b);
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b);
SP_INLINE sp_u16 sp_get_halves(const uint16_t *p, int n);
SP_INLINE void sp_put_halves(uint16_t *p, sp_u32 v, int n);
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n);
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n);
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n);
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n);

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
SP_INLINE sp_mask sp_mask_not(sp_mask a) { return ~a; }
SP_INLINE sp_f32 sp_select_f32(sp_mask m, sp_f32 a, sp_f32 b) {
  return (sp_f32)sp_select_i32(m, (sp_i32)a, (sp_i32)b);
}

/* f32 */
SP_INLINE sp_f32 sp_add_f32(sp_f32 a, sp_f32 b) { return a + b; }
SP_INLINE sp_f32 sp_sub_f32(sp_f32 a, sp_f32 b) { return a - b; }
SP_INLINE sp_f32 sp_mul_f32(sp_f32 a, sp_f32 b) { return a * b; }
SP_INLINE sp_f32 sp_div_f32(sp_f32 a, sp_f32 b) { return a / b; }
SP_INLINE sp_f32 sp_neg_f32(sp_f32 v) { return -v; }

/* i32; unsigned where C leaves overflow undefined */
SP_INLINE sp_i32 sp_add_i32(sp_i32 a, sp_i32 b) {
  return (sp_i32)((sp_u32)a + (sp_u32)b);
}
SP_INLINE sp_i32 sp_sub_i32(sp_i32 a, sp_i32 b) {
  return (sp_i32)((sp_u32)a - (sp_u32)b);
}
SP_INLINE sp_i32 sp_mul_i32(sp_i32 a, sp_i32 b) {
  return (sp_i32)((sp_u32)a * (sp_u32)b);
}
SP_INLINE sp_i32 sp_and_i32(sp_i32 a, sp_i32 b) { return a & b; }
SP_INLINE sp_i32 sp_or_i32(sp_i32 a, sp_i32 b) { return a | b; }
SP_INLINE sp_i32 sp_xor_i32(sp_i32 a, sp_i32 b) { return a ^ b; }
SP_INLINE sp_i32 sp_shl_i32(sp_i32 v, int n) { return (sp_i32)((sp_u32)v << (uint32_t)n); }
SP_INLINE sp_i32 sp_shr_i32(sp_i32 v, int n) { return v >> n; }
SP_INLINE sp_i32 sp_shru_i32(sp_i32 v, int n) { return (sp_i32)((sp_u32)v >> (uint32_t)n); }
SP_INLINE sp_i32 sp_mulh31_i32(sp_i32 a, sp_i32 b) {
  const sp_s64 product = __builtin_convertvector(a, sp_s64) * __builtin_convertvector(b, sp_s64);
  return __builtin_convertvector((product + (1 << 30)) >> 31, sp_i32);
}
SP_INLINE sp_i32 sp_mulh15_i32(sp_i32 a, sp_i32 b) {
#if defined(__wasm_simd128__)
  typedef int16_t sp_halves __attribute__((vector_size(16)));
  return (sp_i32)__builtin_wasm_q15mulr_sat_s_i16x8((sp_halves)a, (sp_halves)b);
#else
  return (a * b + (1 << 14)) >> 15;
#endif
}
SP_INLINE sp_i32 sp_rshr_i32(sp_i32 v, sp_i32 n) {
  const sp_u32 half = ((sp_u32)sp_set1_i32(1) << (sp_u32)n) >> 1u;
  return (sp_i32)((sp_u32)v + half) >> n;
}

/* What clang has functions of any vector for. */
#if defined(__clang__)
SP_INLINE int sp_mask_any(sp_mask a) { return __builtin_reduce_or(a) != 0; }
SP_INLINE sp_f32 sp_sqrt_f32(sp_f32 v) { return __builtin_elementwise_sqrt(v); }
SP_INLINE sp_f32 sp_abs_f32(sp_f32 v) { return __builtin_elementwise_abs(v); }
SP_INLINE sp_f32 sp_copysign_f32(sp_f32 mag, sp_f32 sgn) {
  return __builtin_elementwise_copysign(mag, sgn);
}
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) { return __builtin_elementwise_roundeven(v); }
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) { return __builtin_elementwise_floor(v); }
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) { return __builtin_elementwise_ceil(v); }
SP_INLINE sp_i32 sp_max_i32(sp_i32 a, sp_i32 b) { return __builtin_elementwise_max(a, b); }
SP_INLINE sp_i32 sp_min_i32(sp_i32 a, sp_i32 b) { return __builtin_elementwise_min(a, b); }
SP_INLINE int32_t sp_sum_i32(sp_i32 v) { return (int32_t)__builtin_reduce_add((sp_u32)v); }
#else
SP_INLINE int sp_mask_any(sp_mask a) {
  int32_t any = 0;
  for (int i = 0; i < SP_LANES; ++i) any |= a[i];
  return any != 0;
}
SP_INLINE sp_f32 sp_abs_f32(sp_f32 v) { return (sp_f32)((sp_i32)v & 0x7fffffff); }
SP_INLINE sp_f32 sp_copysign_f32(sp_f32 mag, sp_f32 sgn) {
  return (sp_f32)(((sp_i32)mag & 0x7fffffff) | ((sp_i32)sgn & INT32_MIN));
}
/* From 2^23 on every float is an integer; the comparison is false for NaN, which is returned. */
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) {
  const sp_f32 a = sp_abs_f32(v), r = sp_copysign_f32((a + 8388608.0f) - 8388608.0f, v);
  return sp_select_f32(a < 8388608.0f, r, v);
}
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) {
  const sp_f32 r = sp_round_f32(v);
  return sp_select_f32(r > v, r - 1.0f, r);
}
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) {
  const sp_f32 r = sp_round_f32(v);
  return sp_select_f32(r < v, sp_copysign_f32(r + 1.0f, v), r);
}
SP_INLINE sp_i32 sp_max_i32(sp_i32 a, sp_i32 b) { return sp_select_i32(a > b, a, b); }
SP_INLINE sp_i32 sp_min_i32(sp_i32 a, sp_i32 b) { return sp_select_i32(a < b, a, b); }
SP_INLINE int32_t sp_sum_i32(sp_i32 v) {
  uint32_t sum = 0;
  for (int i = 0; i < SP_LANES; ++i) sum += (uint32_t)v[i];
  return (int32_t)sum;
}
#endif

/* convert */
SP_INLINE sp_f32 sp_cvt_i32_f32(sp_i32 v) { return __builtin_convertvector(v, sp_f32); }
/* memory */
SP_INLINE sp_f32 sp_load_f32(const float *p) { return *(const sp_f32_at *)(const void *)p; }
SP_INLINE void sp_store_f32(float *p, sp_f32 v) { *(sp_f32_at *)(void *)p = v; }
SP_INLINE sp_i32 sp_load_i32(const int32_t *p) { return *(const sp_i32_at *)(const void *)p; }
SP_INLINE void sp_store_i32(int32_t *p, sp_i32 v) { *(sp_i32_at *)(void *)p = v; }
/* binary16 by integers: V alone converts no halves. Below 2^-14 a half counts units of 2^-24. */
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n) {
  const sp_i32 h = __builtin_convertvector(sp_get_halves(p, n), sp_i32);
  const sp_i32 m = h & 0x7fff, s = sp_shl_i32(h & 0x8000, 16);
  const sp_i32 big = (m << 13) + (112 << 23);
  const sp_i32 tiny = sp_bits_f32(sp_cvt_i32_f32(m) * 5.9604644775390625e-8f);
  const sp_i32 whole = big + ((m >= 0x7c00) & (112 << 23));
  return sp_from_bits_f32(s | sp_select_i32(m < 0x400, tiny, whole));
}
SP_INLINE sp_f32 sp_load_f16(const uint16_t *p) { return sp_loadn_f16(p, SP_LANES); }
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n) {
  const sp_i32 b = sp_bits_f32(v), a = b & 0x7fffffff;
  const sp_i32 normal = (a - 0x38000000 + 0xfff + ((a >> 13) & 1)) >> 13;
  const sp_i32 tiny = sp_bits_f32(sp_from_bits_f32(a) + 0.5f) - 0x3f000000;
  sp_i32 r = sp_select_i32(a < 0x38800000, tiny, normal);
  r = sp_select_i32(a >= 0x477ff000, sp_set1_i32(0x7c00), r);
  r = sp_select_i32(a > 0x7f800000, 0x7e00 | ((a >> 13) & 0x3ff), r);
  sp_put_halves(p, (sp_u32)(r | (sp_shru_i32(b, 16) & 0x8000)), n);
}
SP_INLINE void sp_store_f16(uint16_t *p, sp_f32 v) { sp_storen_f16(p, v, SP_LANES); }
SP_INLINE sp_f32 sp_loadn_bf16(const uint16_t *p, int n) {
  return sp_from_bits_f32(
      sp_shl_i32(__builtin_convertvector(sp_get_halves(p, n), sp_i32), 16));
}
SP_INLINE sp_f32 sp_load_bf16(const uint16_t *p) { return sp_loadn_bf16(p, SP_LANES); }
SP_INLINE void sp_storen_bf16(uint16_t *p, sp_f32 v, int n) {
  const sp_u32 b = (sp_u32)(sp_bits_f32(v));
  const sp_i32 up = (sp_i32)(b + 0x7fff + ((b >> 16) & 1));
  const sp_i32 r = sp_select_i32(v != v, (sp_i32)(b | 0x400000), up);
  sp_put_halves(p, (sp_u32)r >> 16, n);
}
SP_INLINE void sp_store_bf16(uint16_t *p, sp_f32 v) { sp_storen_bf16(p, v, SP_LANES); }
SP_INLINE sp_i32 sp_load_i8(const int8_t *p) { return sp_loadn_i8(p, SP_LANES); }
SP_INLINE sp_i32 sp_load_u8(const uint8_t *p) { return sp_loadn_u8(p, SP_LANES); }
SP_INLINE void sp_store_i8(int8_t *p, sp_i32 v) { sp_storen_i8(p, v, SP_LANES); }
SP_INLINE void sp_store_u8(uint8_t *p, sp_i32 v) { sp_storen_u8(p, v, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_i16(const int16_t *p, int n) {
  const sp_i32 h = __builtin_convertvector(sp_get_halves((const uint16_t *)p, n), sp_i32);
  return (h ^ 0x8000) - 0x8000;
}
SP_INLINE sp_i32 sp_load_i16(const int16_t *p) { return sp_loadn_i16(p, SP_LANES); }
SP_INLINE void sp_storen_i16(int16_t *p, sp_i32 v, int n) {
  const sp_i32 low = sp_select_i32(v < -32768, sp_set1_i32(-32768), v);
  sp_put_halves((uint16_t *)p, (sp_u32)sp_select_i32(low > 32767, sp_set1_i32(32767), low), n);
}
SP_INLINE void sp_store_i16(int16_t *p, sp_i32 v) { sp_storen_i16(p, v, SP_LANES); }
SP_INLINE void sp_prefetch(const void *p) { __builtin_prefetch(p); }
SP_INLINE void sp_prefetch_l2(const void *p) { __builtin_prefetch(p, 0, 2); }

/* quads of bytes */
SP_INLINE int32_t sp_quad(const void *p) { return (int32_t)*(const sp_u32_at *)p; }
SP_INLINE sp_i32 sp_set1_quad(const void *p) { return sp_set1_i32(sp_quad(p)); }
SP_INLINE sp_i32 sp_flip_i32(sp_i32 v) { return v ^ -0x7f7f7f80; }
SP_INLINE sp_i32 sp_loadq_i32(const void *p) { return *(const sp_i32_any *)p; }
SP_INLINE void sp_storeq_i32(void *p, sp_i32 v) { *(sp_i32_any *)p = v; }
SP_INLINE sp_i32 sp_addp_i32(sp_i32 a, sp_i32 b) {
  return (sp_i32)((sp_u16_pairs)a + (sp_u16_pairs)b);
}
SP_INLINE sp_i32 sp_subp_i32(sp_i32 a, sp_i32 b) {
  return (sp_i32)((sp_u16_pairs)a - (sp_u16_pairs)b);
}

#endif
