/* The requests of serve.h over a serial line that may lose, change or invent bytes; the client is
 * device/serial.py.
 *
 * A frame is END, body, END, where the body's bytes END, ESCAPE, XON and XOFF are written as ESCAPE
 * and the byte with bit 5 turned. A body is a kind, a number, data, and the CRC-32 of these. Only
 * the client acts: it sends a frame, again and again, until it sees the answer of the same number.
 *
 *   client           board
 *   HELLO            HELLO      a new client: version, most data bytes of a frame (2), clock (1)
 *   DATA  request    ACK
 *   POLL             DATA       the next part of the answer
 *
 * A frame whose number is that of the last one is answered with the last answer, so the board needs
 * no clock. It answers FAILED with a message where it cannot go on, NOTHING where it expects another
 * kind. A client that went away in the middle leaves a request that reads zeros and answers nobody. */
#include "serve_uart.h"

static void sys_read_all(void *data, uint64_t n);
static void sys_write_all(int file, const void *data, uint64_t n);
static void *sys_allocate(uint64_t n);
static __attribute__((noreturn)) void sys_die(const char *message);

#include "serve.h"

enum { END = 0x7E, ESCAPE = 0x7D, TURN = 0x20, XON = 0x11, XOFF = 0x13 };
enum { HELLO = 'H', DATA = 'D', POLL = 'P', ACK = 'A', NOTHING = 'N', FAILED = 'F' };
enum { LINK_VERSION = 1, BODY = SPARROW_UART_FRAME + 6 };

typedef struct uart_link {
  const sparrow_uart *uart;
  unsigned char *next, *limit; /* of the memory that is left */
  uint32_t n_in, n_out, n_pending, at;
  int answered; /* whether `out` is the answer to some frame */
  int restart;  /* a new client waits for its HELLO */
  unsigned char in[BODY], out[BODY], pending[SPARROW_UART_FRAME];
} uart_link;

static uart_link *the_link;

static uint32_t link_crc(const unsigned char *data, uint32_t n) {
  static const uint32_t table[16] = {
      0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
      0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
  uint32_t crc = 0xFFFFFFFFu;
  for (uint32_t i = 0; i < n; ++i) {
    crc = table[(crc ^ data[i]) & 15u] ^ (crc >> 4);
    crc = table[(crc ^ (uint32_t)(data[i] >> 4)) & 15u] ^ (crc >> 4);
  }
  return ~crc;
}

static void link_send(void) {
  const uart_link *l = the_link;
  l->uart->put(END);
  for (uint32_t i = 0; i < l->n_out; ++i) {
    const int b = l->out[i];
    const int special = b == END || b == ESCAPE || b == XON || b == XOFF;
    if (special) l->uart->put(ESCAPE);
    l->uart->put(special ? b ^ TURN : b);
  }
  l->uart->put(END);
}

/* Answers the frame in `in`. */
static void link_answer(int kind, const unsigned char *data, uint32_t n) {
  uart_link *l = the_link;
  l->out[0] = (unsigned char)kind;
  l->out[1] = l->in[1];
  for (uint32_t i = 0; i < n; ++i) l->out[2 + i] = data[i];
  const uint32_t crc = link_crc(l->out, 2 + n);
  for (uint32_t i = 0; i < 4; ++i) l->out[2 + n + i] = (unsigned char)(crc >> 8 * i);
  l->n_out = 6 + n;
  l->answered = 1;
  link_send();
}

/* Whether the body in `in` is whole; its data are the n_in - 2 bytes from in + 2 on then. */
static int link_whole(void) {
  uart_link *l = the_link;
  if (l->n_in < 6 || l->n_in > BODY) return 0;
  l->n_in -= 4;
  const uint32_t crc = link_crc(l->in, l->n_in);
  for (uint32_t i = 0; i < 4; ++i)
    if (l->in[l->n_in + i] != (unsigned char)(crc >> 8 * i)) return 0;
  return 1;
}

/* The kind of the next frame that was not seen before. */
static int link_receive(void) {
  uart_link *l = the_link;
  for (;;) {
    int escaped = 0;
    l->n_in = 0;
    for (;;) {
      const int b = l->uart->get() & 255;
      if (b == END) {
        if (l->n_in > 0) break;
        escaped = 0;
      } else if (b == ESCAPE) {
        escaped = 1;
      } else {
        if (l->n_in < BODY) l->in[l->n_in] = (unsigned char)(escaped ? b ^ TURN : b);
        l->n_in += l->n_in <= BODY; /* one more than fits stands for any number */
        escaped = 0;
      }
    }
    if (!link_whole()) continue;
    if (l->answered && l->in[1] == l->out[1] && l->in[0] != HELLO) {
      link_send();
      continue;
    }
    return l->in[0];
  }
}

/* Takes a frame while `wanted` is the kind that is of use: 1 when it was of that kind. */
static int link_take(int wanted) {
  uart_link *l = the_link;
  const int kind = link_receive();
  if (kind == HELLO)
    l->restart = 1;
  else if (kind == POLL && l->n_pending > 0) {
    link_answer(DATA, l->pending, l->n_pending);
    l->n_pending = 0;
  } else if (kind == DATA && wanted == DATA && l->n_pending == 0) {
    l->at = 2;
    link_answer(ACK, NULL, 0);
  } else
    link_answer(NOTHING, NULL, 0);
  return kind == wanted;
}

static int link_empty(void) { return the_link->at >= the_link->n_in; }

static void sys_read_all(void *data, uint64_t n) {
  uart_link *l = the_link;
  unsigned char *to = (unsigned char *)data;
  while (n > 0) {
    if (l->restart) {
      *to++ = 0;
      --n;
    } else if (link_empty()) {
      if (!link_take(DATA)) l->at = l->n_in;
    } else {
      *to++ = l->in[l->at++];
      --n;
    }
  }
}

static void sys_write_all(int file, const void *data, uint64_t n) {
  uart_link *l = the_link;
  const unsigned char *from = (const unsigned char *)data;
  (void)file;
  while (n > 0 && !l->restart) {
    if (l->n_pending == SPARROW_UART_FRAME)
      link_take(POLL);
    else {
      l->pending[l->n_pending++] = *from++;
      --n;
    }
  }
  l->at = l->n_in; /* taking a frame overwrote what was read */
}

/* Tells every client, from now on. */
static __attribute__((noreturn)) void sys_die(const char *message) {
  uint32_t n = 0;
  while (message[n] != 0 && n < SPARROW_UART_FRAME) ++n;
  for (;;) {
    link_receive();
    link_answer(FAILED, (const unsigned char *)message, n);
  }
}

static void *sys_allocate(uint64_t n) {
  uart_link *l = the_link;
  unsigned char *p = l->next + (-(uintptr_t)l->next & 63u);
  if (p > l->limit || n > (uint64_t)(l->limit - p))
    sys_die("sparrow_serve_uart was given too little memory for this model");
  l->next = p + n;
  for (uint64_t i = 0; i < n; ++i) p[i] = 0;
  return p;
}

static uint64_t sys_now_ns(void) {
  return the_link->uart->now_ns != NULL ? the_link->uart->now_ns() : 0;
}

static void sys_mark(int step, int begin) { (void)step, (void)begin; }

static uint64_t sys_stack(serve_run run, const sparrow_call *call, int *status) {
  *status = run(call);
  return 0;
}

void sparrow_serve_uart(const sparrow_uart *uart, const sparrow_model_info *info,
                        int (*run)(const sparrow_call *), int (*reset)(void *, const void *),
                        void *memory, size_t bytes) {
  unsigned char *p = (unsigned char *)memory + (-(uintptr_t)memory & 63u);
  unsigned char *limit = (unsigned char *)memory + bytes;
  if (p > limit || (size_t)(limit - p) < sizeof(uart_link))
    for (;;) uart->get(); /* no room even to say so */
  the_link = (uart_link *)(void *)p;
  for (size_t i = 0; i < sizeof(uart_link); ++i) p[i] = 0;
  the_link->uart = uart;
  the_link->next = p + sizeof(uart_link);
  the_link->limit = limit;
  serve_model m = serve_open(info, run, reset);
  unsigned char *const opened = the_link->next;
  for (;;) {
    if (the_link->restart) {
      const unsigned char hello[4] = {LINK_VERSION, SPARROW_UART_FRAME & 255,
                                      SPARROW_UART_FRAME >> 8, uart->now_ns != NULL};
      the_link->restart = 0;
      the_link->n_pending = 0;
      the_link->next = opened; /* weights of the client before */
      link_answer(HELLO, hello, sizeof hello);
      the_link->at = the_link->n_in;
    } else if (!link_empty()) {
      serve_request(&m);
    } else if (!link_take(DATA)) {
      the_link->at = the_link->n_in;
    }
  }
}
