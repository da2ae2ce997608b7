/* The vocabulary for x86-64-v3 (AVX2 + FMA + F16C) but for products of bytes: 8 lanes. Meaning of each
 * name: isa/scalar.h. */
#ifndef SP_AVX2_BASE_H
#define SP_AVX2_BASE_H

#include "../base.h"
#include "bytes.h"
#include "x86_pairs.h"

#include <immintrin.h>

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__) || !defined(__x86_64__)
#error "isa/avx2_base.h needs x86-64 with AVX2, FMA and F16C (-march=x86-64-v3)"
#endif

#define SP_LANES 8

typedef __m256 sp_f32;
typedef __m256i sp_i32;
typedef __m256 sp_mask; /* all bits of a lane set or clear */

SP_CONST int32_t sp_tail[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

/* Lanes < n, for 0 <= n <= 8. */
SP_INLINE __m256i sp_first(int n) {
  return _mm256_loadu_si256((const __m256i *)(const void *)(sp_tail + 8 - n));
}

/* The first n halfwords at p, 0 <= n <= 8, zero extended. */
SP_INLINE __m128i sp_get_halves(const uint16_t *p, int n) {
  if (n >= 8) return _mm_loadu_si128((const __m128i *)(const void *)p);
  if (n < 4) return _mm_set_epi64x(0, (long long)sp_get_bytes(p, 2 * n));
  return _mm_set_epi64x((long long)sp_get_bytes(p + 4, 2 * (n - 4)),
                        (long long)*(const sp_u64_at *)(const void *)p);
}

SP_INLINE void sp_put_halves(uint16_t *p, __m128i v, int n) {
  if (n >= 8) {
    _mm_storeu_si128((__m128i *)(void *)p, v);
  } else if (n < 4) {
    sp_put_bytes(p, (uint64_t)_mm_cvtsi128_si64(v), 2 * n);
  } else {
    *(sp_u64_at *)(void *)p = (uint64_t)_mm_cvtsi128_si64(v);
    sp_put_bytes(p + 4, (uint64_t)_mm_extract_epi64(v, 1), 2 * (n - 4));
  }
}

/* memory */
SP_INLINE sp_f32 sp_load_f32(const float *p) { return _mm256_loadu_ps(p); }
SP_INLINE sp_f32 sp_loadn_f32(const float *p, int n) {
  return n >= SP_LANES ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, sp_first(n));
}
SP_INLINE void sp_store_f32(float *p, sp_f32 v) { _mm256_storeu_ps(p, v); }
SP_INLINE void sp_storen_f32(float *p, sp_f32 v, int n) {
  if (n >= SP_LANES)
    _mm256_storeu_ps(p, v);
  else
    _mm256_maskstore_ps(p, sp_first(n), v);
}
SP_INLINE sp_i32 sp_load_i32(const int32_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
SP_INLINE sp_i32 sp_loadn_i32(const int32_t *p, int n) {
  return n >= SP_LANES ? sp_load_i32(p) : _mm256_maskload_epi32((const int *)p, sp_first(n));
}
SP_INLINE void sp_store_i32(int32_t *p, sp_i32 v) { _mm256_storeu_si256((__m256i *)(void *)p, v); }
SP_INLINE void sp_storen_i32(int32_t *p, sp_i32 v, int n) {
  if (n >= SP_LANES)
    sp_store_i32(p, v);
  else
    _mm256_maskstore_epi32((int *)p, sp_first(n), v);
}
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n) {
  return _mm256_cvtph_ps(sp_get_halves(p, n));
}
SP_INLINE sp_f32 sp_load_f16(const uint16_t *p) { return sp_loadn_f16(p, SP_LANES); }
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n) {
  sp_put_halves(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT), n);
}
SP_INLINE void sp_store_f16(uint16_t *p, sp_f32 v) { sp_storen_f16(p, v, SP_LANES); }
SP_INLINE sp_f32 sp_loadn_bf16(const uint16_t *p, int n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(sp_get_halves(p, n)), 16));
}
SP_INLINE sp_f32 sp_load_bf16(const uint16_t *p) { return sp_loadn_bf16(p, SP_LANES); }
SP_INLINE void sp_storen_bf16(uint16_t *p, sp_f32 v, int n) {
  const __m256i b = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(b, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(b, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i r = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
  sp_put_halves(p, _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1)), n);
}
SP_INLINE void sp_store_bf16(uint16_t *p, sp_f32 v) { sp_storen_bf16(p, v, SP_LANES); }
SP_INLINE __m128i sp_get_octet(const void *p, int n) {
  return n >= SP_LANES ? _mm_loadl_epi64((const __m128i *)p)
                       : _mm_set_epi64x(0, (long long)sp_get_bytes(p, n));
}
SP_INLINE void sp_put_octet(void *p, __m128i v, int n) {
  if (n >= SP_LANES)
    _mm_storel_epi64((__m128i *)p, v);
  else
    sp_put_bytes(p, (uint64_t)_mm_cvtsi128_si64(v), n);
}
SP_INLINE __m128i sp_pack16(sp_i32 v) {
  return _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n) {
  return _mm256_cvtepi8_epi32(sp_get_octet(p, n));
}
SP_INLINE sp_i32 sp_load_i8(const int8_t *p) { return sp_loadn_i8(p, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n) {
  return _mm256_cvtepu8_epi32(sp_get_octet(p, n));
}
SP_INLINE sp_i32 sp_load_u8(const uint8_t *p) { return sp_loadn_u8(p, SP_LANES); }
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n) {
  const __m128i h = sp_pack16(v);
  sp_put_octet(p, _mm_packs_epi16(h, h), n);
}
SP_INLINE void sp_store_i8(int8_t *p, sp_i32 v) { sp_storen_i8(p, v, SP_LANES); }
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n) {
  const __m128i h = sp_pack16(v);
  sp_put_octet(p, _mm_packus_epi16(h, h), n);
}
SP_INLINE void sp_store_u8(uint8_t *p, sp_i32 v) { sp_storen_u8(p, v, SP_LANES); }
/* Two to four whole vectors. */
#define SP_STORE_VECTORS 4
SP_INLINE void sp_stores_packed(void *p, __m256i v, int count) { /* packs go by halves of a vector */
  v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  if (count == 4)
    _mm256_storeu_si256((__m256i *)p, v);
  else
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(v));
  if (count == 3)
    _mm_storel_epi64((__m128i *)(void *)((uint8_t *)p + 16), _mm256_extracti128_si256(v, 1));
}
SP_INLINE __m256i sp_packed(const sp_i32 *v, int i, int count) {
  return _mm256_packs_epi32(v[i], v[i + 1 < count ? i + 1 : i]);
}
SP_INLINE void sp_stores_i8(int8_t *p, const sp_i32 *v, int count) {
  const __m256i low = sp_packed(v, 0, count), high = count > 2 ? sp_packed(v, 2, count) : low;
  sp_stores_packed(p, _mm256_packs_epi16(low, high), count);
}
SP_INLINE void sp_stores_u8(uint8_t *p, const sp_i32 *v, int count) {
  const __m256i low = sp_packed(v, 0, count), high = count > 2 ? sp_packed(v, 2, count) : low;
  sp_stores_packed(p, _mm256_packus_epi16(low, high), count);
}
/* Four whole vectors, ld bytes apart: packing is within halves of registers, which part at the end. */
#define SP_STORES_APART 4
SP_INLINE void sp_put_apart(uint8_t *p, ptrdiff_t ld, __m256i v) {
  const __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
  const __m128i a = _mm_unpacklo_epi32(low, high), b = _mm_unpackhi_epi32(low, high);
  _mm_storel_epi64((__m128i *)(void *)p, a);
  _mm_storeh_pd((double *)(void *)(p + ld), _mm_castsi128_pd(a));
  _mm_storel_epi64((__m128i *)(void *)(p + 2 * ld), b);
  _mm_storeh_pd((double *)(void *)(p + 3 * ld), _mm_castsi128_pd(b));
}
SP_INLINE void sp_stores_apart_i8(int8_t *p, ptrdiff_t ld, const sp_i32 *v) {
  sp_put_apart((uint8_t *)p, ld, _mm256_packs_epi16(sp_packed(v, 0, 4), sp_packed(v, 2, 4)));
}
SP_INLINE void sp_stores_apart_u8(uint8_t *p, ptrdiff_t ld, const sp_i32 *v) {
  sp_put_apart(p, ld, _mm256_packus_epi16(sp_packed(v, 0, 4), sp_packed(v, 2, 4)));
}
SP_INLINE sp_i32 sp_loadn_i16(const int16_t *p, int n) {
  return _mm256_cvtepi16_epi32(sp_get_halves((const uint16_t *)p, n));
}
SP_INLINE sp_i32 sp_load_i16(const int16_t *p) { return sp_loadn_i16(p, SP_LANES); }
SP_INLINE void sp_storen_i16(int16_t *p, sp_i32 v, int n) {
  sp_put_halves((uint16_t *)p, sp_pack16(v), n);
}
SP_INLINE void sp_store_i16(int16_t *p, sp_i32 v) { sp_storen_i16(p, v, SP_LANES); }
SP_INLINE void sp_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
SP_INLINE void sp_prefetch_l2(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }

/* lanes */
SP_INLINE sp_f32 sp_set1_f32(float x) { return _mm256_set1_ps(x); }
SP_INLINE sp_i32 sp_set1_i32(int32_t x) { return _mm256_set1_epi32(x); }
SP_INLINE sp_f32 sp_zero_f32(void) { return _mm256_setzero_ps(); }
SP_INLINE sp_i32 sp_iota_i32(void) { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
SP_INLINE sp_i32 sp_gather_pair_i32(const int32_t *t, sp_i32 i, sp_i32 *next) {
  const __m256 lo = _mm256_castsi256_ps(sp_pairs_at(t, _mm256_castsi256_si128(i)));
  const __m256 hi = _mm256_castsi256_ps(sp_pairs_at(t, _mm256_extracti128_si256(i, 1)));
  const __m256i a = _mm256_castps_si256(_mm256_shuffle_ps(lo, hi, 0x88));
  const __m256i b = _mm256_castps_si256(_mm256_shuffle_ps(lo, hi, 0xdd));
  *next = _mm256_permute4x64_epi64(b, 0xd8);
  return _mm256_permute4x64_epi64(a, 0xd8);
}
SP_INLINE sp_i32 sp_bits_f32(sp_f32 v) { return _mm256_castps_si256(v); }
SP_INLINE sp_f32 sp_from_bits_f32(sp_i32 v) { return _mm256_castsi256_ps(v); }

/* compare and masks */
SP_INLINE sp_mask sp_lt_f32(sp_f32 a, sp_f32 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
SP_INLINE sp_mask sp_le_f32(sp_f32 a, sp_f32 b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
SP_INLINE sp_mask sp_gt_f32(sp_f32 a, sp_f32 b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
SP_INLINE sp_mask sp_ge_f32(sp_f32 a, sp_f32 b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
SP_INLINE sp_mask sp_eq_f32(sp_f32 a, sp_f32 b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
SP_INLINE sp_mask sp_ne_f32(sp_f32 a, sp_f32 b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
SP_INLINE sp_mask sp_isnan_f32(sp_f32 v) { return _mm256_cmp_ps(v, v, _CMP_UNORD_Q); }
SP_INLINE sp_mask sp_gt_i32(sp_i32 a, sp_i32 b) {
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b));
}
SP_INLINE sp_mask sp_lt_i32(sp_i32 a, sp_i32 b) { return sp_gt_i32(b, a); }
SP_INLINE sp_mask sp_eq_i32(sp_i32 a, sp_i32 b) {
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b));
}
SP_INLINE sp_mask sp_mask_and(sp_mask a, sp_mask b) { return _mm256_and_ps(a, b); }
SP_INLINE sp_mask sp_mask_or(sp_mask a, sp_mask b) { return _mm256_or_ps(a, b); }
SP_INLINE sp_mask sp_mask_xor(sp_mask a, sp_mask b) { return _mm256_xor_ps(a, b); }
SP_INLINE sp_mask sp_mask_not(sp_mask a) {
  return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1)));
}
SP_INLINE int sp_mask_any(sp_mask a) { return _mm256_movemask_ps(a) != 0; }
SP_INLINE sp_f32 sp_select_f32(sp_mask m, sp_f32 a, sp_f32 b) { return _mm256_blendv_ps(b, a, m); }
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) {
  return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(b), _mm256_castsi256_ps(a), m));
}

/* f32 */
SP_INLINE sp_f32 sp_sign_bit(void) { return _mm256_set1_ps(-0.0f); }
SP_INLINE sp_f32 sp_add_f32(sp_f32 a, sp_f32 b) { return _mm256_add_ps(a, b); }
SP_INLINE sp_f32 sp_sub_f32(sp_f32 a, sp_f32 b) { return _mm256_sub_ps(a, b); }
SP_INLINE sp_f32 sp_mul_f32(sp_f32 a, sp_f32 b) { return _mm256_mul_ps(a, b); }
SP_INLINE sp_f32 sp_div_f32(sp_f32 a, sp_f32 b) { return _mm256_div_ps(a, b); }
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return _mm256_fmadd_ps(a, b, c); }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return _mm256_fnmadd_ps(a, b, c); }
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return _mm256_max_ps(a, b); }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return _mm256_min_ps(a, b); }
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) {
  return _mm256_blendv_ps(_mm256_max_ps(a, b), a, sp_isnan_f32(a));
}
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) {
  return _mm256_blendv_ps(_mm256_min_ps(a, b), a, sp_isnan_f32(a));
}
SP_INLINE sp_f32 sp_sqrt_f32(sp_f32 v) { return _mm256_sqrt_ps(v); }
SP_INLINE sp_f32 sp_neg_f32(sp_f32 v) { return _mm256_xor_ps(v, sp_sign_bit()); }
SP_INLINE sp_f32 sp_abs_f32(sp_f32 v) { return _mm256_andnot_ps(sp_sign_bit(), v); }
SP_INLINE sp_f32 sp_copysign_f32(sp_f32 mag, sp_f32 sgn) {
  return _mm256_or_ps(sp_abs_f32(mag), _mm256_and_ps(sp_sign_bit(), sgn));
}
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
}
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
}

/* i32 */
SP_INLINE sp_i32 sp_add_i32(sp_i32 a, sp_i32 b) { return _mm256_add_epi32(a, b); }
SP_INLINE sp_i32 sp_sub_i32(sp_i32 a, sp_i32 b) { return _mm256_sub_epi32(a, b); }
SP_INLINE sp_i32 sp_mul_i32(sp_i32 a, sp_i32 b) { return _mm256_mullo_epi32(a, b); }
SP_INLINE sp_i32 sp_and_i32(sp_i32 a, sp_i32 b) { return _mm256_and_si256(a, b); }
SP_INLINE sp_i32 sp_or_i32(sp_i32 a, sp_i32 b) { return _mm256_or_si256(a, b); }
SP_INLINE sp_i32 sp_xor_i32(sp_i32 a, sp_i32 b) { return _mm256_xor_si256(a, b); }
SP_INLINE sp_i32 sp_shl_i32(sp_i32 v, int n) { return _mm256_slli_epi32(v, n); }
SP_INLINE sp_i32 sp_shr_i32(sp_i32 v, int n) { return _mm256_srai_epi32(v, n); }
SP_INLINE sp_i32 sp_shru_i32(sp_i32 v, int n) { return _mm256_srli_epi32(v, n); }
SP_INLINE sp_i32 sp_mulh31_i32(sp_i32 a, sp_i32 b) {
  const __m256i half = _mm256_set1_epi64x(1 << 30);
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(a, b), half);
  const __m256i up = _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
  const __m256i odd = _mm256_slli_epi64(_mm256_add_epi64(up, half), 1);
  return _mm256_blend_epi32(_mm256_srli_epi64(even, 31), odd, 0xaa);
}
SP_INLINE sp_i32 sp_mulh15_i32(sp_i32 a, sp_i32 b) { return _mm256_mulhrs_epi16(a, b); }
SP_INLINE sp_i32 sp_rshr_i32(sp_i32 v, sp_i32 n) {
  const __m256i half = _mm256_srli_epi32(_mm256_sllv_epi32(_mm256_set1_epi32(1), n), 1);
  return _mm256_srav_epi32(_mm256_add_epi32(v, half), n);
}
SP_INLINE sp_i32 sp_max_i32(sp_i32 a, sp_i32 b) { return _mm256_max_epi32(a, b); }
SP_INLINE sp_i32 sp_min_i32(sp_i32 a, sp_i32 b) { return _mm256_min_epi32(a, b); }

/* convert */
SP_INLINE sp_f32 sp_cvt_i32_f32(sp_i32 v) { return _mm256_cvtepi32_ps(v); }
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return _mm256_cvtps_epi32(v); }
SP_INLINE sp_i32 sp_rne_near_f32_i32(sp_f32 v) { return sp_rne_f32_i32(v); }
SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) { return _mm256_cvttps_epi32(v); }

/* reduce: lanes i and i+4, then i+2, then i+1 */
SP_INLINE float sp_sum_f32(sp_f32 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
SP_INLINE float sp_hmax_f32(sp_f32 v) {
  v = sp_max_f32(v, _mm256_permute2f128_ps(v, v, 1));
  v = sp_max_f32(v, _mm256_permute_ps(v, 0x4e));
  return _mm256_cvtss_f32(sp_max_f32(v, _mm256_permute_ps(v, 0xb1)));
}
SP_INLINE float sp_hmin_f32(sp_f32 v) {
  v = sp_min_f32(v, _mm256_permute2f128_ps(v, v, 1));
  v = sp_min_f32(v, _mm256_permute_ps(v, 0x4e));
  return _mm256_cvtss_f32(sp_min_f32(v, _mm256_permute_ps(v, 0xb1)));
}
SP_INLINE int32_t sp_sum_i32(sp_i32 v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* transpose: pairs, quads, then halves */
SP_INLINE void sp_transpose_f32(sp_f32 *v) {
  __m256 a[8], b[8];
  SP_UNROLL
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  SP_UNROLL
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  SP_UNROLL
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

/* quads and pairs of bytes */
SP_INLINE int32_t sp_quad(const void *p) { return (int32_t)*(const sp_u32_at *)p; }
SP_INLINE sp_i32 sp_set1_quad(const void *p) { return sp_set1_i32(sp_quad(p)); }
SP_INLINE sp_i32 sp_flip_i32(sp_i32 v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }
SP_INLINE sp_i32 sp_loadq_i32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
SP_INLINE void sp_storeq_i32(void *p, sp_i32 v) { _mm256_storeu_si256((__m256i *)p, v); }
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  const __m128i a = _mm_unpacklo_epi8(sp_get_octet(p, n), sp_get_octet(q, n));
  const __m128i b = _mm_unpacklo_epi8(sp_get_octet(r, n), sp_get_octet(s, n));
  return _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
}
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
}
SP_INLINE sp_i32 sp_loadp_i32(const void *p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}
SP_INLINE sp_i32 sp_addp_i32(sp_i32 a, sp_i32 b) { return _mm256_add_epi16(a, b); }
SP_INLINE sp_i32 sp_subp_i32(sp_i32 a, sp_i32 b) { return _mm256_sub_epi16(a, b); }
/* Bytes of both rows in either half of a register, then each as the upper byte of its half word: steps
 * from half to half take longer. */
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  const __m256i a = _mm256_set1_epi64x((long long)sp_get_bytes(p, n));
  const __m256i b = _mm256_set1_epi64x((long long)sp_get_bytes(q, n));
  const __m256i up = _mm256_setr_epi8(-1, 0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1, 8,
                                      -1, 9, -1, 10, -1, 11, -1, 12, -1, 13, -1, 14, -1, 15);
  return _mm256_srai_epi16(_mm256_shuffle_epi8(_mm256_unpacklo_epi8(a, b), up), 8);
}

/* 256-entry tables: y[i] = table[(x[i] + offset) & 255], the offset 0 or, of signed codes, 128. A shuffle
 * looks up 16 entries, and gives 0 where the upper bit of an index is set. An index that goes down by 16,
 * but not below -128, meets all blocks of 16 from the first to its own, in which the blocks before have been
 * cancelled; of either half of the table. */
SP_INLINE __m256i sp_lookup_half(const __m128i *blocks, __m256i i) {
  __m256i v = _mm256_setzero_si256();
  SP_UNROLL
  for (int k = 0; k < 8; ++k) {
    v = _mm256_xor_si256(v, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(blocks[k]), i));
    i = _mm256_subs_epi8(i, _mm256_set1_epi8(16));
  }
  return v;
}
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  const __m256i upper = _mm256_set1_epi8(-128);
  ptrdiff_t i = 0;
  if (n >= 64) {
    __m128i blocks[16], before = _mm_setzero_si128();
    SP_UNROLL
    for (int k = 0; k < 16; ++k) {
      const __m128i own = _mm_loadu_si128((const __m128i *)(const void *)(table + 16 * k));
      blocks[k] = k == 8 ? own : _mm_xor_si128(own, before);
      before = own;
    }
    for (; i + 32 <= n; i += 32) {
      const __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
      const __m256i turned = _mm256_xor_si256(codes, upper);
      const __m256i low = sp_lookup_half(blocks, offset ? turned : codes);
      const __m256i high = sp_lookup_half(blocks + 8, offset ? codes : turned);
      _mm256_storeu_si256((__m256i *)(void *)(y + i), _mm256_xor_si256(low, high));
    }
  }
  for (; i < n; ++i) y[i] = table[(x[i] + offset) & 255];
}

#endif
