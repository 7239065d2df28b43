#include "kizzasi_esp.h"

#include "bootloader_random.h"
#include "driver/uart.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_task_wdt.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "sdkconfig.h"

#define PORT ((uart_port_t)CONFIG_KIZZASI_UART_PORT)
#define ROOM CONFIG_KIZZASI_TX_ROOM

/* ---- link: the driver's own queue to the host would wait where it is full, so this one is in front of the FIFO -- */

static uint8_t tx[ROOM];
static uint32_t tx_at, tx_n; /* of the bytes that wait; one task reads and writes them */

/* What the FIFO (128 bytes) takes now; called several times a tick. */
static void transmit(void) {
  while (tx_n) {
    const uint32_t piece = tx_n < ROOM - tx_at ? tx_n : ROOM - tx_at;
    const int sent = uart_tx_chars(PORT, (const char *)&tx[tx_at], piece);
    if (sent <= 0) return;
    tx_at = (tx_at + (uint32_t)sent) % ROOM;
    tx_n -= (uint32_t)sent;
  }
}

uint16_t kizzasi_esp_read(void *ctx, uint8_t *buf, uint16_t room) {
  int n;
  (void)ctx;
  transmit();
  n = uart_read_bytes(PORT, buf, room, 0);
  return (uint16_t)(n > 0 ? n : 0);
}

void kizzasi_esp_write(void *ctx, const uint8_t *frame, uint16_t n) {
  (void)ctx;
  if (n > ROOM - tx_n) return; /* the whole frame or none of it */
  while (n--) tx[(tx_at + tx_n++) % ROOM] = *frame++;
  transmit();
}

/* ---- time ----------------------------------------------------------------------------------------------------- */

static TaskHandle_t task;

static void tick(void *arg) {
  (void)arg;
  xTaskNotifyGive(task);
}

uint32_t kizzasi_esp_us(void *ctx) {
  (void)ctx;
  return (uint32_t)esp_timer_get_time();
}

/* Returns at once if a tick has begun since; of several that were missed it tells nothing. */
void kizzasi_esp_idle(void *ctx) {
  (void)ctx;
  (void)ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
}

esp_err_t kizzasi_esp_start(uint32_t tick_us) {
  const uart_config_t line = {
      .baud_rate = CONFIG_KIZZASI_UART_BAUD,
      .data_bits = UART_DATA_8_BITS,
      .parity = UART_PARITY_DISABLE,
      .stop_bits = UART_STOP_BITS_1,
      .flow_ctrl = UART_HW_FLOWCTRL_DISABLE,
      .source_clk = UART_SCLK_DEFAULT,
  };
  const esp_timer_create_args_t periodic = {.callback = tick, .name = "kizzasi", .skip_unhandled_events = true};
  esp_timer_handle_t timer;
  esp_err_t problem;
  task = xTaskGetCurrentTaskHandle();
  problem = uart_driver_install(PORT, CONFIG_KIZZASI_RX_ROOM, 0, 0, NULL, 0);
  if (problem == ESP_OK) problem = uart_param_config(PORT, &line);
  if (problem == ESP_OK)
    problem =
        uart_set_pin(PORT, CONFIG_KIZZASI_UART_TX, CONFIG_KIZZASI_UART_RX, UART_PIN_NO_CHANGE, UART_PIN_NO_CHANGE);
  if (problem == ESP_OK) problem = esp_timer_create(&periodic, &timer);
  if (problem == ESP_OK) problem = esp_timer_start_periodic(timer, tick_us);
  return problem;
}

/* ---- watchdog, reset ------------------------------------------------------------------------------------------ */

esp_err_t kizzasi_esp_watchdog(void) {
  const esp_task_wdt_config_t how = {.timeout_ms = CONFIG_KIZZASI_WATCHDOG_MS, .trigger_panic = true};
  esp_err_t problem = esp_task_wdt_init(&how);
  if (problem == ESP_ERR_INVALID_STATE) problem = esp_task_wdt_reconfigure(&how); /* the start-up code was first */
  return problem == ESP_OK ? esp_task_wdt_add(NULL) : problem;
}

void kizzasi_esp_kick(void *ctx) {
  (void)ctx;
  (void)esp_task_wdt_reset();
}

uint8_t kizzasi_esp_reset_cause(void) {
  switch (esp_reset_reason()) {
    case ESP_RST_TASK_WDT:
    case ESP_RST_INT_WDT:
    case ESP_RST_WDT:
    case ESP_RST_PANIC: /* it would have hung */
      return KZ_RESET_WATCHDOG;
    case ESP_RST_BROWNOUT:
      return KZ_RESET_BROWN_OUT;
    case ESP_RST_POWERON:
    case ESP_RST_UNKNOWN:
      return KZ_RESET_POWER_ON;
    default:
      return KZ_RESET_SOFTWARE;
  }
}

uint32_t kizzasi_esp_boot_id(void) {
  uint32_t id;
  bootloader_random_enable(); /* without radio the generator has no other noise */
  do {
    id = esp_random();
  } while (id == 0);
  bootloader_random_disable();
  return id;
}
