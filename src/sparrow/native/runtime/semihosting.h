/* A program without an operating system on Cortex-M, in an emulator or under a debugger: start-up,
 * the vector table, and files of the host through semihosting.
 *
 * Included by the one file of a program that defines `int sparrow_main(void)`. The linker script
 * brings _stack_top, _stack_limit, _heap, _heap_end and the sections of data and bss. */
#ifndef SPARROW_RUNTIME_SEMIHOSTING_H
#define SPARROW_RUNTIME_SEMIHOSTING_H

#include <stddef.h>
#include <stdint.h>

#include "memory.h"

extern uint32_t _stack_top, _data_from, _data, _data_end, _bss, _bss_end;
extern unsigned char _stack_limit[], _heap[], _heap_end[];

enum { SYS_OPEN = 1, SYS_WRITE0 = 4, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT_EXTENDED = 0x20 };
enum { SYS_APPLICATION_EXIT = 0x20026, SYS_MODE_READ = 1, SYS_MODE_WRITE = 5 };

static uint32_t sys_call(uint32_t operation, const void *argument) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static __attribute__((noreturn)) void sys_exit(uint32_t code) {
  const uint32_t arguments[2] = {SYS_APPLICATION_EXIT, code};
  for (;;) sys_call(SYS_EXIT_EXTENDED, arguments);
}

/* The host's standard input or output, opened once. */
static uint32_t sys_file(const char *path, uint32_t length, uint32_t mode) {
  const uint32_t arguments[3] = {(uint32_t)(uintptr_t)path, mode, length};
  const uint32_t file = sys_call(SYS_OPEN, arguments);
  if (file == UINT32_MAX) sys_exit(3);
  return file;
}

static void sys_write_to(uint32_t file, const void *data, uint64_t n) {
  const uint32_t arguments[3] = {file, (uint32_t)(uintptr_t)data, (uint32_t)n};
  if (sys_call(SYS_WRITE, arguments) != 0) sys_exit(3);
}

static void sys_write_all(int file, const void *data, uint64_t n) {
  static uint32_t out;
  (void)file;
  if (out == 0) out = sys_file("/dev/stdout", 11, SYS_MODE_WRITE);
  if (n > 0) sys_write_to(out, data, n);
}

static void sys_complain(const char *message) {
  static uint32_t err;
  uint32_t n = 0;
  while (message[n] != 0) ++n;
  if (err == 0) err = sys_file("/dev/stderr", 11, SYS_MODE_WRITE);
  sys_write_to(err, message, n);
}

/* Ends the program with a message on standard error. */
static __attribute__((noreturn)) void sys_die(const char *message) {
  sys_complain(message);
  sys_complain("\n");
  sys_exit(2);
}

/* As device/firmware.py reads it. */
static __attribute__((noreturn)) void sys_die_of_ram(uint64_t needed, uint32_t there) {
  char text[] = "RAM: 00000000000000000000 bytes needed, 0000000000 there";
  for (char *p = text + 25; p > text + 5; needed /= 10) *--p = (char)('0' + needed % 10);
  for (char *p = text + 50; p > text + 40; there /= 10) *--p = (char)('0' + there % 10);
  sys_die(text);
}

/* n bytes of standard input. Ends the program, quietly, where the input ends before the first. */
static void sys_read_all(void *data, uint64_t n) {
  static uint32_t in;
  if (in == 0) in = sys_file("/dev/stdin", 10, SYS_MODE_READ);
  unsigned char *p = (unsigned char *)data;
  while (n > 0) {
    const uint32_t arguments[3] = {in, (uint32_t)(uintptr_t)p, (uint32_t)n};
    const uint32_t left = sys_call(SYS_READ, arguments);
    if (left >= n) sys_exit(0);
    p += (uint32_t)n - left;
    n = left;
  }
}

/* n zero bytes, aligned to 64; ends the program where there is no memory. */
static void *sys_allocate(uint64_t n) {
  static unsigned char *next;
  if (next == NULL) next = _heap;
  next += -(uintptr_t)next & 63u;
  if (n > (uint64_t)(_heap_end - next))
    sys_die_of_ram((uint64_t)(next - _heap) + n, (uint32_t)(_heap_end - _heap));
  void *p = next;
  next += n;
  return memset(p, 0, (size_t)n);
}

int sparrow_main(void);
void Reset_C(void) __attribute__((noreturn, used));
void Reset_C(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: coprocessors 10 and 11, the FPU */
  __asm__ volatile("dsb\n isb" ::: "memory");
#endif
  const uint32_t *from = &_data_from;
  for (uint32_t *to = &_data; to < &_data_end;) *to++ = *from++;
  for (uint32_t *to = &_bss; to < &_bss_end;) *to++ = 0;
  sys_exit((uint32_t)sparrow_main());
}

void Reset_Handler(void) __attribute__((naked, noreturn, used));
void Reset_Handler(void) {
  __asm__ volatile("ldr r0, =_stack_top\n mov sp, r0\n bl Reset_C\n .ltorg\n");
}

void Fault_Handler(void) __attribute__((noreturn, used));
void Fault_Handler(void) { sys_die("the program made a fault (illegal instruction or address)"); }

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &_stack_top,           (const void *)Reset_Handler, (const void *)Fault_Handler,
    (const void *)Fault_Handler, (const void *)Fault_Handler, (const void *)Fault_Handler,
    (const void *)Fault_Handler, (const void *)Fault_Handler};

#endif
