/* y[i] = table[x[i] - lowest code], over 8-bit codes: 256 elements of 1, 2 or 4 bytes. Included after
 * isa/<isa>.h. offset is 128 for signed codes, else 0. Tasks are runs of task_size elements. */
#ifndef SP_LOOKUP_H
#define SP_LOOKUP_H
#include "../base.h"

typedef struct sp_lookup {
  ptrdiff_t size, task_size;
  int offset;
} sp_lookup;

SP_INLINE void sp_lookup_8(const sp_lookup p, const void *x, const void *table, void *y, int task) {
  const ptrdiff_t lo = task * p.task_size;
  sp_lookup_bytes((const uint8_t *)table, (const uint8_t *)x + lo, (uint8_t *)y + lo,
                  sp_imin(p.size - lo, p.task_size), p.offset);
}

#define SP_DEFINE_LOOKUP(bits)                                                                     \
  SP_INLINE void sp_lookup_##bits(const sp_lookup p, const void *x, const void *table, void *y,    \
                                  int task) {                                                      \
    const uint8_t *from = (const uint8_t *)x;                                                      \
    const uint##bits##_t *t = (const uint##bits##_t *)table;                                       \
    uint##bits##_t *to = (uint##bits##_t *)y;                                                      \
    const ptrdiff_t hi = sp_imin(p.size, (task + 1) * p.task_size);                                \
    for (ptrdiff_t i = task * p.task_size; i < hi; ++i) to[i] = t[(from[i] + p.offset) & 255];     \
  }
SP_DEFINE_LOOKUP(16)
SP_DEFINE_LOOKUP(32)
#endif
