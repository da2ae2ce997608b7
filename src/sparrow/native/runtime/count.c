/* A plugin of qemu that counts executed instructions and writes the count down at marks: in user mode
 * the system call 0x5350, as runner.c makes it before and after every step; where mark= is given, as
 * for firmware.c, the instruction at that address.
 *
 * The answer, in the file of the argument out=, is a row of three 64-bit numbers per mark: step,
 * begin (the first two arguments of the call; visits of an address alternate) and the count. Counts are exact and the same every time.
 * The interface is declared here: distributions ship qemu without its plugin header. API 1,
 * qemu 6 to 8; open and write come from the emulator's own libc. */
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum { SYS_MARK = 0x5350, ADD_U64 = 0, NO_REGISTERS = 0, CREATE = 01101 /* write only, create, truncate */ };

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
typedef void (*translated)(plugin_id, struct qemu_plugin_tb *);
typedef void (*called)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, called);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn;
typedef void (*executed)(unsigned cpu, void *data);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, executed, int, void *);
extern int open(const char *path, int flags, ...);
extern ptrdiff_t write(int file, const void *data, size_t n);

extern EXPORT int qemu_plugin_version;
EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(plugin_id, const void *, int, char **);

static uint64_t count, mark, visits;
static int file = -1;

static void put(uint64_t step, uint64_t begin) {
  const uint64_t row[3] = {step, begin, count};
  if (write(file, row, sizeof row) != (ptrdiff_t)sizeof row) file = -1;
}

static void on_visit(unsigned cpu, void *data) {
  (void)cpu, (void)data;
  put(visits / 2, visits % 2 == 0);
  ++visits;
}

static void on_block(plugin_id id, struct qemu_plugin_tb *block) {
  (void)id;
  const size_t n = qemu_plugin_tb_n_insns(block);
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &count, n);
  for (size_t i = 0; mark != 0 && i < n; ++i) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
    if (qemu_plugin_insn_vaddr(instruction) == mark)
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_visit, NO_REGISTERS, NULL);
  }
}

static void on_call(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                    uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)cpu, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number == SYS_MARK) put(a, b);
}

int qemu_plugin_install(plugin_id id, const void *about, int argc, char **argv) {
  (void)about;
  for (int i = 0; i < argc; ++i) {
    const char *a = argv[i];
    if (a[0] == 'o' && a[1] == 'u' && a[2] == 't' && a[3] == '=') file = open(a + 4, CREATE, 0600);
    if (a[0] == 'm' && a[1] == 'a' && a[2] == 'r' && a[3] == 'k' && a[4] == '=')
      for (const char *d = a + 5; *d != 0; ++d) mark = 10 * mark + (uint64_t)(*d - '0');
  }
  if (file < 0) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
  if (mark == 0) qemu_plugin_register_vcpu_syscall_cb(id, on_call);
  return 0;
}
