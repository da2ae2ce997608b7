/* The vocabulary for cores with Helium (Cortex-M55, M85): one lane, and sums of 16 products of bytes in
 * one instruction. clang, gcc 10 and later (arm_mve.h). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include <arm_mve.h>

#include "dsp_base.h"

#define SP_ISA_NAME "mve"

/* Runs of bytes of one sum, SP_RUN_BYTES at a time; sp_loadn_run reads n of them, the rest is 0. */
#define SP_RUN_BYTES 16
typedef int8x16_t sp_run;
SP_INLINE sp_run sp_load_run(const void *p) { return vldrbq_s8((const int8_t *)p); }
SP_INLINE sp_run sp_loadn_run(const void *p, int n) {
  return vldrbq_z_s8((const int8_t *)p, vctp8q((uint32_t)n));
}
SP_INLINE sp_run sp_flip_run(sp_run v) { return veorq_s8(v, vdupq_n_s8(-128)); }
SP_INLINE sp_i32 sp_dot_run_i32(sp_i32 acc, sp_run a, sp_run b) { return vmladavaq_s8(acc, a, b); }

#endif
