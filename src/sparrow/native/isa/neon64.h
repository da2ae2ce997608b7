/* What the AArch64 vocabularies share beside neon_base.h. */
#ifndef SP_NEON64_H
#define SP_NEON64_H

#include "neon_base.h"

#if !defined(__aarch64__)
#error "isa/neon64.h needs AArch64"
#endif

/* memory */
SP_INLINE sp_f32 sp_loadn_f16(const uint16_t *p, int n) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vcreate_u16(sp_get_bytes(p, 2 * n))));
}
SP_INLINE void sp_storen_f16(uint16_t *p, sp_f32 v, int n) {
  sp_put_bytes(p, vget_lane_u64(vreinterpret_u64_f16(vcvt_f16_f32(v)), 0), 2 * n);
}

/* Narrowing is said as clips and a truncation: the compiler leaves out the clips of what 16 bits hold, as
 * these shifts, which do nothing, let it know, and moves an addition behind the truncation, where a vector
 * holds twice as many. */
#define SP_SHORTENS
SP_INLINE sp_i32 sp_short_i32(sp_i32 v) { return vshrq_n_s32(vshlq_n_s32(v, 16), 16); }
SP_INLINE int16x4_t sp_narrow_half(sp_i32 v) {
  const sp_i32 least = vdupq_n_s32(-32768), most = vdupq_n_s32(32767);
  v = vbslq_s32(vcgtq_s32(v, least), v, least);
  return vmovn_s32(vbslq_s32(vcgtq_s32(most, v), v, most));
}

/* As rounding.h has it, in the upper halves of lanes, two vectors of which are one for what follows. */
SP_INLINE sp_i32 sp_code_rshr_i32(sp_i32 v, int n, int32_t z, int fits) {
  const int32_t add = z * (1 << (n - 16)) + (1 << (n - 17));
  const int16x4_t high = fits ? vshrn_n_s32(vaddq_s32(v, vdupq_n_s32(add * 65536)), 16)
                              : vqadd_s16(vshrn_n_s32(v, 16), vdup_n_s16((int16_t)add));
  return vmovl_s16(high >> vdup_n_s16((int16_t)(n - 16)));
}

/* Lanes of a row that are known to lie in the same 16 share one load and its widening; said as assembly,
 * since the compiler would widen what one vector takes from half of a register in three steps. */
#define SP_LOADS_BLOCKS
SP_INLINE sp_i32 sp_load_block_i8(const int8_t *row, ptrdiff_t col, int n) {
  const int k = (int)(col & 15);
  if (!__builtin_constant_p(k) || k % SP_LANES || n < SP_LANES) return sp_loadn_i8(row + col, n);
  const int8x16_t block = vld1q_s8(row + (col - k));
  int16x8_t half;
  if (k < 8)
    __asm__("sshll %0.8h, %1.8b, #0" : "=w"(half) : "w"(block));
  else
    __asm__("sshll2 %0.8h, %1.16b, #0" : "=w"(half) : "w"(block));
  return k % 8 ? vmovl_high_s16(half) : vmovl_s16(vget_low_s16(half));
}

/* masks */
SP_INLINE int sp_mask_any(sp_mask a) { return vmaxvq_u32(a) != 0; }

/* f32 */
SP_INLINE sp_f32 sp_div_f32(sp_f32 a, sp_f32 b) { return vdivq_f32(a, b); }
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vfmaq_f32(c, a, b); }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return vfmsq_f32(c, a, b); }
SP_INLINE sp_f32 sp_sqrt_f32(sp_f32 v) { return vsqrtq_f32(v); }
SP_INLINE sp_f32 sp_round_f32(sp_f32 v) { return vrndnq_f32(v); }
SP_INLINE sp_f32 sp_floor_f32(sp_f32 v) { return vrndmq_f32(v); }
SP_INLINE sp_f32 sp_ceil_f32(sp_f32 v) { return vrndpq_f32(v); }
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) { return vrndq_f32(v); }

/* convert */
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return vcvtnq_s32_f32(v); }
SP_INLINE sp_i32 sp_rne_near_f32_i32(sp_f32 v) { return sp_rne_f32_i32(v); }

/* Conversions and this addition saturate, so that a store of bytes can do the clipping. */
#define SP_SATURATES
SP_INLINE sp_i32 sp_code_f32_i32(sp_f32 v, int32_t z, int32_t lo, int32_t hi, int fits) {
  sp_i32 r = vcvtnq_s32_f32(v);
  if (fits == 3)
    r = sp_short_i32(vaddq_s32(r, vdupq_n_s32(z)));
  else if (z != 0)
    r = vqaddq_s32(r, vdupq_n_s32(z));
  if (lo > INT32_MIN) r = vmaxq_s32(r, vdupq_n_s32(lo));
  if (hi < INT32_MAX) r = vminq_s32(r, vdupq_n_s32(hi));
  return r;
}

SP_INLINE sp_i32 sp_steps_f32_i32(sp_f32 v, int32_t lo, int32_t hi) {
  return vminq_s32(vmaxq_s32(vcvtnq_s32_f32(v), vdupq_n_s32(lo)), vdupq_n_s32(hi));
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

/* products of bytes and halves */
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int16x8_t x = vreinterpretq_s16_s32(a), w = vreinterpretq_s16_s32(b);
  const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(w));
  return vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(x, w)));
}
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  static const uint8_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const int k = n < SP_LANES ? n : SP_LANES;
  const uint64_t lo = sp_get_bytes(p, k) | sp_get_bytes(q, k) << 32;
  const uint64_t hi = sp_get_bytes(r, k) | sp_get_bytes(s, k) << 32;
  const uint8x16_t v = vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(lo), vcreate_u64(hi)));
  return vreinterpretq_s32_u8(vqtbl1q_u8(v, vld1q_u8(order)));
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
