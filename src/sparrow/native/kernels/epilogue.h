/* The epilogue of a kernel: what happens to an accumulator before it is stored.
 *   acc  SP_LANES values, lanes >= n undefined
 *   e    the pointers the emitted function needs (bias, residual, ...)
 *   row  output row or pixel, 0 .. M-1 over the whole output, batch included
 *   col  output channel of lane 0
 *   n    valid lanes; literally SP_LANES for full vectors, so that masked loads fold away */
#ifndef SP_EPILOGUE_H
#define SP_EPILOGUE_H

#include "../base.h"
#include "rounding.h"
#include "store.h"

typedef sp_f32(SP_VECTOR_CALL *sp_ep_f32)(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n);

SP_INLINE sp_f32 sp_ep_none(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n) {
  (void)e;
  (void)row;
  (void)col;
  (void)n;
  return acc;
}

#ifndef SP_DOT2 /* where bfloat16 is multiplied, it is also stored faster when subnormals may go */
SP_INLINE void sp_storen_flushed_bf16(uint16_t *p, sp_f32 v, int n) { sp_storen_bf16(p, v, n); }
#endif

/* Element i of an output of float32, or of bfloat16 where `half`. */
SP_INLINE void *sp_out_at(int half, void *y, ptrdiff_t i) {
  return half ? (void *)((uint16_t *)y + i) : (void *)((float *)y + i);
}

SP_INLINE void sp_put_out(int half, void *y, ptrdiff_t i, sp_f32 v, int n) {
  if (half)
    sp_storen_flushed_bf16((uint16_t *)y + i, v, n);
  else
    sp_storen_f32((float *)y + i, v, n);
}

/* The same over exact int32 sums. The result is int32, codes not yet clamped to their type's storage,
 * or the bits of a float32; sp_put_sum stores it. */
typedef sp_i32(SP_VECTOR_CALL *sp_ep_i32)(sp_i32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n);

SP_INLINE sp_i32 sp_ep_none_i32(sp_i32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col,
                                int n) {
  (void)e;
  (void)row;
  (void)col;
  (void)n;
  return acc;
}

/* What sp_put_sum stores: bytes of either sign, all 32 bits, or halves. */
#define SP_PUT_I8 0
#define SP_PUT_U8 1
#define SP_PUT_32 2
#define SP_PUT_I16 3

#ifndef SP_LOADS_BLOCKS
/* Elements [col, col + n) of a row whose extent is a multiple of 16. */
SP_INLINE sp_i32 sp_load_block_i8(const int8_t *row, ptrdiff_t col, int n) {
  return sp_loadn_i8(row + col, n);
}
#endif

/* Element i and the n - 1 after it of an output of kind `put`, a literal. */
SP_INLINE void sp_put_sum(int put, void *y, ptrdiff_t i, sp_i32 v, int n) {
  if (put == SP_PUT_I8)
    sp_storen_i8((int8_t *)y + i, v, n);
  else if (put == SP_PUT_U8)
    sp_storen_u8((uint8_t *)y + i, v, n);
  else if (put == SP_PUT_I16)
    sp_storen_i16((int16_t *)y + i, v, n);
  else
    sp_storen_i32((int32_t *)y + i, v, n);
}

/* Lanes [from, n) alone, each where it would lie behind lane 0 at element i. */
SP_INLINE void sp_put_lanes(int put, void *y, ptrdiff_t i, sp_i32 v, int from, int n) {
#ifdef SP_STORES_FROM
  if (put == SP_PUT_32) {
    sp_store_from_i32((int32_t *)y + i, v, from, n);
    return;
  }
#endif
  int32_t lanes[SP_LANES];
  sp_store_i32(lanes, v);
  for (int k = from; k < n; ++k) sp_put_sum(put, y, i + k, sp_set1_i32(lanes[k]), 1);
}

/* The same of nv vectors that lie one after the other, of the last only n lanes. */
SP_INLINE void sp_put_sums(int put, void *y, ptrdiff_t i, const sp_i32 *v, int nv, int n) {
  SP_UNROLL
  for (int k = 0; k < nv; k += SP_TILE_STORES) {
    const int count = (int)sp_imin(nv - k, SP_TILE_STORES);
    const int whole = k + count == nv && n < SP_LANES ? count - 1 : count;
    const int together = put < SP_PUT_32 && whole > 1 ? whole : 0;
    if (together && put == SP_PUT_I8)
      sp_stores_i8((int8_t *)y + i + k * SP_LANES, v + k, together);
    else if (together)
      sp_stores_u8((uint8_t *)y + i + k * SP_LANES, v + k, together);
    SP_UNROLL
    for (int j = 0; j < SP_TILE_STORES; ++j)
      if (j >= together && j < count)
        sp_put_sum(put, y, i + (k + j) * SP_LANES, v[k + j], k + j == nv - 1 ? n : SP_LANES);
  }
}

/* The same of one vector of `pixels` that lie ld elements apart, n lanes of each. */
SP_INLINE void sp_put_pixels(int put, void *y, ptrdiff_t i, ptrdiff_t ld, const sp_i32 *v, int pixels,
                             int n) {
  const int apart = pixels / SP_STORES_APART * SP_STORES_APART, whole = n >= SP_LANES;
  SP_UNROLL
  for (int k = 0; k < apart; k += SP_STORES_APART) {
    if (put == SP_PUT_I8 && whole) {
      sp_stores_apart_i8((int8_t *)y + i + k * ld, ld, v + k);
    } else if (put == SP_PUT_U8 && whole) {
      sp_stores_apart_u8((uint8_t *)y + i + k * ld, ld, v + k);
    } else {
      SP_UNROLL
      for (int j = k; j < k + SP_STORES_APART; ++j) sp_put_sum(put, y, i + j * ld, v[j], n);
    }
  }
  SP_UNROLL
  for (int k = apart; k < pixels; ++k) sp_put_sum(put, y, i + k * ld, v[k], n);
}

#endif
