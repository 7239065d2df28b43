/* Why the core started, and the number of this boot. Both live in RAM that a reset leaves alone. */
#ifndef KZ_MPS2_RESET_H
#define KZ_MPS2_RESET_H

#include <stdint.h>

/* A KZ_RESET_ code. Call once, before reset_boot_id. */
uint8_t reset_cause(void);

/* Differs from boot to boot: a counter across resets, started from what the RAM holds when power comes. */
uint32_t reset_boot_id(void);

/* Note for the next boot; from the watchdog's NMI. */
void reset_by_watchdog(void);

#endif
