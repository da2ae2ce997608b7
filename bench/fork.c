/* One region of two tasks by a pool, timed from within: what a fork and its join cost. */
#include "runtime/clock.h"
#include "runtime/pool.h"

static void last(void *arg, int index) {
  (void)index;
  const uint64_t start = sparrow_now_ns(), ns = *(const uint64_t *)arg;
  while (ns != 0 && sparrow_now_ns() - start < ns) {
  }
}

/* Nanoseconds of a region whose tasks last `ns` each. */
SPARROW_API uint64_t region_ns(sparrow_parallel_for split, void *pool, uint64_t ns);
uint64_t region_ns(sparrow_parallel_for split, void *pool, uint64_t ns) {
  const uint64_t start = sparrow_now_ns();
  split(pool, last, &ns, 2);
  return sparrow_now_ns() - start;
}
