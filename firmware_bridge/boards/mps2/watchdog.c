#include "watchdog.h"

#include "registers.h"

/* Locked but for these moments: code that runs astray cannot switch it off. */
void watchdog_start(void) {
  WATCHDOG_LOCK = WATCHDOG_KEY;
  WATCHDOG->load = WATCHDOG_MS * 1000u * CLOCK_MHZ;
  WATCHDOG->ctrl = WATCHDOG_INTERRUPT_AND_RESET;
  WATCHDOG_LOCK = 0;
}

void watchdog_kick(void) {
  WATCHDOG_LOCK = WATCHDOG_KEY;
  WATCHDOG->intclear = 1;
  WATCHDOG_LOCK = 0;
}
