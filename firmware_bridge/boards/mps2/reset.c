#include "reset.h"

#include "kz_codes.h"
#include "kz_wire.h"
#include "registers.h"

#define VALID 0x4B5A4D32u

extern struct {
  uint32_t valid, boot_id, watchdog;
} __retained;

extern const uint8_t __bss_end[]; /* beyond it the RAM is as power-up left it */

uint8_t reset_cause(void) {
  const uint32_t info = RSTINFO;
  const int warm = __retained.valid == VALID, watchdog = warm && __retained.watchdog;
  RSTINFO = info;
  __retained.watchdog = 0;
  if (info & (RSTINFO_WATCHDOG | RSTINFO_LOCKUP) || watchdog) return KZ_RESET_WATCHDOG;
  return warm ? KZ_RESET_SOFTWARE : KZ_RESET_POWER_ON;
}

uint32_t reset_boot_id(void) {
  if (__retained.valid != VALID) {
    __retained.valid = VALID;
    __retained.boot_id = kz_crc32(0, __bss_end, 4096);
  }
  return ++__retained.boot_id;
}

void reset_by_watchdog(void) { __retained.watchdog = 1; }
