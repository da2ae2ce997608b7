/* AVX-512 (F, BW, DQ, VL, VBMI, VNNI, BF16) for processors without it: included before everything else
 * of a file that is compiled for x86-64-v3. Most is SIMDe's (libsimde-dev 0.7.4); here is what it
 * lacks or has wrong, lane by lane after Intel's Software Developer's Manual. */
#ifndef SP_EMULATED_AVX512_H
#define SP_EMULATED_AVX512_H
#pragma clang system_header

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* As calls: inlined, a file of kernels takes compilers many minutes. */
#define SIMDE_NO_INLINE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#define EMU static __attribute__((noinline, unused))
#define EMU_EACH(n) for (int l = 0; l < (n); ++l)

typedef simde__m512 emu_f;
typedef simde__m512i emu_i;
typedef union { emu_f v; float f[16]; uint32_t u[16]; __m256 half[2]; } emu_floats;
typedef union { emu_i v; int32_t s[16]; uint32_t u[16]; uint16_t h[32]; uint8_t b[64]; } emu_ints;
typedef union { __m256i v; int16_t s[16]; uint16_t u[16]; __m128i half[2]; } emu_halves;
typedef union { __m128i v; int8_t s[16]; uint8_t u[16]; } emu_bytes;

/* Masked loads and stores of `n` elements of `size` bytes touch no others. */
EMU void emu_move(void *to, const void *from, uint64_t mask, int n, size_t size) {
  EMU_EACH(n) if (mask >> l & 1)
    memcpy((char *)to + (size_t)l * size, (const char *)from + (size_t)l * size, size);
}
#define EMU_MASKED(kind, type, n, size)                      \
  EMU type emu_load_##kind(uint64_t mask, const void *p) {   \
    type v;                                                  \
    memset(&v, 0, sizeof v);                                 \
    emu_move(&v, p, mask, n, size);                          \
    return v;                                                \
  }                                                          \
  EMU void emu_store_##kind(void *p, uint64_t mask, type v) { \
    emu_move(p, &v, mask, n, size);                          \
  }
EMU_MASKED(bytes, __m128i, 16, 1)
EMU_MASKED(halves, __m256i, 16, 2)
EMU_MASKED(all_bytes, emu_i, 64, 1)
EMU_MASKED(ints, emu_i, 16, 4)
EMU_MASKED(floats, emu_f, 16, 4)
#undef _mm_maskz_loadu_epi8
#undef _mm_mask_storeu_epi8
#undef _mm256_maskz_loadu_epi16
#undef _mm256_mask_storeu_epi16
#define _mm_maskz_loadu_epi8 emu_load_bytes
#define _mm_mask_storeu_epi8 emu_store_bytes
#define _mm256_maskz_loadu_epi16 emu_load_halves
#define _mm256_mask_storeu_epi16 emu_store_halves
#define _mm512_maskz_loadu_epi8 emu_load_all_bytes
#define _mm512_mask_storeu_epi8 emu_store_all_bytes
#define _mm512_maskz_loadu_epi32 emu_load_ints
#define _mm512_mask_storeu_epi32 emu_store_ints
#define _mm512_maskz_loadu_ps emu_load_floats
#define _mm512_mask_storeu_ps emu_store_floats

/* y[l] of x[l] */
#define EMU_MAP(name, to, from, y_type, x_type, value) \
  EMU to name(from v) {                                \
    x_type x;                                          \
    y_type y;                                          \
    x.v = v;                                           \
    EMU_EACH(16) value;                                    \
    return y.v;                                        \
  }
EMU int32_t emu_nearest(float f) { return _mm_cvtss_si32(_mm_set_ss(f)); }
EMU int32_t emu_truncated(float f) { return _mm_cvttss_si32(_mm_set_ss(f)); }
EMU_MAP(emu_widen_s16, emu_i, __m256i, emu_ints, emu_halves, y.s[l] = x.s[l])
EMU_MAP(emu_widen_u16, emu_i, __m256i, emu_ints, emu_halves, y.s[l] = x.u[l])
EMU_MAP(emu_widen_s8, emu_i, __m128i, emu_ints, emu_bytes, y.s[l] = x.s[l])
EMU_MAP(emu_widen_u8, emu_i, __m128i, emu_ints, emu_bytes, y.s[l] = x.u[l])
EMU_MAP(emu_float_of, emu_f, emu_i, emu_floats, emu_ints, y.f[l] = (float)x.s[l])
EMU_MAP(emu_round_to_int, emu_i, emu_f, emu_ints, emu_floats, y.s[l] = emu_nearest(x.f[l]))
EMU_MAP(emu_trunc_to_int, emu_i, emu_f, emu_ints, emu_floats, y.s[l] = emu_truncated(x.f[l]))
EMU_MAP(emu_to_u16, __m256i, emu_i, emu_halves, emu_ints,
        y.u[l] = (uint16_t)(x.u[l] > 65535 ? 65535 : x.u[l]))
EMU_MAP(emu_to_u8, __m128i, emu_i, emu_bytes, emu_ints, y.u[l] = (uint8_t)(x.u[l] > 255 ? 255 : x.u[l]))
#define _mm512_cvtepi16_epi32 emu_widen_s16
#define _mm512_cvtepu16_epi32 emu_widen_u16
#define _mm512_cvtepi8_epi32 emu_widen_s8
#define _mm512_cvtepu8_epi32 emu_widen_u8
#define _mm512_cvtepi32_ps emu_float_of
#define _mm512_cvtps_epi32 emu_round_to_int
#define _mm512_cvttps_epi32 emu_trunc_to_int
#define _mm512_maskz_cvtps_epi32(m, v) simde_mm512_maskz_mov_epi32(m, emu_round_to_int(v))
#define _mm512_cvtusepi32_epi16 emu_to_u16
#define _mm512_cvtusepi32_epi8 emu_to_u8

EMU float emu_first(emu_f v) { return ((emu_floats){v}).f[0]; }
#define _mm512_cvtss_f32 emu_first
EMU emu_f emu_from_f16(__m256i v) {
  const emu_halves x = {v};
  emu_floats y;
  EMU_EACH(2) y.half[l] = _mm256_cvtph_ps(x.half[l]);
  return y.v;
}
EMU __m256i emu_to_f16(emu_f v) {
  const emu_floats x = {v};
  emu_halves y;
  EMU_EACH(2) y.half[l] = _mm256_cvtps_ph(x.half[l], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return y.v;
}
#define _mm512_cvtph_ps emu_from_f16
#define _mm512_cvtps_ph(v, mode) emu_to_f16(v)

EMU emu_i emu_shuffled(emu_i v, int code) {
  const emu_ints x = {v};
  emu_ints y;
  EMU_EACH(16) y.s[l] = x.s[(l & ~3) + (code >> 2 * (l & 3) & 3)];
  return y.v;
}
#undef _mm512_shuffle_f32x4
#undef _mm512_madd_epi16
#define _mm512_shuffle_epi32(v, code) emu_shuffled(v, (int)(code))
#define _mm512_permute_ps(v, code) \
  simde_mm512_castsi512_ps(emu_shuffled(simde_mm512_castps_si512(v), code))
#define _mm512_shuffle_f32x4 simde_mm512_shuffle_f32x4
#define _mm512_madd_epi16 simde_mm512_madd_epi16

EMU emu_i emu_shifted(emu_i v, emu_i by) {
  emu_ints x = {v};
  const emu_ints n = {by};
  EMU_EACH(16) x.s[l] >>= n.u[l] > 31 ? 31 : n.u[l];
  return x.v;
}
EMU uint16_t emu_less(emu_i a, emu_i b) {
  const emu_ints x = {a}, y = {b};
  unsigned mask = 0;
  EMU_EACH(16) mask |= (unsigned)(x.s[l] < y.s[l]) << l;
  return (uint16_t)mask;
}
#define _mm512_srav_epi32 emu_shifted
#define _mm512_cmplt_epi32_mask emu_less

/* Whole numbers alone: SIMDe leaves halves as they are. */
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(v, mode)                                      \
  __extension__({                                                          \
    emu_floats rounded = {v};                                              \
    EMU_EACH(2) rounded.half[l] = _mm256_round_ps(rounded.half[l], mode);      \
    rounded.v;                                                             \
  })
/* v 2^floor(n), rounded once: SIMDe's power of two overflows before the product does. */
EMU emu_f emu_scaled(emu_f v, emu_f by) {
  emu_floats x = {v};
  const emu_floats n = {by};
  EMU_EACH(16) {
    const float bounded = n.f[l] > 700 ? 700 : n.f[l] < -700 ? -700 : n.f[l];
    union { uint64_t bits; double power; } two = {(uint64_t)(1023 + (int64_t)__builtin_floorf(bounded)) << 52};
    x.f[l] = n.f[l] == n.f[l] ? (float)((double)x.f[l] * two.power) : n.f[l];
  }
  return x.v;
}
#undef _mm512_scalef_ps
#define _mm512_scalef_ps emu_scaled

/* bfloat16: subnormal numbers are zero, and the second of a pair is multiplied first */
EMU float emu_flushed(float f) { return __builtin_fabsf(f) < 0x1p-126f ? __builtin_copysignf(0, f) : f; }
EMU float emu_bf16(uint16_t bits) {
  return emu_flushed(((union { uint32_t u; float f; }){(uint32_t)bits << 16}).f);
}
EMU __m256i emu_to_bf16(emu_f v) {
  const emu_floats x = {v};
  emu_halves y;
  EMU_EACH(16) {
    const uint32_t b = x.u[l], magnitude = b & 0x7fffffff;
    y.u[l] = (uint16_t)(magnitude > 0x7f800000   ? b >> 16 | 0x40
                        : magnitude < 0x00800000 ? b >> 16 & 0x8000
                                                 : (b + 0x7fff + (b >> 16 & 1)) >> 16);
  }
  return y.v;
}
EMU emu_f emu_dot_bf16(emu_f sums, emu_i a, emu_i b) {
  const emu_ints x = {a}, y = {b};
  emu_floats s = {sums};
  EMU_EACH(16) {
    for (int k = 2 * l + 1; k >= 2 * l; --k)
      s.f[l] = emu_flushed(__builtin_fmaf(emu_bf16(x.h[k]), emu_bf16(y.h[k]), emu_flushed(s.f[l])));
  }
  return s.v;
}
#undef _mm512_cvtneps_pbh
#undef _mm512_dpbf16_ps
#undef __m512bh
#define _mm512_cvtneps_pbh emu_to_bf16
#define _mm512_dpbf16_ps emu_dot_bf16
#define __m512bh emu_i

/* There is no register to keep a vector in, no load that flips, and no instruction to ask for. */
#define SP_IN_VECTOR(v) (void)0
#define SP_TURNED_QUADS
#define sp_set1_turned_quad(p) sp_flip_i32(sp_set1_quad(p))
#define SP_PROCESSOR_H

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512CD__ 1
#define __AVX512DQ__ 1
#define __AVX512VL__ 1
#ifdef SP_EMULATE_VNNI
#define __AVX512VNNI__ 1
#endif
#ifdef SP_EMULATE_BF16
#define __AVX512BF16__ 1
#define __AVX512VBMI__ 1
#endif

#endif
