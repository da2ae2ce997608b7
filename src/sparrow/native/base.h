/* Base of every emitted artifact: inlining, unrolling, alignment, compiler checks.
 * C99, freestanding: <stddef.h> and <stdint.h> only. Little-endian, 32- or 64-bit. */
#ifndef SP_BASE_H
#define SP_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || defined(_M_FP_FAST)
#error "value-changing float optimisations (-ffast-math, /fp:fast) break rounding and NaN handling"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ == 2
#error "x87 excess precision changes results: compile with -msse2 -mfpmath=sse"
#endif

/* SP_INLINE   a function that is always inlined, and no warning when it is not used.
 * SP_KEPT     what a function does is hidden from its callers, where a compiler draws wrong conclusions.
 * SP_OUTLINE  a file-local function that is never inlined: rare slow paths.
 * SP_SMALL    like SP_OUTLINE, for code that shall be small rather than fast.
 * SP_CONST    a file-local constant table, likewise.
 * SP_UNROLL   the next loop is fully unrolled; its trip count must be a literal after inlining
 *             (clang reports a loop that is not). gcc peels up to 64 iterations: 64 is the limit.
 * SP_ROLLED   the next loop is not unrolled.
 * SP_SUMMING  the next loop walks over what is summed: rolled, where the header of an instruction set
 *             does not redefine it.
 * SP_OPAQUE   the compiler forgets what it knows of an integer: a loop that counts with it has this one
 *             counter, and no pointer for each address. For engines, which have fewer registers than it
 *             thinks.
 * SP_IN_ORDER the vector is computed before those that say this later. Likewise.
 * SP_RESTRICT the pointer aliases nothing else.  SP_ALIGN(n) aligns an object to n bytes.
 * SP_VECTOR_CALL says how vectors are passed, in inlined functions and pointers to them, where the
 *             header of an instruction set redefines it. */
#define SP_VECTOR_CALL
#if defined(__clang__)
#define SP_INLINE static inline __attribute__((always_inline, unused)) SP_VECTOR_CALL
#define SP_KEPT
#define SP_OUTLINE static __attribute__((noinline, unused))
#if defined(__wasm__) /* engines compile once more: minsize would save 2 % of the bytes */
#define SP_SMALL SP_OUTLINE
#else
#define SP_SMALL static __attribute__((noinline, minsize, unused))
#endif
#define SP_CONST static const __attribute__((unused))
#define SP_UNROLL _Pragma("clang loop unroll(full)")
#define SP_ROLLED _Pragma("clang loop unroll(disable)")
#define SP_RESTRICT __restrict
#define SP_ALIGN(n) __attribute__((aligned(n)))
#elif defined(__GNUC__)
#define SP_INLINE static inline __attribute__((always_inline, unused))
#if __GNUC__ >= 8
/* Where gcc 12 computes a loop's addresses as offsets from 0, it takes them for accesses of NULL, the
 * function for one that writes nothing, and drops its calls. */
#define SP_KEPT __attribute__((noipa))
#else
#define SP_KEPT __attribute__((noinline, noclone))
#endif
#define SP_OUTLINE static SP_KEPT __attribute__((noinline, unused))
#define SP_SMALL SP_OUTLINE
#define SP_CONST static const __attribute__((unused))
#define SP_UNROLL _Pragma("GCC unroll 64")
#define SP_ROLLED _Pragma("GCC unroll 1")
#define SP_RESTRICT __restrict
#define SP_ALIGN(n) __attribute__((aligned(n)))
#elif defined(_MSC_VER)
#define SP_INLINE static __forceinline
#define SP_KEPT
#define SP_OUTLINE static __declspec(noinline)
#define SP_SMALL static __declspec(noinline)
#define SP_CONST static const
#define SP_UNROLL
#define SP_ROLLED
#define SP_RESTRICT __restrict
#define SP_ALIGN(n) __declspec(align(n))
#else
#define SP_INLINE static inline
#define SP_KEPT
#define SP_OUTLINE static
#define SP_SMALL static
#define SP_CONST static const
#define SP_UNROLL
#define SP_ROLLED
#define SP_RESTRICT
#define SP_ALIGN(n)
#endif

#define SP_SUMMING SP_ROLLED

#if defined(__wasm_simd128__)
#define SP_OPAQUE(i) __asm__("" : "+r"(i))
#define SP_IN_ORDER(v) __asm__ volatile("" : "+r"(v))
#else
#define SP_OPAQUE(i) (void)0
#define SP_IN_ORDER(v) (void)0
#endif

SP_INLINE ptrdiff_t sp_imin(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
SP_INLINE ptrdiff_t sp_imax(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
/* Of kw taps in a row, those that a depthwise kernel unrolls at once, an instruction for every pixel
 * of its tile each: long rows go in pieces. */
SP_INLINE int sp_taps_at_once(int kw) { return kw <= 32 ? kw : 16; }

#endif
