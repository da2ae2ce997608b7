/* Up to eight bytes at any address as a number. */
#ifndef SP_BYTES_H
#define SP_BYTES_H

#include "../base.h"

/* Unaligned accesses that may alias any type. */
typedef uint16_t __attribute__((may_alias, aligned(1))) sp_u16_at;
typedef uint32_t __attribute__((may_alias, aligned(1))) sp_u32_at;
typedef uint64_t __attribute__((may_alias, aligned(1))) sp_u64_at;

/* The first n bytes at p, 0 <= n <= 8, zero extended; reads nothing else. */
SP_INLINE uint64_t sp_get_bytes(const void *p, int n) {
  const uint8_t *b = (const uint8_t *)p;
  if (n >= 8) return *(const sp_u64_at *)p;
  if (n >= 4)
    return (uint64_t)*(const sp_u32_at *)p | (uint64_t)*(const sp_u32_at *)(b + n - 4)
                                                 << (8 * (n - 4));
  if (n <= 0) return 0;
  return (uint64_t)b[0] | (uint64_t)b[n / 2] << (8 * (n / 2)) | (uint64_t)b[n - 1] << (8 * (n - 1));
}

/* Stores the low n bytes of v, 0 <= n <= 8. */
SP_INLINE void sp_put_bytes(void *p, uint64_t v, int n) {
  uint8_t *b = (uint8_t *)p;
  if (n >= 8) {
    *(sp_u64_at *)p = v;
  } else if (n >= 4) {
    *(sp_u32_at *)p = (uint32_t)v;
    *(sp_u32_at *)(b + n - 4) = (uint32_t)(v >> (8 * (n - 4)));
  } else if (n > 0) {
    if (n >= 2) *(sp_u16_at *)p = (uint16_t)v;
    b[n - 1] = (uint8_t)(v >> (8 * (n - 1)));
  }
}

#endif
