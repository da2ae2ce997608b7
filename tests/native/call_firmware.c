/* call.h for boards without an operating system, which load no library: the functions are linked
 * in, and a table names them.
 *
 * They run unprivileged, where the memory protection unit grants them code, data, stack and the bytes
 * of their arrays up to the end of each; whatever else they touch is a fault. */
#include "runtime/semihosting.h"

#include "call.h"

typedef struct named {
  const char *name;
  function call;
} named;
extern const named functions[];
extern const int function_count;

enum { MOST_ARRAYS = 5, GRAIN = 32 };
enum { READ_WRITE = 1, READ_ONLY = 3, NEVER_RUN = 1 };

/* Region `at` of the protection unit: from and to are multiples of GRAIN. */
static void grant(uint32_t at, const void *from, const void *to, uint32_t access, uint32_t run) {
  volatile uint32_t *const mpu = (volatile uint32_t *)0xE000ED90u; /* type, control, number, .. */
  mpu[2] = at;
  mpu[3] = (uint32_t)(uintptr_t)from | access << 1 | run;
  mpu[4] = ((uint32_t)(uintptr_t)to - GRAIN) | 1;
}

static void place(buffer *b, int n, uint64_t bytes) {
  if (n >= MOST_ARRAYS) sys_die("more arrays than regions");
  if (b->room >= bytes + BEFORE) return;
  b->room = (bytes + BEFORE + GRAIN - 1) / GRAIN * GRAIN;
  unsigned char *start = sys_allocate((uint32_t)b->room + 2 * GRAIN);
  b->end = start + b->room;
  grant((uint32_t)(3 + n), start, b->end, READ_WRITE, NEVER_RUN);
}

/* A handler is privileged, and so is what it returns to when it says so. */
static __attribute__((naked, used)) void Privileged_Handler(void) {
  __asm__ volatile("mrs r0, control\n bic r0, r0, #1\n msr control, r0\n isb\n bx lr\n");
}

static long confined(function f, const long *a) {
  uint32_t control;
  __asm__ volatile("mrs %0, control" : "=r"(control));
  __asm__ volatile("msr control, %0\n isb" ::"r"(control | 1u) : "memory");
  const long result = f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
  __asm__ volatile("svc 0" ::: "memory");
  return result;
}

static void protect(void) {
  static const void *own[16] __attribute__((aligned(128)));
  for (int i = 0; i < 16; ++i) own[i] = vectors[i];
  own[11] = (const void *)Privileged_Handler;
  *(const void *volatile *volatile *)0xE000ED08u = (const void *volatile *)own; /* VTOR */
  *(volatile uint32_t *)0xE000EDC0u = 0xff;                                      /* MAIR0: normal */
  const uintptr_t heap = ((uintptr_t)_heap + GRAIN - 1) / GRAIN * GRAIN;
  (void)sys_allocate(GRAIN); /* whose first bytes share a granule with the data */
  grant(0, NULL, (const void *)(512u << 10), READ_ONLY, 0);
  grant(1, (const void *)0x71000000u, (const void *)heap, READ_WRITE, NEVER_RUN);
  grant(2, _stack_limit, &_stack_top, READ_WRITE, NEVER_RUN);
  *(volatile uint32_t *)0xE000ED94u = 5; /* on, and all for the privileged */
  __asm__ volatile("dsb\n isb" ::: "memory");
}

static function find(const char *name) {
  for (int i = 0; i < function_count; ++i) {
    const char *a = functions[i].name, *b = name;
    while (*a != 0 && *a == *b) ++a, ++b;
    if (*a == *b) return functions[i].call;
  }
  sys_die(name);
}

int sparrow_main(void) {
  protect();
  call_serve((caller){find, place, confined});
  return 0;
}
