#include "clock.h"

#include "registers.h"

static volatile uint8_t tick;

void clock_start(uint32_t tick_us) {
  TIMER0->reload = TIMER0->value = 0xFFFFFFFFu;
  TIMER0->ctrl = TIMER_ENABLE;
  TIMER1->reload = TIMER1->value = tick_us * CLOCK_MHZ - 1;
  TIMER1->ctrl = TIMER_ENABLE | TIMER_INTERRUPT;
  NVIC_ENABLE = 1u << IRQ_TIMER1;
}

uint32_t clock_us(void) {
  static uint32_t us, cycles, last;    /* cycles: less than a microsecond, not yet in us */
  const uint32_t now = ~TIMER0->value; /* it counts down */
  const uint32_t passed = now - last + cycles;
  last = now;
  us += passed / CLOCK_MHZ;
  cycles = passed % CLOCK_MHZ;
  return us;
}

void clock_interrupt(void) {
  TIMER1->intclear = 1;
  tick = 1;
}

/* Interrupts are off between the test and the sleep, so none slips through; they still end wfi. */
static void sleep_unless_due(void) {
  __asm volatile("cpsid i");
  if (!tick) __asm volatile("wfi");
  __asm volatile("cpsie i\n isb");
}

void clock_wait(void) {
  while (!tick) sleep_unless_due();
  tick = 0;
}
