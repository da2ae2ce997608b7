/* Where a call's memory is: weights, workspace, state. */
typedef struct sp_frame {
  const sparrow_call *call;
  const unsigned char *w;
  unsigned char *ws;
  unsigned char *st;
} sp_frame;

SP_LINK void model_e0_s0(const sp_frame *f, int task);

#if SP_IN(1)
SP_INLINE sp_i32 model_f0_code(const float *p0, const float *p1, ptrdiff_t j, int n) {
  const sp_f32 v0 = sp_loadn_f32(p0 + j, n);
  const sp_f32 v1 = sp_loadn_f32(p1 + j, n);
  const sp_f32 t0 = sp_mul_f32(v0, v1);
  const sp_f32 t1 = sp_round_f32(t0);
  const sp_f32 t2 = sp_maxq_f32(sp_set1_f32((-0x1.fc00000000000p+6f)), t1);
  const sp_f32 t3 = sp_minq_f32(sp_set1_f32(0x1.fc00000000000p+6f), t2);
  const sp_i32 t4 = sp_to_i8_f32(t3);
  return t4;
}
SP_INLINE void model_f0_lane(int8_t *q, const float *p0, const float *p1, ptrdiff_t j, int n) {
  sp_storen_i8(q + j, model_f0_code(p0, p1, j, n), n);
}
static SP_KEPT void model_f0(const float *x0, const float *x1, int8_t *y) {
  const float *p0 = x0;
  const float *p1 = x1;
  int8_t *q = y;
  float g1[3 * SP_LANES];
  for (int r = 0; r < SP_LANES; ++r)
    for (int c = 0; c < 3; ++c) g1[r * 3 + c] = p1[c];
  for (ptrdiff_t i = 0; i < 20; i += SP_LANES) {
    const int rows = (int)sp_imin(SP_LANES, 20 - i);
    if (rows == SP_LANES) {
      SP_UNROLL
      for (int j = 0; j < 3 * SP_LANES; j += SP_LANES) model_f0_lane(q + i * 3, p0 + i * 3, g1, j, SP_LANES);
    } else {
      for (int j = 0; j < rows * 3; j += SP_LANES) model_f0_lane(q + i * 3, p0 + i * 3, g1, j, (int)sp_imin(SP_LANES, rows * 3 - j));
    }
  }
}
SP_LINK void model_e0_s0(const sp_frame *f, int task) {
  (void)task;
  model_f0((const float *)((const unsigned char *)f->call->inputs[0]), (const float *)(f->w), (int8_t *)((unsigned char *)f->call->outputs[0]));
}
#endif

#if SP_IN(0)
typedef struct sp_job {
  void (*fn)(const sp_frame *, int);
  const sp_frame *frame;
} sp_job;

SP_OUTLINE void sp_run_task(void *arg, int task) {
  const sp_job *job = (const sp_job *)arg;
  job->fn(job->frame, task);
}

SP_OUTLINE void sp_split(const sp_frame *f, void (*fn)(const sp_frame *, int), int tasks) {
  if (f->call->parallel_for != NULL) {
    sp_job job;
    job.fn = fn;
    job.frame = f;
    f->call->parallel_for(f->call->parallel_ctx, sp_run_task, &job, tasks);
  } else {
    for (int t = 0; t < tasks; ++t) fn(f, t);
  }
}

SP_INLINE void sp_copy_bytes(unsigned char *to, const unsigned char *from, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; ++i) to[i] = from[i];
}

#ifdef SPARROW_HOOKS
#define SP_PROFILE(step, begin) \
  if (f->call->profile != NULL) f->call->profile(f->call->hook_ctx, (step), (begin))
#define SP_TAP(step, output, data, bytes) \
  if (f->call->tap != NULL) f->call->tap(f->call->hook_ctx, (step), (output), (data), (bytes))
#else
#define SP_PROFILE(step, begin) (void)0
#define SP_TAP(step, output, data, bytes) (void)0
#endif

static void sp_entry_0(const sp_frame *f) {
  (void)f;
  SP_PROFILE(0, 1);
  model_e0_s0(f, 0);
  SP_PROFILE(0, 0);
  SP_TAP(0, 0, (unsigned char *)f->call->outputs[0], 60);
}
static const int64_t sp_t0_in0_shape[] = {1, 20, 3};
static const int64_t sp_t0_out0_shape[] = {1, 20, 3};
static const sparrow_tensor_info sp_t0_in[] = {
  {.name = "x", .shape = sp_t0_in0_shape, .bytes = 240, .dtype = SPARROW_FLOAT32, .rank = 3, .axis = -1, .count_of = -1}};
static const sparrow_tensor_info sp_t0_out[] = {
  {.name = "q", .shape = sp_t0_out0_shape, .bytes = 60, .dtype = SPARROW_INT8, .rank = 3, .axis = -1, .count_of = -1}};
#ifdef SPARROW_HOOKS
static const char *const sp_t0_steps[] = {
  "Lane "};
#endif
#ifdef SPARROW_HOOKS
#define SP_STEPS(...) __VA_ARGS__
#else
#define SP_STEPS(...)
#endif
static const sparrow_entry_info sp_entries[] = {
  {SP_STEPS(.step_names = sp_t0_steps,) .name = "quantize", .inputs = sp_t0_in, .outputs = sp_t0_out, .n_inputs = 1, .n_outputs = 1, .n_steps = 1}};
static const sparrow_model_info sp_info = {
  SP_STEPS(.flags = SPARROW_FLAG_HOOKS,)
  .abi_version = SPARROW_ABI_VERSION,
  .name = "m",
  .isa = "avx2",
  .weights = NULL,
  .entries = sp_entries,
  .states = NULL,
  .weights_bytes = 12,
  .workspace_bytes = 0,
  .state_bytes = 0,
  .weights_align = 64,
  .workspace_align = 64,
  .state_align = 64,
  .n_entries = 1,
  .n_states = 0};
SPARROW_API const sparrow_model_info *model_info(void) { return &sp_info; }

SPARROW_API int model_run(const sparrow_call *call) {
  sp_frame frame;
  const sparrow_entry_info *entry;
  if (call == NULL) return SPARROW_NULL;
  if (call->entry >= 1u) return SPARROW_BAD_ENTRY;
  entry = &sp_entries[call->entry];
  if (call->inputs == NULL && entry->n_inputs > 0) return SPARROW_NULL;
  if (call->outputs == NULL && entry->n_outputs > 0) return SPARROW_NULL;
  for (int i = 0; i < entry->n_inputs; ++i)
    if (call->inputs[i] == NULL && entry->inputs[i].bytes != 0) return SPARROW_NULL;
  for (int i = 0; i < entry->n_outputs; ++i)
    if (call->outputs[i] == NULL && entry->outputs[i].bytes != 0) return SPARROW_NULL;
  if (call->weights == NULL) return SPARROW_NULL;
  if (((uintptr_t)call->weights & 63u) != 0) return SPARROW_MISALIGNED;
  frame.call = call;
  frame.w = (const unsigned char *)call->weights;
  frame.ws = (unsigned char *)call->workspace;
  frame.st = (unsigned char *)call->state;
  switch (call->entry) {
    case 0: sp_entry_0(&frame); break;
    default: return SPARROW_BAD_ENTRY;
  }
  return SPARROW_OK;
}

SPARROW_API int model_reset(void *state, const void *weights) {
#ifdef SP_ASKS_PROCESSOR
  if (sp_processor_lacks()) return SPARROW_REFUSED;
#endif
  (void)state;
  (void)weights;
  return SPARROW_OK;
}
#endif
