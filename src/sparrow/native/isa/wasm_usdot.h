/* The vocabulary for WebAssembly with relaxed SIMD where the engine's relaxed dot product takes all bits
 * of its second operand for an unsigned byte and adds four products in 32 bits, as vpdpbusd does (V8 on
 * x86-64 with AVX-VNNI). The standard leaves both open, but fixes them for an engine: what loads such a
 * module asks first (`has('usdot')` of web/model.mjs). clang (zig: wasm32, generic+simd128+relaxed_simd). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "wasm_relaxed_base.h"

#define SP_ISA_NAME "wasm_usdot"
#define SP_DOT_UNSIGNED 1
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return __builtin_wasm_relaxed_dot_i8x16_i7x16_add_s_i32x4((sp_s8x16)b, (sp_s8x16)a, acc);
}

#endif
