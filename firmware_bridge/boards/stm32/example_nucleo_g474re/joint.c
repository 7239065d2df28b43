#include "joint.h"

#include "main.h"

extern TIM_HandleTypeDef htim1, htim3;

#define FULL 8500        /* TIM1's period + 1: 20 kHz at 170 MHz */
#define ERROR_MOST 65536 /* counts: beyond it the error says no more, and nothing overflows */
#define KP 1024          /* 1/256 of PWM per count; to be tuned on the joint, without load first */
#define KD 1024          /* 1/256 of PWM per count and tick */

static int32_t position, last_error;
static uint16_t count;
static uint8_t homed; /* an incremental encoder knows its place only since then */

int joint_start(void) {
  return HAL_TIM_PWM_Start(&htim1, TIM_CHANNEL_1) == HAL_OK &&
         HAL_TIM_Encoder_Start(&htim3, TIM_CHANNEL_ALL) == HAL_OK;
}

void joint_off(void) {
  HAL_GPIO_WritePin(MOTOR_ENABLE_GPIO_Port, MOTOR_ENABLE_Pin, GPIO_PIN_RESET);
  __HAL_TIM_SET_COMPARE(&htim1, TIM_CHANNEL_1, 0);
}

uint8_t joint_sense(void *ctx, int32_t *sensors) {
  const uint16_t now = (uint16_t)__HAL_TIM_GET_COUNTER(&htim3);
  uint8_t inputs = 0;
  (void)ctx;
  position += (int16_t)(uint16_t)(now - count);
  count = now;
  if (!homed && HAL_GPIO_ReadPin(HOME_GPIO_Port, HOME_Pin) == GPIO_PIN_SET) {
    position = 0;
    homed = 1;
  }
  sensors[0] = position;
  if (!homed) inputs |= KZ_IN_NO_SAMPLE; /* push the joint to its switch by hand: it is without torque */
  if (HAL_GPIO_ReadPin(DRIVER_FAULT_GPIO_Port, DRIVER_FAULT_Pin) == GPIO_PIN_RESET) inputs |= KZ_IN_ACTUATOR_FAULT;
  if (HAL_GPIO_ReadPin(STOP_GPIO_Port, STOP_Pin) == GPIO_PIN_SET) inputs |= KZ_IN_ESTOP; /* open, or torn off */
  return inputs;
}

static int32_t within(int32_t x, int32_t most) { return x > most ? most : x < -most ? -most : x; }

void joint_actuate(void *ctx, const kz_output *o) {
  int32_t error, drive;
  (void)ctx;
  if (!(o->enabled & 1)) {
    joint_off();
    last_error = 0;
    return;
  }
  error = within(o->out[0] - position, ERROR_MOST); /* both within KZ_RAW_MAX */
  drive = within((KP * error + KD * within(error - last_error, ERROR_MOST / 64)) / 256, FULL);
  last_error = error;
  HAL_GPIO_WritePin(MOTOR_DIR_GPIO_Port, MOTOR_DIR_Pin, drive < 0 ? GPIO_PIN_SET : GPIO_PIN_RESET);
  __HAL_TIM_SET_COMPARE(&htim1, TIM_CHANNEL_1, (uint32_t)(drive < 0 ? -drive : drive));
  HAL_GPIO_WritePin(MOTOR_ENABLE_GPIO_Port, MOTOR_ENABLE_Pin, GPIO_PIN_SET);
}
