/* One lane on cores with the DSP extension of Armv7E-M and Armv8-M main (Cortex-M4, M7, M33, M35P): two
 * products of 16 bits in one instruction. clang, gcc 8 and later (arm_acle.h). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include <arm_acle.h>

#include "scalar_base.h"

#define SP_ISA_NAME "dsp"

/* Bytes 0 and 2, and 1 and 3. The compiler widens an operand once for all its products. */
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const int16x2_t a1 = __sxtb16((int8x4_t)__ror((uint32_t)a, 8));
  const int16x2_t b1 = __sxtb16((int8x4_t)__ror((uint32_t)b, 8));
  return __smlad(a1, b1, __smlad(__sxtb16(a), __sxtb16(b), acc));
}

#endif
