/* Updates written into a copy of x at run-time indices, in row-major order, so that the last of
 * equal indices wins; indices as in gather.h. Names end in element and index type:
 * sp_scatter_f32_i64. All operands are dense. y may be x, which is then not copied. One task:
 * updates may collide. */
#ifndef SP_SCATTER_H
#define SP_SCATTER_H

#include "../base.h"
#include "element.h"
#include "gather.h"

enum { SP_SCATTER_SET, SP_SCATTER_ADD, SP_SCATTER_MUL, SP_SCATTER_MAX, SP_SCATTER_MIN };

/* y[sum of c_d * ys_d + index[c] * step] op= updates[c] over coordinates c of the extents d; unused
 * extents are 1, ys along the scattered axis is 0. size: elements of x. */
typedef struct sp_scatter_elements {
  int kind;
  ptrdiff_t size, d[6], ys[6], n, step;
} sp_scatter_elements;

/* y at index[i] (depth components, extents n, y strides step) op= updates[i]; rows of inner. */
typedef struct sp_scatter_nd {
  int kind;
  ptrdiff_t size, m, inner;
  int depth;
  ptrdiff_t n[8], step[8];
} sp_scatter_nd;

#define SP_DEFINE_COMBINE(name, T, A, W)                                           \
  SP_INLINE void sp_combine_##name(int kind, T *q, const T *u) {                   \
    const A a = sp_get_##name(q), b = sp_get_##name(u);                            \
    if (kind == SP_SCATTER_SET)                                                    \
      *q = *u;                                                                     \
    else if (kind == SP_SCATTER_ADD)                                               \
      sp_put_##name(q, sp_narrow_##name(sp_widen_##name(a) + sp_widen_##name(b))); \
    else if (kind == SP_SCATTER_MUL)                                               \
      sp_put_##name(q, sp_narrow_##name(sp_widen_##name(a) * sp_widen_##name(b))); \
    else if (kind == SP_SCATTER_MAX)                                               \
      *q = (b > a || b != b) ? *u : *q;                                            \
    else                                                                           \
      *q = (b < a || b != b) ? *u : *q;                                            \
  }
SP_FLOAT_TYPES(SP_DEFINE_COMBINE)
SP_INT_TYPES(SP_DEFINE_COMBINE)

#define SP_SCATTER_BY(name, type, T, I)                                                        \
  SP_INLINE void sp_scatter_elements_##name(const sp_scatter_elements p, const T *x,           \
                                            const I *index, const T *updates, T *y, int task) { \
    const ptrdiff_t rows = p.d[0] * p.d[1] * p.d[2] * p.d[3] * p.d[4];                         \
    (void)task;                                                                                \
    if (x != y)                                                                                \
      for (ptrdiff_t i = 0; i < p.size; ++i) y[i] = x[i];                                      \
    for (ptrdiff_t r = 0; r < rows; ++r) {                                                     \
      T *q = y;                                                                                \
      ptrdiff_t rest = r;                                                                      \
      for (int a = 4; a >= 0; --a) q += rest % p.d[a] * p.ys[a], rest /= p.d[a];               \
      for (ptrdiff_t j = 0; j < p.d[5]; ++j) {                                                 \
        const ptrdiff_t i = r * p.d[5] + j;                                                    \
        T *at = q + j * p.ys[5] + sp_wrap_index(index[i], p.n) * p.step;                       \
        sp_combine_##type(p.kind, at, updates + i);                                            \
      }                                                                                        \
    }                                                                                          \
  }                                                                                            \
  SP_INLINE void sp_scatter_nd_##name(const sp_scatter_nd p, const T *x, const I *index,       \
                                      const T *updates, T *y, int task) {                      \
    (void)task;                                                                                \
    if (x != y)                                                                                \
      for (ptrdiff_t i = 0; i < p.size; ++i) y[i] = x[i];                                      \
    for (ptrdiff_t r = 0; r < p.m; ++r) {                                                      \
      T *q = y;                                                                                \
      for (int a = 0; a < p.depth; ++a)                                                        \
        q += sp_wrap_index(index[r * p.depth + a], p.n[a]) * p.step[a];                        \
      for (ptrdiff_t j = 0; j < p.inner; ++j)                                                  \
        sp_combine_##type(p.kind, q + j, updates + r * p.inner + j);                           \
    }                                                                                          \
  }
#define SP_DEFINE_SCATTER(name, T, A, W)      \
  SP_SCATTER_BY(name##_i32, name, T, int32_t) \
  SP_SCATTER_BY(name##_i64, name, T, int64_t)
SP_FLOAT_TYPES(SP_DEFINE_SCATTER)
SP_INT_TYPES(SP_DEFINE_SCATTER)

#endif
