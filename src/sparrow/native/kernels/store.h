/* Bytes that are stored by more than a vector at a time, where the header of an instruction set has no
 * instructions for it. */
#ifndef SP_STORE_H
#define SP_STORE_H

#include "../base.h"

#ifndef SP_STORE_VECTORS
#define SP_STORE_VECTORS 1
SP_INLINE void sp_stores_i8(int8_t *p, const sp_i32 *v, int count) {
  for (int k = 0; k < count; ++k) sp_store_i8(p + k * SP_LANES, v[k]);
}
SP_INLINE void sp_stores_u8(uint8_t *p, const sp_i32 *v, int count) {
  for (int k = 0; k < count; ++k) sp_store_u8(p + k * SP_LANES, v[k]);
}
#endif
#ifndef SP_TILE_STORES /* so many of them behind a tile's sums */
#define SP_TILE_STORES SP_STORE_VECTORS
#endif

#ifndef SP_STORES_APART /* vectors that are stored together although they lie ld elements apart */
#define SP_STORES_APART 1
SP_INLINE void sp_stores_apart_i8(int8_t *p, ptrdiff_t ld, const sp_i32 *v) {
  (void)ld;
  sp_store_i8(p, v[0]);
}
SP_INLINE void sp_stores_apart_u8(uint8_t *p, ptrdiff_t ld, const sp_i32 *v) {
  (void)ld;
  sp_store_u8(p, v[0]);
}
#endif

#ifndef SP_THREE_PLANES
/* 64 bytes of each of three planes in turn. */
SP_INLINE void sp_interleave_3(void *p, const void *a, const void *b, const void *c) {
  uint8_t *y = (uint8_t *)p;
  for (int k = 0; k < 64; ++k) {
    y[3 * k] = ((const uint8_t *)a)[k];
    y[3 * k + 1] = ((const uint8_t *)b)[k];
    y[3 * k + 2] = ((const uint8_t *)c)[k];
  }
}
#endif

#endif
