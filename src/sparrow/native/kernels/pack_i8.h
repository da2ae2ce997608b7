/* Operands of products of bytes that are known at run time, packed as weights are at build time: a
 * vector of columns, quads of products of each. Included after isa/<isa>.h.
 *
 * pair is SP_PAIRED where sums are taken by sp_dot2_i32 over halves, else 0; a quad is a pair then. */
#ifndef SP_PACK_I8_H
#define SP_PACK_I8_H

#include "../base.h"
#include "tile_i8.h"

SP_INLINE int sp_up_to(int n, int unit) { return (n + unit - 1) / unit * unit; }
/* Products that a lane takes at once, and quads of k of them. */
SP_INLINE int sp_pack_per(int pair) { return pair ? 2 : 4; }
SP_INLINE int sp_pack_quads(int pair, int k) {
  return sp_up_to(k, sp_pack_per(pair)) / sp_pack_per(pair);
}

/* A tile of m rows of bytes at distance `line`, over the first `used` quads of which a vector has
 * `quads`. */
SP_INLINE sp_tile_i8 sp_pack_tile(int pair, int m, int nv, int used, int quads, ptrdiff_t line) {
  const ptrdiff_t quad = 4 * SP_LANES;
  const sp_tile_i8 t = {.mr = m, .nv = nv, .kh = 1, .runs = 1, .kq = used, .xp = line,
                        .bv = quads * quad, .quad = quad, .pair = pair};
  return t;
}

/* Up to four bytes as a quad, or two as a pair of halves; the rest 0. */
SP_INLINE int32_t sp_pack_quad(int pair, const uint8_t *from, int n, int flip) {
  const int per = sp_pack_per(pair);
  uint32_t v = 0;
  if (!pair && n >= per) return (int32_t)((uint32_t)sp_quad(from) ^ (flip ? 0x80808080u : 0u));
  for (int i = 0; i < per && i < n; ++i) {
    const uint32_t byte = from[i] ^ (flip ? 128u : 0u);
    v |= pair ? (((byte ^ 128u) - 128u) & 0xffffu) << (16 * i) : byte << (8 * i);
  }
  return (int32_t)v;
}

/* SP_LANES quads of as many columns. */
SP_INLINE void sp_pack_square_i8(int pair, const uint8_t *from, ptrdiff_t ld, int flip, int32_t *to) {
  sp_f32 v[SP_LANES];
  SP_UNROLL
  for (int l = 0; l < SP_LANES; ++l) {
    sp_i32 z = pair ? sp_loadp_i32(from + l * ld) : sp_loadq_i32(from + l * ld);
    if (flip) z = pair ? sp_xor_i32(z, sp_set1_i32((int32_t)0xff80ff80u)) : sp_flip_i32(z);
    v[l] = sp_from_bits_f32(z);
  }
  sp_transpose_f32(v);
  SP_UNROLL
  for (int c = 0; c < SP_LANES; ++c) sp_store_i32(to + c * SP_LANES, sp_bits_f32(v[c]));
}

/* n columns of k dense bytes, `ld` from each other, to [n / L][quads][L] quads; zeros around them. */
SP_INLINE void sp_pack_columns_i8(int pair, int n, int k, int quads, const uint8_t *from,
                                  ptrdiff_t ld, int flip, int32_t *to) {
  const int per = sp_pack_per(pair), squares = k / (per * SP_LANES);
  for (int j = 0; j < n; j += SP_LANES, to += quads * SP_LANES) {
    const int whole = j + SP_LANES <= n ? squares * SP_LANES : 0;
    for (int c = 0; c < whole; c += SP_LANES)
      sp_pack_square_i8(pair, from + j * ld + per * c, ld, flip, to + c * SP_LANES);
    for (int l = 0; l < SP_LANES; ++l) {
      const uint8_t *const column = from + (j + l) * ld;
      const int have = j + l < n ? k : 0;
      for (int c = whole; c < quads; ++c)
        to[c * SP_LANES + l] =
            have > 0 ? sp_pack_quad(pair, column + per * c, have - per * c, flip) : 0;
    }
  }
}

/* The same of k rows of n dense bytes; past the last row stands the last again, and
 * past the last column anything: neither may count. */
SP_INLINE void sp_pack_rows_i8(int pair, int n, int k, int quads, const uint8_t *from, ptrdiff_t ld,
                               int flip, int32_t *to) {
  const int per = sp_pack_per(pair);
  for (int j = 0; j < n; j += SP_LANES) {
    const int lanes = (int)sp_imin(SP_LANES, n - j);
    for (int c = 0; c < quads; ++c, to += SP_LANES) {
      const uint8_t *at[4];
      sp_i32 z;
      SP_UNROLL
      for (int i = 0; i < 4; ++i) at[i] = from + sp_imin(per * c + i, k - 1) * ld + j;
      if (pair) {
        z = sp_zip2_i8(at[0], at[1], lanes);
        if (flip) z = sp_xor_i32(z, sp_set1_i32((int32_t)0xff80ff80u));
      } else {
        z = sp_zip4_i8(at[0], at[1], at[2], at[3], lanes);
        if (flip) z = sp_flip_i32(z);
      }
      sp_storeq_i32(to, z);
    }
  }
}

/* Where sums over packed vectors begin: -zero times the sum of a column's k bytes. `ones` is room for
 * one row. */
SP_INLINE void sp_pack_start_i8(int pair, int vectors, int k, int quads, const int32_t *packed,
                                int32_t zero, uint8_t *ones, int32_t *start) {
  for (int c = 0; c < 4 * quads; ++c) ones[c] = pair ? (c & 1) == 0 && c / 2 < k : c < k;
  for (int v = 0; v < vectors; ++v, packed += quads * SP_LANES, start += SP_LANES) {
    sp_i32 sum = sp_set1_i32(0);
    sp_tile_dots_i8(sp_pack_tile(pair, 1, 1, quads, quads, 0), ones, (const int8_t *)packed, &sum);
    sp_store_i32(start, sp_mul_i32(sum, sp_set1_i32(-zero)));
  }
}

/* A row of k bytes as products take it, zeros up to the last of `quads`. */
SP_INLINE void sp_pack_row_i8(int pair, int k, int quads, const uint8_t *from, int flip, uint8_t *to) {
  for (int c = k; c < sp_pack_per(pair) * quads; ++c) {
    if (pair)
      ((int16_t *)(void *)to)[c] = 0;
    else
      to[c] = 0;
  }
  if (pair)
    sp_copy_pairs((int16_t *)(void *)to, from, k, flip);
  else
    sp_copy_i8(to, from, k, flip);
}
#endif
