/* The epilogue of a kernel: what happens to an accumulator before it is stored.
 *   acc  SP_LANES values, lanes >= n undefined
 *   e    the pointers the emitted function needs (bias, residual, ...)
 *   row  output row or pixel, 0 .. M-1 over the whole output, batch included
 *   col  output channel of lane 0
 *   n    valid lanes; literally SP_LANES for full vectors, so that masked loads fold away */
#ifndef SP_EPILOGUE_H
#define SP_EPILOGUE_H

#include "../base.h"

typedef sp_f32 (*sp_ep_f32)(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n);

SP_INLINE sp_f32 sp_ep_none(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n) {
  (void)e;
  (void)row;
  (void)col;
  (void)n;
  return acc;
}

#endif
