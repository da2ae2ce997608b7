/* Sums of products of bytes over halves: those of two bytes fit in 32 bits. */
#ifndef SP_WASM_HALVES_H
#define SP_WASM_HALVES_H

#include "wasm_bytes.h"

#define SP_DOT_UNSIGNED 0
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const sp_s16x8 a0 = ((sp_s16x8)a << 8) >> 8, a1 = (sp_s16x8)a >> 8;
  const sp_s16x8 b0 = ((sp_s16x8)b << 8) >> 8, b1 = (sp_s16x8)b >> 8;
  return acc + __builtin_wasm_dot_s_i32x4_i16x8(a0, b0) + __builtin_wasm_dot_s_i32x4_i16x8(a1, b1);
}

#endif
