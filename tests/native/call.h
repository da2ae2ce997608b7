/* Calls functions with arrays and numbers from standard input: a foreign function interface over two
 * pipes, for tests of code that runs in an emulator.
 *
 * Per call: name length and bytes, argument count, then per argument 0 and a number or 1, a length
 * and bytes. Every array ends where accessible memory ends and must leave the bytes before it
 * alone. The answer is the function's int result, and every array as the call left it. All
 * integers are 64-bit. */
#ifndef CALL_H
#define CALL_H

enum { MOST_ARGUMENTS = 8, BEFORE = 64, CANARY = 0x5a };

typedef long (*function)(long, long, long, long, long, long, long, long);

typedef struct buffer {
  unsigned char *end; /* where access ends */
  uint64_t room, bytes;
} buffer;

/* What a machine does of its own.
 *
 * find: the function of a name, or an end with a message.
 * place: room for the bytes of the n-th array of a call and BEFORE ones before them.
 * invoke: the call itself. */
typedef struct caller {
  function (*find)(const char *name);
  void (*place)(buffer *b, int n, uint64_t bytes);
  long (*invoke)(function f, const long *a);
} caller;

static int64_t call_number(void) {
  int64_t n;
  sys_read_all(&n, sizeof n);
  return n;
}

static void call_serve(caller c) {
  static buffer buffers[MOST_ARGUMENTS];
  for (;;) {
    char name[256];
    long a[MOST_ARGUMENTS] = {0};
    const uint64_t length = (uint64_t)call_number();
    if (length >= sizeof name) sys_die("name too long");
    sys_read_all(name, length);
    name[length] = 0;
    const function f = c.find(name);
    const int count = (int)call_number();
    if (count > MOST_ARGUMENTS) sys_die("too many arguments");
    int arrays = 0;
    for (int i = 0; i < count; ++i) {
      const int is_array = (int)call_number();
      const int64_t n = call_number();
      a[i] = (long)n;
      if (!is_array) continue;
      buffer *b = &buffers[arrays];
      c.place(b, arrays++, (uint64_t)n);
      b->bytes = (uint64_t)n;
      unsigned char *at = b->end - n;
      memset(at - BEFORE, CANARY, BEFORE);
      sys_read_all(at, b->bytes);
      a[i] = (long)at;
    }
    const int64_t result = (int)c.invoke(f, a);
    sys_write_all(1, &result, sizeof result);
    for (const buffer *b = buffers; b < buffers + arrays; ++b) {
      const unsigned char *at = b->end - b->bytes;
      for (int k = 1; k <= BEFORE; ++k)
        if (at[-k] != CANARY) sys_die("the function wrote before an array");
      sys_write_all(1, at, b->bytes);
    }
  }
}

#endif
