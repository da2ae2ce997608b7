/* What emitted elementwise code needs beside the vocabulary: scalar access to half types, and vector
 * functions applied to one value, so that a scalar loop rounds exactly as a vector loop does. */
#ifndef SP_LANE_H
#define SP_LANE_H

#include "../base.h"
#include "math.h"

SP_INLINE float sp_lane0(sp_f32 v) {
  float x;
  sp_storen_f32(&x, v, 1);
  return x;
}

/* A float32 function of one or two vectors, for one value. */
#define SP_F32_1(fn, x) sp_lane0(sp_##fn##_f32(sp_set1_f32(x)))
#define SP_F32_2(fn, x, y) sp_lane0(sp_##fn##_f32(sp_set1_f32(x), sp_set1_f32(y)))

SP_INLINE float sp_get_f16(const uint16_t *p) { return sp_lane0(sp_loadn_f16(p, 1)); }
SP_INLINE float sp_get_bf16(const uint16_t *p) { return sp_lane0(sp_loadn_bf16(p, 1)); }
SP_INLINE void sp_put_f16(uint16_t *p, float x) { sp_storen_f16(p, sp_set1_f32(x), 1); }
SP_INLINE void sp_put_bf16(uint16_t *p, float x) { sp_storen_bf16(p, sp_set1_f32(x), 1); }
SP_INLINE float sp_round_f16(float x) {
  uint16_t h;
  sp_put_f16(&h, x);
  return sp_get_f16(&h);
}
SP_INLINE float sp_round_bf16(float x) {
  uint16_t h;
  sp_put_bf16(&h, x);
  return sp_get_bf16(&h);
}

#endif
