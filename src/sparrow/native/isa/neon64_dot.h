/* What the AArch64 vocabularies with dot products share. */
#ifndef SP_NEON64_DOT_H
#define SP_NEON64_DOT_H

#include "neon64.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "isa/neon64_dot.h needs dot products (-march=armv8.2-a+dotprod)"
#endif

SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return vdotq_s32(acc, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
}

/* A load brings this many quads of a pixel. */
#define SP_GROUP 4
typedef int8x16_t sp_group;
SP_INLINE sp_group sp_load_group(const void *p) { return vld1q_s8((const int8_t *)p); }
SP_INLINE sp_group sp_flip_group(sp_group v) { return veorq_s8(v, vdupq_n_s8(-128)); }

#endif
