/* The vocabulary for AArch64 with products of 8-bit matrices (Armv8.6 and an option of Armv8.2:
 * Cortex-A510, A710, X2, Neoverse V1, N2, Apple M2 and later). gcc >= 10 with
 * -march=armv8.2-a+dotprod+i8mm, clang >= 11 (zig: generic+dotprod+i8mm). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "neon64_dot.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "isa/neon_i8mm.h needs 8-bit matrix products (-march=armv8.2-a+dotprod+i8mm)"
#endif

#define SP_ISA_NAME "neon_i8mm"

/* Two pixels by two channels, of each an octet: a has a low half of one pixel and a high half of the
 * other, b of one channel and the next, and acc the four sums, pixel by pixel. */
#define SP_OCTETS 1
SP_INLINE sp_i32 sp_dot_octets_i32(sp_i32 acc, sp_group a, sp_i32 b) {
  return vmmlaq_s32(acc, a, vreinterpretq_s8_s32(b));
}
/* The low halves of both into the first, the high ones into the second; by name, since the compiler
 * would copy the first to move a half into it. */
SP_INLINE void sp_swap_halves_i32(sp_i32 *a, sp_i32 *b) {
  const int64x2_t x = vreinterpretq_s64_s32(*a), y = vreinterpretq_s64_s32(*b);
  int64x2_t low;
  __asm__("zip1 %0.2d, %1.2d, %2.2d" : "=w"(low) : "w"(x), "w"(y));
  *a = vreinterpretq_s32_s64(low);
  *b = vreinterpretq_s32_s64(vzip2q_s64(x, y));
}
/* The first n bytes, 4 or 8, of two pixels; the rest of each half is zero. */
SP_INLINE sp_group sp_loadn_octets(const void *p, const void *q, int n) {
  if (n >= 8) {
    const uint64x2_t low = vcombine_u64(vcreate_u64(*(const sp_u64_at *)p), vdup_n_u64(0));
    return vreinterpretq_s8_u64(vsetq_lane_u64(*(const sp_u64_at *)q, low, 1));
  }
  return vreinterpretq_s8_u64(
      vcombine_u64(vcreate_u64(sp_get_bytes(p, n)), vcreate_u64(sp_get_bytes(q, n))));
}

#endif
