/* All steps of a call in one parallel region.
 *
 * A *column* is one participant's part of every step: a contiguous share of its tasks; of a step
 * that is not split one column has all. Steps come in *stages*. Within a stage no column
 * touches what another one writes, so that it runs its steps one after the other; before a stage
 * it waits until every column has finished the stages before. A wait costs one line that changes
 * cores, where a region of its own costs some four and the pool's books.
 *
 * Nothing here relies on participants that run at the same time: sparrow_call.parallel_for may run
 * indices one by one, in any order. A column that is furthest behind can always go on, because it
 * waits for nobody; who waits for it runs its stage instead where its participant has not come.
 * So every thread may do everything, and does where it is alone.
 *
 * Who waits long, for a core that the system took away, leaves, and so do others: the caller, for
 * whom parallel_for has slept until then, opens the region again. Where atomics are not known, or
 * hooks want to see each step, steps are regions of their own.
 *
 * SP_REGION_COLUMNS, which the driver defines, is a literal: Armv7 divides by what it does not know
 * in the compiler's library. */
#ifndef SP_REGION_H
#define SP_REGION_H

#if defined(__GNUC__)
#ifdef SPARROW_HOOKS
#define SP_REGIONS(call) \
  ((call)->parallel_for != NULL && (call)->tap == NULL && (call)->profile == NULL)
#else
#define SP_REGIONS(call) ((call)->parallel_for != NULL)
#endif

/* Two 64-byte lines are fetched together on x86; Apple's are 128. */
#define SP_REGION_LINE 128
/* Looks at the others before a wait spares what shares the core, before a participant counts as
 * absent (some 2 us) and before a region is left (some 200 us). */
#define SP_REGION_POLLS 32
#define SP_REGION_PATIENCE 64
#define SP_REGION_ENDURANCE 4096

typedef struct sp_region_step {
  void (*fn)(const sp_frame *, int);
  int tasks, column; /* all columns share the tasks, or one of them has all */
} sp_region_step;

/* What its owner writes and others wait for has a line of its own. */
typedef struct sp_region_column {
  uint32_t done; /* stages finished */
  char pad0[SP_REGION_LINE - 4];
  uint32_t begun;   /* stages begun: who adds one runs it */
  uint32_t present; /* its participant is there, as far as is known */
  char pad1[SP_REGION_LINE - 8];
} sp_region_column;

typedef struct sp_region {
  const sp_frame *frame;
  const sp_region_step *steps;
  const int *stages; /* the first step of each, and behind the last one */
  uint32_t n_stages;
  sp_region_column *columns;
  uint32_t left; /* a participant has left before the end */
} sp_region;

SP_INLINE void sp_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

/* Runs a stage of a column unless another participant does; 1 where it ran. */
SP_OUTLINE int sp_run_stage(sp_region *r, int column, uint32_t stage) {
  sp_region_column *c = &r->columns[column];
  uint32_t seen = stage;
  if (!__atomic_compare_exchange_n(&c->begun, &seen, stage + 1, 0, __ATOMIC_ACQ_REL,
                                   __ATOMIC_RELAXED))
    return 0;
  for (int i = r->stages[stage]; i < r->stages[stage + 1]; ++i) {
    const sp_region_step *s = &r->steps[i];
    const int shared = s->column < 0;
    if (!shared && s->column != column) continue;
    /* As the pool divides indices: of few column 0 has the first. */
    const int n = SP_REGION_COLUMNS;
    const int first = shared ? (s->tasks * column + n - 1) / n : 0;
    const int end = shared ? (s->tasks * (column + 1) + n - 1) / n : s->tasks;
    for (int t = first; t < end; ++t) s->fn(r->frame, t);
  }
  __atomic_store_n(&c->done, stage + 1, __ATOMIC_RELEASE);
  return 1;
}

SP_OUTLINE void sp_take_part(void *arg, int own) {
  sp_region *r = (sp_region *)arg;
  uint32_t waited = 0;
  for (;;) {
    uint32_t stage = __atomic_load_n(&r->columns[own].done, __ATOMIC_ACQUIRE);
    /* who stays behind alone would go on alone, at the speed of one */
    if (stage == r->n_stages || __atomic_load_n(&r->left, __ATOMIC_RELAXED)) return;
    int last = own;
    for (int i = 0; i < SP_REGION_COLUMNS; ++i) {
      const uint32_t done = __atomic_load_n(&r->columns[i].done, __ATOMIC_ACQUIRE);
      if (done < stage) {
        stage = done;
        last = i;
      }
    }
    if (last == own) {
      uint32_t *present = &r->columns[own].present;
      if (!__atomic_load_n(present, __ATOMIC_RELAXED))
        __atomic_store_n(present, 1, __ATOMIC_RELAXED);
    } else if (waited > SP_REGION_PATIENCE) {
      __atomic_store_n(&r->columns[last].present, 0, __ATOMIC_RELAXED);
    }
    if ((last == own || !__atomic_load_n(&r->columns[last].present, __ATOMIC_RELAXED)) &&
        sp_run_stage(r, last, stage)) {
      waited = 0;
      continue;
    }
    if (++waited > SP_REGION_ENDURANCE) __atomic_store_n(&r->left, 1, __ATOMIC_RELAXED);
    if (waited > SP_REGION_POLLS) sp_relax();
  }
}

SP_OUTLINE void sp_run_steps(const sp_frame *f, const sp_region_step *steps, const int *stages,
                             uint32_t n_stages, sp_region_column *columns) {
  sp_region r = {f, steps, stages, n_stages, columns, 0};
  for (int i = 0; i < SP_REGION_COLUMNS; ++i) columns[i].done = columns[i].begun = columns[i].present = 0;
  for (;;) {
    f->call->parallel_for(f->call->parallel_ctx, sp_take_part, &r, SP_REGION_COLUMNS);
    int i = 0;
    while (i < SP_REGION_COLUMNS && columns[i].done == n_stages) ++i;
    if (i == SP_REGION_COLUMNS) return;
    r.left = 0;
  }
}
#endif

#endif
