/* A model linked into a program for a board that qemu emulates; serve.h says what it answers.
 * Instructions are counted between visits to sys_marked, whose address the counter is told. */
#include "semihosting.h"
#include "paint.h"

void sys_marked(void) __attribute__((noinline, used));
void sys_marked(void) { __asm__ volatile("" ::: "memory"); }

/* The emulated boards count instructions, not time. */
static uint64_t sys_now_ns(void) { return 0; }

static void sys_mark(int step, int begin) {
  (void)step, (void)begin;
  sys_marked();
}

static uint64_t sys_stack(serve_run run, const sparrow_call *call, int *status) {
  return paint_stack(run, call, status, _stack_limit);
}

int sparrow_main(void) {
  serve_model m = serve_open(model_info(), model_run, model_reset);
  for (;;) serve_request(&m);
}
