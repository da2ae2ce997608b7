/* y[i] = table[x[i] - lowest code], over 8-bit codes: 256 elements of 1, 2 or 4 bytes. Included after
 * isa/<isa>.h. offset is 128 for signed codes, else 0. Rows of n elements, the last of a dense tensor
 * shorter, lie ldx and ldy elements apart. Tasks are task_rows rows each. */
#ifndef SP_LOOKUP_H
#define SP_LOOKUP_H
#include "../base.h"

typedef struct sp_lookup {
  ptrdiff_t size, n, ldx, ldy, task_rows;
  int offset;
} sp_lookup;

/* Where a task ends: at an element of y were it dense. */
SP_INLINE ptrdiff_t sp_lookup_end(const sp_lookup p, int task) {
  return sp_imin(p.size, (task + 1) * p.task_rows * p.n);
}

SP_INLINE void sp_lookup_8(const sp_lookup p, const void *x, const void *table, void *y, int task) {
  const ptrdiff_t end = sp_lookup_end(p, task);
  ptrdiff_t row = task * p.task_rows;
#ifdef SP_LOOKS_UP_ROWS
  if (p.n == 16 || p.n == 32) {
    const ptrdiff_t together = 64 / p.n, rows = (end / p.n - row) / together * together;
    sp_lookup_rows((const uint8_t *)table, (const uint8_t *)x + row * p.ldx, p.ldx,
                   (uint8_t *)y + row * p.ldy, p.ldy, rows, (int)p.n, p.offset);
    row += rows;
  }
#endif
  for (; row * p.n < end; ++row)
    sp_lookup_bytes((const uint8_t *)table, (const uint8_t *)x + row * p.ldx,
                    (uint8_t *)y + row * p.ldy, sp_imin(end - row * p.n, p.n), p.offset);
}

#define SP_DEFINE_LOOKUP(bits)                                                                     \
  SP_INLINE void sp_lookup_##bits(const sp_lookup p, const void *x, const void *table, void *y,    \
                                  int task) {                                                      \
    const uint##bits##_t *t = (const uint##bits##_t *)table;                                       \
    const ptrdiff_t end = sp_lookup_end(p, task);                                                  \
    for (ptrdiff_t row = task * p.task_rows; row * p.n < end; ++row) {                             \
      const uint8_t *from = (const uint8_t *)x + row * p.ldx;                                      \
      uint##bits##_t *to = (uint##bits##_t *)y + row * p.ldy;                                      \
      const ptrdiff_t n = sp_imin(end - row * p.n, p.n);                                           \
      for (ptrdiff_t i = 0; i < n; ++i) to[i] = t[(from[i] + p.offset) & 255];                     \
    }                                                                                              \
  }
SP_DEFINE_LOOKUP(16)
SP_DEFINE_LOOKUP(32)

/* Of codes of 16 bits, between two of 513 entries 128 codes apart, in 2^-7 steps of y; the codes of
 * ops/lookup_linear.py. zero, low and high belong to y. */
typedef struct sp_lookup_linear {
  ptrdiff_t size, task_size;
  int zero, low, high;
} sp_lookup_linear;

SP_INLINE sp_i32 sp_lookup_linear_codes(const sp_lookup_linear p, sp_i32 x, const int32_t *table) {
  const sp_i32 least = sp_set1_i32(-32768), most = sp_set1_i32(32767), step = sp_set1_i32(128);
  const sp_i32 at = sp_sub_i32(sp_min_i32(sp_max_i32(x, least), most), least);
  const sp_i32 i = sp_shr_i32(at, 7), o = sp_and_i32(at, sp_set1_i32(127));
  sp_i32 next;
  const sp_i32 a = sp_mul_i32(sp_gather_pair_i32(table, i, &next), sp_sub_i32(step, o));
  const sp_i32 b = sp_mul_i32(next, o);
  const sp_i32 v = sp_shr_i32(sp_add_i32(sp_add_i32(a, b), sp_set1_i32(1 << 13)), 14);
  return sp_min_i32(sp_max_i32(sp_add_i32(v, sp_set1_i32(p.zero)), sp_set1_i32(p.low)),
                    sp_set1_i32(p.high));
}

#define SP_DEFINE_LOOKUP_LINEAR(x_suffix, x_type, y_suffix, y_type)                                 \
  SP_INLINE void sp_lookup_linear_##x_suffix##_##y_suffix(                                          \
      const sp_lookup_linear p, const x_type *x, const int32_t *table, y_type *y, int task) {       \
    const ptrdiff_t hi = sp_imin(p.size, (task + 1) * p.task_size);                                 \
    ptrdiff_t i = task * p.task_size;                                                               \
    for (; i + SP_LANES <= hi; i += SP_LANES)                                                       \
      sp_store_##y_suffix(y + i, sp_lookup_linear_codes(p, sp_load_##x_suffix(x + i), table));      \
    if (i < hi) {                                                                                   \
      const int n = (int)(hi - i);                                                                  \
      sp_storen_##y_suffix(y + i, sp_lookup_linear_codes(p, sp_loadn_##x_suffix(x + i, n), table),  \
                           n);                                                                      \
    }                                                                                               \
  }
#define SP_DEFINE_LOOKUP_LINEAR_FROM(x_suffix, x_type)              \
  SP_DEFINE_LOOKUP_LINEAR(x_suffix, x_type, i8, int8_t)             \
  SP_DEFINE_LOOKUP_LINEAR(x_suffix, x_type, u8, uint8_t)            \
  SP_DEFINE_LOOKUP_LINEAR(x_suffix, x_type, i16, int16_t)           \
  SP_DEFINE_LOOKUP_LINEAR(x_suffix, x_type, i32, int32_t)
SP_DEFINE_LOOKUP_LINEAR_FROM(i16, int16_t)
SP_DEFINE_LOOKUP_LINEAR_FROM(i32, int32_t)
#endif
