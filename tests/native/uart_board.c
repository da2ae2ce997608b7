/* Firmware for an emulated Arm MPS2 board that answers Sparrow over its first UART. */
#include "runtime/semihosting.h"
#include "runtime/serve_uart.h"

typedef struct uart_registers {
  volatile uint32_t data, state, ctrl, interrupt, divider;
} uart_registers;

#define UART ((uart_registers *)0x40004000u)
enum { SENDING = 1, RECEIVED = 2 };

static int get(void) {
  while (!(UART->state & RECEIVED)) {
  }
  return (int)(UART->data & 255u);
}

static void put(int byte) {
  while (UART->state & SENDING) {
  }
  UART->data = (uint32_t)byte & 255u;
}

/* A clock that takes a microsecond to look at. */
static uint64_t now_ns(void) {
  static uint64_t ns;
  return ns += 1000;
}

int sparrow_main(void) {
  static const sparrow_uart uart = {get, put, CLOCK};
  static unsigned char memory[MEMORY_BYTES];
  UART->divider = 16;
  UART->ctrl = 3;
  sparrow_serve_uart(&uart, model_info(), model_run, model_reset, memory, sizeof memory);
  return 0;
}
