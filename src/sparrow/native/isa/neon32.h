/* The vocabulary for Armv7 with NEON. gcc >= 9 with -march=armv7-a -mfpu=neon (neon-vfpv4 for fused
 * multiply-add), clang >= 9 (zig: generic+v7a+neon, +vfp4).
 *
 * Floats follow the vector unit: subnormal operands and results count as zero (SP_FLUSHES), but for
 * division and roots, which the scalar unit computes. Integers are those of every other header. */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "half.h"
#include "neon_base.h"
#include "neon_pairs.h"

#if !defined(__arm__)
#error "isa/neon32.h needs Arm in its 32-bit state"
#endif

#define SP_ISA_NAME "neon32"
#define SP_FLUSHES

SP_INLINE int16x4_t sp_narrow_half(sp_i32 v) { return vqmovn_s32(v); }

/* masks */
SP_INLINE int sp_mask_any(sp_mask a) {
  const uint32x2_t either = vorr_u32(vget_low_u32(a), vget_high_u32(a));
  return vget_lane_u64(vreinterpret_u64_u32(either), 0) != 0;
}

/* f32 */
#if defined(__ARM_FEATURE_FMA)
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vfmaq_f32(c, a, b); }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vfmsq_f32(c, a, b); }
#else
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vmlaq_f32(c, a, b); }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vmlsq_f32(c, a, b); }
#endif
SP_INLINE sp_f32 sp_div_f32(sp_f32 a, sp_f32 b) { return a / b; }
/* By name: compilers call sqrtf for what may set errno. */
SP_INLINE float sp_sqrt_1(float x) {
  __asm__("vsqrt.f32 %0, %1" : "=t"(x) : "t"(x));
  return x;
}
SP_INLINE sp_f32 sp_sqrt_f32(sp_f32 v) {
  v = vsetq_lane_f32(sp_sqrt_1(vgetq_lane_f32(v, 0)), v, 0);
  v = vsetq_lane_f32(sp_sqrt_1(vgetq_lane_f32(v, 1)), v, 1);
  v = vsetq_lane_f32(sp_sqrt_1(vgetq_lane_f32(v, 2)), v, 2);
  return vsetq_lane_f32(sp_sqrt_1(vgetq_lane_f32(v, 3)), v, 3);
}
/* From 2^23 on every float is an integer; comparisons are false for NaN, which is returned. */
SP_INLINE sp_mask sp_fraction(sp_f32 v) { return vcaltq_f32(v, vdupq_n_f32(8388608.0f)); }
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) {
  const sp_f32 big = vdupq_n_f32(8388608.0f);
  const sp_f32 r = vsubq_f32(vaddq_f32(vabsq_f32(v), big), big);
  return vbslq_f32(sp_fraction(v), sp_copysign_f32(r, v), v);
}
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) {
  const sp_f32 r = vcvtq_f32_s32(vcvtq_s32_f32(v));
  return vbslq_f32(sp_fraction(v), sp_copysign_f32(r, v), v);
}
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) {
  const sp_f32 t = sp_trunc_f32(v);
  return vbslq_f32(vcgtq_f32(t, v), vsubq_f32(t, vdupq_n_f32(1.0f)), t);
}
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) {
  const sp_f32 t = sp_trunc_f32(v);
  const sp_f32 up = sp_copysign_f32(vaddq_f32(t, vdupq_n_f32(1.0f)), v);
  return vbslq_f32(vcltq_f32(t, v), up, t);
}

/* convert */
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return vcvtq_s32_f32(sp_round_f32(v)); }
SP_INLINE sp_i32 sp_rne_near_f32_i32(sp_f32 v) { return sp_rne_f32_i32(v); }

/* In the low bits of a sum with 3 * 2^22 stands the integer: the limits keep it far below 2^22. */
#define SP_SATURATES
SP_INLINE sp_i32 sp_code_f32_i32(sp_f32 v, int32_t z, int32_t lo, int32_t hi, int fits) {
  (void)fits;
  const float least = (float)(lo < -32768 ? -32768 : lo) - (float)z;
  const float most = (float)(hi > 32767 ? 32767 : hi) - (float)z;
  v = vminq_f32(vmaxq_f32(v, vdupq_n_f32(least)), vdupq_n_f32(most));
  const sp_i32 bits = vreinterpretq_s32_f32(vaddq_f32(v, vdupq_n_f32(12582912.0f)));
  return vsubq_s32(bits, vdupq_n_s32(0x4b400000 - z));
}
SP_INLINE sp_i32 sp_steps_f32_i32(sp_f32 v, int32_t lo, int32_t hi) {
  v = vminq_f32(vmaxq_f32(v, vdupq_n_f32((float)lo)), vdupq_n_f32((float)hi));
  return sp_rne_f32_i32(v);
}

/* halves, one by one: not every such CPU converts them */
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n) {
  float v[SP_LANES];
  sp_halves_to_floats(p, v, n);
  return vld1q_f32(v);
}
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n) {
  float x[SP_LANES];
  vst1q_f32(x, v);
  sp_floats_to_halves(x, p, n);
}

/* reduce: lanes i and i+2, then i+1, as every header of 4 lanes */
SP_INLINE float sp_sum_f32(sp_f32 v) {
  const float32x2_t s = vadd_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(vpadd_f32(s, s), 0);
}
SP_INLINE float sp_hmax_f32(sp_f32 v) {
  const float32x2_t s = vmax_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(vpmax_f32(s, s), 0);
}
SP_INLINE float sp_hmin_f32(sp_f32 v) {
  const float32x2_t s = vmin_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(vpmin_f32(s, s), 0);
}
SP_INLINE int32_t sp_sum_i32(sp_i32 v) {
  const int32x2_t s = vadd_s32(vget_low_s32(v), vget_high_s32(v));
  return vget_lane_s32(vpadd_s32(s, s), 0);
}

/* transpose: pairs, then halves */
SP_INLINE void sp_transpose_f32(sp_f32 *v) {
  const float32x4x2_t a = vtrnq_f32(v[0], v[1]), b = vtrnq_f32(v[2], v[3]);
  v[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  v[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  v[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  v[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

/* products of bytes and halves */
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int16x8_t x = vreinterpretq_s16_s32(a), w = vreinterpretq_s16_s32(b);
  const int32x4_t lo = vmull_s16(vget_low_s16(x), vget_low_s16(w));
  const int32x4_t hi = vmull_s16(vget_high_s16(x), vget_high_s16(w));
  return vaddq_s32(acc, vcombine_s32(vpadd_s32(vget_low_s32(lo), vget_high_s32(lo)),
                                     vpadd_s32(vget_low_s32(hi), vget_high_s32(hi))));
}
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  const int k = n < SP_LANES ? n : SP_LANES;
  const uint8x8_t a = vcreate_u8(sp_get_bytes(p, k)), b = vcreate_u8(sp_get_bytes(q, k));
  const uint8x8_t c = vcreate_u8(sp_get_bytes(r, k)), d = vcreate_u8(sp_get_bytes(s, k));
  const uint16x4x2_t v = vzip_u16(vreinterpret_u16_u8(vzip_u8(a, b).val[0]),
                                  vreinterpret_u16_u8(vzip_u8(c, d).val[0]));
  return vreinterpretq_s32_u16(vcombine_u16(v.val[0], v.val[1]));
}

/* 256-entry tables: y[i] = table[(x[i] + offset) & 255] */
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  for (ptrdiff_t i = 0; i < n; ++i) y[i] = table[(x[i] + offset) & 255];
}

#endif
