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
    kz_put32(buf + 16 + 4 * (channels + i), (uint32_t)kz_channel_sent(&o->channel[i]));
  }
}

/* One driven channel as it was told: a position is there, a velocity moves by its step a period. A torque moves nothing:
 * that takes a mass. */
static inline void plant_ideal_channel(int32_t *sensor, const kz_output *o, uint8_t c) {
  const kz_channel *channel = &o->channel[c];
  if (!((uint32_t)o->enabled >> c & 1)) return;
  if (channel->mode == KZ_MODE_POSITION) *sensor = o->out[c];
  if (channel->mode == KZ_MODE_VELOCITY && o->boundary)
    *sensor = (int32_t)((uint32_t)*sensor + (uint32_t)kz_channel_sent(channel)); /* an encoder wraps */
}

/* All of them, and every further sensor in step with its channel. */
static inline void plant_ideal(int32_t *sensors, const kz_output *o, uint8_t channels, uint8_t n_sensors) {
  uint8_t i;
  for (i = 0; i < n_sensors; ++i) plant_ideal_channel(&sensors[i], o, (uint8_t)(i % channels));
}

#endif
