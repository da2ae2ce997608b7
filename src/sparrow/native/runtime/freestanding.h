/* A Linux program without a libc: entry point, system calls, memory, and pipes in both directions.
 *
 * Included by the one file of a program that defines `int sparrow_main(int argc, char **argv)`.
 * x86-64, x86, AArch64, Armv7, RV64 and RV32; linked with -static -nostdlib. */
#ifndef SPARROW_RUNTIME_FREESTANDING_H
#define SPARROW_RUNTIME_FREESTANDING_H

#include <stddef.h>
#include <stdint.h>

#include "memory.h"

#if defined(__x86_64__)
enum { SYS_READ = 0, SYS_WRITE = 1, SYS_MMAP = 9, SYS_MPROTECT = 10, SYS_OPENAT = 257 };
enum { SYS_CLOSE = 3, SYS_EXIT = 231, SYS_CLOCK = 228, SYS_AFFINITY = 203 };
static long sys_call(long n, long a, long b, long c, long d, long e, long f) {
  long r;
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(r)
                   : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return r;
}
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call sys_start\n");
#elif defined(__i386__)
enum { SYS_READ = 3, SYS_WRITE = 4, SYS_MMAP = 192, SYS_MPROTECT = 125, SYS_OPENAT = 295 };
enum { SYS_CLOSE = 6, SYS_EXIT = 252, SYS_CLOCK = 265, SYS_AFFINITY = 241 };
static long sys_call(long n, long a, long b, long c, long d, long e, long f) {
  long r;
  /* ebp, which has the sixth argument, is no operand */
  __asm__ volatile("pushl %7\n push %%ebp\n mov 4(%%esp), %%ebp\n int $128\n pop %%ebp\n add $4, %%esp"
                   : "=a"(r)
                   : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), "g"(f)
                   : "memory");
  return r;
}
__asm__(
    ".globl _start\n_start: xor %ebp, %ebp\n mov %esp, %eax\n and $-16, %esp\n sub $12, %esp\n"
    " push %eax\n call sys_start\n");
#elif defined(__aarch64__) || defined(__riscv)
enum { SYS_READ = 63, SYS_WRITE = 64, SYS_MMAP = 222, SYS_MPROTECT = 226, SYS_OPENAT = 56 };
#if UINTPTR_MAX > 0xffffffffu
enum { SYS_CLOSE = 57, SYS_EXIT = 94, SYS_CLOCK = 113, SYS_AFFINITY = 122 };
#else /* RV32 has the clock of 64-bit seconds alone */
enum { SYS_CLOSE = 57, SYS_EXIT = 94, SYS_CLOCK = 403, SYS_AFFINITY = 122 };
#endif
#if defined(__aarch64__)
#define SYS_R(n) __asm__("x" #n)
#define SYS_NUMBER __asm__("x8")
#define SYS_TRAP "svc 0"
__asm__(".globl _start\n_start: mov x29, #0\n mov x30, #0\n mov x0, sp\n and sp, x0, #-16\n bl sys_start\n");
#else
#define SYS_R(n) __asm__("a" #n)
#define SYS_NUMBER __asm__("a7")
#define SYS_TRAP "ecall"
/* GNU's linker turns addresses into offsets from gp */
__asm__(
    ".globl _start\n_start: .option push\n .option norelax\n la gp, __global_pointer$\n .option pop\n"
    " mv a0, sp\n andi sp, sp, -16\n call sys_start\n");
#endif
static long sys_call(long n, long a, long b, long c, long d, long e, long f) {
  register long r0 SYS_R(0) = a, r1 SYS_R(1) = b, r2 SYS_R(2) = c;
  register long r3 SYS_R(3) = d, r4 SYS_R(4) = e, r5 SYS_R(5) = f, number SYS_NUMBER = n;
  __asm__ volatile(SYS_TRAP
                   : "+r"(r0)
                   : "r"(number), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5)
                   : "memory");
  return r0;
}
#elif defined(__arm__)
enum { SYS_READ = 3, SYS_WRITE = 4, SYS_MMAP = 192, SYS_MPROTECT = 125, SYS_OPENAT = 322 };
enum { SYS_CLOSE = 6, SYS_EXIT = 248, SYS_CLOCK = 263, SYS_AFFINITY = 241 };
static long sys_call(long n, long a, long b, long c, long d, long e, long f) {
  register long r0 __asm__("r0") = a, r1 __asm__("r1") = b, r2 __asm__("r2") = c;
  register long r3 __asm__("r3") = d, r4 __asm__("r4") = e, r5 __asm__("r5") = f;
  register long r7 __asm__("r7") = n;
  __asm__ volatile("svc 0"
                   : "+r"(r0)
                   : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5)
                   : "memory");
  return r0;
}
__asm__(".globl _start\n.type _start, %function\n_start: mov fp, #0\n mov r0, sp\n bic sp, sp, #15\n bl sys_start\n");
#else
#error "no system calls for this architecture"
#endif

enum { SYS_PAGE = 65536 }; /* a multiple of every page size in use */

int memcmp(const void *a, const void *b, size_t n);
int memcmp(const void *a, const void *b, size_t n) {
  const unsigned char *x = (const unsigned char *)a, *y = (const unsigned char *)b;
  for (size_t i = 0; i < n; ++i)
    if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
  return 0;
}

static __attribute__((noreturn)) void sys_exit(int code) {
  for (;;) sys_call(SYS_EXIT, code, 0, 0, 0, 0, 0);
}

static void sys_write_all(int file, const void *data, uint64_t n) {
  const unsigned char *p = (const unsigned char *)data;
  while (n > 0) {
    const long done = sys_call(SYS_WRITE, file, (long)p, (long)(n < 1 << 30 ? n : 1 << 30), 0, 0, 0);
    if (done <= 0) sys_exit(3);
    p += done;
    n -= (uint64_t)done;
  }
}

static void sys_complain(const char *message) {
  size_t n = 0;
  while (message[n] != 0) ++n;
  sys_write_all(2, message, n);
}

/* Ends the program with a message on standard error. */
static __attribute__((noreturn)) void sys_die(const char *message) {
  sys_complain(message);
  sys_complain("\n");
  sys_exit(2);
}

/* What libgcc on Armv7 calls where an integer is divided by zero. */
int raise(int signal);
int raise(int signal) {
  (void)signal;
  sys_die("an integer was divided by zero");
}

/* n bytes of standard input. Ends the program, quietly, where the input ends before the first. */
static void __attribute__((unused)) sys_read_all(void *data, uint64_t n) {
  unsigned char *p = (unsigned char *)data;
  while (n > 0) {
    const long done = sys_call(SYS_READ, 0, (long)p, (long)(n < 1 << 30 ? n : 1 << 30), 0, 0, 0);
    if (done <= 0) sys_exit(0);
    p += done;
    n -= (uint64_t)done;
  }
}

/* Pages at `at` (anywhere when NULL) with the given rights (1 read, 2 write, 4 execute): of an open
 * file from a page-aligned offset, or zero bytes when file is -1. NULL: there are none. */
static void *sys_map(void *at, uint64_t n, int rights, int file, uint64_t offset) {
  const long flags = 2 | (at != NULL ? 16 : 0) | (file < 0 ? 32 : 0);
#if UINTPTR_MAX <= 0xffffffffu /* mmap2, whose offset counts pages of 4096 bytes */
  const long place = (long)(offset >> 12);
#else
  const long place = (long)offset;
#endif
  const long r = sys_call(SYS_MMAP, (long)at, (long)n, rights, flags, file, place);
  return r < 0 && r > -4096 ? NULL : (void *)r;
}

/* n zero bytes, aligned to a page; ends the program where there is no memory. */
static void *sys_allocate(uint64_t n) {
  void *p = sys_map(NULL, n + 1, 3, -1, 0);
  if (p == NULL) sys_die("out of memory");
  return p;
}

/* A clock that only rises. The kernel's own struct of two longs, on Armv7 too. */
static uint64_t __attribute__((unused)) sys_now_ns(void) {
#if defined(__riscv)
  int64_t time[2] = {0, 0};
#else
  long time[2] = {0, 0};
#endif
  sys_call(SYS_CLOCK, 1 /* CLOCK_MONOTONIC */, (long)time, 0, 0, 0, 0);
  return (uint64_t)time[0] * 1000000000u + (uint64_t)time[1];
}

int sparrow_main(int argc, char **argv);
void sys_start(long *stack) __attribute__((noreturn, used));
void sys_start(long *stack) { sys_exit(sparrow_main((int)stack[0], (char **)(stack + 1))); }

#endif
