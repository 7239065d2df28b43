/* The watchdog, why the core started, and the number of this boot. */
#ifndef RESET_H
#define RESET_H

#include <stdint.h>

/* A KZ_RESET_ code. Call once. */
uint8_t reset_cause();

/* Differs from boot to boot: a counter in the EEPROM's first four bytes. Call once. */
uint32_t reset_boot_id();

#endif
