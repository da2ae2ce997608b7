/* The server side of a model in another process or on another machine: requests come in, answers go
 * out, over two pipes or a serial line; device/remote.py is the client.
 *
 * All numbers are little-endian and 64-bit, a text is its length and bytes. A request is a number:
 *
 *   0 nothing, which is what a line reads as that lost its client
 *   1 info    answers what model_info says, in the order of send_info below
 *   2 weights takes the blob (weights_bytes); needed before anything that follows where it is not
 *             linked in
 *   3 reset   answers a sparrow_status
 *   4 state   answers the state block
 *   5 run     takes entry, flags and the inputs one after the other; answers events, each a kind
 *             (0 the end, with the status; 1 a tap, with step, output, bytes and the data; 2 the
 *             bytes of stack that the call took), and after the end, if the status is SPARROW_OK,
 *             the outputs
 *   6 time    takes entry, runs and the inputs; answers for each run its status and, for each step,
 *             ns at begin and end; a status that is not SPARROW_OK is the last
 *   7 calls   takes the same; answers for each run its status and how many ns it took
 *
 * Flags of run: 1 taps, 2 tasks in reverse order, 4 marks before and after each step, for a counter
 * of instructions, 8 measure the stack. The file that includes this one brings sys_read_all,
 * sys_write_all, sys_allocate, sys_die, memcpy, and
 *
 *   sys_now_ns()           a clock that only rises; 0 where there is none
 *   sys_mark(step, begin)  what a counter of instructions sees
 *   sys_stack(run, call, &status)  runs, and says how many bytes of stack that took; what
 *                                  runtime/paint.h does where there is a stack pointer to read */
#ifndef SPARROW_RUNTIME_SERVE_H
#define SPARROW_RUNTIME_SERVE_H

#include "../sparrow.h"

enum { INFO = 1, WEIGHTS, RESET, STATE, RUN, TIME, CALLS };
enum { TAPS = 1, REVERSED = 2, MARKS = 4, STACK = 8 };

typedef int (*serve_run)(const sparrow_call *);

static uint64_t sys_now_ns(void);
static void sys_mark(int step, int begin);
static uint64_t sys_stack(serve_run run, const sparrow_call *call, int *status);

static void send(uint64_t n) { sys_write_all(1, &n, sizeof n); }

static void send_text(const char *text) {
  uint64_t n = 0;
  while (text[n] != 0) ++n;
  send(n);
  sys_write_all(1, text, n);
}

static uint64_t receive(void) {
  uint64_t n;
  sys_read_all(&n, sizeof n);
  return n;
}

static void send_tensor(const sparrow_tensor_info *t) {
  send_text(t->name);
  send(t->dtype);
  send((uint64_t)t->rank);
  for (int32_t i = 0; i < t->rank; ++i) send((uint64_t)t->shape[i]);
  send(t->bytes);
  send(t->offset);
  send((uint64_t)t->axis);
  send((uint64_t)t->block);
  send((uint64_t)t->count_of);
  send((uint64_t)t->count_axis);
  send((uint64_t)t->n_scales);
  sys_write_all(1, t->scales, (uint64_t)t->n_scales * sizeof(float));
  for (int32_t i = 0; i < t->n_scales; ++i)
    send(t->zero_points != NULL ? (uint64_t)(int64_t)t->zero_points[i] : 0);
}

static void send_info(const sparrow_model_info *info) {
  send(info->abi_version);
  send_text(info->name);
  send_text(info->isa);
  send(info->flags);
  send(info->weights != NULL);
  send(info->weights_bytes);
  send(info->workspace_bytes);
  send(info->state_bytes);
  send(info->weights_align);
  send(info->workspace_align);
  send(info->state_align);
  send((uint64_t)info->n_entries);
  for (int32_t e = 0; e < info->n_entries; ++e) {
    const sparrow_entry_info *entry = &info->entries[e];
    const int named = entry->step_names != NULL;
    send_text(entry->name);
    send((uint64_t)entry->n_inputs);
    for (int32_t i = 0; i < entry->n_inputs; ++i) send_tensor(&entry->inputs[i]);
    send((uint64_t)entry->n_outputs);
    for (int32_t i = 0; i < entry->n_outputs; ++i) send_tensor(&entry->outputs[i]);
    send((uint64_t)entry->n_steps);
    send((uint64_t)named);
    for (int32_t i = 0; named && i < entry->n_steps; ++i) send_text(entry->step_names[i]);
  }
  send((uint64_t)info->n_states);
  for (int32_t i = 0; i < info->n_states; ++i) send_tensor(&info->states[i]);
}

static void on_tap(void *ctx, int step, int output, const void *data, uint64_t bytes) {
  (void)ctx;
  send(1);
  send((uint64_t)step);
  send((uint64_t)output);
  send(bytes);
  sys_write_all(1, data, bytes);
}

static void on_profile(void *ctx, int step, int begin) {
  (void)ctx;
  sys_mark(step, begin);
}

typedef struct serve_stamps {
  uint64_t *ns; /* begin and end of each step */
  int32_t n_steps;
} serve_stamps;

static void on_stamp(void *ctx, int step, int begin) {
  const serve_stamps *stamps = (const serve_stamps *)ctx;
  if (step < stamps->n_steps) stamps->ns[2 * step + !begin] = sys_now_ns();
}

static void backwards(void *ctx, sparrow_task task, void *arg, int n) {
  (void)ctx;
  while (n-- > 0) task(arg, n);
}

/* One buffer per tensor; unlike malloc's, the bytes after it belong to nobody. */
static void **buffers(const sparrow_tensor_info *tensors, int32_t n) {
  void **found = (void **)sys_allocate((uint64_t)n * sizeof(void *));
  for (int32_t i = 0; i < n; ++i) found[i] = sys_allocate(tensors[i].bytes);
  return found;
}

/* A model with memory of its own. */
typedef struct serve_model {
  const sparrow_model_info *info;
  serve_run run;
  int (*reset)(void *, const void *);
  const void *weights;
  void *workspace, *state, ***inputs, ***outputs;
  uint64_t *stamps;
} serve_model;

static serve_model serve_open(const sparrow_model_info *info, serve_run run,
                              int (*reset)(void *, const void *)) {
  if (info->abi_version != SPARROW_ABI_VERSION) sys_die("the library has another ABI version");
  serve_model m = {0};
  int32_t steps = 0;
  m.info = info;
  m.run = run;
  m.reset = reset;
  m.weights = info->weights;
  m.workspace = sys_allocate(info->workspace_bytes);
  m.state = sys_allocate(info->state_bytes);
  m.inputs = (void ***)sys_allocate((uint64_t)info->n_entries * sizeof(void **));
  m.outputs = (void ***)sys_allocate((uint64_t)info->n_entries * sizeof(void **));
  for (int32_t e = 0; e < info->n_entries; ++e) {
    const sparrow_entry_info *entry = &info->entries[e];
    m.inputs[e] = buffers(entry->inputs, entry->n_inputs);
    m.outputs[e] = buffers(entry->outputs, entry->n_outputs);
    if (entry->n_steps > steps) steps = entry->n_steps;
  }
  if (info->flags & SPARROW_FLAG_HOOKS)
    m.stamps = (uint64_t *)sys_allocate(2u * (uint64_t)steps * sizeof(uint64_t));
  return m;
}

/* The entry point that a request names and its inputs, read; a call of it. */
static sparrow_call receive_call(const serve_model *m, uint64_t e) {
  if (e >= (uint64_t)m->info->n_entries) sys_die("there is no such entry point");
  const sparrow_entry_info *entry = &m->info->entries[e];
  for (int32_t i = 0; i < entry->n_inputs; ++i)
    sys_read_all(m->inputs[e][i], entry->inputs[i].bytes);
  sparrow_call call = {0};
  call.entry = (uint32_t)e;
  call.inputs = (const void *const *)m->inputs[e];
  call.outputs = m->outputs[e];
  call.weights = m->weights;
  call.workspace = m->workspace;
  call.state = m->state;
  return call;
}

static void serve_one_run(const serve_model *m) {
  const uint64_t e = receive(), flags = receive();
  sparrow_call call = receive_call(m, e);
  const sparrow_entry_info *entry = &m->info->entries[e];
  int status = SPARROW_OK;
  if (flags & TAPS) call.tap = on_tap;
  if (flags & REVERSED) call.parallel_for = backwards;
  if (flags & MARKS) call.profile = on_profile;
  if (flags & STACK) {
    const uint64_t bytes = sys_stack(m->run, &call, &status);
    send(2);
    send(bytes);
  } else {
    status = m->run(&call);
  }
  send(0);
  send((uint64_t)status);
  for (int32_t i = 0; status == SPARROW_OK && i < entry->n_outputs; ++i)
    sys_write_all(1, m->outputs[e][i], entry->outputs[i].bytes);
}

/* Times the steps of each run where `steps`, else whole runs. */
static void serve_runs(const serve_model *m, int steps) {
  const uint64_t e = receive(), runs = receive();
  sparrow_call call = receive_call(m, e);
  serve_stamps stamps = {m->stamps, m->stamps != NULL ? m->info->entries[e].n_steps : 0};
  if (steps) {
    call.profile = on_stamp;
    call.hook_ctx = &stamps;
  }
  for (uint64_t i = 0; i < runs; ++i) {
    const uint64_t start = sys_now_ns();
    const int status = m->run(&call);
    const uint64_t took = sys_now_ns() - start;
    send((uint64_t)status);
    if (status != SPARROW_OK) break;
    if (steps)
      sys_write_all(1, stamps.ns, 2u * (uint64_t)stamps.n_steps * sizeof(uint64_t));
    else
      send(took);
  }
}

/* Answers the next request; does not return where sys_read_all ends the program. */
static void serve_request(serve_model *m) {
  switch (receive()) {
    case 0: break;
    case INFO: send_info(m->info); break;
    case WEIGHTS: {
      void *blob = sys_allocate(m->info->weights_bytes);
      sys_read_all(blob, m->info->weights_bytes);
      m->weights = blob;
      break;
    }
    case RESET: send((uint64_t)m->reset(m->state, m->weights)); break;
    case STATE: sys_write_all(1, m->state, m->info->state_bytes); break;
    case RUN: serve_one_run(m); break;
    case TIME: serve_runs(m, 1); break;
    case CALLS: serve_runs(m, 0); break;
    default: sys_die("unknown request");
  }
}

#endif
