/* The vocabulary for AVX-512 with BF16 and AMX (Sapphire Rapids and later): matrix registers of 16 rows
 * of 64 bytes, two of which are multiplied and added to a third of 16 x 16 sums in 16 cycles. Linux
 * (5.16) gives them to a process that asks. gcc 11, clang 12.
 * What a matrix register holds and its shape are volatile between functions, as the ABI says. */
#ifndef SP_AMX_H
#define SP_AMX_H
#include "avx512bf16.h"

#undef SP_ISA_NAME
#define SP_ISA_NAME "amx"
#undef SP_TILE_STORES
#define SP_TILE_STORES 4

#if !defined(__linux__)
#error "isa/amx.h asks Linux for matrix registers"
#endif
#if !defined(__AMX_TILE__) || !defined(__AMX_INT8__) || !defined(__AMX_BF16__)
#error "isa/amx.h needs AMX (-mamx-tile -mamx-int8 -mamx-bf16)"
#endif

#define SP_MATRIX 1
/* What a product multiplies: unsigned or signed bytes by signed ones, or pairs of bfloat16. */
#define SP_MATRIX_U8 0
#define SP_MATRIX_I8 1
#define SP_MATRIX_BF16 2

/* 0 where the process may use matrix registers, which costs a system call unless this thread is seen to
 * have shaped some (XINUSE, bit 17): sp_matrix_leave sees to that. */
SP_INLINE int sp_matrix_allow(void) {
  uint32_t used, high;
  __asm__ volatile("xgetbv" : "=a"(used), "=d"(high) : "c"(1));
  if (used >> 17 & 1) return 0;
  long result;
  __asm__ volatile("syscall" /* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) */
                   : "=a"(result)
                   : "a"(158L), "D"(0x1023L), "S"(18L)
                   : "rcx", "r11", "memory");
  return result != 0;
}

/* Shapes of all eight registers: 0 to 3 hold sums of so many rows, of which each `blocks`-th has
 * `last`; 4 operands of `rows`, 5 of `last` rows, of `quads` x 4 bytes each; 6 and 7 as many rows of
 * weights. Afterwards all are zero. */
SP_INLINE void sp_matrix_shape(int blocks, int nv, int rows, int last, int quads) {
  SP_ALIGN(64) uint8_t shape[64] = {1};
  SP_UNROLL
  for (int i = 0; i < 8; ++i) {
    const int end = i == 5 || (i < 4 && i / nv == blocks - 1);
    shape[16 + 2 * i] = (uint8_t)(i == 4 || i == 5 ? 4 * quads : 64);
    shape[48 + i] = (uint8_t)(i >= 6 ? quads : end ? last : rows);
  }
  /* gcc 12 takes the instruction to read 8 of the 64 bytes, and leaves the others unwritten */
  __asm__ volatile("" ::"r"(shape) : "memory");
  _tile_loadconfig(shape);
}

/* After the last use of a function: registers without a shape. ONNX Runtime's products take one of
 * another shape for their own where half of it agrees. */
SP_INLINE void sp_matrix_release(void) { _tile_release(); }

/* After a call: what sp_matrix_allow looks for, and nobody takes for theirs. */
SP_INLINE void sp_matrix_leave(void) { sp_matrix_shape(1, 4, 1, 1, 1); }

/* gcc does not know that these read and write memory */
#define SP_MATRIX_FENCE() __asm__ volatile("" ::: "memory")
/* Register r from rows `stride` bytes apart; r is a literal. */
SP_INLINE void sp_matrix_load(int r, const void *p, ptrdiff_t stride) {
  SP_MATRIX_FENCE();
  switch (r) {
    case 0: _tile_loadd(0, p, stride); break;
    case 1: _tile_loadd(1, p, stride); break;
    case 2: _tile_loadd(2, p, stride); break;
    case 3: _tile_loadd(3, p, stride); break;
    case 4: _tile_loadd(4, p, stride); break;
    case 5: _tile_loadd(5, p, stride); break;
    case 6: _tile_loadd(6, p, stride); break;
    default: _tile_loadd(7, p, stride); break;
  }
}
/* The same of what is read once: the level-1 cache keeps what it has. r is an operand. */
SP_INLINE void sp_matrix_stream(int r, const void *p, ptrdiff_t stride) {
  SP_MATRIX_FENCE();
  switch (r) {
    case 4: _tile_stream_loadd(4, p, stride); break;
    case 5: _tile_stream_loadd(5, p, stride); break;
    case 6: _tile_stream_loadd(6, p, stride); break;
    default: _tile_stream_loadd(7, p, stride); break;
  }
}
/* Sums r to rows `stride` bytes apart. */
SP_INLINE void sp_matrix_store(int r, void *p, ptrdiff_t stride) {
  switch (r) {
    case 0: _tile_stored(0, p, stride); break;
    case 1: _tile_stored(1, p, stride); break;
    case 2: _tile_stored(2, p, stride); break;
    default: _tile_stored(3, p, stride); break;
  }
  SP_MATRIX_FENCE();
}

#define SP_MATRIX_CASE(c, a, b)                 \
  case (c) * 4 + ((a) - 4) * 2 + (b) - 6:       \
    if (kind == SP_MATRIX_BF16)                 \
      _tile_dpbf16ps(c, a, b);                  \
    else if (kind == SP_MATRIX_I8)              \
      _tile_dpbssd(c, a, b);                    \
    else                                        \
      _tile_dpbusd(c, a, b);                    \
    break;
#define SP_MATRIX_CASES(c) \
  SP_MATRIX_CASE(c, 4, 6) SP_MATRIX_CASE(c, 4, 7) SP_MATRIX_CASE(c, 5, 6) SP_MATRIX_CASE(c, 5, 7)
/* Sums c += operand a x weights b; all literals. Exact for bytes; pairs of bfloat16 as sp_dot2_f32. */
SP_INLINE void sp_matrix_dot(int kind, int c, int a, int b) {
  switch (c * 4 + (a - 4) * 2 + b - 6) {
    SP_MATRIX_CASES(0)
    SP_MATRIX_CASES(1)
    SP_MATRIX_CASES(2)
    SP_MATRIX_CASES(3)
    default: break;
  }
}

#endif
