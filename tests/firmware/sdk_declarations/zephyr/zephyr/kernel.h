/* NOT Zephyr: declarations of what the port and its sample call, written after docs.zephyrproject.org (API 4.x: UART
 * interrupt-driven, ring buffers, watchdog, hwinfo, timers, ADC, GPIO, PWM), so that a compiler checks names, types and
 * arities. Inline functions there are plain ones here, which a test double can answer. */
#ifndef ZEPHYR_KERNEL_H
#define ZEPHYR_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BIT(n) (1UL << (n))
#define ARG_UNUSED(x) (void)(x)
#define USEC_PER_SEC 1000000U

typedef struct {
  int64_t ticks;
} k_timeout_t;
#define K_USEC(t) ((k_timeout_t){.ticks = (t)})

struct k_timer {
  uint32_t period, started, status;
};
typedef void (*k_timer_expiry_t)(struct k_timer *timer);
typedef void (*k_timer_stop_t)(struct k_timer *timer);
#define K_TIMER_DEFINE(name, expiry_fn, stop_fn)                         \
  struct k_timer name;                                                   \
  static k_timer_expiry_t const name##_expiry = expiry_fn;               \
  static k_timer_stop_t const name##_stop = stop_fn;                     \
  __attribute__((unused)) static void const *const name##_uses[] = {&name##_expiry, &name##_stop}
void k_timer_start(struct k_timer *timer, k_timeout_t duration, k_timeout_t period);
uint32_t k_timer_status_sync(struct k_timer *timer);

uint32_t k_cycle_get_32(void);
int sys_clock_hw_cycles_per_sec(void);

#endif
