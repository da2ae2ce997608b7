/* Register tile of the 8-bit matrix kernels: mr pixels x nv vectors of output channels, exact sums in
 * int32 that wrap. Included by conv2d_i8.h after isa/<isa>.h. */
#ifndef SP_TILE_I8_H
#define SP_TILE_I8_H
#include "../base.h"
#include "epilogue.h"

#define SP_TILE_I8_MAX 64 /* accumulators of one tile, mr * nv */
#define SP_TILE_I8_NV 8   /* vectors of weights */
#ifndef SP_OCTETS        /* whether products take two octets of two pixels at once */
#define SP_OCTETS 0
#endif
#ifndef SP_MATRIX /* whether there are matrix registers */
#define SP_MATRIX 0
#endif
#define SP_SINGLE 3       /* and of one whose products are taken one by one, from bytes */
#define SP_TWOS 4         /* and of one whose products are added by twos, in the order of its weights */
#define SP_TURNED 5       /* and of one of quads whose masks are behind them, sp_maddubs_i32 */
#define SP_I16 6          /* and of one whose x are codes of 16 bits in pairs */
#define SP_PAIRED 2       /* `pair` of a tile whose second operand was widened before */

/* mr, nv, flip and put are literals in emitted code, the others where a layer has its own code.
 *   kh, runs, kq  kernel rows, runs of a row, quads of a run
 *   xr, xt, xp    bytes from a kernel row of x, a run and a pixel to the next; xt of a place of SP_TWOS
 *   bv, quad      bytes from a vector of weights and a quad of it to the next
 *   flip          bytes of x are of the other kind than sp_dot4_i32 takes
 *   put, ldy      what is stored, and elements from a pixel of y to the next
 *   part, ldp     where not 0, channels lie in parts of `part` each, ldp elements from one to the next
 *   each          a pixel is stored before the epilogue of the next, which loads operands of its own
 *   fetch         bytes of an element of y whose lines are asked for before the sums; 0 for none
 *   pair          x holds halves, and a quad is a pair of them; so does w where it is SP_PAIRED
 *   rounds        kq is a multiple of SP_QUADS
 *   tame          two products of a quad that are added in 16 bits fit: those of places k and k + 2, or of
 *                 neighbours, of which weights are not -128
 *   apart         pairs of the weights lie apart, as sp_dot_group_i32 takes them
 *   own           a layer has its own code: kq and bv are literals
 *   octets        w holds octets of two channels in a vector, for SP_OCTETS
 *   matrix, kind  quads of a step in matrix registers, which divide kq, and what these multiply; else 0
 *   stream        weights pass by pixels that the level-1 cache keeps, which it should not take in
 *   widens        weights, bytes from `narrow`, are also stored as halves from `wide`, where pair is 1 */
typedef struct sp_tile_i8 {
  int mr, nv;
  int kh, runs, kq;
  ptrdiff_t xr, xt, xp, bv, quad;
  int flip, put;
  ptrdiff_t ldy;
  int pair, rounds, tame, apart, own, octets, part;
  ptrdiff_t ldp;
  int matrix, kind, stream, each, fetch, widens;
  const int8_t *narrow;
  int8_t *wide;
} sp_tile_i8;

#ifndef SP_PAIRS_APART /* whether weights that are packed for a layer's own code have their pairs apart */
#define SP_PAIRS_APART 0
#endif
#ifndef SP_FORGET /* the compiler forgets what it knows of a pointer, and so of what was loaded by it */
#define SP_FORGET(p) (void)0
#endif
#ifndef SP_LOAD_QUADS /* quads of the weights of a vector that are one load, and bytes that it reaches */
#define SP_LOAD_QUADS 1
#define SP_LOAD_REACH 0
#endif

/* Bytes of a lane that are multiplied at once. */
SP_INLINE int sp_bytes_at_once(int pair) {
  return pair == SP_SINGLE ? 1 : pair && pair != SP_TWOS ? 2 : 4;
}

/* Quads of the weights of a run, and rows of sums: octets of two pixels each fill up both. */
SP_INLINE int sp_tile_quads(int octets, int kq) { return octets ? (kq + 1) / 2 * 2 : kq; }
SP_INLINE int sp_tile_rows(int octets, int mr) { return octets ? (mr + 1) / 2 * 2 : mr; }

/* n bytes, of the other kind where flip. */
SP_INLINE void sp_copy_i8(uint8_t *to, const uint8_t *from, int n, int flip) {
  int i = 0;
  for (; i + 4 * SP_LANES <= n; i += 4 * SP_LANES) {
    const sp_i32 v = sp_loadq_i32(from + i);
    sp_storeq_i32(to + i, flip ? sp_flip_i32(v) : v);
  }
  for (; i < n; ++i) to[i] = flip ? from[i] ^ 128 : from[i];
}

/* The same as halves: n of them from bytes, flipped to int8 first. */
SP_INLINE void sp_copy_pairs(int16_t *to, const uint8_t *from, int n, int flip) {
  const sp_i32 other = sp_set1_i32((int32_t)0xff80ff80u);
  int i = 0;
  for (; i + 8 * SP_LANES <= n; i += 8 * SP_LANES) {
    SP_UNROLL
    for (int k = 0; k < 8 * SP_LANES; k += 2 * SP_LANES) {
      const sp_i32 v = sp_loadp_i32(from + i + k);
      sp_storeq_i32(to + i + k, flip ? sp_xor_i32(v, other) : v);
    }
  }
  for (; i + 2 * SP_LANES <= n; i += 2 * SP_LANES) {
    const sp_i32 v = sp_loadp_i32(from + i);
    sp_storeq_i32(to + i, flip ? sp_xor_i32(v, other) : v);
  }
  for (; i < n; ++i) to[i] = (int16_t)(((flip ? from[i] : from[i] ^ 128) & 255) - 128);
}

#ifndef SP_TURNED_QUADS /* a quad in all lanes, flipped, where a header has no such operation */
SP_INLINE sp_i32 sp_set1_turned_quad(const void *p) { return sp_flip_i32(sp_set1_quad(p)); }
#endif

#ifndef SP_TAME_DOTS /* products of bytes of which those of b are not -128, where that helps nothing */
SP_INLINE sp_i32 sp_dot4_tame_i32(sp_i32 acc, sp_i32 a, sp_i32 b) { return sp_dot4_i32(acc, a, b); }
#endif

#ifndef SP_SINGLES /* how a header holds codes of which a lane takes one at a time */
typedef sp_i32 sp_single;
SP_INLINE sp_single sp_set1_single(int code) { return sp_set1_i32(code); }
SP_INLINE sp_single sp_loadn_single(const void *p, int n, int flip) {
  return flip ? sp_sub_i32(sp_loadn_u8((const uint8_t *)p, n), sp_set1_i32(128))
              : sp_loadn_i8((const int8_t *)p, n);
}
SP_INLINE sp_i32 sp_add_product(sp_i32 acc, sp_single a, sp_single b) {
  return sp_add_i32(acc, sp_mul_i32(a, b));
}
#endif

/* The sums of a run of kq quads, or pairs, added to acc. */
#ifdef SP_RUNS
SP_INLINE void sp_tile_dots_i8(const sp_tile_i8 t, const uint8_t *a, const int8_t *b, sp_i32 *acc) {
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v)
      acc[i * t.nv + v] =
          sp_dot_run_i32(acc[i * t.nv + v], a + i * t.xp, b + v * t.bv, t.kq, t.flip, t.pair);
  }
}
#else
/* One byte of each pixel at a time. */
SP_INLINE void sp_tile_singles_i8(const sp_tile_i8 t, const uint8_t *a, const int8_t *b,
                                  sp_i32 *acc) {
  SP_SUMMING
  for (int k = 0; k < t.kq; ++k, ++a, b += t.quad) {
    sp_single wv[SP_TILE_I8_NV];
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v) wv[v] = sp_loadn_single(b + v * t.bv, SP_LANES, 0);
    SP_UNROLL
    for (int i = 0; i < t.mr; ++i) {
      const sp_single q = sp_set1_single((int8_t)a[i * t.xp] ^ (t.flip ? -128 : 0));
      SP_UNROLL
      for (int v = 0; v < t.nv; ++v)
        acc[i * t.nv + v] = sp_add_product(acc[i * t.nv + v], wv[v], q);
    }
  }
}
#ifndef SP_QUADS /* quads that a round of the loop takes */
#define SP_QUADS 1
#endif
#ifndef SP_COUNTS_QUADS /* whether it counts them, one a round, beside their place */
#define SP_COUNTS_QUADS 0
#endif
/* A quad of a pixel in all lanes times that of each channel: bytes of x that differ from its mask where
 * they are turned, so that twos fit in 16 bits. */
SP_INLINE sp_i32 sp_tile_product_i8(const sp_tile_i8 t, sp_i32 sum, sp_i32 x, sp_i32 w, sp_i32 mask) {
#ifdef SP_MADDUBS
  if (t.pair == SP_TURNED)
    return sp_dot2_i32(sum, sp_maddubs_i32(w, sp_xor_i32(x, mask)), sp_set1_i32(0x00010001));
#endif
  (void)mask;
  if (t.pair) return sp_dot2_i32(sum, x, w);
  return t.tame ? sp_dot4_tame_i32(sum, x, w) : sp_dot4_i32(sum, x, w);
}
/* So many quads in all lanes. */
SP_INLINE void sp_tile_round_i8(const sp_tile_i8 t, int quads, const uint8_t *a, const int8_t *b,
                                sp_i32 *acc) {
  const uint8_t *pixel[SP_TILE_I8_MAX];
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    pixel[i] = a + i * t.xp;
    SP_OPAQUE(pixel[i]);
  }
  SP_UNROLL
  for (int s = 0; s < quads; ++s, b += t.quad) {
    sp_i32 wv[SP_TILE_I8_NV], mask[SP_TILE_I8_NV];
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v) {
      wv[v] = t.pair == 1 || t.pair == SP_I16 ? sp_loadp_i32(b + v * t.bv) : sp_loadq_i32(b + v * t.bv);
      mask[v] = t.pair == SP_TURNED ? sp_loadq_i32(b + v * t.bv + 4 * SP_LANES) : wv[v];
    }
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v)
      if (t.widens) sp_storeq_i32(t.wide + 2 * (b - t.narrow + v * t.bv), wv[v]);
    SP_UNROLL
    for (int i = 0; i < t.mr; ++i) {
      const uint8_t *const at = pixel[i] + 4 * s;
      const sp_i32 q = t.flip ? sp_set1_turned_quad(at) : sp_set1_quad(at);
      SP_UNROLL
      for (int v = 0; v < t.nv; ++v) {
        sp_i32 *const sum = acc + i * t.nv + v;
        *sum = sp_tile_product_i8(t, *sum, q, wv[v], mask[v]);
        SP_IN_ORDER(*sum);
      }
    }
  }
}
/* One quad at a time in all lanes. */
SP_INLINE void sp_tile_quads_i8(const sp_tile_i8 t, int kq, const uint8_t *a, const int8_t *b,
                                sp_i32 *acc) {
  if (t.pair == SP_SINGLE) {
    sp_tile_singles_i8(t, a, b, acc);
    return;
  }
  const ptrdiff_t whole = 4 * SP_QUADS * (ptrdiff_t)(kq / SP_QUADS), end = 4 * (ptrdiff_t)kq;
  ptrdiff_t at = 0;
  SP_ROLLED
  for (int k = 0; SP_COUNTS_QUADS ? k < kq : at < whole; ++k, at += 4 * SP_QUADS) {
    SP_OPAQUE(at);
    SP_OPAQUE(b);
    sp_tile_round_i8(t, SP_QUADS, a + at, b, acc);
    b += SP_QUADS * t.quad;
  }
  if (t.rounds || SP_COUNTS_QUADS) return;
  SP_ROLLED
  for (; at < end; at += 4, b += t.quad) {
    SP_OPAQUE(at);
    sp_tile_round_i8(t, 1, a + at, b, acc);
  }
}
#ifdef SP_GROUP
/* Vectors of weights that one pointer reaches. */
SP_INLINE int sp_tile_near(const sp_tile_i8 t) {
  return SP_LOAD_REACH && t.own ? 1 + (int)((SP_LOAD_REACH - SP_GROUP * t.quad) / t.bv) : t.nv;
}
SP_INLINE void sp_tile_walk(const sp_tile_i8 t, const int8_t **w, ptrdiff_t step) {
  SP_UNROLL
  for (int v = 0; v < t.nv; v += sp_tile_near(t)) {
    w[v] += step;
    SP_FORGET(w[v]);
  }
}
SP_INLINE void sp_tile_begin_walk(const sp_tile_i8 t, const int8_t *b, const int8_t **w) {
  SP_UNROLL
  for (int v = 0; v < t.nv; v += sp_tile_near(t)) w[v] = b + v * t.bv;
  sp_tile_walk(t, w, 0);
}
/* Vector v, where its next ones are. */
SP_INLINE const int8_t *sp_tile_weights(const sp_tile_i8 t, const int8_t *const *w, int v) {
  const int near = sp_tile_near(t);
  return w[v - v % near] + v % near * t.bv;
}
#endif
#if SP_OCTETS
/* The next octet of every pixel, or where n is 4 half of one: pixels i and i + 1 in the order of
 * sp_dot_octets_i32; a last one without a neighbour is its own, and there is room for its sums. */
SP_INLINE void sp_tile_octet_i8(const sp_tile_i8 t, int n, const uint8_t **even,
                                const uint8_t **odd, const int8_t **w, sp_i32 *acc) {
  sp_group q[SP_TILE_I8_MAX];
  SP_UNROLL
  for (int i = 0; i < t.mr; i += 2) {
    q[i] = sp_loadn_octets(*even + i * t.xp, odd[i], n);
    if (t.flip) q[i] = sp_flip_group(q[i]);
    odd[i] += n;
    SP_FORGET(odd[i]);
  }
  *even += n;
  SP_FORGET(*even);
  SP_UNROLL
  for (int v = 0; v < t.nv; ++v) {
    const int8_t *const from = sp_tile_weights(t, w, v);
    const sp_i32 w0 = sp_loadq_i32(from), w1 = sp_loadq_i32(from + t.quad);
    SP_UNROLL
    for (int i = 0; i < t.mr; i += 2) {
      sp_i32 *const low = acc + i * t.nv + v, *const high = low + t.nv;
      *low = sp_dot_octets_i32(*low, q[i], w0);
      *high = sp_dot_octets_i32(*high, q[i], w1);
    }
  }
  sp_tile_walk(t, w, 2 * t.quad);
}
SP_INLINE void sp_tile_dots_i8(const sp_tile_i8 t, const uint8_t *a, const int8_t *b, sp_i32 *acc) {
  const int8_t *w[SP_TILE_I8_NV];
  const uint8_t *odd[SP_TILE_I8_MAX];
  const uint8_t *const end = a + t.kq / SP_GROUP * 4 * SP_GROUP;
  if (!t.octets) {
    sp_tile_quads_i8(t, t.kq, a, b, acc);
    return;
  }
  sp_tile_begin_walk(t, b, w);
  SP_UNROLL
  for (int i = 0; i < t.mr; i += 2) {
    odd[i] = a + (i + 1 < t.mr ? i + 1 : i) * t.xp;
    SP_FORGET(odd[i]);
  }
  SP_ROLLED
  while (a != end) {
    SP_UNROLL
    for (int k = 0; k < SP_GROUP; k += 2) sp_tile_octet_i8(t, 8, &a, odd, w, acc);
    if (t.kq / SP_GROUP == 1) break; /* no loop */
  }
  if (t.kq % SP_GROUP > 1) sp_tile_octet_i8(t, 8, &a, odd, w, acc);
  if (t.kq % 2) sp_tile_octet_i8(t, 4, &a, odd, w, acc);
}
/* The sums of pixels and back. */
SP_INLINE void sp_tile_order_i8(const sp_tile_i8 t, sp_i32 *acc) {
  if (!t.octets) return;
  SP_UNROLL
  for (int i = 0; i < t.mr; i += 2) {
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v)
      sp_swap_halves_i32(&acc[i * t.nv + v], &acc[(i + 1) * t.nv + v]);
  }
}
#elif defined(SP_GROUP) /* a load brings this many quads of a pixel, which products take one by one */
/* So many quads, a group or less. */
SP_INLINE void sp_tile_group_i8(const sp_tile_i8 t, int quads, const uint8_t *a,
                                const int8_t *const *w, sp_i32 *acc) {
  sp_group q[SP_TILE_I8_MAX];
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    q[i] = sp_loadn_group(a + i * t.xp, quads);
    if (t.flip) q[i] = sp_flip_group(q[i]);
  }
  SP_UNROLL
  for (int j = 0; j < quads; j += SP_LOAD_QUADS) {
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v) {
      const int8_t *const from = sp_tile_weights(t, w, v);
      SP_UNROLL
      for (int s = j; s < (int)sp_imin(j + SP_LOAD_QUADS, quads); ++s) {
        const sp_i32 wv = sp_loadq_i32(from + s * t.quad);
        SP_UNROLL
        for (int i = 0; i < t.mr; ++i)
          acc[i * t.nv + v] = sp_dot_group_i32(acc[i * t.nv + v], q[i], s, wv, t.tame, t.apart);
      }
    }
  }
}
SP_INLINE void sp_tile_dots_i8(const sp_tile_i8 t, const uint8_t *a, const int8_t *b, sp_i32 *acc) {
  const int8_t *w[SP_TILE_I8_NV];
  const uint8_t *const end = a + t.kq / SP_GROUP * 4 * SP_GROUP;
  if (t.pair) {
    sp_tile_quads_i8(t, t.kq, a, b, acc);
    return;
  }
  sp_tile_begin_walk(t, b, w);
  SP_ROLLED
  while (a != end) {
    sp_tile_group_i8(t, SP_GROUP, a, w, acc);
    sp_tile_walk(t, w, SP_GROUP * t.quad);
    a += 4 * SP_GROUP;
    if (t.own && t.kq / SP_GROUP == 1) break; /* no loop */
    SP_FORGET(a);
  }
  if (!t.own)
    sp_tile_quads_i8(t, t.kq % SP_GROUP, a, b + t.kq / SP_GROUP * SP_GROUP * t.quad, acc);
  else if (t.kq % SP_GROUP)
    sp_tile_group_i8(t, t.kq % SP_GROUP, a, w, acc);
}
#else
SP_INLINE void sp_tile_dots_i8(const sp_tile_i8 t, const uint8_t *a, const int8_t *b, sp_i32 *acc) {
  sp_tile_quads_i8(t, t.kq, a, b, acc);
}
#endif
#endif

#if !SP_OCTETS
SP_INLINE void sp_tile_order_i8(const sp_tile_i8 t, sp_i32 *acc) { (void)t, (void)acc; }
#endif

/* acc begins at init, for each pixel. */
SP_INLINE void sp_tile_begin_i8(const sp_tile_i8 t, const int32_t *init, sp_i32 *acc) {
  SP_UNROLL
  for (int i = 0; i < sp_tile_rows(t.octets, t.mr); ++i) {
    if (!t.octets) SP_FORGET(init); /* a load of two vectors is less than to copy both */
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v) acc[i * t.nv + v] = sp_load_i32(init + v * SP_LANES);
  }
}

#ifdef SP_MADDUBS
/* Sums of a vector of channels whose products are added by twos in 16 bits, 16 or more in five
 * instructions where the twos of two quads fit together: so many steps
 *   both    of two quads whose twos fit in 16 bits together: int8 [2][SP_LANES][4]
 *   one     likewise where bytes of the second are turned (255 minus them, the weight negated):
 *           two of these and the mask of what is turned
 *   two     of both: and two masks
 *   single  of a quad and its mask
 * Behind them lies for each quad in this order uint16 the place of it, from the first one of a pixel. */
typedef struct sp_twos_i8 {
  int32_t both, one, two, single;
} sp_twos_i8;

/* Steps of one kind, `quads` of each, the last `masks` of which have bytes turned: mr pixels. x is where
 * the first begins to read, places are `unit` bytes each. */
SP_INLINE void sp_twos_steps_i8(int mr, int unit, int steps, int quads, int masks,
                                const int8_t **weights, const uint16_t **places, const uint8_t *x,
                                ptrdiff_t xp, sp_i32 ones, sp_i32 *acc) {
  const int8_t *w = *weights;
  const uint16_t *at = *places;
  SP_ROLLED
  for (int k = 0; k < steps; ++k, at += quads, w += 4 * SP_LANES * (quads + masks)) {
    const uint8_t *pixel[2];
    sp_i32 wv[2], turned[2];
    SP_OPAQUE(w);
    SP_UNROLL
    for (int q = 0; q < quads; ++q) {
      pixel[q] = x + unit * (ptrdiff_t)at[q];
      SP_OPAQUE(pixel[q]);
      wv[q] = sp_loadq_i32(w + 4 * SP_LANES * q);
      if (q >= quads - masks) turned[q] = sp_loadq_i32(w + 4 * SP_LANES * (q + masks));
    }
    SP_UNROLL
    for (int i = 0; i < mr; ++i) {
      sp_i32 two[2];
      SP_UNROLL
      for (int q = 0; q < quads; ++q) {
        const sp_i32 quad = sp_set1_quad(pixel[q] + i * xp);
        two[q] = sp_maddubs_i32(wv[q], q < quads - masks ? quad : sp_xor_i32(quad, turned[q]));
      }
      acc[i] = sp_dot2_i32(acc[i], quads > 1 ? sp_addp_i32(two[0], two[1]) : two[0], ones);
      SP_IN_ORDER(acc[i]);
    }
  }
  *weights = w;
  *places = at;
}

SP_INLINE void sp_twos_sums_i8(int mr, int unit, sp_twos_i8 v, const int8_t *w, const uint8_t *x,
                               ptrdiff_t xp, sp_i32 *acc) {
  const int vectors = 2 * v.both + 3 * v.one + 4 * v.two + 2 * v.single;
  sp_i32 ones = sp_set1_i32(0x00010001);
  SP_OPAQUE(ones); /* engines make a constant anew wherever it is named */
  const uint16_t *at = (const uint16_t *)(const void *)(w + (ptrdiff_t)vectors * 4 * SP_LANES);
  sp_twos_steps_i8(mr, unit, v.both, 2, 0, &w, &at, x, xp, ones, acc);
  sp_twos_steps_i8(mr, unit, v.one, 2, 1, &w, &at, x, xp, ones, acc);
  sp_twos_steps_i8(mr, unit, v.two, 2, 2, &w, &at, x, xp, ones, acc);
  sp_twos_steps_i8(mr, unit, v.single, 1, 1, &w, &at, x, xp, ones, acc);
}
#endif

/* The sums of `kh` kernel rows, added to acc. */
SP_INLINE void sp_tile_sums_i8(const sp_tile_i8 t, int kh, const uint8_t *x, const int8_t *w,
                               sp_i32 *acc) {
#ifdef SP_RUNS
  if (t.runs == 1 && t.kq < 3 && kh > 1) {
    *acc = sp_dot_short_runs_i32(*acc, x, t.xr, kh, w, t.kq, t.flip);
    return;
  }
#endif
  for (int ky = 0; ky < kh; ++ky, x += t.xr) {
    const uint8_t *a = x;
    for (int r = 0; r < t.runs; ++r, a += t.xt) {
      sp_tile_dots_i8(t, a, w, acc);
      w += sp_tile_quads(t.octets, t.kq) * t.quad;
    }
  }
}

/* From the first channel of a pixel to channel `col` of it, where channels lie in parts. */
SP_INLINE ptrdiff_t sp_in_part_i8(const sp_tile_i8 t, ptrdiff_t col) {
  return t.part ? col / t.part * t.ldp + col % t.part : 0;
}

/* Whether results of a tile from channel `col` on reach into the next part. */
SP_INLINE int sp_reaches_across_i8(const sp_tile_i8 t, ptrdiff_t col, int n) {
  return t.part && col % t.part + (t.nv - 1) * SP_LANES + n > t.part;
}

/* The lines that a tile's results from channel `col` on begin in. */
SP_INLINE void sp_tile_fetch_i8(const sp_tile_i8 t, const void *y, ptrdiff_t at, ptrdiff_t col) {
  const char *to = (const char *)y + (at + sp_in_part_i8(t, col)) * t.fetch;
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    SP_UNROLL
    for (int b = 0; b < t.nv * SP_LANES * t.fetch; b += 64) sp_prefetch(to + i * t.ldy * t.fetch + b);
  }
}

/* A tile's results from channel `col` on, one of whose vectors reaches into the next part. */
SP_INLINE void sp_put_across_i8(const sp_tile_i8 t, void *y, ptrdiff_t at, ptrdiff_t col,
                                const sp_i32 *acc, int n) {
  SP_UNROLL
  for (int v = 0; v < t.nv; ++v) {
    const ptrdiff_t c = col + v * SP_LANES, here = at + sp_in_part_i8(t, c);
    const int lanes = v == t.nv - 1 ? n : SP_LANES;
    const int room = (int)sp_imin(t.part - c % t.part, lanes);
    if (room == lanes) {
      SP_UNROLL
      for (int i = 0; i < t.mr; ++i)
        sp_put_sum(t.put, y, here + i * t.ldy, acc[i * t.nv + v], lanes);
    } else {
      SP_UNROLL
      for (int i = 0; i < t.mr; ++i) {
        sp_put_lanes(t.put, y, here + i * t.ldy, acc[i * t.nv + v], 0, room);
        sp_put_lanes(t.put, y, here + t.ldp - t.part + i * t.ldy, acc[i * t.nv + v], room, lanes);
      }
    }
  }
}

/* Epilogue, store; the last vector has n valid lanes. */
SP_INLINE void sp_tile_end_i8(const sp_tile_i8 t, sp_i32 *acc, void *y, ptrdiff_t at, ptrdiff_t row,
                              ptrdiff_t col, int n, sp_ep_i32 ep, const void *const *e) {
  const int across = sp_reaches_across_i8(t, col, n);
  const ptrdiff_t to = at + sp_in_part_i8(t, col);
  /* else all epilogues before the first store: the compiler then loads a multiplier once per tile */
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    SP_UNROLL
    for (int v = 0; v < t.nv; ++v)
      acc[i * t.nv + v] =
          ep(acc[i * t.nv + v], e, row + i, col + v * SP_LANES, v == t.nv - 1 ? n : SP_LANES);
    if (t.each && !across) sp_put_sums(t.put, y, to + i * t.ldy, acc + i * t.nv, t.nv, n);
  }
  if (across) {
    sp_put_across_i8(t, y, at, col, acc, n);
    return;
  }
  if (t.each) return;
  if (t.own && t.nv == 1) {
    sp_put_pixels(t.put, y, to, t.ldy, acc, t.mr, n);
    return;
  }
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i)
    sp_put_sums(t.put, y, to + i * t.ldy, acc + i * t.nv, t.nv, n);
}

/* Sum over all runs, epilogue, store. */
SP_INLINE void sp_tile_run_i8(const sp_tile_i8 t, const uint8_t *x, const int8_t *w,
                              const int32_t *init, void *y, ptrdiff_t at, ptrdiff_t row,
                              ptrdiff_t col, int n, sp_ep_i32 ep, const void *const *e) {
  sp_i32 acc[SP_TILE_I8_MAX];
  if (t.fetch) sp_tile_fetch_i8(t, y, at, col);
  sp_tile_begin_i8(t, init, acc);
  sp_tile_order_i8(t, acc);
#ifdef SP_MADDUBS
  if (t.pair == SP_TWOS) /* of all rows of the kernel */
    sp_twos_sums_i8(t.mr, (int)t.xt, *(const sp_twos_i8 *)(const void *)w, w + t.quad, x, t.xp, acc);
  else
#endif
    sp_tile_sums_i8(t, t.kh, x, w, acc);
  sp_tile_order_i8(t, acc);
  sp_tile_end_i8(t, acc, y, at, row, col, n, ep, e);
}

#ifndef SP_RUNS
/* A tile whose epilogue is computed between the sums of the next one: a processor that looks ahead by
 * less than a tile would else multiply first, and then convert, scale and store. */
typedef struct sp_former_i8 {
  sp_i32 acc[SP_TILE_I8_MAX];
  ptrdiff_t at, row;
} sp_former_i8;

/* The sums of a tile, pixel 0 at element `at`, which is the former one then. Behind each of the first
 * `between` quads, at most kq of them, comes a part of the epilogue of what was. */
SP_INLINE void sp_tile_next_i8(const sp_tile_i8 t, int between, const uint8_t *x, const int8_t *w,
                               const int32_t *init, void *y, ptrdiff_t at, ptrdiff_t row,
                               ptrdiff_t col, int n, sp_former_i8 *former, sp_ep_i32 ep,
                               const void *const *e) {
  const int all = t.mr * t.nv, each = (all + between - 1) / between;
  const ptrdiff_t run = t.kq * t.quad, to = former->at + sp_in_part_i8(t, col);
  sp_i32 acc[SP_TILE_I8_MAX];
  sp_tile_i8 rest = t;
  if (t.fetch) sp_tile_fetch_i8(t, y, at, col);
  sp_tile_begin_i8(t, init, acc);
  SP_UNROLL
  for (int s = 0; s < between; ++s) {
    sp_tile_round_i8(t, 1, x + 4 * s, w + s * t.quad, acc);
    SP_UNROLL
    for (int k = s * each; k < (int)sp_imin((s + 1) * each, all); ++k) {
      const int i = k / t.nv, v = k % t.nv, lanes = v == t.nv - 1 ? n : SP_LANES;
      sp_put_sum(t.put, y, to + i * t.ldy + v * SP_LANES,
                 ep(former->acc[k], e, former->row + i, col + v * SP_LANES, lanes), lanes);
    }
  }
  rest.kq -= between;
  if (rest.kq) sp_tile_dots_i8(rest, x + 4 * between, w + between * t.quad, acc);
  rest = t;
  --rest.runs;
  sp_tile_sums_i8(rest, 1, x + t.xt, w + run, acc);
  sp_tile_sums_i8(t, t.kh - 1, x + t.xr, w + t.runs * run, acc);
  SP_UNROLL
  for (int k = 0; k < all; ++k) former->acc[k] = acc[k];
  former->at = at;
  former->row = row;
}
#endif

/* The same of one vector for two rows of `ow` pixels, of which the second begins to read `step` kernel
 * rows below the first, step < kh: what both read is broadcast once. Not for octets. */
SP_INLINE void sp_tile_two_rows_i8(const sp_tile_i8 t, int step, int ow, const uint8_t *x,
                                   const int8_t *w, const int32_t *init, void *y, ptrdiff_t at,
                                   ptrdiff_t row, ptrdiff_t col, int n, sp_ep_i32 ep,
                                   const void *const *e) {
  const ptrdiff_t down = t.runs * t.kq * t.quad;
  sp_i32 acc[SP_TILE_I8_MAX], both[SP_TILE_I8_MAX];
  sp_tile_i8 two = t;
  two.nv = 2;
  two.bv = -step * down; /* the kernel row that the second row has reached */
  sp_tile_begin_i8(t, init, acc);
  sp_tile_sums_i8(t, step, x, w, acc);
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) {
    both[2 * i] = acc[i];
    both[2 * i + 1] = sp_load_i32(init);
  }
  sp_tile_sums_i8(two, t.kh - step, x + step * t.xr, w + step * down, both);
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) acc[i] = both[2 * i];
  sp_tile_end_i8(t, acc, y, at, row, col, n, ep, e);
  SP_UNROLL
  for (int i = 0; i < t.mr; ++i) acc[i] = both[2 * i + 1];
  sp_tile_sums_i8(t, step, x + t.kh * t.xr, w + (t.kh - step) * down, acc);
  sp_tile_end_i8(t, acc, y, at + ow * t.ldy, row + ow, col, n, ep, e);
}
#endif
