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

/* Of bytes of either kind: 0 both int8, 1 both without a sign, 2 those of a without one, turned. */
SP_INLINE sp_i32 sp_dot_bytes_i32(sp_i32 acc, sp_i32 a, sp_i32 b, int kind) {
  const uint32x4_t sum = vreinterpretq_u32_s32(acc);
  if (kind == 1)
    return vreinterpretq_s32_u32(
        vdotq_u32(sum, vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
  return sp_dot4_i32(acc, kind == 2 ? sp_flip_i32(a) : a, b);
}

#define SP_LOAD_QUADS 2
#define SP_LOAD_REACH 1024

/* A load brings this many quads of a pixel. */
#define SP_GROUP 4
typedef int8x16_t sp_group;
SP_INLINE sp_group sp_loadn_group(const void *p, int quads) {
  const uint8_t *const b = (const uint8_t *)p;
  const uint32x2_t none = vdup_n_u32(0);
  if (quads >= SP_GROUP) return vld1q_s8((const int8_t *)p);
  if (quads < 2) return vreinterpretq_s8_u32(vdupq_n_u32(*(const sp_u32_at *)p));
  const uint32x2_t high = quads > 2 ? vset_lane_u32(*(const sp_u32_at *)(b + 8), none, 0) : none;
  return vreinterpretq_s8_u32(vcombine_u32(vreinterpret_u32_u8(vld1_u8(b)), high));
}
SP_INLINE sp_group sp_flip_group(sp_group v) { return veorq_s8(v, vdupq_n_s8(-128)); }

#endif
