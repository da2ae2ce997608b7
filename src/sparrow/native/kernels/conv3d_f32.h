/* Float32 3-D convolution as a sum of 2-D ones: for every output plane, one per depth tap, over the
 * input plane that tap reads. Partial sums wait in y; the last tap applies the epilogue.
 *   x  channels last in whatever strides sp_conv2d allows; planes xd apart, images xn apart
 *   w  kd times what sp_conv2d takes, wd floats apart
 *   y  pixel (n, od, oy, ox) at y + (((n * od + d) * oh + oy) * ow + ox) * ldy
 * Depth taps outside the image are skipped. */
#ifndef SP_CONV3D_F32_H
#define SP_CONV3D_F32_H
#include "conv2d_f32.h"

/* plane: the convolution of one plane, batch 1, in `parts` tasks. One task is one output plane. */
typedef struct sp_conv3d {
  int id, od, kd, sd, dd, pd, parts;
  ptrdiff_t xn, xd, wd;
  sp_conv2d plane;
} sp_conv3d;

/* What the epilogue of one tap has to know. */
typedef struct sp_conv3d_tap {
  const float *y;
  ptrdiff_t ldy, row;
  int first, last;
  sp_ep_f32 ep;
  const void *const *e;
} sp_conv3d_tap;

SP_INLINE sp_f32 sp_conv3d_ep(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col,
                              int n) {
  const sp_conv3d_tap *t = (const sp_conv3d_tap *)e[0];
  if (!t->first) acc = sp_add_f32(acc, sp_loadn_f32(t->y + row * t->ldy + col, n));
  return t->last ? t->ep(acc, t->e, t->row + row, col, n) : acc;
}

SP_INLINE void sp_conv3d_f32(const sp_conv3d p, const float *x, const float *w, float *y,
                             sp_ep_f32 ep, const void *const *e, int task) {
  const int pixels = p.plane.oh * p.plane.ow;
  const int start = task % p.od * p.sd - p.pd;
  const int k0 = start < 0 ? (-start + p.dd - 1) / p.dd : 0;
  const int k1 = (int)sp_imin(p.kd, (p.id - start + p.dd - 1) / p.dd);
  float *to = y + (ptrdiff_t)task * pixels * p.plane.ldy;
  sp_conv3d_tap t = {.y = to, .ldy = p.plane.ldy, .row = (ptrdiff_t)task * pixels, .first = 1,
                     .ep = ep, .e = e};
  const void *const table[] = {&t};
  for (int k = k0; k < k1; ++k) {
    const float *xk = x + task / p.od * p.xn + (start + k * p.dd) * p.xd;
    t.first = k == k0;
    t.last = k == k1 - 1;
    for (int i = 0; i < p.parts; ++i)
      sp_conv2d_f32(p.plane, xk, w + k * p.wd, to, sp_conv3d_ep, table, i);
  }
  for (int i = 0; k0 >= k1 && i < pixels; ++i)
    for (int j = 0; j < p.plane.co; j += SP_LANES) {
      const int n = (int)sp_imin(SP_LANES, p.plane.co - j);
      sp_storen_f32(to + i * p.plane.ldy + j, ep(sp_zero_f32(), e, t.row + i, j, n), n);
    }
}
#endif
