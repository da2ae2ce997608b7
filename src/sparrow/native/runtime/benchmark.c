/* Times a model that is linked in: `benchmark weights.bin [runs]`, a line of JSON on standard output.
 *
 * Needs no libc and no library, so that it runs on any Linux or Android of its architecture. Inputs are
 * zero bytes. The times are those of whole calls, sorted: the least, the middle one, the 95th percentile.
 */
#include "../sparrow.h"
#include "freestanding.h"

SPARROW_DECLARE(model); /* a package has a name of its own in its place */

static void print(const char *text) {
  size_t n = 0;
  while (text[n] != 0) ++n;
  sys_write_all(1, text, n);
}

static void print_number(const char *name, uint64_t value) {
  char digits[24];
  int at = 23;
  digits[at] = 0;
  do {
    digits[--at] = (char)('0' + value % 10);
    value /= 10;
  } while (value != 0);
  print(name);
  print(digits + at);
}

static void **buffers(const sparrow_tensor_info *tensors, int32_t n) {
  void **found = (void **)sys_allocate((uint64_t)n * sizeof(void *));
  for (int32_t i = 0; i < n; ++i) found[i] = sys_allocate(tensors[i].bytes);
  return found;
}

int sparrow_main(int argc, char **argv) {
  enum { MOST = 100000, WARM_UP = 3 };
  const sparrow_model_info *info = model_info();
  const sparrow_entry_info *entry = &info->entries[0];
  if (argc < 2) sys_die("usage: benchmark weights.bin [runs]");
  uint64_t runs = 0;
  for (const char *p = argc > 2 ? argv[2] : "100"; *p >= '0' && *p <= '9' && runs < MOST; ++p)
    runs = 10 * runs + (uint64_t)(*p - '0');
  if (runs == 0 || runs > MOST) sys_die("runs: expected a number from 1 to 100000");
  sparrow_call call = {0};
  if (info->weights_bytes > 0) {
    const int file = (int)sys_call(SYS_OPENAT, -100, (long)argv[1], 0, 0, 0, 0);
    if (file < 0) sys_die("the weights cannot be opened");
    call.weights = sys_map(NULL, info->weights_bytes, 1, file, 0);
    if (call.weights == NULL) sys_die("the weights cannot be mapped");
  }
  call.inputs = (const void *const *)buffers(entry->inputs, entry->n_inputs);
  call.outputs = buffers(entry->outputs, entry->n_outputs);
  call.workspace = sys_allocate(info->workspace_bytes);
  call.state = sys_allocate(info->state_bytes);
  uint64_t *times = (uint64_t *)sys_allocate(runs * sizeof(uint64_t));
  if (model_reset(call.state, call.weights) != SPARROW_OK) sys_die("model_reset failed");
  for (uint64_t i = 0; i < runs + WARM_UP; ++i) {
    const uint64_t start = sys_now_ns();
    if (model_run(&call) != SPARROW_OK) sys_die("model_run failed");
    const uint64_t took = sys_now_ns() - start;
    if (i < WARM_UP) continue;
    uint64_t at = i - WARM_UP; /* sorted as they come */
    for (; at > 0 && times[at - 1] > took; --at) times[at] = times[at - 1];
    times[at] = took;
  }
  print_number("{\"runs\": ", runs);
  print_number(", \"min_ns\": ", times[0]);
  print_number(", \"median_ns\": ", times[runs / 2]);
  print_number(", \"p95_ns\": ", times[runs * 95 / 100]);
  print("}\n");
  return 0;
}
