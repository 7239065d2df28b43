#include "kizzasi_zephyr.h"

#include <errno.h>
#include <zephyr/device.h>
#include <zephyr/devicetree.h>
#include <zephyr/drivers/hwinfo.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/drivers/watchdog.h>
#include <zephyr/kernel.h>
#include <zephyr/random/random.h>
#include <zephyr/sys/ring_buffer.h>

static const struct device *const uart = DEVICE_DT_GET(DT_ALIAS(kizzasi_uart));
static const struct device *const watchdog = DEVICE_DT_GET(DT_ALIAS(watchdog0));

/* ---- link: each queue has one writer and one reader, which is all that a ring_buf needs ----------------------- */

RING_BUF_DECLARE(kizzasi_rx, CONFIG_KIZZASI_RX_ROOM);
RING_BUF_DECLARE(kizzasi_tx, CONFIG_KIZZASI_TX_ROOM);

static void receive(void) {
  uint8_t chunk[16];
  int n;
  while ((n = uart_fifo_read(uart, chunk, sizeof chunk)) > 0)
    (void)ring_buf_put(&kizzasi_rx, chunk, (uint32_t)n); /* what finds no room is lost, and the CRC tells */
}

static void transmit(void) {
  uint8_t *waiting;
  const uint32_t n = ring_buf_get_claim(&kizzasi_tx, &waiting, CONFIG_KIZZASI_TX_ROOM);
  const int sent = n ? uart_fifo_fill(uart, waiting, (int)n) : 0;
  (void)ring_buf_get_finish(&kizzasi_tx, sent > 0 ? (uint32_t)sent : 0);
  if (n == 0) uart_irq_tx_disable(uart);
}

static void interrupt(const struct device *dev, void *user) {
  ARG_UNUSED(user);
  while (uart_irq_update(dev) && uart_irq_is_pending(dev)) {
    if (uart_irq_rx_ready(dev)) receive();
    if (uart_irq_tx_ready(dev)) transmit();
  }
}

uint16_t kizzasi_zephyr_read(void *ctx, uint8_t *buf, uint16_t room) {
  ARG_UNUSED(ctx);
  return (uint16_t)ring_buf_get(&kizzasi_rx, buf, room);
}

void kizzasi_zephyr_write(void *ctx, const uint8_t *frame, uint16_t n) {
  ARG_UNUSED(ctx);
  if (ring_buf_space_get(&kizzasi_tx) < n) return; /* the whole frame or none of it */
  (void)ring_buf_put(&kizzasi_tx, frame, n);
  uart_irq_tx_enable(uart);
}

/* ---- time ----------------------------------------------------------------------------------------------------- */

K_TIMER_DEFINE(kizzasi_tick, NULL, NULL);

uint32_t kizzasi_zephyr_us(void *ctx) {
  static uint32_t us, last, rest; /* rest: less than a microsecond, in 1/hz of one */
  const uint32_t now = k_cycle_get_32(), hz = (uint32_t)sys_clock_hw_cycles_per_sec();
  const uint64_t passed = (uint64_t)(uint32_t)(now - last) * USEC_PER_SEC + rest;
  ARG_UNUSED(ctx);
  last = now;
  us += (uint32_t)(passed / hz);
  rest = (uint32_t)(passed % hz);
  return us;
}

/* Returns at once if a tick has begun since; of several that were missed it tells nothing. */
void kizzasi_zephyr_idle(void *ctx) {
  ARG_UNUSED(ctx);
  (void)k_timer_status_sync(&kizzasi_tick);
}

int kizzasi_zephyr_start(uint32_t tick_us) {
  int problem;
  if (!device_is_ready(uart)) return -ENODEV;
  problem = uart_irq_callback_user_data_set(uart, interrupt, NULL);
  if (problem) return problem;
  uart_irq_rx_enable(uart);
  k_timer_start(&kizzasi_tick, K_USEC(tick_us), K_USEC(tick_us));
  return 0;
}

/* ---- watchdog, reset ------------------------------------------------------------------------------------------ */

static int channel;
static void (*outputs_off)(void);

static void bites(const struct device *dev, int channel_id) {
  ARG_UNUSED(dev);
  ARG_UNUSED(channel_id);
  outputs_off();
}

int kizzasi_zephyr_watchdog(void (*off)(void)) {
  struct wdt_timeout_cfg timeout = {
      .window = {.min = 0, .max = CONFIG_KIZZASI_WATCHDOG_MS}, .callback = bites, .flags = WDT_FLAG_RESET_SOC};
  outputs_off = off;
  if (!device_is_ready(watchdog)) return -ENODEV;
  channel = wdt_install_timeout(watchdog, &timeout);
  if (channel == -ENOTSUP) { /* it only resets: the outputs must fall off with the reset line */
    timeout.callback = NULL;
    channel = wdt_install_timeout(watchdog, &timeout);
  }
  return channel < 0 ? channel : wdt_setup(watchdog, 0);
}

void kizzasi_zephyr_kick(void *ctx) {
  ARG_UNUSED(ctx);
  (void)wdt_feed(watchdog, channel);
}

/* Most chips set the pin's flag with every reset, so that one comes last. */
uint8_t kizzasi_zephyr_reset_cause(void) {
  uint32_t cause = 0;
  if (hwinfo_get_reset_cause(&cause)) return KZ_RESET_POWER_ON; /* this chip does not tell */
  (void)hwinfo_clear_reset_cause();
  if (cause & (RESET_WATCHDOG | RESET_CPU_LOCKUP)) return KZ_RESET_WATCHDOG;
  if (cause & RESET_POR) return KZ_RESET_POWER_ON;
  if (cause & RESET_BROWNOUT) return KZ_RESET_BROWN_OUT;
  return cause & (RESET_SOFTWARE | RESET_PIN | RESET_DEBUG) ? KZ_RESET_SOFTWARE : KZ_RESET_POWER_ON;
}

uint32_t kizzasi_zephyr_boot_id(void) {
  uint32_t id = 0;
  while (sys_csrand_get(&id, sizeof id) || id == 0) {
  }
  return id;
}
