/* kizzasi node on ESP-IDF: the port's five functions, and what a boot needs. One link for each chip; its settings are
 * in menuconfig, "kizzasi node". Call everything from one task of high priority. */
#ifndef KIZZASI_ESP_H
#define KIZZASI_ESP_H

#include "esp_err.h"
#include "kz_node.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The task watchdog for the calling task alone. First of all, once the outputs are off. It calls
 * esp_task_wdt_isr_user_handler, which the application defines to cut the outputs, and resets. */
esp_err_t kizzasi_esp_watchdog(void);

/* Starts the link, and a tick of this period for the calling task. */
esp_err_t kizzasi_esp_start(uint32_t tick_us);

/* The five functions of a kz_board. They use no ctx. */
uint16_t kizzasi_esp_read(void *ctx, uint8_t *buf, uint16_t room);
void kizzasi_esp_write(void *ctx, const uint8_t *frame, uint16_t n);
uint32_t kizzasi_esp_us(void *ctx);
void kizzasi_esp_idle(void *ctx);
void kizzasi_esp_kick(void *ctx);

/* A KZ_RESET_ code. */
uint8_t kizzasi_esp_reset_cause(void);

/* A random number from the hardware. Before the ADC, Wi-Fi or Bluetooth are used. */
uint32_t kizzasi_esp_boot_id(void);

#ifdef __cplusplus
}
#endif
#endif
