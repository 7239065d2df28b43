/* What boards without motors share: ideal actuators, and the message that tells a tick's outputs (docs/protocol.md,
 * "Plant socket"). */
#ifndef KZ_PLANT_MESSAGE_H
#define KZ_PLANT_MESSAGE_H

#include <string.h>

#include "kz_node.h"

#define PLANT_MESSAGE(channels) (16 + 8 * (channels))

static inline void plant_message(uint8_t *buf, const kz_output *o, uint8_t channels, uint32_t tick_us) {
  uint8_t i;
  kz_put32(buf, o->t_us);
  kz_put32(buf + 4, tick_us);
  buf[8] = o->enabled != 0;
  buf[9] = o->state;
  buf[10] = o->boundary;
  buf[11] = channels;
  kz_put32(buf + 12, o->session);
  for (i = 0; i < channels; ++i) {
    kz_put32(buf + 16 + 4 * i, (uint32_t)o->out[i]);
    kz_put32(buf + 16 + 4 * (channels + i), (uint32_t)o->axis[i].q);
  }
}

/* Every driven channel is where it was told to be. */
static inline void plant_ideal(int32_t *sensors, const kz_output *o, uint8_t channels, uint8_t n_sensors) {
  uint8_t i;
  for (i = 0; i < n_sensors; ++i) {
    const uint8_t c = (uint8_t)(i % channels);
    if ((uint32_t)o->enabled >> c & 1) sensors[i] = o->out[c];
  }
}

#endif
