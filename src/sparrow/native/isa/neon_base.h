/* What the NEON (Advanced SIMD) vocabularies share, of 32 and of 64 bits: 4 lanes. Meaning of each
 * name: isa/scalar.h. gcc >= 9 or clang >= 9. */
#ifndef SP_NEON_BASE_H
#define SP_NEON_BASE_H

#include "../base.h"
#include "bytes.h"

#include <arm_neon.h>

#if !defined(__ARM_NEON)
#error "isa/neon_base.h needs Advanced SIMD"
#endif

#define SP_LANES 4
#define SP_FORGET(p) __asm__("" : "+r"(p))

typedef float32x4_t sp_f32;
typedef int32x4_t sp_i32;
typedef uint32x4_t sp_mask; /* all bits of a lane set or clear */

/* Of the header that includes this one, which also has what the two instruction sets do in ways of
 * their own: division, roots, rounding, sums of products and of lanes. */
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n);
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n);
SP_INLINE int16x4_t sp_narrow_half(sp_i32 v); /* saturates */

/* memory */
SP_INLINE sp_f32 sp_load_f32(const float *p) { return vld1q_f32(p); }
SP_INLINE sp_f32 sp_loadn_f32(const float *p, int n) {
  const float32x2_t none = vdup_n_f32(0.0f);
  if (n >= SP_LANES) return vld1q_f32(p);
  if (n >= 2) return vcombine_f32(vld1_f32(p), n > 2 ? vld1_lane_f32(p + 2, none, 0) : none);
  return vcombine_f32(n > 0 ? vld1_lane_f32(p, none, 0) : none, none);
}
SP_INLINE void sp_store_f32(float *p, sp_f32 v) { vst1q_f32(p, v); }
SP_INLINE void sp_storen_f32(float *p, sp_f32 v, int n) {
  if (n >= SP_LANES) {
    vst1q_f32(p, v);
  } else if (n >= 2) {
    vst1_f32(p, vget_low_f32(v));
    if (n > 2) vst1q_lane_f32(p + 2, v, 2);
  } else if (n > 0) {
    vst1q_lane_f32(p, v, 0);
  }
}
SP_INLINE sp_i32 sp_load_i32(const int32_t *p) { return vld1q_s32(p); }
SP_INLINE sp_i32 sp_loadn_i32(const int32_t *p, int n) {
  const int32x2_t none = vdup_n_s32(0);
  if (n >= SP_LANES) return vld1q_s32(p);
  if (n >= 2) return vcombine_s32(vld1_s32(p), n > 2 ? vld1_lane_s32(p + 2, none, 0) : none);
  return vcombine_s32(n > 0 ? vld1_lane_s32(p, none, 0) : none, none);
}
SP_INLINE void sp_store_i32(int32_t *p, sp_i32 v) { vst1q_s32(p, v); }
SP_INLINE void sp_storen_i32(int32_t *p, sp_i32 v, int n) {
  if (n >= SP_LANES) {
    vst1q_s32(p, v);
  } else if (n >= 2) {
    vst1_s32(p, vget_low_s32(v));
    if (n > 2) vst1q_lane_s32(p + 2, v, 2);
  } else if (n > 0) {
    vst1q_lane_s32(p, v, 0);
  }
}
SP_INLINE sp_f32 sp_load_f16(const uint16_t *p) { return sp_loadn_f16(p, SP_LANES); }
SP_INLINE void sp_store_f16(uint16_t *p, sp_f32 v) { sp_storen_f16(p, v, SP_LANES); }
SP_INLINE sp_f32 sp_loadn_bf16(const uint16_t *p, int n) {
  return vreinterpretq_f32_u32(vshll_n_u16(vcreate_u16(sp_get_bytes(p, 2 * n)), 16));
}
SP_INLINE sp_f32 sp_load_bf16(const uint16_t *p) { return sp_loadn_bf16(p, SP_LANES); }
SP_INLINE void sp_storen_bf16(uint16_t *p, sp_f32 v, int n) {
  const uint32x4_t b = vreinterpretq_u32_f32(v);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(b, 16), vdupq_n_u32(1));
  const uint32x4_t up = vaddq_u32(b, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(b, vdupq_n_u32(0x400000));
  const uint16x4_t r = vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), up, quiet), 16);
  sp_put_bytes(p, vget_lane_u64(vreinterpret_u64_u16(r), 0), 2 * n);
}
SP_INLINE void sp_store_bf16(uint16_t *p, sp_f32 v) { sp_storen_bf16(p, v, SP_LANES); }
/* Four bytes, not by way of a general register. */
SP_INLINE uint8x8_t sp_load_four(const void *p) {
  return vreinterpret_u8_u32(vdup_n_u32(*(const sp_u32_at *)p));
}
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n) {
  if (n >= SP_LANES) return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(sp_load_four(p)))));
  return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(sp_get_bytes(p, n)))));
}
SP_INLINE sp_i32 sp_load_i8(const int8_t *p) { return sp_loadn_i8(p, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n) {
  const uint16x8_t h = vmovl_u8(n < SP_LANES ? vcreate_u8(sp_get_bytes(p, n)) : sp_load_four(p));
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(h)));
}
SP_INLINE sp_i32 sp_load_u8(const uint8_t *p) { return sp_loadn_u8(p, SP_LANES); }
SP_INLINE int16x8_t sp_narrow(sp_i32 a, sp_i32 b) {
  return vcombine_s16(sp_narrow_half(a), sp_narrow_half(b));
}
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n) {
  const int8x8_t b = vqmovn_s16(sp_narrow(v, v));
  sp_put_bytes(p, vget_lane_u64(vreinterpret_u64_s8(b), 0), n < SP_LANES ? n : 4);
}
SP_INLINE void sp_store_i8(int8_t *p, sp_i32 v) { sp_storen_i8(p, v, SP_LANES); }
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n) {
  const uint8x8_t b = vqmovun_s16(sp_narrow(v, v));
  sp_put_bytes(p, vget_lane_u64(vreinterpret_u64_u8(b), 0), n < SP_LANES ? n : 4);
}
SP_INLINE void sp_store_u8(uint8_t *p, sp_i32 v) { sp_storen_u8(p, v, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_i16(const int16_t *p, int n) {
  return vmovl_s16(vcreate_s16(sp_get_bytes(p, 2 * (n < SP_LANES ? n : 4))));
}
SP_INLINE sp_i32 sp_load_i16(const int16_t *p) { return sp_loadn_i16(p, SP_LANES); }
SP_INLINE void sp_storen_i16(int16_t *p, sp_i32 v, int n) {
  const uint64_t h = vget_lane_u64(vreinterpret_u64_s16(sp_narrow_half(v)), 0);
  sp_put_bytes(p, h, 2 * (n < SP_LANES ? n : 4));
}
SP_INLINE void sp_store_i16(int16_t *p, sp_i32 v) { sp_storen_i16(p, v, SP_LANES); }
/* Several whole vectors, 2 to SP_STORE_VECTORS of them. */
#define SP_STORE_VECTORS 4
SP_INLINE void sp_stores_i8(int8_t *p, const sp_i32 *v, int count) {
  const int8x8_t low = vqmovn_s16(sp_narrow(v[0], v[1]));
  if (count >= 4)
    vst1q_s8(p, vcombine_s8(low, vqmovn_s16(sp_narrow(v[2], v[3]))));
  else
    vst1_s8(p, low);
  if (count == 3) sp_store_i8(p + 8, v[2]);
}
SP_INLINE void sp_stores_u8(uint8_t *p, const sp_i32 *v, int count) {
  const uint8x8_t low = vqmovun_s16(sp_narrow(v[0], v[1]));
  if (count >= 4)
    vst1q_u8(p, vcombine_u8(low, vqmovun_s16(sp_narrow(v[2], v[3]))));
  else
    vst1_u8(p, low);
  if (count == 3) sp_store_u8(p + 8, v[2]);
}
SP_INLINE void sp_prefetch(const void *p) { __builtin_prefetch(p); }
SP_INLINE void sp_prefetch_l2(const void *p) { __builtin_prefetch(p, 0, 2); }

/* lanes */
SP_INLINE sp_f32 sp_set1_f32(float x) { return vdupq_n_f32(x); }
SP_INLINE sp_i32 sp_set1_i32(int32_t x) { return vdupq_n_s32(x); }
SP_INLINE sp_f32 sp_zero_f32(void) { return vdupq_n_f32(0.0f); }
SP_INLINE sp_i32 sp_iota_i32(void) {
  return vcombine_s32(vcreate_s32(0x0000000100000000u), vcreate_s32(0x0000000300000002u));
}
SP_INLINE sp_i32 sp_gather_pair_i32(const int32_t *t, sp_i32 i, sp_i32 *next) {
  const int32x2_t a = vld1_s32(t + vgetq_lane_s32(i, 0)), b = vld1_s32(t + vgetq_lane_s32(i, 1));
  const int32x2_t c = vld1_s32(t + vgetq_lane_s32(i, 2)), d = vld1_s32(t + vgetq_lane_s32(i, 3));
  const int32x4x2_t v = vuzpq_s32(vcombine_s32(a, b), vcombine_s32(c, d));
  *next = v.val[1];
  return v.val[0];
}
SP_INLINE sp_i32 sp_bits_f32(sp_f32 v) { return vreinterpretq_s32_f32(v); }
SP_INLINE sp_f32 sp_from_bits_f32(sp_i32 v) { return vreinterpretq_f32_s32(v); }

/* compare and masks */
SP_INLINE sp_mask sp_lt_f32(sp_f32 a, sp_f32 b) { return vcltq_f32(a, b); }
SP_INLINE sp_mask sp_le_f32(sp_f32 a, sp_f32 b) { return vcleq_f32(a, b); }
SP_INLINE sp_mask sp_gt_f32(sp_f32 a, sp_f32 b) { return vcgtq_f32(a, b); }
SP_INLINE sp_mask sp_ge_f32(sp_f32 a, sp_f32 b) { return vcgeq_f32(a, b); }
SP_INLINE sp_mask sp_eq_f32(sp_f32 a, sp_f32 b) { return vceqq_f32(a, b); }
SP_INLINE sp_mask sp_ne_f32(sp_f32 a, sp_f32 b) { return vmvnq_u32(vceqq_f32(a, b)); }
SP_INLINE sp_mask sp_isnan_f32(sp_f32 v) { return vmvnq_u32(vceqq_f32(v, v)); }
SP_INLINE sp_mask sp_gt_i32(sp_i32 a, sp_i32 b) { return vcgtq_s32(a, b); }
SP_INLINE sp_mask sp_lt_i32(sp_i32 a, sp_i32 b) { return vcltq_s32(a, b); }
SP_INLINE sp_mask sp_eq_i32(sp_i32 a, sp_i32 b) { return vceqq_s32(a, b); }
SP_INLINE sp_mask sp_mask_and(sp_mask a, sp_mask b) { return vandq_u32(a, b); }
SP_INLINE sp_mask sp_mask_or(sp_mask a, sp_mask b) { return vorrq_u32(a, b); }
SP_INLINE sp_mask sp_mask_xor(sp_mask a, sp_mask b) { return veorq_u32(a, b); }
SP_INLINE sp_mask sp_mask_not(sp_mask a) { return vmvnq_u32(a); }
SP_INLINE sp_f32 sp_select_f32(sp_mask m, sp_f32 a, sp_f32 b) { return vbslq_f32(m, a, b); }
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) { return vbslq_s32(m, a, b); }

/* f32 */
SP_INLINE sp_f32 sp_add_f32(sp_f32 a, sp_f32 b) { return vaddq_f32(a, b); }
SP_INLINE sp_f32 sp_sub_f32(sp_f32 a, sp_f32 b) { return vsubq_f32(a, b); }
SP_INLINE sp_f32 sp_mul_f32(sp_f32 a, sp_f32 b) { return vmulq_f32(a, b); }
/* Maximum and minimum return NaN when either operand is NaN, which maxq and minq must not. */
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) { return vmaxq_f32(a, b); }
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) { return vminq_f32(a, b); }
SP_INLINE sp_f32 sp_neg_f32(sp_f32 v) { return vnegq_f32(v); }
SP_INLINE sp_f32 sp_abs_f32(sp_f32 v) { return vabsq_f32(v); }
SP_INLINE sp_f32 sp_copysign_f32(sp_f32 mag, sp_f32 sgn) {
  return vbslq_f32(vdupq_n_u32(0x80000000u), sgn, mag);
}

/* i32; a register shift by a constant becomes the immediate form */
SP_INLINE sp_i32 sp_add_i32(sp_i32 a, sp_i32 b) { return vaddq_s32(a, b); }
SP_INLINE sp_i32 sp_sub_i32(sp_i32 a, sp_i32 b) { return vsubq_s32(a, b); }
SP_INLINE sp_i32 sp_mul_i32(sp_i32 a, sp_i32 b) { return vmulq_s32(a, b); }
SP_INLINE sp_i32 sp_and_i32(sp_i32 a, sp_i32 b) { return vandq_s32(a, b); }
SP_INLINE sp_i32 sp_or_i32(sp_i32 a, sp_i32 b) { return vorrq_s32(a, b); }
SP_INLINE sp_i32 sp_xor_i32(sp_i32 a, sp_i32 b) { return veorq_s32(a, b); }
SP_INLINE sp_i32 sp_shl_i32(sp_i32 v, int n) { return vshlq_s32(v, vdupq_n_s32(n)); }
SP_INLINE sp_i32 sp_shr_i32(sp_i32 v, int n) { return vshlq_s32(v, vdupq_n_s32(-n)); }
SP_INLINE sp_i32 sp_shru_i32(sp_i32 v, int n) {
  return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), vdupq_n_s32(-n)));
}
SP_INLINE sp_i32 sp_mulh31_i32(sp_i32 a, sp_i32 b) { return vqrdmulhq_s32(a, b); }
SP_INLINE sp_i32 sp_mulh15_i32(sp_i32 a, sp_i32 b) {
  return vreinterpretq_s32_s16(vqrdmulhq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}
SP_INLINE sp_i32 sp_rshr_i32(sp_i32 v, sp_i32 n) { return vrshlq_s32(v, vnegq_s32(n)); }
#define SP_ROUNDS_SHIFTS
SP_INLINE sp_i32 sp_rshr_n_i32(sp_i32 v, int n) { return sp_rshr_i32(v, vdupq_n_s32(n)); }
SP_INLINE sp_i32 sp_max_i32(sp_i32 a, sp_i32 b) { return vmaxq_s32(a, b); }
SP_INLINE sp_i32 sp_min_i32(sp_i32 a, sp_i32 b) { return vminq_s32(a, b); }

/* convert */
SP_INLINE sp_f32 sp_cvt_i32_f32(sp_i32 v) { return vcvtq_f32_s32(v); }
SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) { return vcvtq_s32_f32(v); }

/* products of bytes and halves */
#define SP_DOT_UNSIGNED 0
SP_INLINE int32_t sp_quad(const void *p) { return (int32_t)*(const sp_u32_at *)p; }
SP_INLINE sp_i32 sp_set1_quad(const void *p) { return sp_set1_i32(sp_quad(p)); }
SP_INLINE sp_i32 sp_flip_i32(sp_i32 v) {
  return vreinterpretq_s32_u8(veorq_u8(vreinterpretq_u8_s32(v), vdupq_n_u8(128)));
}
SP_INLINE sp_i32 sp_loadq_i32(const void *p) {
  return vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)p));
}
SP_INLINE void sp_storeq_i32(void *p, sp_i32 v) {
  vst1q_u8((uint8_t *)p, vreinterpretq_u8_s32(v));
}
SP_INLINE sp_i32 sp_loadp_i32(const void *p) {
  return vreinterpretq_s32_s16(vmovl_s8(vld1_s8((const int8_t *)p)));
}
SP_INLINE sp_i32 sp_addp_i32(sp_i32 a, sp_i32 b) {
  return vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}
SP_INLINE sp_i32 sp_subp_i32(sp_i32 a, sp_i32 b) {
  return vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  const int k = n < SP_LANES ? n : SP_LANES;
  const int8x8_t a = vcreate_s8(sp_get_bytes(p, k)), b = vcreate_s8(sp_get_bytes(q, k));
  return vreinterpretq_s32_s16(vmovl_s8(vzip_s8(a, b).val[0]));
}

#endif
