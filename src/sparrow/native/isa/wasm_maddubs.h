/* The vocabulary for WebAssembly with relaxed SIMD where the engine's relaxed dot product takes all bits
 * of its second operand for an unsigned byte and adds two products in 16 bits, as pmaddubsw does
 * (engines on x86-64). The standard leaves that open, but fixes it for an engine: what loads such a
 * module asks first (`has('maddubs')` of web/model.mjs). clang (zig: wasm32,
 * generic+simd128+relaxed_simd). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "wasm_relaxed_base.h"
#include "wasm_halves.h"

#define SP_ISA_NAME "wasm_maddubs"
/* Twos of neighbours: halves a0 x0 + a1 x1 of signed bytes a and unsigned x, where they fit. */
#define SP_MADDUBS
SP_INLINE sp_i32 sp_maddubs_i32(sp_i32 a, sp_i32 x) {
  return (sp_i32)__builtin_wasm_relaxed_dot_i8x16_i7x16_s_i16x8((sp_s8x16)a, (sp_s8x16)x);
}

#endif
