/* What serve.h asks of a process of Linux. */
#ifndef SPARROW_RUNTIME_PROCESS_H
#define SPARROW_RUNTIME_PROCESS_H

#include "freestanding.h"
#include "paint.h"

/* A system call that no kernel has; arguments step and begin. */
enum { SYS_MARK = 0x5350 };

static void sys_mark(int step, int begin) { sys_call(SYS_MARK, step, begin, 0, 0, 0, 0); }

static uint64_t sys_stack(serve_run run, const sparrow_call *call, int *status) {
  enum { MOST = 1 << 18 }; /* of the eight megabytes that a process has */
  return paint_stack(run, call, status, (const unsigned char *)((uintptr_t)&status - MOST));
}

#endif
