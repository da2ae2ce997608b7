/* The vocabulary for AVX-512 with VNNI, VBMI and BF16 (Sapphire Rapids, Zen 4 and later): vdpbf16ps multiplies
 * pairs of bfloat16 and adds them to float32. It takes subnormal numbers for zero and rounds to nearest
 * even whatever the mode. gcc 10, clang 9. */
#ifndef SP_AVX512BF16_H
#define SP_AVX512BF16_H
#include "avx512vnni.h"

#if !defined(__AVX512BF16__)
#error "isa/avx512bf16.h needs AVX-512 BF16 (-mavx512bf16)"
#endif

#undef SP_ISA_NAME
#define SP_ISA_NAME "avx512bf16"

#define SP_DOT2 1
/* Rounds and narrows in one instruction, and stores zero for a subnormal number. */
SP_INLINE void sp_storen_flushed_bf16(uint16_t *p, sp_f32 v, int n) {
  sp_put_halves(p, (__m256i)_mm512_cvtneps_pbh(v), n);
}
SP_INLINE sp_f32 sp_dot2_f32(sp_f32 acc, sp_i32 a, sp_i32 b) {
  return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
}

#endif
