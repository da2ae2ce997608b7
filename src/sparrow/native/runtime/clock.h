/* A monotonic clock in nanoseconds, without a libc header on Linux so that the runtime links with
 * -nostdlib and takes clock_gettime from the process that loads it. */
#ifndef SPARROW_RUNTIME_CLOCK_H
#define SPARROW_RUNTIME_CLOCK_H

#include <stdint.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

static inline uint64_t sparrow_now_ns(void) {
  LARGE_INTEGER count, hz;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&hz);
  uint64_t c = (uint64_t)count.QuadPart, f = (uint64_t)hz.QuadPart;
  return c / f * 1000000000u + c % f * 1000000000u / f;
}

#elif defined(__linux__)

/* struct timespec of the unversioned clock_gettime symbol: two longs, on 32-bit systems too. */
struct sparrow_timespec {
  long tv_sec;
  long tv_nsec;
};
extern int clock_gettime(int clock, struct sparrow_timespec *now);

static inline uint64_t sparrow_now_ns(void) {
  struct sparrow_timespec now;
  clock_gettime(1 /* CLOCK_MONOTONIC */, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#else
#include <time.h>

static inline uint64_t sparrow_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif

#endif
