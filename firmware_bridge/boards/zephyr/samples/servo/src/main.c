#include "kizzasi_zephyr.h"
#include "schema.h"
#include "servo.h"

#if SCHEMA_CHANNELS != KZ_NODE_CH || SCHEMA_SENSORS != KZ_NODE_SENSORS
#error "CONFIG_KIZZASI_CHANNELS and CONFIG_KIZZASI_SENSORS are not what board.toml says"
#endif

static const kz_board board = {
    .read = kizzasi_zephyr_read,
    .write = kizzasi_zephyr_write,
    .us = kizzasi_zephyr_us,
    .idle = kizzasi_zephyr_idle,
    .kick = kizzasi_zephyr_kick,
    .actuate = servo_actuate,
    .sense = servo_sense,
    .schema = schema,
    .schema_len = sizeof schema,
    .n_channels = SCHEMA_CHANNELS,
    .n_sensors = SCHEMA_SENSORS,
    .tick_us = SCHEMA_TICK_US,
    .modes = schema_modes,
};

/* Torque off first, then the watchdog, then all that may fail or hang. */
int main(void) {
  static kz_node node;
  uint8_t cause;
  int problem = servo_init();
  if (!problem) problem = kizzasi_zephyr_watchdog(servo_off);
  if (problem) return problem; /* nothing is driven */
  cause = kizzasi_zephyr_reset_cause();
  problem = kizzasi_zephyr_start(SCHEMA_TICK_US);
  if (problem) return problem; /* the watchdog bites */
  if (!kz_node_init(&node, &board, 0, kizzasi_zephyr_boot_id(), cause)) return -1;
  for (;;) kz_node_poll(&node);
}
