/* Sparrow C ABI, version 1: everything a program needs to run an emitted model.
 *
 * Strict C99 (and C++), freestanding: no libc. Structures hold fixed-width integers and pointers
 * only, so their layout depends on nothing but the pointer size. Little-endian targets only.
 *
 * A model exports three functions (SPARROW_DECLARE below), owns no thread, no heap and no mutable
 * global: the caller brings weights, workspace and state, and may run any number of instances at
 * once over one weight blob as long as each has its own workspace and state.
 *
 *     const sparrow_model_info *info = model_info();
 *     sparrow_call call = {0};
 *     call.inputs = inputs;        // info->entries[0].n_inputs pointers
 *     call.outputs = outputs;      // info->entries[0].n_outputs pointers
 *     call.weights = info->weights != NULL ? info->weights : mapped_file;
 *     call.workspace = workspace;  // info->workspace_bytes, aligned to info->workspace_align
 *     call.state = state;          // info->state_bytes, aligned to info->state_align; may be NULL if 0
 *     int status = model_reset(call.state, call.weights); // once
 *     if (status == SPARROW_OK) status = model_run(&call);
 *
 * Instructions that the processor does not have end the program. On x86-64 model_reset asks before
 * and returns SPARROW_REFUSED; elsewhere compare model_info()->isa with what the system tells.
 */
#ifndef SPARROW_H
#define SPARROW_H

#include <stddef.h>
#include <stdint.h>

#define SPARROW_ABI_VERSION 1

#if defined(_WIN32)
#define SPARROW_API __declspec(dllexport)
#elif defined(__GNUC__)
#define SPARROW_API __attribute__((visibility("default")))
#else
#define SPARROW_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What model_run and model_reset return. Outputs and state are undefined unless SPARROW_OK. */
typedef enum sparrow_status {
  SPARROW_OK = 0,
  SPARROW_BAD_ENTRY = 1,  /* call->entry >= n_entries */
  SPARROW_NULL = 2,       /* a pointer that this model needs is NULL */
  SPARROW_MISALIGNED = 3, /* weights, workspace or state not aligned as model_info says */
  SPARROW_BAD_INDEX = 4,  /* an index *value* in an input is out of range (Gather, OneHot, ...) */
  SPARROW_BAD_VALUE = 5,  /* another input value the graph does not define (a shape, a divisor) */
  SPARROW_REFUSED = 6     /* the processor lacks instructions that the code needs (model_reset on
                             x86-64), or the system does not let the process use its registers */
} sparrow_status;

/* Element types. A sub-byte integer takes one byte in a tensor that crosses this interface, sign or
 * zero extended; how packed weights hold it is the kernel's own matter. */
typedef enum sparrow_dtype {
  SPARROW_FLOAT32 = 1,
  SPARROW_FLOAT16 = 2,  /* IEEE binary16, 2 bytes */
  SPARROW_BFLOAT16 = 3, /* the upper half of a binary32, 2 bytes */
  SPARROW_FLOAT64 = 4,
  SPARROW_INT2 = 5,
  SPARROW_INT4 = 6,
  SPARROW_UINT4 = 7,
  SPARROW_INT8 = 8,
  SPARROW_UINT8 = 9,
  SPARROW_INT16 = 10,
  SPARROW_UINT16 = 11,
  SPARROW_INT32 = 12,
  SPARROW_UINT32 = 13,
  SPARROW_INT64 = 14,
  SPARROW_UINT64 = 15,
  SPARROW_BOOL = 16 /* one byte, 0 or 1 */
} sparrow_dtype;

/* One input, output or state tensor; dense, row-major in the order of `shape`. */
typedef struct sparrow_tensor_info {
  const char *name;           /* UTF-8; the source model's own name */
  const int64_t *shape;       /* rank extents, each >= 0; NULL when rank is 0 */
  const float *scales;        /* n_scales scales; NULL when not quantized */
  const int32_t *zero_points; /* n_scales zero points; NULL means all 0 */
  uint64_t bytes;             /* size of the dense tensor */
  uint64_t offset;            /* states: where in the state block; otherwise 0 */
  uint32_t dtype;             /* a sparrow_dtype */
  int32_t rank;               /* number of extents; 0 is a scalar */
  int32_t n_scales;           /* 0 not quantized, 1 per tensor, else per channel or group */
  int32_t axis;               /* the axis that scales run along; -1 when n_scales <= 1 */
  int32_t block;              /* elements of that axis that share one scale; 0 when n_scales <= 1 */
  int32_t count_of;           /* outputs with a data-dependent length: `shape` is then the largest
                                 possible and output `count_of` (a scalar int64) holds the valid
                                 extent of axis `count_axis`; -1 when the length is fixed */
  int32_t count_axis;         /* see count_of; the first elements of the axis are the valid ones,
                                 and the valid part is packed densely at the start */
  uint32_t flags;             /* 0, reserved */
} sparrow_tensor_info;

/* One entry point: a graph with fixed shapes. Entry points share weights, workspace and state. */
typedef struct sparrow_entry_info {
  const char *name;
  const sparrow_tensor_info *inputs;
  const sparrow_tensor_info *outputs;
  const char *const *step_names; /* n_steps names; NULL unless built with SPARROW_HOOKS */
  int32_t n_inputs;
  int32_t n_outputs;
  int32_t n_steps; /* steps are numbered 0 .. n_steps - 1 within the entry */
  int32_t reserved;
} sparrow_entry_info;

#define SPARROW_FLAG_HOOKS 1u /* tap and profile are called */

typedef struct sparrow_model_info {
  uint32_t abi_version; /* SPARROW_ABI_VERSION; read this before any other field */
  uint32_t flags;       /* SPARROW_FLAG_* */
  const char *name;
  const char *isa;     /* the instruction set it was compiled for, "scalar", "avx2", ... */
  const void *weights; /* the blob when it is linked in; NULL when the caller maps it */
  const sparrow_entry_info *entries;
  const sparrow_tensor_info *states; /* what persists between calls until model_reset */
  uint64_t weights_bytes;            /* exact size of the blob; 0: call->weights may be NULL */
  uint64_t workspace_bytes;          /* scratch, contents need not survive; 0: may be NULL */
  uint64_t state_bytes;              /* 0: stateless, call->state may be NULL */
  uint32_t weights_align;            /* alignments are powers of two, at most 4096 */
  uint32_t workspace_align;
  uint32_t state_align;
  int32_t n_entries;
  int32_t n_states;
  int32_t reserved;
} sparrow_model_info;

typedef void (*sparrow_task)(void *arg, int index);

/* Calls fn(arg, i) once for every i in 0 .. n - 1, in any order and on any threads, and returns
 * when all are done. Must accept a nested or concurrent call (it may run that one serially). */
typedef void (*sparrow_parallel_for)(void *ctx, sparrow_task fn, void *arg, int n);

/* One call. Zero it first; fields a model does not need may stay NULL. The model keeps no pointer
 * after it returns and never writes to inputs or weights.
 *
 * Buffers need only the alignment of their element type (weights, workspace, state: as in
 * sparrow_model_info). Outputs must not overlap each other or any other buffer. */
typedef struct sparrow_call {
  uint32_t entry;             /* index into sparrow_model_info.entries */
  const void *const *inputs;  /* n_inputs pointers, each to `bytes` readable bytes */
  void *const *outputs;       /* n_outputs pointers, each to `bytes` writable bytes */
  const void *weights;        /* weights_bytes */
  void *workspace;            /* workspace_bytes, not shared with a call that runs meanwhile */
  void *state;                /* state_bytes, made by model_reset */
  sparrow_parallel_for parallel_for; /* NULL: serial. Never changes a result */
  void *parallel_ctx;                /* first argument of parallel_for */
  /* Called only by a model built with -DSPARROW_HOOKS; NULL: not called. Always on the thread that
   * called model_run, between parallel regions.
   * tap: step has written its output number `output`; `data` may be read until tap returns;
   *      `bytes` spans it in the layout the plan chose, which the bundle describes.
   * profile: begin = 1 just before a step, 0 just after it. */
  void (*tap)(void *hook_ctx, int step, int output, const void *data, uint64_t bytes);
  void (*profile)(void *hook_ctx, int step, int begin);
  void *hook_ctx;
} sparrow_call;

/* The functions of a model, here under the prefix of the shared library; a program that links
 * several models declares each under its own prefix.
 *
 * run    one inference; returns a sparrow_status.
 * info   constant facts; never NULL.
 * reset  writes the initial state into `state` (state_bytes, state_align); initial values may live
 *        in the weights. Needed once before the first run of a model with state; without one both
 *        arguments may be NULL. On x86-64 it also asks whether the processor runs the code, which
 *        takes microseconds, so call it once before the first run of any model. */
#define SPARROW_DECLARE(prefix)                                  \
  SPARROW_API int prefix##_run(const sparrow_call *call);        \
  SPARROW_API const sparrow_model_info *prefix##_info(void);     \
  SPARROW_API int prefix##_reset(void *state, const void *weights)

SPARROW_DECLARE(model);

#ifdef __cplusplus
}
#endif

#endif
