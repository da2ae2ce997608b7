/* A plugin of qemu that says how deep the stack pointer goes: where an instruction reads or writes
 * memory at a known distance from the stack pointer, the address says where that is. No instruction
 * of the table may leave its block (a return): qemu 7 then goes on to call back for others.
 *
 * The file of the argument table= holds rows of two 64-bit numbers, sorted: the address of such an
 * instruction and how far above the stack pointer it reads or writes; first= is the one that begins
 * the call which is looked at. The answer, in the file of out=, is the stack pointer there and its
 * lowest from then on. */
#include "plugin.h"

/* What lies further below is no stack: qemu 7 calls back for accesses of other instructions, too, once
 * an instrumented one has left its block early. */
enum { MOST = 1 << 18, STORES_AND_LOADS = 3, WHOLE_STACK = 1 << 16 };

typedef void (*accessed)(unsigned cpu, uint32_t how, uint64_t address, void *data);
typedef void (*ended)(plugin_id, void *);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, accessed, int, int, void *);
extern void qemu_plugin_register_atexit_cb(plugin_id, ended, void *);
extern ptrdiff_t read(int file, void *data, size_t n);

static uint64_t table[MOST][2];
static size_t rows;
static uint64_t first, found[2]; /* the stack pointer at first, and its lowest */
static int file = -1;

static void on_access(unsigned cpu, uint32_t how, uint64_t address, void *data) {
  const uint64_t *row = (const uint64_t *)data, sp = address - row[1];
  (void)cpu, (void)how;
  if (row[0] == first && (found[0] == 0 || sp < found[0])) found[0] = found[1] = sp;
  if (found[0] != 0 && sp < found[1] && found[0] - sp < WHOLE_STACK) found[1] = sp;
}

static void on_block(plugin_id id, struct qemu_plugin_tb *block) {
  (void)id;
  const size_t n = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < n; ++i) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
    const uint64_t at = qemu_plugin_insn_vaddr(instruction);
    size_t low = 0, high = rows;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (table[middle][0] < at) low = middle + 1;
      else high = middle;
    }
    if (low < rows && table[low][0] == at)
      qemu_plugin_register_vcpu_mem_cb(instruction, on_access, NO_REGISTERS, STORES_AND_LOADS,
                                       table[low]);
  }
}

static void on_end(plugin_id id, void *data) {
  (void)id, (void)data;
  if (write(file, found, sizeof found) != (ptrdiff_t)sizeof found) file = -1;
}

int qemu_plugin_install(plugin_id id, const void *about, int argc, char **argv) {
  (void)about;
  int in = -1;
  for (int i = 0; i < argc; ++i) {
    const char *out = plugin_value(argv[i], "out"), *from = plugin_value(argv[i], "table");
    const char *at = plugin_value(argv[i], "first");
    if (out != NULL) file = open(out, CREATE, 0600);
    if (from != NULL) in = open(from, 0);
    if (at != NULL) first = plugin_number(at);
  }
  if (file < 0 || in < 0) return -1;
  const ptrdiff_t n = read(in, table, sizeof table);
  char more;
  /* frames of functions that are left out would go unseen */
  if (n <= 0 || read(in, &more, 1) != 0) return -1;
  rows = (size_t)n / sizeof table[0];
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
  qemu_plugin_register_atexit_cb(id, on_end, NULL);
  return 0;
}
