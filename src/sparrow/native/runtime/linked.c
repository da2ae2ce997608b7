/* A model linked into a process of Linux that an emulator runs, for a microcontroller whose board it
 * does not have; serve.h says what it answers. */
#include "process.h"

int sparrow_main(int argc, char **argv) {
  (void)argc, (void)argv;
  serve_model m = serve_open(model_info(), model_run, model_reset);
  for (;;) serve_request(&m);
}
