/* The vocabulary for cores with Helium (Cortex-M55, M85): 4 lanes, and sums of 16 products of bytes in
 * one instruction. Meaning of each name: isa/scalar.h. clang (zig: +mve_fp), gcc 10 and later.
 *
 * Eight registers. What is stored or loaded in part is predicated; bytes and halves are widened by
 * loads and cut by stores. Floats follow the vector unit: subnormal operands and results count as zero
 * (SP_FLUSHES), but for division and roots, which the scalar unit computes. */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "half.h"

#include <arm_mve.h>

#if !defined(__ARM_FEATURE_MVE) || __ARM_FEATURE_MVE < 3
#error "isa/mve.h needs Helium with floats (-mcpu=cortex-m55)"
#endif

#define SP_ISA_NAME "mve"
#define SP_LANES 4
#define SP_FLUSHES

typedef float32x4_t sp_f32;
typedef int32x4_t sp_i32;
typedef mve_pred16_t sp_mask; /* four bits of a lane, set or clear */

/* The first n lanes. */
SP_INLINE sp_mask sp_first(int n) { return vctp32q((uint32_t)n); }
#define SP_WHOLE(n) (__builtin_constant_p((n) >= SP_LANES) && (n) >= SP_LANES)

SP_INLINE sp_i32 sp_bits_f32(sp_f32 v) { return vreinterpretq_s32_f32(v); }
SP_INLINE sp_f32 sp_from_bits_f32(sp_i32 v) { return vreinterpretq_f32_s32(v); }

/* memory */
SP_INLINE sp_f32 sp_load_f32(const float *p) { return vldrwq_f32(p); }
SP_INLINE sp_f32 sp_loadn_f32(const float *p, int n) {
  return SP_WHOLE(n) ? vldrwq_f32(p) : vldrwq_z_f32(p, sp_first(n));
}
SP_INLINE void sp_store_f32(float *p, sp_f32 v) { vstrwq_f32(p, v); }
SP_INLINE void sp_storen_f32(float *p, sp_f32 v, int n) {
  if (SP_WHOLE(n))
    vstrwq_f32(p, v);
  else
    vstrwq_p_f32(p, v, sp_first(n));
}
SP_INLINE sp_i32 sp_load_i32(const int32_t *p) { return vldrwq_s32(p); }
SP_INLINE sp_i32 sp_loadn_i32(const int32_t *p, int n) {
  return SP_WHOLE(n) ? vldrwq_s32(p) : vldrwq_z_s32(p, sp_first(n));
}
SP_INLINE void sp_store_i32(int32_t *p, sp_i32 v) { vstrwq_s32(p, v); }
SP_INLINE void sp_storen_i32(int32_t *p, sp_i32 v, int n) {
  if (SP_WHOLE(n))
    vstrwq_s32(p, v);
  else
    vstrwq_p_s32(p, v, sp_first(n));
}
/* halves one by one: the unit drops what a NaN carries */
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n) {
  float v[SP_LANES];
  sp_halves_to_floats(p, v, n);
  return vldrwq_f32(v);
}
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n) {
  float x[SP_LANES];
  vstrwq_f32(x, v);
  sp_floats_to_halves(x, p, n);
}
SP_INLINE sp_f32 sp_load_f16(const uint16_t *p) { return sp_loadn_f16(p, SP_LANES); }
SP_INLINE void sp_store_f16(uint16_t *p, sp_f32 v) { sp_storen_f16(p, v, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_u16(const uint16_t *p, int n) {
  return vreinterpretq_s32_u32(SP_WHOLE(n) ? vldrhq_u32(p) : vldrhq_z_u32(p, sp_first(n)));
}
SP_INLINE void sp_storen_u16(uint16_t *p, sp_i32 v, int n) {
  if (SP_WHOLE(n))
    vstrhq_u32(p, vreinterpretq_u32_s32(v));
  else
    vstrhq_p_u32(p, vreinterpretq_u32_s32(v), sp_first(n));
}
SP_INLINE sp_f32 sp_loadn_bf16(const uint16_t *p, int n) {
  return sp_from_bits_f32(vshlq_n_s32(sp_loadn_u16(p, n), 16));
}
SP_INLINE sp_f32 sp_load_bf16(const uint16_t *p) { return sp_loadn_bf16(p, SP_LANES); }
SP_INLINE void sp_storen_bf16(uint16_t *p, sp_f32 v, int n) {
  const uint32x4_t b = vreinterpretq_u32_f32(v);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(b, 16), vdupq_n_u32(1));
  const uint32x4_t up = vaddq_u32(vaddq_n_u32(b, 0x7fff), odd);
  const uint32x4_t quiet = vorrq_u32(b, vdupq_n_u32(0x400000));
  const uint32x4_t r = vshrq_n_u32(vpselq_u32(up, quiet, vcmpeqq_f32(v, v)), 16);
  sp_storen_u16(p, vreinterpretq_s32_u32(r), n);
}
SP_INLINE void sp_store_bf16(uint16_t *p, sp_f32 v) { sp_storen_bf16(p, v, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n) {
  return SP_WHOLE(n) ? vldrbq_s32(p) : vldrbq_z_s32(p, sp_first(n));
}
SP_INLINE sp_i32 sp_load_i8(const int8_t *p) { return vldrbq_s32(p); }
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n) {
  return vreinterpretq_s32_u32(SP_WHOLE(n) ? vldrbq_u32(p) : vldrbq_z_u32(p, sp_first(n)));
}
SP_INLINE sp_i32 sp_load_u8(const uint8_t *p) { return sp_loadn_u8(p, SP_LANES); }
/* In the low half, or byte, of each lane; what stands above is not stored. */
SP_INLINE int16x8_t sp_narrow(sp_i32 v) { return vqmovnbq_s32(vreinterpretq_s16_s32(v), v); }
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n) {
  const int16x8_t h = sp_narrow(v);
  const sp_i32 b = vreinterpretq_s32_s8(vqmovnbq_s16(vreinterpretq_s8_s16(h), h));
  if (SP_WHOLE(n))
    vstrbq_s32(p, b);
  else
    vstrbq_p_s32(p, b, sp_first(n));
}
SP_INLINE void sp_store_i8(int8_t *p, sp_i32 v) { sp_storen_i8(p, v, SP_LANES); }
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n) {
  const int16x8_t h = sp_narrow(v);
  const uint32x4_t b = vreinterpretq_u32_u8(vqmovunbq_s16(vreinterpretq_u8_s16(h), h));
  if (SP_WHOLE(n))
    vstrbq_u32(p, b);
  else
    vstrbq_p_u32(p, b, sp_first(n));
}
SP_INLINE void sp_store_u8(uint8_t *p, sp_i32 v) { sp_storen_u8(p, v, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_i16(const int16_t *p, int n) {
  return SP_WHOLE(n) ? vldrhq_s32(p) : vldrhq_z_s32(p, sp_first(n));
}
SP_INLINE sp_i32 sp_load_i16(const int16_t *p) { return vldrhq_s32(p); }
SP_INLINE void sp_storen_i16(int16_t *p, sp_i32 v, int n) {
  sp_storen_u16((uint16_t *)p, vreinterpretq_s32_s16(sp_narrow(v)), n);
}
SP_INLINE void sp_store_i16(int16_t *p, sp_i32 v) { sp_storen_i16(p, v, SP_LANES); }
#define SP_NO_PREFETCH
SP_INLINE void sp_prefetch(const void *p) { (void)p; }
SP_INLINE void sp_prefetch_l2(const void *p) { (void)p; }

/* lanes */
SP_INLINE sp_f32 sp_set1_f32(float x) { return vdupq_n_f32(x); }
SP_INLINE sp_i32 sp_set1_i32(int32_t x) { return vdupq_n_s32(x); }
SP_INLINE sp_f32 sp_zero_f32(void) { return vdupq_n_f32(0.0f); }
SP_INLINE sp_i32 sp_iota_i32(void) { return vreinterpretq_s32_u32(vidupq_n_u32(0, 1)); }
SP_INLINE sp_i32 sp_gather_pair_i32(const int32_t *t, sp_i32 i, sp_i32 *next) {
  *next = vldrwq_gather_shifted_offset_s32(t + 1, vreinterpretq_u32_s32(i));
  return vldrwq_gather_shifted_offset_s32(t, vreinterpretq_u32_s32(i));
}

/* compare and masks */
/* The unit's own less than, and less or equal, are the opposites of the other two: true for NaN. clang
 * takes them for false, so that it must not turn a comparison round. */
SP_INLINE sp_mask sp_gt_f32(sp_f32 a, sp_f32 b) {
  __asm__("" : "+w"(a));
  return vcmpgtq_f32(a, b);
}
SP_INLINE sp_mask sp_ge_f32(sp_f32 a, sp_f32 b) {
  __asm__("" : "+w"(a));
  return vcmpgeq_f32(a, b);
}
SP_INLINE sp_mask sp_lt_f32(sp_f32 a, sp_f32 b) { return sp_gt_f32(b, a); }
SP_INLINE sp_mask sp_le_f32(sp_f32 a, sp_f32 b) { return sp_ge_f32(b, a); }
SP_INLINE sp_mask sp_eq_f32(sp_f32 a, sp_f32 b) { return vcmpeqq_f32(a, b); }
SP_INLINE sp_mask sp_ne_f32(sp_f32 a, sp_f32 b) { return vcmpneq_f32(a, b); }
/* By its bits: of a comparison with itself clang makes those two. */
SP_INLINE sp_mask sp_isnan_f32(sp_f32 v) {
  return vcmphiq_n_u32(vshlq_n_u32(vreinterpretq_u32_f32(v), 1), 0xff000000u);
}
SP_INLINE sp_mask sp_gt_i32(sp_i32 a, sp_i32 b) { return vcmpgtq_s32(a, b); }
SP_INLINE sp_mask sp_lt_i32(sp_i32 a, sp_i32 b) { return vcmpltq_s32(a, b); }
SP_INLINE sp_mask sp_eq_i32(sp_i32 a, sp_i32 b) { return vcmpeqq_s32(a, b); }
SP_INLINE sp_mask sp_mask_and(sp_mask a, sp_mask b) { return (sp_mask)(a & b); }
SP_INLINE sp_mask sp_mask_or(sp_mask a, sp_mask b) { return (sp_mask)(a | b); }
SP_INLINE sp_mask sp_mask_xor(sp_mask a, sp_mask b) { return (sp_mask)(a ^ b); }
SP_INLINE sp_mask sp_mask_not(sp_mask a) { return vpnot(a); }
SP_INLINE int sp_mask_any(sp_mask a) { return a != 0; }
SP_INLINE sp_f32 sp_select_f32(sp_mask m, sp_f32 a, sp_f32 b) { return vpselq_f32(a, b, m); }
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) { return vpselq_s32(a, b, m); }

/* f32 */
SP_INLINE sp_f32 sp_add_f32(sp_f32 a, sp_f32 b) { return vaddq_f32(a, b); }
SP_INLINE sp_f32 sp_sub_f32(sp_f32 a, sp_f32 b) { return vsubq_f32(a, b); }
SP_INLINE sp_f32 sp_mul_f32(sp_f32 a, sp_f32 b) { return vmulq_f32(a, b); }
SP_INLINE sp_f32 sp_div_f32(sp_f32 a, sp_f32 b) { return a / b; }
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vfmaq_f32(c, a, b); }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vfmsq_f32(c, a, b); }
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return sp_select_f32(sp_gt_f32(a, b), a, b); }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return sp_select_f32(sp_gt_f32(b, a), a, b); }
/* The unit's own return the number where one operand is NaN. */
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) {
  return vpselq_f32(a, sp_maxq_f32(a, b), sp_isnan_f32(a));
}
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) {
  return vpselq_f32(a, sp_minq_f32(a, b), sp_isnan_f32(a));
}
SP_INLINE sp_f32 sp_neg_f32(sp_f32 v) { return vnegq_f32(v); }
SP_INLINE sp_f32 sp_abs_f32(sp_f32 v) { return vabsq_f32(v); }
SP_INLINE sp_f32 sp_copysign_f32(sp_f32 mag, sp_f32 sgn) {
  const sp_i32 s = vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_f32(sgn), 31));
  return sp_from_bits_f32(vsliq_n_s32(sp_bits_f32(mag), s, 31));
}
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) { return vrndnq_f32(v); }
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) { return vrndq_f32(v); }
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) { return vrndmq_f32(v); }
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) { return vrndpq_f32(v); }
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

/* i32; a register shift by a constant becomes the immediate form */
SP_INLINE sp_i32 sp_add_i32(sp_i32 a, sp_i32 b) { return vaddq_s32(a, b); }
SP_INLINE sp_i32 sp_sub_i32(sp_i32 a, sp_i32 b) { return vsubq_s32(a, b); }
SP_INLINE sp_i32 sp_mul_i32(sp_i32 a, sp_i32 b) { return vmulq_s32(a, b); }
SP_INLINE sp_i32 sp_and_i32(sp_i32 a, sp_i32 b) { return vandq_s32(a, b); }
SP_INLINE sp_i32 sp_or_i32(sp_i32 a, sp_i32 b) { return vorrq_s32(a, b); }
SP_INLINE sp_i32 sp_xor_i32(sp_i32 a, sp_i32 b) { return veorq_s32(a, b); }
SP_INLINE sp_i32 sp_shl_i32(sp_i32 v, int n) { return vshlq_r_s32(v, n); }
SP_INLINE sp_i32 sp_shr_i32(sp_i32 v, int n) { return vshlq_r_s32(v, -n); }
SP_INLINE sp_i32 sp_shru_i32(sp_i32 v, int n) {
  return vreinterpretq_s32_u32(vshlq_r_u32(vreinterpretq_u32_s32(v), -n));
}
SP_INLINE sp_i32 sp_mulh31_i32(sp_i32 a, sp_i32 b) { return vqrdmulhq_s32(a, b); }
SP_INLINE sp_i32 sp_mulh15_i32(sp_i32 a, sp_i32 b) {
  return vreinterpretq_s32_s16(vqrdmulhq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}
SP_INLINE sp_i32 sp_rshr_i32(sp_i32 v, sp_i32 n) { return vrshlq_s32(v, vnegq_s32(n)); }
#define SP_ROUNDS_SHIFTS
SP_INLINE sp_i32 sp_rshr_n_i32(sp_i32 v, int n) { return vrshlq_n_s32(v, -n); }
SP_INLINE sp_i32 sp_max_i32(sp_i32 a, sp_i32 b) { return vmaxq_s32(a, b); }
SP_INLINE sp_i32 sp_min_i32(sp_i32 a, sp_i32 b) { return vminq_s32(a, b); }

/* convert; to int32 they saturate. The compiler does not see products by powers of two beside those that
 * it would make conversions of fixed-point numbers with them, whose scale qemu 7.2 takes for another. */
SP_INLINE sp_f32 sp_cvt_i32_f32(sp_i32 v) {
  sp_f32 r = vcvtq_f32_s32(v);
  __asm__("" : "+w"(r));
  return r;
}
SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) {
  __asm__("" : "+w"(v));
  return vcvtq_s32_f32(v);
}
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return vcvtnq_s32_f32(v); }
SP_INLINE sp_i32 sp_rne_near_f32_i32(sp_f32 v) { return vcvtnq_s32_f32(v); }
#define SP_SATURATES
SP_INLINE sp_i32 sp_code_f32_i32(sp_f32 v, int32_t z, int32_t lo, int32_t hi, int fits) {
  (void)fits;
  sp_i32 r = vcvtnq_s32_f32(v);
  if (z) r = vqaddq_n_s32(r, z);
  if (lo > INT32_MIN) r = vmaxq_s32(r, vdupq_n_s32(lo));
  return hi < INT32_MAX ? vminq_s32(r, vdupq_n_s32(hi)) : r;
}

SP_INLINE sp_i32 sp_steps_f32_i32(sp_f32 v, int32_t lo, int32_t hi) {
  return vminq_s32(vmaxq_s32(vcvtnq_s32_f32(v), vdupq_n_s32(lo)), vdupq_n_s32(hi));
}

/* reduce: lanes i and i+2, then i+1, as every header of 4 lanes */
SP_INLINE float sp_sum_f32(sp_f32 v) {
  return (vgetq_lane_f32(v, 0) + vgetq_lane_f32(v, 2)) +
         (vgetq_lane_f32(v, 1) + vgetq_lane_f32(v, 3));
}
SP_INLINE float sp_max_1(float a, float b) { return (a > b || a != a) ? a : b; }
SP_INLINE float sp_hmax_f32(sp_f32 v) {
  return sp_max_1(sp_max_1(vgetq_lane_f32(v, 0), vgetq_lane_f32(v, 2)),
                  sp_max_1(vgetq_lane_f32(v, 1), vgetq_lane_f32(v, 3)));
}
SP_INLINE float sp_hmin_f32(sp_f32 v) { return -sp_hmax_f32(vnegq_f32(v)); }
SP_INLINE int32_t sp_sum_i32(sp_i32 v) { return vaddvq_s32(v); }

/* transpose: stored as four structures */
SP_INLINE void sp_transpose_f32(sp_f32 *v) {
  float rows[SP_LANES * SP_LANES];
  const float32x4x4_t all = {{v[0], v[1], v[2], v[3]}};
  vst4q_f32(rows, all);
  SP_UNROLL
  for (int i = 0; i < SP_LANES; ++i) v[i] = vldrwq_f32(rows + i * SP_LANES);
}

/* products of bytes and halves */
#define SP_DOT_UNSIGNED 0
typedef uint32_t __attribute__((may_alias, aligned(1))) sp_u32_at;
SP_INLINE int32_t sp_quad(const void *p) { return (int32_t)*(const sp_u32_at *)p; }
SP_INLINE sp_i32 sp_set1_quad(const void *p) { return sp_set1_i32(sp_quad(p)); }
SP_INLINE sp_i32 sp_flip_i32(sp_i32 v) {
  return vreinterpretq_s32_u8(veorq_u8(vreinterpretq_u8_s32(v), vdupq_n_u8(128)));
}
SP_INLINE sp_i32 sp_loadq_i32(const void *p) {
  return vreinterpretq_s32_u8(vldrbq_u8((const uint8_t *)p));
}
SP_INLINE void sp_storeq_i32(void *p, sp_i32 v) {
  vstrbq_u8((uint8_t *)p, vreinterpretq_u8_s32(v));
}
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int16x8_t x = vreinterpretq_s16_s32(a), w = vreinterpretq_s16_s32(b);
  return vaddq_s32(vaddq_s32(acc, vmullbq_int_s16(x, w)), vmulltq_int_s16(x, w));
}
/* Two products of bytes need not fit in 16 bits. */
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int8x16_t x = vreinterpretq_s8_s32(a), w = vreinterpretq_s8_s32(b);
  acc = sp_dot2_i32(acc, vreinterpretq_s32_s16(vmovlbq_s8(x)), vreinterpretq_s32_s16(vmovlbq_s8(w)));
  return sp_dot2_i32(acc, vreinterpretq_s32_s16(vmovltq_s8(x)), vreinterpretq_s32_s16(vmovltq_s8(w)));
}
SP_INLINE sp_i32 sp_loadp_i32(const void *p) {
  return vreinterpretq_s32_s16(vldrbq_s16((const int8_t *)p));
}
SP_INLINE sp_i32 sp_addp_i32(sp_i32 a, sp_i32 b) {
  return vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}
SP_INLINE sp_i32 sp_subp_i32(sp_i32 a, sp_i32 b) {
  return vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  return vsliq_n_s32(sp_loadn_i8((const int8_t *)p, n), sp_loadn_i8((const int8_t *)q, n), 16);
}
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  sp_i32 v = sp_loadn_u8((const uint8_t *)p, n);
  v = vsliq_n_s32(v, sp_loadn_u8((const uint8_t *)q, n), 8);
  v = vsliq_n_s32(v, sp_loadn_u8((const uint8_t *)r, n), 16);
  return vsliq_n_s32(v, sp_loadn_u8((const uint8_t *)s, n), 24);
}

/* Sums over runs of bytes, or of halves where pair: kq quads at a, and of each lane kq quads that lie 4 * SP_LANES bytes apart from
 * b on. Products are added up across a vector, into a general register for each lane. */
#define SP_RUNS
typedef struct sp_sums {
  int32_t of[SP_LANES];
} sp_sums;
SP_INLINE sp_sums sp_split_sums(sp_i32 v) {
  return (sp_sums){{vgetq_lane_s32(v, 0), vgetq_lane_s32(v, 1), vgetq_lane_s32(v, 2),
                    vgetq_lane_s32(v, 3)}};
}
SP_INLINE sp_i32 sp_join_sums(sp_sums s) {
  sp_i32 v = vdupq_n_s32(s.of[0]);
  v = vsetq_lane_s32(s.of[1], v, 1);
  v = vsetq_lane_s32(s.of[2], v, 2);
  return vsetq_lane_s32(s.of[3], v, 3);
}
/* Products of sixteen bytes, or of eight halves where they are pairs. */
SP_INLINE int32_t sp_add_across(int32_t acc, int8x16_t q, sp_i32 w, int pair) {
  return pair ? vmladavaq_s16(acc, vreinterpretq_s16_s8(q), vreinterpretq_s16_s32(w))
              : vmladavaq_s8(acc, q, vreinterpretq_s8_s32(w));
}
/* Four quads: of the weights by structures of four words, the quads of a lane in a register. */
SP_INLINE sp_sums sp_add_four_quads(sp_sums s, int8x16_t q, const int8_t *b, int flip, int pair) {
  const int32x4x4_t w = vld4q_s32((const int32_t *)(const void *)b);
  if (flip) q = veorq_s8(q, vdupq_n_s8(-128));
  SP_UNROLL
  for (int l = 0; l < SP_LANES; ++l)
    s.of[l] = sp_add_across(s.of[l], q, w.val[l], pair);
  return s;
}
/* The first n < 4 of them. */
SP_INLINE sp_sums sp_add_some_quads(sp_sums s, int n, int8x16_t q, const int8_t *b, int flip,
                                    int pair) {
  const uint32x4_t at = vidupq_n_u32(0, 4);
  if (flip) q = veorq_s8(q, vdupq_n_s8(-128));
  SP_UNROLL
  for (int l = 0; l < SP_LANES; ++l) {
    const int32_t *const from = (const int32_t *)(const void *)b + l;
    const sp_i32 w = vldrwq_gather_shifted_offset_z_s32(from, at, sp_first(n));
    s.of[l] = sp_add_across(s.of[l], q, w, pair);
  }
  return s;
}
SP_INLINE sp_i32 sp_dot_run_i32(sp_i32 acc, const uint8_t *a, const int8_t *b, int kq, int flip,
                                int pair) {
  sp_sums s = sp_split_sums(acc);
  SP_ROLLED
  for (int i = 0; i < kq / 4; ++i, a += 16, b += 64)
    s = sp_add_four_quads(s, vldrbq_s8((const int8_t *)a), b, flip, pair);
  if (kq % 4)
    s = sp_add_some_quads(s, kq % 4, vldrbq_z_s8((const int8_t *)a, sp_first(kq % 4)), b, flip,
                          pair);
  return sp_join_sums(s);
}
/* The same over `runs` runs of one or two quads, `next` bytes from one to the other: four quads of
 * several make a vector. */
SP_INLINE sp_i32 sp_dot_short_runs_i32(sp_i32 acc, const uint8_t *a, ptrdiff_t next, int runs,
                                       const int8_t *b, int kq, int flip) {
  const int at_once = 4 / kq, rest = runs % at_once;
  sp_sums s = sp_split_sums(acc);
  SP_ROLLED
  for (int i = 0; i < runs / at_once; ++i, a += at_once * next, b += 64) {
    sp_i32 q = vdupq_n_s32(sp_quad(a));
    q = vsetq_lane_s32(sp_quad(kq == 1 ? a + next : a + 4), q, 1);
    q = vsetq_lane_s32(sp_quad(kq == 1 ? a + 2 * next : a + next), q, 2);
    q = vsetq_lane_s32(sp_quad(kq == 1 ? a + 3 * next : a + next + 4), q, 3);
    s = sp_add_four_quads(s, vreinterpretq_s8_s32(q), b, flip, 0);
  }
  if (rest) {
    sp_i32 q = vdupq_n_s32(sp_quad(a));
    if (rest * kq > 1) q = vsetq_lane_s32(sp_quad(kq == 1 ? a + next : a + 4), q, 1);
    if (rest * kq > 2) q = vsetq_lane_s32(sp_quad(a + 2 * next), q, 2);
    s = sp_add_some_quads(s, rest * kq, vreinterpretq_s8_s32(q), b, flip, 0);
  }
  return sp_join_sums(s);
}

/* 256-entry tables: y[i] = table[(x[i] + offset) & 255] */
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  for (ptrdiff_t i = 0; i < n; i += 16) {
    const mve_pred16_t some = vctp8q((uint32_t)(n - i));
    const uint8x16_t at = vaddq_n_u8(vldrbq_z_u8(x + i, some), (uint8_t)offset);
    vstrbq_p_u8(y + i, vldrbq_gather_offset_z_u8(table, at, some), some);
  }
}

#endif
