/* Elementary functions of float32 vectors, written once over the vocabulary.
 *
 * The bound beside each function is the largest error in units in the last place found by
 * tests/numerics/test_math.py over all exponents, on every instruction set, against a float64
 * reference. Zeros, infinities, NaN and subnormals give what numpy gives unless stated.
 * Polynomials are minimax fits of our own; "2^-n" is their relative error before rounding.
 *
 * Whether a multiply and an add are fused may differ between instruction sets and compilers, so
 * last bits may differ too. Where a wrong contraction could hurt (argument reductions, pow), one
 * factor is short enough for the product to be exact, and then fusing changes nothing. */
#ifndef SP_MATH_H
#define SP_MATH_H

#include "../base.h"

SP_INLINE sp_f32 sp_fmak_f32(sp_f32 a, sp_f32 b, float k) {
  return sp_fma_f32(a, b, sp_set1_f32(k));
}
SP_INLINE sp_f32 sp_mulk_f32(sp_f32 a, float k) { return sp_mul_f32(a, sp_set1_f32(k)); }
SP_INLINE sp_f32 sp_addk_f32(sp_f32 a, float k) { return sp_add_f32(a, sp_set1_f32(k)); }

/* lo <= v <= hi; NaN stays NaN because sp_maxq/minq return their second operand for it. */
SP_INLINE sp_f32 sp_clamp_f32(sp_f32 v, float lo, float hi) {
  return sp_minq_f32(sp_set1_f32(hi), sp_maxq_f32(sp_set1_f32(lo), v));
}

/* -1, +0 or 1; NaN stays NaN. */
SP_INLINE sp_f32 sp_sign_f32(sp_f32 v) {
  const sp_f32 zero = sp_zero_f32();
  const sp_f32 r = sp_select_f32(sp_eq_f32(v, zero), zero, sp_copysign_f32(sp_set1_f32(1.0f), v));
  return sp_select_f32(sp_isnan_f32(v), v, r);
}

/* 2^n for -126 <= n <= 127. */
SP_INLINE sp_f32 sp_pow2i_f32(sp_i32 n) {
  return sp_from_bits_f32(sp_shl_i32(sp_add_i32(n, sp_set1_i32(127)), 23));
}

#ifndef SP_SCALES /* where no instruction does */
/* v * 2^n for |n| <= 250, rounded once: halving n keeps both factors normal. */
SP_INLINE sp_f32 sp_scale_f32(sp_f32 v, sp_i32 n) {
  const sp_i32 h = sp_shr_i32(n, 1);
  return sp_mul_f32(sp_mul_f32(v, sp_pow2i_f32(h)), sp_pow2i_f32(sp_sub_i32(n, h)));
}
#endif

/* x - n ln 2. The upper part of ln 2 has 9 bits, so its product with |n| < 2^15 is exact. */
SP_INLINE sp_f32 sp_reduce_ln2_f32(sp_f32 x, sp_f32 n) {
  const sp_f32 r = sp_fnma_f32(n, sp_set1_f32(0.693359375f), x);
  return sp_fma_f32(n, sp_set1_f32(2.12194440e-4f), r);
}

/* n and e^r - 1, |r| <= ln(2)/2, with x = n ln 2 + r. */
SP_INLINE sp_i32 sp_exp_split_f32(sp_f32 x, sp_f32 *m) {
  const sp_i32 n = sp_rne_f32_i32(sp_mulk_f32(x, 1.44269504f));
  const sp_f32 r = sp_reduce_ln2_f32(x, sp_cvt_i32_f32(n));
  const sp_f32 z = sp_mul_f32(r, r);
  /* (e^r - 1 - r) / r^2 by halves, for what waits is the chain of sums; 2^-28.3 of e^r */
  sp_f32 p = sp_fmak_f32(r, sp_set1_f32(8.36867094e-3f), 4.16682623e-2f);
  p = sp_fma_f32(z, sp_set1_f32(1.38209993e-3f), p);
  p = sp_fma_f32(z, p, sp_fmak_f32(r, sp_set1_f32(1.66665211e-1f), 4.9999994e-1f));
  *m = sp_fma_f32(z, p, r);
  return n;
}

/* e^x for x <= 0, as a softmax needs it: no overflow to guard against, and results below 2^-126 are
 * 0. NaN stays NaN. */
SP_INLINE sp_f32 sp_exp_below_f32(sp_f32 x) {
  sp_f32 m;
  const sp_f32 low = sp_set1_f32(-87.33654f);
  const sp_i32 n = sp_exp_split_f32(sp_maxq_f32(low, x), &m);
  const sp_f32 scale = sp_pow2i_f32(n);
  return sp_select_f32(sp_lt_f32(x, low), sp_zero_f32(), sp_fma_f32(m, scale, scale));
}

/* e^x 2^k for a literal k, |k| <= 30. */
SP_INLINE sp_f32 sp_exp_scaled_f32(sp_f32 x, int k) {
  sp_f32 m;
  const sp_i32 n = sp_exp_split_f32(sp_clamp_f32(x, -104.0f, 104.0f), &m);
  return sp_scale_f32(sp_addk_f32(m, 1.0f), sp_add_i32(n, sp_set1_i32(k)));
}

/* 2^-30 e^-x, of x above 66 what it is at 66; where there is a table of 2^(i/16) in fewer operations,
 * and up to 0.3 ULP more. */
SP_INLINE sp_f32 sp_exp_minus_f32(sp_f32 x) {
#ifdef SP_SIXTEENTHS
  /* e^-x = 2^n 2^(i/16) e^r, |r| <= ln(2)/32. Beside 1.5 2^19 the last bit is a sixteenth: the last
   * bits of s are 16 (n - 30) + i, whose power of two is never subnormal or infinite: an addition
   * to the bits of the root makes it. (e^r - 1 - r) / r^2; 2^-29 of e^r */
  const sp_f32 beside = sp_set1_f32(786432.0f - 30.0f), c = sp_clamp_f32(x, -104.0f, 66.0f);
  const sp_f32 s = sp_fma_f32(c, sp_set1_f32(-1.44269504f), beside);
  /* minus r, whose sign the products below take */
  const sp_f32 r = sp_reduce_ln2_f32(c, sp_sub_f32(beside, s));
  const sp_f32 root = sp_exp2_sixteenths_f32(sp_bits_f32(s));
  const sp_f32 p = sp_fmak_f32(r, sp_fmak_f32(r, sp_set1_f32(0.166670385f), -0.500016191f), 1.0f);
  return sp_fnma_f32(sp_mul_f32(root, r), p, root);
#else
  return sp_exp_scaled_f32(sp_neg_f32(x), -30);
#endif
}

/* 1.1 ULP */
SP_INLINE sp_f32 sp_exp_f32(sp_f32 x) { return sp_exp_scaled_f32(x, 0); }

/* 1.7 ULP */
SP_INLINE sp_f32 sp_expm1_f32(sp_f32 x) {
  sp_f32 m, s, t;
  const sp_i32 n = sp_exp_split_f32(sp_clamp_f32(x, -20.0f, 89.0f), &m);
  /* 2^n m + (2^n - 1), at half size because 2^128 is no float */
  s = sp_pow2i_f32(sp_sub_i32(n, sp_set1_i32(1)));
  t = sp_fma_f32(s, m, sp_addk_f32(s, -0.5f));
  t = sp_select_f32(sp_eq_i32(n, sp_set1_i32(0)), m, sp_add_f32(t, t));
  return sp_copysign_f32(t, x); /* -0 */
}

/* For positive normal u: e and m in [2/3, 4/3) with u = m 2^e. */
SP_INLINE sp_i32 sp_log_split_f32(sp_f32 u, sp_f32 *m) {
  const sp_i32 b = sp_bits_f32(u);
  const sp_i32 e = sp_shr_i32(sp_sub_i32(b, sp_set1_i32(0x3f2aaaab)), 23);
  *m = sp_from_bits_f32(sp_sub_i32(b, sp_shl_i32(e, 23)));
  return e;
}

/* log(1 + f) + lo on |f| <= 1/3, relative error of the fit 2^-30. */
SP_INLINE sp_f32 sp_log_poly_f32(sp_f32 f, sp_f32 lo) {
  const sp_f32 z = sp_mul_f32(f, f);
  sp_f32 p = sp_fmak_f32(f, sp_set1_f32(1.23129323e-1f), -1.28333405e-1f);
  p = sp_fmak_f32(f, p, 1.06759295e-1f);
  p = sp_fmak_f32(f, p, -1.21986315e-1f);
  p = sp_fmak_f32(f, p, 1.43111423e-1f);
  p = sp_fmak_f32(f, p, -1.6679357e-1f);
  p = sp_fmak_f32(f, p, 1.99993894e-1f);
  p = sp_fmak_f32(f, p, -2.49998257e-1f);
  p = sp_fmak_f32(f, p, 3.33333373e-1f);
  p = sp_fma_f32(sp_mul_f32(f, z), p, lo);
  return sp_add_f32(f, sp_fma_f32(sp_set1_f32(-0.5f), z, p));
}

/* The logarithm at 0, below, at infinity and NaN; elsewhere r. */
SP_INLINE sp_f32 sp_log_edges_f32(sp_f32 x, sp_f32 r) {
  const sp_f32 inf = sp_from_bits_f32(sp_set1_i32(0x7f800000));
  r = sp_select_f32(sp_lt_f32(x, inf), r, x);
  r = sp_select_f32(sp_eq_f32(x, sp_zero_f32()), sp_neg_f32(inf), r);
  return sp_select_f32(sp_lt_f32(x, sp_zero_f32()), sp_from_bits_f32(sp_set1_i32(0x7fc00000)), r);
}

/* As sp_log_split_f32 for any positive x, with f = m - 1. */
SP_INLINE sp_f32 sp_log_split_any_f32(sp_f32 x, sp_f32 *f) {
  const sp_mask small = sp_lt_f32(x, sp_set1_f32(1.17549435e-38f));
  sp_f32 m;
  const sp_i32 e = sp_log_split_f32(sp_select_f32(small, sp_mulk_f32(x, 16777216.0f), x), &m);
  *f = sp_addk_f32(m, -1.0f);
  return sp_cvt_i32_f32(sp_sub_i32(e, sp_select_i32(small, sp_set1_i32(24), sp_set1_i32(0))));
}

/* 0.9 ULP */
SP_INLINE sp_f32 sp_log_f32(sp_f32 x) {
  sp_f32 f;
  const sp_f32 e = sp_log_split_any_f32(x, &f);
  const sp_f32 r = sp_log_poly_f32(f, sp_mulk_f32(e, -2.12194440e-4f));
  return sp_log_edges_f32(x, sp_fma_f32(e, sp_set1_f32(0.693359375f), r));
}

/* 2.4 ULP */
SP_INLINE sp_f32 sp_log2_f32(sp_f32 x) {
  sp_f32 f;
  const sp_f32 e = sp_log_split_any_f32(x, &f);
  const sp_f32 r = sp_log_poly_f32(f, sp_zero_f32());
  return sp_log_edges_f32(x, sp_fma_f32(r, sp_set1_f32(1.44269504f), e));
}

/* 1.7 ULP */
SP_INLINE sp_f32 sp_log1p_f32(sp_f32 x) {
  const sp_f32 one = sp_set1_f32(1.0f);
  const sp_f32 u = sp_add_f32(one, x);
  /* u + c == 1 + x exactly (Knuth's two-sum) */
  const sp_f32 v = sp_sub_f32(u, one);
  const sp_f32 c = sp_add_f32(sp_sub_f32(one, sp_sub_f32(u, v)), sp_sub_f32(x, v));
  sp_f32 m, e, f, r;
  const sp_i32 ei = sp_log_split_f32(u, &m);
  e = sp_cvt_i32_f32(ei);
  f = sp_fma_f32(c, sp_pow2i_f32(sp_sub_i32(sp_set1_i32(0), sp_min_i32(ei, sp_set1_i32(126)))),
                 sp_addk_f32(m, -1.0f));
  r = sp_log_poly_f32(f, sp_mulk_f32(e, -2.12194440e-4f));
  r = sp_log_edges_f32(u, sp_fma_f32(e, sp_set1_f32(0.693359375f), r));
  return sp_select_f32(sp_lt_f32(sp_abs_f32(x), sp_set1_f32(1e-10f)), x, r);
}

/* c / (c + c e^-x), where c = 2^-30 keeps c e^-x a float for as long as the result is one. 2.5 ULP */
SP_INLINE sp_f32 sp_sigmoid_f32(sp_f32 x) {
  const sp_f32 c = sp_set1_f32(9.31322575e-10f);
  return sp_div_f32(c, sp_add_f32(c, sp_exp_minus_f32(x)));
}

/* tanh(x/2) = t = x P / 2 Q with polynomials of z = x^2, then tanh(x) = 2t / (1 + t^2), which near
 * 1 damps every error: m = x P and q = Q give m q / (q^2 + m^2/4). For |x| <= 9.02, where float
 * tanh has become 1; 2^-25.3. */
typedef struct sp_tanh_parts {
  sp_f32 m, q, den;
} sp_tanh_parts;

SP_INLINE sp_tanh_parts sp_tanh_split_f32(sp_f32 x, sp_f32 z) {
  sp_tanh_parts t;
  t.m = sp_fmak_f32(z, sp_set1_f32(8.58022915e-08f), 0.00015980257f);
  t.m = sp_fmak_f32(z, t.m, 0.0314886943f);
  t.m = sp_mul_f32(sp_fmak_f32(z, t.m, 1.0f), x);
  t.q = sp_fmak_f32(z, sp_set1_f32(2.73395062e-06f), 0.00139499479f);
  t.q = sp_fmak_f32(z, t.q, 0.114821963f);
  t.q = sp_fmak_f32(z, t.q, 1.0f);
  t.den = sp_fma_f32(sp_mulk_f32(t.m, 0.25f), t.m, sp_mul_f32(t.q, t.q));
  return t;
}

/* tanh without the care for small results; up to 5 ULP. */
SP_INLINE sp_f32 sp_tanh_ratio_f32(sp_f32 x) {
  const sp_f32 c = sp_clamp_f32(x, -9.02f, 9.02f);
  const sp_tanh_parts t = sp_tanh_split_f32(c, sp_mul_f32(c, c));
  return sp_div_f32(sp_mul_f32(t.m, t.q), t.den);
}

/* 3.4 ULP */
SP_INLINE sp_f32 sp_tanh_f32(sp_f32 x) {
  const sp_f32 c = sp_clamp_f32(x, -9.02f, 9.02f);
  const sp_f32 z = sp_mul_f32(c, c);
  const sp_tanh_parts t = sp_tanh_split_f32(c, z);
  const sp_mask near = sp_lt_f32(z, sp_set1_f32(2.25f));
  /* small x: x + x (q (P - Q) - m^2/4) / den, whose second term is small */
  sp_f32 d = sp_fmak_f32(z, sp_set1_f32(-2.64814833e-06f), -0.00123519222f);
  d = sp_mul_f32(sp_fmak_f32(z, d, -0.0833332688f), z);
  d = sp_fnma_f32(sp_mulk_f32(t.m, 0.25f), t.m, sp_mul_f32(t.q, d));
  d = sp_div_f32(sp_select_f32(near, sp_mul_f32(d, c), sp_mul_f32(t.m, t.q)), t.den);
  return sp_copysign_f32(sp_add_f32(sp_select_f32(near, c, sp_zero_f32()), d), x); /* -0 */
}

/* 1.3 ULP */
SP_INLINE sp_f32 sp_erf_f32(sp_f32 x) {
  const sp_f32 a = sp_minq_f32(sp_set1_f32(3.95f), sp_abs_f32(x)); /* from here on it is 1 */
  const sp_f32 z = sp_mul_f32(a, a);
  sp_f32 p, g, m;
  sp_i32 n;
  /* erf(a) / a - 1 on a <= 1; 2^-29 */
  p = sp_fmak_f32(z, sp_set1_f32(7.80586706e-5f), -7.99762434e-4f);
  p = sp_fmak_f32(z, p, 5.1871459e-3f);
  p = sp_fmak_f32(z, p, -2.68533435e-2f);
  p = sp_fmak_f32(z, p, 1.12835787e-1f);
  p = sp_fmak_f32(z, p, -3.7612626e-1f);
  p = sp_fmak_f32(z, p, 1.28379166e-1f);
  p = sp_fma_f32(p, a, a);
  /* -log(1 - erf(a)) / a on a > 1; 2^-28 of erf */
  g = sp_fmak_f32(a, sp_set1_f32(2.11604347e-4f), -3.19509394e-3f);
  g = sp_fmak_f32(a, g, 2.28254031e-2f);
  g = sp_fmak_f32(a, g, -1.05159596e-1f);
  g = sp_fmak_f32(a, g, -6.35797262e-1f);
  g = sp_fmak_f32(a, g, -1.12849057f);
  n = sp_exp_split_f32(sp_mul_f32(g, a), &m);
  g = sp_pow2i_f32(sp_min_i32(n, sp_set1_i32(0)));
  g = sp_sub_f32(sp_set1_f32(1.0f), sp_fma_f32(g, m, g));
  return sp_copysign_f32(sp_select_f32(sp_gt_f32(a, sp_set1_f32(1.0f)), g, p), x);
}

/* erf for the GELU, without an exponential: c P(c^2) / Q(c^2), c = x clamped to where float erf has
 * become 1; 2^-25.7. Up to 6 ULP. */
SP_INLINE sp_f32 sp_erf_ratio_f32(sp_f32 x) {
  const sp_f32 c = sp_clamp_f32(x, -3.92f, 3.92f);
  const sp_f32 z = sp_mul_f32(c, c);
  sp_f32 p, q;
  p = sp_fmak_f32(z, sp_set1_f32(2.04660321e-6f), 2.84850452e-4f);
  p = sp_fmak_f32(z, p, 3.77160489e-3f);
  p = sp_fmak_f32(z, p, 5.27664977e-2f);
  p = sp_fmak_f32(z, p, 1.90568012e-1f);
  p = sp_fmak_f32(z, p, 1.12837915f);
  q = sp_fmak_f32(z, sp_set1_f32(3.80540787e-5f), 1.16368045e-3f);
  q = sp_fmak_f32(z, q, 1.49812903e-2f);
  q = sp_fmak_f32(z, q, 1.14172629e-1f);
  q = sp_fmak_f32(z, q, 5.02219235e-1f);
  q = sp_fmak_f32(z, q, 1.0f);
  return sp_div_f32(sp_mul_f32(c, p), q);
}

/* x (1 + erf(x / sqrt 2)) / 2. Absolute error up to 4.2 |x| 2^-24; NaN at -inf. */
SP_INLINE sp_f32 sp_gelu_f32(sp_f32 x) {
  const sp_f32 h = sp_mulk_f32(x, 0.5f);
  return sp_fma_f32(h, sp_erf_ratio_f32(sp_mulk_f32(x, 0.707106781f)), h);
}

/* x (1 + tanh(u)) / 2, u = sqrt(2/pi) (x + 0.044715 x^3). Absolute error up to 3 |x| 2^-24; NaN at
 * -inf. */
SP_INLINE sp_f32 sp_gelu_tanh_f32(sp_f32 x) {
  const sp_f32 h = sp_mulk_f32(x, 0.5f);
  const sp_f32 a = sp_fmak_f32(sp_mul_f32(x, x), sp_set1_f32(0.0356774081f), 0.797884561f);
  return sp_fma_f32(h, sp_tanh_ratio_f32(sp_mul_f32(x, a)), h);
}

/* x sigmoid(x). 3.3 ULP for x > -85, below absolute error under 2^-139; NaN at -inf. */
SP_INLINE sp_f32 sp_silu_f32(sp_f32 x) { return sp_mul_f32(x, sp_sigmoid_f32(x)); }

/* x tanh(softplus(x)) = x n / (n + 2), n = e^x (e^x + 2). 4.4 ULP for x > -85, below absolute error
 * under 2^-139; NaN at -inf. */
SP_INLINE sp_f32 sp_mish_f32(sp_f32 x) {
  const sp_f32 e = sp_exp_f32(sp_minq_f32(sp_set1_f32(20.0f), x));
  const sp_f32 n = sp_mul_f32(e, sp_addk_f32(e, 2.0f));
  return sp_mul_f32(x, sp_div_f32(n, sp_addk_f32(n, 2.0f)));
}

/* log(1 + e^x). 1.9 ULP */
SP_INLINE sp_f32 sp_softplus_f32(sp_f32 x) {
  const sp_f32 t = sp_log1p_f32(sp_exp_f32(sp_neg_f32(sp_abs_f32(x))));
  return sp_add_f32(sp_maxq_f32(sp_zero_f32(), x), t);
}

/* x / (1 + |x|). 1.6 ULP; NaN at infinity. */
SP_INLINE sp_f32 sp_softsign_f32(sp_f32 x) {
  return sp_div_f32(x, sp_addk_f32(sp_abs_f32(x), 1.0f));
}

/* x clip(x / 6 + 1/2, 0, 1). Absolute error up to 1.7 |x| 2^-24; NaN at -inf. */
SP_INLINE sp_f32 sp_hardswish_f32(sp_f32 x) {
  const sp_f32 t = sp_fmak_f32(x, sp_set1_f32(1.0f / 6.0f), 0.5f);
  return sp_mul_f32(x, sp_clamp_f32(t, 0.0f, 1.0f));
}

/* 2/pi after the binary point, below 32 zero bits. */
SP_CONST uint32_t sp_two_over_pi[9] = {0u,          0xa2f9836eu, 0x4e441529u,
                                       0xfc2757d1u, 0xf534ddc0u, 0xdb629599u,
                                       0x3c439041u, 0xfe5163abu, 0xdebbc561u};

/* Payne-Hanek for one finite |x| >= 2^13: quadrant (mod 4) and r = x - quadrant * pi/2, |r| <=
 * pi/4. x = m 2^e; the 96 bits of 2/pi from weight 2^(1-e) down give m 2^e 2/pi modulo 4 with an
 * error below 2^-60, and no float is nearer than 2^-31 to a multiple of pi/2. */
SP_OUTLINE int32_t sp_reduce_big_f32(float x, float *r) {
  union {
    float f;
    uint32_t u;
  } b;
  uint64_t m, p, w[3];
  uint32_t at, q;
  int i;
  double frac;
  b.f = x;
  m = (b.u & 0x7fffffu) | 0x800000u;
  at = ((b.u >> 23) & 0xffu) - 120u; /* e + 30: bits of the table above the window */
  for (i = 0; i < 3; ++i) {
    const uint32_t *t = sp_two_over_pi + at / 32u + (uint32_t)i;
    w[i] = (((uint64_t)t[0] << 32 | t[1]) << (at % 32u)) >> 32;
  }
  p = (m * w[0] << 32) + m * w[1] + ((m * w[2]) >> 32);
  q = (uint32_t)((p + ((uint64_t)1 << 61)) >> 62);
  p -= (uint64_t)q << 62;
  /* two's complement, units of 2^-62 */
  frac = p >> 63 ? -(double)(int64_t)(~p + 1u) : (double)(int64_t)p;
  frac *= 3.4061215800865545e-19; /* pi/2 2^-62 */
  *r = (float)(b.u >> 31 ? -frac : frac);
  return (int32_t)(b.u >> 31 ? 0u - q : q);
}

/* Quadrant (mod 4) and r = x - quadrant * pi/2, |r| <= pi/4 (1 + 2^-20), with a relative error
 * below 2^-24 for every float; NaN for infinities and NaN. Up to 2^13 pi/2 by pieces of 11 bits,
 * whose products with the quadrant are exact. */
SP_INLINE sp_i32 sp_reduce_pio2_f32(sp_f32 x, sp_f32 *r) {
  const sp_mask big = sp_ge_f32(sp_abs_f32(x), sp_set1_f32(12800.0f));
  sp_i32 q = sp_rne_f32_i32(sp_mulk_f32(x, 0.636619772f));
  const sp_f32 n = sp_cvt_i32_f32(q);
  const sp_f32 a = sp_fnma_f32(n, sp_set1_f32(4.8375129699707031e-4f),
                               sp_fnma_f32(n, sp_set1_f32(1.5703125f), x));
  const sp_f32 t = sp_set1_f32(7.5495336204767227e-8f);
  const sp_f32 hi = sp_fnma_f32(n, t, a);
  sp_f32 lo = sp_fnma_f32(n, t, sp_sub_f32(a, hi));
  lo = sp_fnma_f32(n, sp_set1_f32(2.5632829192545614e-12f), lo);
  lo = sp_fnma_f32(n, sp_set1_f32(6.123234e-17f), lo);
  *r = sp_select_f32(sp_eq_i32(q, sp_set1_i32(0)), x, sp_add_f32(hi, lo)); /* -0 */
  if (sp_mask_any(big)) {
    float xs[SP_LANES], rs[SP_LANES];
    int32_t qs[SP_LANES];
    int i;
    sp_store_f32(xs, x);
    sp_store_f32(rs, *r);
    sp_store_i32(qs, q);
    for (i = 0; i < SP_LANES; ++i) {
      if (xs[i] - xs[i] != 0.0f)
        rs[i] = xs[i] - xs[i];
      else if (xs[i] >= 12800.0f || xs[i] <= -12800.0f)
        qs[i] = sp_reduce_big_f32(xs[i], rs + i);
    }
    *r = sp_load_f32(rs);
    q = sp_load_i32(qs);
  }
  return q;
}

/* sin(r) on |r| <= pi/4; 2^-28. The sign of r, also for zeros. */
SP_INLINE sp_f32 sp_sin_poly_f32(sp_f32 r) {
  const sp_f32 z = sp_mul_f32(r, r);
  sp_f32 p = sp_fmak_f32(z, sp_set1_f32(-1.95184082e-4f), 8.3321901e-3f);
  p = sp_fmak_f32(z, p, -1.66666552e-1f);
  return sp_copysign_f32(sp_fma_f32(sp_mul_f32(z, p), r, r), r);
}

/* cos(r) on |r| <= pi/4; 2^-33. 1 - z/2 is kept as t + its rounding error. */
SP_INLINE sp_f32 sp_cos_poly_f32(sp_f32 r) {
  const sp_f32 one = sp_set1_f32(1.0f);
  const sp_f32 z = sp_mul_f32(r, r);
  const sp_f32 h = sp_mulk_f32(z, 0.5f);
  const sp_f32 t = sp_sub_f32(one, h);
  sp_f32 p = sp_fmak_f32(z, sp_set1_f32(2.44306684e-5f), -1.38873013e-3f);
  p = sp_fmak_f32(z, p, 4.16666456e-2f);
  return sp_add_f32(t, sp_fma_f32(sp_mul_f32(z, z), p, sp_sub_f32(sp_sub_f32(one, t), h)));
}

/* The value in quadrant q from sin and cos of the reduced argument. */
SP_INLINE sp_f32 sp_sin_quadrant_f32(sp_i32 q, sp_f32 s, sp_f32 c) {
  const sp_mask odd = sp_eq_i32(sp_and_i32(q, sp_set1_i32(1)), sp_set1_i32(1));
  const sp_i32 sign = sp_shl_i32(sp_and_i32(q, sp_set1_i32(2)), 30);
  return sp_from_bits_f32(sp_xor_i32(sp_bits_f32(sp_select_f32(odd, c, s)), sign));
}

/* 1.6 ULP; every float. */
SP_INLINE sp_f32 sp_sin_f32(sp_f32 x) {
  sp_f32 r;
  const sp_i32 q = sp_reduce_pio2_f32(x, &r);
  return sp_sin_quadrant_f32(q, sp_sin_poly_f32(r), sp_cos_poly_f32(r));
}

/* 1.6 ULP; every float. */
SP_INLINE sp_f32 sp_cos_f32(sp_f32 x) {
  sp_f32 r;
  const sp_i32 q = sp_add_i32(sp_reduce_pio2_f32(x, &r), sp_set1_i32(1));
  return sp_sin_quadrant_f32(q, sp_sin_poly_f32(r), sp_cos_poly_f32(r));
}

/* 3.1 ULP; every float. */
SP_INLINE sp_f32 sp_tan_f32(sp_f32 x) {
  sp_f32 r, s, c, t;
  const sp_i32 q = sp_reduce_pio2_f32(x, &r);
  const sp_mask odd = sp_eq_i32(sp_and_i32(q, sp_set1_i32(1)), sp_set1_i32(1));
  s = sp_sin_poly_f32(r);
  c = sp_cos_poly_f32(r);
  t = sp_div_f32(sp_select_f32(odd, c, s), sp_select_f32(odd, s, c));
  return sp_from_bits_f32(sp_xor_i32(sp_bits_f32(t), sp_shl_i32(q, 31)));
}

/* 2.0 ULP */
SP_INLINE sp_f32 sp_atan_f32(sp_f32 x) {
  const sp_f32 a = sp_abs_f32(x);
  const sp_f32 one = sp_set1_f32(1.0f);
  const sp_f32 zero = sp_zero_f32();
  /* a > tan(3pi/8): pi/2 + atan(-1/a); a > tan(pi/8): pi/4 + atan((a-1)/(a+1)) */
  const sp_mask far = sp_gt_f32(a, sp_set1_f32(2.41421356f));
  const sp_mask mid = sp_gt_f32(a, sp_set1_f32(0.414213562f));
  const sp_f32 num =
      sp_select_f32(far, sp_set1_f32(-1.0f), sp_select_f32(mid, sp_sub_f32(a, one), a));
  const sp_f32 den = sp_select_f32(far, a, sp_select_f32(mid, sp_add_f32(a, one), one));
  const sp_f32 hi = sp_select_f32(far, sp_set1_f32(1.57079637f),
                                  sp_select_f32(mid, sp_set1_f32(0.785398185f), zero));
  const sp_f32 lo = sp_select_f32(far, sp_set1_f32(-4.371139e-8f),
                                  sp_select_f32(mid, sp_set1_f32(-2.1855695e-8f), zero));
  const sp_f32 t = sp_div_f32(num, den);
  const sp_f32 z = sp_mul_f32(t, t);
  sp_f32 p;
  /* (atan(t) - t) / t^3 on |t| <= tan(pi/8); 2^-30.4 */
  p = sp_fmak_f32(z, sp_set1_f32(-6.08915165e-2f), 1.05989434e-1f);
  p = sp_fmak_f32(z, p, -1.42443776e-1f);
  p = sp_fmak_f32(z, p, 1.99985281e-1f);
  p = sp_fmak_f32(z, p, -3.33333164e-1f);
  p = sp_fma_f32(sp_mul_f32(z, p), t, lo);
  return sp_copysign_f32(sp_add_f32(hi, sp_add_f32(t, p)), x);
}

/* For a = |x|: t = a and asin(t) - t when a <= 1/2, else t = sqrt((1 - a) / 2) and asin(t) - t. */
SP_INLINE sp_f32 sp_asin_tail_f32(sp_f32 a, sp_mask near, sp_f32 *t) {
  const sp_f32 h = sp_mulk_f32(sp_sub_f32(sp_set1_f32(1.0f), a), 0.5f);
  const sp_f32 z = sp_select_f32(near, sp_mul_f32(a, a), h);
  sp_f32 p;
  *t = sp_select_f32(near, a, sp_sqrt_f32(h));
  /* (asin(t) - t) / t^3 on |t| <= 1/2; 2^-31.7 */
  p = sp_fmak_f32(z, sp_set1_f32(3.76207903e-2f), 1.43607827e-2f);
  p = sp_fmak_f32(z, p, 3.1829413e-2f);
  p = sp_fmak_f32(z, p, 4.45141941e-2f);
  p = sp_fmak_f32(z, p, 7.5005196e-2f);
  p = sp_fmak_f32(z, p, 1.66666597e-1f);
  return sp_mul_f32(sp_mul_f32(z, p), *t);
}

/* 2.2 ULP */
SP_INLINE sp_f32 sp_asin_f32(sp_f32 x) {
  const sp_f32 a = sp_abs_f32(x);
  const sp_mask near = sp_le_f32(a, sp_set1_f32(0.5f));
  sp_f32 t, p, far;
  p = sp_asin_tail_f32(a, near, &t);
  /* pi/2 - 2 asin(t); the first difference is exact near 1/2, where rounding would show most */
  far = sp_sub_f32(sp_set1_f32(1.57079637f), sp_add_f32(t, t));
  far = sp_sub_f32(far, sp_fmak_f32(p, sp_set1_f32(2.0f), 4.371139e-8f));
  return sp_copysign_f32(sp_select_f32(near, sp_add_f32(t, p), far), x);
}

/* 1.2 ULP */
SP_INLINE sp_f32 sp_acos_f32(sp_f32 x) {
  const sp_f32 a = sp_abs_f32(x);
  const sp_mask near = sp_le_f32(a, sp_set1_f32(0.5f));
  const sp_mask neg = sp_lt_f32(x, sp_zero_f32());
  sp_f32 t, p, mid, far;
  p = sp_asin_tail_f32(a, near, &t);
  /* pi/2 - asin(x), and 2 asin(t) or pi - 2 asin(t) */
  t = sp_copysign_f32(t, x);
  p = sp_copysign_f32(p, x);
  mid = sp_sub_f32(sp_set1_f32(1.57079637f), sp_add_f32(t, sp_addk_f32(p, 4.371139e-8f)));
  far = sp_mulk_f32(sp_add_f32(t, sp_select_f32(neg, sp_addk_f32(p, -4.371139e-8f), p)), 2.0f);
  far = sp_add_f32(far, sp_select_f32(neg, sp_set1_f32(3.14159274f), sp_zero_f32()));
  return sp_select_f32(near, mid, far);
}

/* 1.8 ULP */
SP_INLINE sp_f32 sp_sinh_f32(sp_f32 x) {
  const sp_f32 a = sp_abs_f32(x);
  const sp_f32 z = sp_mul_f32(x, x);
  const sp_f32 h = sp_exp_scaled_f32(a, -1);
  const sp_f32 far = sp_sub_f32(h, sp_div_f32(sp_set1_f32(0.25f), h));
  /* (sinh(x) - x) / x^3 on |x| <= 1; 2^-25 of sinh */
  sp_f32 p = sp_fmak_f32(z, sp_set1_f32(2.03766336e-4f), 8.33022315e-3f);
  p = sp_fmak_f32(z, p, 1.66667178e-1f);
  p = sp_fma_f32(sp_mul_f32(z, p), a, a);
  return sp_copysign_f32(sp_select_f32(sp_gt_f32(a, sp_set1_f32(1.0f)), far, p), x);
}

/* 1.6 ULP */
SP_INLINE sp_f32 sp_cosh_f32(sp_f32 x) {
  const sp_f32 h = sp_exp_scaled_f32(sp_abs_f32(x), -1);
  return sp_add_f32(h, sp_div_f32(sp_set1_f32(0.25f), h));
}

/* log(2a) for a > 2^14, where it is asinh(a) and acosh(a); elsewhere r. */
SP_INLINE sp_f32 sp_log_twice_f32(sp_f32 a, sp_f32 r) {
  const sp_f32 far = sp_addk_f32(sp_log_f32(a), 0.693147182f);
  return sp_select_f32(sp_gt_f32(a, sp_set1_f32(16384.0f)), far, r);
}

/* 2.0 ULP */
SP_INLINE sp_f32 sp_asinh_f32(sp_f32 x) {
  const sp_f32 a = sp_abs_f32(x);
  const sp_f32 z = sp_mul_f32(a, a);
  const sp_f32 one = sp_set1_f32(1.0f);
  const sp_f32 s = sp_add_f32(one, sp_sqrt_f32(sp_add_f32(one, z)));
  const sp_f32 r = sp_log1p_f32(sp_add_f32(a, sp_div_f32(z, s)));
  return sp_copysign_f32(sp_log_twice_f32(a, r), x);
}

/* 2.4 ULP */
SP_INLINE sp_f32 sp_acosh_f32(sp_f32 x) {
  const sp_f32 t = sp_addk_f32(x, -1.0f);
  const sp_f32 s = sp_sqrt_f32(sp_mul_f32(t, sp_addk_f32(t, 2.0f)));
  return sp_log_twice_f32(
      x, sp_select_f32(sp_lt_f32(t, sp_zero_f32()), sp_from_bits_f32(sp_set1_i32(0x7fc00000)),
                       sp_log1p_f32(sp_add_f32(t, s))));
}

/* 2.2 ULP */
SP_INLINE sp_f32 sp_atanh_f32(sp_f32 x) {
  const sp_f32 a = sp_abs_f32(x);
  const sp_f32 d = sp_sub_f32(sp_set1_f32(1.0f), a);
  const sp_f32 r = sp_log1p_f32(sp_div_f32(sp_add_f32(a, a), d));
  return sp_copysign_f32(sp_mulk_f32(r, 0.5f), x);
}

/* The upper 12 significant bits: products of two such values are exact in float32. */
SP_INLINE sp_f32 sp_upper_f32(sp_f32 v) {
  return sp_from_bits_f32(sp_and_i32(sp_bits_f32(v), sp_set1_i32(~0xfff)));
}

/* log2(x) for finite x > 0 as *hi + *lo, *hi of 12 bits; relative error about 2^-35.
 * log2(m) = 2/ln2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1), |s| <= 0.172. Sums of two
 * floats throughout, and every product whose rounding would matter has factors of 12 bits. */
SP_INLINE void sp_log2_pair_f32(sp_f32 x, sp_f32 *hi, sp_f32 *lo) {
  const sp_mask small = sp_lt_f32(x, sp_set1_f32(1.17549435e-38f));
  const sp_i32 b = sp_bits_f32(sp_select_f32(small, sp_mulk_f32(x, 16777216.0f), x));
  const sp_i32 k =
      sp_shr_i32(sp_sub_i32(b, sp_set1_i32(0x3f3504f3)), 23); /* m in [sqrt 1/2, sqrt 2) */
  const sp_f32 e =
      sp_cvt_i32_f32(sp_sub_i32(k, sp_select_i32(small, sp_set1_i32(24), sp_set1_i32(0))));
  const sp_f32 f = sp_addk_f32(sp_from_bits_f32(sp_sub_i32(b, sp_shl_i32(k, 23))), -1.0f);
  /* m + 1 = g + gl exactly, g = gh + (g - gh) */
  const sp_f32 g = sp_addk_f32(f, 2.0f);
  const sp_f32 gl = sp_sub_f32(f, sp_addk_f32(g, -2.0f));
  const sp_f32 gh = sp_upper_f32(g);
  const sp_f32 rcp = sp_div_f32(sp_set1_f32(1.0f), g);
  /* s = sh + sl: quotient and remainder */
  const sp_f32 sh = sp_upper_f32(sp_mul_f32(f, rcp));
  sp_f32 rest = sp_fnma_f32(sh, sp_sub_f32(g, gh), sp_fnma_f32(sh, gh, f));
  sp_f32 sl, z, zh, zl, p, th, tl, uh, ul, a, al;
  rest = sp_fnma_f32(sh, gl, rest);
  sl = sp_mul_f32(rest, rcp);
  /* z = s^2 = zh + zl */
  z = sp_mul_f32(sh, sh);
  zh = sp_upper_f32(z);
  zl = sp_fma_f32(sp_add_f32(sp_add_f32(sh, sh), sl), sl, sp_sub_f32(z, zh));
  /* t = z (1/3 + z P(z)), 1/3 = 0.333251953125 + 8.138e-5; 2^-36.8 */
  z = sp_add_f32(zh, zl);
  p = sp_fmak_f32(z, sp_set1_f32(1.17097013e-1f), 1.42735481e-1f);
  p = sp_fmak_f32(z, p, 2.00000763e-1f);
  p = sp_fmak_f32(z, p, 8.13802083e-5f);
  tl = sp_fma_f32(zl, sp_addk_f32(p, 0.333251953125f), sp_mul_f32(zh, p));
  p = sp_mulk_f32(zh, 0.333251953125f);
  th = sp_upper_f32(sp_add_f32(p, tl));
  tl = sp_add_f32(sp_sub_f32(p, th), tl);
  /* s + s t = uh + ul */
  ul = sp_fma_f32(sl, sp_add_f32(th, tl), sp_mul_f32(sh, tl));
  a = sp_mul_f32(sh, th);
  uh = sp_add_f32(sh, a);
  ul = sp_add_f32(sp_add_f32(sp_add_f32(sp_sub_f32(sh, uh), a), sl), ul);
  a = sp_upper_f32(sp_add_f32(uh, ul));
  al = sp_add_f32(sp_sub_f32(uh, a), ul);
  /* times 2/ln2 = 2.884765625 + 6.2446e-4, plus e */
  ul = sp_fma_f32(a, sp_set1_f32(6.24456778e-4f), sp_mulk_f32(al, 2.88539004f));
  uh = sp_mulk_f32(a, 2.884765625f);
  a = sp_add_f32(e, uh);
  ul = sp_add_f32(sp_add_f32(uh, sp_sub_f32(e, a)), ul); /* |e| >= |uh| or e == 0 */
  *hi = sp_upper_f32(sp_add_f32(a, ul));
  *lo = sp_add_f32(sp_sub_f32(a, *hi), ul);
}

/* 1.3 ULP; all special cases of IEEE 754 pow (0^0 = 1, 1^NaN = 1, (-1)^inf = 1, signed zeros). */
SP_INLINE sp_f32 sp_pow_f32(sp_f32 x, sp_f32 y) {
  const sp_f32 zero = sp_zero_f32();
  const sp_f32 one = sp_set1_f32(1.0f);
  const sp_f32 inf = sp_from_bits_f32(sp_set1_i32(0x7f800000));
  const sp_f32 nan = sp_from_bits_f32(sp_set1_i32(0x7fc00000));
  const sp_f32 a = sp_abs_f32(x);
  const sp_f32 half_y = sp_mulk_f32(y, 0.5f);
  const sp_mask whole = sp_eq_f32(sp_trunc_f32(y), y);
  const sp_mask odd = sp_mask_and(sp_mask_and(whole, sp_ne_f32(sp_trunc_f32(half_y), half_y)),
                                  sp_lt_f32(sp_abs_f32(y), sp_set1_f32(16777216.0f)));
  const sp_mask y_neg = sp_lt_f32(y, zero);
  sp_f32 hi, lo, yc, yh, p, q, n, r, s;
  sp_mask out;
  sp_i32 ni;
  sp_log2_pair_f32(a, &hi, &lo);
  /* y log2(a) = p + q. Beyond 2^34 the result is 0, 1 or infinite whatever y is. */
  yc = sp_clamp_f32(y, -17179869184.0f, 17179869184.0f);
  yh = sp_upper_f32(yc);
  p = sp_mul_f32(yh, hi);
  q = sp_fma_f32(yc, lo, sp_mul_f32(sp_sub_f32(yc, yh), hi));
  out = sp_gt_f32(sp_abs_f32(p), sp_set1_f32(160.0f));
  p = sp_clamp_f32(p, -160.0f, 160.0f);
  q = sp_select_f32(out, zero, q);
  ni = sp_rne_f32_i32(sp_add_f32(p, q));
  n = sp_cvt_i32_f32(ni);
  r = sp_add_f32(sp_sub_f32(p, n), q);
  /* (2^r - 1) / r on |r| <= 1/2; 2^-32 */
  s = sp_fmak_f32(r, sp_set1_f32(1.46811635e-5f), 1.54523412e-4f);
  s = sp_fmak_f32(r, s, 1.33366429e-3f);
  s = sp_fmak_f32(r, s, 9.61808674e-3f);
  s = sp_fmak_f32(r, s, 5.55040613e-2f);
  s = sp_fmak_f32(r, s, 2.40226507e-1f);
  s = sp_fmak_f32(r, s, 6.93147182e-1f);
  s = sp_scale_f32(sp_fmak_f32(r, s, 1.0f), ni);
  s = sp_select_f32(sp_eq_f32(a, zero), sp_select_f32(y_neg, inf, zero), s);
  s = sp_select_f32(sp_eq_f32(a, inf), sp_select_f32(y_neg, zero, inf), s);
  /* odd whole powers keep the sign of x, also of -0; other powers of negative numbers are NaN */
  s = sp_select_f32(odd, sp_copysign_f32(s, x), s);
  s = sp_select_f32(
      sp_mask_and(sp_mask_and(sp_lt_f32(x, zero), sp_lt_f32(a, inf)), sp_mask_not(whole)), nan, s);
  s = sp_select_f32(sp_mask_or(sp_isnan_f32(x), sp_isnan_f32(y)), nan, s);
  return sp_select_f32(sp_mask_or(sp_eq_f32(x, one), sp_eq_f32(y, zero)), one, s);
}

#endif
