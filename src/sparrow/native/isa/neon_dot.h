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

#endif
