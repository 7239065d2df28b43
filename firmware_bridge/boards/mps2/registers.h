/* The peripherals of Arm's MPS2+ FPGA images AN385 (Cortex-M3) and AN386 (Cortex-M4) that this board uses: those of the
 * Cortex-M System Design Kit (CMSDK), all clocked at 25 MHz. */
#ifndef KZ_MPS2_REGISTERS_H
#define KZ_MPS2_REGISTERS_H

#include <stdint.h>

#define CLOCK_MHZ 25u

typedef volatile uint32_t reg;

typedef struct {
  reg ctrl, value, reload, intclear;
} timer_regs;
#define TIMER0 ((timer_regs *)0x40000000u)
#define TIMER1 ((timer_regs *)0x40001000u)
#define TIMER_ENABLE 1u
#define TIMER_INTERRUPT 8u

typedef struct {
  reg data, state, ctrl, intclear, bauddiv;
} uart_regs;
#define UART0 ((uart_regs *)0x40004000u)
#define UART1 ((uart_regs *)0x40005000u)
#define UART_TX_FULL 1u
#define UART_RX_FULL 2u
#define UART_ALL_ON 15u /* transmitter, receiver and their interrupts */

typedef struct {
  reg load, value, ctrl, intclear;
} watchdog_regs;
#define WATCHDOG ((watchdog_regs *)0x40008000u)
#define WATCHDOG_LOCK (*(reg *)0x40008C00u)
#define WATCHDOG_KEY 0x1ACCE551u
#define WATCHDOG_INTERRUPT_AND_RESET 3u

#define RSTINFO (*(reg *)0x4001F010u) /* why the last reset happened; write ones to clear. QEMU reads it as 0 */
#define RSTINFO_SOFTWARE 1u
#define RSTINFO_WATCHDOG 2u
#define RSTINFO_LOCKUP 4u

#define LEDS (*(reg *)0x40028000u)
#define BUTTONS (*(reg *)0x40028008u)

enum { IRQ_UART0_RX, IRQ_UART0_TX, IRQ_UART1_RX, IRQ_UART1_TX, IRQ_TIMER1 = 9 };
#define NVIC_ENABLE (*(reg *)0xE000E100u)
#define NVIC_PEND (*(reg *)0xE000E200u)
#define FPU_ACCESS (*(reg *)0xE000ED88u)

#endif
