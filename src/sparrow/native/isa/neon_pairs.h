/* Products of bytes for NEON without dot products: as halves, which are then added up by pairs. */
#ifndef SP_NEON_PAIRS_H
#define SP_NEON_PAIRS_H

#include "neon_base.h"

/* The first pairs of all quads, and the second ones. Of an operand of several products the compiler
 * takes them once. */
SP_INLINE int8x8x2_t sp_pairs_of(sp_i32 v) {
  const int16x8_t h = vreinterpretq_s16_s32(v);
  const int16x4x2_t p = vuzp_s16(vget_low_s16(h), vget_high_s16(h));
  return (int8x8x2_t){{vreinterpret_s8_s16(p.val[0]), vreinterpret_s8_s16(p.val[1])}};
}
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int8x8x2_t x = sp_pairs_of(a), w = sp_pairs_of(b);
  const int32x4_t first = vpadalq_s16(acc, vmull_s8(x.val[0], w.val[0]));
  return vpadalq_s16(first, vmull_s8(x.val[1], w.val[1]));
}
/* A load brings two quads of a pixel, whose pairs are then put in all lanes. Where `tame`, two
 * products, of bytes k and k + 2 of a quad, are known to fit in 16 bits. */
#define SP_GROUP 2
typedef int8x8_t sp_group;
SP_INLINE sp_group sp_loadn_group(const void *p, int quads) {
  return quads < SP_GROUP ? vreinterpret_s8_u8(sp_load_four(p)) : vld1_s8((const int8_t *)p);
}
SP_INLINE sp_group sp_flip_group(sp_group v) { return veor_s8(v, vdup_n_s8(-128)); }
/* acc and the products of the high halves: by name, since the compiler would move them down. */
SP_INLINE int16x8_t sp_add_high_products(int16x8_t acc, int8x16_t a, int8x16_t b) {
#if defined(__aarch64__)
  __asm__("smlal2 %0.8h, %1.16b, %2.16b" : "+w"(acc) : "w"(a), "w"(b));
  return acc;
#else
  return vmlal_s8(acc, vget_high_s8(a), vget_high_s8(b));
#endif
}
/* Where `apart`, the first pairs of the weights of all lanes lie before the second ones. */
#define SP_PAIRS_APART 1
SP_INLINE sp_i32 sp_dot_group_i32(sp_i32 acc, sp_group a, int j, sp_i32 b, int tame, int apart) {
  const int16x4_t h = vreinterpret_s16_s8(a);
  const int16x8_t d0 = j == 0 ? vdupq_lane_s16(h, 0) : vdupq_lane_s16(h, 2);
  const int16x8_t d1 = j == 0 ? vdupq_lane_s16(h, 1) : vdupq_lane_s16(h, 3);
  const int8x16_t x0 = vreinterpretq_s8_s16(d0), x1 = vreinterpretq_s8_s16(d1);
  const int8x8x2_t near = sp_pairs_of(b);
  const int8x16_t w = apart ? vreinterpretq_s8_s32(b) : vcombine_s8(near.val[0], near.val[1]);
  const int16x8_t p = vmull_s8(vget_low_s8(w), vget_low_s8(x0));
  if (tame) return vpadalq_s16(acc, sp_add_high_products(p, w, x1));
  return vpadalq_s16(vpadalq_s16(acc, p), sp_add_high_products(vdupq_n_s16(0), w, x1));
}

#endif
