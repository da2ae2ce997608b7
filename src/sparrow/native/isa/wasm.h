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

#define SP_DOT_UNSIGNED 0
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  SP_UNROLL
  for (int i = 0; i < 4; ++i)
    acc += ((a << (24 - 8 * i)) >> 24) * ((b << (24 - 8 * i)) >> 24);
  return acc;
}

#include "clang4_bytes.h"

#endif
