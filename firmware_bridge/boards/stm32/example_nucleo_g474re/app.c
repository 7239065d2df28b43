#include "app.h"

#include "joint.h"
#include "kizzasi_stm32.h"
#include "schema.h"

#if SCHEMA_CHANNELS != KZ_NODE_CH || SCHEMA_SENSORS != KZ_NODE_SENSORS
#error "KZ_NODE_CH and KZ_NODE_SENSORS are not what board.toml says"
#endif

extern UART_HandleTypeDef hlpuart1;
extern TIM_HandleTypeDef htim2;
extern IWDG_HandleTypeDef hiwdg;
extern RNG_HandleTypeDef hrng;

static const kizzasi_stm32 port = {&hlpuart1, &htim2, &hiwdg, SCHEMA_TICK_US};

static const kz_board board = {
    .read = kizzasi_stm32_read,
    .write = kizzasi_stm32_write,
    .us = kizzasi_stm32_us,
    .idle = kizzasi_stm32_idle,
    .kick = kizzasi_stm32_kick,
    .actuate = joint_actuate,
    .sense = joint_sense,
    .schema = schema,
    .schema_len = sizeof schema,
    .n_channels = SCHEMA_CHANNELS,
    .n_sensors = SCHEMA_SENSORS,
    .tick_us = SCHEMA_TICK_US,
    .modes = schema_modes,
};

void app_run(void) {
  static kz_node node;
  const uint8_t cause = kizzasi_stm32_reset_cause();
  joint_off();
  if (!joint_start() || !kizzasi_stm32_start(&port)) return;
  if (!kz_node_init(&node, &board, 0, kizzasi_stm32_boot_id(&hrng), cause)) return;
  for (;;) kz_node_poll(&node);
}

/* The weak callback of the HAL. A project that has its own calls kizzasi_stm32_sent from there. */
void HAL_UART_TxCpltCallback(UART_HandleTypeDef *uart) { kizzasi_stm32_sent(uart); }
