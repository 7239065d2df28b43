/* From reset to main, and the vectors. */
#include <stdint.h>
#include <string.h>

#include "clock.h"
#include "machine.h"
#include "registers.h"
#include "reset.h"
#include "uart.h"

extern uint32_t __stack_top[], __data_load[], __data_start[], __data_end[], __bss_start[], __bss_end[];

int main(void);
void Reset_Handler(void);

void Reset_Handler(void) {
#ifdef __ARM_FP
  FPU_ACCESS |= 0xFu << 20;
  __asm volatile("dsb\n isb");
#endif
  memcpy(__data_start, __data_load, (uint32_t)__data_end - (uint32_t)__data_start);
  memset(__bss_start, 0, (uint32_t)__bss_end - (uint32_t)__bss_start);
  main();
  for (;;) {
  }
}

/* Whatever went wrong: nothing stays driven, and the watchdog does the rest. */
static void fault(void) {
  machine_off();
  for (;;) {
  }
}

/* The first timeout of the watchdog is the NMI, the second the reset. */
static void watchdog_bites(void) {
  reset_by_watchdog();
  fault();
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16 + 16])(void) = {
    (void (*)(void))__stack_top,
    Reset_Handler,
    watchdog_bites, /* NMI */
    fault,          /* HardFault; the configurable faults end here too */
    [16 + IRQ_UART0_RX] = uart0_interrupt,
    [16 + IRQ_UART0_TX] = uart0_interrupt,
    [16 + IRQ_UART1_RX] = uart1_interrupt,
    [16 + IRQ_UART1_TX] = uart1_interrupt,
    [16 + IRQ_TIMER1] = clock_interrupt,
};
