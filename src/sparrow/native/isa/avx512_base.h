/* Vector vocabulary for x86-64-v4 (AVX-512 F, BW, DQ, VL): 16 lanes. Meaning of each name:
 * isa/scalar.h. gcc >= 9 or clang >= 9; compile with -march=x86-64-v4 (zig: -mcpu=x86_64_v4).
 * With clang also -mprefer-vector-width=512 for loops that are not written over the vocabulary. */
#ifndef SP_AVX512_BASE_H
#define SP_AVX512_BASE_H

#include "../base.h"
#include "x86_pairs.h"

#include <immintrin.h>

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || \
    !defined(__AVX512VL__) || !defined(__x86_64__)
#error "isa/avx512.h needs x86-64 with AVX-512 F, BW, DQ and VL (-march=x86-64-v4)"
#endif

#define SP_LANES 16

typedef __m512 sp_f32;
typedef __m512i sp_i32;
typedef __mmask16 sp_mask;

/* Compiler vectors, for shifts: gcc accepts only literal counts in the shift intrinsics. */
typedef int32_t __attribute__((vector_size(64))) sp_v16s;
typedef uint32_t __attribute__((vector_size(64))) sp_v16u;

/* Lanes < n, for 0 <= n <= 16. */
SP_INLINE sp_mask sp_first(int n) { return (sp_mask)((1u << n) - 1u); }

/* memory */
SP_INLINE sp_f32 sp_load_f32(const float *p) { return _mm512_loadu_ps(p); }
SP_INLINE sp_f32 sp_loadn_f32(const float *p, int n) {
  return n >= SP_LANES ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(sp_first(n), p);
}
SP_INLINE void sp_store_f32(float *p, sp_f32 v) { _mm512_storeu_ps(p, v); }
SP_INLINE void sp_storen_f32(float *p, sp_f32 v, int n) {
  if (n >= SP_LANES)
    _mm512_storeu_ps(p, v);
  else
    _mm512_mask_storeu_ps(p, sp_first(n), v);
}
SP_INLINE sp_i32 sp_load_i32(const int32_t *p) { return _mm512_loadu_si512(p); }
SP_INLINE sp_i32 sp_loadn_i32(const int32_t *p, int n) {
  return n >= SP_LANES ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi32(sp_first(n), p);
}
SP_INLINE void sp_store_i32(int32_t *p, sp_i32 v) { _mm512_storeu_si512(p, v); }
SP_INLINE void sp_storen_i32(int32_t *p, sp_i32 v, int n) {
  if (n >= SP_LANES)
    _mm512_storeu_si512(p, v);
  else
    _mm512_mask_storeu_epi32(p, sp_first(n), v);
}
#define SP_STORES_FROM
SP_INLINE void sp_store_from_i32(int32_t *p, sp_i32 v, int from, int n) {
  _mm512_mask_storeu_epi32(p, (sp_mask)(sp_first(n) & ~sp_first(from)), v);
}
SP_INLINE __m256i sp_get_halves(const uint16_t *p, int n) {
  return n >= SP_LANES ? _mm256_loadu_si256((const __m256i *)(const void *)p)
                       : _mm256_maskz_loadu_epi16(sp_first(n), p);
}
SP_INLINE void sp_put_halves(uint16_t *p, __m256i v, int n) {
  if (n >= SP_LANES)
    _mm256_storeu_si256((__m256i *)(void *)p, v);
  else
    _mm256_mask_storeu_epi16(p, sp_first(n), v);
}
SP_INLINE __m128i sp_get_bytes(const void *p, int n) {
  return n >= SP_LANES ? _mm_loadu_si128((const __m128i *)p) : _mm_maskz_loadu_epi8(sp_first(n), p);
}
SP_INLINE void sp_put_bytes(void *p, __m128i v, int n) {
  if (n >= SP_LANES)
    _mm_storeu_si128((__m128i *)p, v);
  else
    _mm_mask_storeu_epi8(p, sp_first(n), v);
}
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n) {
  return _mm512_cvtph_ps(sp_get_halves(p, n));
}
SP_INLINE sp_f32 sp_load_f16(const uint16_t *p) { return sp_loadn_f16(p, SP_LANES); }
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n) {
  sp_put_halves(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), n);
}
SP_INLINE void sp_store_f16(uint16_t *p, sp_f32 v) { sp_storen_f16(p, v, SP_LANES); }
SP_INLINE sp_f32 sp_loadn_bf16(const uint16_t *p, int n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sp_get_halves(p, n)), 16));
}
SP_INLINE sp_f32 sp_load_bf16(const uint16_t *p) { return sp_loadn_bf16(p, SP_LANES); }
SP_INLINE void sp_storen_bf16(uint16_t *p, sp_f32 v, int n) {
  const __m512i b = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(b, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(b, _mm512_set1_epi32(0x400000));
  const sp_mask nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i r = _mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, quiet), 16);
  /* Saturating, which changes nothing: clang 22 turns a plain truncation and a masked store of one
   * lane into a store of the untruncated 32 bits. */
  sp_put_halves(p, _mm512_cvtusepi32_epi16(r), n);
}
SP_INLINE void sp_store_bf16(uint16_t *p, sp_f32 v) { sp_storen_bf16(p, v, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n) {
  return _mm512_cvtepi8_epi32(sp_get_bytes(p, n));
}
SP_INLINE sp_i32 sp_load_i8(const int8_t *p) { return sp_loadn_i8(p, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n) {
  return _mm512_cvtepu8_epi32(sp_get_bytes(p, n));
}
SP_INLINE sp_i32 sp_load_u8(const uint8_t *p) { return sp_loadn_u8(p, SP_LANES); }
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n) {
  sp_put_bytes(p, _mm512_cvtsepi32_epi8(v), n);
}
SP_INLINE void sp_store_i8(int8_t *p, sp_i32 v) { sp_storen_i8(p, v, SP_LANES); }
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n) {
  sp_put_bytes(p, _mm512_cvtusepi32_epi8(_mm512_max_epi32(v, _mm512_setzero_si512())), n);
}
SP_INLINE void sp_store_u8(uint8_t *p, sp_i32 v) { sp_storen_u8(p, v, SP_LANES); }
/* Two to four vectors, packed before they are stored. Behind the sums of tiles that gains nothing on
 * Zen 4; on Sapphire Rapids a narrowing store takes two operations of one of the two vector ports. */
#define SP_STORE_VECTORS 4
#define SP_TILE_STORES 1
SP_INLINE __m512i sp_in_turn(__m512i v) { /* packs go by quarters of a vector */
  return _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
}
SP_INLINE void sp_stores_packed(void *p, __m512i v, int count) {
  v = sp_in_turn(v);
  if (count == 2)
    _mm256_storeu_si256((__m256i *)p, _mm512_castsi512_si256(v));
  else if (count == 3)
    _mm512_mask_storeu_epi32(p, 0xfff, v);
  else
    _mm512_storeu_si512(p, v);
}
SP_INLINE __m512i sp_packed(const sp_i32 *v, int i, int count) {
  return _mm512_packs_epi32(v[i], v[i + 1 < count ? i + 1 : i]);
}
SP_INLINE void sp_stores_i8(int8_t *p, const sp_i32 *v, int count) {
  const __m512i low = sp_packed(v, 0, count), high = count > 2 ? sp_packed(v, 2, count) : low;
  sp_stores_packed(p, _mm512_packs_epi16(low, high), count);
}
SP_INLINE void sp_stores_u8(uint8_t *p, const sp_i32 *v, int count) {
  const __m512i low = sp_packed(v, 0, count), high = count > 2 ? sp_packed(v, 2, count) : low;
  sp_stores_packed(p, _mm512_packus_epi16(low, high), count);
}
SP_INLINE sp_i32 sp_loadn_i16(const int16_t *p, int n) {
  return _mm512_cvtepi16_epi32(sp_get_halves((const uint16_t *)p, n));
}
SP_INLINE sp_i32 sp_load_i16(const int16_t *p) { return sp_loadn_i16(p, SP_LANES); }
SP_INLINE void sp_storen_i16(int16_t *p, sp_i32 v, int n) {
  sp_put_halves((uint16_t *)p, _mm512_cvtsepi32_epi16(v), n);
}
SP_INLINE void sp_store_i16(int16_t *p, sp_i32 v) { sp_storen_i16(p, v, SP_LANES); }
SP_INLINE void sp_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
SP_INLINE void sp_prefetch_l2(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }

/* lanes */
SP_INLINE sp_f32 sp_set1_f32(float x) { return _mm512_set1_ps(x); }
SP_INLINE sp_i32 sp_set1_i32(int32_t x) { return _mm512_set1_epi32(x); }
SP_INLINE sp_f32 sp_zero_f32(void) { return _mm512_setzero_ps(); }
SP_INLINE sp_i32 sp_iota_i32(void) {
  return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
SP_INLINE sp_i32 sp_gather_pair_i32(const int32_t *t, sp_i32 i, sp_i32 *next) {
  const __m512i even =
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  const __m512i lo = _mm512_inserti64x4(
      _mm512_castsi256_si512(sp_pairs_at(t, _mm512_castsi512_si128(i))),
      sp_pairs_at(t, _mm512_extracti32x4_epi32(i, 1)), 1);
  const __m512i hi = _mm512_inserti64x4(
      _mm512_castsi256_si512(sp_pairs_at(t, _mm512_extracti32x4_epi32(i, 2))),
      sp_pairs_at(t, _mm512_extracti32x4_epi32(i, 3)), 1);
  *next = _mm512_permutex2var_epi32(lo, odd, hi);
  return _mm512_permutex2var_epi32(lo, even, hi);
}
SP_INLINE sp_i32 sp_bits_f32(sp_f32 v) { return _mm512_castps_si512(v); }
SP_INLINE sp_f32 sp_from_bits_f32(sp_i32 v) { return _mm512_castsi512_ps(v); }
#define SP_HALVES 1
SP_INLINE sp_f32 sp_halves_f32(sp_f32 a, sp_f32 b) { return _mm512_mask_blend_ps(0xff00, a, b); }
SP_INLINE sp_f32 sp_second_half_f32(sp_f32 v) { return _mm512_shuffle_f32x4(v, v, 0xee); }

/* compare and masks */
SP_INLINE sp_mask sp_lt_f32(sp_f32 a, sp_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
SP_INLINE sp_mask sp_le_f32(sp_f32 a, sp_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
SP_INLINE sp_mask sp_gt_f32(sp_f32 a, sp_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
SP_INLINE sp_mask sp_ge_f32(sp_f32 a, sp_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
SP_INLINE sp_mask sp_eq_f32(sp_f32 a, sp_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
SP_INLINE sp_mask sp_ne_f32(sp_f32 a, sp_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
SP_INLINE sp_mask sp_isnan_f32(sp_f32 v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q); }
SP_INLINE sp_mask sp_lt_i32(sp_i32 a, sp_i32 b) { return _mm512_cmplt_epi32_mask(a, b); }
SP_INLINE sp_mask sp_gt_i32(sp_i32 a, sp_i32 b) { return _mm512_cmpgt_epi32_mask(a, b); }
SP_INLINE sp_mask sp_eq_i32(sp_i32 a, sp_i32 b) { return _mm512_cmpeq_epi32_mask(a, b); }
SP_INLINE sp_mask sp_mask_and(sp_mask a, sp_mask b) { return (sp_mask)(a & b); }
SP_INLINE sp_mask sp_mask_or(sp_mask a, sp_mask b) { return (sp_mask)(a | b); }
SP_INLINE sp_mask sp_mask_xor(sp_mask a, sp_mask b) { return (sp_mask)(a ^ b); }
SP_INLINE sp_mask sp_mask_not(sp_mask a) { return (sp_mask)(a ^ 0xffffu); }
SP_INLINE int sp_mask_any(sp_mask a) { return a != 0; }
SP_INLINE sp_f32 sp_select_f32(sp_mask m, sp_f32 a, sp_f32 b) {
  return _mm512_mask_blend_ps(m, b, a);
}
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) {
  return _mm512_mask_blend_epi32(m, b, a);
}

/* f32 */
SP_INLINE sp_f32 sp_sign_bit(void) { return _mm512_set1_ps(-0.0f); }
SP_INLINE sp_f32 sp_add_f32(sp_f32 a, sp_f32 b) { return _mm512_add_ps(a, b); }
SP_INLINE sp_f32 sp_sub_f32(sp_f32 a, sp_f32 b) { return _mm512_sub_ps(a, b); }
SP_INLINE sp_f32 sp_mul_f32(sp_f32 a, sp_f32 b) { return _mm512_mul_ps(a, b); }
SP_INLINE sp_f32 sp_div_f32(sp_f32 a, sp_f32 b) { return _mm512_div_ps(a, b); }
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return _mm512_fmadd_ps(a, b, c); }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return _mm512_fnmadd_ps(a, b, c); }
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return _mm512_max_ps(a, b); }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return _mm512_min_ps(a, b); }
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) {
  return _mm512_mask_max_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a, b); /* max(x, NaN) is NaN */
}
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) {
  return _mm512_mask_min_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a, b); /* min(x, NaN) is NaN */
}
SP_INLINE sp_f32 sp_sqrt_f32(sp_f32 v) { return _mm512_sqrt_ps(v); }
SP_INLINE sp_f32 sp_neg_f32(sp_f32 v) { return _mm512_xor_ps(v, sp_sign_bit()); }
SP_INLINE sp_f32 sp_abs_f32(sp_f32 v) { return _mm512_andnot_ps(sp_sign_bit(), v); }
SP_INLINE sp_f32 sp_copysign_f32(sp_f32 mag, sp_f32 sgn) {
  return _mm512_or_ps(sp_abs_f32(mag), _mm512_and_ps(sp_sign_bit(), sgn));
}
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
}
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
}

/* v 2^n, rounded once */
#define SP_SCALES
SP_INLINE sp_f32 sp_scale_f32(sp_f32 v, sp_i32 n) {
  return _mm512_scalef_ps(v, _mm512_cvtepi32_ps(n));
}

/* 2^(i/16), i the last 13 bits of each lane with their sign, which the result is normal for: the
 * bits of 16 roots, less what their i adds */
#define SP_SIXTEENTHS
SP_INLINE sp_f32 sp_exp2_sixteenths_f32(sp_i32 i) {
  const __m512i table = _mm512_setr_epi32(
      0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532,
      0x3f75fed7, 0x3f75583f, 0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
      0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d);
  const __m512i root = _mm512_permutexvar_epi32(i, table);
  return _mm512_castsi512_ps(_mm512_add_epi32(root, _mm512_slli_epi32(i, 19)));
}

/* x / s in codes without its division, which takes 10 cycles; see emit/quotient.py */
#define SP_QUOTIENTS
SP_INLINE sp_i32 sp_quotient_f32_i32(sp_f32 x, float s, float r, float lo, float hi) {
  const __m512 step = _mm512_set1_ps(s), back = _mm512_set1_ps(r);
  const __m512 above = _mm512_max_ps(_mm512_set1_ps(lo * s), x);
  const __m512 v = _mm512_min_ps(_mm512_set1_ps(hi * s), above), q = _mm512_mul_ps(v, back);
  const __m512 y = _mm512_fmadd_ps(_mm512_fnmadd_ps(q, step, v), back, q);
  return _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), y);
}

/* i32 */
SP_INLINE sp_i32 sp_add_i32(sp_i32 a, sp_i32 b) { return _mm512_add_epi32(a, b); }
SP_INLINE sp_i32 sp_sub_i32(sp_i32 a, sp_i32 b) { return _mm512_sub_epi32(a, b); }
SP_INLINE sp_i32 sp_mul_i32(sp_i32 a, sp_i32 b) { return _mm512_mullo_epi32(a, b); }
SP_INLINE sp_i32 sp_and_i32(sp_i32 a, sp_i32 b) { return _mm512_and_si512(a, b); }
SP_INLINE sp_i32 sp_or_i32(sp_i32 a, sp_i32 b) { return _mm512_or_si512(a, b); }
SP_INLINE sp_i32 sp_xor_i32(sp_i32 a, sp_i32 b) { return _mm512_xor_si512(a, b); }
SP_INLINE sp_i32 sp_shl_i32(sp_i32 v, int n) { return (sp_i32)((sp_v16u)v << (uint32_t)n); }
SP_INLINE sp_i32 sp_shr_i32(sp_i32 v, int n) { return (sp_i32)((sp_v16s)v >> n); }
SP_INLINE sp_i32 sp_shru_i32(sp_i32 v, int n) { return (sp_i32)((sp_v16u)v >> (uint32_t)n); }
SP_INLINE sp_i32 sp_mulh31_i32(sp_i32 a, sp_i32 b) {
  const __m512i half = _mm512_set1_epi64(1 << 30);
  const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(a, b), half);
  const __m512i up = _mm512_mul_epi32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
  const __m512i odd = _mm512_slli_epi64(_mm512_add_epi64(up, half), 1);
  return _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 31), odd);
}
SP_INLINE sp_i32 sp_mulh15_i32(sp_i32 a, sp_i32 b) { return _mm512_mulhrs_epi16(a, b); }
SP_INLINE sp_i32 sp_rshr_i32(sp_i32 v, sp_i32 n) {
  const __m512i half = _mm512_srli_epi32(_mm512_sllv_epi32(_mm512_set1_epi32(1), n), 1);
  return _mm512_srav_epi32(_mm512_add_epi32(v, half), n);
}
SP_INLINE sp_i32 sp_max_i32(sp_i32 a, sp_i32 b) { return _mm512_max_epi32(a, b); }
SP_INLINE sp_i32 sp_min_i32(sp_i32 a, sp_i32 b) { return _mm512_min_epi32(a, b); }

/* convert */
SP_INLINE sp_f32 sp_cvt_i32_f32(sp_i32 v) { return _mm512_cvtepi32_ps(v); }
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return _mm512_cvtps_epi32(v); }
SP_INLINE sp_i32 sp_rne_near_f32_i32(sp_f32 v) { return sp_rne_f32_i32(v); }
SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) { return _mm512_cvttps_epi32(v); }

/* reduce: lanes i and i+8, then i+4, i+2, i+1 */
SP_INLINE float sp_sum_f32(sp_f32 v) {
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e));
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
  return _mm512_cvtss_f32(_mm512_add_ps(v, _mm512_permute_ps(v, 0xb1)));
}
SP_INLINE float sp_hmax_f32(sp_f32 v) {
  v = sp_max_f32(v, _mm512_shuffle_f32x4(v, v, 0x4e));
  v = sp_max_f32(v, _mm512_shuffle_f32x4(v, v, 0xb1));
  v = sp_max_f32(v, _mm512_permute_ps(v, 0x4e));
  return _mm512_cvtss_f32(sp_max_f32(v, _mm512_permute_ps(v, 0xb1)));
}
SP_INLINE float sp_hmin_f32(sp_f32 v) {
  v = sp_min_f32(v, _mm512_shuffle_f32x4(v, v, 0x4e));
  v = sp_min_f32(v, _mm512_shuffle_f32x4(v, v, 0xb1));
  v = sp_min_f32(v, _mm512_permute_ps(v, 0x4e));
  return _mm512_cvtss_f32(sp_min_f32(v, _mm512_permute_ps(v, 0xb1)));
}
SP_INLINE int32_t sp_sum_i32(sp_i32 v) {
  v = _mm512_add_epi32(v, _mm512_shuffle_i32x4(v, v, 0x4e));
  v = _mm512_add_epi32(v, _mm512_shuffle_i32x4(v, v, 0xb1));
  v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC));
  v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, _MM_PERM_CDAB));
  return _mm_cvtsi128_si32(_mm512_castsi512_si128(v));
}

/* transpose: pairs, quads, then quarters of 128 bits twice */
SP_INLINE void sp_transpose_f32(sp_f32 *v) {
  __m512 a[16], b[16];
  SP_UNROLL
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  SP_UNROLL
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  SP_UNROLL
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
    a[i + 4] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
    a[i + 8] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
    a[i + 12] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
  }
  SP_UNROLL
  for (int i = 0; i < 8; ++i) {
    v[i] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
  }
}

/* products of bytes */
typedef uint32_t __attribute__((may_alias, aligned(1))) sp_u32_at;
SP_INLINE int32_t sp_quad(const void *p) { return (int32_t)*(const sp_u32_at *)p; }
/* The barrier keeps a broadcasting load, which costs no shuffle: clang would flip four bytes and
 * broadcast them afterwards. */
#ifndef SP_IN_VECTOR
#define SP_IN_VECTOR(v) __asm__("" : "+v"(v))
#endif
SP_INLINE sp_i32 sp_set1_quad(const void *p) {
  __m512i v = _mm512_set1_epi32(sp_quad(p));
  SP_IN_VECTOR(v);
  return v;
}
SP_INLINE sp_i32 sp_flip_i32(sp_i32 v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
#ifndef SP_TURNED_QUADS
#define SP_TURNED_QUADS
/* One operation with its load. A broadcast and a flip would be two, and one more register. */
SP_INLINE sp_i32 sp_set1_turned_quad(const void *p) {
  __m512i v;
  __asm__("vpxord %1%{1to16%}, %2, %0"
          : "=v"(v)
          : "m"(*(const sp_u32_at *)p), "v"(_mm512_set1_epi8(-128)));
  return v;
}
#endif
SP_INLINE sp_i32 sp_loadq_i32(const void *p) { return _mm512_loadu_si512(p); }
SP_INLINE void sp_storeq_i32(void *p, sp_i32 v) { _mm512_storeu_si512(p, v); }
/* 16 bytes of each in a quarter; four by four, first quads and then bytes are transposed */
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  __m512i v = _mm512_castsi128_si512(sp_get_bytes(p, n));
  v = _mm512_inserti32x4(v, sp_get_bytes(q, n), 1);
  v = _mm512_inserti32x4(v, sp_get_bytes(r, n), 2);
  v = _mm512_inserti32x4(v, sp_get_bytes(s, n), 3);
  v = _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
  return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6,
                                                                     10, 14, 3, 7, 11, 15)));
}
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
}
SP_INLINE sp_i32 sp_loadp_i32(const void *p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
SP_INLINE sp_i32 sp_addp_i32(sp_i32 a, sp_i32 b) { return _mm512_add_epi16(a, b); }
SP_INLINE sp_i32 sp_subp_i32(sp_i32 a, sp_i32 b) { return _mm512_sub_epi16(a, b); }
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  const __m128i a = sp_get_bytes(p, n), b = sp_get_bytes(q, n);
  return _mm512_cvtepi8_epi16(
      _mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b)));
}

#ifdef __AVX512VBMI__
/* 64 bytes of each of three planes in turn: vector k begins with a byte of plane k, of which it has the
 * third part and one more. */
#define SP_THREE_PLANES
SP_CONST uint8_t sp_thirds[66] = {
    0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 10,
    11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15, 16, 16, 16, 17, 17, 17, 18, 18, 18, 19, 19, 19, 20, 20, 20, 21, 21, 21};
SP_INLINE void sp_interleave_3(void *p, const void *a, const void *b, const void *c) {
  const __m512i plane[3] = {_mm512_loadu_si512(a), _mm512_loadu_si512(b), _mm512_loadu_si512(c)};
  const uint64_t every = 0x9249249249249249u; /* third bit, from the first on */
  SP_UNROLL
  for (int k = 0; k < 3; ++k) {
    const __m512i at = _mm512_add_epi8(_mm512_loadu_si512(sp_thirds + k), _mm512_set1_epi8((char)(21 * k)));
    __m512i v = _mm512_permutexvar_epi8(at, plane[k]);
    v = _mm512_mask_permutexvar_epi8(v, every << 1, at, plane[(k + 1) % 3]);
    v = _mm512_mask_permutexvar_epi8(v, every << 2, at, plane[(k + 2) % 3]);
    _mm512_storeu_si512((uint8_t *)p + 64 * k, v);
  }
}
#endif

/* 256-entry tables: y[i] = table[(x[i] + offset) & 255]. */
#ifdef __AVX512VBMI__
/* Seven bits of a byte pick one of 128 entries, the eighth which of two such. */
typedef struct sp_table {
  __m512i t[4];
} sp_table;
SP_INLINE sp_table sp_load_table(const uint8_t *p) {
  const sp_table table = {{_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64),
                           _mm512_loadu_si512(p + 128), _mm512_loadu_si512(p + 192)}};
  return table;
}
SP_INLINE __m512i sp_entries_of(const sp_table table, __m512i k) {
  const __m512i low = _mm512_permutex2var_epi8(table.t[0], k, table.t[1]);
  const __m512i high = _mm512_permutex2var_epi8(table.t[2], k, table.t[3]);
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(k), low, high);
}
/* Rows of n bytes, 16 or 32, of which a vector holds several: as many as it holds, or a multiple. */
#define SP_LOOKS_UP_ROWS
SP_INLINE void sp_lookup_rows(const uint8_t *table, const uint8_t *x, ptrdiff_t ldx, uint8_t *y,
                              ptrdiff_t ldy, ptrdiff_t rows, int n, int offset) {
  const __m512i add = _mm512_set1_epi8((char)offset);
  const sp_table entries = sp_load_table(table);
  for (; rows > 0; rows -= 64 / n, x += 64 / n * ldx, y += 64 / n * ldy) {
    __m512i k;
    if (n == 32) {
      k = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)x));
      k = _mm512_inserti64x4(k, _mm256_loadu_si256((const __m256i *)(const void *)(x + ldx)), 1);
    } else {
      k = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)x));
      k = _mm512_inserti32x4(k, _mm_loadu_si128((const __m128i *)(const void *)(x + ldx)), 1);
      k = _mm512_inserti32x4(k, _mm_loadu_si128((const __m128i *)(const void *)(x + 2 * ldx)), 2);
      k = _mm512_inserti32x4(k, _mm_loadu_si128((const __m128i *)(const void *)(x + 3 * ldx)), 3);
    }
    const __m512i v = sp_entries_of(entries, _mm512_add_epi8(k, add));
    if (n == 32) {
      _mm256_storeu_si256((__m256i *)(void *)y, _mm512_castsi512_si256(v));
      _mm256_storeu_si256((__m256i *)(void *)(y + ldy), _mm512_extracti64x4_epi64(v, 1));
    } else {
      _mm_storeu_si128((__m128i *)(void *)y, _mm512_castsi512_si128(v));
      _mm_storeu_si128((__m128i *)(void *)(y + ldy), _mm512_extracti32x4_epi32(v, 1));
      _mm_storeu_si128((__m128i *)(void *)(y + 2 * ldy), _mm512_extracti32x4_epi32(v, 2));
      _mm_storeu_si128((__m128i *)(void *)(y + 3 * ldy), _mm512_extracti32x4_epi32(v, 3));
    }
  }
}
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  const __m512i add = _mm512_set1_epi8((char)offset);
  const sp_table entries = sp_load_table(table);
  ptrdiff_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const __m512i k = _mm512_add_epi8(_mm512_loadu_si512(x + i), add);
    _mm512_storeu_si512(y + i, sp_entries_of(entries, k));
  }
  if (i < n) {
    const __mmask64 there = ((__mmask64)1 << (n - i)) - 1;
    const __m512i k = _mm512_add_epi8(_mm512_maskz_loadu_epi8(there, x + i), add);
    _mm512_mask_storeu_epi8(y + i, there, sp_entries_of(entries, k));
  }
}
#else
/* Sixteen entries are looked up by the low half of a byte; the high half says which of the sixteen. */
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  const __m512i add = _mm512_set1_epi8((char)offset), low = _mm512_set1_epi8(15);
  ptrdiff_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const __m512i k = _mm512_add_epi8(_mm512_loadu_si512(x + i), add);
    const __m512i high = _mm512_andnot_si512(low, k);
    __m512i v = _mm512_setzero_si512();
    SP_UNROLL
    for (int h = 0; h < 16; ++h) {
      const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(table + 16 * h)));
      const __mmask64 m = _mm512_cmpeq_epi8_mask(high, _mm512_set1_epi8((char)(16 * h)));
      v = _mm512_mask_shuffle_epi8(v, m, t, _mm512_and_si512(k, low));
    }
    _mm512_storeu_si512(y + i, v);
  }
  for (; i < n; ++i) y[i] = table[(x[i] + offset) & 255];
}
#endif

#endif
