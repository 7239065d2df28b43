/* Time is read off TIMER0, which runs freely. TIMER1 only wakes the loop: a wake-up that is late or lost loses no time. */
#ifndef KZ_MPS2_CLOCK_H
#define KZ_MPS2_CLOCK_H

#include <stdint.h>

void clock_start(uint32_t tick_us);

/* Microseconds since clock_start, wrapping at 2^32. To be called at least every 171 s, when TIMER0 wraps. */
uint32_t clock_us(void);

/* Sleep until the next tick begins; return at once if it has begun already. */
void clock_wait(void);

void clock_interrupt(void);

#endif
