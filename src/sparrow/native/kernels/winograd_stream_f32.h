/* Float32 3x3 convolution, stride 1, by the F(4x4, 3x3) of winograd_f32.h, whose weights are those of
 * the direct sum: they are transformed in registers as they pass, once for `nt` tiles. Reads a quarter
 * of the bytes, for some more instructions: few tiles, and weights that come from memory.
 * Included after isa/<isa>.h; all fields of sp_winograd_stream are literals in emitted code.
 *   x  element (n, y, x, c) at x[n * xn + y * xh + x * xw + c]
 *   w  [ceil(co / SP_LANES)][ci][9][SP_LANES], zero padded, by winograd.pack_stream()
 *   y  pixel (n, oy, ox) at element ((n * oh + oy) * ow + ox) * ldy, bfloat16 where `half`; the epilogue
 *      sees that pixel number as its row; must not alias x or w
 *   scratch  private to the task: 36 * (ceil(ci / kc) * (tb * kc + SP_LANES) + tb * SP_LANES) floats
 * Nothing outside x is read. */
#ifndef SP_WINOGRAD_STREAM_F32_H
#define SP_WINOGRAD_STREAM_F32_H
#include "winograd_f32.h"

/* Blocks of tb output tiles of 4 x 4 are transformed, multiplied, one vector of output channels after
 * the other, and transformed back. Of kc input channels, a multiple of SP_LANES whose weights L1 holds,
 * np positions of a row of six (3 or 6) and nt tiles are summed at once, then the next ones.
 * Task grid: ceil(blocks / task_b) x ceil(vectors / task_n). */
typedef struct sp_winograd_stream {
  int batch, ih, iw, ci, oh, ow, co, pt, pl;
  ptrdiff_t xn, xh, xw, ldy;
  int half;
  int np, nt, kc, tb, task_b, task_n;
} sp_winograd_stream;

/* Element i of G w, over what `sp_winograd_scale` says: the quotients of a row are those of its sums. */
SP_INLINE sp_f32 sp_winograd_weight_f32(int i, sp_f32 w0, sp_f32 w1, sp_f32 w2) {
  const float point = i < 3 ? SP_WINOGRAD_A : SP_WINOGRAD_B;
  if (i == 0) return w0;
  if (i == 5) return w2;
  const sp_f32 even = sp_fma_f32(sp_set1_f32(point * point), w2, w0);
  return i % 2 == 1 ? sp_fma_f32(sp_set1_f32(point), w1, even)
                    : sp_fnma_f32(sp_set1_f32(point), w1, even);
}

SP_INLINE float sp_winograd_scale(int i) {
  if (i == 0) return 1.0f / (SP_WINOGRAD_A2 * SP_WINOGRAD_B2);
  if (i == 5) return 1.0f;
  return i < 3 ? 1.0f / (2.0f * SP_WINOGRAD_A2 * (SP_WINOGRAD_A2 - SP_WINOGRAD_B2))
               : 1.0f / (2.0f * SP_WINOGRAD_B2 * (SP_WINOGRAD_B2 - SP_WINOGRAD_A2));
}

/* One input channel: acc[t][j] += weight (i, j0 + j) * pixel of tile t there. */
SP_INLINE void sp_winograd_stream_step_f32(const sp_winograd_stream p, sp_f32 *acc, int i, int j0,
                                           int nt, const float *v, ptrdiff_t vf, ptrdiff_t rs,
                                           const float *w) {
  sp_f32 t[3];
  SP_UNROLL
  for (int k = 0; k < 3; ++k)
    t[k] = sp_winograd_weight_f32(i, sp_load_f32(w + k * SP_LANES),
                                  sp_load_f32(w + (3 + k) * SP_LANES),
                                  sp_load_f32(w + (6 + k) * SP_LANES));
  SP_UNROLL
  for (int j = 0; j < p.np; ++j) {
    const sp_f32 u = sp_winograd_weight_f32(j0 + j, t[0], t[1], t[2]);
    SP_UNROLL
    for (int k = 0; k < nt; ++k)
      acc[k * p.np + j] = sp_fma_f32(sp_set1_f32(v[j * vf + k * rs]), u, acc[k * p.np + j]);
  }
}

/* Positions (i, j0) and on of nt tiles, n channels: m[j * mf + tile] = (`begun`: +) sums, scaled where
 * they are `done`. `next`: lines fetched meanwhile, `lines` of them for every `every` channels. */
SP_INLINE void sp_winograd_stream_sum_f32(const sp_winograd_stream p, int i, int j0, int nt, int n,
                                          const float *v, ptrdiff_t vf, const float *w, float *m,
                                          int begun, int done, const float *next, int lines,
                                          int every) {
  const ptrdiff_t mf = (ptrdiff_t)p.tb * SP_LANES;
  sp_f32 acc[SP_TILE_MAX];
  int c = 0;
  SP_UNROLL
  for (int k = 0; k < nt * p.np; ++k)
    acc[k] = begun ? sp_load_f32(m + k % p.np * mf + k / p.np * SP_LANES) : sp_zero_f32();
  SP_ROLLED
  for (; c + every <= n; c += every) {
    SP_UNROLL
    for (int k = 0; k < lines; ++k) sp_prefetch_l2(next + k * SP_LANES);
    next += lines * SP_LANES;
    SP_UNROLL
    for (int k = 0; k < every; ++k, ++v, w += 9 * SP_LANES)
      sp_winograd_stream_step_f32(p, acc, i, j0, nt, v, vf, p.kc, w);
  }
  SP_ROLLED
  for (; c < n; ++c, ++v, w += 9 * SP_LANES)
    sp_winograd_stream_step_f32(p, acc, i, j0, nt, v, vf, p.kc, w);
  if (done) {
    SP_UNROLL
    for (int k = 0; k < nt * p.np; ++k)
      acc[k] = sp_mul_f32(sp_set1_f32(sp_winograd_scale(i) * sp_winograd_scale(j0 + k % p.np)),
                          acc[k]);
  }
  SP_UNROLL
  for (int k = 0; k < nt * p.np; ++k)
    sp_store_f32(m + k % p.np * mf + k / p.np * SP_LANES, acc[k]);
}

/* All channels of one tile at (y0, x0) into v, kc of them by kc. */
SP_INLINE void sp_winograd_stream_in_f32(const sp_winograd_stream p, const sp_winograd q,
                                         const float *x, int y0, int x0, float *v, ptrdiff_t vf,
                                         ptrdiff_t vc) {
  const int full = p.ci / SP_LANES * SP_LANES;
  const int inside = y0 >= 0 && y0 + 6 <= p.ih && x0 >= 0 && x0 + 6 <= p.iw;
  for (int c = 0; c < full; c += SP_LANES) {
    float *const to = v + c / p.kc * vc + c % p.kc;
    if (inside)
      sp_winograd_load_f32(q, x + c, y0, x0, 0, SP_LANES, to, vf);
    else
      sp_winograd_load_f32(q, x + c, y0, x0, 1, SP_LANES, to, vf);
  }
  if (full < p.ci)
    sp_winograd_load_f32(q, x + full, y0, x0, 1, p.ci - full, v + full / p.kc * vc + full % p.kc,
                         vf);
}

SP_INLINE void sp_winograd_stream_f32(const sp_winograd_stream p, const float *x, const float *w,
                                      void *y, float *scratch, sp_ep_f32 ep, const void *const *e,
                                      int task) {
  const sp_winograd q = {.ih = p.ih, .iw = p.iw, .ci = p.ci, .oh = p.oh, .ow = p.ow, .xh = p.xh,
                         .xw = p.xw, .ldy = p.ldy, .half = p.half};
  const int th = (p.oh + 3) / 4, tw = (p.ow + 3) / 4;
  const int tiles = p.batch * th * tw;
  const int vectors = (p.co + SP_LANES - 1) / SP_LANES;
  const ptrdiff_t bv = (ptrdiff_t)9 * p.ci * SP_LANES;
  /* powers of two apart, 36 stores would share a cache set */
  const ptrdiff_t vf = (ptrdiff_t)p.tb * p.kc + SP_LANES, vc = 36 * vf;
  const ptrdiff_t mf = (ptrdiff_t)p.tb * SP_LANES;
  float *const m = scratch + (p.ci + p.kc - 1) / p.kc * vc;
  const int passes = (p.tb + p.nt - 1) / p.nt * 36 / p.np;
  /* the weights two chunks on are fetched as evenly as the passes over this one allow */
  const int lines = 3, every = passes < 24 ? passes / lines : 8;
  const int tail = p.tb % p.nt, whole = p.tb - tail;
  const int tn = (vectors + p.task_n - 1) / p.task_n;
  const int first = task % tn * p.task_n, last = (int)sp_imin(first + p.task_n, vectors);
  const int begin = task / tn * p.task_b * p.tb;
  const int end = (int)sp_imin(begin + p.task_b * p.tb, tiles);
  for (int t0 = begin; t0 < end; t0 += p.tb) {
    const int count = (int)sp_imin(p.tb, end - t0);
    for (int i = 0; i < count; ++i) {
      const int z = (t0 + i) / (th * tw);
      const int y0 = (t0 + i) / tw % th * 4 - p.pt;
      const int x0 = (t0 + i) % tw * 4 - p.pl;
      sp_winograd_stream_in_f32(p, q, x + z * p.xn, y0, x0, scratch + i * p.kc, vf, vc);
    }
    const float *const stop = w + last * bv;
    /* rows past count hold leftovers: they are multiplied, never stored */
    for (int j = first; j < last; ++j) {
      for (int c = 0; c < p.ci; c += p.kc) {
        const int n = (int)sp_imin(p.kc, p.ci - c);
        const float *b = w + j * bv + (ptrdiff_t)9 * c * SP_LANES;
        const float *v = scratch + c / p.kc * vc;
        const ptrdiff_t chunk = (ptrdiff_t)9 * n * SP_LANES, step = n / every * lines * SP_LANES;
        const float *next = b + 2 * chunk < stop ? b + 2 * chunk : b;
        ptrdiff_t at = 0;
        SP_UNROLL
        for (int f = 0; f < 36; f += p.np) {
          for (int k = 0; k < whole; k += p.nt) {
            sp_winograd_stream_sum_f32(p, f / 6, f % 6, p.nt, n, v + f * vf + k * p.kc, vf, b,
                                       m + f * mf + k * SP_LANES, c > 0, c + p.kc >= p.ci,
                                       next + at, lines, every);
            at = at + 2 * step <= chunk ? at + step : 0;
          }
          if (tail > 0) {
            sp_winograd_stream_sum_f32(p, f / 6, f % 6, tail, n, v + f * vf + whole * p.kc, vf, b,
                                       m + f * mf + whole * SP_LANES, c > 0, c + p.kc >= p.ci,
                                       next + at, lines, every);
            at = at + 2 * step <= chunk ? at + step : 0;
          }
        }
      }
      const int n = (int)sp_imin(SP_LANES, p.co - j * SP_LANES);
      for (int i = 0; i < count; ++i)
        sp_winograd_store_f32(q, m + i * SP_LANES, mf, sp_out_at(p.half, y, j * SP_LANES),
                              (t0 + i) / (th * tw), (t0 + i) / tw % th * 4, (t0 + i) % tw * 4,
                              j * SP_LANES, n, ep, e);
    }
  }
}
#endif
