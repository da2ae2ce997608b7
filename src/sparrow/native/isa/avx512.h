/* The vocabulary for AVX-512 (F, BW, CD, DQ, VL), without VNNI: x86-64-v4. gcc 9, clang 8. */
#ifndef SP_ISA_H
#define SP_ISA_H
#include "avx512_base.h"

#define SP_ISA_NAME "avx512"
/* even and odd bytes as halves, whose products and sums of two fit in 32 bits */
#define SP_DOT_UNSIGNED 0
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const __m512i a0 = _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8), a1 = _mm512_srai_epi16(a, 8);
  const __m512i b0 = _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8), b1 = _mm512_srai_epi16(b, 8);
  return _mm512_add_epi32(_mm512_add_epi32(acc, _mm512_madd_epi16(a0, b0)),
                          _mm512_madd_epi16(a1, b1));
}

#endif
