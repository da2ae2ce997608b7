/* sp_conv2d_f32 for weights known only at run time: w is [co][ci / groups][kh][kw], dense, and is
 * brought into the order of pack_conv() in scratch before the first task. Tasks run one after the
 * other, in order, over the same scratch. */
#ifndef SP_CONV2D_PACK_F32_H
#define SP_CONV2D_PACK_F32_H
#include "conv2d_f32.h"

SP_INLINE void sp_conv2d_pack_f32(const sp_conv2d p, const float *x, const float *w, float *y,
                                  float *scratch, sp_ep_f32 ep, const void *const *e, int task) {
  if (task == 0) {
    const int ci = p.ci / p.groups, co = p.co / p.groups, taps = p.kh * p.kw;
    float *to = scratch;
    for (int g = 0; g < p.groups; ++g)
      for (int o = 0; o < co; o += SP_LANES)
        for (int k = 0; k < taps; ++k)
          for (int i = 0; i < ci; ++i, to += SP_LANES)
            for (int l = 0; l < SP_LANES; ++l)
              to[l] = o + l < co ? w[((ptrdiff_t)(g * co + o + l) * ci + i) * taps + k] : 0.0f;
  }
  sp_conv2d_f32(p, x, scratch, y, ep, e, task);
}
#endif
