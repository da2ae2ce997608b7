/* Vector vocabulary for RISC-V vectors (RVV 1.0): 16 lanes, on any vector length from 128 bits.
 * Meaning of each name: isa/scalar.h. clang >= 21 with -march=rv64gcv (zig: generic_rv64+...+v), or
 * gcc >= 12, which gives the same results: gcc 12 knows no vectors of this machine and takes the lanes
 * one by one.
 *
 * Written in vectors of fixed size: intrinsic types have none, so that no register tile could be an
 * array of them. The compiler puts 16 lanes into a group of registers, and says in each instruction
 * how many lanes it takes: four registers of 128 bits, and code for these runs on longer ones, of
 * which it then uses a part. Compiled for 512 bits (+zvl512b) a register holds all lanes. */
#ifndef SP_ISA_H
#define SP_ISA_H

#if !defined(__riscv_v)
#error "isa/rvv.h needs RISC-V with the V extension (-march=rv64gcv)"
#endif

#include "vectors.h"

#define SP_ISA_NAME "rvv"

typedef int16_t sp_s16 SP_VECTOR(int16_t, 16);
typedef int8_t sp_s8x32 SP_VECTOR(int8_t, 32);
typedef int16_t sp_s16x32 SP_VECTOR(int16_t, 32);
typedef sp_u16 sp_u16_any __attribute__((may_alias, aligned(1)));
typedef sp_s8 sp_s8_any __attribute__((may_alias, aligned(1)));
typedef sp_s8x32 sp_s8x32_any __attribute__((may_alias, aligned(1)));

#if defined(__clang__)
#include <riscv_vector.h>

/* Registers of 16 lanes of 8, 16 and 32 bits in the length that is compiled for. */
#if __riscv_v_min_vlen >= 512
#define SP_RVV_8 "mf4"
#define SP_RVV_16 "mf2"
#define SP_RVV_32 "m1"
#elif __riscv_v_min_vlen >= 256
#define SP_RVV_8 "mf2"
#define SP_RVV_16 "m1"
#define SP_RVV_32 "m2"
#else
#define SP_RVV_8 "m1"
#define SP_RVV_16 "m2"
#define SP_RVV_32 "m4"
#endif
/* For instructions that the compiler does not find by itself; their operands are integers: clang 22
 * fails on vectors of floats. */
#define SP_RVV_SET(n, bits, tail) \
  "vsetvli zero, " n ", e" #bits ", " SP_RVV_##bits ", " tail ", ma\n\t"
#define SP_RVV_ALL(bits) "vsetivli zero, 16, e" #bits ", " SP_RVV_##bits ", ta, ma\n\t"

SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) {
  return __builtin_elementwise_fma(a, b, c);
}
/* Of NaN and a number the number. */
SP_INLINE sp_f32 sp_number_max(sp_f32 a, sp_f32 b) { return __builtin_elementwise_max(a, b); }
SP_INLINE sp_f32 sp_number_min(sp_f32 a, sp_f32 b) { return __builtin_elementwise_min(a, b); }
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) {
  sp_i32 r;
  __asm__(SP_RVV_ALL(32) "vfcvt.x.f.v %0, %1" : "=vr"(r) : "vr"(sp_bits_f32(v)) : "vl", "vtype");
  return r;
}
/* Lanes at these distances in bytes. */
SP_INLINE sp_i32 sp_gather_i32(const int32_t *t, sp_i32 bytes) {
  sp_i32 r;
  __asm__ volatile(SP_RVV_ALL(32) "vluxei32.v %0, (%1), %2"
                   : "=&vr"(r)
                   : "r"(t), "vr"(bytes)
                   : "vl", "vtype", "memory");
  return r;
}
/* Some lanes by the vector length; others stay as they were. */
#define SP_RVV_LOAD(p, n, bits, type, r)                           \
  __asm__(SP_RVV_SET("%2", bits, "tu") "vle" #bits ".v %0, (%1)"   \
          : "+vr"(r)                                               \
          : "r"(p), "r"((ptrdiff_t)(n)), "m"(*(const type *)(p))   \
          : "vl", "vtype")
#define SP_RVV_STORE(p, v, n, bits, type)                          \
  __asm__(SP_RVV_SET("%3", bits, "ta") "vse" #bits ".v %1, (%2)"   \
          : "+m"(*(type *)(p))                                     \
          : "vr"(v), "r"(p), "r"((ptrdiff_t)(n))                   \
          : "vl", "vtype")
/* Were these known to be bytes, the compiler would multiply halves and widen them to add. */
SP_INLINE sp_s16 sp_unknown(sp_s16 v) {
  __asm__("" : "+vr"(v));
  return v;
}
SP_INLINE sp_f32 sp_column(const float *rows, int i) {
  sp_i32 column;
  __asm__(SP_RVV_ALL(32) "vlse32.v %0, (%1), %2"
          : "=vr"(column)
          : "r"(rows + i), "r"((ptrdiff_t)sizeof(float) * SP_LANES),
            "m"(*(const float(*)[SP_LANES * SP_LANES])rows)
          : "vl", "vtype");
  return sp_from_bits_f32(column);
}
/* 256-entry tables: y[i] = table[(x[i] + offset) & 255]; as many at once as four registers hold */
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  while (n > 0) {
    const size_t vl = __riscv_vsetvl_e8m4((size_t)n);
    const vuint8m4_t at = __riscv_vadd_vx_u8m4(__riscv_vle8_v_u8m4(x, vl), (uint8_t)offset, vl);
    __riscv_vse8_v_u8m4(y, __riscv_vluxei8_v_u8m4(table, at, vl), vl);
    x += vl, y += vl, n -= (ptrdiff_t)vl;
  }
}
#else
/* The same lane by lane. */
SP_INLINE sp_f32 sp_fma_f32(sp_f32 a, sp_f32 b, sp_f32 c) {
  for (int i = 0; i < SP_LANES; ++i) a[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return a;
}
/* By name: the builtin function calls one that sets errno. */
SP_INLINE sp_f32 sp_sqrt_f32(sp_f32 v) {
  for (int i = 0; i < SP_LANES; ++i) {
    float lane;
    __asm__("fsqrt.s %0, %1" : "=f"(lane) : "f"(v[i]));
    v[i] = lane;
  }
  return v;
}
SP_INLINE sp_f32 sp_number_max(sp_f32 a, sp_f32 b) { return sp_select_f32(a > b, a, b); }
SP_INLINE sp_f32 sp_number_min(sp_f32 a, sp_f32 b) { return sp_select_f32(a < b, a, b); }
SP_INLINE sp_i32 sp_rne_f32_i32(sp_f32 v) {
  sp_i32 r = {0};
  for (int i = 0; i < SP_LANES; ++i) {
    int32_t lane;
    __asm__("fcvt.w.s %0, %1, rne" : "=r"(lane) : "f"(v[i]));
    r[i] = lane;
  }
  return r;
}
SP_INLINE sp_i32 sp_gather_i32(const int32_t *t, sp_i32 bytes) {
  for (int i = 0; i < SP_LANES; ++i) bytes[i] = t[bytes[i] >> 2];
  return bytes;
}
#define SP_RVV_LOAD(p, n, bits, type, r)  \
  for (int i = 0; i < SP_LANES; ++i)      \
    if (i < (n)) (r)[i] = ((const __typeof__((r)[0]) *)(p))[i]
#define SP_RVV_STORE(p, v, n, bits, type) \
  for (int i = 0; i < SP_LANES; ++i)      \
    if (i < (n)) ((__typeof__((v)[0]) *)(p))[i] = (v)[i]
SP_INLINE sp_s16 sp_unknown(sp_s16 v) { return v; }
SP_INLINE sp_f32 sp_column(const float *rows, int i) {
  sp_f32 v = {0.0f};
  for (int k = 0; k < SP_LANES; ++k) v[k] = rows[SP_LANES * k + i];
  return v;
}
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  for (ptrdiff_t i = 0; i < n; ++i) y[i] = table[(x[i] + offset) & 255];
}
#endif

/* C has no vector ?:, and this form of it becomes vmerge */
SP_INLINE sp_i32 sp_select_i32(sp_mask m, sp_i32 a, sp_i32 b) { return (m & a) | (~m & b); }

SP_INLINE sp_f32 sp_fnma_f32(sp_f32 a, sp_f32 b, sp_f32 c) { return sp_fma_f32(-a, b, c); }
SP_INLINE sp_f32 sp_maxq_f32(sp_f32 a, sp_f32 b) { return sp_select_f32(a > b, a, b); }
SP_INLINE sp_f32 sp_minq_f32(sp_f32 a, sp_f32 b) { return sp_select_f32(a < b, a, b); }
SP_INLINE sp_f32 sp_max_f32(sp_f32 a, sp_f32 b) {
  return sp_select_f32(a != a, a, sp_select_f32(b != b, b, sp_number_max(a, b)));
}
SP_INLINE sp_f32 sp_min_f32(sp_f32 a, sp_f32 b) {
  return sp_select_f32(a != a, a, sp_select_f32(b != b, b, sp_number_min(a, b)));
}

/* convert */
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

/* lanes */
SP_INLINE sp_i32 sp_iota_i32(void) {
  return (sp_i32){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}
SP_INLINE sp_i32 sp_gather_pair_i32(const int32_t *t, sp_i32 i, sp_i32 *next) {
  *next = sp_gather_i32(t + 1, i << 2);
  return sp_gather_i32(t, i << 2);
}

/* memory */
SP_INLINE sp_i32 sp_loadn_i32(const int32_t *p, int n) {
  const void *const from = p;
  sp_i32 v = sp_set1_i32(0);
  if (n >= SP_LANES) return sp_load_i32(p);
  SP_RVV_LOAD(from, n, 32, sp_i32_any, v);
  return v;
}
SP_INLINE sp_f32 sp_loadn_f32(const float *p, int n) {
  return sp_from_bits_f32(sp_loadn_i32((const int32_t *)(const void *)p, n));
}
SP_INLINE void sp_storen_i32(int32_t *p, sp_i32 v, int n) {
  void *const to = p;
  if (n >= SP_LANES)
    sp_store_i32(p, v);
  else
    SP_RVV_STORE(to, v, n, 32, sp_i32_any);
}
SP_INLINE void sp_storen_f32(float *p, sp_f32 v, int n) {
  sp_storen_i32((int32_t *)(void *)p, sp_bits_f32(v), n);
}
SP_INLINE sp_u16 sp_get_halves(const uint16_t *p, int n) {
  const void *const from = p;
  sp_u16 v = {0};
  if (n >= SP_LANES) return *(const sp_u16_any *)from;
  SP_RVV_LOAD(from, n, 16, sp_u16_any, v);
  return v;
}
SP_INLINE void sp_put_halves(uint16_t *p, sp_u32 v, int n) {
  void *const to = p;
  const sp_u16 low = __builtin_convertvector(v, sp_u16);
  if (n >= SP_LANES)
    *(sp_u16_any *)to = low;
  else
    SP_RVV_STORE(to, low, n, 16, sp_u16_any);
}
SP_INLINE sp_s8 sp_get_codes(const void *p, int n) {
  sp_s8 v = {0};
  if (n >= SP_LANES) return *(const sp_s8_any *)p;
  SP_RVV_LOAD(p, n, 8, sp_s8_any, v);
  return v;
}
SP_INLINE void sp_put_codes(void *p, sp_s8 v, int n) {
  if (n >= SP_LANES)
    *(sp_s8_any *)p = v;
  else
    SP_RVV_STORE(p, v, n, 8, sp_s8_any);
}
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n) {
  return __builtin_convertvector(sp_get_codes(p, n), sp_i32);
}
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n) {
  return __builtin_convertvector((sp_u8)sp_get_codes(p, n), sp_i32);
}
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n) {
  const sp_i32 cut = sp_max_i32(sp_min_i32(v, sp_set1_i32(127)), sp_set1_i32(-128));
  sp_put_codes(p, __builtin_convertvector(cut, sp_s8), n);
}
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n) {
  const sp_i32 cut = sp_max_i32(sp_min_i32(v, sp_set1_i32(255)), sp_set1_i32(0));
  sp_put_codes(p, (sp_s8)__builtin_convertvector(cut, sp_u8), n);
}

/* quads and pairs of bytes */
#define SP_RVV_ZIP(a, b)                                                                          \
  __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, \
                          25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
SP_INLINE sp_s8x32 sp_zip_codes(const void *p, const void *q, int n) {
  const sp_s8 a = sp_get_codes(p, n), b = sp_get_codes(q, n);
  return SP_RVV_ZIP(a, b);
}
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  const sp_s16 low = (sp_s16)sp_zip_codes(p, q, n), high = (sp_s16)sp_zip_codes(r, s, n);
  return (sp_i32)SP_RVV_ZIP(low, high);
}
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  return (sp_i32)__builtin_convertvector(sp_zip_codes(p, q, n), sp_s16x32);
}
SP_INLINE sp_i32 sp_loadp_i32(const void *p) {
  return (sp_i32)__builtin_convertvector(*(const sp_s8x32_any *)p, sp_s16x32);
}

#define SP_SINGLES
typedef sp_s16 sp_single;
/* Products of halves are added to words in one instruction. Those of an operand that several
 * products share, or that is the same in all lanes, are taken apart once. */
SP_INLINE sp_s16 sp_half(sp_i32 v, int k) { return __builtin_convertvector(v >> 16 * k, sp_s16); }
SP_INLINE sp_s16 sp_byte(sp_i32 v, int k) {
  const sp_s16 h = sp_half(v, k / 2);
  return sp_unknown((k % 2 ? h : (sp_s16)((sp_u16)h << (uint16_t)8)) >> (int16_t)8);
}
SP_INLINE sp_i32 sp_add_product(sp_i32 acc, sp_s16 a, sp_s16 b) {
  const sp_i32 p = __builtin_convertvector(a, sp_i32) * __builtin_convertvector(b, sp_i32);
  return sp_add_i32(acc, p);
}
SP_INLINE sp_single sp_set1_single(int code) { return (int16_t)code + (sp_s16){0}; }
SP_INLINE sp_single sp_loadn_single(const void *p, int n, int flip) {
  const sp_s8 v = sp_get_codes(p, n);
  return __builtin_convertvector(flip ? v ^ (int8_t)-128 : v, sp_s16);
}
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  const sp_i32 low = sp_add_product(acc, sp_half(a, 0), sp_half(b, 0));
  return sp_add_product(low, sp_half(a, 1), sp_half(b, 1));
}
#define SP_DOT_UNSIGNED 0
SP_INLINE sp_i32 sp_dot4_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  SP_UNROLL
  for (int k = 0; k < 4; ++k) acc = sp_add_product(acc, sp_byte(a, k), sp_byte(b, k));
  return acc;
}
/* Bytes of a quad of a pixel are in scalar registers: a product takes one of them for all lanes. */
#define SP_GROUP 1
typedef struct sp_group {
  int bytes[4];
} sp_group;
SP_INLINE sp_group sp_loadn_group(const void *p, int quads) {
  const int8_t *const b = (const int8_t *)p;
  (void)quads;
  return (sp_group){{b[0], b[1], b[2], b[3]}};
}
SP_INLINE sp_group sp_flip_group(sp_group v) {
  SP_UNROLL
  for (int k = 0; k < 4; ++k) v.bytes[k] ^= -128;
  return v;
}
SP_INLINE sp_i32 sp_dot_group_i32(sp_i32 acc, sp_group a, int j, sp_i32 b, int tame,
                                   int apart) {
  (void)j, (void)tame, (void)apart;
  SP_UNROLL
  for (int k = 0; k < 4; ++k)
    acc = sp_add_i32(acc, __builtin_convertvector(sp_byte(b, k), sp_i32) * a.bytes[k]);
  return acc;
}

/* reduce: lanes i and i+8, then i+4, i+2, i+1, as every header of 16 lanes */
#define SP_RVV_REDUCE(op, v)                                                                      \
  do {                                                                                            \
    v = op(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, -1, -1, -1, -1, -1, -1, \
                                      -1, -1));                                                   \
    v = op(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,   \
                                      -1, -1));                                                   \
    v = op(v, __builtin_shufflevector(v, v, 2, 3, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, \
                                      -1, -1));                                                   \
    v = op(v, __builtin_shufflevector(v, v, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,    \
                                      -1, -1, -1));                                               \
  } while (0)
SP_INLINE float sp_sum_f32(sp_f32 v) {
  SP_RVV_REDUCE(sp_add_f32, v);
  return v[0];
}
SP_INLINE float sp_hmax_f32(sp_f32 v) {
  SP_RVV_REDUCE(sp_max_f32, v);
  return v[0];
}
SP_INLINE float sp_hmin_f32(sp_f32 v) {
  SP_RVV_REDUCE(sp_min_f32, v);
  return v[0];
}

/* transpose: columns of a copy in memory */
SP_INLINE void sp_transpose_f32(sp_f32 *v) {
  float rows[SP_LANES * SP_LANES];
  SP_UNROLL
  for (int i = 0; i < SP_LANES; ++i) sp_store_f32(rows + SP_LANES * i, v[i]);
  SP_UNROLL
  for (int i = 0; i < SP_LANES; ++i) v[i] = sp_column(rows, i);
}

#endif
