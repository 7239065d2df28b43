/* kizzasi node on Arm's MPS2+ (AN385, AN386): the port's five functions are one line each. */
#include "clock.h"
#include "kz_node.h"
#include "machine.h"
#include "reset.h"
#include "schema.h"
#include "uart.h"
#include "watchdog.h"

#define BAUD 1000000u

static uint16_t board_read(void *ctx, uint8_t *buf, uint16_t room) {
  (void)ctx;
  return uart_read(&uart0, buf, room);
}

static void board_write(void *ctx, const uint8_t *frame, uint16_t n) {
  (void)ctx;
  uart_write(&uart0, frame, n);
}

static uint32_t board_us(void *ctx) {
  (void)ctx;
  return clock_us();
}

static void board_idle(void *ctx) {
  (void)ctx;
  clock_wait();
}

static void board_kick(void *ctx) {
  (void)ctx;
  watchdog_kick();
}

static const kz_board board = {
    board_read,    board_write, board_us,      board_idle,      board_kick,     machine_actuate,
    machine_sense, schema,      sizeof schema, SCHEMA_CHANNELS, SCHEMA_SENSORS, SCHEMA_TICK_US,
    schema_modes,
};

int main(void) {
  static kz_node node;
  uint8_t cause;
  machine_off();
  watchdog_start();
  cause = reset_cause();
  if (!kz_node_init(&node, &board, 0, reset_boot_id(), cause)) return 1; /* Reset_Handler stays; the watchdog bites */
  uart_start(&uart0, UART0, IRQ_UART0_TX, BAUD);
  uart_start(&uart1, UART1, IRQ_UART1_TX, BAUD);
  clock_start(SCHEMA_TICK_US);
  for (;;) kz_node_poll(&node);
}
