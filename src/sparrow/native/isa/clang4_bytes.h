/* Bytes and products of halves where an instruction set of 4 lanes has nothing of its own for them: left to
 * clang. */
#ifndef SP_CLANG4_BYTES_H
#define SP_CLANG4_BYTES_H

#include "clang4.h"

SP_INLINE uint64_t sp_low_bytes(sp_i32 v) {
  sp_small u;
  u.number = 0;
  u.bytes = __builtin_convertvector(v, sp_s8);
  return u.number;
}
SP_INLINE uint64_t sp_cut_i8(sp_i32 v) {
  return sp_low_bytes(sp_max_i32(sp_min_i32(v, (sp_i32)(127)), (sp_i32)(-128)));
}
SP_INLINE uint64_t sp_cut_u8(sp_i32 v) {
  return sp_low_bytes(sp_max_i32(sp_min_i32(v, (sp_i32)(255)), (sp_i32)(0)));
}
SP_INLINE sp_i32 sp_zip2_i8(const void *p, const void *q, int n) {
  const int k = n < SP_LANES ? n : SP_LANES;
  sp_small u;
  u.number = sp_get_bytes(p, k) | sp_get_bytes(q, k) << 32;
  u.octet = __builtin_shufflevector(u.octet, u.octet, 0, 4, 1, 5, 2, 6, 3, 7);
  return (sp_i32)__builtin_convertvector(u.octet, sp_s16x8);
}

/* products of halves */
SP_INLINE sp_i32 sp_dot2_i32(sp_i32 acc, sp_i32 a, sp_i32 b) {
  return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
}

#endif
