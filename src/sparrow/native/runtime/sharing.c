/* What splitting work costs: a fork with its join, and a byte that another thread has written. */
#include "clock.h"
#include "pool.h"

/* A part of its own for every thread; tasks read the part that lies `turn` further on. The first
 * word of a line says which line of the part is the next to be read: each is waited for. */
enum { LINE = 8 };
typedef struct parts {
  uint64_t *words;
  int each; /* lines of a part */
  int count;
  int turn;
  volatile uint64_t sums[SPARROW_POOL_MAX_THREADS]; /* so that nothing is read for nothing */
  uintptr_t wrote[SPARROW_POOL_MAX_THREADS]; /* a place on the stack of who did */
  uintptr_t read[SPARROW_POOL_MAX_THREADS];
} parts;

/* Two places on one stack are nearer than this, those of two threads are not. */
enum { STACK = 16384 };

static int same_thread(uintptr_t a, uintptr_t b) {
  return (a > b ? a - b : b - a) < STACK;
}

static void write_part(void *arg, int task) {
  parts *p = (parts *)arg;
  uint64_t *own = p->words + (ptrdiff_t)p->each * LINE * task;
  for (int i = 0; i < p->each; ++i) own[i * LINE + 1] += (uint64_t)i;
  p->wrote[task] = (uintptr_t)&own;
}

static void read_part(void *arg, int task) {
  parts *p = (parts *)arg;
  const uint64_t *part = p->words + (ptrdiff_t)p->each * LINE * ((task + p->turn) % p->count);
  uint64_t sum = 0, at = 0;
  for (int i = 0; i < p->each; ++i) {
    sum += part[at * LINE + 1];
    at = part[at * LINE];
  }
  p->sums[task] = sum + at;
  p->read[task] = (uintptr_t)&part;
}

/* Nanoseconds of a region whose tasks read `each` lines that they have written themselves, or with
 * `turn` 1 that their neighbour has; without a pool of one task alone. `words` holds
 * threads * each lines. Negative where a thread took over what is another's: such a region says nothing. */
SPARROW_API double sparrow_read_ns(sparrow_parallel_for split, void *pool, int threads,
                                   uint64_t *words, int each, int turn);
double sparrow_read_ns(sparrow_parallel_for split, void *pool, int threads, uint64_t *words,
                       int each, int turn) {
  parts p;
  p.words = words;
  p.each = each;
  p.count = threads;
  p.turn = turn;
  if (pool == NULL) {
    write_part(&p, 0);
    const uint64_t alone = sparrow_now_ns();
    read_part(&p, 0);
    return (double)(sparrow_now_ns() - alone);
  }
  split(pool, write_part, &p, threads);
  const uint64_t start = sparrow_now_ns();
  split(pool, read_part, &p, threads);
  const double ns = (double)(sparrow_now_ns() - start);
  for (int i = 0; i < threads; ++i) {
    if (!same_thread(p.wrote[i], p.read[i])) return -1;
    for (int k = 0; k < i; ++k)
      if (same_thread(p.wrote[i], p.wrote[k])) return -1;
  }
  return ns;
}
