/* kizzasi node on Zephyr: the port's five functions, and what a boot needs. One link for each board.
 *
 * The devicetree names the link (alias kizzasi-uart) and the watchdog (alias watchdog0). Call everything from one
 * thread of high priority. */
#ifndef KIZZASI_ZEPHYR_H
#define KIZZASI_ZEPHYR_H

#include "kz_node.h"

#ifdef __cplusplus
extern "C" {
#endif

/* First of all, once the outputs are off. `off` is called from the watchdog's interrupt shortly before it resets, where
 * the hardware has such an interrupt. Returns 0 or a negative errno. */
int kizzasi_zephyr_watchdog(void (*off)(void));

/* Starts the link, and a tick of this period. Returns 0 or a negative errno. */
int kizzasi_zephyr_start(uint32_t tick_us);

/* The five functions of a kz_board. They use no ctx. */
uint16_t kizzasi_zephyr_read(void *ctx, uint8_t *buf, uint16_t room);
void kizzasi_zephyr_write(void *ctx, const uint8_t *frame, uint16_t n);
uint32_t kizzasi_zephyr_us(void *ctx);
void kizzasi_zephyr_idle(void *ctx);
void kizzasi_zephyr_kick(void *ctx);

/* A KZ_RESET_ code; clears the hardware's flags, so that the next reset is not blamed on this one. Call once. */
uint8_t kizzasi_zephyr_reset_cause(void);

/* A random number. Waits for the generator; one that is broken leaves the rest to the watchdog. */
uint32_t kizzasi_zephyr_boot_id(void);

#ifdef __cplusplus
}
#endif
#endif
