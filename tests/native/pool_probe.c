/* Drives the pool from C: counts how often each index runs, nests, and pauses between regions. */
#include "runtime/clock.h"
#include "runtime/pool.h"

enum { MAX = 4096 };

typedef struct probe {
  uint8_t *runs;
  sparrow_pool *pool;
  int inner; /* 0: count the index itself; else run this many nested indices each */
} probe;

static void count_task(void *arg, int index) {
  __atomic_add_fetch(&((probe *)arg)->runs[index], 1, __ATOMIC_RELAXED);
}

typedef struct nested {
  probe *p;
  int base;
} nested;

static void inner_task(void *arg, int index) {
  const nested *n = (const nested *)arg;
  count_task(n->p, n->base + index);
}

static void outer_task(void *arg, int index) {
  probe *p = (probe *)arg;
  nested n = {p, index * p->inner};
  sparrow_pool_parallel_for(p->pool, inner_task, &n, p->inner);
}

/* Runs `regions` regions of changing size 0 .. most and checks that each index ran exactly once;
 * returns the number of regions in which one did not. */
SPARROW_API int probe_exactly_once(sparrow_pool *pool, int regions, int most);
int probe_exactly_once(sparrow_pool *pool, int regions, int most) {
  uint8_t runs[MAX];
  int wrong = 0;
  for (int r = 0; r < regions; ++r) {
    int n = r % (most + 1);
    for (int i = 0; i < most; ++i) runs[i] = 0;
    probe p = {runs, pool, 0};
    sparrow_pool_parallel_for(pool, count_task, &p, n);
    int bad = 0;
    for (int i = 0; i < most; ++i) bad |= runs[i] != (i < n);
    wrong += bad;
  }
  return wrong;
}

/* outer * inner indices, each through a nested call; returns how many did not run once. */
SPARROW_API int probe_nested(sparrow_pool *pool, int outer, int inner);
int probe_nested(sparrow_pool *pool, int outer, int inner) {
  uint8_t runs[MAX] = {0};
  probe p = {runs, pool, inner};
  sparrow_pool_parallel_for(pool, outer_task, &p, outer);
  int wrong = 0;
  for (int i = 0; i < outer * inner; ++i) wrong += runs[i] != 1;
  return wrong;
}

/* One region whose tasks each last `task_ns`: longer than any spinning, so that threads park. */
typedef struct lasting {
  uint64_t task_ns;
  uint8_t runs[64];
} lasting;

static void lasting_task(void *arg, int index) {
  lasting *l = (lasting *)arg;
  uint64_t start = sparrow_now_ns();
  while (sparrow_now_ns() - start < l->task_ns * (uint64_t)(1 + 3 * (index & 1))) {
  }
  __atomic_add_fetch(&l->runs[index], 1, __ATOMIC_RELAXED);
}

SPARROW_API int probe_lasting(sparrow_pool *pool, int n, uint64_t task_ns);
int probe_lasting(sparrow_pool *pool, int n, uint64_t task_ns) {
  lasting l = {task_ns, {0}};
  sparrow_pool_parallel_for(pool, lasting_task, &l, n);
  int wrong = 0;
  for (int i = 0; i < n; ++i) wrong += l.runs[i] != 1;
  return wrong;
}

/* As probe_exactly_once, `gap_ns` of idling before each region, in which workers may go to sleep. */
SPARROW_API int probe_after_pauses(sparrow_pool *pool, int regions, int most, uint64_t gap_ns);
int probe_after_pauses(sparrow_pool *pool, int regions, int most, uint64_t gap_ns) {
  int wrong = 0;
  for (int r = 0; r < regions; ++r) {
    const uint64_t idle = sparrow_now_ns();
    while (sparrow_now_ns() - idle < gap_ns) {
    }
    wrong += probe_exactly_once(pool, most + 1, most);
  }
  return wrong;
}

/* One region of two tasks that each last `task_ns`; whether two threads ran them. */
typedef struct shared {
  uint64_t task_ns;
  uintptr_t ran[2]; /* a place on the stack of who did */
} shared;

static void shared_task(void *arg, int index) {
  shared *s = (shared *)arg;
  const uint64_t start = sparrow_now_ns();
  while (sparrow_now_ns() - start < s->task_ns) {
  }
  s->ran[index] = (uintptr_t)&start;
}

SPARROW_API int probe_shared(sparrow_pool *pool, uint64_t task_ns);
int probe_shared(sparrow_pool *pool, uint64_t task_ns) {
  shared s = {task_ns, {0, 0}};
  sparrow_pool_parallel_for(pool, shared_task, &s, 2);
  const uintptr_t apart = s.ran[0] > s.ran[1] ? s.ran[0] - s.ran[1] : s.ran[1] - s.ran[0];
  return s.ran[0] == 0 || s.ran[1] == 0 ? -1 : apart > 65536;
}
