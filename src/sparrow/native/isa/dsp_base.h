/* One lane with the DSP extension of Armv7E-M and Armv8-M main: two products of 16 bits in one
 * instruction. clang, gcc 8 and later (arm_acle.h). */
#ifndef SP_ISA_DSP_BASE_H
#define SP_ISA_DSP_BASE_H

#include <arm_acle.h>

#include "scalar_base.h"

/* Bytes 1 and 3 of a word, widened. */
SP_INLINE int16x2_t sp_odd_bytes(sp_i32 v) {
  return __sxtb16((int8x4_t)((uint32_t)v >> 8 | (uint32_t)v << 24));
}

/* Bytes 0 and 2, and 1 and 3: the compiler widens an operand once for all its products. */
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return __smlad(sp_odd_bytes(a), sp_odd_bytes(b), __smlad(__sxtb16(a), __sxtb16(b), acc));
}

#endif
