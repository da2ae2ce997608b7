/* See pool.h. C99 with the __atomic builtins of gcc and clang.
 *
 * A region is one parallel_for. The caller writes fn, arg, n and `pending` = n, then opens each
 * share by storing how many of its indices are left. A participant takes an index by decrementing
 * `left` of a share with compare-and-swap, its own share first, and subtracts what it has run of a
 * share from `pending` when that is empty; only then it looks at other shares, after a while. The
 * region ends when `pending` is 0.
 *
 * Why a worker that arrives late is harmless: it reads fn, arg and n only while it holds an index
 * that is not yet subtracted from `pending`, so the region they belong to cannot end, and the next
 * one cannot overwrite them. A compare-and-swap that succeeds is always a claim on the region that
 * is open at that moment, whichever the thread set out for. */
#include "pool.h"

#include "clock.h"

/* How long an idle thread polls before it sleeps. To wake it costs its caller some 10 us and comes
 * 10 us later still, so it outlasts a step that is not split and the longer half of one that is;
 * an inference now and then does not keep a core busy. Who was woken sooner than LINGER_NS polls as
 * long the next time, and beyond SPIN_NS lets others have the core between two looks. */
#define SPIN_NS 300000u
#define LINGER_NS 2000000u
/* What lies between two such offers: long beside their cost, so that regions are seen at once. */
#define OFFER_NS 5000u
#define TAKEN_NS 50000u /* an offer that lasted longer was taken */
#define SHY 16          /* sleeps after one that was until the next offer */
/* How long an idle thread leaves a share to its owner, who may be about to begin: what one core has
 * written for the next step arrives slowly at another. An owner that did not come is not waited for
 * in the next regions. */
#define PATIENCE_NS 2000u
#define RUSH 16
#define MOST_CORES 1024 /* of a machine on which workers choose theirs */
#define CORE_BITS (8 * (int)sizeof(unsigned long))
#define CORE_WORDS (MOST_CORES / CORE_BITS)

/* To wake sleepers costs the caller a system call, and who is done before they come has nothing for
 * it. After TRIALS regions in a row of a task to which nobody came, only one in RETRY of its next
 * ones wakes somebody. TRIALS doubles, up to MOST_TRIALS, whenever one that was left to its caller
 * lasts much longer than those did. */
#define TRIALS 8
#define MOST_TRIALS 65536
#define RETRY 16
#define HABITS 8 /* tasks of which a pool knows this; a power of two */

/* The cores of a worker: those that it was given, and the set it made of them (Linux). */
typedef struct cores {
  unsigned long given[CORE_WORDS], set[CORE_WORDS];
} cores;

#define LINE 128 /* two 64-byte lines are fetched together on x86; Apple's are 128 */

#if defined(_WIN32)

typedef HANDLE worker_id;
typedef DWORD worker_result;
#define WORKER_CALL WINAPI

static void *take_memory(size_t bytes) { return HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, bytes); }
static void give_memory(void *p) { HeapFree(GetProcessHeap(), 0, p); }

typedef struct parking {
  SRWLOCK lock;
  CONDITION_VARIABLE changed;
} parking;

/* HEAP_ZERO_MEMORY is the initial state of both. */
static int parking_open(parking *p) {
  (void)p;
  return 1;
}
static void parking_close(parking *p) { (void)p; }
static void park(parking *p, const uint32_t *word, uint32_t seen) {
  AcquireSRWLockExclusive(&p->lock);
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == seen)
    SleepConditionVariableSRW(&p->changed, &p->lock, INFINITE, 0);
  ReleaseSRWLockExclusive(&p->lock);
}
static void unpark(parking *p, const uint32_t *word) {
  (void)word;
  AcquireSRWLockExclusive(&p->lock);
  ReleaseSRWLockExclusive(&p->lock);
  WakeAllConditionVariable(&p->changed);
}
static void offer_core(void) { SwitchToThread(); }
static int this_core(void) { return (int)GetCurrentProcessorNumber(); }

static int leave(cores *c, int core) {
  (void)c;
  DWORD_PTR own = 0, all = 0;
  if (!GetProcessAffinityMask(GetCurrentProcess(), &own, &all)) return 0;
  own &= ~((DWORD_PTR)1 << core);
  return own != 0 && SetThreadAffinityMask(GetCurrentThread(), own) != 0;
}
static int worker_start(worker_id *id, worker_result(WORKER_CALL *fn)(void *), void *arg) {
  *id = CreateThread(NULL, 0, fn, arg, 0, NULL);
  return *id != NULL;
}
static void worker_join(worker_id id) {
  WaitForSingleObject(id, INFINITE);
  CloseHandle(id);
}

#else

typedef void *worker_result;
#define WORKER_CALL

#if defined(__linux__)

/* Declared here, not included: the library has no NEEDED entry and takes these from the process. */
typedef unsigned long worker_id; /* pthread_t of glibc, musl and bionic is one machine word */
extern int pthread_create(worker_id *id, const void *attributes, void *(*fn)(void *), void *arg);
extern int pthread_join(worker_id id, void **result);
extern long syscall(long number, ...);
extern void *calloc(size_t count, size_t bytes);
extern void free(void *p);

#if defined(__x86_64__)
#define SYS_FUTEX 202L
#define SYS_SCHED_YIELD 24L
#define SYS_GETCPU 309L
#define SYS_SETAFFINITY 203L
#define SYS_GETAFFINITY 204L
#elif defined(__i386__)
#define SYS_FUTEX 240L
#define SYS_SCHED_YIELD 158L
#define SYS_GETCPU 318L
#define SYS_SETAFFINITY 241L
#define SYS_GETAFFINITY 242L
#elif defined(__arm__)
#define SYS_FUTEX 240L
#define SYS_SCHED_YIELD 158L
#define SYS_GETCPU 345L
#define SYS_SETAFFINITY 241L
#define SYS_GETAFFINITY 242L
#elif defined(__powerpc__)
#define SYS_FUTEX 221L
#define SYS_SCHED_YIELD 158L
#define SYS_GETCPU 302L
#define SYS_SETAFFINITY 222L
#define SYS_GETAFFINITY 223L
#else /* the generic table: aarch64, riscv, loongarch64 */
#if defined(__riscv) && __riscv_xlen == 32
#define SYS_FUTEX 422L
#else
#define SYS_FUTEX 98L
#endif
#define SYS_SCHED_YIELD 124L
#define SYS_GETCPU 168L
#define SYS_SETAFFINITY 122L
#define SYS_GETAFFINITY 123L
#endif

typedef struct parking {
  int unused;
} parking;

static int parking_open(parking *p) {
  p->unused = 0;
  return 1;
}
static void parking_close(parking *p) { (void)p; }
static void park(parking *p, const uint32_t *word, uint32_t seen) {
  (void)p;
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == seen)
    syscall(SYS_FUTEX, word, 128L /* FUTEX_WAIT_PRIVATE */, (long)seen, (void *)0, (void *)0, 0L);
}
static void unpark(parking *p, const uint32_t *word) {
  (void)p;
  syscall(SYS_FUTEX, word, 129L /* FUTEX_WAKE_PRIVATE */, 0x7fffffffL, (void *)0, (void *)0, 0L);
}
static void offer_core(void) { syscall(SYS_SCHED_YIELD); }
static int this_core(void) {
  unsigned core = 0;
  return syscall(SYS_GETCPU, &core, (void *)0, (void *)0) == 0 ? (int)core : -1;
}

/* Moves this thread off a core and keeps it from there; 0 where it has no other. It may have been
 * given a new set since. */
static int leave(cores *c, int core) {
  unsigned long now[CORE_WORDS] = {0}, others[CORE_WORDS];
  const long bytes = syscall(SYS_GETAFFINITY, 0L, sizeof now, now);
  if (bytes <= 0 || core >= MOST_CORES) return 0;
  int given = 0;
  for (int i = 0; i < CORE_WORDS; ++i) given |= now[i] != c->set[i];
  unsigned long any = 0;
  for (int i = 0; i < CORE_WORDS; ++i) {
    if (given) c->given[i] = c->set[i] = now[i];
    others[i] = c->given[i];
    if (i == core / CORE_BITS) others[i] &= ~(1UL << core % CORE_BITS);
    any |= others[i];
  }
  if (any == 0 || syscall(SYS_SETAFFINITY, 0L, bytes, others) != 0) return 0;
  for (int i = 0; i < CORE_WORDS; ++i) c->set[i] = others[i];
  return 1;
}

#else
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

typedef pthread_t worker_id;
typedef struct parking {
  pthread_mutex_t lock;
  pthread_cond_t changed;
} parking;

static int parking_open(parking *p) {
  if (pthread_mutex_init(&p->lock, NULL) != 0) return 0;
  if (pthread_cond_init(&p->changed, NULL) == 0) return 1;
  pthread_mutex_destroy(&p->lock);
  return 0;
}
static void parking_close(parking *p) {
  pthread_cond_destroy(&p->changed);
  pthread_mutex_destroy(&p->lock);
}
static void park(parking *p, const uint32_t *word, uint32_t seen) {
  pthread_mutex_lock(&p->lock);
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == seen) pthread_cond_wait(&p->changed, &p->lock);
  pthread_mutex_unlock(&p->lock);
}
static void unpark(parking *p, const uint32_t *word) {
  (void)word;
  /* Taking the lock makes sure that a thread between its check and its wait is woken too. */
  pthread_mutex_lock(&p->lock);
  pthread_mutex_unlock(&p->lock);
  pthread_cond_broadcast(&p->changed);
}
static void offer_core(void) { sched_yield(); }
static int this_core(void) { return -1; }

static int leave(cores *c, int core) {
  (void)c;
  (void)core;
  return 0;
}

#endif

static void *take_memory(size_t bytes) { return calloc(1, bytes); }
static void give_memory(void *p) { free(p); }
static int worker_start(worker_id *id, worker_result (*fn)(void *), void *arg) {
  return pthread_create(id, NULL, fn, arg) == 0;
}
static void worker_join(worker_id id) { pthread_join(id, NULL); }

#endif

/* One participant's line: the indices left in its share, and who it is. */
typedef struct share {
  uint32_t left;
  int number;
  struct sparrow_pool *pool;
  worker_id worker;
} share;

typedef union share_line {
  share s;
  char line[LINE];
} share_line;

/* What became of the regions of a task that found sleepers. */
typedef struct habit {
  sparrow_task fn;
  uint32_t due;     /* regions to which nobody comes until callers are left alone */
  uint32_t trials;  /* what `due` is after one to which somebody came */
  uint32_t spared;  /* regions since, retries counted */
  uint64_t lone_ns; /* the longest to which nobody came */
} habit;

struct sparrow_pool {
  /* Written by the caller, once per region. */
  uint32_t region; /* changes when a region opens or the pool stops */
  sparrow_task fn;
  void *arg;
  int n;
  int threads;
  uint32_t stop;
  int core;    /* of the caller when it woke others; -1 where that is not known */
  int rush;    /* regions in which the caller does not wait for owners */
  void *block; /* what take_memory gave */
  habit habits[HABITS];
  parking workers_park, caller_park;
  char pad0[LINE];
  uint32_t pending; /* indices of the open region not yet reported as run */
  char pad1[LINE];
  uint32_t sleepers; /* workers that sleep, or are about to */
  char pad2[LINE];
  uint32_t busy; /* a region is open */
  char pad3[LINE];
  share_line shares[]; /* [threads] */
};

static void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory"); /* yield is a no-op on most cores; isb waits some cycles */
#elif defined(__arm__) && __ARM_ARCH >= 7
  __asm__ volatile("yield" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

/* Polls until *word differs from `seen`; 0 when `ns` ran out first. */
static int spin(const uint32_t *word, uint32_t seen, uint32_t ns) {
  uint64_t start = 0;
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != seen) return 1;
      cpu_relax();
    }
    uint64_t now = sparrow_now_ns();
    if (start == 0) start = now;
    if (now - start > ns) return 0;
  }
}

/* As spin, offering the core to others in between; -1 as soon as one has taken it: who sleeps is
 * woken in its place, who polls has to wait for its turn. */
static int linger(const uint32_t *word, uint32_t seen, uint32_t ns) {
  const uint64_t start = sparrow_now_ns();
  for (;;) {
    if (spin(word, seen, OFFER_NS)) return 1;
    const uint64_t offered = sparrow_now_ns();
    if (offered - start > ns) return 0;
    offer_core();
    if (sparrow_now_ns() - offered > TAKEN_NS) return -1;
  }
}

/* Rounded up: of few indices the caller, who is there, has the first. */
static uint32_t share_start(int n, int threads, int number) {
  const uint64_t all = (uint64_t)(uint32_t)n * (uint32_t)number + (uint32_t)threads - 1;
  return (uint32_t)(all / (uint32_t)threads);
}

/* Runs indices of one share until none is left and reports them; returns how many. */
static uint32_t drain(sparrow_pool *pool, int number) {
  uint32_t *left = &pool->shares[number].s.left;
  uint32_t done = 0;
  uint32_t seen = __atomic_load_n(left, __ATOMIC_RELAXED);
  while (seen != 0) {
    if (!__atomic_compare_exchange_n(left, &seen, seen - 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
      continue;
    /* The index is ours: fn, arg and n are stable until it is reported. */
    uint32_t end = share_start(pool->n, pool->threads, number + 1);
    pool->fn(pool->arg, (int)(end - seen));
    ++done;
    seen = __atomic_load_n(left, __ATOMIC_RELAXED);
  }
  if (done == 0) return 0;
  /* The last to report wakes the caller, which sleeps only in the rare case that a task ran on
   * much longer than its own work; the high bit of pending says so. */
  uint32_t rest = __atomic_sub_fetch(&pool->pending, done, __ATOMIC_SEQ_CST);
  if (rest == 0x80000000u) {
    __atomic_store_n(&pool->pending, 0, __ATOMIC_SEQ_CST);
    unpark(&pool->caller_park, &pool->pending);
  }
  return done;
}

/* Runs what is left of the other shares; returns how many indices. */
static uint32_t steal(sparrow_pool *pool, int number) {
  uint32_t done = 0;
  for (int i = 1, at = number + 1; i < pool->threads; ++i, ++at) {
    if (at >= pool->threads) at = 0;
    done += drain(pool, at);
  }
  return done;
}

/* Sleeps until the region changes; returns for how long. */
static uint64_t sleep_until(sparrow_pool *pool, uint32_t seen) {
  const uint64_t start = sparrow_now_ns();
  /* Either the caller sees the sleeper after changing `region`, or park sees the change. */
  __atomic_add_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
  park(&pool->workers_park, &pool->region, seen);
  __atomic_sub_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
  return sparrow_now_ns() - start;
}

/* Whether this thread is where the caller is at work, who stands still meanwhile, and has no other
 * core. Linux puts a worker there when the others are at work, and in a virtual machine when they
 * sleep: to it their cores are the host's then. */
static int in_the_way(const sparrow_pool *pool, cores *c) {
  const int core = __atomic_load_n(&pool->core, __ATOMIC_RELAXED);
  return core >= 0 && core == this_core() && !leave(c, core);
}

static worker_result WORKER_CALL worker_main(void *self) {
  share *me = (share *)self;
  sparrow_pool *pool = me->pool;
  uint32_t seen = 0; /* the region number at creation: one that opened meanwhile is not missed */
  uint32_t lingering = 0;
  int crowded = 0, shy = 0;
  cores mine = {{0}, {0}};
  for (;;) {
    int met = !crowded && spin(&pool->region, seen, SPIN_NS);
    if (!met && !crowded && lingering > 0) met = linger(&pool->region, seen, lingering);
    if (met < 0) shy = SHY;
    if (met <= 0) {
      if (shy > 0) --shy;
      lingering = sleep_until(pool, seen) < LINGER_NS && shy == 0 ? LINGER_NS - SPIN_NS : 0;
      crowded = in_the_way(pool, &mine);
    }
    seen = __atomic_load_n(&pool->region, __ATOMIC_ACQUIRE);
    if (__atomic_load_n(&pool->stop, __ATOMIC_ACQUIRE)) return 0;
    if (crowded) continue; /* the caller gets on faster alone than by turns */
    drain(pool, me->number);
    if (!spin(&pool->region, seen, PATIENCE_NS)) steal(pool, me->number);
  }
}

static habit *habit_of(sparrow_pool *pool, sparrow_task fn) {
  /* one function of several libraries often has the same place within its page */
  const uint64_t place = (uint64_t)(uintptr_t)fn * 0x9e3779b97f4a7c15u;
  habit *h = &pool->habits[place >> 32 & (HABITS - 1)];
  if (h->fn != fn) *h = (habit){fn, TRIALS, TRIALS, 0, 0};
  return h;
}

/* Learns from a region that found sleepers and took its caller `ns`, all of it where `alone`. */
static void learn(habit *h, int woken, int alone, uint64_t ns) {
  if (woken && alone) {
    if (h->due > 0) --h->due;
    if (ns > h->lone_ns) h->lone_ns = ns;
  } else if (woken) {
    h->due = h->trials;
    h->lone_ns = 0;
  } else if (ns > 2 * h->lone_ns) {
    if (h->trials < MOST_TRIALS) h->trials *= 2;
    h->due = h->trials;
    h->lone_ns = 0;
  }
}

sparrow_pool *sparrow_pool_create(int threads) {
  if (threads < 1) threads = 1;
  if (threads > SPARROW_POOL_MAX_THREADS) threads = SPARROW_POOL_MAX_THREADS;
  size_t bytes = sizeof(sparrow_pool) + (size_t)threads * sizeof(share_line) + LINE;
  char *block = (char *)take_memory(bytes);
  if (block == NULL) return NULL;
  sparrow_pool *pool = (sparrow_pool *)(void *)(block + (LINE - (uintptr_t)block % LINE) % LINE);
  pool->block = block;
  if (!parking_open(&pool->workers_park)) {
    give_memory(block);
    return NULL;
  }
  if (!parking_open(&pool->caller_park)) {
    parking_close(&pool->workers_park);
    give_memory(block);
    return NULL;
  }
  pool->threads = threads;
  pool->core = -1;
  int started = 1;
  for (; started < threads; ++started) {
    share *s = &pool->shares[started].s;
    s->number = started;
    s->pool = pool;
    if (!worker_start(&s->worker, worker_main, s)) break;
  }
  /* No region has opened yet, so no worker has read `threads`. */
  pool->threads = started;
  return pool;
}

int sparrow_pool_threads(const sparrow_pool *pool) { return pool->threads; }

/* Polls until the open region has ended; 0 when nothing was reported for `ns`. */
static int finished(const sparrow_pool *pool, uint32_t ns) {
  for (;;) {
    uint32_t seen = __atomic_load_n(&pool->pending, __ATOMIC_ACQUIRE);
    if (seen == 0) return 1;
    if (!spin(&pool->pending, seen, ns)) return 0;
  }
}

void sparrow_pool_parallel_for(void *ctx, sparrow_task fn, void *arg, int n) {
  sparrow_pool *pool = (sparrow_pool *)ctx;
  if (n <= 1 || pool->threads == 1 || __atomic_exchange_n(&pool->busy, 1, __ATOMIC_ACQUIRE)) {
    for (int i = 0; i < n; ++i) fn(arg, i);
    return;
  }
  pool->fn = fn;
  pool->arg = arg;
  pool->n = n;
  __atomic_store_n(&pool->pending, (uint32_t)n, __ATOMIC_RELAXED);
  uint32_t start = 0;
  for (int t = 0; t < pool->threads; ++t) {
    uint32_t end = share_start(n, pool->threads, t + 1);
    __atomic_store_n(&pool->shares[t].s.left, end - start, __ATOMIC_RELEASE);
    start = end;
  }
  __atomic_add_fetch(&pool->region, 1, __ATOMIC_SEQ_CST);
  habit *h = NULL;
  uint64_t opened = 0;
  int woken = 0;
  if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST) != 0) {
    h = habit_of(pool, fn);
    woken = h->due > 0 || ++h->spared % RETRY == 0;
    if (woken) {
      __atomic_store_n(&pool->core, this_core(), __ATOMIC_RELAXED);
      unpark(&pool->workers_park, &pool->region);
    }
    opened = sparrow_now_ns();
  }
  uint32_t own = drain(pool, 0);
  if (h != NULL && !woken) {
    own += steal(pool, 0);
  } else if (pool->rush > 0) {
    --pool->rush;
    own += steal(pool, 0);
  } else if (!finished(pool, PATIENCE_NS)) {
    const uint32_t stolen = steal(pool, 0);
    if (stolen != 0) pool->rush = RUSH;
    own += stolen;
  }
  while (!finished(pool, SPIN_NS)) {
    uint32_t seen = __atomic_load_n(&pool->pending, __ATOMIC_ACQUIRE);
    if (seen == 0) break;
    if (__atomic_compare_exchange_n(&pool->pending, &seen, seen | 0x80000000u, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
      for (;;) {
        seen = __atomic_load_n(&pool->pending, __ATOMIC_ACQUIRE);
        if (seen == 0) break;
        park(&pool->caller_park, &pool->pending, seen);
      }
    }
  }
  if (h != NULL) learn(h, woken, own == (uint32_t)n, sparrow_now_ns() - opened);
  __atomic_store_n(&pool->busy, 0, __ATOMIC_RELEASE);
}

void sparrow_pool_destroy(sparrow_pool *pool) {
  if (pool == NULL) return;
  __atomic_store_n(&pool->stop, 1, __ATOMIC_RELEASE);
  __atomic_add_fetch(&pool->region, 1, __ATOMIC_SEQ_CST);
  unpark(&pool->workers_park, &pool->region);
  for (int t = 1; t < pool->threads; ++t) worker_join(pool->shares[t].s.worker);
  parking_close(&pool->workers_park);
  parking_close(&pool->caller_park);
  give_memory(pool->block);
}
