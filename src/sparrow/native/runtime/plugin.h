/* What the plugins of qemu share. The interface is declared here: distributions ship qemu without its
 * plugin header. API 1, qemu 6 to 8; open and write come from the emulator's own libc. */
#ifndef SPARROW_RUNTIME_PLUGIN_H
#define SPARROW_RUNTIME_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum { NO_REGISTERS = 0, CREATE = 01101 /* write only, create, truncate */ };

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
typedef void (*translated)(plugin_id, struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn;
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern int open(const char *path, int flags, ...);
extern ptrdiff_t write(int file, const void *data, size_t n);

extern EXPORT int qemu_plugin_version;
EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(plugin_id, const void *, int, char **);

/* The number at the beginning of a text. */
static uint64_t plugin_number(const char *a) {
  uint64_t n = 0;
  while (*a >= '0' && *a <= '9') n = 10 * n + (uint64_t)(*a++ - '0');
  return n;
}

/* What follows a name and an equals sign in an argument, else NULL. */
static const char *plugin_value(const char *argument, const char *name) {
  while (*name != 0 && *argument == *name) ++argument, ++name;
  return *name == 0 && *argument == '=' ? argument + 1 : NULL;
}

#endif
