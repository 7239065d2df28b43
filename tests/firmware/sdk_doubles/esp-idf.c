/* A test double of ESP-IDF: a UART driver over FIFOs, a timer that notifies a task, a servo with a potentiometer. Not
 * ESP-IDF: what this proves is the port's own logic. */
#include <string.h>

#include "bench.h"
#include "bootloader_random.h"
#include "driver/gpio.h"
#include "driver/ledc.h"
#include "driver/uart.h"
#include "esp_adc/adc_oneshot.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_task_wdt.h"
#include "esp_timer.h"

#define FIFO 128
#define US_PER_BYTE 10

void app_main(void);

static uint32_t random_number, random_errors, timeout_ms, notified;
static int noisy, stages, subscribed;

/* ---- the test's side ---- */

void double_random(uint32_t number, uint32_t errors) {
  random_number = number;
  random_errors = errors;
}

/* 1: the task watchdog is not yet set up when the application starts; 2: it is. */
void double_watchdog_stages(int n) { stages = n; }

void bench_firmware(void) {
  bench.position = 32768;
  app_main();
}

/* ---- UART: one byte each way in 10 us, with 128 in the hardware ---- */

static uint8_t rx[FIFO + 4096], tx_fifo[FIFO];
static uint32_t rx_n, rx_room, tx_n;

static void serve_uart(void) {
  if (bench.us % US_PER_BYTE) return;
  if (bench.rx_n) { /* what finds no room is lost */
    if (rx_n < rx_room + FIFO) rx[rx_n++] = bench.rx[0];
    memmove(bench.rx, bench.rx + 1, --bench.rx_n);
  }
  if (tx_n && !bench.deaf) {
    bench.tx[bench.tx_n++] = tx_fifo[0];
    memmove(tx_fifo, tx_fifo + 1, --tx_n);
  }
}

esp_err_t uart_driver_install(uart_port_t uart_num, int rx_buffer_size, int tx_buffer_size, int queue_size,
                              QueueHandle_t *uart_queue, int intr_alloc_flags) {
  (void)uart_num;
  (void)queue_size;
  (void)uart_queue;
  (void)intr_alloc_flags;
  bench_call("uart_driver_install");
  if (rx_buffer_size <= FIFO || tx_buffer_size != 0) return ESP_FAIL; /* uart_tx_chars is for no buffer only */
  rx_room = (uint32_t)rx_buffer_size;
  return ESP_OK;
}
esp_err_t uart_param_config(uart_port_t uart_num, const uart_config_t *uart_config) {
  (void)uart_num;
  return uart_config->baud_rate == 1000000 ? ESP_OK : ESP_FAIL;
}
esp_err_t uart_set_pin(uart_port_t uart_num, int tx_io_num, int rx_io_num, int rts_io_num, int cts_io_num) {
  (void)uart_num;
  return tx_io_num == 21 && rx_io_num == 20 && rts_io_num < 0 && cts_io_num < 0 ? ESP_OK : ESP_FAIL;
}
int uart_tx_chars(uart_port_t uart_num, const char *buffer, uint32_t len) {
  const uint32_t n = len < FIFO - tx_n ? len : FIFO - tx_n;
  (void)uart_num;
  memcpy(tx_fifo + tx_n, buffer, n);
  tx_n += n;
  return (int)n;
}
int uart_read_bytes(uart_port_t uart_num, void *buf, uint32_t length, TickType_t ticks_to_wait) {
  const uint32_t n = length < rx_n ? length : rx_n;
  (void)uart_num;
  if (ticks_to_wait) return -1; /* it may not wait */
  memcpy(buf, rx, n);
  memmove(rx, rx + n, rx_n -= n);
  return (int)n;
}

/* ---- time, tasks ---- */

static esp_timer_cb_t callback;
static uint32_t period, started;

esp_err_t esp_timer_create(const esp_timer_create_args_t *create_args, esp_timer_handle_t *out_handle) {
  callback = create_args->callback;
  *out_handle = 0;
  return ESP_OK;
}
esp_err_t esp_timer_start_periodic(esp_timer_handle_t timer, uint64_t period_us) {
  (void)timer;
  period = (uint32_t)period_us;
  started = bench.us;
  return ESP_OK;
}
int64_t esp_timer_get_time(void) {
  bench_spend(1);
  return bench.us;
}
TaskHandle_t xTaskGetCurrentTaskHandle(void) { return (TaskHandle_t)&notified; }
void vTaskPrioritySet(TaskHandle_t xTask, UBaseType_t uxNewPriority) {
  (void)xTask;
  (void)uxNewPriority;
}
BaseType_t xTaskNotifyGive(TaskHandle_t xTaskToNotify) {
  if (xTaskToNotify == (TaskHandle_t)&notified) notified++;
  return pdTRUE;
}
uint32_t ulTaskNotifyTake(BaseType_t xClearCountOnExit, TickType_t xTicksToWait) {
  uint32_t n;
  (void)xTicksToWait;
  while (!notified) bench_spend(1);
  n = notified;
  notified = xClearCountOnExit ? 0 : n - 1;
  return n;
}

/* ---- watchdog, reset, random numbers ---- */

static esp_err_t watch(const esp_task_wdt_config_t *config) {
  timeout_ms = config->timeout_ms;
  return config->trigger_panic && config->idle_core_mask == 0 ? ESP_OK : ESP_FAIL;
}
esp_err_t esp_task_wdt_init(const esp_task_wdt_config_t *config) {
  bench_call("esp_task_wdt_init");
  return stages == 2 ? ESP_ERR_INVALID_STATE : watch(config);
}
esp_err_t esp_task_wdt_reconfigure(const esp_task_wdt_config_t *config) {
  return stages == 2 ? watch(config) : ESP_ERR_INVALID_STATE;
}
esp_err_t esp_task_wdt_add(TaskHandle_t task_handle) {
  (void)task_handle;
  bench_call("esp_task_wdt_add");
  subscribed = 1;
  bench.kicked_at = bench.us;
  return ESP_OK;
}
esp_err_t esp_task_wdt_reset(void) {
  bench.kicks++;
  bench.kicked_at = bench.us;
  return ESP_OK;
}
esp_reset_reason_t esp_reset_reason(void) { return (esp_reset_reason_t)bench.reset_flags; }
void bootloader_random_enable(void) { noisy = 1; }
void bootloader_random_disable(void) { noisy = 0; }
uint32_t esp_random(void) {
  bench_call("esp_random");
  bench_spend(10);
  if (!noisy || (random_errors && random_errors--)) return 0;
  return random_number;
}

/* ---- the servo ---- */

static uint32_t duty, next_duty;

void bench_time_passes(void) {
  serve_uart();
  if (callback && period && bench.us - started >= period) {
    started += period;
    callback(0);
  }
  if (subscribed && bench.us - bench.kicked_at == timeout_ms * 1000) esp_task_wdt_isr_user_handler();
  if (!bench.driven || bench.us % 100 || !duty) return;
  { /* at most 30 raw in 100 us */
    const int32_t far = (int32_t)(((duty << 16) - 26843546u) / 1638u) - bench.position;
    bench.position += far > 30 ? 30 : far < -30 ? -30 : far;
  }
}

esp_err_t gpio_config(const gpio_config_t *pGPIOConfig) { return pGPIOConfig->pin_bit_mask ? ESP_OK : ESP_FAIL; }
esp_err_t gpio_set_level(gpio_num_t gpio_num, uint32_t level) {
  if (level) bench_output();
  if (gpio_num == GPIO_NUM_7) {
    bench.driven = level != 0;
    bench_call(level ? "on" : "off");
  }
  return ESP_OK;
}
int gpio_get_level(gpio_num_t gpio_num) { return gpio_num == GPIO_NUM_5 && bench.stop; }
esp_err_t ledc_timer_config(const ledc_timer_config_t *timer_conf) {
  return timer_conf->freq_hz == 50 && timer_conf->duty_resolution == 14 ? ESP_OK : ESP_FAIL;
}
esp_err_t ledc_channel_config(const ledc_channel_config_t *ledc_conf) { return ledc_conf->duty ? ESP_FAIL : ESP_OK; }
esp_err_t ledc_set_duty(ledc_mode_t speed_mode, ledc_channel_t channel, uint32_t d) {
  (void)speed_mode;
  (void)channel;
  bench_output();
  next_duty = d;
  return ESP_OK;
}
esp_err_t ledc_update_duty(ledc_mode_t speed_mode, ledc_channel_t channel) {
  (void)speed_mode;
  (void)channel;
  duty = next_duty;
  return ESP_OK;
}
esp_err_t adc_oneshot_new_unit(const adc_oneshot_unit_init_cfg_t *init_config, adc_oneshot_unit_handle_t *ret_unit) {
  static int unit;
  (void)init_config;
  if (noisy) return ESP_FAIL; /* the generator uses the ADC */
  *ret_unit = (adc_oneshot_unit_handle_t)&unit;
  return ESP_OK;
}
esp_err_t adc_oneshot_config_channel(adc_oneshot_unit_handle_t handle, adc_channel_t channel,
                                     const adc_oneshot_chan_cfg_t *config) {
  (void)channel;
  return handle && config->bitwidth == 12 ? ESP_OK : ESP_FAIL;
}
esp_err_t adc_oneshot_read(adc_oneshot_unit_handle_t handle, adc_channel_t chan, int *out_raw) {
  (void)chan;
  if (!handle) return ESP_FAIL;
  *out_raw = bench.position / 16;
  return ESP_OK;
}
