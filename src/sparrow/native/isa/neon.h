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

/* 256-entry tables: y[i] = table[(x[i] + offset) & 255]; indices beyond 63 keep what they had */
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  const uint8x16x4_t t0 = vld1q_u8_x4(table), t1 = vld1q_u8_x4(table + 64);
  const uint8x16x4_t t2 = vld1q_u8_x4(table + 128), t3 = vld1q_u8_x4(table + 192);
  const uint8x16_t add = vdupq_n_u8((uint8_t)offset), step = vdupq_n_u8(64);
  ptrdiff_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const uint8x16_t k0 = vaddq_u8(vld1q_u8(x + i), add), k1 = vsubq_u8(k0, step);
    const uint8x16_t k2 = vsubq_u8(k1, step), k3 = vsubq_u8(k2, step);
    uint8x16_t v = vqtbl4q_u8(t0, k0);
    v = vqtbx4q_u8(v, t1, k1);
    v = vqtbx4q_u8(v, t2, k2);
    vst1q_u8(y + i, vqtbx4q_u8(v, t3, k3));
  }
  for (; i < n; ++i) y[i] = table[(x[i] + offset) & 255];
}

#endif
