/* kizzasi node over ST's HAL: the port's five functions, and what a boot needs. One link for each microcontroller.
 *
 * The handles are those that CubeMX makes; README.md says how to set them. Call everything from the main loop, but
 * kizzasi_stm32_sent, which belongs into the HAL's callback. */
#ifndef KIZZASI_STM32_H
#define KIZZASI_STM32_H

#include "kz_node.h"
#include "main.h" /* CubeMX's: includes the HAL of the family at hand */

#ifdef __cplusplus
extern "C" {
#endif

/* Powers of two. Receive: what comes in two ticks. Transmit: the longest burst, one STATE and an answer, twice. */
#ifndef KIZZASI_RX_ROOM
#define KIZZASI_RX_ROOM 512u
#endif
#ifndef KIZZASI_TX_ROOM
#define KIZZASI_TX_ROOM 1024u
#endif

/* Where the queues lie: an attribute, for cores whose cache or bus the DMA does not share. */
#ifndef KIZZASI_DMA_MEMORY
#define KIZZASI_DMA_MEMORY
#endif

typedef struct {
  UART_HandleTypeDef *uart;     /* DMA: receive circular, transmit normal */
  TIM_HandleTypeDef *clock;     /* counts microseconds, freely, over all its 16 or 32 bits */
  IWDG_HandleTypeDef *watchdog; /* shorter than the TTL; with a clock of 16 bits, than 65 ms */
  uint32_t tick_us;
} kizzasi_stm32;

/* Starts clock and receiver; the watchdog runs since CubeMX's MX_IWDG_Init. 0 if the HAL refuses. */
int kizzasi_stm32_start(const kizzasi_stm32 *port);

/* The five functions of a kz_board. They use no ctx. */
uint16_t kizzasi_stm32_read(void *ctx, uint8_t *buf, uint16_t room);
void kizzasi_stm32_write(void *ctx, const uint8_t *frame, uint16_t n);
uint32_t kizzasi_stm32_us(void *ctx);
void kizzasi_stm32_idle(void *ctx);
void kizzasi_stm32_kick(void *ctx);

/* To be called from HAL_UART_TxCpltCallback. */
void kizzasi_stm32_sent(UART_HandleTypeDef *uart);

/* A KZ_RESET_ code; clears the flags, so that the next reset is not blamed on this one. Call once. */
uint8_t kizzasi_stm32_reset_cause(void);

#ifdef HAL_RNG_MODULE_ENABLED
/* A random number. Waits for the generator; one that is broken leaves the rest to the watchdog. */
uint32_t kizzasi_stm32_boot_id(RNG_HandleTypeDef *rng);
#endif

#ifdef __cplusplus
}
#endif
#endif
