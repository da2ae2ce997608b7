/* Runs a traced child one instruction at a time and finds how low its stack pointer gets inside a
 * range of code. x86-64 Linux; libc comes from the process that loads this. */
#include <stddef.h>
#include <stdint.h>

extern long ptrace(long request, ...);
extern int waitpid(int pid, int *status, int options);

enum { CONTINUE = 7, SINGLE_STEP = 9, GET_REGISTERS = 12, DETACH = 17, SIGNAL_STOP = 19 };
/* of struct user_regs_struct, in words */
enum { IP = 16, SP = 19, WORDS = 27 };

typedef struct span {
  uint64_t at_entry; /* the stack pointer when `entry` is reached, at its return address */
  uint64_t lowest;   /* while the instruction pointer lies in [low, high) */
  uint64_t steps;
} span;

/* Steps a stopped child from `entry` on until it stops itself; 0 when it did. */
__attribute__((visibility("default"))) int lowest_stack(int pid, uint64_t entry, uint64_t low,
                                                         uint64_t high, span *found) {
  uint64_t r[WORDS];
  int status = 0;
  found->at_entry = 0;
  found->lowest = ~(uint64_t)0;
  found->steps = 0;
  for (;;) {
    if (ptrace(SINGLE_STEP, pid, NULL, NULL) != 0) return 1;
    if (waitpid(pid, &status, 0) != pid) return 2;
    if ((status & 0xff) != 0x7f) return 3;
    if (((status >> 8) & 0xff) == SIGNAL_STOP) break;
    if (ptrace(GET_REGISTERS, pid, NULL, r) != 0) return 4;
    if (r[IP] == entry && found->at_entry == 0) found->at_entry = r[SP];
    if (found->at_entry != 0 && r[IP] >= low && r[IP] < high) {
      ++found->steps;
      if (r[SP] < found->lowest) found->lowest = r[SP];
    }
  }
  return ptrace(DETACH, pid, NULL, NULL) != 0 ? 5 : 0;
}
