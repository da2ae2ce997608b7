/* Determinants of dense [batch][n][n] by LU decomposition with partial pivoting; lu [n * n] is
 * scratch of a task. Tasks are runs of matrices. */
#ifndef SP_DET_H
#define SP_DET_H

#include "../base.h"

typedef struct sp_det {
  ptrdiff_t batch, n, task_rows;
} sp_det;

#define SP_DEFINE_DET(name, T)                                                                   \
  SP_INLINE T sp_det_one_##name(ptrdiff_t n, T *a) {                                             \
    T det = 1;                                                                                   \
    for (ptrdiff_t k = 0; k < n; ++k) {                                                          \
      ptrdiff_t pivot = k;                                                                       \
      for (ptrdiff_t i = k + 1; i < n; ++i) {                                                    \
        const T v = a[i * n + k], w = a[pivot * n + k];                                          \
        if ((v < 0 ? -v : v) > (w < 0 ? -w : w)) pivot = i;                                      \
      }                                                                                          \
      if (pivot != k) {                                                                          \
        for (ptrdiff_t j = 0; j < n; ++j) {                                                      \
          const T v = a[k * n + j];                                                              \
          a[k * n + j] = a[pivot * n + j];                                                       \
          a[pivot * n + j] = v;                                                                  \
        }                                                                                        \
        det = -det;                                                                              \
      }                                                                                          \
      det *= a[k * n + k];                                                                       \
      if (a[k * n + k] == 0) return det;                                                         \
      for (ptrdiff_t i = k + 1; i < n; ++i) {                                                    \
        const T f = a[i * n + k] / a[k * n + k];                                                 \
        for (ptrdiff_t j = k + 1; j < n; ++j) a[i * n + j] -= f * a[k * n + j];                  \
      }                                                                                          \
    }                                                                                            \
    return det;                                                                                  \
  }                                                                                              \
  SP_INLINE void sp_det_##name(const sp_det p, const T *x, T *y, T *lu, int task) {              \
    const ptrdiff_t hi = sp_imin(p.batch, (task + 1) * p.task_rows);                             \
    for (ptrdiff_t b = task * p.task_rows; b < hi; ++b) {                                        \
      for (ptrdiff_t i = 0; i < p.n * p.n; ++i) lu[i] = x[b * p.n * p.n + i];                    \
      y[b] = sp_det_one_##name(p.n, lu);                                                         \
    }                                                                                            \
  }
SP_DEFINE_DET(f32, float)
SP_DEFINE_DET(f64, double)

#endif
