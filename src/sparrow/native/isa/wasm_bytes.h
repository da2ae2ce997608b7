/* What the vocabularies of SIMD128 do with bytes. */
#ifndef SP_WASM_BYTES_H
#define SP_WASM_BYTES_H

#include "wasm_base.h"

typedef int8_t sp_s8x16 __attribute__((ext_vector_type(16)));
typedef uint64_t sp_u64x2 __attribute__((ext_vector_type(2)));

SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return sp_add_i32(acc, __builtin_wasm_dot_s_i32x4_i16x8((sp_s16x8)a, (sp_s16x8)b));
}

/* A constant that stays in a register: engines make others anew, in three instructions, wherever the
 * compiler names them. */
SP_INLINE sp_f32 sp_kept_f32(float x) {
  sp_f32 v = sp_set1_f32(x);
  SP_OPAQUE(v);
  return v;
}
/* As kernels/lane.h has it. */
#define SP_QUOTIENTS
SP_INLINE sp_i32 sp_quotient_f32_i32(sp_f32 x, float s, float r, float lo, float hi) {
  const sp_f32 magic = sp_kept_f32(12582912.0f);
  (void)r;
  sp_f32 q = sp_minq_f32(sp_kept_f32(hi), sp_maxq_f32(sp_kept_f32(lo), x / sp_kept_f32(s)));
  q = (sp_f32)((sp_i32)q & (sp_i32)(q == q));
  return sp_sub_i32(sp_bits_f32(q + magic), sp_bits_f32(magic));
}

SP_INLINE uint64_t sp_cut_i8(sp_i32 v) {
  const sp_s16x8 h = __builtin_wasm_narrow_s_i16x8_i32x4(v, v);
  return (uint32_t)((sp_i32)__builtin_wasm_narrow_s_i8x16_i16x8(h, h)).x;
}
SP_INLINE uint64_t sp_cut_u8(sp_i32 v) {
  const sp_s16x8 h = __builtin_wasm_narrow_s_i16x8_i32x4(v, v);
  return (uint32_t)((sp_i32)__builtin_wasm_narrow_u_i8x16_i16x8(h, h)).x;
}

/* Two whole vectors at once, or four. */
#define SP_STORE_VECTORS 4
#define SP_TILE_STORES 2
SP_INLINE sp_s16x8 sp_halves_of_two(const sp_i32 *v) {
  return __builtin_wasm_narrow_s_i16x8_i32x4(v[0], v[1]);
}
SP_INLINE void sp_put_bytes_of(void *p, sp_s8x16 v, int count) {
  if (count > 2)
    sp_storeq_i32(p, (sp_i32)v);
  else
    *(sp_u64_at *)p = ((sp_u64x2)v).x;
}
SP_INLINE void sp_stores_i8(int8_t *p, const sp_i32 *v, int count) {
  const sp_s16x8 low = sp_halves_of_two(v), high = count > 2 ? sp_halves_of_two(v + 2) : low;
  sp_put_bytes_of(p, __builtin_wasm_narrow_s_i8x16_i16x8(low, high), count);
}
SP_INLINE void sp_stores_u8(uint8_t *p, const sp_i32 *v, int count) {
  const sp_s16x8 low = sp_halves_of_two(v), high = count > 2 ? sp_halves_of_two(v + 2) : low;
  sp_put_bytes_of(p, (sp_s8x16)__builtin_wasm_narrow_u_i8x16_i16x8(low, high), count);
}

/* Interleavings by name: of half of one engines know no instruction. */
SP_INLINE sp_s8x16 sp_zip_low(sp_s8x16 a, sp_s8x16 b) {
  return __builtin_wasm_shuffle_i8x16(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
SP_INLINE sp_s8x16 sp_zip_high(sp_s8x16 a, sp_s8x16 b) {
  return __builtin_wasm_shuffle_i8x16(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                      31);
}

/* 64 bytes of each of three planes in turn: quads of a byte of each and one that goes. */
#define SP_THREE_PLANES
SP_INLINE void sp_interleave_3(void *p, const void *a, const void *b, const void *c) {
  const uint8_t *const plane[3] = {(const uint8_t *)a, (const uint8_t *)b, (const uint8_t *)c};
  uint8_t *to = (uint8_t *)p;
  sp_s8x16 three = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1};
  SP_OPAQUE(three); /* as sp_kept_f32 */
  SP_ROLLED
  for (int k = 0; k < 64; k += 16) {
    sp_s8x16 v[3];
    SP_UNROLL
    for (int i = 0; i < 3; ++i) v[i] = (sp_s8x16)sp_loadq_i32(plane[i] + k);
    const sp_s16x8 two[2] = {(sp_s16x8)sp_zip_low(v[0], v[1]), (sp_s16x8)sp_zip_high(v[0], v[1])};
    const sp_s16x8 one[2] = {(sp_s16x8)sp_zip_low(v[2], v[2]), (sp_s16x8)sp_zip_high(v[2], v[2])};
    SP_UNROLL
    for (int i = 0; i < 4; ++i, to += 12) {
      const sp_s16x8 x = two[i / 2], y = one[i / 2];
      const sp_s16x8 quads = i % 2 ? __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15)
                                   : __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
      const sp_s8x16 dense = __builtin_wasm_swizzle_i8x16((sp_s8x16)quads, three);
      *(sp_u64_at *)to = ((sp_u64x2)dense).x;
      *(sp_u32_at *)(to + 8) = (uint32_t)((sp_i32)dense).z;
    }
  }
}

SP_INLINE sp_s8x16 sp_four(const void *p, int n) {
  return (sp_s8x16)(sp_i32){n < SP_LANES ? (int32_t)sp_get_bytes(p, n) : sp_quad(p), 0, 0, 0};
}
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  const sp_s8x16 v = sp_zip_low(sp_four(p, n), sp_four(q, n));
  return (sp_i32)__builtin_convertvector(
      __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7), sp_s16x8);
}
/* Of two vectors: an engine widens as it loads. */
#define SP_ZIPS
SP_INLINE void sp_zips_i8(const uint8_t *p, const uint8_t *q, sp_i32 *v) {
  const sp_s16x8 a = (sp_s16x8)sp_loadp_i32(p), b = (sp_s16x8)sp_loadp_i32(q);
  v[0] = (sp_i32)__builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  v[1] = (sp_i32)__builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

#endif
