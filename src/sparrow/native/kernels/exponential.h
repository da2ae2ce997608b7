/* 2^(15 - shift) 2^(-t / 2^15) rounded, for t in [0, 24 * 2^15] and shift up to 7, in int32; the
 * same integers as ops/exponential.py. */
#ifndef SP_EXPONENTIAL_H
#define SP_EXPONENTIAL_H
#include "../base.h"

SP_INLINE sp_i32 sp_halved_i32(sp_i32 t, int shift) {
  const sp_i32 x = sp_and_i32(t, sp_set1_i32((1 << 15) - 1));
  sp_i32 p = sp_sub_i32(sp_set1_i32(7575), sp_mulh15_i32(x, sp_set1_i32(1298)));
  p = sp_sub_i32(sp_set1_i32(22662), sp_mulh15_i32(x, p));
  p = sp_sub_i32(sp_set1_i32(1 << 15), sp_mulh15_i32(x, p));
  return sp_rshr_i32(p, sp_add_i32(sp_shr_i32(t, 15), sp_set1_i32(shift)));
}
#endif
