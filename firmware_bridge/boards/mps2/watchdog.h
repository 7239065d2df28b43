#ifndef KZ_MPS2_WATCHDOG_H
#define KZ_MPS2_WATCHDOG_H

/* After this long without a kick the outputs go off (NMI), after as long again the core is reset. */
#ifndef WATCHDOG_MS
#define WATCHDOG_MS 20
#endif

void watchdog_start(void);
void watchdog_kick(void);

#endif
