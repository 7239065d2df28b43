/* Stands in for CubeMX's main.h: the HAL, and the pins by their user labels. */
#ifndef MAIN_H
#define MAIN_H

#include "stm32g4xx_hal.h"

#define MOTOR_ENABLE_GPIO_Port GPIOB
#define MOTOR_ENABLE_Pin GPIO_PIN_5
#define MOTOR_DIR_GPIO_Port GPIOB
#define MOTOR_DIR_Pin GPIO_PIN_4
#define HOME_GPIO_Port GPIOB
#define HOME_Pin GPIO_PIN_10
#define DRIVER_FAULT_GPIO_Port GPIOB
#define DRIVER_FAULT_Pin GPIO_PIN_3
#define STOP_GPIO_Port GPIOC
#define STOP_Pin GPIO_PIN_8

#endif
