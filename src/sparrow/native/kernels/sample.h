/* Sampling at computed positions; tensors are dense with channels first.
 * Positions come from data: they are cut to +-2^24 before they become integers; NaN is outside. */
#ifndef SP_SAMPLE_H
#define SP_SAMPLE_H

#include "../base.h"
#include "element.h"

SP_INLINE float sp_position(float v) {
  const float far = 16777216.0f;
  return !(v >= -far) ? -far : v > far ? far : v;
}
SP_INLINE int sp_floor_int(float v) {
  const int i = (int)v;
  return (float)i > v ? i - 1 : i;
}
SP_INLINE int sp_ceil_int(float v) {
  const int i = (int)v;
  return (float)i < v ? i + 1 : i;
}
SP_INLINE int sp_clamp_int(ptrdiff_t v, ptrdiff_t lo, ptrdiff_t hi) {
  return (int)(v < lo ? lo : v > hi ? hi : v);
}
/* Folded back into [low, high]. */
SP_INLINE double sp_reflect(double v, double low, double high) {
  const double span = high - low, over = v < low ? low - v : v - low;
  if (span <= 0) return low;
  {
    const double turns = sp_floor_f64(over / span), rest = over - turns * span;
    return turns - 2 * sp_floor_f64(turns / 2) == 0 ? low + rest : high - rest;
  }
}

/* ---- GridSample. mode 0 nearest, 1 linear, 2 cubic; padding 0 zeros, 1 border, 2 reflection.
 * Spatial axes are filled up in front to three; `rank` of them are in the grid.
 * Task grid: batch x outputs per image, task_rows each. */
typedef struct sp_grid {
  int mode, padding, corners, rank, batch, channels, points, task_rows;
  int in[3];
} sp_grid;

/* sp_grid_axis: up to four taps along one axis, index (-1 for none) and weight; returns how many.
 * G is the type of positions and weights. */
#define SP_DEFINE_GRID_AXIS(name, G, ROUND)                                                       \
  SP_INLINE int sp_grid_axis_##name(const sp_grid p, G v, int n, int *index, G *weight) {         \
    const double low = p.corners ? 0.0 : -0.5, high = p.corners ? n - 1.0 : n - 0.5;              \
    const int count = p.mode == 0 ? 1 : p.mode == 1 ? 2 : 4;                                      \
    const G last = (G)(n - 1), far = (G)16777216, wide = v + (G)1;                                \
    G at = p.corners ? wide / (G)2 * last : (wide * (G)n - (G)1) / (G)2, f;                       \
    int base;                                                                                     \
    at = !(at >= -far) ? -far : at > far ? far : at;                                              \
    if (p.mode == 0) at = ROUND(at);                                                              \
    if (p.padding == 1) at = at < (G)0 ? (G)0 : at > last ? last : at;                            \
    if (p.padding == 2 && (at < (G)low || at > (G)high)) at = (G)sp_reflect(at, low, high);       \
    base = (int)at;                                                                               \
    base -= (G)base > at;                                                                         \
    f = at - (G)base;                                                                             \
    if (p.mode == 0) {                                                                            \
      weight[0] = (G)1;                                                                           \
    } else if (p.mode == 1) {                                                                     \
      weight[0] = (G)1 - f;                                                                       \
      weight[1] = f;                                                                              \
    } else {                                                                                      \
      const G a = (G)-0.75;                                                                       \
      for (int k = 0; k < 4; ++k) {                                                               \
        const G d = (G)(k - 1) - f, x = d < (G)0 ? -d : d;                                        \
        weight[k] = k == 1 || k == 2 ? ((a + (G)2) * x - (a + (G)3)) * x * x + (G)1               \
                                     : ((a * x - (G)5 * a) * x + (G)8 * a) * x - (G)4 * a;        \
      }                                                                                           \
      --base;                                                                                     \
    }                                                                                             \
    for (int k = 0; k < count; ++k) {                                                             \
      int i = base + k;                                                                           \
      if (i < 0 || i >= n) {                                                                      \
        if (p.padding == 0)                                                                       \
          i = -1;                                                                                 \
        else                                                                                      \
          i = sp_clamp_int(p.padding == 1 ? i : (int)sp_reflect(i, low, high), 0, n - 1);         \
      }                                                                                           \
      index[k] = i;                                                                               \
    }                                                                                             \
    return count;                                                                                 \
  }

SP_INLINE float sp_grid_round_f32(float v) { return sp_lane0(sp_round_f32(sp_set1_f32(v))); }
SP_DEFINE_GRID_AXIS(f32, float, sp_grid_round_f32)
SP_DEFINE_GRID_AXIS(f64, double, sp_round_f64)

/* X: type of the elements and of their sums; G: of the grid, `axis` its name. */
#define SP_DEFINE_GRID(name, X, G, axis)                                                          \
  SP_INLINE void sp_grid_##name(const sp_grid p, const X *x, const G *grid, X *y, int task) {     \
    const ptrdiff_t plane = (ptrdiff_t)p.in[0] * p.in[1] * p.in[2];                               \
    const ptrdiff_t lo = (ptrdiff_t)task * p.task_rows;                                           \
    const ptrdiff_t hi = sp_imin((ptrdiff_t)p.batch * p.points, lo + p.task_rows);                \
    for (ptrdiff_t r = lo; r < hi; ++r) {                                                         \
      const ptrdiff_t n = r / p.points, o = r % p.points;                                         \
      int index[3][4] = {{0}, {0}, {0}}, count[3] = {1, 1, 1}, used = 0;                          \
      G weight[3][4] = {{1}, {1}, {1}};                                                           \
      X factor[64];                                                                               \
      ptrdiff_t from[64];                                                                         \
      for (int k = 0; k < p.rank; ++k)                                                            \
        count[2 - k] = sp_grid_axis_##axis(p, grid[r * p.rank + k], p.in[2 - k], index[2 - k],    \
                                           weight[2 - k]);                                        \
      for (int a = 0; a < count[0]; ++a)                                                          \
        for (int b = 0; b < count[1]; ++b)                                                        \
          for (int c = 0; c < count[2]; ++c) {                                                    \
            const X w = (X)weight[0][a] * (X)weight[1][b] * (X)weight[2][c];                      \
            if (index[0][a] < 0 || index[1][b] < 0 || index[2][c] < 0 || w == (X)0) continue;     \
            factor[used] = w;                                                                     \
            from[used++] =                                                                        \
                ((ptrdiff_t)index[0][a] * p.in[1] + index[1][b]) * p.in[2] + index[2][c];         \
          }                                                                                       \
      for (int c = 0; c < p.channels; ++c) {                                                      \
        const X *q = x + (n * p.channels + c) * plane;                                            \
        X sum = 0;                                                                                \
        for (int k = 0; k < used; ++k) sum += factor[k] * q[from[k]];                             \
        y[(n * p.channels + c) * p.points + o] = sum;                                             \
      }                                                                                           \
    }                                                                                             \
  }
SP_DEFINE_GRID(f32_f32, float, float, f32)
SP_DEFINE_GRID(f32_f64, float, double, f64)
SP_DEFINE_GRID(f64_f32, double, float, f32)
SP_DEFINE_GRID(f64_f64, double, double, f64)

/* ---- Deformable convolution, two spatial axes. Task grid: batch x output pixels, task_rows each;
 * `cols` is scratch for the ci * kh * kw samples of one pixel. */
typedef struct sp_deform {
  int batch, ci, co, groups, shares, ih, iw, oh, ow, kh, kw, sh, sw, dh, dw, pt, pl;
  int bias, mask, task_rows;
} sp_deform;

SP_INLINE float sp_bilinear_f32(const float *x, int ih, int iw, float h, float w) {
  const int h0 = sp_floor_int(h), w0 = sp_floor_int(w);
  const float fh = h - (float)h0, fw = w - (float)w0;
  float sum = 0.0f;
  for (int a = 0; a < 2; ++a)
    for (int b = 0; b < 2; ++b) {
      const int i = h0 + a, j = w0 + b;
      if (i < 0 || i >= ih || j < 0 || j >= iw) continue;
      sum += (a ? fh : 1.0f - fh) * (b ? fw : 1.0f - fw) * x[(ptrdiff_t)i * iw + j];
    }
  return sum;
}

SP_INLINE float sp_dot_f32(const float *a, const float *b, int n) {
  sp_f32 s = sp_zero_f32(), t = s;
  int j = 0;
  for (; j + 2 * SP_LANES <= n; j += 2 * SP_LANES) {
    s = sp_fma_f32(sp_load_f32(a + j), sp_load_f32(b + j), s);
    t = sp_fma_f32(sp_load_f32(a + j + SP_LANES), sp_load_f32(b + j + SP_LANES), t);
  }
  for (; j < n; j += SP_LANES) {
    const int lanes = (int)sp_imin(SP_LANES, n - j);
    s = sp_fma_f32(sp_loadn_f32(a + j, lanes), sp_loadn_f32(b + j, lanes), s);
  }
  return sp_sum_f32(sp_add_f32(s, t));
}

SP_INLINE void sp_deform_f32(const sp_deform p, const float *x, const float *w, const float *offset,
                             const float *bias, const float *mask, float *y, float *cols,
                             int task) {
  const int pixels = p.oh * p.ow, taps = p.kh * p.kw, cg = p.ci / p.groups, mg = p.co / p.groups;
  const int lo = task * p.task_rows;
  const int hi = (int)sp_imin((ptrdiff_t)p.batch * pixels, (ptrdiff_t)lo + p.task_rows);
  for (int r = lo; r < hi; ++r) {
    const int n = r / pixels, o = r % pixels, oy = o / p.ow, ox = o % p.ow;
    for (int s = 0; s < p.shares; ++s)
      for (int t = 0; t < taps; ++t) {
        const ptrdiff_t k = ((ptrdiff_t)n * p.shares + s) * taps + t;
        const float h = sp_position((float)(oy * p.sh - p.pt + t / p.kw * p.dh) +
                                    offset[2 * k * pixels + o]);
        const float v = sp_position((float)(ox * p.sw - p.pl + t % p.kw * p.dw) +
                                    offset[(2 * k + 1) * pixels + o]);
        const float gain = p.mask ? mask[k * pixels + o] : 1.0f;
        const int each = p.ci / p.shares;
        for (int c = s * each; c < (s + 1) * each; ++c)
          cols[(ptrdiff_t)c * taps + t] =
              gain * sp_bilinear_f32(x + ((ptrdiff_t)n * p.ci + c) * p.ih * p.iw, p.ih, p.iw, h, v);
      }
    for (int m = 0; m < p.co; ++m) {
      const ptrdiff_t size = (ptrdiff_t)cg * taps;
      const float sum = sp_dot_f32(cols + m / mg * size, w + m * size, (int)size);
      y[((ptrdiff_t)n * p.co + m) * pixels + o] = p.bias ? sum + bias[m] : sum;
    }
  }
}

/* ---- Regions of interest. Task grid: regions. */
typedef struct sp_roi {
  int regions, batch, channels, ih, iw, oh, ow, sampling, max, half;
  float scale;
} sp_roi;

enum { SP_ROI_GRID = 256 };

/* Two neighbours of a sample along one axis; 0 when it lies outside. */
SP_INLINE int sp_roi_axis(float at, int n, int *low, int *high, float *f) {
  if (!(at >= -1.0f && at <= (float)n)) return 0;
  if (at < 0.0f) at = 0.0f;
  *low = (int)at;
  *f = at - (float)*low;
  *high = *low + 1;
  if (*low >= n - 1) {
    *low = *high = n - 1;
    *f = 0.0f;
  }
  return 1;
}

SP_INLINE void sp_roi_align_f32(const sp_roi p, const float *x, const float *rois,
                                const int64_t *images, float *y, int task) {
  const float shift = p.half ? 0.5f : 0.0f;
  float box[4], size[2], start[2];
  int grid[2];
  const int64_t image = images[task] < 0 ? 0 : images[task] >= p.batch ? p.batch - 1 : images[task];
  for (int k = 0; k < 4; ++k) box[k] = sp_position(rois[4 * task + k] * p.scale - shift);
  for (int a = 0; a < 2; ++a) {
    const float span = box[3 - a] - box[1 - a];
    const int bins = a ? p.ow : p.oh;
    start[a] = box[1 - a];
    size[a] = (p.half || span > 1.0f ? span : 1.0f) / (float)bins;
    grid[a] = p.sampling ? p.sampling : sp_clamp_int(sp_ceil_int(size[a]), 0, SP_ROI_GRID);
  }
  for (int c = 0; c < p.channels; ++c) {
    const float *q = x + (image * p.channels + c) * p.ih * p.iw;
    for (int oy = 0; oy < p.oh; ++oy)
      for (int ox = 0; ox < p.ow; ++ox) {
        float sum = 0.0f, best = sp_low_f32();
        for (int sy = 0; sy < grid[0]; ++sy)
          for (int sx = 0; sx < grid[1]; ++sx) {
            const float h = start[0] + (float)oy * size[0] +
                            ((float)sy + 0.5f) * size[0] / (float)grid[0];
            const float w = start[1] + (float)ox * size[1] +
                            ((float)sx + 0.5f) * size[1] / (float)grid[1];
            int h0 = 0, h1 = 0, w0 = 0, w1 = 0;
            float fh = 0.0f, fw = 0.0f, v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (sp_roi_axis(h, p.ih, &h0, &h1, &fh) && sp_roi_axis(w, p.iw, &w0, &w1, &fw)) {
              v[0] = (1.0f - fh) * (1.0f - fw) * q[(ptrdiff_t)h0 * p.iw + w0];
              v[1] = (1.0f - fh) * fw * q[(ptrdiff_t)h0 * p.iw + w1];
              v[2] = fh * (1.0f - fw) * q[(ptrdiff_t)h1 * p.iw + w0];
              v[3] = fh * fw * q[(ptrdiff_t)h1 * p.iw + w1];
            }
            for (int k = 0; k < 4; ++k) {
              sum += v[k];
              best = v[k] > best ? v[k] : best;
            }
          }
        {
          const int count = grid[0] * grid[1];
          const ptrdiff_t to = (((ptrdiff_t)task * p.channels + c) * p.oh + oy) * p.ow + ox;
          y[to] = count == 0 ? 0.0f : p.max ? best : sum / (float)count;
        }
      }
  }
}

/* Nearest integer of at * scale, halves away from zero. */
SP_INLINE int sp_roi_round(float at, float scale) {
  const float v = sp_position(sp_position(at) * scale);
  return v < 0.0f ? -sp_floor_int(0.5f - v) : sp_floor_int(v + 0.5f);
}

SP_INLINE void sp_roi_pool_f32(const sp_roi p, const float *x, const float *rois, float *y,
                               int task) {
  const float *r = rois + 5 * task;
  const int image = sp_clamp_int((int)sp_position(r[0]), 0, p.batch - 1);
  const int left = sp_roi_round(r[1], p.scale), right = sp_roi_round(r[3], p.scale);
  const int top = sp_roi_round(r[2], p.scale), foot = sp_roi_round(r[4], p.scale);
  const float bh = (float)sp_imax(foot - top + 1, 1) / (float)p.oh;
  const float bw = (float)sp_imax(right - left + 1, 1) / (float)p.ow;
  for (int c = 0; c < p.channels; ++c) {
    const float *q = x + ((ptrdiff_t)image * p.channels + c) * p.ih * p.iw;
    for (int oy = 0; oy < p.oh; ++oy)
      for (int ox = 0; ox < p.ow; ++ox) {
        const int h0 = sp_clamp_int(sp_floor_int((float)oy * bh) + top, 0, p.ih);
        const int h1 = sp_clamp_int(sp_ceil_int((float)(oy + 1) * bh) + top, 0, p.ih);
        const int w0 = sp_clamp_int(sp_floor_int((float)ox * bw) + left, 0, p.iw);
        const int w1 = sp_clamp_int(sp_ceil_int((float)(ox + 1) * bw) + left, 0, p.iw);
        float best = sp_low_f32();
        for (int i = h0; i < h1; ++i)
          for (int j = w0; j < w1; ++j) {
            const float v = q[(ptrdiff_t)i * p.iw + j];
            best = (v > best || v != v) ? v : best;
          }
        y[(((ptrdiff_t)task * p.channels + c) * p.oh + oy) * p.ow + ox] =
            h0 < h1 && w0 < w1 ? best : 0.0f;
      }
  }
}

/* ---- y = 0, then y[index[i]] = x[i]; an index outside y is skipped. */
typedef struct sp_unpool {
  ptrdiff_t count, size;
} sp_unpool;

#define SP_DEFINE_UNPOOL(bits)                                                                    \
  SP_INLINE void sp_unpool_##bits(const sp_unpool p, const void *from, const int64_t *index,      \
                                  void *into, int task) {                                         \
    const uint##bits##_t *x = (const uint##bits##_t *)from;                                       \
    uint##bits##_t *y = (uint##bits##_t *)into;                                                   \
    (void)task;                                                                                   \
    for (ptrdiff_t i = 0; i < p.size; ++i) y[i] = 0;                                              \
    for (ptrdiff_t i = 0; i < p.count; ++i)                                                       \
      if (index[i] >= 0 && index[i] < p.size) y[index[i]] = x[i];                                 \
  }
SP_DEFINE_UNPOOL(8)
SP_DEFINE_UNPOOL(16)
SP_DEFINE_UNPOOL(32)
SP_DEFINE_UNPOOL(64)

#endif
