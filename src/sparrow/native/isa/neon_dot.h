/* The vocabulary for AArch64 with dot products (Armv8.2 and an option of it: Cortex-A55, A75, A76 and
 * later). gcc >= 9 with -march=armv8.2-a+dotprod, clang >= 9 (zig: generic+dotprod). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "neon_base.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "isa/neon_dot.h needs dot products (-march=armv8.2-a+dotprod)"
#endif

#define SP_ISA_NAME "neon_dot"

SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return vdotq_s32(acc, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
}

/* Products take one of the four quads of a register by its number. */
#define SP_GROUP 4
typedef int8x16_t sp_group;
SP_INLINE sp_group sp_load_group(const void *p) { return vld1q_s8((const int8_t *)p); }
SP_INLINE sp_group sp_flip_group(sp_group v) { return veorq_s8(v, vdupq_n_s8(-128)); }
SP_INLINE sp_i32 sp_dot_group_i32(sp_i32 acc, sp_group a, int j, sp_i32 b) {
  const int8x16_t w = vreinterpretq_s8_s32(b);
  switch (j) {
    case 0: return vdotq_laneq_s32(acc, w, a, 0);
    case 1: return vdotq_laneq_s32(acc, w, a, 1);
    case 2: return vdotq_laneq_s32(acc, w, a, 2);
    default: return vdotq_laneq_s32(acc, w, a, 3);
  }
}

#endif
