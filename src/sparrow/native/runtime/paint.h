/* How much stack a call takes: what is below the caller's frame is painted, and looked at after. */
#ifndef SPARROW_RUNTIME_PAINT_H
#define SPARROW_RUNTIME_PAINT_H

#include "serve.h"

#if defined(__x86_64__)
#define PAINT_HERE "mov %%rsp, %0"
#elif defined(__i386__)
#define PAINT_HERE "mov %%esp, %0"
#elif defined(__riscv)
#define PAINT_HERE "mv %0, sp"
#else
#define PAINT_HERE "mov %0, sp"
#endif

static __attribute__((noinline)) uint64_t paint_stack(serve_run run, const sparrow_call *call,
                                                      int *status, const unsigned char *limit) {
  enum { PAINT = 0xA5 };
  unsigned char *here;
  __asm__ volatile(PAINT_HERE : "=r"(here));
  for (volatile unsigned char *p = here; p > limit;) *--p = PAINT;
  *status = run(call);
  const volatile unsigned char *lowest = limit;
  while (lowest < here && *lowest == PAINT) ++lowest;
  return (uint64_t)(here - (const unsigned char *)lowest);
}

#endif
