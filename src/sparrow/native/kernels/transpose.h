/* Transposing copies: y[i * ldy + j] = x[j * ldx + i] for i < rows, j < cols, in tiles that stay in
 * registers or in a few cache lines. Distances are in elements; y must not alias x. */
#ifndef SP_TRANSPOSE_H
#define SP_TRANSPOSE_H

#include "../base.h"

#define SP_TRANSPOSE_TILE 16

#define SP_DEFINE_TRANSPOSE(name, type)                                                        \
  SP_OUTLINE void name(type *y, ptrdiff_t ldy, const type *x, ptrdiff_t ldx, ptrdiff_t rows,   \
                       ptrdiff_t cols) {                                                       \
    for (ptrdiff_t i0 = 0; i0 < rows; i0 += SP_TRANSPOSE_TILE) {                               \
      const ptrdiff_t i1 = sp_imin(i0 + SP_TRANSPOSE_TILE, rows);                              \
      for (ptrdiff_t j0 = 0; j0 < cols; j0 += SP_TRANSPOSE_TILE) {                             \
        const ptrdiff_t j1 = sp_imin(j0 + SP_TRANSPOSE_TILE, cols);                            \
        for (ptrdiff_t i = i0; i < i1; ++i)                                                    \
          for (ptrdiff_t j = j0; j < j1; ++j) y[i * ldy + j] = x[j * ldx + i];                 \
      }                                                                                        \
    }                                                                                          \
  }

#if defined(__GNUC__) && (UINTPTR_MAX > 0xffffffff || defined(__wasm__))
typedef uint64_t __attribute__((may_alias, aligned(1))) sp_word_at;

/* n x n elements are n words of 64 bits: halves of words half of n apart change places, then
 * quarters, .. (Warren, Hacker's Delight, 7-3). The first of `a` and the second of `b`: */
#define SP_SWAP_HALVES(a, b, bits, mask)                                                       \
  do {                                                                                         \
    const uint64_t sp_t = (((a) >> (bits)) ^ (b)) & (mask);                                    \
    (b) ^= sp_t;                                                                               \
    (a) ^= sp_t << (bits);                                                                     \
  } while (0)

SP_INLINE void sp_transpose_8x8(uint64_t *v) {
  SP_UNROLL
  for (int k = 0; k < 4; ++k) SP_SWAP_HALVES(v[k], v[k + 4], 32, 0x00000000ffffffffu);
  SP_UNROLL
  for (int k = 0; k < 4; ++k) {
    const int at = k / 2 * 4 + k % 2;
    SP_SWAP_HALVES(v[at], v[at + 2], 16, 0x0000ffff0000ffffu);
  }
  SP_UNROLL
  for (int k = 0; k < 8; k += 2) SP_SWAP_HALVES(v[k], v[k + 1], 8, 0x00ff00ff00ff00ffu);
}

SP_INLINE void sp_transpose_4x4(uint64_t *v) {
  SP_SWAP_HALVES(v[0], v[2], 32, 0x00000000ffffffffu);
  SP_SWAP_HALVES(v[1], v[3], 32, 0x00000000ffffffffu);
  SP_SWAP_HALVES(v[0], v[1], 16, 0x0000ffff0000ffffu);
  SP_SWAP_HALVES(v[2], v[3], 16, 0x0000ffff0000ffffu);
}

/* Along the side whose rows are far apart, where they may all meet in one set of a cache, only n
 * rows are walked at a time, each for a line; the rest is left to single elements. */
#define SP_DEFINE_TRANSPOSE_WORDS(name, type, n)                                               \
  SP_OUTLINE void name(type *y, ptrdiff_t ldy, const type *x, ptrdiff_t ldx, ptrdiff_t rows,   \
                       ptrdiff_t cols) {                                                       \
    const ptrdiff_t whole_rows = rows - rows % n, whole_cols = cols - cols % n;                \
    const ptrdiff_t tile_rows = ldx >= ldy ? 8 * n : n, tile_cols = ldx >= ldy ? n : 8 * n;    \
    for (ptrdiff_t i0 = 0; i0 < whole_rows; i0 += tile_rows) {                                 \
      const ptrdiff_t i1 = sp_imin(i0 + tile_rows, whole_rows);                                \
      for (ptrdiff_t j0 = 0; j0 < whole_cols; j0 += tile_cols) {                               \
        const ptrdiff_t j1 = sp_imin(j0 + tile_cols, whole_cols);                              \
        for (ptrdiff_t i = i0; i < i1; i += n)                                                 \
          for (ptrdiff_t j = j0; j < j1; j += n) {                                             \
            uint64_t v[n];                                                                     \
            SP_UNROLL                                                                          \
            for (int k = 0; k < n; ++k) v[k] = *(const sp_word_at *)(x + (j + k) * ldx + i);    \
            sp_transpose_##n##x##n(v);                                                         \
            SP_UNROLL                                                                          \
            for (int k = 0; k < n; ++k) *(sp_word_at *)(y + (i + k) * ldy + j) = v[k];         \
          }                                                                                    \
      }                                                                                        \
    }                                                                                          \
    for (ptrdiff_t i = 0; i < rows; ++i)                                                       \
      for (ptrdiff_t j = i < whole_rows ? whole_cols : 0; j < cols; ++j)                       \
        y[i * ldy + j] = x[j * ldx + i];                                                       \
  }

SP_DEFINE_TRANSPOSE_WORDS(sp_transpose_8, uint8_t, 8)
SP_DEFINE_TRANSPOSE_WORDS(sp_transpose_16, uint16_t, 4)
#else
SP_DEFINE_TRANSPOSE(sp_transpose_8, uint8_t)
SP_DEFINE_TRANSPOSE(sp_transpose_16, uint16_t)
#endif
SP_DEFINE_TRANSPOSE(sp_transpose_64, uint64_t)

#if SP_LANES == 1
SP_DEFINE_TRANSPOSE(sp_transpose_32, float)
#else
SP_OUTLINE void sp_transpose_32(float *y, ptrdiff_t ldy, const float *x, ptrdiff_t ldx,
                                ptrdiff_t rows, ptrdiff_t cols) {
  for (ptrdiff_t i = 0; i < rows; i += SP_LANES) {
    const int m = (int)sp_imin(SP_LANES, rows - i);
    for (ptrdiff_t j = 0; j < cols; j += SP_LANES) {
      const int n = (int)sp_imin(SP_LANES, cols - j);
      sp_f32 v[SP_LANES];
      if (m == SP_LANES && n == SP_LANES) {
        SP_UNROLL
        for (int k = 0; k < SP_LANES; ++k) v[k] = sp_load_f32(x + (j + k) * ldx + i);
        sp_transpose_f32(v);
        SP_UNROLL
        for (int k = 0; k < SP_LANES; ++k) sp_store_f32(y + (i + k) * ldy + j, v[k]);
      } else {
        SP_UNROLL
        for (int k = 0; k < SP_LANES; ++k)
          v[k] = k < n ? sp_loadn_f32(x + (j + k) * ldx + i, m) : sp_zero_f32();
        sp_transpose_f32(v);
        SP_UNROLL
        for (int k = 0; k < SP_LANES; ++k)
          if (k < m) sp_storen_f32(y + (i + k) * ldy + j, v[k], n);
      }
    }
  }
}
#endif

#endif
