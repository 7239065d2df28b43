#include "uart.h"

uart uart0, uart1;

void uart_start(uart *u, uart_regs *regs, uint32_t tx_irq, uint32_t baud) {
  u->regs = regs;
  u->tx_irq = tx_irq;
  regs->bauddiv = CLOCK_MHZ * 1000000u / baud; /* at least 16 */
  regs->ctrl = UART_ALL_ON;
  NVIC_ENABLE = 3u << (tx_irq - 1); /* receive and transmit are neighbours */
}

uint16_t uart_read(uart *u, uint8_t *buf, uint16_t room) {
  uint16_t n = 0;
  while (n < room && u->rx_out != u->rx_in) {
    buf[n++] = u->rx[u->rx_out % UART_RX_ROOM];
    u->rx_out++;
  }
  return n;
}

void uart_write(uart *u, const uint8_t *data, uint16_t n) {
  uint16_t in = u->tx_in;
  if (n > UART_TX_ROOM - (uint16_t)(in - u->tx_out)) return;
  while (n--) u->tx[in++ % UART_TX_ROOM] = *data++;
  u->tx_in = in;
  NVIC_PEND = 1u << u->tx_irq; /* only the interrupt talks to the transmitter */
}

/* Both directions at once. A byte that finds no room is lost, and the frame's CRC tells. */
static void interrupt(uart *u) {
  u->regs->intclear = 3;
  while (u->regs->state & UART_RX_FULL) {
    const uint8_t byte = (uint8_t)u->regs->data;
    if ((uint16_t)(u->rx_in - u->rx_out) == UART_RX_ROOM) continue;
    u->rx[u->rx_in % UART_RX_ROOM] = byte;
    u->rx_in++;
  }
  while (u->tx_out != u->tx_in && !(u->regs->state & UART_TX_FULL)) {
    u->regs->data = u->tx[u->tx_out % UART_TX_ROOM];
    u->tx_out++;
  }
}

void uart0_interrupt(void) { interrupt(&uart0); }
void uart1_interrupt(void) { interrupt(&uart1); }
