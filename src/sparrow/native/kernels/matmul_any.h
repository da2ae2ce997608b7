/* Matrix product where nothing is assumed: any strides, up to four batch axes. Sums are float32, double
 * in double, of integers that wrap, or of 8-bit codes of either sign exactly in int32; those of float32
 * and codes take an epilogue. */
#ifndef SP_MATMUL_ANY_H
#define SP_MATMUL_ANY_H
#include "../base.h"
#include "epilogue.h"

/* y[z][i][j] = sum over k of a[z][i][k] * b[z][k][j]; batch: extents of z, unused ones 1, with the
 * strides za, zb, zy. Tasks are runs of task_rows rows, batch included. */
typedef struct sp_matmul_any {
  ptrdiff_t m, n, k, ai, ak, bk, bj, yi, yj;
  ptrdiff_t batch[4], za[4], zb[4], zy[4];
  int biased, zero, zero_b, put;
  ptrdiff_t task_rows;
} sp_matmul_any;

#define SP_MATMUL_ANY_PLAIN(y, i, v) ((y)[i] = (v), (void)ep, (void)e)
#define SP_MATMUL_ANY_EP(y, i, v) sp_storen_f32((y) + (i), ep(sp_set1_f32(v), e, r, j, 1), 1)
#define SP_MATMUL_ANY_CODE(y, i, v) sp_put_sum(p.put, y, i, ep(sp_set1_i32(v), e, r, j, 1), 1)

/* L, R: elements of a and b; A: of bias; the sum is taken in S (where it wraps); Y: of y, stored by
 * PUT after the epilogue EP. */
#define SP_DEFINE_MATMUL_ANY(name, L, R, A, S, Y, EP, PUT)                                                \
  SP_INLINE void sp_matmul_any_##name(const sp_matmul_any p, const L *a, const R *b,               \
                                      const void *bias, Y *y, EP ep, const void *const *e, \
                                      int task) {                                                  \
    const ptrdiff_t rows = p.batch[0] * p.batch[1] * p.batch[2] * p.batch[3] * p.m;                \
    const ptrdiff_t hi = sp_imin(rows, (task + 1) * p.task_rows);                                  \
    for (ptrdiff_t r = task * p.task_rows; r < hi; ++r) {                                          \
      const L *ar = a + r % p.m * p.ai;                                                            \
      const R *br = b;                                                                             \
      ptrdiff_t yr = r % p.m * p.yi;                                                                  \
      ptrdiff_t z = r / p.m;                                                                       \
      for (int d = 3; d >= 0; --d) {                                                               \
        ar += z % p.batch[d] * p.za[d];                                                            \
        br += z % p.batch[d] * p.zb[d];                                                            \
        yr += z % p.batch[d] * p.zy[d];                                                            \
        z /= p.batch[d];                                                                           \
      }                                                                                            \
      for (ptrdiff_t j = 0; j < p.n; ++j) {                                                        \
        S sum = p.biased ? (S)((const A *)bias)[j] : (S)0;                                                      \
        for (ptrdiff_t k = 0; k < p.k; ++k)                                                        \
          sum += ((S)ar[k * p.ak] - (S)p.zero) * ((S)br[k * p.bk + j * p.bj] - (S)p.zero_b);                                     \
        PUT(y, yr + j * p.yj, (A)sum);                                                                \
      }                                                                                            \
    }                                                                                              \
  }
#define SP_DEFINE_MATMUL_ANY_CODE(name, L, R) \
  SP_DEFINE_MATMUL_ANY(name, L, R, int32_t, uint32_t, void, sp_ep_i32, SP_MATMUL_ANY_CODE)
SP_DEFINE_MATMUL_ANY(f32, float, float, float, float, float, sp_ep_f32, SP_MATMUL_ANY_EP)
SP_DEFINE_MATMUL_ANY(f64, double, double, double, double, double, sp_ep_f32, SP_MATMUL_ANY_PLAIN)
SP_DEFINE_MATMUL_ANY(i16, int16_t, int16_t, int16_t, uint32_t, int16_t, sp_ep_f32, SP_MATMUL_ANY_PLAIN)
SP_DEFINE_MATMUL_ANY(u16, uint16_t, uint16_t, uint16_t, uint32_t, uint16_t, sp_ep_f32, SP_MATMUL_ANY_PLAIN)
SP_DEFINE_MATMUL_ANY(i32, int32_t, int32_t, int32_t, uint32_t, int32_t, sp_ep_f32, SP_MATMUL_ANY_PLAIN)
SP_DEFINE_MATMUL_ANY(u32, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, sp_ep_f32, SP_MATMUL_ANY_PLAIN)
SP_DEFINE_MATMUL_ANY(i64, int64_t, int64_t, int64_t, uint64_t, int64_t, sp_ep_f32, SP_MATMUL_ANY_PLAIN)
SP_DEFINE_MATMUL_ANY(u64, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, sp_ep_f32, SP_MATMUL_ANY_PLAIN)
SP_DEFINE_MATMUL_ANY_CODE(i8_i8, int8_t, int8_t)
SP_DEFINE_MATMUL_ANY_CODE(i8_u8, int8_t, uint8_t)
SP_DEFINE_MATMUL_ANY_CODE(u8_i8, uint8_t, int8_t)
SP_DEFINE_MATMUL_ANY_CODE(u8_u8, uint8_t, uint8_t)
SP_DEFINE_MATMUL_ANY_CODE(i16_i8, int16_t, int8_t)

#endif
