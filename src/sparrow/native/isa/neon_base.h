/* What the AArch64 NEON (Advanced SIMD) vocabularies share: 4 lanes. Meaning of each name:
 * isa/scalar.h. gcc >= 9 or clang >= 9. */
#ifndef SP_NEON_BASE_H
#define SP_NEON_BASE_H

#include "../base.h"

#include <arm_neon.h>

#if !defined(__aarch64__) || !defined(__ARM_NEON)
#error "isa/neon_base.h needs AArch64 with Advanced SIMD"
#endif

#define SP_LANES 4

typedef float32x4_t sp_f32;
typedef int32x4_t sp_i32;
typedef uint32x4_t sp_mask; /* all bits of a lane set or clear */

/* Unaligned accesses that may alias any type. */
typedef uint16_t __attribute__((may_alias, aligned(1))) sp_u16_at;
typedef uint32_t __attribute__((may_alias, aligned(1))) sp_u32_at;
typedef uint64_t __attribute__((may_alias, aligned(1))) sp_u64_at;

/* The first n bytes at p, 0 <= n <= 8, zero extended; reads nothing else. */
SP_INLINE uint64_t sp_get_bytes(const void *p, int n) {
  const uint8_t *b = (const uint8_t *)p;
  if (n >= 8) return *(const sp_u64_at *)p;
  if (n >= 4)
    return (uint64_t)*(const sp_u32_at *)p | (uint64_t)*(const sp_u32_at *)(b + n - 4)
                                                 << (8 * (n - 4));
  if (n <= 0) return 0;
  return (uint64_t)b[0] | (uint64_t)b[n / 2] << (8 * (n / 2)) | (uint64_t)b[n - 1] << (8 * (n - 1));
}

/* Stores the low n bytes of v, 0 <= n <= 8. */
SP_INLINE void sp_put_bytes(void *p, uint64_t v, int n) {
  uint8_t *b = (uint8_t *)p;
  if (n >= 8) {
    *(sp_u64_at *)p = v;
  } else if (n >= 4) {
    *(sp_u32_at *)p = (uint32_t)v;
    *(sp_u32_at *)(b + n - 4) = (uint32_t)(v >> (8 * (n - 4)));
  } else if (n > 0) {
    if (n >= 2) *(sp_u16_at *)p = (uint16_t)v;
    b[n - 1] = (uint8_t)(v >> (8 * (n - 1)));
  }
}

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
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vcreate_u16(sp_get_bytes(p, 2 * n))));
}
SP_INLINE sp_f32 sp_load_f16(const uint16_t *p) { return sp_loadn_f16(p, SP_LANES); }
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n) {
  sp_put_bytes(p, vget_lane_u64(vreinterpret_u64_f16(vcvt_f16_f32(v)), 0), 2 * n);
}
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
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n) {
  return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(sp_get_bytes(p, n < SP_LANES ? n : 4)))));
}
SP_INLINE sp_i32 sp_load_i8(const int8_t *p) { return sp_loadn_i8(p, SP_LANES); }
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n) {
  const uint16x8_t h = vmovl_u8(vcreate_u8(sp_get_bytes(p, n < SP_LANES ? n : 4)));
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(h)));
}
SP_INLINE sp_i32 sp_load_u8(const uint8_t *p) { return sp_loadn_u8(p, SP_LANES); }
SP_INLINE int16x8_t sp_pack16(sp_i32 v) {
  const int16x4_t h = vqmovn_s32(v);
  return vcombine_s16(h, h);
}
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n) {
  const int8x8_t b = vqmovn_s16(sp_pack16(v));
  sp_put_bytes(p, vget_lane_u64(vreinterpret_u64_s8(b), 0), n < SP_LANES ? n : 4);
}
SP_INLINE void sp_store_i8(int8_t *p, sp_i32 v) { sp_storen_i8(p, v, SP_LANES); }
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n) {
  const uint8x8_t b = vqmovun_s16(sp_pack16(v));
  sp_put_bytes(p, vget_lane_u64(vreinterpret_u64_u8(b), 0), n < SP_LANES ? n : 4);
}
SP_INLINE void sp_store_u8(uint8_t *p, sp_i32 v) { sp_storen_u8(p, v, SP_LANES); }
/* Several whole vectors, 2 to SP_STORE_VECTORS of them. */
#define SP_STORE_VECTORS 4
SP_INLINE int16x8_t sp_narrow(sp_i32 a, sp_i32 b) { return vqmovn_high_s32(vqmovn_s32(a), b); }
SP_INLINE void sp_stores_i8(int8_t *p, const sp_i32 *v, int count) {
  const int8x8_t low = vqmovn_s16(sp_narrow(v[0], v[1]));
  if (count >= 4)
    vst1q_s8(p, vqmovn_high_s16(low, sp_narrow(v[2], v[3])));
  else
    vst1_s8(p, low);
  if (count == 3) sp_store_i8(p + 8, v[2]);
}
SP_INLINE void sp_stores_u8(uint8_t *p, const sp_i32 *v, int count) {
  const uint8x8_t low = vqmovun_s16(sp_narrow(v[0], v[1]));
  if (count >= 4)
    vst1q_u8(p, vqmovun_high_s16(low, sp_narrow(v[2], v[3])));
  else
    vst1_u8(p, low);
  if (count == 3) sp_store_u8(p + 8, v[2]);
}
SP_INLINE void sp_prefetch(const void *p) { __builtin_prefetch(p); }

/* lanes */
SP_INLINE sp_f32 sp_set1_f32(float x) { return vdupq_n_f32(x); }
SP_INLINE sp_i32 sp_set1_i32(int32_t x) { return vdupq_n_s32(x); }
SP_INLINE sp_f32 sp_zero_f32(void) { return vdupq_n_f32(0.0f); }
SP_INLINE sp_i32 sp_iota_i32(void) {
  return vcombine_s32(vcreate_s32(0x0000000100000000u), vcreate_s32(0x0000000300000002u));
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
SP_INLINE int sp_mask_any(sp_mask a) { return vmaxvq_u32(a) != 0; }
SP_INLINE sp_f32 sp_select_f32(sp_mask m, sp_f32 a, sp_f32 b) { return vbslq_f32(m, a, b); }
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) { return vbslq_s32(m, a, b); }

/* f32 */
SP_INLINE sp_f32 sp_add_f32(sp_f32 a, sp_f32 b) { return vaddq_f32(a, b); }
SP_INLINE sp_f32 sp_sub_f32(sp_f32 a, sp_f32 b) { return vsubq_f32(a, b); }
SP_INLINE sp_f32 sp_mul_f32(sp_f32 a, sp_f32 b) { return vmulq_f32(a, b); }
SP_INLINE sp_f32 sp_div_f32(sp_f32 a, sp_f32 b) { return vdivq_f32(a, b); }
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vfmaq_f32(c, a, b); }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vfmsq_f32(c, a, b); }
/* FMAX and FMIN return NaN when either operand is NaN, which maxq and minq must not. */
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) { return vmaxq_f32(a, b); }
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) { return vminq_f32(a, b); }
SP_INLINE sp_f32 sp_sqrt_f32(sp_f32 v) { return vsqrtq_f32(v); }
SP_INLINE sp_f32 sp_neg_f32(sp_f32 v) { return vnegq_f32(v); }
SP_INLINE sp_f32 sp_abs_f32(sp_f32 v) { return vabsq_f32(v); }
SP_INLINE sp_f32 sp_copysign_f32(sp_f32 mag, sp_f32 sgn) {
  return vbslq_f32(vdupq_n_u32(0x80000000u), sgn, mag);
}
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) { return vrndnq_f32(v); }
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) { return vrndmq_f32(v); }
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) { return vrndpq_f32(v); }
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) { return vrndq_f32(v); }

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
SP_INLINE sp_i32 sp_mulh31_i32(sp_i32 a, sp_i32 b) {
  return vqrdmulhq_s32(a, b);
}
SP_INLINE sp_i32 sp_rshr_i32(sp_i32 v, sp_i32 n) { return vrshlq_s32(v, vnegq_s32(n)); }
SP_INLINE sp_i32 sp_max_i32(sp_i32 a, sp_i32 b) { return vmaxq_s32(a, b); }
SP_INLINE sp_i32 sp_min_i32(sp_i32 a, sp_i32 b) { return vminq_s32(a, b); }

/* convert */
SP_INLINE sp_f32 sp_cvt_i32_f32(sp_i32 v) { return vcvtq_f32_s32(v); }
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return vcvtnq_s32_f32(v); }
SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) { return vcvtq_s32_f32(v); }

/* Both saturate, so that a store of bytes can do the clipping. */
#define SP_SATURATES
SP_INLINE sp_i32 sp_code_f32_i32(sp_f32 v, int32_t z, int32_t lo, int32_t hi) {
  sp_i32 r = vcvtnq_s32_f32(v);
  if (z != 0) r = vqaddq_s32(r, vdupq_n_s32(z));
  if (lo > INT32_MIN) r = vmaxq_s32(r, vdupq_n_s32(lo));
  if (hi < INT32_MAX) r = vminq_s32(r, vdupq_n_s32(hi));
  return r;
}

/* reduce: lanes i and i+2, then i+1, as every header of 4 lanes */
SP_INLINE float sp_sum_f32(sp_f32 v) {
  return vaddv_f32(vadd_f32(vget_low_f32(v), vget_high_f32(v)));
}
SP_INLINE float sp_hmax_f32(sp_f32 v) { return vmaxvq_f32(v); }
SP_INLINE float sp_hmin_f32(sp_f32 v) { return vminvq_f32(v); }
SP_INLINE int32_t sp_sum_i32(sp_i32 v) { return vaddvq_s32(v); }

/* transpose: pairs, then halves */
SP_INLINE void sp_transpose_f32(sp_f32 *v) {
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(v[0], v[1]));
  const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(v[0], v[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(v[2], v[3]));
  const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(v[2], v[3]));
  v[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c));
  v[1] = vreinterpretq_f32_f64(vzip1q_f64(b, d));
  v[2] = vreinterpretq_f32_f64(vzip2q_f64(a, c));
  v[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
}

/* products of bytes; the sums of them are in the headers that include this one */
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
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  static const uint8_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const int k = n < SP_LANES ? n : SP_LANES;
  const uint64_t lo = sp_get_bytes(p, k) | sp_get_bytes(q, k) << 32;
  const uint64_t hi = sp_get_bytes(r, k) | sp_get_bytes(s, k) << 32;
  const uint8x16_t v = vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(lo), vcreate_u64(hi)));
  return vreinterpretq_s32_u8(vqtbl1q_u8(v, vld1q_u8(order)));
}
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int16x8_t x = vreinterpretq_s16_s32(a), w = vreinterpretq_s16_s32(b);
  const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(w));
  return vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(x, w)));
}
SP_INLINE sp_i32 sp_loadp_i32(const void *p) {
  return vreinterpretq_s32_s16(vmovl_s8(vld1_s8((const int8_t *)p)));
}
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  const int k = n < SP_LANES ? n : SP_LANES;
  const int8x8_t a = vcreate_s8(sp_get_bytes(p, k)), b = vcreate_s8(sp_get_bytes(q, k));
  return vreinterpretq_s32_s16(vmovl_s8(vzip1_s8(a, b)));
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
