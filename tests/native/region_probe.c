/* Drives regions of many steps: every task runs once, and sees what the stages before have written.
 *
 * A task of a step writes a number of its own in plain memory, and compares what all tasks of former
 * stages, and its own column's of this one, should have written. */
#include "runtime/clock.h"
#include "runtime/pool.h"

typedef struct sp_frame {
  const sparrow_call *call;
  struct probe *probe;
} sp_frame;

#include "base.h"

static int columns_of_steps;
#define SP_REGION_COLUMNS columns_of_steps
#include "region.h"

enum { STEPS = 12, MOST = 8 };

typedef struct probe {
  int columns, tasks[STEPS], owner[STEPS], stage_of[STEPS]; /* owner -1: all share a step */
  uint32_t lasting_ns;
  uint32_t wrote[STEPS][MOST];
  uint32_t wrong;
} probe;

static int column_of(const probe *p, int step, int task) {
  int c = 0;
  if (p->owner[step] >= 0) return p->owner[step];
  while (task >= (p->tasks[step] * (c + 1) + p->columns - 1) / p->columns) ++c;
  return c;
}

static void run(const sp_frame *f, int step, int task) {
  probe *p = f->probe;
  const int mine = column_of(p, step, task);
  uint32_t bad = 0;
  for (int s = 0; s < step; ++s)
    for (int t = 0; t < p->tasks[s]; ++t)
      if (p->stage_of[s] < p->stage_of[step] || column_of(p, s, t) == mine)
        bad += p->wrote[s][t] != (uint32_t)(s * MOST + t + 1);
  bad += p->wrote[step][task] != 0;
  if (p->lasting_ns != 0 && (step * 7 + task * 5) % 6 == 0)
    for (const uint64_t start = sparrow_now_ns(); sparrow_now_ns() - start < p->lasting_ns;) {
    }
  p->wrote[step][task] = (uint32_t)(step * MOST + task + 1);
  if (bad != 0) __atomic_add_fetch(&p->wrong, bad, __ATOMIC_RELAXED);
}

#define STEP(k)                                              \
  static void step_##k(const sp_frame *f, int task) { run(f, k, task); }
STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)

static void in_order(void *ctx, sparrow_task fn, void *arg, int n) {
  (void)ctx;
  for (int i = 0; i < n; ++i) fn(arg, i);
}

static void backwards(void *ctx, sparrow_task fn, void *arg, int n) {
  (void)ctx;
  for (int i = n - 1; i >= 0; --i) fn(arg, i);
}

/* Regions of `columns` columns, stages and tasks drawn from `seed`; what went wrong in all of them.
 * Without a pool indices run one by one, `backwards` or not. Some tasks last `lasting_ns`. */
SPARROW_API int probe_regions(sparrow_pool *pool, int reversed, int columns, int regions,
                              uint32_t seed, uint32_t lasting_ns);
int probe_regions(sparrow_pool *pool, int reversed, int columns, int regions, uint32_t seed,
                  uint32_t lasting_ns) {
  void (*const fn[STEPS])(const sp_frame *, int) = {step_0, step_1, step_2, step_3, step_4,  step_5,
                                                    step_6, step_7, step_8, step_9, step_10, step_11};
  uint32_t wrong = 0;
  columns_of_steps = columns;
  for (int r = 0; r < regions; ++r) {
    probe p = {columns, {0}, {0}, {0}, lasting_ns, {{0}}, 0};
    sp_region_step steps[STEPS];
    int stages[STEPS + 1], n = 0;
    for (int s = 0; s < STEPS; ++s) {
      seed = seed * 1664525u + 1013904223u;
      if (s == 0 || (seed >> 9) % 3 == 0) stages[n++] = s;
      p.tasks[s] = 1 + (int)((seed >> 12) % MOST);
      p.owner[s] = (seed >> 20) % 3 == 0 ? (int)(seed >> 24) % columns : -1;
      p.stage_of[s] = n;
      steps[s] = (sp_region_step){fn[s], p.tasks[s], p.owner[s]};
    }
    stages[n] = STEPS;
    sparrow_call call = {0};
    call.parallel_for = pool != NULL ? sparrow_pool_parallel_for : reversed ? backwards : in_order;
    call.parallel_ctx = pool;
    const sp_frame f = {&call, &p};
    SP_ALIGN(SP_REGION_LINE) sp_region_column columns_of[MOST];
    sp_run_steps(&f, steps, stages, (uint32_t)n, columns_of);
    for (int s = 0; s < STEPS; ++s)
      for (int t = 0; t < p.tasks[s]; ++t) wrong += p.wrote[s][t] != (uint32_t)(s * MOST + t + 1);
    wrong += p.wrong;
  }
  return (int)wrong;
}

#ifdef PROBE_MAIN
int main(void) {
  int wrong = 0;
  for (int threads = 1; threads <= 4; ++threads) {
    sparrow_pool *pool = sparrow_pool_create(threads);
    for (int columns = 2; columns <= 5; ++columns) {
      wrong += probe_regions(pool, 0, columns, 300, 7u * (uint32_t)columns, 0);
      wrong += probe_regions(pool, 0, columns, 4, 5u * (uint32_t)columns, 400000);
    }
    sparrow_pool_destroy(pool);
  }
  return wrong != 0;
}
#endif
