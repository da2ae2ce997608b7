/* The vocabulary for AArch64 with dot products (Armv8.2 and an option of it: Cortex-A55, A75, A76 and
 * later). gcc >= 9 with -march=armv8.2-a+dotprod, clang >= 9 (zig: generic+dotprod). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "neon64_dot.h"

#define SP_ISA_NAME "neon_dot"

/* The quad is an operand by its number. */
SP_INLINE sp_i32 sp_dot_group_i32(sp_i32 acc, sp_group a, int j, sp_i32 b, int tame, int apart) {
  const int8x16_t w = vreinterpretq_s8_s32(b);
  (void)tame, (void)apart;
  switch (j) {
    case 0: return vdotq_laneq_s32(acc, w, a, 0);
    case 1: return vdotq_laneq_s32(acc, w, a, 1);
    case 2: return vdotq_laneq_s32(acc, w, a, 2);
    default: return vdotq_laneq_s32(acc, w, a, 3);
  }
}

#endif
