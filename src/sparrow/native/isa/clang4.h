/* What vocabularies of 4 lanes in vectors of fixed size share. Meaning of each name: isa/scalar.h. */
#ifndef SP_CLANG4_H
#define SP_CLANG4_H

#include "vectors.h"

typedef int8_t sp_s8x8 __attribute__((ext_vector_type(8)));
typedef int16_t sp_s16x8 __attribute__((ext_vector_type(8)));

/* lanes */
SP_INLINE sp_i32 sp_iota_i32(void) { return (sp_i32){0, 1, 2, 3}; }
SP_INLINE sp_i32 sp_gather_pair_i32(const int32_t *t, sp_i32 i, sp_i32 *next) {
  *next = (sp_i32){t[i[0] + 1], t[i[1] + 1], t[i[2] + 1], t[i[3] + 1]};
  return (sp_i32){t[i[0]], t[i[1]], t[i[2]], t[i[3]]};
}

/* Four halves or bytes as a number. A cast would repeat the number in every lane. */
typedef union sp_small {
  uint64_t number;
  sp_u16 halves;
  sp_s8 bytes;
  sp_u8 ubytes;
  sp_s8x8 octet;
} sp_small;

SP_INLINE sp_u16 sp_get_halves(const uint16_t *p, int n) {
  sp_small u;
  u.number = sp_get_bytes(p, n < SP_LANES ? 2 * n : 8);
  return u.halves;
}
SP_INLINE void sp_put_halves(uint16_t *p, sp_u32 v, int n) {
  sp_small u;
  u.halves = __builtin_convertvector(v, sp_u16);
  sp_put_bytes(p, u.number, n < SP_LANES ? 2 * n : 8);
}

SP_INLINE sp_i32 sp_loadn_i32(const int32_t *p, int n) {
  sp_i32 v = (sp_i32)(0);
  if (n >= SP_LANES) return sp_load_i32(p);
  if (n > 0) v.x = p[0];
  if (n > 1) v.y = p[1];
  if (n > 2) v.z = p[2];
  return v;
}
SP_INLINE void sp_storen_i32(int32_t *p, sp_i32 v, int n) {
  if (n >= SP_LANES) {
    sp_store_i32(p, v);
    return;
  }
  if (n > 0) p[0] = v.x;
  if (n > 1) p[1] = v.y;
  if (n > 2) p[2] = v.z;
}
SP_INLINE sp_f32 sp_loadn_f32(const float *p, int n) {
  sp_f32 v = (sp_f32)(0.0f);
  if (n >= SP_LANES) return sp_load_f32(p);
  if (n > 0) v.x = p[0];
  if (n > 1) v.y = p[1];
  if (n > 2) v.z = p[2];
  return v;
}
SP_INLINE void sp_storen_f32(float *p, sp_f32 v, int n) {
  if (n >= SP_LANES) {
    sp_store_f32(p, v);
    return;
  }
  if (n > 0) p[0] = v.x;
  if (n > 1) p[1] = v.y;
  if (n > 2) p[2] = v.z;
}
SP_INLINE sp_i32 sp_loadn_i8(const int8_t *p, int n) {
  sp_small u;
  u.number = sp_get_bytes(p, n < SP_LANES ? n : 4);
  return __builtin_convertvector(u.bytes, sp_i32);
}
SP_INLINE sp_i32 sp_loadn_u8(const uint8_t *p, int n) {
  sp_small u;
  u.number = sp_get_bytes(p, n < SP_LANES ? n : 4);
  return __builtin_convertvector(u.ubytes, sp_i32);
}
/* The low 4 bytes are the lanes, cut to int8 or uint8. */
SP_INLINE uint64_t sp_cut_i8(sp_i32 v);
SP_INLINE uint64_t sp_cut_u8(sp_i32 v);
SP_INLINE void sp_storen_i8(int8_t *p, sp_i32 v, int n) {
  sp_put_bytes(p, sp_cut_i8(v), n < SP_LANES ? n : 4);
}
SP_INLINE void sp_storen_u8(uint8_t *p, sp_i32 v, int n) {
  sp_put_bytes(p, sp_cut_u8(v), n < SP_LANES ? n : 4);
}
SP_INLINE sp_i32 sp_zip4_i8(const void *p, const void *q, const void *r, const void *s, int n) {
  const int k = n < SP_LANES ? n : SP_LANES;
  sp_small a, b;
  a.number = sp_get_bytes(p, k) | sp_get_bytes(q, k) << 32;
  b.number = sp_get_bytes(r, k) | sp_get_bytes(s, k) << 32;
  return (sp_i32)__builtin_shufflevector(a.octet, b.octet, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14,
                                         3, 7, 11, 15);
}
SP_INLINE sp_i32 sp_loadp_i32(const void *p) {
  sp_small u;
  u.number = *(const sp_u64_at *)p;
  return (sp_i32)__builtin_convertvector(u.octet, sp_s16x8);
}

/* reduce: lanes i and i+2, then i+1, as every header of 4 lanes */
SP_INLINE float sp_sum_f32(sp_f32 v) {
  v += v.zwxy;
  return v.x + v.y;
}
SP_INLINE float sp_hmax_f32(sp_f32 v) {
  v = sp_max_f32(v, v.zwxy);
  return sp_max_f32(v, v.yxwz).x;
}
SP_INLINE float sp_hmin_f32(sp_f32 v) {
  v = sp_min_f32(v, v.zwxy);
  return sp_min_f32(v, v.yxwz).x;
}

/* transpose: pairs, then halves */
SP_INLINE void sp_transpose_f32(sp_f32 *v) {
  const sp_f32 a = __builtin_shufflevector(v[0], v[1], 0, 4, 2, 6);
  const sp_f32 b = __builtin_shufflevector(v[0], v[1], 1, 5, 3, 7);
  const sp_f32 c = __builtin_shufflevector(v[2], v[3], 0, 4, 2, 6);
  const sp_f32 d = __builtin_shufflevector(v[2], v[3], 1, 5, 3, 7);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  v[1] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  v[2] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

/* 256-entry tables: y[i] = table[(x[i] + offset) & 255] */
SP_INLINE void sp_lookup_bytes(const uint8_t *table, const uint8_t *x, uint8_t *y, ptrdiff_t n,
                               int offset) {
  for (ptrdiff_t i = 0; i < n; ++i) y[i] = table[(x[i] + offset) & 255];
}

#endif
