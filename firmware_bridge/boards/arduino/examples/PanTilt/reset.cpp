#include "reset.h"

#include <avr/eeprom.h>
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/wdt.h>

#include "machine.h"

/* RAM that a reset leaves alone. A bootloader may clear MCUSR before the sketch sees it, so the watchdog's interrupt
 * leaves a note here. */
#define KEPT __attribute__((section(".noinit")))
static const uint16_t WARM = 0x4B5A, BITTEN = 0xB17E;
static uint16_t warm KEPT, note KEPT;
static uint8_t flags KEPT;

/* Before main and before anything can hang: the first timeout (64 ms) is the interrupt below, the second the reset. A
 * watchdog reset has left it running at 16 ms. */
void reset_early() __attribute__((naked, used, section(".init3")));
void reset_early() {
  flags = MCUSR;
  MCUSR = 0; /* else WDRF would hold the watchdog in its mode */
  wdt_reset();
  WDTCSR = _BV(WDCE) | _BV(WDE); /* opens it for four cycles */
  WDTCSR = _BV(WDIE) | _BV(WDE) | _BV(WDP1);
}

ISR(WDT_vect) {
  machine_off();
  note = BITTEN;
  for (;;) {
  }
}

uint8_t reset_cause() {
  const bool bitten = note == BITTEN || flags & _BV(WDRF), kept = warm == WARM;
  note = 0;
  warm = WARM;
  if (bitten) return KZ_RESET_WATCHDOG;
  if (flags & _BV(PORF)) return KZ_RESET_POWER_ON;
  if (flags & _BV(BORF)) return KZ_RESET_BROWN_OUT;
  return kept ? KZ_RESET_SOFTWARE : KZ_RESET_POWER_ON; /* the button or DTR; or a bootloader that cleared MCUSR */
}

/* The highest byte first: power that fails in between skips numbers, and repeats none. */
uint32_t reset_boot_id() {
  uint8_t *const at = 0;
  const uint32_t id = eeprom_read_dword((const uint32_t *)at) + 1;
  uint8_t i = 4;
  while (i--) eeprom_update_byte(at + i, (uint8_t)(id >> (8 * i)));
  return id;
}
