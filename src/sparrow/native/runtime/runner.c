/* Runs a model library for a program at the other end of two pipes: `runner model.so`; serve.h says
 * how they speak.
 *
 * Needs no libc, so that it runs on any Linux of its architecture and under qemu's user mode. */
#include "loader.h"
#include "serve.h"

/* A system call that no kernel has; arguments step and begin. */
enum { SYS_MARK = 0x5350 };

static void sys_mark(int step, int begin) { sys_call(SYS_MARK, step, begin, 0, 0, 0, 0); }

/* Not measured here: a process has stack enough. */
static uint64_t sys_stack(serve_run run, const sparrow_call *call, int *status) {
  *status = run(call);
  return 0;
}

int sparrow_main(int argc, char **argv) {
  if (argc < 2) sys_die("usage: runner model.so");
  const ld_library library = ld_load(argv[1]);
  void *addresses[3] = {ld_find(&library, "model_info"), ld_find(&library, "model_run"),
                        ld_find(&library, "model_reset")};
  const sparrow_model_info *(*model_info)(void);
  int (*model_run)(const sparrow_call *);
  int (*model_reset)(void *, const void *);
  if (addresses[0] == NULL || addresses[1] == NULL || addresses[2] == NULL)
    sys_die("not a model library");
  memcpy(&model_info, &addresses[0], sizeof model_info);
  memcpy(&model_run, &addresses[1], sizeof model_run);
  memcpy(&model_reset, &addresses[2], sizeof model_reset);
  serve(model_info(), model_run, model_reset);
}
