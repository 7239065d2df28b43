/* The firmware of a board as a coroutine of the test's process: it lives while the test lets time pass. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

#define BENCH_ROOM 65536

/* What the double of an SDK has to provide. */
void bench_firmware(void);      /* from reset on; may return */
void bench_time_passes(void);   /* `bench.us` has grown: motors move, transfers end, interrupts come */

typedef struct {
  uint32_t us;                  /* virtual time */
  uint32_t kicks, kicked_at;    /* of the watchdog */
  uint32_t reset_flags;         /* as the SDK reports them */
  int32_t position;             /* of the joint, raw */
  uint8_t driven;               /* the joint has torque */
  uint8_t stop;                 /* the stop contact is open */
  uint8_t deaf;                 /* nothing leaves the UART */
  uint8_t hang;                 /* the next output never returns */
  uint8_t returned;             /* the firmware has given up */
  uint32_t rx_n, tx_n;          /* bytes on their way in and out */
  uint8_t rx[BENCH_ROOM], tx[BENCH_ROOM];
  char calls[4096];             /* of the SDK, in order, as far as they fit */
} bench_state;
extern bench_state bench;

/* For the test. */
void bench_boot(void);          /* a reset: the firmware starts with the next bench_run */
void bench_run(uint32_t us);
uint32_t bench_time(void);

/* For the double. */
void bench_spend(uint32_t us);  /* the firmware computes, or waits, for so long */
void bench_call(const char *name);
void bench_output(void);        /* an output is written: hangs, if it is to */

#endif
