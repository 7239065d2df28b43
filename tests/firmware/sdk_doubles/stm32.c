/* A test double of ST's HAL: a UART whose DMA takes its time, a timer, a motor with an encoder. Not the HAL: what this
 * proves is the port's own logic. */
#include <string.h>

#include "app.h"
#include "bench.h"
#include "main.h"

#define US_PER_BYTE 10

static DMA_HandleTypeDef dma_rx, dma_tx;
UART_HandleTypeDef hlpuart1;
TIM_HandleTypeDef htim1, htim2, htim3;
IWDG_HandleTypeDef hiwdg;
RNG_HandleTypeDef hrng;
GPIO_TypeDef gpio_b, gpio_c;

static uint8_t *rx;
static const uint8_t *tx;
static uint32_t rx_size, rx_at, tx_n, tx_ends, masked, random_errors, random_number;

/* ---- the test's side ---- */

void double_timer_bits(int bits) { htim2.Init.Period = bits == 16 ? 0xFFFFu : 0xFFFFFFFFu; }

/* What the HAL's interrupt handler does about a framing error: it ends the reception. */
void double_line_error(void) {
  hlpuart1.RxState = HAL_UART_STATE_READY;
  dma_rx.State = HAL_DMA_STATE_READY;
}

/* A transfer that ends without the callback, as after an error of the DMA. */
void double_transfer_error(void) {
  tx_n = 0;
  hlpuart1.gState = HAL_UART_STATE_READY;
}

/* Whether the joint stands on its switch. */
void double_home(int there) { gpio_b.pins = there ? gpio_b.pins | HOME_Pin : gpio_b.pins & ~(uint32_t)HOME_Pin; }

void double_random(uint32_t number, uint32_t errors) {
  random_number = number;
  random_errors = errors;
}

void bench_firmware(void) {
  hlpuart1.hdmarx = &dma_rx;
  hlpuart1.hdmatx = &dma_tx;
  hlpuart1.gState = hlpuart1.RxState = HAL_UART_STATE_READY;
  dma_rx.State = dma_tx.State = HAL_DMA_STATE_READY;
  if (!htim2.Init.Period) double_timer_bits(32);
  gpio_b.pins = HOME_Pin | DRIVER_FAULT_Pin; /* the joint stands on its switch; no fault */
  app_run();
}

static void serve_uart(void) {
  while (bench.rx_n && hlpuart1.RxState == HAL_UART_STATE_BUSY_RX) {
    rx[rx_at] = bench.rx[0];
    rx_at = (rx_at + 1) % rx_size;
    memmove(bench.rx, bench.rx + 1, --bench.rx_n);
  }
  if (bench.deaf) tx_ends++;
  if (!tx_n || masked || (int32_t)(bench.us - tx_ends) < 0) return;
  memcpy(bench.tx + bench.tx_n, tx, tx_n); /* only now: a piece that is overwritten under way shows */
  bench.tx_n += tx_n;
  tx_n = 0;
  hlpuart1.gState = HAL_UART_STATE_READY;
  HAL_UART_TxCpltCallback(&hlpuart1);
}

static uint32_t compare;
static int32_t speed; /* 1/256 count a tick of 100 us */

void bench_time_passes(void) {
  static int32_t fraction;
  serve_uart();
  bench.driven = (gpio_b.pins & MOTOR_ENABLE_Pin) != 0;
  gpio_c.pins = bench.stop ? STOP_Pin : 0;
  if (bench.us % 100) return;
  speed = bench.driven ? (gpio_b.pins & MOTOR_DIR_Pin ? -(int32_t)compare : (int32_t)compare) : 0;
  fraction += speed;
  bench.position += fraction / 256;
  fraction %= 256;
}

/* ---- the HAL's side ---- */

HAL_StatusTypeDef HAL_UART_Receive_DMA(UART_HandleTypeDef *huart, uint8_t *pData, uint16_t Size) {
  bench_call("HAL_UART_Receive_DMA");
  if (huart->RxState != HAL_UART_STATE_READY) return HAL_BUSY;
  rx = pData;
  rx_size = Size;
  rx_at = 0;
  huart->RxState = HAL_UART_STATE_BUSY_RX;
  huart->hdmarx->State = HAL_DMA_STATE_BUSY;
  return HAL_OK;
}

HAL_StatusTypeDef HAL_UART_Transmit_DMA(UART_HandleTypeDef *huart, const uint8_t *pData, uint16_t Size) {
  if (huart->gState != HAL_UART_STATE_READY) return HAL_BUSY;
  tx = pData;
  tx_n = Size;
  tx_ends = bench.us + Size * US_PER_BYTE;
  huart->gState = HAL_UART_STATE_BUSY_TX;
  return HAL_OK;
}

uint32_t __HAL_DMA_GET_COUNTER(DMA_HandleTypeDef *hdma) {
  (void)hdma;
  return rx_size - rx_at;
}

HAL_StatusTypeDef HAL_TIM_Base_Start(TIM_HandleTypeDef *htim) {
  (void)htim;
  return HAL_OK;
}

HAL_StatusTypeDef HAL_TIM_PWM_Start(TIM_HandleTypeDef *htim, uint32_t Channel) {
  (void)htim;
  (void)Channel;
  bench_call("HAL_TIM_PWM_Start");
  return HAL_OK;
}

HAL_StatusTypeDef HAL_TIM_Encoder_Start(TIM_HandleTypeDef *htim, uint32_t Channel) {
  (void)htim;
  (void)Channel;
  return HAL_OK;
}

uint32_t __HAL_TIM_GET_COUNTER(TIM_HandleTypeDef *htim) {
  if (htim == &htim3) return (uint16_t)bench.position;
  bench_spend(1);
  return bench.us & htim->Init.Period;
}

void __HAL_TIM_SET_COMPARE(TIM_HandleTypeDef *htim, uint32_t Channel, uint32_t Compare) {
  (void)htim;
  (void)Channel;
  compare = Compare;
}

HAL_StatusTypeDef HAL_IWDG_Refresh(IWDG_HandleTypeDef *w) {
  (void)w;
  bench.kicks++;
  bench.kicked_at = bench.us;
  return HAL_OK;
}

HAL_StatusTypeDef HAL_RNG_GenerateRandomNumber(RNG_HandleTypeDef *r, uint32_t *random32bit) {
  (void)r;
  bench_call("HAL_RNG_GenerateRandomNumber");
  bench_spend(10);
  if (random_errors && random_errors--) return HAL_ERROR;
  *random32bit = random_number;
  return HAL_OK;
}

GPIO_PinState HAL_GPIO_ReadPin(const GPIO_TypeDef *GPIOx, uint16_t GPIO_Pin) {
  return GPIOx->pins & GPIO_Pin ? GPIO_PIN_SET : GPIO_PIN_RESET;
}

void HAL_GPIO_WritePin(GPIO_TypeDef *GPIOx, uint16_t GPIO_Pin, GPIO_PinState PinState) {
  bench_output();
  if (GPIO_Pin == MOTOR_ENABLE_Pin) bench_call(PinState ? "on" : "off");
  GPIOx->pins = PinState ? GPIOx->pins | GPIO_Pin : GPIOx->pins & ~(uint32_t)GPIO_Pin;
}

uint32_t __HAL_RCC_GET_FLAG(uint32_t flag) { return bench.reset_flags >> (flag & 31) & 1; }
void __HAL_RCC_CLEAR_RESET_FLAGS(void) { bench.reset_flags = 0; }
uint32_t __get_PRIMASK(void) { return masked; }
void __set_PRIMASK(uint32_t priMask) { masked = priMask; }
void __disable_irq(void) { masked = 1; }
