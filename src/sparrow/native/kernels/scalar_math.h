/* Scalar arithmetic with ONNX meaning for what has no vector form: elementary functions of float64,
 * integer division and powers, conversions. C99 without libm; on targets without 64-bit division
 * the compiler's own run-time support does that. Include after an ISA header.
 *
 * The bound beside each float64 function is the largest error in units in the last place found by
 * tests/numerics/test_math.py. Special values as in numpy. */
#ifndef SP_SCALAR_MATH_H
#define SP_SCALAR_MATH_H

#include "../base.h"

SP_INLINE uint64_t sp_bits_f64(double x) {
  union {
    double f;
    uint64_t u;
  } b;
  b.f = x;
  return b.u;
}
SP_INLINE double sp_from_bits_f64(uint64_t u) {
  union {
    double f;
    uint64_t u;
  } b;
  b.u = u;
  return b.f;
}
SP_INLINE double sp_inf_f64(void) { return sp_from_bits_f64((uint64_t)0x7ff << 52); }
SP_INLINE double sp_nan_f64(void) { return sp_from_bits_f64((uint64_t)0xfff << 51); }

SP_INLINE double sp_abs_f64(double x) {
  return sp_from_bits_f64(sp_bits_f64(x) & ~((uint64_t)1 << 63));
}
SP_INLINE double sp_copysign_f64(double mag, double sgn) {
  return sp_from_bits_f64(sp_bits_f64(sp_abs_f64(mag)) | (sp_bits_f64(sgn) & ((uint64_t)1 << 63)));
}
SP_INLINE double sp_sign_f64(double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : x == 0 ? 0.0 : x; }

/* From 2^52 on every double is an integer; the comparison is false for NaN, which is returned. */
SP_INLINE double sp_round_f64(double x) {
  const double a = sp_abs_f64(x);
  return a < 4503599627370496.0 ? sp_copysign_f64((a + 4503599627370496.0) - 4503599627370496.0, x)
                                : x;
}
SP_INLINE double sp_trunc_f64(double x) {
  return sp_abs_f64(x) < 4503599627370496.0 ? sp_copysign_f64((double)(int64_t)x, x) : x;
}
SP_INLINE double sp_floor_f64(double x) {
  const double t = sp_trunc_f64(x);
  return t > x ? t - 1.0 : t;
}
SP_INLINE double sp_ceil_f64(double x) {
  const double t = sp_trunc_f64(x);
  return t < x ? sp_copysign_f64(t + 1.0, x) : t;
}

/* c[0] + c[1] z + ... + c[n-1] z^(n-1) */
SP_INLINE double sp_poly_f64(double z, const double *c, int n) {
  double p = c[n - 1];
  int i;
  for (i = n - 2; i >= 0; --i) p = p * z + c[i];
  return p;
}

/* 2^n for -1022 <= n <= 1023; v 2^n for |n| <= 2000, rounded once. */
SP_INLINE double sp_pow2i_f64(int n) {
  return sp_from_bits_f64((uint64_t)(uint32_t)(n + 1023) << 52);
}
SP_INLINE double sp_scale_f64(double v, int n) {
  const int h = n >= 0 ? n / 2 : -((1 - n) / 2);
  return v * sp_pow2i_f64(h) * sp_pow2i_f64(n - h);
}

/* The upper 26 significant bits: products of two such values are exact. */
SP_INLINE double sp_upper_f64(double x) {
  return sp_from_bits_f64(sp_bits_f64(x) & ~(uint64_t)0x7ffffff);
}

/* 0.51 ULP. Newton for 1/sqrt on [1, 4), then one step from the exact remainder. */
SP_OUTLINE double sp_sqrt_f64(double x) {
  int e = 0, i;
  double m, y, s, h, l;
  uint64_t b;
  if (x != x || x == 0.0 || x == sp_inf_f64()) return x;
  if (x < 0.0) return sp_nan_f64();
  if (x < 2.2250738585072014e-308) {
    x *= 18014398509481984.0;
    e = -54;
  }
  b = sp_bits_f64(x);
  e += (int)(b >> 52) - 1023;
  m = sp_from_bits_f64((b & (((uint64_t)1 << 52) - 1)) | (uint64_t)(uint32_t)(1023 + (e & 1))
                                                             << 52);
  y = sp_from_bits_f64(0x5fe6eb50c7b537a9u - (sp_bits_f64(m) >> 1));
  for (i = 0; i < 4; ++i) y = y * (1.5 - 0.5 * m * y * y);
  s = m * y;
  h = sp_upper_f64(s);
  l = s - h;
  s += (((m - h * h) - 2.0 * h * l) - l * l) * 0.5 * y;
  return s * sp_pow2i_f64((e - (e & 1)) / 2);
}

/* (e^r - 1 - r) / r^2 on |r| <= ln(2)/2; 2^-58 of e^r */
SP_CONST double sp_exp_c64[10] = {
    0.50000000000000122,    0.16666666666666699,    0.041666666666515417,   0.0083333333333072083,
    0.0013888888947016537,  0.00019841269917380893, 2.4801489941666331e-05, 2.7557216301061197e-06,
    2.7631280506492224e-07, 2.5117861548537302e-08};

/* n and e^r - 1 with x = n ln 2 + r; |x| < 2^20 */
SP_INLINE int sp_exp_split_f64(double x, double *m) {
  const double n = sp_round_f64(x * 1.4426950408889634);
  const double r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10;
  *m = r + r * r * sp_poly_f64(r, sp_exp_c64, 10);
  return (int)n;
}

/* e^x 2^k, |k| <= 1 */
SP_OUTLINE double sp_exp_scaled_f64(double x, int k) {
  double m;
  int n;
  if (x != x) return x;
  n = sp_exp_split_f64(x < -746.0 ? -746.0 : x > 711.0 ? 711.0 : x, &m);
  return sp_scale_f64(1.0 + m, n + k);
}

/* 1.1 ULP */
SP_INLINE double sp_exp_f64(double x) { return sp_exp_scaled_f64(x, 0); }

/* 1.9 ULP */
SP_OUTLINE double sp_expm1_f64(double x) {
  double m, s;
  int n;
  if (x != x) return x;
  n = sp_exp_split_f64(x < -40.0 ? -40.0 : x > 710.0 ? 710.0 : x, &m);
  if (n == 0) return sp_copysign_f64(m, x);
  s = sp_pow2i_f64(n - 1);
  m = s * m + (s - 0.5); /* half the result: 2^1024 is no double */
  return m + m;
}

/* (log(1 + f) - f + f^2/2) + lo for f = m - 1, m in [sqrt 1/2, sqrt 2], by the series of
 * 2 atanh(s), s = f / (2 + f); 2^-65 */
SP_INLINE double sp_log_tail_f64(double f) {
  static const double c[8] = {0.66666666666666663, 0.40000000000006258, 0.28571428569082807,
                              0.22222222647260151, 0.18181775628380567, 0.15387092384333845,
                              0.13250081356629087, 0.13251664516224293};
  const double s = f / (2.0 + f);
  const double z = s * s;
  return s * (0.5 * f * f + z * sp_poly_f64(z, c, 8));
}

/* e and f with x = (1 + f) 2^e; positive finite x */
SP_INLINE int sp_log_split_f64(double x, double *f) {
  int e = 0;
  uint64_t b;
  if (x < 2.2250738585072014e-308) {
    x *= 18014398509481984.0;
    e = -54;
  }
  b = sp_bits_f64(x) - 0x3fe6a09e667f3bcdu;
  e += (int)(uint32_t)((b >> 52) + 1024) % 4096 - 1024;
  *f = sp_from_bits_f64((b & (((uint64_t)1 << 52) - 1)) + 0x3fe6a09e667f3bcdu) - 1.0;
  return e;
}

/* The logarithm of numbers that are not positive and finite. */
SP_INLINE double sp_log_edge_f64(double x) {
  return x == 0.0 ? -sp_inf_f64() : x < 0.0 ? sp_nan_f64() : x;
}

/* log((1 + f) 2^e) + c for a small correction c */
SP_INLINE double sp_log_sum_f64(double f, double e, double c) {
  const double h = 0.5 * f * f;
  return e * 0.6931471803691238 -
         ((h - (sp_log_tail_f64(f) + (e * 1.9082149292705877e-10 + c))) - f);
}

/* 0.9 ULP */
SP_OUTLINE double sp_log_f64(double x) {
  double f;
  int e;
  if (!(x > 0.0 && x < sp_inf_f64())) return sp_log_edge_f64(x);
  e = sp_log_split_f64(x, &f);
  return sp_log_sum_f64(f, (double)e, 0.0);
}

/* 0.9 ULP */
SP_OUTLINE double sp_log1p_f64(double x) {
  const double u = 1.0 + x;
  double f, c;
  int e;
  if (sp_abs_f64(x) < 1e-20) return x;
  if (!(u > 0.0 && u < sp_inf_f64())) return sp_log_edge_f64(u);
  if (x > -0.29 && x < 0.41) return sp_log_sum_f64(x, 0.0, 0.0);
  c = x > 1.0 ? 1.0 - (u - x) : x - (u - 1.0); /* u + c == 1 + x */
  e = sp_log_split_f64(u, &f);
  return sp_log_sum_f64(f, (double)e, c / u);
}

/* log2(x) for positive finite x as *hi + *lo, *hi of 26 bits; relative error about 2^-64. The same
 * steps as sp_log2_pair_f32 in math.h, with pieces of 26 bits. */
SP_INLINE void sp_log2_pair_f64(double x, double *hi, double *lo) {
  static const double c[9] = {0.20000000000000001,  0.14285714285714188,  0.11111111111145328,
                              0.09090909084619575,  0.076923083772885523, 0.066666201784968904,
                              0.058843382271543135, 0.052114278687519028, 0.055068395850391201};
  double f, g, gl, gh, rcp, sh, sl, zh, zl, z, p, q, th, tl, uh, ul, a, e;
  e = (double)sp_log_split_f64(x, &f);
  g = f + 2.0;
  gl = f - (g - 2.0);
  gh = sp_upper_f64(g);
  rcp = 1.0 / g;
  sh = sp_upper_f64(f * rcp);
  sl = (((f - sh * gh) - sh * (g - gh)) - sh * gl) * rcp;
  z = sh * sh;
  zh = sp_upper_f64(z);
  zl = (z - zh) + (sh + sh + sl) * sl;
  z = zh + zl;
  p = z * sp_poly_f64(z, c, 9) + 4.967053731282552e-09;
  tl = zh * p + zl * (p + 0.3333333283662796);
  q = zh * 0.3333333283662796;
  th = sp_upper_f64(q + tl);
  tl = (q - th) + tl;
  ul = sh * tl + sl * (th + tl);
  a = sh * th;
  uh = sh + a;
  ul = (((sh - uh) + a) + sl) + ul;
  a = sp_upper_f64(uh + ul);
  ul = (uh - a) + ul;
  ul = a * 3.851925982253235e-08 + ul * 2.8853900817779268;
  uh = a * 2.885390043258667;
  a = e + uh;
  ul = (uh + (e - a)) + ul;
  *hi = sp_upper_f64(a + ul);
  *lo = (a - *hi) + ul;
}

/* 0.6 ULP */
SP_OUTLINE double sp_log2_f64(double x) {
  double hi, lo;
  if (!(x > 0.0 && x < sp_inf_f64())) return sp_log_edge_f64(x);
  sp_log2_pair_f64(x, &hi, &lo);
  return hi + lo;
}

/* 1.4 ULP; all special cases of IEEE 754 pow. */
SP_OUTLINE double sp_pow_f64(double x, double y) {
  /* (2^r - 1) / r on |r| <= 1/2; 2^-64 */
  static const double c[12] = {
      0.69314718055994529,    0.24022650695910072,    0.055504108664821701,
      0.009618129107628496,   0.0013333558146389867,  0.00015403530393340534,
      1.525273385682267e-05,  1.3215486833520221e-06, 1.0178050949538563e-07,
      7.0548880792146437e-09, 4.4567151559408789e-10, 2.5742044851764023e-11};
  const double inf = sp_inf_f64();
  const double a = sp_abs_f64(x);
  double hi, lo, yc, yh, p, q, n, r, s = 0.0;
  int odd;
  if (y == 0.0 || x == 1.0) return 1.0;
  if (x != x || y != y) return sp_nan_f64();
  odd = sp_abs_f64(y) < 9007199254740992.0 && sp_trunc_f64(y) == y &&
        sp_trunc_f64(0.5 * y) != 0.5 * y;
  if (a == 0.0 || a == inf) {
    s = (a == 0.0) == (y < 0.0) ? inf : 0.0;
    return odd ? sp_copysign_f64(s, x) : s;
  }
  if (x < 0.0 && sp_trunc_f64(y) != y) return sp_nan_f64();
  sp_log2_pair_f64(a, &hi, &lo);
  yc = y < -1e19 ? -1e19 : y > 1e19 ? 1e19 : y;
  yh = sp_upper_f64(yc);
  p = yh * hi;
  q = (yc - yh) * hi + yc * lo;
  if (p > 1100.0 || p < -1100.0) {
    p = p < 0.0 ? -1100.0 : 1100.0;
    q = 0.0;
  }
  n = sp_round_f64(p + q);
  r = (p - n) + q;
  s = sp_scale_f64(1.0 + r * sp_poly_f64(r, c, 12), (int)n);
  return odd ? sp_copysign_f64(s, x) : s;
}

/* 2/pi after the binary point, below 64 zero bits. */
SP_CONST uint32_t sp_two_over_pi_64[42] = {
    0u,          0u,          0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u,
    0x3c439041u, 0xfe5163abu, 0xdebbc561u, 0xb7246e3au, 0x424dd2e0u, 0x06492eeau, 0x09d1921cu,
    0xfe1deb1cu, 0xb129a73eu, 0xe88235f5u, 0x2ebb4484u, 0xe99c7026u, 0xb45f7e41u, 0x3991d639u,
    0x835339f4u, 0x9c845f8bu, 0xbdf9283bu, 0x1ff897ffu, 0xde05980fu, 0xef2f118bu, 0x5a0a6d1fu,
    0x6d367ecfu, 0x27cb09b7u, 0x4f463f66u, 0x9e5fea2du, 0x7527bac7u, 0xebe5f17bu, 0x3d0739f7u,
    0x8a5292eau, 0x6bfb5fb1u, 0x1f8d5d08u, 0x56033046u, 0xfc7b6babu, 0xf0cfbc20u, 0x9af4361du};

/* Quadrant (mod 4) and r = x - quadrant pi/2 for finite |x| >= 2^20, as sp_reduce_big_f32 in math.h
 * with a window of 192 bits: 53 are used up by x, and no double is nearer than 2^-62 to a multiple
 * of pi/2. */
SP_OUTLINE int sp_reduce_big_f64(double x, double *r) {
  const uint64_t b = sp_bits_f64(x);
  const uint64_t m = (b & (((uint64_t)1 << 52) - 1)) | (uint64_t)1 << 52;
  const uint32_t at = (uint32_t)(b >> 52 & 0x7ff) - 1013u;
  const uint32_t *t = sp_two_over_pi_64 + at / 32u;
  uint32_t w[6], v[6] = {0, 0, 0, 0, 0, 0}; /* most significant word first */
  uint64_t carry;
  double f = 0.0;
  int i, k, q, neg;
  for (i = 0; i < 6; ++i)
    w[i] = (uint32_t)((((uint64_t)t[i] << 32 | t[i + 1]) << (at % 32u)) >> 32);
  for (k = 0; k < 2; ++k) {
    const uint64_t part = k ? m >> 32 : m & 0xffffffffu;
    carry = 0;
    for (i = 5; i - k >= 0; --i) {
      carry += part * w[i] + v[i - k];
      v[i - k] = (uint32_t)carry;
      carry >>= 32;
    }
  }
  q = (int)((v[0] >> 30) + (v[0] >> 29 & 1u));
  neg = (int)(v[0] >> 29 & 1u);
  v[0] &= 0x3fffffffu;
  if (neg) { /* v - 2^190 */
    carry = 1;
    for (i = 5; i >= 0; --i) {
      carry += (uint32_t)~v[i];
      v[i] = (uint32_t)carry;
      carry >>= 32;
    }
    v[0] &= 0x3fffffffu;
  }
  for (i = 5; i >= 0; --i) f = f * 2.3283064365386963e-10 + (double)v[i];
  f *= 1.4629180792671596e-9; /* pi/2 2^-30 */
  if (neg) f = -f;
  *r = b >> 63 ? -f : f;
  return b >> 63 ? -q : q;
}

/* Quadrant (mod 4) and r, |r| <= pi/4; finite x. Up to 2^20 by pieces of pi/2 of 33 bits, whose
 * products with the quadrant are exact. */
SP_INLINE int sp_reduce_pio2_f64(double x, double *r) {
  const double n = sp_round_f64(x * 0.6366197723675814);
  double a, hi, lo;
  if (sp_abs_f64(x) >= 1048576.0) return sp_reduce_big_f64(x, r);
  a = x - n * 1.5707963267341256;
  hi = a - n * 6.077100506303966e-11;
  lo = (a - hi) - n * 6.077100506303966e-11;
  lo = (lo - n * 2.0222662487111665e-21) - n * 8.4784276603689e-32;
  *r = n == 0.0 ? x : hi + lo;
  return (int)n;
}

/* sin(r + q pi/2), |r| <= pi/4; 2^-58 */
SP_INLINE double sp_sin_quadrant_f64(int q, double r) {
  static const double s[6] = {-0.16666666666666632,    0.0083333333333224131,
                              -0.0001984126982980784,  2.7557313691927935e-06,
                              -2.5050758116676803e-08, 1.5896795727029331e-10};
  static const double c[6] = {0.041666666666666602,   -0.0013888888888874125,
                              2.4801587289482154e-05, -2.7557314352323448e-07,
                              2.0875723271948013e-09, -1.1359647736545903e-11};
  const double z = r * r;
  const double h = 0.5 * z;
  const double t = 1.0 - h;
  const double v = (q & 1) ? t + (((1.0 - t) - h) + z * z * sp_poly_f64(z, c, 6))
                           : sp_copysign_f64(r + r * z * sp_poly_f64(z, s, 6), r);
  return (q & 2) ? -v : v;
}

/* 2.6 ULP; every double. */
SP_OUTLINE double sp_sin_f64(double x) {
  double r;
  int q;
  if (x - x != 0.0) return sp_nan_f64();
  q = sp_reduce_pio2_f64(x, &r);
  return sp_sin_quadrant_f64(q, r);
}

/* 2.6 ULP; every double. */
SP_OUTLINE double sp_cos_f64(double x) {
  double r;
  int q;
  if (x - x != 0.0) return sp_nan_f64();
  q = sp_reduce_pio2_f64(x, &r);
  return sp_sin_quadrant_f64(q + 1, r);
}

/* 3.9 ULP; every double. */
SP_OUTLINE double sp_tan_f64(double x) {
  double r, s, c;
  int q;
  if (x - x != 0.0) return sp_nan_f64();
  q = sp_reduce_pio2_f64(x, &r);
  s = sp_sin_quadrant_f64(0, r);
  c = sp_sin_quadrant_f64(1, r);
  return (q & 1) ? -c / s : s / c;
}

/* 1.6 ULP */
SP_OUTLINE double sp_atan_f64(double x) {
  /* (atan(t) - t) / t^3 on |t| <= tan(pi/8); 2^-64 */
  static const double c[12] = {-0.33333333333333326,  0.19999999999997689,   -0.14285714285390494,
                               0.11111111088332776,   -0.090909081501223302, 0.076922828852070399,
                               -0.066662286271832155, 0.058770401201273331,  -0.05218522419142179,
                               0.045040297526027791,  -0.033485649252510775, 0.015206531232980354};
  double a = sp_abs_f64(x), hi = 0.0, lo = 0.0, z;
  if (x != x) return x;
  if (a > 2.414213562373095) {
    hi = 1.5707963267948966;
    lo = 6.123233995736766e-17;
    a = -1.0 / a;
  } else if (a > 0.41421356237309503) {
    hi = 0.7853981633974483;
    lo = 3.061616997868383e-17;
    a = (a - 1.0) / (a + 1.0);
  }
  z = a * a;
  return sp_copysign_f64(hi + (a + (a * z * sp_poly_f64(z, c, 12) + lo)), x);
}

/* (asin(t) - t) / t, z = t^2 <= 1/4; 2^-59 */
SP_INLINE double sp_asin_poly_f64(double z) {
  static const double c[13] = {0.16666666666666763,  0.074999999999702444, 0.044642857175137975,
                               0.030381942682762706, 0.022372215685216901, 0.017351599629588599,
                               0.013980967166170262, 0.011397727829832059, 0.010786806733780617,
                               0.003681964113529656, 0.021766191475992284, -0.021081199837883119,
                               0.032679393692465759};
  return z * sp_poly_f64(z, c, 13);
}

/* 2.1 ULP */
SP_OUTLINE double sp_asin_f64(double x) {
  const double a = sp_abs_f64(x);
  double h, t;
  if (!(a <= 1.0)) return sp_nan_f64();
  if (a <= 0.5) return x + x * sp_asin_poly_f64(x * x);
  h = 0.5 * (1.0 - a);
  t = sp_sqrt_f64(h);
  t = (1.5707963267948966 - 2.0 * t) - (2.0 * t * sp_asin_poly_f64(h) - 6.123233995736766e-17);
  return sp_copysign_f64(t, x);
}

/* 1.2 ULP */
SP_OUTLINE double sp_acos_f64(double x) {
  const double a = sp_abs_f64(x);
  double h, t;
  if (!(a <= 1.0)) return sp_nan_f64();
  if (a <= 0.5)
    return 1.5707963267948966 - (x + (x * sp_asin_poly_f64(x * x) - 6.123233995736766e-17));
  h = 0.5 * (1.0 - a);
  t = sp_sqrt_f64(h);
  h = t * sp_asin_poly_f64(h);
  return x > 0.0 ? 2.0 * (t + h) : 3.141592653589793 - 2.0 * (t + (h - 6.123233995736766e-17));
}

/* 2.5 ULP */
SP_OUTLINE double sp_sinh_f64(double x) {
  const double a = sp_abs_f64(x);
  double t;
  if (a < 1.0) {
    t = sp_expm1_f64(a);
    t = 0.5 * (t + t / (t + 1.0));
  } else {
    t = sp_exp_scaled_f64(a, -1);
    t -= 0.25 / t;
  }
  return sp_copysign_f64(t, x);
}

/* 1.6 ULP */
SP_OUTLINE double sp_cosh_f64(double x) {
  const double t = sp_exp_scaled_f64(sp_abs_f64(x), -1);
  return t + 0.25 / t;
}

/* 2.6 ULP */
SP_OUTLINE double sp_tanh_f64(double x) {
  const double a = sp_abs_f64(x);
  double t;
  if (x != x) return x;
  t = a > 22.0 ? 1e30 : sp_expm1_f64(a + a);
  t = a < 0.5 ? t / (t + 2.0) : 1.0 - 2.0 / (t + 2.0);
  return sp_copysign_f64(t, x);
}

/* 1.8 ULP */
SP_OUTLINE double sp_asinh_f64(double x) {
  const double a = sp_abs_f64(x);
  const double r = a > 268435456.0 ? sp_log_f64(a) + 0.6931471805599453
                                   : sp_log1p_f64(a + a * a / (1.0 + sp_sqrt_f64(1.0 + a * a)));
  return sp_copysign_f64(r, x);
}

/* 1.9 ULP */
SP_OUTLINE double sp_acosh_f64(double x) {
  const double t = x - 1.0;
  if (t < 0.0) return sp_nan_f64();
  if (x > 268435456.0) return sp_log_f64(x) + 0.6931471805599453;
  return sp_log1p_f64(t + sp_sqrt_f64(t * (t + 2.0)));
}

/* 1.8 ULP */
SP_OUTLINE double sp_atanh_f64(double x) {
  const double a = sp_abs_f64(x);
  return sp_copysign_f64(0.5 * sp_log1p_f64((a + a) / (1.0 - a)), x);
}

/* 1.2 ULP */
SP_OUTLINE double sp_erf_f64(double x) {
  /* erf(a) / a - 1 in a^2 up to 1, then -log(1 - erf(a)) / a up to 2.3 and up to 6 */
  static const double near[13] = {
      0.12837916709551259,     -0.37612638903183748,   0.11283791670954854,
      -0.026866170645072331,   0.005223977624775146,   -0.00085483269784005877,
      0.00012055331023995434,  -1.492559318666096e-05, 1.6460967525703493e-06,
      -1.6349967574189849e-07, 1.4657482180782338e-08, -1.1364092511145272e-09,
      5.942541717811766e-11};
  static const double mid[15] = {
      1.1283790016265709,      0.63662143392163062,     0.10276491739368311,
      -0.019106806010275965,   -0.00025039368184910144, 0.0017516677234974481,
      -0.00064321955718845629, 6.0226921924890069e-05,  5.3037634104294206e-05,
      -3.3089584179270863e-05, 1.0712841772011496e-05,  -2.2719252160096649e-06,
      3.1867271071721437e-07,  -2.7109965161335531e-08, 1.0660281826063256e-09};
  static const double far[12] = {
      1.1287653168865532,      0.63498630279402868,     0.1059131119097642,
      -0.022723360041130871,   0.0024595985786309586,   0.00042267151587711588,
      -0.00027657973739826419, 7.0484636015598625e-05,  -1.1095001884285008e-05,
      1.1168309525306747e-06,  -6.6411775412426646e-08, 1.7848171375893657e-09};
  const double a = sp_abs_f64(x);
  double t;
  if (x != x) return x;
  if (a < 1.0)
    t = a + a * sp_poly_f64(a * a, near, 13);
  else if (a < 6.0)
    t = 1.0 - sp_exp_f64(-a * (a < 2.3 ? sp_poly_f64(a, mid, 15) : sp_poly_f64(a, far, 12)));
  else
    t = 1.0;
  return sp_copysign_f64(t, x);
}

/* 2.4 ULP */
SP_INLINE double sp_sigmoid_f64(double x) {
  const double e = sp_exp_f64(-sp_abs_f64(x));
  return (x < 0.0 ? e : 1.0) / (1.0 + e);
}

/* 1.8 ULP */
SP_INLINE double sp_softplus_f64(double x) {
  return (x < 0.0 ? 0.0 : x) + sp_log1p_f64(sp_exp_f64(-sp_abs_f64(x)));
}

/* Absolute error of the three: up to 4 |x| 2^-53. */
SP_INLINE double sp_gelu_f64(double x) {
  return 0.5 * x * (1.0 + sp_erf_f64(x * 0.7071067811865476));
}
SP_INLINE double sp_gelu_tanh_f64(double x) {
  return 0.5 * x * (1.0 + sp_tanh_f64(x * (0.7978845608028654 + 0.035677408136300125 * x * x)));
}
SP_INLINE double sp_hardswish_f64(double x) {
  const double t = x * (1.0 / 6.0) + 0.5;
  return x * (t < 0.0 ? 0.0 : t > 1.0 ? 1.0 : t);
}
SP_INLINE double sp_silu_f64(double x) { return x * sp_sigmoid_f64(x); }

/* a - trunc(a / b) b, exact, with the sign of a; NaN for b = 0 or infinite a. Subtracts bit by bit,
 * so that no wide division is needed. */
SP_OUTLINE double sp_fmod_f64(double a, double b) {
  const uint64_t one = (uint64_t)1 << 52;
  uint64_t x = sp_bits_f64(sp_abs_f64(a)), y = sp_bits_f64(sp_abs_f64(b));
  int ex = (int)(x >> 52), ey = (int)(y >> 52);
  if (a != a || b != b || ex == 0x7ff || y == 0) return sp_nan_f64();
  if (x < y) return a;
  x = ex ? (x & (one - 1)) | one : x;
  y = ey ? (y & (one - 1)) | one : y;
  ex += ex == 0;
  ey += ey == 0;
  for (; x < one; --ex) x <<= 1;
  for (; y < one; --ey) y <<= 1;
  for (; ex > ey; --ex) x = (x >= y ? x - y : x) << 1;
  if (x >= y) x -= y;
  if (x == 0) return sp_copysign_f64(0.0, a);
  for (; x < one; --ex) x <<= 1;
  x = ex > 0 ? (x & (one - 1)) | (uint64_t)(uint32_t)ex << 52 : x >> (1 - ex);
  return sp_copysign_f64(sp_from_bits_f64(x), a);
}

/* The remainder with the sign of b, as Python's % and numpy.mod. */
SP_INLINE double sp_mod_f64(double a, double b) {
  const double r = sp_fmod_f64(a, b);
  if (r == 0.0) return sp_copysign_f64(0.0, b);
  return (r < 0.0) != (b < 0.0) ? r + b : r;
}

/* The same for float32 vectors, exact; lane by lane. */
SP_INLINE sp_f32 sp_fmod_f32(sp_f32 a, sp_f32 b) {
  float x[SP_LANES], y[SP_LANES];
  int i;
  sp_store_f32(x, a);
  sp_store_f32(y, b);
  for (i = 0; i < SP_LANES; ++i) x[i] = (float)sp_fmod_f64((double)x[i], (double)y[i]);
  return sp_load_f32(x);
}
SP_INLINE sp_f32 sp_mod_f32(sp_f32 a, sp_f32 b) {
  const sp_f32 zero = sp_zero_f32();
  const sp_f32 r = sp_fmod_f32(a, b);
  const sp_mask other = sp_mask_xor(sp_lt_f32(r, zero), sp_lt_f32(b, zero));
  return sp_select_f32(sp_eq_f32(r, zero), sp_copysign_f32(zero, b),
                       sp_select_f32(other, sp_add_f32(r, b), r));
}

/* Integers: division truncates; division and remainder by zero give 0; INT_MIN / -1 wraps.
 * irem has the sign of a (C), imod the sign of b (Python, numpy.mod). */
SP_INLINE int32_t sp_idiv_i32(int32_t a, int32_t b) {
  return b == 0 ? 0 : b == -1 ? (int32_t)(0u - (uint32_t)a) : a / b;
}
SP_INLINE int64_t sp_idiv_i64(int64_t a, int64_t b) {
  return b == 0 ? 0 : b == -1 ? (int64_t)(0u - (uint64_t)a) : a / b;
}
SP_INLINE uint32_t sp_idiv_u32(uint32_t a, uint32_t b) { return b == 0 ? 0 : a / b; }
SP_INLINE uint64_t sp_idiv_u64(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }
SP_INLINE int32_t sp_irem_i32(int32_t a, int32_t b) { return b == 0 || b == -1 ? 0 : a % b; }
SP_INLINE int64_t sp_irem_i64(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
SP_INLINE uint32_t sp_irem_u32(uint32_t a, uint32_t b) { return b == 0 ? 0 : a % b; }
SP_INLINE uint64_t sp_irem_u64(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }
SP_INLINE int32_t sp_imod_i32(int32_t a, int32_t b) {
  const int32_t r = sp_irem_i32(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
SP_INLINE int64_t sp_imod_i64(int64_t a, int64_t b) {
  const int64_t r = sp_irem_i64(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
SP_INLINE uint32_t sp_imod_u32(uint32_t a, uint32_t b) { return sp_irem_u32(a, b); }
SP_INLINE uint64_t sp_imod_u64(uint64_t a, uint64_t b) { return sp_irem_u64(a, b); }

/* a^n by squaring, saturating to the type; n < 0 gives the truncated real result, 0^negative the
 * largest value. */
SP_OUTLINE uint64_t sp_ipow_u64(uint64_t a, uint64_t n) {
  uint64_t r = 1;
  int over = 0; /* a has left the type */
  for (; n != 0; n >>= 1) {
    if (n & 1u) {
      if (over || (a != 0 && r > UINT64_MAX / a)) return UINT64_MAX;
      r *= a;
    }
    over = over || (a != 0 && a > UINT64_MAX / a);
    a *= a;
  }
  return r;
}
SP_INLINE uint32_t sp_ipow_u32(uint32_t a, uint32_t n) {
  const uint64_t r = sp_ipow_u64(a, n);
  return r > UINT32_MAX ? UINT32_MAX : (uint32_t)r;
}
SP_OUTLINE int64_t sp_ipow_i64(int64_t a, int64_t n) {
  const int neg = a < 0 && (n & 1) != 0;
  const uint64_t top = (uint64_t)INT64_MAX + (neg ? 1u : 0u);
  uint64_t r;
  if (n < 0) return a == 0 ? INT64_MAX : a == 1 || a == -1 ? (neg ? -1 : 1) : 0;
  r = sp_ipow_u64(a < 0 ? 0u - (uint64_t)a : (uint64_t)a, (uint64_t)n);
  r = r > top ? top : r;
  return (int64_t)(neg ? 0u - r : r);
}
SP_INLINE int32_t sp_ipow_i32(int32_t a, int32_t n) {
  const int64_t r = sp_ipow_i64(a, n);
  return r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : (int32_t)r;
}

/* Float to integer: truncates, saturates (ONNX leaves values out of range undefined), NaN gives 0.
 * A float32 argument is exact as a double. */
SP_INLINE int64_t sp_f64_to_i64(double x) {
  if (x != x) return 0;
  return x >= 9223372036854775808.0   ? INT64_MAX
         : x < -9223372036854775808.0 ? INT64_MIN
                                      : (int64_t)x;
}
SP_INLINE uint64_t sp_f64_to_u64(double x) {
  if (!(x > 0.0)) return 0;
  return x >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)x;
}
SP_INLINE int32_t sp_f64_to_i32(double x) {
  if (x != x) return 0;
  return x >= 2147483647.0 ? INT32_MAX : x <= -2147483648.0 ? INT32_MIN : (int32_t)x;
}
SP_INLINE uint32_t sp_f64_to_u32(double x) {
  if (!(x > 0.0)) return 0;
  return x >= 4294967295.0 ? UINT32_MAX : (uint32_t)x;
}
SP_INLINE int16_t sp_f64_to_i16(double x) {
  if (x != x) return 0;
  return (int16_t)(x >= 32767.0 ? 32767 : x <= -32768.0 ? -32768 : (int)x);
}
SP_INLINE uint16_t sp_f64_to_u16(double x) {
  return (uint16_t)(!(x > 0.0) ? 0 : x >= 65535.0 ? 65535 : (int)x);
}
SP_INLINE int8_t sp_f64_to_i8(double x) {
  if (x != x) return 0;
  return (int8_t)(x >= 127.0 ? 127 : x <= -128.0 ? -128 : (int)x);
}
SP_INLINE uint8_t sp_f64_to_u8(double x) {
  return (uint8_t)(!(x > 0.0) ? 0 : x >= 255.0 ? 255 : (int)x);
}
SP_INLINE int32_t sp_f32_to_i32(float x) {
  if (x != x) return 0;
  return x >= 2147483648.0f ? INT32_MAX : x <= -2147483648.0f ? INT32_MIN : (int32_t)x;
}
SP_INLINE int16_t sp_f32_to_i16(float x) {
  if (x != x) return 0;
  return (int16_t)(x >= 32767.0f ? 32767 : x <= -32768.0f ? -32768 : (int)x);
}
SP_INLINE uint16_t sp_f32_to_u16(float x) {
  return (uint16_t)(!(x > 0.0f) ? 0 : x >= 65535.0f ? 65535 : (int)x);
}
SP_INLINE int8_t sp_f32_to_i8(float x) {
  if (x != x) return 0;
  return (int8_t)(x >= 127.0f ? 127 : x <= -128.0f ? -128 : (int)x);
}
SP_INLINE uint8_t sp_f32_to_u8(float x) {
  return (uint8_t)(!(x > 0.0f) ? 0 : x >= 255.0f ? 255 : (int)x);
}

#endif
