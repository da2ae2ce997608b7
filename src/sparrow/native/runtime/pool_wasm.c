/* Threads of a WebAssembly module: workers are copies of it over one shared memory, which call
 * sparrow_pool_work and stay there. No heap, no libc. One call of the model at a time.
 *
 * A ticket holds the number of the job, its tasks and the next task in one word, so that who draws a
 * task also learns of which job it is; a job ends when all its tasks are done. Nobody waits for a
 * worker that is still asleep. */
#include <stdint.h>

#include "../sparrow.h"

enum { SPINS = 20000, TASK_BITS = 24 };
#define TASK_MASK (((uint64_t)1 << TASK_BITS) - 1)

static struct {
  uint64_t ticket; /* job: 16 bits, tasks: 24, next: 24 */
  sparrow_task fn;
  void *arg;
  uint32_t done;     /* tasks of this job */
  uint32_t sleepers; /* workers that wait for the bell */
  uint32_t bell, stop;
} pool;

/* Takes tasks until there is none; whether there was one. */
static int work(void) {
  int found = 0;
  for (;;) {
    uint64_t t = __atomic_load_n(&pool.ticket, __ATOMIC_SEQ_CST);
    if ((t & TASK_MASK) >= (t >> TASK_BITS & TASK_MASK)) return found;
    t = __atomic_fetch_add(&pool.ticket, 1, __ATOMIC_SEQ_CST);
    if ((t & TASK_MASK) >= (t >> TASK_BITS & TASK_MASK)) return found;
    /* this job cannot end before its task is done: fn and arg are its own */
    pool.fn(pool.arg, (int)(t & TASK_MASK));
    __atomic_fetch_add(&pool.done, 1, __ATOMIC_SEQ_CST);
    found = 1;
  }
}

static void parallel_for(void *ctx, sparrow_task fn, void *arg, int n) {
  (void)ctx;
  if (n <= 0) return;
  const uint64_t job = (__atomic_load_n(&pool.ticket, __ATOMIC_SEQ_CST) >> 2 * TASK_BITS) + 1;
  pool.fn = fn;
  pool.arg = arg;
  __atomic_store_n(&pool.done, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&pool.ticket, job << 2 * TASK_BITS | (uint64_t)n << TASK_BITS, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool.sleepers, __ATOMIC_SEQ_CST) > 0) {
    __atomic_fetch_add(&pool.bell, 1, __ATOMIC_SEQ_CST);
    __builtin_wasm_memory_atomic_notify((int *)&pool.bell, UINT32_MAX);
  }
  work();
  /* a page's main thread may not sleep */
  while (__atomic_load_n(&pool.done, __ATOMIC_SEQ_CST) < (uint32_t)n) {
  }
}

SPARROW_API sparrow_parallel_for sparrow_pool_function(void);
SPARROW_API sparrow_parallel_for sparrow_pool_function(void) { return parallel_for; }

/* What a worker calls, on a stack of its own. */
SPARROW_API void sparrow_pool_work(void);
SPARROW_API void sparrow_pool_work(void) {
  while (!__atomic_load_n(&pool.stop, __ATOMIC_SEQ_CST)) {
    int spins = 0;
    while (spins++ < SPINS)
      if (work()) spins = 0;
    const uint32_t heard = __atomic_load_n(&pool.bell, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&pool.sleepers, 1, __ATOMIC_SEQ_CST);
    /* a job that came before the count of sleepers is seen here, a later one rings the bell */
    if (!work() && !__atomic_load_n(&pool.stop, __ATOMIC_SEQ_CST))
      __builtin_wasm_memory_atomic_wait32((int *)&pool.bell, (int)heard, -1);
    __atomic_fetch_sub(&pool.sleepers, 1, __ATOMIC_SEQ_CST);
  }
}

/* Ends all workers. */
SPARROW_API void sparrow_pool_stop(void);
SPARROW_API void sparrow_pool_stop(void) {
  __atomic_store_n(&pool.stop, 1, __ATOMIC_SEQ_CST);
  __atomic_fetch_add(&pool.bell, 1, __ATOMIC_SEQ_CST);
  __builtin_wasm_memory_atomic_notify((int *)&pool.bell, UINT32_MAX);
}
