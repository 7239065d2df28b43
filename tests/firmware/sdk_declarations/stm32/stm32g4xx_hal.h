/* NOT the HAL: declarations of what the port and its example call, written after ST's UM2570 ("Description of STM32G4
 * HAL and low-layer drivers": chapters UART, TIM, IWDG, RNG, GPIO, RCC), so that a compiler checks names, types and
 * arities. Where the HAL has a macro over a register, this has a function, which a test double can answer. */
#ifndef STM32G4XX_HAL_H
#define STM32G4XX_HAL_H

#include <stdint.h>

typedef enum { HAL_OK = 0, HAL_ERROR = 1, HAL_BUSY = 2, HAL_TIMEOUT = 3 } HAL_StatusTypeDef;

/* DMA, UART */
typedef enum { HAL_DMA_STATE_RESET, HAL_DMA_STATE_READY, HAL_DMA_STATE_BUSY } HAL_DMA_StateTypeDef;
typedef struct {
  volatile HAL_DMA_StateTypeDef State;
} DMA_HandleTypeDef;
typedef uint32_t HAL_UART_StateTypeDef;
#define HAL_UART_STATE_RESET 0x00000000U
#define HAL_UART_STATE_READY 0x00000020U
#define HAL_UART_STATE_BUSY_TX 0x00000021U
#define HAL_UART_STATE_BUSY_RX 0x00000022U
typedef struct {
  DMA_HandleTypeDef *hdmatx, *hdmarx;
  volatile HAL_UART_StateTypeDef gState, RxState;
} UART_HandleTypeDef;
HAL_StatusTypeDef HAL_UART_Receive_DMA(UART_HandleTypeDef *huart, uint8_t *pData, uint16_t Size);
HAL_StatusTypeDef HAL_UART_Transmit_DMA(UART_HandleTypeDef *huart, const uint8_t *pData, uint16_t Size);
void HAL_UART_TxCpltCallback(UART_HandleTypeDef *huart);
uint32_t __HAL_DMA_GET_COUNTER(DMA_HandleTypeDef *hdma);

/* TIM */
typedef struct {
  uint32_t Period;
} TIM_Base_InitTypeDef;
typedef struct {
  TIM_Base_InitTypeDef Init;
} TIM_HandleTypeDef;
#define TIM_CHANNEL_1 0x00000000U
#define TIM_CHANNEL_ALL 0x0000003CU
HAL_StatusTypeDef HAL_TIM_Base_Start(TIM_HandleTypeDef *htim);
HAL_StatusTypeDef HAL_TIM_PWM_Start(TIM_HandleTypeDef *htim, uint32_t Channel);
HAL_StatusTypeDef HAL_TIM_Encoder_Start(TIM_HandleTypeDef *htim, uint32_t Channel);
uint32_t __HAL_TIM_GET_COUNTER(TIM_HandleTypeDef *htim);
void __HAL_TIM_SET_COMPARE(TIM_HandleTypeDef *htim, uint32_t Channel, uint32_t Compare);

/* IWDG, RNG */
typedef struct {
  int unused;
} IWDG_HandleTypeDef;
HAL_StatusTypeDef HAL_IWDG_Refresh(IWDG_HandleTypeDef *hiwdg);
#define HAL_RNG_MODULE_ENABLED
typedef struct {
  int unused;
} RNG_HandleTypeDef;
HAL_StatusTypeDef HAL_RNG_GenerateRandomNumber(RNG_HandleTypeDef *hrng, uint32_t *random32bit);

/* GPIO */
typedef struct {
  uint32_t pins;
} GPIO_TypeDef;
extern GPIO_TypeDef gpio_b, gpio_c;
#define GPIOB (&gpio_b)
#define GPIOC (&gpio_c)
#define GPIO_PIN_3 ((uint16_t)0x0008)
#define GPIO_PIN_4 ((uint16_t)0x0010)
#define GPIO_PIN_5 ((uint16_t)0x0020)
#define GPIO_PIN_8 ((uint16_t)0x0100)
#define GPIO_PIN_10 ((uint16_t)0x0400)
typedef enum { GPIO_PIN_RESET = 0U, GPIO_PIN_SET } GPIO_PinState;
GPIO_PinState HAL_GPIO_ReadPin(const GPIO_TypeDef *GPIOx, uint16_t GPIO_Pin);
void HAL_GPIO_WritePin(GPIO_TypeDef *GPIOx, uint16_t GPIO_Pin, GPIO_PinState PinState);

/* RCC. The family at hand may be chosen: which flags there are differs. */
#define RCC_FLAG_SFTRST 0x7CU
#define RCC_FLAG_IWDGRST 0x7DU
#define RCC_FLAG_WWDGRST 0x7EU
#if defined(LIKE_F1)
#define RCC_FLAG_PORRST 0x7BU
#elif defined(LIKE_F4)
#define RCC_FLAG_PORRST 0x7BU
#define RCC_FLAG_BORRST 0x79U
#elif defined(LIKE_G0)
#define RCC_FLAG_PWRRST 0x7BU
#else
#define RCC_FLAG_BORRST 0x79U
#endif
uint32_t __HAL_RCC_GET_FLAG(uint32_t flag);
void __HAL_RCC_CLEAR_RESET_FLAGS(void);

/* CMSIS */
uint32_t __get_PRIMASK(void);
void __set_PRIMASK(uint32_t priMask);
void __disable_irq(void);

#endif
