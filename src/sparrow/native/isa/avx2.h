/* Vector vocabulary for x86-64-v3 (AVX2 + FMA + F16C): 8 lanes. Meaning of each name: isa/scalar.h.
 * gcc >= 9 or clang >= 9; compile with -march=x86-64-v3 (zig: -mcpu=x86_64_v3). */
#ifndef SP_ISA_H
#define SP_ISA_H
#include "avx2_base.h"

#define SP_ISA_NAME "avx2"
/* products of bytes: even and odd ones as halves, whose products and sums of two fit in 32 bits */
#define SP_DOT_UNSIGNED 0
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const __m256i a0 = _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8), a1 = _mm256_srai_epi16(a, 8);
  const __m256i b0 = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), b1 = _mm256_srai_epi16(b, 8);
  return _mm256_add_epi32(_mm256_add_epi32(acc, _mm256_madd_epi16(a0, b0)),
                          _mm256_madd_epi16(a1, b1));
}
/* Twos of neighbours: halves a0 x0 + a1 x1 of signed bytes a and unsigned x, where they fit. */
#define SP_MADDUBS
SP_INLINE sp_i32 sp_maddubs_i32(sp_i32 a, sp_i32 x) { return _mm256_maddubs_epi16(x, a); }
/* where b holds no -128: |a| times b with the sign of a, two of which fit in 16 bits */
#define SP_TAME_DOTS
SP_INLINE sp_i32 sp_dot4_tame_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const __m256i twos = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(twos, _mm256_set1_epi16(1)));
}

#endif
