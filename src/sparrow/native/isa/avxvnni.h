/* The vocabulary for AVX2 with AVX-VNNI (Alder Lake, Sierra Forest, Zen 5 and later): vpdpbusd
 * multiplies unsigned bytes with signed ones. gcc >= 11 or clang >= 12; compile with -march=x86-64-v3
 * -mavxvnni (zig: -mcpu=x86_64_v3+avxvnni). CPUs with AVX-512 VNNI and VL have the same instruction in
 * another encoding. */
#ifndef SP_ISA_H
#define SP_ISA_H
#include "avx2_base.h"

#if !defined(__AVXVNNI__) && !(defined(__AVX512VNNI__) && defined(__AVX512VL__))
#error "isa/avxvnni.h needs AVX-VNNI (-mavxvnni)"
#endif

#define SP_ISA_NAME "avxvnni"
#define SP_DOT_UNSIGNED 1
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(acc, a, b);
#else
  return _mm256_dpbusd_epi32(acc, a, b);
#endif
}

#endif
