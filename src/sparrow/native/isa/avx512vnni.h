/* The vocabulary for AVX-512 with VNNI (Ice Lake, Zen 4 and later): vpdpbusd multiplies unsigned bytes
 * with signed ones. gcc 9, clang 8. */
#ifndef SP_ISA_H
#define SP_ISA_H
#include "avx512_base.h"

#if !defined(__AVX512VNNI__)
#error "isa/avx512vnni.h needs AVX-512 VNNI (-mavx512vnni)"
#endif

#define SP_ISA_NAME "avx512vnni"
#define SP_DOT_UNSIGNED 1
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return _mm512_dpbusd_epi32(acc, a, b);
}

#endif
