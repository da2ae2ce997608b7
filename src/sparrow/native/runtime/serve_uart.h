/* Lets a program on a microcontroller answer Sparrow over a serial line: `sparrow verify out
 * --device serial:/dev/ttyACM0@115200` then proves the model on the board itself, layer by layer.
 *
 *     static int get(void) { while (!(UART->STATE & RX)) {} return UART->DATA; }
 *     static void put(int byte) { while (UART->STATE & TX) {} UART->DATA = (uint8_t)byte; }
 *     static const sparrow_uart uart = {get, put, NULL};
 *     static unsigned char memory[MODEL_SERVE_BYTES];
 *     sparrow_serve_uart(&uart, model_info(), model_run, model_reset, memory, sizeof memory);
 *
 * Layers and their times need model.c compiled with -DSPARROW_HOOKS. */
#ifndef SPARROW_SERVE_UART_H
#define SPARROW_SERVE_UART_H

#include "../sparrow.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SPARROW_UART_DEFINED /* headers of several models may meet */
#define SPARROW_UART_DEFINED
/* What the program brings. The line carries all 256 byte values; errors on it are mended. */
typedef struct sparrow_uart {
  int (*get)(void);         /* waits for a byte */
  void (*put)(int byte);    /* sends one */
  uint64_t (*now_ns)(void); /* a clock that only rises; NULL where there is none */
} sparrow_uart;
#endif

/* Most data bytes in a frame; a larger one is faster, and takes three times as much memory. */
#ifndef SPARROW_UART_FRAME
#define SPARROW_UART_FRAME 256
#endif

/* Never returns. `memory` holds workspace, state, inputs, outputs and frames. */
void sparrow_serve_uart(const sparrow_uart *uart, const sparrow_model_info *info,
                        int (*run)(const sparrow_call *), int (*reset)(void *, const void *),
                        void *memory, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
