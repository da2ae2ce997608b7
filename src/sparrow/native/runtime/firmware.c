/* A model linked into a program for a board that qemu emulates; serve.h says what it answers.
 * Instructions are counted between visits to sys_marked, whose address the counter is told. */
#include "semihosting.h"
#include "serve.h"

void sys_marked(void) __attribute__((noinline, used));
void sys_marked(void) { __asm__ volatile("" ::: "memory"); }

/* The emulated boards count instructions, not time. */
static uint64_t sys_now_ns(void) { return 0; }

static void sys_mark(int step, int begin) {
  (void)step, (void)begin;
  sys_marked();
}

/* Paints all of the stack below this frame, runs, and looks how far the paint is gone. */
static __attribute__((noinline)) uint64_t sys_stack(serve_run run, const sparrow_call *call,
                                                    int *status) {
  enum { PAINT = 0xA5 };
  unsigned char *here;
  __asm__ volatile("mov %0, sp" : "=r"(here));
  for (volatile unsigned char *p = here; p > _stack_limit;) *--p = PAINT;
  *status = run(call);
  const volatile unsigned char *lowest = _stack_limit;
  while (lowest < here && *lowest == PAINT) ++lowest;
  return (uint64_t)(here - (const unsigned char *)lowest);
}

int sparrow_main(void) {
  serve_model m = serve_open(model_info(), model_run, model_reset);
  for (;;) serve_request(&m);
}
