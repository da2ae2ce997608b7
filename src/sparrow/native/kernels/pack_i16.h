/* Operands of products of halves from codes of 16 bits that are known at run time: as pack_i8.h packs
 * bytes, with pairs for quads. Included after isa/<isa>.h. */
#ifndef SP_PACK_I16_H
#define SP_PACK_I16_H

#include "../base.h"
#include "pack_i8.h"

/* A code without its last `lost` bits, halves up: as a half it fits where lost > 0. */
SP_INLINE int32_t sp_shortened(int16_t v, int lost) { return lost ? (v + (1 << (lost - 1))) >> lost : v; }

/* A row of k codes, zeros up to the last of `quads` pairs. */
SP_INLINE void sp_pack_row_i16(int k, int quads, const int16_t *from, int lost, int16_t *to) {
  for (int c = 0; c < k; ++c) to[c] = (int16_t)sp_shortened(from[c], lost);
  for (int c = k; c < 2 * quads; ++c) to[c] = 0;
}

/* Lane by lane: the low half of a, and that of b above it. */
SP_INLINE sp_i32 sp_zip_halves(sp_i32 a, sp_i32 b) {
  return sp_or_i32(sp_and_i32(a, sp_set1_i32(0xffff)), sp_shl_i32(b, 16));
}

/* n columns of k dense codes, `ld` from each other, to [n / L][quads][L] pairs; zeros around them. */
SP_INLINE void sp_pack_columns_i16(int n, int k, int quads, const int16_t *from, ptrdiff_t ld, int lost,
                                   int32_t *to) {
  for (int j = 0; j < n; j += SP_LANES, to += quads * SP_LANES)
    for (int l = 0; l < SP_LANES; ++l) {
      const int16_t *const column = from + (j + l) * ld;
      const int have = j + l < n ? k : 0;
      for (int c = 0; c < quads; ++c) {
        const uint32_t a = 2 * c < have ? (uint32_t)sp_shortened(column[2 * c], lost) : 0;
        const uint32_t b = 2 * c + 1 < have ? (uint32_t)sp_shortened(column[2 * c + 1], lost) : 0;
        to[c * SP_LANES + l] = (int32_t)((a & 0xffffu) | b << 16);
      }
    }
}

/* The same of k rows of n dense codes, their low bytes at `low` and their high ones at `high`; past the
 * last row stands the last again, and past the last column anything: neither may count. */
SP_INLINE void sp_pack_digits_i16(int n, int k, int quads, const int16_t *from, ptrdiff_t ld,
                                  int32_t *low, int32_t *high) {
  const sp_i32 byte = sp_set1_i32(255);
  for (int j = 0; j < n; j += SP_LANES) {
    const int lanes = (int)sp_imin(SP_LANES, n - j);
    for (int c = 0; c < quads; ++c, low += SP_LANES, high += SP_LANES) {
      const sp_i32 a = sp_loadn_i16(from + sp_imin(2 * c, k - 1) * ld + j, lanes);
      const sp_i32 b = sp_loadn_i16(from + sp_imin(2 * c + 1, k - 1) * ld + j, lanes);
      sp_storeq_i32(low, sp_zip_halves(sp_and_i32(a, byte), sp_and_i32(b, byte)));
      sp_storeq_i32(high, sp_zip_halves(sp_shr_i32(a, 8), sp_shr_i32(b, 8)));
    }
  }
}
#endif
