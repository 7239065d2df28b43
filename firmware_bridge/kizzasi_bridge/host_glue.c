#include "host_glue.h"

#include <string.h>

#include "../boards/plant_message.h"

static void node_write(void *ctx, const uint8_t *frame, uint16_t n) {
  kz_host_node *h = ctx;
  if (h->tx_n + n > sizeof h->tx) {
    h->dropped++;
    return;
  }
  memcpy(h->tx + h->tx_n, frame, n);
  h->tx_n += n;
}

static void node_actuate(void *ctx, const kz_output *o) {
  kz_host_node *h = ctx;
  uint8_t i;
  h->enabled = o->enabled;
  h->boundary = o->boundary;
  for (i = 0; i < h->board.n_channels; ++i) {
    h->out[i] = o->out[i];
    h->applied[i] = kz_channel_sent(&o->channel[i]);
    if (h->ideal) plant_ideal_channel(&h->sensors[i], o, i);
  }
}

static uint8_t node_sense(void *ctx, int32_t *sensors) {
  const kz_host_node *h = ctx;
  memcpy(sensors, h->sensors, sizeof(int32_t) * h->board.n_sensors);
  return h->inputs;
}

int kz_host_node_init(kz_host_node *h, int n_channels, int n_sensors, const uint8_t *modes, const uint8_t *schema,
                      int schema_len, uint32_t tick_us, uint32_t boot_id, int reset_cause) {
  memset(h, 0, sizeof *h);
  if (schema_len < 0 || (size_t)schema_len > sizeof h->schema || (size_t)n_channels > sizeof h->modes) return 0;
  memcpy(h->modes, modes, (size_t)n_channels);
  memcpy(h->schema, schema, (size_t)schema_len);
  h->board.write = node_write; /* read, us, idle and kick are kz_node_poll's, which virtual time does without */
  h->board.actuate = node_actuate;
  h->board.sense = node_sense;
  h->board.schema = h->schema;
  h->board.schema_len = (uint16_t)schema_len;
  h->board.n_channels = (uint8_t)n_channels;
  h->board.n_sensors = (uint8_t)n_sensors;
  h->board.tick_us = tick_us;
  h->board.modes = h->modes;
  return kz_node_init(&h->node, &h->board, h, boot_id, (uint8_t)reset_cause);
}

void kz_host_node_rx(kz_host_node *h, const uint8_t *data, int n) { kz_node_rx(&h->node, data, (uint16_t)n); }

void kz_host_node_tick(kz_host_node *h, uint32_t now_us) {
  const kz_node *n = &h->node;
  kz_node_tick(&h->node, now_us);
  h->fault = n->fault;
  h->applied_seq = n->applied_seq;
  h->clamped = n->clamped;
  h->ignored = n->ignored;
  h->misses = n->misses;
  h->stale = n->stale;
}

int kz_host_node_state(const kz_host_node *h) { return h->node.state; }

int kz_host_node_take(kz_host_node *h, uint8_t *out, int room) {
  const uint32_t n = h->tx_n < (uint32_t)room ? h->tx_n : (uint32_t)room;
  if (n) memcpy(out, h->tx, n);
  h->tx_n = 0;
  return (int)n;
}
