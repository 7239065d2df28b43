#include "kizzasi_stm32.h"

static const kizzasi_stm32 *port;

/* ---- receive: the DMA goes round and round, `taken` follows it ---------------------------------------------- */

KIZZASI_DMA_MEMORY static volatile uint8_t rx[KIZZASI_RX_ROOM];
static uint16_t taken;

static int receive(void) {
  taken = 0;
  return HAL_UART_Receive_DMA(port->uart, (uint8_t *)rx, sizeof rx) == HAL_OK;
}

/* The HAL ends reception at the first framing, noise or overrun error, of which a cable that is plugged has plenty. */
static int stopped(void) {
  return port->uart->RxState == HAL_UART_STATE_READY && port->uart->hdmarx->State == HAL_DMA_STATE_READY;
}

uint16_t kizzasi_stm32_read(void *ctx, uint8_t *buf, uint16_t room) {
  uint16_t n = 0, arrived;
  (void)ctx;
  if (stopped()) (void)receive(); /* what was not yet taken is lost, and the CRC tells */
  arrived = (uint16_t)(KIZZASI_RX_ROOM - __HAL_DMA_GET_COUNTER(port->uart->hdmarx));
  while (n < room && taken != arrived % KIZZASI_RX_ROOM) {
    buf[n++] = rx[taken];
    taken = (uint16_t)((taken + 1u) % KIZZASI_RX_ROOM);
  }
  return n;
}

/* ---- transmit: a queue, whose contiguous pieces the DMA sends one after the other --------------------------- */

KIZZASI_DMA_MEMORY static uint8_t tx[KIZZASI_TX_ROOM];
static volatile uint16_t tx_in, tx_out; /* free-running */
static uint16_t sending;                /* bytes from tx_out on that are with the DMA */

/* With interrupts off, or from the HAL's. A transfer that ended in an error counts as sent: the CRC tells. */
static void send_next(void) {
  const uint16_t at = (uint16_t)((uint16_t)(tx_out + sending) % KIZZASI_TX_ROOM);
  uint16_t waiting;
  if (port->uart->gState != HAL_UART_STATE_READY) return;
  tx_out = (uint16_t)(tx_out + sending);
  waiting = (uint16_t)(tx_in - tx_out);
  sending = waiting < KIZZASI_TX_ROOM - at ? waiting : (uint16_t)(KIZZASI_TX_ROOM - at);
  if (sending && HAL_UART_Transmit_DMA(port->uart, &tx[at], sending) != HAL_OK) sending = 0;
}

void kizzasi_stm32_sent(UART_HandleTypeDef *uart) {
  if (port && uart == port->uart) send_next();
}

void kizzasi_stm32_write(void *ctx, const uint8_t *frame, uint16_t n) {
  uint16_t in = tx_in;
  uint32_t masked;
  (void)ctx;
  if (n > KIZZASI_TX_ROOM - (uint16_t)(in - tx_out)) return; /* the whole frame or none of it */
  while (n--) tx[in++ % KIZZASI_TX_ROOM] = *frame++;
  masked = __get_PRIMASK();
  __disable_irq();
  tx_in = in;
  send_next();
  __set_PRIMASK(masked);
}

/* ---- time --------------------------------------------------------------------------------------------------- */

static uint32_t us, counted, began;

uint32_t kizzasi_stm32_us(void *ctx) {
  const uint32_t now = __HAL_TIM_GET_COUNTER(port->clock);
  (void)ctx;
  us += (now - counted) & port->clock->Init.Period; /* all ones, in 16 bits or in 32 */
  counted = now;
  return us;
}

/* Waits awake: a sleep would end with the next interrupt, whenever that is. Ticks that were missed are skipped. */
void kizzasi_stm32_idle(void *ctx) {
  uint32_t passed;
  do {
    passed = kizzasi_stm32_us(ctx) - began;
  } while (passed < port->tick_us);
  began += passed - passed % port->tick_us;
}

void kizzasi_stm32_kick(void *ctx) {
  (void)ctx;
  (void)HAL_IWDG_Refresh(port->watchdog);
}

/* ---- boot --------------------------------------------------------------------------------------------------- */

int kizzasi_stm32_start(const kizzasi_stm32 *with) {
  port = with;
  if (HAL_TIM_Base_Start(port->clock) != HAL_OK) return 0;
  counted = __HAL_TIM_GET_COUNTER(port->clock);
  return receive();
}

/* Every reset sets the pin's flag as well, so that one comes last; power-up sets brown-out's. */
uint8_t kizzasi_stm32_reset_cause(void) {
  uint8_t cause = KZ_RESET_SOFTWARE; /* the pin alone: a button, a debugger */
#if defined(RCC_FLAG_PORRST)
  if (__HAL_RCC_GET_FLAG(RCC_FLAG_PORRST))
    cause = KZ_RESET_POWER_ON;
#if defined(RCC_FLAG_BORRST)
  else if (__HAL_RCC_GET_FLAG(RCC_FLAG_BORRST))
    cause = KZ_RESET_BROWN_OUT;
#endif
#elif defined(RCC_FLAG_BORRST) /* one flag for both */
  if (__HAL_RCC_GET_FLAG(RCC_FLAG_BORRST)) cause = KZ_RESET_POWER_ON;
#elif defined(RCC_FLAG_PWRRST)
  if (__HAL_RCC_GET_FLAG(RCC_FLAG_PWRRST)) cause = KZ_RESET_POWER_ON;
#else
#error "this family names its reset flags otherwise: add them here"
#endif
  if (__HAL_RCC_GET_FLAG(RCC_FLAG_IWDGRST) || __HAL_RCC_GET_FLAG(RCC_FLAG_WWDGRST)) cause = KZ_RESET_WATCHDOG;
  __HAL_RCC_CLEAR_RESET_FLAGS();
  return cause;
}

#ifdef HAL_RNG_MODULE_ENABLED
uint32_t kizzasi_stm32_boot_id(RNG_HandleTypeDef *rng) {
  uint32_t id = 0;
  while (HAL_RNG_GenerateRandomNumber(rng, &id) != HAL_OK || id == 0) {
  }
  return id;
}
#endif
