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

#endif
