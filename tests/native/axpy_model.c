/* The smallest model that uses every part of the ABI: y = a * x + b in 8 tasks.
 *   entry 0 "axpy"   x, b [1024] f32 -> y [1024] f32; a is the first f32 of the weights; step 1
 *                    adds the number of earlier calls (state) to y[0]
 *   entry 1 "above"  x [1024] f32 -> values [1024] f32 (valid: count), count i64: those > a */
#include "sparrow.h"

enum { N = 1024, TASKS = 8 };

static const int64_t shape_n[] = {N};
static const float scales[] = {0.5f};
static const int32_t zero_points[] = {-3};

#define F32(label) \
  { .name = label, .shape = shape_n, .bytes = N * 4, .dtype = SPARROW_FLOAT32, .rank = 1, \
    .axis = -1, .count_of = -1 }

static const sparrow_tensor_info axpy_inputs[] = {F32("x"), F32("b\303\251")};
static const sparrow_tensor_info axpy_outputs[] = {
    {.name = "y", .shape = shape_n, .scales = scales, .zero_points = zero_points, .bytes = N * 4,
     .dtype = SPARROW_FLOAT32, .rank = 1, .n_scales = 1, .axis = -1, .count_of = -1}};
static const sparrow_tensor_info above_inputs[] = {F32("x")};
static const sparrow_tensor_info above_outputs[] = {
    {.name = "values", .shape = shape_n, .bytes = N * 4, .dtype = SPARROW_FLOAT32, .rank = 1,
     .axis = -1, .count_of = 1, .count_axis = 0},
    {.name = "count", .bytes = 8, .dtype = SPARROW_INT64, .axis = -1, .count_of = -1}};
static const sparrow_tensor_info states[] = {
    {.name = "calls", .bytes = 4, .offset = 8, .dtype = SPARROW_INT32, .axis = -1, .count_of = -1}};

#ifdef SPARROW_HOOKS
static const char *const axpy_steps[] = {"scale_add", "count_calls"};
static const char *const above_steps[] = {"select"};
#else
#define axpy_steps NULL
#define above_steps NULL
#endif

static const sparrow_entry_info entries[] = {
    {.name = "axpy", .inputs = axpy_inputs, .outputs = axpy_outputs, .step_names = axpy_steps,
     .n_inputs = 2, .n_outputs = 1, .n_steps = 2},
    {.name = "above", .inputs = above_inputs, .outputs = above_outputs, .step_names = above_steps,
     .n_inputs = 1, .n_outputs = 2, .n_steps = 1},
};

static const sparrow_model_info info = {
    .abi_version = SPARROW_ABI_VERSION,
#ifdef SPARROW_HOOKS
    .flags = SPARROW_FLAG_HOOKS,
#endif
    .name = "axpy", .isa = "scalar", .entries = entries, .states = states,
    .weights_bytes = 64, .workspace_bytes = N * 4, .state_bytes = 16,
    .weights_align = 64, .workspace_align = 64, .state_align = 8,
    .n_entries = 2, .n_states = 1,
};

const sparrow_model_info *model_info(void) { return &info; }

int model_reset(void *state, const void *weights) {
  (void)weights;
  if (state == NULL) return SPARROW_NULL;
  ((int32_t *)state)[2] = 0;
  return SPARROW_OK;
}

typedef struct axpy_arg {
  const float *x, *b;
  float *scratch, *y;
  float a;
} axpy_arg;

static void axpy_task(void *arg, int index) {
  const axpy_arg *p = (const axpy_arg *)arg;
  for (int i = index * (N / TASKS); i < (index + 1) * (N / TASKS); ++i) {
    p->scratch[i] = p->a * p->x[i];
    p->y[i] = p->scratch[i] + p->b[i];
  }
}

static void axpy(const sparrow_call *call) {
  int32_t *calls = (int32_t *)call->state + 2;
  axpy_arg arg = {(const float *)call->inputs[0], (const float *)call->inputs[1],
                  (float *)call->workspace, (float *)call->outputs[0],
                  *(const float *)call->weights};
#ifdef SPARROW_HOOKS
  if (call->profile) call->profile(call->hook_ctx, 0, 1);
#endif
  if (call->parallel_for) {
    call->parallel_for(call->parallel_ctx, axpy_task, &arg, TASKS);
  } else {
    for (int i = 0; i < TASKS; ++i) axpy_task(&arg, i);
  }
#ifdef SPARROW_HOOKS
  if (call->profile) call->profile(call->hook_ctx, 0, 0);
  if (call->tap) call->tap(call->hook_ctx, 0, 0, arg.y, N * 4);
  if (call->profile) call->profile(call->hook_ctx, 1, 1);
#endif
  arg.y[0] += (float)*calls;
  *calls += 1;
#ifdef SPARROW_HOOKS
  if (call->profile) call->profile(call->hook_ctx, 1, 0);
  if (call->tap) call->tap(call->hook_ctx, 1, 0, arg.y, 4);
#endif
}

static int above(const sparrow_call *call) {
  const float *x = (const float *)call->inputs[0];
  float *values = (float *)call->outputs[0];
  int64_t count = 0;
  for (int i = 0; i < N; ++i) {
    if (x[i] != x[i]) return SPARROW_BAD_VALUE;
    if (x[i] > *(const float *)call->weights) values[count++] = x[i];
  }
  *(int64_t *)call->outputs[1] = count;
  return SPARROW_OK;
}

int model_run(const sparrow_call *call) {
  if (call->entry >= 2) return SPARROW_BAD_ENTRY;
  if (!call->inputs || !call->outputs || !call->weights || !call->workspace || !call->state)
    return SPARROW_NULL;
  if ((uintptr_t)call->weights % 64 || (uintptr_t)call->workspace % 64) return SPARROW_MISALIGNED;
  if (call->entry == 1) return above(call);
  axpy(call);
  return SPARROW_OK;
}
