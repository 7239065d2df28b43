#include "esp_task_wdt.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "kizzasi_esp.h"
#include "schema.h"
#include "servo.h"

#if SCHEMA_CHANNELS != KZ_NODE_CH || SCHEMA_SENSORS != KZ_NODE_SENSORS
#error "CONFIG_KIZZASI_CHANNELS and CONFIG_KIZZASI_SENSORS are not what board.toml says"
#endif

static const kz_board board = {
    .read = kizzasi_esp_read,
    .write = kizzasi_esp_write,
    .us = kizzasi_esp_us,
    .idle = kizzasi_esp_idle,
    .kick = kizzasi_esp_kick,
    .actuate = servo_actuate,
    .sense = servo_sense,
    .schema = schema,
    .schema_len = sizeof schema,
    .n_channels = SCHEMA_CHANNELS,
    .n_sensors = SCHEMA_SENSORS,
    .tick_us = SCHEMA_TICK_US,
    .modes = schema_modes,
};

/* The task watchdog bites: called before it resets. */
void esp_task_wdt_isr_user_handler(void) { servo_off(); }

/* Torque off first, then the watchdog, then all that may fail or hang. */
void app_main(void) {
  static kz_node node;
  uint32_t boot_id;
  if (servo_init() != ESP_OK || kizzasi_esp_watchdog() != ESP_OK) return; /* nothing is driven */
  vTaskPrioritySet(NULL, configMAX_PRIORITIES - 4); /* below the timer's task, above all others */
  boot_id = kizzasi_esp_boot_id();
  if (servo_start() == ESP_OK && kizzasi_esp_start(SCHEMA_TICK_US) == ESP_OK &&
      kz_node_init(&node, &board, 0, boot_id, kizzasi_esp_reset_cause())) {
    for (;;) kz_node_poll(&node);
  }
  for (;;) { /* the watchdog bites */
  }
}
