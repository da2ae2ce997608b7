/* What compilers call by themselves, for programs without a libc: included by one file of each. */
#ifndef SPARROW_RUNTIME_MEMORY_H
#define SPARROW_RUNTIME_MEMORY_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
void *memcpy(void *to, const void *from, size_t n) {
  unsigned char *t = (unsigned char *)to;
  const unsigned char *f = (const unsigned char *)from;
  for (size_t i = 0; i < n; ++i) t[i] = f[i];
  return to;
}
void *memmove(void *to, const void *from, size_t n) {
  unsigned char *t = (unsigned char *)to;
  const unsigned char *f = (const unsigned char *)from;
  if (t <= f || t >= f + n) return memcpy(to, from, n);
  for (size_t i = n; i-- > 0;) t[i] = f[i];
  return to;
}
void *memset(void *to, int value, size_t n) {
  unsigned char *t = (unsigned char *)to;
  for (size_t i = 0; i < n; ++i) t[i] = (unsigned char)value;
  return to;
}

#endif
