/* What the vocabularies of relaxed SIMD share: multiply and add may round once. */
#ifndef SP_WASM_RELAXED_BASE_H
#define SP_WASM_RELAXED_BASE_H

#include "wasm_base.h"

#if !defined(__wasm_relaxed_simd__)
#error "isa/wasm_relaxed_base.h needs relaxed SIMD (-mrelaxed-simd)"
#endif

SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) {
  return __builtin_wasm_relaxed_madd_f32x4(a, b, c);
}
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) {
  return __builtin_wasm_relaxed_nmadd_f32x4(a, b, c);
}

/* Out of range and NaN become one of two numbers, which the vocabulary leaves open. */
SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) {
  return __builtin_wasm_relaxed_trunc_s_i32x4_f32x4(v);
}
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) { return sp_trunc_f32_i32(sp_round_f32(v)); }

#include "wasm_bytes.h"

#endif
