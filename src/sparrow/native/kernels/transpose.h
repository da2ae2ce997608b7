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

SP_DEFINE_TRANSPOSE(sp_transpose_8, uint8_t)
SP_DEFINE_TRANSPOSE(sp_transpose_16, uint16_t)
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
