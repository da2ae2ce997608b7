/* Conversions of one binary16 in plain C, where no instruction does it. */
#ifndef SP_HALF_H
#define SP_HALF_H

#include "../base.h"

typedef union sp_float_bits {
  float number;
  uint32_t bits;
} sp_float_bits;

/* IEEE binary16 to binary32, exact. */
SP_INLINE float sp_half_to_float(uint16_t h) {
  const uint32_t s = (uint32_t)(h & 0x8000u) << 16;
  const uint32_t e = (h >> 10) & 0x1fu;
  const uint32_t m = h & 0x3ffu;
  sp_float_bits u;
  if (e == 0) { /* m * 2^-24, exact in binary32 */
    const float f = (float)m * 5.9604644775390625e-8f;
    return s ? -f : f;
  }
  u.bits = e == 31 ? s | 0x7f800000u | m << 13 | (m ? 0x400000u : 0u)
                   : s | (e + 112u) << 23 | m << 13;
  return u.number;
}

/* IEEE binary32 to binary16, to nearest even. */
SP_INLINE uint16_t sp_float_to_half(float f) {
  sp_float_bits u;
  uint32_t s, a, r;
  u.number = f;
  s = (u.bits >> 16) & 0x8000u;
  a = u.bits & 0x7fffffffu;
  if (a > 0x7f800000u) {
    r = 0x7e00u | ((a >> 13) & 0x3ffu);
  } else if (a >= 0x477ff000u) { /* at least 65520: rounds to infinity */
    r = 0x7c00u;
  } else if (a >= 0x38800000u) { /* normal half; a carry out of the mantissa is the next exponent */
    r = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  } else if (a > 0x33000000u) { /* subnormal half: units of 2^-24, above half a unit */
    const uint32_t k = 126u - (a >> 23);
    const uint32_t m = (a & 0x7fffffu) | 0x800000u;
    const uint32_t rest = m & ((1u << k) - 1u);
    const uint32_t tie = 1u << (k - 1u);
    r = m >> k;
    r += (rest > tie || (rest == tie && (r & 1u))) ? 1u : 0u;
  } else {
    r = 0;
  }
  return (uint16_t)(s | r);
}

/* The first n of four, and zeros. */
SP_INLINE void sp_halves_to_floats(const uint16_t *p, float *to, int n) {
  SP_UNROLL
  for (int i = 0; i < 4; ++i) to[i] = i < n ? sp_half_to_float(p[i]) : 0.0f;
}
SP_INLINE void sp_floats_to_halves(const float *from, uint16_t *p, int n) {
  SP_UNROLL
  for (int i = 0; i < 4; ++i)
    if (i < n) p[i] = sp_float_to_half(from[i]);
}

#endif
