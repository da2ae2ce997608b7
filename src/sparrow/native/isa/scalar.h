/* Vector vocabulary with one lane, in strict C99: runs everywhere and defines the meaning of each
 * name; the other headers in this folder implement the same functions for more lanes.
 *
 * - sp_fma_f32(a, b, c) is a * b + c and sp_fnma_f32(a, b, c) is c - a * b: rounded once where the
 *   instruction set has a fused operation, twice here, and a compiler may contract either.
 *   Code that needs one particular rounding must not use them on inexact products.
 * - loadn/storen touch only elements < n; 0 <= n, and n >= SP_LANES is the whole vector. Lanes >= n
 *   of a load are 0. A literal n folds to a plain access.
 * - sp_max/min_f32 return NaN when either operand is NaN; the sign of max(-0, +0) is unspecified.
 *   sp_maxq/minq_f32 are (a > b ? a : b) and (a < b ? a : b) exactly.
 * - Integer arithmetic wraps. Shift counts are 0 .. 31.
 * - sp_mulh31_i32(a, b) is floor((a b + 2^30) / 2^31), not both -2^31; sp_mulh15_i32(a, b) floor((a b + 2^14) / 2^15)
 *   of numbers in [0, 2^15). sp_rshr_i32(v, n) shifts each lane right by its own count, halves up: v + 2^(n - 1) must fit.
 * - sp_rne/trunc_f32_i32 of NaN or a value outside int32 give some int32 that depends on the
 *   instruction set; clamp first where that matters. sp_rne_near_f32_i32 is for -2^22 .. 2^22, and for
 *   what is no product: compilers may contract it with an addition that some headers take.
 * - Comparisons with NaN are false, except sp_ne_f32.
 * - f16 stores round to nearest even, subnormals included; NaN stays NaN with its upper payload.
 * - i8/u8 stores saturate.
 * - Four bytes of one lane are multiplied and summed by sp_dot4_i32: those of b are signed, those of
 *   a signed or, where SP_DOT_UNSIGNED, unsigned. The sum wraps. sp_flip_i32 turns one kind into the
 *   other (code + 128). sp_quad reads four bytes at any address, sp_set1_quad into all lanes;
 *   sp_zip4_i8 puts bytes l of p, q, r, s into lane l.
 * - Two halves of one lane are multiplied and summed by sp_dot2_i32; what they are is widened from
 *   bytes. sp_loadp_i32 widens 2 * SP_LANES int8 at p to the pairs of all lanes; sp_zip2_i8 puts
 *   bytes l of p and q, widened, into lane l. sp_addp_i32 and sp_subp_i32 are of halves, and wrap.
 * - sp_gather_pair_i32(t, i, &next) is t[i] of every lane, next t[i + 1]; i is not negative.
 * - sp_sum_f32 adds in an order that depends on SP_LANES only. sp_hmax/hmin_f32 propagate NaN. */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "scalar_base.h"

#define SP_ISA_NAME "scalar"

SP_INLINE int32_t sp_byte_i32(int32_t v, int i) {
  const int32_t b = (int32_t)((uint32_t)v >> (uint32_t)(8 * i)) & 255;
  return (b ^ 128) - 128;
}
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  int32_t sum = 0;
  SP_UNROLL
  for (int i = 0; i < 4; ++i) sum += sp_byte_i32(a, i) * sp_byte_i32(b, i);
  return sp_add_i32(acc, sum);
}

#endif
