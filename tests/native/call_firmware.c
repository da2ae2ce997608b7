/* call_probe.c for boards without an operating system, which load no library: the functions are linked
 * in, and a table names them.
 *
 * They run unprivileged, where the memory protection unit grants them code, data, stack and the bytes
 * of their arrays up to the end of each; whatever else they touch is a fault. */
#include "runtime/semihosting.h"

typedef long (*function)(long, long, long, long, long, long, long, long);
typedef struct named {
  const char *name;
  function call;
} named;
extern const named functions[];
extern const int function_count;

enum { MOST_ARGUMENTS = 8, MOST_ARRAYS = 5, BEFORE = 64, CANARY = 0x5a, GRAIN = 32 };
enum { READ_WRITE = 1, READ_ONLY = 3, NEVER_RUN = 1 };

typedef struct buffer {
  unsigned char *end;
  uint32_t room, bytes;
} buffer;

static int64_t number(void) {
  int64_t n;
  sys_read_all(&n, sizeof n);
  return n;
}

/* Region `at` of the protection unit: from and to are multiples of GRAIN. */
static void grant(uint32_t at, const void *from, const void *to, uint32_t access, uint32_t run) {
  volatile uint32_t *const mpu = (volatile uint32_t *)0xE000ED90u; /* type, control, number, .. */
  mpu[2] = at;
  mpu[3] = (uint32_t)(uintptr_t)from | access << 1 | run;
  mpu[4] = ((uint32_t)(uintptr_t)to - GRAIN) | 1;
}

static unsigned char *place(uint32_t at, buffer *b, uint32_t bytes) {
  if (b->room < bytes + BEFORE) {
    b->room = (bytes + BEFORE + GRAIN - 1) / GRAIN * GRAIN;
    unsigned char *start = sys_allocate(b->room + 2 * GRAIN);
    b->end = start + b->room;
    grant(at, start, b->end, READ_WRITE, NEVER_RUN);
  }
  b->bytes = bytes;
  return b->end - bytes;
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
  static buffer buffers[MOST_ARRAYS];
  protect();
  for (;;) {
    char name[256];
    long a[MOST_ARGUMENTS] = {0};
    int is_array[MOST_ARGUMENTS] = {0};
    const uint64_t length = (uint64_t)number();
    if (length >= sizeof name) sys_die("name too long");
    sys_read_all(name, length);
    name[length] = 0;
    const function f = find(name);
    const int count = (int)number();
    if (count > MOST_ARGUMENTS) sys_die("too many arguments");
    int arrays = 0;
    buffer *of[MOST_ARGUMENTS];
    for (int i = 0; i < count; ++i) {
      is_array[i] = (int)number();
      const int64_t n = number();
      a[i] = (long)n;
      if (!is_array[i]) continue;
      if (arrays == MOST_ARRAYS) sys_die("more arrays than regions");
      of[i] = &buffers[arrays];
      unsigned char *at = place((uint32_t)(3 + arrays++), of[i], (uint32_t)n);
      memset(at - BEFORE, CANARY, BEFORE);
      sys_read_all(at, (uint64_t)n);
      a[i] = (long)at;
    }
    const int64_t result = (int)confined(f, a);
    sys_write_all(1, &result, sizeof result);
    for (int i = 0; i < count; ++i) {
      if (!is_array[i]) continue;
      const unsigned char *at = of[i]->end - of[i]->bytes;
      for (int k = 1; k <= BEFORE; ++k)
        if (at[-k] != CANARY) sys_die("the function wrote before an array");
      sys_write_all(1, at, of[i]->bytes);
    }
  }
}
