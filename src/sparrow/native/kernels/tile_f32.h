/* Register tile of the float32 matrix kernels: mr rows (pixels) x nv vectors of output channels.
 * Included by gemm_f32.h and conv2d_f32.h after isa/<isa>.h.
 * An element of A and B is a float32 or, where `pair`, two bfloat16 whose k lie side by side: two
 * products per lane, summed in float32. */
#ifndef SP_TILE_F32_H
#define SP_TILE_F32_H
#include "../base.h"
#include "epilogue.h"

#define SP_TILE_MAX 64 /* accumulators of one tile, ku * mr * nv */
#define SP_TILE_NV 8   /* vectors of one row of B */

/* acc + a[2i] * b[2i] + a[2i + 1] * b[2i + 1] over bfloat16, summed in any order; instruction sets that
 * do it in one instruction define SP_DOT2. */
#ifndef SP_DOT2
SP_INLINE sp_f32 sp_dot2_f32(sp_f32 acc, sp_i32 a, sp_i32 b) {
  const sp_i32 high = sp_set1_i32(-65536);
  acc = sp_fma_f32(sp_from_bits_f32(sp_shl_i32(a, 16)), sp_from_bits_f32(sp_shl_i32(b, 16)), acc);
  return sp_fma_f32(sp_from_bits_f32(sp_and_i32(a, high)), sp_from_bits_f32(sp_and_i32(b, high)),
                    acc);
}
#endif

/* The lower half of a and the upper half of b; the upper half of v, moved down, under what lanes there are.
 * Instruction sets whose tiles share vectors define SP_HALVES. */
#ifndef SP_HALVES
SP_INLINE sp_f32 sp_halves_f32(sp_f32 a, sp_f32 b) {
  float low[SP_LANES], high[SP_LANES];
  sp_store_f32(low, a);
  sp_store_f32(high, b);
  for (int i = SP_LANES / 2; i < SP_LANES; ++i) low[i] = high[i];
  return sp_load_f32(low);
}
SP_INLINE sp_f32 sp_second_half_f32(sp_f32 v) {
  float lanes[SP_LANES];
  sp_store_f32(lanes, v);
  for (int i = 0; i < SP_LANES / 2; ++i) lanes[i] = lanes[i + SP_LANES / 2];
  return sp_load_f32(lanes);
}
#endif

/* Every field is a literal in emitted code.
 *   ku      partial sums per output element (1, 2, 4 or 8): k modulo ku picks one; summed at the end
 *   ai, ak  distance of two rows and of two k in A
 *   bv, bk  distance of two vectors and of two k in B
 *   bn      valid lanes of the last vector of B; less than SP_LANES only when B is not packed
 *   pf      B is prefetched this many k ahead; 0 = never; -v = v vectors at distance next from b, to L2,
 *           a line of each for every `every` k: lines that come from memory take up what loads from
 *           L2 wait in, unless they come evenly. A power of two
 *   pair    elements of A and B are pairs of bfloat16; then bn is SP_LANES
 *   half    results are stored as bfloat16
 *   shared  the last vector of B has its columns twice, in both halves: two rows share a sum of
 *           it, the first one's, and their broadcasts are put together for it; not with pair
 *   next, part, left   not literals: where what is needed later lies, the part of its vectors that is next,
 *           and how often v vectors are left; see sp_tile_onward */
typedef struct sp_tile {
  int mr, nv, ku;
  ptrdiff_t ai, ak, bv, bk;
  int bn, pf, every, pair, half, shared;
  ptrdiff_t next;
  int part, left;
} sp_tile;

/* After a tile: where the next one goes on prefetching, if k comes in runs of `run`. In the end, lines
 * that are here. */
SP_INLINE void sp_tile_onward(sp_tile *t, ptrdiff_t run) {
  const ptrdiff_t length = run / t->every * SP_LANES;
  if (t->left == 0) return;
  t->next += length;
  if (++t->part == t->every) {
    t->part = 0;
    t->next += -t->pf * t->bv - t->every * length;
    if (--t->left == 0) t->next = 0;
  }
}

SP_INLINE void sp_tile_zero_f32(const sp_tile t, sp_f32 *acc) {
  SP_UNROLL
  for (int i = 0; i < t.ku * t.mr * t.nv; ++i) acc[i] = sp_zero_f32();
}

/* One k of rows i and i + 1, where they are some of [i0, i1), by weights w of which the last vector is
 * shared. */
SP_INLINE void sp_tile_two_rows_f32(const sp_tile t, sp_f32 *acc, int i, int i0, int i1,
                                    const float *a, ptrdiff_t at, const sp_f32 *w) {
  const int first = i >= i0 && i < i1;
  const int second = i + 1 < t.mr && i + 1 >= i0 && i + 1 < i1;
  const int own = t.nv - 1;
  sp_f32 *both = &acc[i * t.nv + own];
  sp_f32 x = sp_zero_f32(), z = sp_zero_f32();
  if (first) x = sp_set1_f32(a[at + i * t.ai]);
  if (second) z = sp_set1_f32(a[at + (i + 1) * t.ai]);
  SP_UNROLL
  for (int v = 0; v < own; ++v) {
    if (first) acc[i * t.nv + v] = sp_fma_f32(x, w[v], acc[i * t.nv + v]);
    if (second) acc[(i + 1) * t.nv + v] = sp_fma_f32(z, w[v], acc[(i + 1) * t.nv + v]);
  }
  if (first && second)
    *both = sp_fma_f32(sp_halves_f32(x, z), w[own], *both);
  else if (first)
    *both = sp_halves_f32(sp_fma_f32(x, w[own], *both), *both);
  else if (second)
    *both = sp_halves_f32(*both, sp_fma_f32(z, w[own], *both));
}

/* One k of rows [i0, i1): acc[i][v] += a[at + i * ai] * b[v]. */
SP_INLINE void sp_tile_step_f32(const sp_tile t, sp_f32 *acc, int i0, int i1, const float *a,
                                ptrdiff_t at, const float *b) {
  sp_f32 w[SP_TILE_NV];
  sp_i32 h[SP_TILE_NV];
  SP_UNROLL
  for (int v = 0; v < t.nv; ++v) {
    if (t.pair)
      h[v] = sp_loadq_i32(b + v * t.bv);
    else
      w[v] = v == t.nv - 1 ? sp_loadn_f32(b + v * t.bv, t.bn) : sp_load_f32(b + v * t.bv);
  }
  if (t.pf > 0) {
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v) sp_prefetch(b + v * t.bv + t.pf * t.bk);
  }
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    if (t.shared) {
      if (i % 2 == 0) sp_tile_two_rows_f32(t, acc, i, i0, i1, a, at, w);
    } else if (i >= i0 && i < i1 && t.pair) {
      const sp_i32 x = sp_set1_quad(a + (at + i * t.ai));
      SP_UNROLL
      for (int v = 0; v < t.nv; ++v) acc[i * t.nv + v] = sp_dot2_f32(acc[i * t.nv + v], x, h[v]);
    } else if (i >= i0 && i < i1) {
      const sp_f32 x = sp_set1_f32(a[at + i * t.ai]);
      SP_UNROLL
      for (int v = 0; v < t.nv; ++v) acc[i * t.nv + v] = sp_fma_f32(x, w[v], acc[i * t.nv + v]);
    }
  }
}

/* acc += A[i0:i1, 0:k] * B[0:k]. Row 0 of A is a + at (at may lie outside when i0 > 0). */
SP_INLINE void sp_tile_mac_f32(const sp_tile t, sp_f32 *acc, int i0, int i1, const float *a,
                               ptrdiff_t at, const float *b, int k) {
#ifdef SP_NO_PREFETCH /* nothing is spread: k after k is less code, and what engines run fastest */
  const int every = 1;
#else
  const int every = t.every;
#endif
  const int group = every > t.ku ? every : t.ku;
  const float *later = b + t.next;
  int c = 0;
  /* rolled: taps that read the same pixels would share loads, and spill them */
  SP_SUMMING
  for (; c + group <= k; c += group) {
    SP_UNROLL
    for (int u = 0; u < group; ++u) {
      if (t.pf < 0 && u % every == 0) {
        SP_UNROLL
        for (int v = 0; v < -t.pf; ++v) sp_prefetch_l2(later + v * t.bv);
        later += SP_LANES;
      }
      sp_tile_step_f32(t, acc + u % t.ku * t.mr * t.nv, i0, i1, a, at + (c + u) * t.ak,
                       b + (c + u) * t.bk);
    }
  }
  SP_ROLLED
  for (; c < k; ++c) sp_tile_step_f32(t, acc, i0, i1, a, at + c * t.ak, b + c * t.bk);
}

/* Partial sums u and u + h become partial sum u. */
SP_INLINE void sp_tile_fold_f32(const sp_tile t, sp_f32 *acc, int h) {
  SP_UNROLL
  for (int i = 0; i < h * t.mr * t.nv; ++i) acc[i] = sp_add_f32(acc[i], acc[h * t.mr * t.nv + i]);
}

/* Sum the partial sums, apply the epilogue and store rows row.. and channels col..; the last
 * vector has n valid lanes. */
SP_INLINE void sp_tile_put_f32(const sp_tile t, sp_f32 *acc, void *y, ptrdiff_t ldy, ptrdiff_t row,
                               ptrdiff_t col, int n, sp_ep_f32 ep, const void *const *e) {
  if (t.ku > 4) sp_tile_fold_f32(t, acc, 4);
  if (t.ku > 2) sp_tile_fold_f32(t, acc, 2);
  if (t.ku > 1) sp_tile_fold_f32(t, acc, 1);
  if (t.shared) {
    SP_UNROLL
    for (int i = 0; i + 1 < t.mr; i += 2)
      acc[(i + 2) * t.nv - 1] = sp_second_half_f32(acc[(i + 1) * t.nv - 1]);
  }
  /* all epilogues before the first store: the compiler then loads a bias once per tile */
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v)
      acc[i * t.nv + v] =
          ep(acc[i * t.nv + v], e, row + i, col + v * SP_LANES, v == t.nv - 1 ? n : SP_LANES);
  }
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v)
      sp_put_out(t.half, y, i * ldy + v * SP_LANES, acc[i * t.nv + v],
                 v == t.nv - 1 ? n : SP_LANES);
  }
}
#endif
