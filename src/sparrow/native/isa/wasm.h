/* The vocabulary for WebAssembly engines without vectors: the 4 lanes of the others, one by one. clang
 * (zig: wasm32, generic). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "wasm_base.h"

#define SP_ISA_NAME "wasm"

SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return a * b + c; }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return c - a * b; }

SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) {
  return (sp_i32){
      __builtin_wasm_trunc_saturate_s_i32_f32(v.x), __builtin_wasm_trunc_saturate_s_i32_f32(v.y),
      __builtin_wasm_trunc_saturate_s_i32_f32(v.z), __builtin_wasm_trunc_saturate_s_i32_f32(v.w)};
}
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return sp_trunc_f32_i32(sp_round_f32(v)); }

SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  SP_UNROLL
  for (int i = 0; i < 4; ++i)
    acc += ((a << (24 - 8 * i)) >> 24) * ((b << (24 - 8 * i)) >> 24);
  return acc;
}

/* bytes */
SP_INLINE uint64_t sp_low_bytes(sp_i32 v) {
  sp_small u;
  u.number = 0;
  u.bytes = __builtin_convertvector(v, sp_s8);
  return u.number;
}
SP_INLINE uint64_t sp_cut_i8(sp_i32 v) {
  return sp_low_bytes(sp_max_i32(sp_min_i32(v, (sp_i32)(127)), (sp_i32)(-128)));
}
SP_INLINE uint64_t sp_cut_u8(sp_i32 v) {
  return sp_low_bytes(sp_max_i32(sp_min_i32(v, (sp_i32)(255)), (sp_i32)(0)));
}
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  const int k = n < SP_LANES ? n : SP_LANES;
  sp_small u;
  u.number = sp_get_bytes(p, k) | sp_get_bytes(q, k) << 32;
  u.octet = __builtin_shufflevector(u.octet, u.octet, 0, 4, 1, 5, 2, 6, 3, 7);
  return (sp_i32)__builtin_convertvector(u.octet, sp_s16x8);
}

/* products of halves */
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
}

#endif
