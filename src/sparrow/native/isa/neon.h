/* The vocabulary for any AArch64 CPU. gcc >= 9, clang >= 9; no flag needed. */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "neon_base.h"

#define SP_ISA_NAME "neon"

/* products of pairs as halves, then sums of neighbours twice */
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int8x16_t x = vreinterpretq_s8_s32(a), w = vreinterpretq_s8_s32(b);
  const int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(w)));
  const int32x4_t hi = vpaddlq_s16(vmull_high_s8(x, w));
  return vaddq_s32(acc, vpaddq_s32(lo, hi));
}

#endif
