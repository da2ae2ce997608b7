/* A plugin of qemu that counts executed instructions and writes the count down at marks: in user mode
 * the system call 0x5350, as runner.c makes it before and after every step; where mark= is given, as
 * for firmware.c, the instruction at that address.
 *
 * The answer, in the file of the argument out=, is a row of three 64-bit numbers per mark: step,
 * begin (the first two arguments of the call; visits of an address alternate) and the count. Counts are exact and the same every time. */
#include "plugin.h"

enum { SYS_MARK = 0x5350, ADD_U64 = 0 };

typedef void (*called)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t, uint64_t);
typedef void (*executed)(unsigned cpu, void *data);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, called);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, executed, int, void *);

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
    const char *out = plugin_value(argv[i], "out"), *at = plugin_value(argv[i], "mark");
    if (out != NULL) file = open(out, CREATE, 0600);
    if (at != NULL) mark = plugin_number(at);
  }
  if (file < 0) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
  if (mark == 0) qemu_plugin_register_vcpu_syscall_cb(id, on_call);
  return 0;
}
