/* NOT ESP-IDF: declarations of what the port and its example call, written after docs.espressif.com (ESP-IDF
 * Programming Guide v5.3, API Reference: UART, ESP Timer, Watchdogs, Random Number Generation, GPIO, LEDC, ADC Oneshot;
 * FreeRTOS task API), so that a compiler checks names, types and arities. */
#ifndef ESP_ERR_H
#define ESP_ERR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int esp_err_t;
#define ESP_OK 0
#define ESP_FAIL -1
#define ESP_ERR_INVALID_STATE 0x103

#endif
