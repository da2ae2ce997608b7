/* Runs a model library for a program at the other end of two pipes: `runner model.so [cores]`; serve.h
 * says how they speak. `cores` is a mask in decimal: bit n lets it run on core n.
 *
 * Needs no libc, so that it runs on any Linux of its architecture and under qemu's user mode. */
#include "loader.h"
#include "process.h"

static void run_on(const char *mask) {
  uint64_t cores = 0;
  for (; *mask >= '0' && *mask <= '9'; ++mask) cores = 10 * cores + (uint64_t)(*mask - '0');
  if (sys_call(SYS_AFFINITY, 0, sizeof cores, (long)&cores, 0, 0, 0) < 0)
    sys_die("the cores that were asked for are not there, or not for this program");
}

int sparrow_main(int argc, char **argv) {
  if (argc < 2) sys_die("usage: runner model.so [cores]");
  if (argc > 2) run_on(argv[2]);
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
  serve_model m = serve_open(model_info(), model_run, model_reset);
  for (;;) serve_request(&m);
}
