/* Vector vocabulary for RISC-V vectors (RVV 1.0): 4 lanes, on any vector length from 128 bits.
 * Meaning of each name: isa/scalar.h. clang >= 21 with -march=rv64gcv (zig: generic_rv64+...+v).
 *
 * Written in vectors of fixed size, which the compiler maps to RVV: intrinsic types have no size,
 * so that no register tile could be an array of them. Wider hardware uses its first 128 bits. */
#ifndef SP_ISA_H
#define SP_ISA_H

#if !defined(__riscv_v) || !defined(__clang__)
#error "isa/rvv.h needs clang and RISC-V with the V extension (-march=rv64gcv)"
#endif

#include "clang4.h"

#define SP_ISA_NAME "rvv"

typedef int8_t sp_s8x16 __attribute__((ext_vector_type(16)));
typedef int16_t sp_s16x16 __attribute__((ext_vector_type(16)));
typedef int32_t sp_s32x8 __attribute__((ext_vector_type(8)));
typedef uint64_t sp_u64x4 __attribute__((ext_vector_type(4)));

/* C has no vector ?:, and this form of it becomes vmerge */
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) { return (m & a) | (~m & b); }

SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) {
  return __builtin_elementwise_fma(a, b, c);
}
SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) {
  return __builtin_elementwise_fma(-a, b, c);
}
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return sp_select_f32(a > b, a, b); }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return sp_select_f32(a < b, a, b); }
/* vfmax and vfmin return the number where one operand is NaN */
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) {
  const sp_f32 r = __builtin_elementwise_max(a, b);
  return sp_select_f32(a != a, a, sp_select_f32(b != b, b, r));
}
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) {
  const sp_f32 r = __builtin_elementwise_min(a, b);
  return sp_select_f32(a != a, a, sp_select_f32(b != b, b, r));
}

/* convert; the comparisons keep NaN and large values away from a conversion that C leaves open */
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) {
  const sp_mask inside = (v >= -2147483648.0f) & (v < 2147483648.0f);
  const sp_f32 safe = sp_select_f32(inside, v, (sp_f32)(-2147483648.0f));
  return __builtin_convertvector(__builtin_elementwise_rint(safe), sp_i32);
}
SP_INLINE sp_i32 sp_rne_near_f32_i32(sp_f32 v) { return sp_rne_f32_i32(v); }
/* To nearest, and a step back where that went outwards: qemu 7.2 aborts on some vfcvt.rtz. */
SP_INLINE sp_i32 sp_trunc_f32_i32(sp_f32 v) {
  const sp_i32 r = sp_rne_f32_i32(v);
  const sp_f32 f = sp_cvt_i32_f32(r);
  return r + ((f > v) & (v > 0.0f)) - ((f < v) & (v < 0.0f));
}
SP_INLINE sp_f32 sp_trunc_f32(sp_f32 v) {
  const sp_f32 t = sp_copysign_f32(sp_cvt_i32_f32(sp_trunc_f32_i32(v)), v);
  return sp_select_f32(sp_abs_f32(v) < 8388608.0f, t, v);
}

/* products of bytes as halves; neighbours are added by shifts of the wider type, not by gathers */
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const sp_s16x16 x = __builtin_convertvector((sp_s8x16)a, sp_s16x16);
  const sp_s32x8 p = (sp_s32x8)(x * __builtin_convertvector((sp_s8x16)b, sp_s16x16));
  const sp_u64x4 s = (sp_u64x4)(((p << 16) >> 16) + (p >> 16));
  const sp_u32 low = __builtin_convertvector(s, sp_u32);
  const sp_u32 high = __builtin_convertvector(s >> 32, sp_u32);
  return (sp_i32)((sp_u32)acc + low + high);
}

#include "clang4_bytes.h"

#endif
