/* call.h for systems that load libraries: calls functions of one. */
#include "runtime/loader.h"

#include "call.h"

static ld_library library;

static function find(const char *name) {
  void *found = ld_find(&library, name);
  if (found == NULL) sys_die(name);
  function f;
  memcpy(&f, &found, sizeof f);
  return f;
}

static void place(buffer *b, int n, uint64_t bytes) {
  (void)n;
  if (b->room >= bytes + BEFORE) return;
  b->room = (bytes + BEFORE + SYS_PAGE - 1) / SYS_PAGE * SYS_PAGE;
  unsigned char *start = (unsigned char *)sys_allocate(b->room + 2 * SYS_PAGE);
  start += -(uintptr_t)start & (SYS_PAGE - 1);
  b->end = start + b->room;
  if (sys_call(SYS_MPROTECT, (long)b->end, SYS_PAGE, 0, 0, 0, 0) != 0) sys_die("mprotect");
}

static long invoke(function f, const long *a) {
  return f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
}

int sparrow_main(int argc, char **argv) {
  if (argc < 2) sys_die("usage: call_probe library.so");
  library = ld_load(argv[1]);
  call_serve((caller){find, place, invoke});
  return 0;
}
