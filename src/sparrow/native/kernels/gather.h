/* Elements, rows and sub-tensors picked by run-time indices. Names end in element and index type:
 * sp_gather_f32_i64. An index counts from the end when negative and is clamped into its axis: an
 * index that ONNX forbids reads some element of the tensor, never memory outside it. All operands
 * are dense; half types are moved as their bits. */
#ifndef SP_GATHER_H
#define SP_GATHER_H

#include "../base.h"
#include "element.h"

SP_INLINE ptrdiff_t sp_wrap_index(int64_t i, ptrdiff_t n) {
  const int64_t at = i < 0 ? i + n : i;
  return at < 0 ? 0 : at >= n ? n - 1 : (ptrdiff_t)at;
}

/* y[o][i][j] = x[o][index[i]][j]: x [outer][n][inner], y [outer][m][inner]. Tasks are runs of rows.
 * */
typedef struct sp_gather {
  ptrdiff_t outer, n, m, inner, task_rows;
} sp_gather;

/* y[c] = x[sum of c_d * xs_d + index[c] * step] over coordinates c of the extents d; unused extents
 * are 1, xs along the gathered axis is 0. Tasks are runs of rows along the last extent. */
typedef struct sp_gather_elements {
  ptrdiff_t d[6], xs[6], n, step, task_rows;
} sp_gather_elements;

/* y[b][i] = x[b] at index[b][i], a vector of depth components with extents n and x strides step; y
 * rows have inner elements. Tasks are runs of rows. */
typedef struct sp_gather_nd {
  ptrdiff_t batch, m, x_batch, inner;
  int depth;
  ptrdiff_t n[8], step[8];
  ptrdiff_t task_rows;
} sp_gather_nd;

#define SP_GATHER_BY(name, T, I)                                                                 \
  SP_INLINE void sp_gather_##name(const sp_gather p, const T *x, const I *index, T *y,           \
                                  int task) {                                                    \
    const ptrdiff_t hi = sp_imin(p.outer * p.m, (task + 1) * p.task_rows);                       \
    for (ptrdiff_t r = task * p.task_rows; r < hi; ++r) {                                        \
      const ptrdiff_t row = r / p.m * p.n + sp_wrap_index(index[r % p.m], p.n);                  \
      for (ptrdiff_t j = 0; j < p.inner; ++j) y[r * p.inner + j] = x[row * p.inner + j];         \
    }                                                                                            \
  }                                                                                              \
  SP_INLINE void sp_gather_elements_##name(const sp_gather_elements p, const T *x,               \
                                           const I *index, T *y, int task) {                     \
    const ptrdiff_t rows = p.d[0] * p.d[1] * p.d[2] * p.d[3] * p.d[4];                           \
    const ptrdiff_t hi = sp_imin(rows, (task + 1) * p.task_rows);                                \
    for (ptrdiff_t r = task * p.task_rows; r < hi; ++r) {                                        \
      const T *q = x;                                                                            \
      ptrdiff_t rest = r;                                                                        \
      for (int a = 4; a >= 0; --a) q += rest % p.d[a] * p.xs[a], rest /= p.d[a];                 \
      for (ptrdiff_t j = 0; j < p.d[5]; ++j) {                                                   \
        const ptrdiff_t i = r * p.d[5] + j;                                                      \
        y[i] = q[j * p.xs[5] + sp_wrap_index(index[i], p.n) * p.step];                           \
      }                                                                                          \
    }                                                                                            \
  }                                                                                              \
  SP_INLINE void sp_gather_nd_##name(const sp_gather_nd p, const T *x, const I *index, T *y,     \
                                     int task) {                                                 \
    const ptrdiff_t hi = sp_imin(p.batch * p.m, (task + 1) * p.task_rows);                       \
    for (ptrdiff_t r = task * p.task_rows; r < hi; ++r) {                                        \
      const T *q = x + r / p.m * p.x_batch;                                                      \
      for (int a = 0; a < p.depth; ++a)                                                          \
        q += sp_wrap_index(index[r * p.depth + a], p.n[a]) * p.step[a];                          \
      for (ptrdiff_t j = 0; j < p.inner; ++j) y[r * p.inner + j] = q[j];                         \
    }                                                                                            \
  }
#define SP_DEFINE_GATHER(name, T, A, W) \
  SP_GATHER_BY(name##_i32, T, int32_t)  \
  SP_GATHER_BY(name##_i64, T, int64_t)
SP_FLOAT_TYPES(SP_DEFINE_GATHER)
SP_INT_TYPES(SP_DEFINE_GATHER)

#endif
