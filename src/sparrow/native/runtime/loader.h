/* Loads an ELF shared library that needs no other library: what dlopen does, without a libc.
 *
 * Maps its segments from the file, applies its relocations, and finds exported functions. Symbols
 * it leaves open may only be memcpy, memmove, memset, memcmp and raise, which freestanding.h has. */
#ifndef SPARROW_RUNTIME_LOADER_H
#define SPARROW_RUNTIME_LOADER_H

#include "freestanding.h"

typedef uintptr_t ld_word;

typedef struct ld_header {
  unsigned char ident[16];
  uint16_t type, machine;
  uint32_t version;
  ld_word entry, segments, sections;
  uint32_t flags;
  uint16_t size, segment_size, n_segments, section_size, n_sections, names;
} ld_header;

typedef struct ld_symbol {
  uint32_t name;
#if UINTPTR_MAX > 0xffffffffu
  unsigned char info, other;
  uint16_t section;
  ld_word value, size;
#else
  ld_word value, size;
  unsigned char info, other;
  uint16_t section;
#endif
} ld_symbol;

typedef struct ld_segment {
  uint32_t type;
#if UINTPTR_MAX > 0xffffffffu
  uint32_t flags;
#endif
  ld_word offset, address, physical, file_bytes, bytes;
#if UINTPTR_MAX <= 0xffffffffu
  uint32_t flags;
#endif
  ld_word align;
} ld_segment;

/* Relocations: base + addend, symbol + addend in data, symbol. Armv7 and x86 keep addends in place. */
#if defined(__x86_64__)
enum { LD_RELATIVE = 8, LD_ABSOLUTE = 1, LD_GLOB_DAT = 6, LD_JUMP_SLOT = 7, LD_IN_PLACE = 0 };
#elif defined(__i386__)
enum { LD_RELATIVE = 8, LD_ABSOLUTE = 1, LD_GLOB_DAT = 6, LD_JUMP_SLOT = 7, LD_IN_PLACE = 1 };
#elif defined(__aarch64__)
enum { LD_RELATIVE = 1027, LD_ABSOLUTE = 257, LD_GLOB_DAT = 1025, LD_JUMP_SLOT = 1026 };
enum { LD_IN_PLACE = 0 };
#elif defined(__arm__)
enum { LD_RELATIVE = 23, LD_ABSOLUTE = 2, LD_GLOB_DAT = 21, LD_JUMP_SLOT = 22, LD_IN_PLACE = 1 };
#else /* RISC-V has no GLOB_DAT: it uses ABSOLUTE */
enum { LD_RELATIVE = 3, LD_ABSOLUTE = 2, LD_GLOB_DAT = -1, LD_JUMP_SLOT = 5, LD_IN_PLACE = 0 };
#endif

/* A loaded library. */
typedef struct ld_library {
  unsigned char *base;
  const ld_symbol *symbols;
  const char *names;
  uint32_t n_symbols;
} ld_library;

static int ld_equal(const char *a, const char *b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

/* Address of an exported symbol, NULL if there is none. */
static void *ld_find(const ld_library *library, const char *name) {
  for (uint32_t i = 1; i < library->n_symbols; ++i) {
    const ld_symbol *s = &library->symbols[i];
    if (s->section != 0 && ld_equal(library->names + s->name, name))
      return library->base + s->value;
  }
  return NULL;
}

static ld_word ld_resolve(const ld_library *library, uint32_t index) {
  const ld_symbol *s = &library->symbols[index];
  const char *name = library->names + s->name;
  if (s->section != 0) return (ld_word)(library->base + s->value);
  if (ld_equal(name, "memcpy")) return (ld_word)memcpy;
  if (ld_equal(name, "memmove")) return (ld_word)memmove;
  if (ld_equal(name, "memset")) return (ld_word)memset;
  if (ld_equal(name, "memcmp")) return (ld_word)memcmp;
  if (ld_equal(name, "raise")) return (ld_word)raise;
  if (s->info >> 4 == 2) return 0; /* weak */
  sys_complain("the library needs a function that is in no library: ");
  sys_die(name);
}

/* A table of n bytes of relocations: offset, info and, unless LD_IN_PLACE, addend. */
static void ld_relocate(const ld_library *library, const ld_word *table, ld_word n) {
  const int words = LD_IN_PLACE ? 2 : 3;
  for (ld_word i = 0; i < n / sizeof(ld_word); i += (ld_word)words) {
    ld_word *at = (ld_word *)(void *)(library->base + table[i]);
    const ld_word info = table[i + 1], addend = LD_IN_PLACE ? *at : table[i + 2];
    const uint32_t kind = (uint32_t)(sizeof(ld_word) == 8 ? info & 0xffffffffu : info & 0xffu);
    const uint32_t symbol = (uint32_t)(sizeof(ld_word) == 8 ? info >> 16 >> 16 : info >> 8);
    if (kind == (uint32_t)LD_RELATIVE)
      *at = (ld_word)library->base + addend;
    else if (kind == (uint32_t)LD_ABSOLUTE)
      *at = ld_resolve(library, symbol) + addend;
    else if (kind == (uint32_t)LD_GLOB_DAT || kind == (uint32_t)LD_JUMP_SLOT)
      *at = ld_resolve(library, symbol);
    else
      sys_die("the library has a relocation of an unknown kind");
  }
}

/* The library in a file; ends the program with a message where it cannot be loaded. */
static ld_library ld_load(const char *path) {
  enum { LOAD = 1, DYNAMIC = 2 };
  enum { PLT_SIZE = 2, HASH = 4, NAMES = 5, SYMBOLS = 6, RELA = 7, RELA_SIZE = 8, REL = 17 };
  enum { REL_SIZE = 18, PLT = 23 };
  static unsigned char first[4096];
  const ld_header *header = (const ld_header *)(const void *)first;
  ld_library library = {0};
  ld_word bytes = 0, entries[32] = {0};
  const int file = (int)sys_call(SYS_OPENAT, -100, (long)path, 0, 0, 0, 0);
  if (file < 0) sys_die("the library cannot be opened");
  if (sys_call(SYS_READ, file, (long)first, sizeof first, 0, 0, 0) < (long)sizeof(ld_header) ||
      first[1] != 'E' || header->segments + header->n_segments * sizeof(ld_segment) > sizeof first)
    sys_die("not an ELF library");
  const ld_segment *segments = (const ld_segment *)(const void *)(first + header->segments);
  for (int i = 0; i < header->n_segments; ++i) {
    const ld_word end = segments[i].address + segments[i].bytes;
    if (segments[i].type == LOAD && end > bytes) bytes = end;
  }
  /* one reservation, so that segments keep their distances */
  unsigned char *base = (unsigned char *)sys_map(NULL, bytes + 2 * SYS_PAGE, 0, -1, 0);
  if (base == NULL) sys_die("out of memory");
  base += -(uintptr_t)base & (SYS_PAGE - 1);
  library.base = base;
  const ld_word *dynamic = NULL;
  for (int i = 0; i < header->n_segments; ++i) {
    const ld_segment s = segments[i];
    if (s.type == DYNAMIC) dynamic = (const ld_word *)(const void *)(base + s.address);
    if (s.type != LOAD) continue;
    const ld_word slack = s.address & 4095;
    const int rights = (int)((s.flags & 4) >> 2 | (s.flags & 2) | (s.flags & 1) << 2);
    unsigned char *from = base + s.address - slack;
    if (s.file_bytes > 0 &&
        sys_map(from, s.file_bytes + slack, rights | 2, file, s.offset - slack) == NULL)
      sys_die("a segment of the library cannot be mapped");
    unsigned char *end = base + s.address + s.file_bytes;
    unsigned char *page = end + (-(uintptr_t)end & 4095);
    if (s.bytes > s.file_bytes) {
      for (unsigned char *p = end; p < page; ++p) *p = 0;
      if (base + s.address + s.bytes > page &&
          sys_map(page, (uint64_t)(base + s.address + s.bytes - page), rights, -1, 0) == NULL)
        sys_die("out of memory");
    }
  }
  sys_call(SYS_CLOSE, file, 0, 0, 0, 0, 0);
  if (dynamic == NULL) sys_die("not an ELF shared library");
  for (; dynamic[0] != 0; dynamic += 2)
    if (dynamic[0] < 32) entries[dynamic[0]] = dynamic[1];
  if (entries[HASH] == 0) sys_die("the library has no symbol table");
  library.symbols = (const ld_symbol *)(const void *)(base + entries[SYMBOLS]);
  library.names = (const char *)(base + entries[NAMES]);
  library.n_symbols = ((const uint32_t *)(const void *)(base + entries[HASH]))[1];
  const int plain = LD_IN_PLACE ? REL : RELA, plain_size = LD_IN_PLACE ? REL_SIZE : RELA_SIZE;
  ld_relocate(&library, (const ld_word *)(const void *)(base + entries[plain]), entries[plain_size]);
  ld_relocate(&library, (const ld_word *)(const void *)(base + entries[PLT]), entries[PLT_SIZE]);
  return library;
}

#endif
