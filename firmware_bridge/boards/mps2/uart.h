/* A CMSDK UART with a queue each way. The hardware holds one byte, hence the interrupts. */
#ifndef KZ_MPS2_UART_H
#define KZ_MPS2_UART_H

#include "registers.h"

#define UART_RX_ROOM 512u /* powers of two; 5 ms and 20 ms at 1 Mbaud */
#define UART_TX_ROOM 2048u

typedef struct {
  uart_regs *regs;
  uint32_t tx_irq;
  /* Each index has one writer, the bytes lie between: no locks. They run freely and are taken modulo the room. */
  volatile uint16_t rx_in, rx_out, tx_in, tx_out;
  volatile uint8_t rx[UART_RX_ROOM], tx[UART_TX_ROOM];
} uart;

extern uart uart0, uart1;

void uart_start(uart *u, uart_regs *regs, uint32_t tx_irq, uint32_t baud);

/* At most `room` bytes that have arrived. */
uint16_t uart_read(uart *u, uint8_t *buf, uint16_t room);

/* Queues all of `data`, or nothing when there is no room. */
void uart_write(uart *u, const uint8_t *data, uint16_t n);

void uart0_interrupt(void);
void uart1_interrupt(void);

#endif
