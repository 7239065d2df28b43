/* A test double of Zephyr: a UART with a FIFO and its interrupt, a timer, a servo with a potentiometer. Not Zephyr:
 * what this proves is the port's own logic. */
#include <errno.h>
#include <string.h>

#include "bench.h"
#include <zephyr/device.h>
#include <zephyr/drivers/adc.h>
#include <zephyr/drivers/gpio.h>
#include <zephyr/drivers/hwinfo.h>
#include <zephyr/drivers/pwm.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/drivers/watchdog.h>
#include <zephyr/kernel.h>
#include <zephyr/random/random.h>
#include <zephyr/sys/ring_buffer.h>

#define FIFO 8
#define US_PER_BYTE 10

int main(void);

const struct device device_kizzasi_uart, device_watchdog0, device_pwm, device_adc, device_gpio;

static uint32_t random_number, random_errors, timeout_ms, hz = 170000000;
static int stages = 2;
static wdt_callback_t bite;

/* ---- the test's side ---- */

void double_random(uint32_t number, uint32_t errors) {
  random_number = number;
  random_errors = errors;
}

/* 1: the watchdog only resets; 2: it interrupts first. */
void double_watchdog_stages(int n) { stages = n; }

void double_cycles(uint32_t per_second) { hz = per_second; }

void bench_firmware(void) {
  bench.position = 32768;
  main();
}

/* ---- UART ---- */

static uart_irq_callback_user_data_t callback;
static uint8_t rx_fifo[FIFO], tx_fifo[FIFO];
static int rx_n, tx_n, rx_on, tx_on;

static void serve_uart(void) {
  if (bench.us % US_PER_BYTE == 0) {
    if (bench.rx_n) { /* what the FIFO does not hold is lost */
      if (rx_n < FIFO) rx_fifo[rx_n++] = bench.rx[0];
      memmove(bench.rx, bench.rx + 1, --bench.rx_n);
    }
    if (tx_n && !bench.deaf) {
      bench.tx[bench.tx_n++] = tx_fifo[0];
      memmove(tx_fifo, tx_fifo + 1, (size_t)--tx_n);
    }
  }
  if (callback && uart_irq_is_pending(&device_kizzasi_uart)) callback(&device_kizzasi_uart, NULL);
}

int uart_irq_callback_user_data_set(const struct device *dev, uart_irq_callback_user_data_t cb, void *user_data) {
  (void)dev;
  (void)user_data;
  bench_call("uart_irq_callback_user_data_set");
  callback = cb;
  return 0;
}
int uart_fifo_fill(const struct device *dev, const uint8_t *tx_data, int size) {
  const int n = size < FIFO - tx_n ? size : FIFO - tx_n;
  (void)dev;
  memcpy(tx_fifo + tx_n, tx_data, (size_t)n);
  tx_n += n;
  return n;
}
int uart_fifo_read(const struct device *dev, uint8_t *rx_data, const int size) {
  const int n = size < rx_n ? size : rx_n;
  (void)dev;
  memcpy(rx_data, rx_fifo, (size_t)n);
  memmove(rx_fifo, rx_fifo + n, (size_t)(rx_n -= n));
  return n;
}
void uart_irq_tx_enable(const struct device *dev) { tx_on = dev != NULL; }
void uart_irq_tx_disable(const struct device *dev) { tx_on = dev == NULL; }
int uart_irq_tx_ready(const struct device *dev) { return dev && tx_on && tx_n < FIFO; }
void uart_irq_rx_enable(const struct device *dev) { rx_on = dev != NULL; }
int uart_irq_rx_ready(const struct device *dev) { return dev && rx_on && rx_n > 0; }
int uart_irq_is_pending(const struct device *dev) { return uart_irq_rx_ready(dev) || uart_irq_tx_ready(dev); }
int uart_irq_update(const struct device *dev) { return dev != NULL; }

/* ---- ring buffers ---- */

uint32_t ring_buf_put(struct ring_buf *b, const uint8_t *data, uint32_t size) {
  uint32_t n = 0;
  for (; n < size && b->put - b->got < b->size; ++n) b->buffer[b->put++ % b->size] = data[n];
  return n;
}
uint32_t ring_buf_get(struct ring_buf *b, uint8_t *data, uint32_t size) {
  uint32_t n = 0;
  for (; n < size && b->got != b->put; ++n) data[n] = b->buffer[b->got++ % b->size];
  return n;
}
uint32_t ring_buf_space_get(const struct ring_buf *b) { return b->size - (b->put - b->got); }
uint32_t ring_buf_get_claim(struct ring_buf *b, uint8_t **data, uint32_t size) {
  const uint32_t at = b->got % b->size, to_end = b->size - at, n = b->put - b->got;
  *data = b->buffer + at;
  b->claimed = n < to_end ? n : to_end;
  if (b->claimed > size) b->claimed = size;
  return b->claimed;
}
int ring_buf_get_finish(struct ring_buf *b, uint32_t size) {
  if (size > b->claimed) return -EINVAL;
  b->got += size;
  b->claimed = 0;
  return 0;
}

/* ---- time, watchdog, random numbers ---- */

uint32_t k_cycle_get_32(void) {
  bench_spend(1);
  return (uint32_t)((uint64_t)bench.us * hz / 1000000);
}
int sys_clock_hw_cycles_per_sec(void) { return (int)hz; }

static struct k_timer *running;

void k_timer_start(struct k_timer *timer, k_timeout_t duration, k_timeout_t period) {
  (void)duration;
  timer->period = (uint32_t)period.ticks;
  timer->started = bench.us;
  timer->status = 0;
  running = timer;
}
uint32_t k_timer_status_sync(struct k_timer *timer) {
  uint32_t n;
  while (!timer->status) bench_spend(1);
  n = timer->status;
  timer->status = 0;
  return n;
}

int wdt_install_timeout(const struct device *dev, const struct wdt_timeout_cfg *cfg) {
  (void)dev;
  bench_call("wdt_install_timeout");
  if (cfg->callback && stages == 1) return -ENOTSUP;
  bite = cfg->callback;
  timeout_ms = cfg->window.max;
  return 3;
}
int wdt_setup(const struct device *dev, uint8_t options) {
  (void)dev;
  (void)options;
  bench_call("wdt_setup");
  bench.kicked_at = bench.us;
  return 0;
}
int wdt_feed(const struct device *dev, int channel_id) {
  (void)dev;
  if (channel_id != 3) return -EINVAL;
  bench.kicks++;
  bench.kicked_at = bench.us;
  return 0;
}

int hwinfo_get_reset_cause(uint32_t *cause) {
  *cause = bench.reset_flags;
  return bench.reset_flags == 0xFFFFFFFFu ? -ENOSYS : 0;
}
int hwinfo_clear_reset_cause(void) {
  bench.reset_flags = 0;
  return 0;
}
int sys_csrand_get(void *dst, size_t len) {
  bench_call("sys_csrand_get");
  bench_spend(10);
  if (random_errors && random_errors--) return -EIO;
  memcpy(dst, &random_number, len);
  return 0;
}

/* ---- the servo ---- */

static uint32_t pulse_ns;

void bench_time_passes(void) {
  serve_uart();
  if (running && bench.us - running->started >= running->period) {
    running->started += running->period;
    running->status++;
  }
  if (bite && bench.us - bench.kicked_at == timeout_ms * 1000) bite(&device_watchdog0, 3);
  if (!bench.driven || bench.us % 100 || !pulse_ns) return;
  { /* at most 30 raw in 100 us */
    const int32_t far = (int32_t)((pulse_ns - 500000u) * 1000u / 30518u) - bench.position;
    bench.position += far > 30 ? 30 : far < -30 ? -30 : far;
  }
}

bool device_is_ready(const struct device *dev) { return dev != NULL; }
bool pwm_is_ready_dt(const struct pwm_dt_spec *spec) { return spec != NULL; }
bool adc_is_ready_dt(const struct adc_dt_spec *spec) { return spec != NULL; }
bool gpio_is_ready_dt(const struct gpio_dt_spec *spec) { return spec != NULL; }
int adc_channel_setup_dt(const struct adc_dt_spec *spec) { return spec == NULL; }
int adc_sequence_init_dt(const struct adc_dt_spec *spec, struct adc_sequence *seq) {
  seq->channels = (uint32_t)BIT(spec->channel_id);
  seq->resolution = 12;
  return 0;
}
int adc_read_dt(const struct adc_dt_spec *spec, const struct adc_sequence *sequence) {
  const int16_t sample = (int16_t)(bench.position / 16);
  if (sequence->channels != BIT(spec->channel_id) || sequence->buffer_size < sizeof sample) return -EINVAL;
  memcpy(sequence->buffer, &sample, sizeof sample);
  return 0;
}
int gpio_pin_configure_dt(const struct gpio_dt_spec *spec, gpio_flags_t extra_flags) {
  if (spec->pin == pin_power_gpios && extra_flags == GPIO_OUTPUT_INACTIVE) bench_call("off");
  return 0;
}
int gpio_pin_get_dt(const struct gpio_dt_spec *spec) { return spec->pin == pin_stop_gpios && bench.stop; }
int gpio_pin_set_dt(const struct gpio_dt_spec *spec, int value) {
  if (value) bench_output();
  if (spec->pin == pin_power_gpios) bench.driven = value != 0;
  if (value) bench_call("on");
  return 0;
}
int pwm_set_pulse_dt(const struct pwm_dt_spec *spec, uint32_t pulse) {
  (void)spec;
  bench_output();
  pulse_ns = pulse;
  return 0;
}
