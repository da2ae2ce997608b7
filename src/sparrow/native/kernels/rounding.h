/* Roundings of emitted expressions, by what the header of an instruction set has: it defines SP_SATURATES
 * where conversions to int32 and its additions saturate, SP_ROUNDS_SHIFTS where a shift rounds. */
#ifndef SP_ROUNDING_H
#define SP_ROUNDING_H

#include "../base.h"

#ifndef SP_SATURATES
/* v, no NaN, rounded to nearest even and clipped to the whole numbers lo and hi, literals. */
SP_INLINE sp_i32 sp_steps_f32_i32(sp_f32 v, int32_t lo, int32_t hi) {
  v = sp_maxq_f32(sp_set1_f32((float)lo), v);
  v = sp_minq_f32(sp_set1_f32((float)hi), v);
  const int near = lo >= -(1 << 22) && hi <= 1 << 22;
  return near ? sp_rne_near_f32_i32(v) : sp_rne_f32_i32(v);
}
/* z + v rounded to nearest even, on its way to a store that saturates to bytes: clipped to [lo, hi]
 * where those, literals, are not the limits of int32. v is not NaN. `fits`, a literal, says what is known
 * of it either way: 1 that it is at most 2^29, 2 at most 2^22, 3 less than 2^15 even with z. */
SP_INLINE sp_i32 sp_code_f32_i32(sp_f32 v, int32_t z, int32_t lo, int32_t hi, int fits) {
  const float least = (float)(lo < -32768 ? -32768 : lo) - (float)z;
  const float most = (float)(hi > 32767 ? 32767 : hi) - (float)z;
  if (!fits || lo > INT32_MIN) v = sp_maxq_f32(sp_set1_f32(least), v);
  if (!fits || hi < INT32_MAX) v = sp_minq_f32(sp_set1_f32(most), v);
  const int near = fits != 1 || (lo > INT32_MIN && hi < INT32_MAX);
  return sp_add_i32(near ? sp_rne_near_f32_i32(v) : sp_rne_f32_i32(v), sp_set1_i32(z));
}
#endif

#ifndef SP_ROUNDS_SHIFTS
/* v shifted right by n, a literal of at least 1, halves up; v + 2^(n - 1) fits. */
SP_INLINE sp_i32 sp_rshr_n_i32(sp_i32 v, int n) {
  return sp_shr_i32(sp_add_i32(v, sp_set1_i32(1 << (n - 1))), n);
}
#endif

#ifndef SP_SHORTENS
/* v, which 16 bits hold: where the header of an instruction set says so, stores may count on it. */
SP_INLINE sp_i32 sp_short_i32(sp_i32 v) { return v; }
/* z + v / 2^n, halves up, on its way to a store that saturates to bytes, for 16 < n < 24 and z the zero
 * point of such; `fits` says that v + (z + 1/2) * 2^n cannot leave int32. */
SP_INLINE sp_i32 sp_code_rshr_i32(sp_i32 v, int n, int32_t z, int fits) {
  (void)fits;
  return sp_add_i32(sp_rshr_n_i32(v, n), sp_set1_i32(z));
}
#endif

#endif
