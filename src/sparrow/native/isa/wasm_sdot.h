/* The vocabulary for WebAssembly with relaxed SIMD where the engine's relaxed dot product takes all bits
 * of its second operand for a signed byte, as Arm's sdot does (V8 on AArch64). Its first compiler adds
 * two products in 16 bits, where only those of -128 and -128 do not fit. What loads such a module asks
 * first (`has('sdot')` of web/model.mjs). clang (zig: wasm32, generic+simd128+relaxed_simd). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "wasm_relaxed_base.h"

#define SP_ISA_NAME "wasm_sdot"
#define SP_DOT_UNSIGNED 0
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return __builtin_wasm_relaxed_dot_i8x16_i7x16_add_s_i32x4((sp_s8x16)a, (sp_s8x16)b, acc);
}

#endif
