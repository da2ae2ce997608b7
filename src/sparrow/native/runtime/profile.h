/* A profile hook in C: two clock reads and two stores per step. */
#ifndef SPARROW_RUNTIME_PROFILE_H
#define SPARROW_RUNTIME_PROFILE_H

#include "../sparrow.h"

#ifdef __cplusplus
extern "C" {
#endif

/* sparrow_call.hook_ctx for sparrow_profile_hook. */
typedef struct sparrow_profile {
  uint64_t *stamps; /* 2 * n_steps: begin and end of each step, ns of a monotonic clock */
  int32_t n_steps;  /* later steps are not recorded */
} sparrow_profile;

SPARROW_API void sparrow_profile_hook(void *profile, int step, int begin);

#ifdef __cplusplus
}
#endif

#endif
