/* The vocabulary for WebAssembly with SIMD128. clang (zig: wasm32, generic+simd128). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "wasm_base.h"

#if !defined(__wasm_simd128__)
#error "isa/wasm_simd.h needs SIMD128 (-msimd128)"
#endif

#define SP_ISA_NAME "wasm_simd"

SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return a * b + c; }
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return c - a * b; }

SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) {
  return __builtin_wasm_trunc_saturate_s_i32x4_f32x4(v);
}
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return sp_trunc_f32_i32(sp_round_f32(v)); }

#include "wasm_halves.h"

#endif
