/* Whether this processor runs what an x86-64 compiler was allowed to use, and the system keeps its
 * registers. In a virtual machine CPUID takes microseconds: model_reset asks, model_run does not.
 *
 * Nothing here may need what it asks for, so the compiler's own features are off in the function. */
#ifndef SP_PROCESSOR_H
#define SP_PROCESSOR_H

#include "base.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define SP_ASKS_PROCESSOR 1

/* What each word of CPUID has to hold; a feature that the compiler does not have is 0. */
SP_CONST uint32_t sp_needs[] = {
    /* leaf 1, ecx */
    0u
#ifdef __SSE3__
        | 1u << 0
#endif
#ifdef __SSSE3__
        | 1u << 9
#endif
#ifdef __FMA__
        | 1u << 12
#endif
#ifdef __SSE4_1__
        | 1u << 19
#endif
#ifdef __SSE4_2__
        | 1u << 20
#endif
#ifdef __MOVBE__
        | 1u << 22
#endif
#ifdef __POPCNT__
        | 1u << 23
#endif
#ifdef __AVX__
        | 1u << 27 | 1u << 28 /* OSXSAVE: XGETBV may be asked */
#endif
#ifdef __F16C__
        | 1u << 29
#endif
    ,
    /* leaf 7, ebx */
    0u
#ifdef __BMI__
        | 1u << 3
#endif
#ifdef __AVX2__
        | 1u << 5
#endif
#ifdef __BMI2__
        | 1u << 8
#endif
#ifdef __AVX512F__
        | 1u << 16
#endif
#ifdef __AVX512DQ__
        | 1u << 17
#endif
#ifdef __AVX512CD__
        | 1u << 28
#endif
#ifdef __AVX512BW__
        | 1u << 30
#endif
#ifdef __AVX512VL__
        | 1u << 31
#endif
    ,
    /* leaf 7, ecx */
    0u
#ifdef __AVX512VBMI__
        | 1u << 1
#endif
#ifdef __AVX512VNNI__
        | 1u << 11
#endif
    ,
    /* leaf 7, edx */
    0u
#ifdef __AMX_BF16__
        | 1u << 22
#endif
#ifdef __AMX_TILE__
        | 1u << 24
#endif
#ifdef __AMX_INT8__
        | 1u << 25
#endif
    ,
    /* leaf 7, second table, eax */
    0u
#ifdef __AVXVNNI__
        | 1u << 4
#endif
#ifdef __AVX512BF16__
        | 1u << 5
#endif
    ,
    /* XGETBV 0: registers that the system keeps for each thread */
    0u
#ifdef __AVX__
        | 0x6u
#endif
#ifdef __AVX512F__
        | 0xe0u
#endif
#ifdef __AMX_TILE__
        | 0x60000u
#endif
};

SP_OUTLINE __attribute__((target("no-bmi,no-bmi2,no-avx"))) int sp_processor_lacks(void) {
  uint32_t a, b, c, d, found[6] = {0};
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "0"(0), "2"(0));
  const uint32_t last = a;
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "0"(1), "2"(0));
  found[0] = c;
  if (last >= 7) {
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "0"(7), "2"(0));
    found[1] = b;
    found[2] = c;
    found[3] = d;
    if (a >= 1 && sp_needs[4] != 0) {
      __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "0"(7), "2"(1));
      found[4] = a;
    }
  }
  if (found[0] >> 27 & 1) __asm__ volatile("xgetbv" : "=a"(found[5]), "=d"(d) : "c"(0));
  for (int i = 0; i < 6; ++i)
    if ((found[i] & sp_needs[i]) != sp_needs[i]) return 1;
  return 0;
}
#endif

#endif
