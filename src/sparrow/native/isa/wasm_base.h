/* What the WebAssembly vocabularies share: 4 lanes, in SIMD128 instructions where the compiler may use
 * them, in scalar ones else. One layout of weights then serves every engine. Meaning of each name:
 * isa/scalar.h. */
#ifndef SP_WASM_BASE_H
#define SP_WASM_BASE_H

#include "clang4.h"

#if !defined(__wasm__)
#error "isa/wasm_base.h needs WebAssembly"
#endif

#define SP_NO_PREFETCH /* the compiler drops it */
/* Engines look in every round of a loop whether they should stop. */
#define SP_QUADS 4

#if defined(__wasm_simd128__)
/* The instruction by name: a comparison and & become relaxed minima, which lose NaN and zeros. */
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) {
  return __builtin_wasm_bitselect(a, b, m);
}
/* pmin and pmax are comparisons and return their first operand for NaN. */
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return __builtin_wasm_pmax_f32x4(b, a); }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return __builtin_wasm_pmin_f32x4(b, a); }
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) { return __builtin_wasm_max_f32x4(a, b); }
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) { return __builtin_wasm_min_f32x4(a, b); }
#else
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) { return (m & a) | (~m & b); }
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) {
  return (sp_f32){a.x > b.x ? a.x : b.x, a.y > b.y ? a.y : b.y, a.z > b.z ? a.z : b.z,
                  a.w > b.w ? a.w : b.w};
}
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) {
  return (sp_f32){a.x < b.x ? a.x : b.x, a.y < b.y ? a.y : b.y, a.z < b.z ? a.z : b.z,
                  a.w < b.w ? a.w : b.w};
}
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) {
  return (sp_f32){__builtin_wasm_max_f32(a.x, b.x), __builtin_wasm_max_f32(a.y, b.y),
                  __builtin_wasm_max_f32(a.z, b.z), __builtin_wasm_max_f32(a.w, b.w)};
}
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) {
  return (sp_f32){__builtin_wasm_min_f32(a.x, b.x), __builtin_wasm_min_f32(a.y, b.y),
                  __builtin_wasm_min_f32(a.z, b.z), __builtin_wasm_min_f32(a.w, b.w)};
}
#endif
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) { return __builtin_elementwise_trunc(v); }
/* In the low bits of a float that has no lower ones; engines round, convert and compare otherwise. */
SP_INLINE sp_i32 sp_rne_near_f32_i32(sp_f32 v) {
  const sp_f32 magic = sp_set1_f32(12582912.0f);
  return sp_sub_i32(sp_bits_f32(sp_add_f32(v, magic)), sp_bits_f32(magic));
}

#endif
