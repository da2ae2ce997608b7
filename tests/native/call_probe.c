/* Calls functions of a library with arrays and numbers from standard input: a foreign function
 * interface over two pipes, for tests of code that runs in an emulator.
 *
 * Per call: name length and bytes, argument count, then per argument 0 and a number or 1, a length
 * and bytes. Every array ends where accessible memory ends and must leave the bytes before it
 * alone. The answer is the function's int result, and every array as the call left it. All
 * integers are 64-bit. */
#include "runtime/loader.h"

enum { MOST_ARGUMENTS = 8, BEFORE = 64, CANARY = 0x5a };

typedef long (*function)(long, long, long, long, long, long, long, long);

typedef struct buffer {
  unsigned char *end; /* the page without access */
  uint64_t room, bytes;
} buffer;

static int64_t number(void) {
  int64_t n;
  sys_read_all(&n, sizeof n);
  return n;
}

static unsigned char *place(buffer *b, uint64_t bytes) {
  if (b->room < bytes + BEFORE) {
    b->room = (bytes + BEFORE + SYS_PAGE - 1) / SYS_PAGE * SYS_PAGE;
    unsigned char *start = (unsigned char *)sys_allocate(b->room + 2 * SYS_PAGE);
    start += -(uintptr_t)start & (SYS_PAGE - 1);
    b->end = start + b->room;
    if (sys_call(SYS_MPROTECT, (long)b->end, SYS_PAGE, 0, 0, 0, 0) != 0) sys_die("mprotect");
  }
  b->bytes = bytes;
  return b->end - bytes;
}

int sparrow_main(int argc, char **argv) {
  static buffer buffers[MOST_ARGUMENTS];
  if (argc < 2) sys_die("usage: call_probe library.so");
  const ld_library library = ld_load(argv[1]);
  for (;;) {
    char name[256];
    long a[MOST_ARGUMENTS] = {0};
    int is_array[MOST_ARGUMENTS] = {0};
    const uint64_t length = (uint64_t)number();
    if (length >= sizeof name) sys_die("name too long");
    sys_read_all(name, length);
    name[length] = 0;
    void *found = ld_find(&library, name);
    if (found == NULL) sys_die(name);
    const int count = (int)number();
    if (count > MOST_ARGUMENTS) sys_die("too many arguments");
    for (int i = 0; i < count; ++i) {
      is_array[i] = (int)number();
      const int64_t n = number();
      a[i] = (long)n;
      if (!is_array[i]) continue;
      unsigned char *at = place(&buffers[i], (uint64_t)n);
      memset(at - BEFORE, CANARY, BEFORE);
      sys_read_all(at, (uint64_t)n);
      a[i] = (long)at;
    }
    function f;
    memcpy(&f, &found, sizeof f);
    const int64_t result = (int)f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
    sys_write_all(1, &result, sizeof result);
    for (int i = 0; i < count; ++i) {
      if (!is_array[i]) continue;
      const unsigned char *at = buffers[i].end - buffers[i].bytes;
      for (int k = 1; k <= BEFORE; ++k)
        if (at[-k] != CANARY) sys_die("the function wrote before an array");
      sys_write_all(1, at, buffers[i].bytes);
    }
  }
}
