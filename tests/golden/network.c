/* Where a call's memory is: weights, workspace, state. */
typedef struct sp_frame {
  const sparrow_call *call;
  const unsigned char *w;
  unsigned char *ws;
  unsigned char *st;
} sp_frame;

SP_LINK void model_e0_s0(const sp_frame *f, int task);
SP_LINK void model_e0_s1(const sp_frame *f, int task);
SP_LINK void model_e0_s2(const sp_frame *f, int task);
SP_LINK void model_e0_s3(const sp_frame *f, int task);

#if SP_IN(1)
SP_INLINE sp_f32 model_f0_ep(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n) {
  (void)row;
  const sp_f32 x0 = sp_loadn_f32((const float *)e[0] + col, n);
  const sp_f32 t0 = sp_add_f32(acc, x0);
  const sp_f32 t1 = sp_maxq_f32(sp_zero_f32(), t0);
  return t1;
}
static SP_KEPT void model_f0(const float *p0, const float *p1, float *p2, const void *const *e) {
  sp_conv2d_f32((sp_conv2d){..}, p0, p1, p2, model_f0_ep, e, 0);
}
SP_LINK void model_e0_s0(const sp_frame *f, int task) {
  (void)task;
  const void *const e[] = {(const float *)(f->w)};
  model_f0((const float *)((const unsigned char *)f->call->inputs[0]), (const float *)(f->w + 64), (float *)(f->ws), e);
}
SP_INLINE sp_f32 model_f1_ep(sp_f32 acc, const void *const *e, ptrdiff_t row, ptrdiff_t col, int n) {
  (void)row;
  const sp_f32 x0 = sp_loadn_f32((const float *)e[0] + col, n);
  const sp_f32 t0 = sp_add_f32(acc, x0);
  const sp_f32 t1 = sp_maxq_f32(sp_zero_f32(), t0);
  return t1;
}
SP_OUTLINE void model_f1(const float *p0, const float *p1, float *p2, const void *const *e) {
  sp_gemm_f32((sp_gemm){..}, p0, p1, p2, model_f1_ep, e, 0);
}
SP_LINK void model_e0_s1(const sp_frame *f, int task) {
  (void)task;
  const void *const e[] = {(const float *)(f->w)};
  model_f1((const float *)(f->ws), (const float *)(f->w + 192), (float *)(f->ws + 2048), e);
}
SP_LINK void model_e0_s2(const sp_frame *f, int task) {
  (void)task;
  const void *const e[] = {(const float *)(f->w)};
  model_f1((const float *)(f->ws + 2048), (const float *)(f->w + 192), (float *)(f->ws), e);
}
static SP_KEPT void model_f2(const float *p0, float *p1) {
  sp_softmax_f32((sp_softmax){..}, p0, p1, 0);
}
SP_LINK void model_e0_s3(const sp_frame *f, int task) {
  (void)task;
  model_f2((const float *)(f->ws), (float *)((unsigned char *)f->call->outputs[0]));
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
  SP_TAP(0, 0, f->ws, 2048);
  SP_PROFILE(1, 1);
  model_e0_s1(f, 0);
  SP_PROFILE(1, 0);
  SP_TAP(1, 0, f->ws + 2048, 2048);
  SP_PROFILE(2, 1);
  model_e0_s2(f, 0);
  SP_PROFILE(2, 0);
  SP_TAP(2, 0, f->ws, 2048);
  SP_PROFILE(3, 1);
  model_e0_s3(f, 0);
  SP_PROFILE(3, 0);
  SP_TAP(3, 0, (unsigned char *)f->call->outputs[0], 2048);
}
static const int64_t sp_t0_in0_shape[] = {1, 3, 8, 8};
static const int64_t sp_t0_out0_shape[] = {1, 8, 8, 8};
static const sparrow_tensor_info sp_t0_in[] = {
  {.name = "image", .shape = sp_t0_in0_shape, .bytes = 768, .dtype = SPARROW_FLOAT32, .rank = 4, .axis = -1, .count_of = -1}};
static const sparrow_tensor_info sp_t0_out[] = {
  {.name = "y", .shape = sp_t0_out0_shape, .bytes = 2048, .dtype = SPARROW_FLOAT32, .rank = 4, .axis = -1, .count_of = -1}};
#ifdef SPARROW_HOOKS
static const char *const sp_t0_steps[] = {
  "Conv ",
  "Conv ",
  "Conv ",
  "Softmax "};
#endif
#ifdef SPARROW_HOOKS
#define SP_STEPS(...) __VA_ARGS__
#else
#define SP_STEPS(...)
#endif
static const sparrow_entry_info sp_entries[] = {
  {SP_STEPS(.step_names = sp_t0_steps,) .name = "network", .inputs = sp_t0_in, .outputs = sp_t0_out, .n_inputs = 1, .n_outputs = 1, .n_steps = 4}};
static const sparrow_model_info sp_info = {
  SP_STEPS(.flags = SPARROW_FLAG_HOOKS,)
  .abi_version = SPARROW_ABI_VERSION,
  .name = "m",
  .isa = "avx2",
  .weights = NULL,
  .entries = sp_entries,
  .states = NULL,
  .weights_bytes = 448,
  .workspace_bytes = 4096,
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
  if (call->workspace == NULL) return SPARROW_NULL;
  if (((uintptr_t)call->workspace & 63u) != 0) return SPARROW_MISALIGNED;
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
