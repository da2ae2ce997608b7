/* What emitted elementwise code needs beside the vocabulary: scalar access to half types, vector
 * functions applied to one value, so that a scalar loop rounds exactly as a vector loop does, and
 * conversions with ONNX meaning. */
#ifndef SP_LANE_H
#define SP_LANE_H

#include "../base.h"
#include "math.h"
#include "rounding.h"
#include "store.h"

SP_INLINE float sp_lane0(sp_f32 v) {
  float x;
  sp_storen_f32(&x, v, 1);
  return x;
}

#define SP_NAN sp_lane0(sp_from_bits_f32(sp_set1_i32(0x7fc00000)))
#define SP_INF sp_lane0(sp_from_bits_f32(sp_set1_i32(0x7f800000)))

/* A float32 function of one or two vectors, for one value. */
#define SP_F32_1(fn, x) sp_lane0(sp_##fn##_f32(sp_set1_f32(x)))
#define SP_F32_2(fn, x, y) sp_lane0(sp_##fn##_f32(sp_set1_f32(x), sp_set1_f32(y)))

SP_INLINE float sp_get_f16(const uint16_t *p) { return sp_lane0(sp_loadn_f16(p, 1)); }
SP_INLINE float sp_get_bf16(const uint16_t *p) { return sp_lane0(sp_loadn_bf16(p, 1)); }
SP_INLINE void sp_put_f16(uint16_t *p, float x) { sp_storen_f16(p, sp_set1_f32(x), 1); }
SP_INLINE void sp_put_bf16(uint16_t *p, float x) { sp_storen_bf16(p, sp_set1_f32(x), 1); }

/* Rounded to a half type. */
SP_INLINE sp_f32 sp_round_f16_f32(sp_f32 v) {
  uint16_t h[SP_LANES];
  sp_store_f16(h, v);
  return sp_load_f16(h);
}
SP_INLINE sp_f32 sp_round_bf16_f32(sp_f32 v) {
  uint16_t h[SP_LANES];
  sp_store_bf16(h, v);
  return sp_load_bf16(h);
}
SP_INLINE float sp_round_f16(float x) { return SP_F32_1(round_f16, x); }
SP_INLINE float sp_round_bf16(float x) { return SP_F32_1(round_bf16, x); }

/* Float to integer: truncates, saturates, NaN gives 0. */
SP_INLINE sp_i32 sp_to_range_f32(sp_f32 v, float lo, float hi) {
  return sp_trunc_f32_i32(sp_select_f32(sp_isnan_f32(v), sp_zero_f32(), sp_clamp_f32(v, lo, hi)));
}
SP_INLINE sp_i32 sp_to_i8_f32(sp_f32 v) { return sp_to_range_f32(v, -128.0f, 127.0f); }
SP_INLINE sp_i32 sp_to_i16_f32(sp_f32 v) { return sp_to_range_f32(v, -32768.0f, 32767.0f); }
SP_INLINE sp_i32 sp_to_u8_f32(sp_f32 v) { return sp_to_range_f32(v, 0.0f, 255.0f); }
SP_INLINE sp_i32 sp_to_i32_f32(sp_f32 v) {
  /* 2^31 - 128 is the largest float below 2^31 */
  const sp_i32 i = sp_to_range_f32(v, -2147483648.0f, 2147483520.0f);
  return sp_select_i32(sp_ge_f32(v, sp_set1_f32(2147483648.0f)), sp_set1_i32(INT32_MAX), i);
}
#ifndef SP_QUOTIENTS /* where fused multiply-adds take less than a division */
/* x / s rounded to nearest even and clipped to the whole numbers lo and hi, 0 for NaN; r is 1 / s
 * rounded, where emit/quotient.py has tested s. */
SP_INLINE sp_i32 sp_quotient_f32_i32(sp_f32 x, float s, float r, float lo, float hi) {
  (void)r;
  const sp_f32 q = sp_clamp_f32(sp_div_f32(x, sp_set1_f32(s)), lo, hi);
  return sp_rne_near_f32_i32(sp_select_f32(sp_isnan_f32(q), sp_zero_f32(), q));
}
#endif
SP_INLINE sp_mask sp_truth_i32(sp_i32 v) { return sp_mask_not(sp_eq_i32(v, sp_set1_i32(0))); }

#endif
