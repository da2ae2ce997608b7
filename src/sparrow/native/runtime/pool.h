/* A small thread pool that provides sparrow_call.parallel_for; any number of models may share one.
 *
 *     sparrow_pool *pool = sparrow_pool_create(4);
 *     call.parallel_for = sparrow_pool_parallel_for;
 *     call.parallel_ctx = pool;
 *
 * Each of the `threads` participants (the calling thread is one) owns a contiguous share of the
 * indices, the same one every time, so that data stays in its cache; who finishes early takes over
 * what others have left, so a late, slow or descheduled thread delays nobody. Which thread runs an
 * index never changes a result, because tasks write disjoint memory.
 *
 * Workers keep off the core on which they were woken beside the caller (their own affinity, Linux
 * and Windows; never that of other threads), and are not woken for regions that end before they come.
 *
 * A call made while the pool is at work (from inside a task, or from another thread) runs serially
 * on its own thread. A child process after fork() has no workers: its calls run on the caller alone. */
#ifndef SPARROW_RUNTIME_POOL_H
#define SPARROW_RUNTIME_POOL_H

#include "../sparrow.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SPARROW_POOL_MAX_THREADS 256

typedef struct sparrow_pool sparrow_pool;

/* threads counts the caller: threads - 1 workers are started. Values outside
 * 1 .. SPARROW_POOL_MAX_THREADS are clamped, and fewer workers are used where the system grants
 * fewer. NULL when memory is short. */
SPARROW_API sparrow_pool *sparrow_pool_create(int threads);

/* Participants, the calling thread included. */
SPARROW_API int sparrow_pool_threads(const sparrow_pool *pool);

/* A sparrow_parallel_for; ctx is the pool. What the caller wrote before is visible to every task,
 * and what the tasks wrote is visible to the caller afterwards. */
SPARROW_API void sparrow_pool_parallel_for(void *ctx, sparrow_task fn, void *arg, int n);

/* Stops and joins the workers. No call may be running. NULL is allowed. */
SPARROW_API void sparrow_pool_destroy(sparrow_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
